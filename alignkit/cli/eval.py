"""`align eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    console,
    json_option,
    kit_option,
    load_registry,
    print_json,
)
from alignkit.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.endpoint.judges import JudgeClient
    from alignkit.evaluate import EvalRequest, Planned, Progress, StoredResponses
    from alignkit.evaluate.engines import EngineChoice
    from alignkit.plugins import Plugin, Registry

ROOT = Path("runs")


@click.command("eval")
@click.argument("evals", metavar="EVAL...", nargs=-1, required=True)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="PATH",
    help="Folder, run, or Hub id (repeatable).",
)
@click.option(
    "--responses", metavar="FILE", help="Score stored responses; no model is loaded."
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "transformers", "vllm", "openai"]),
    default="auto",
)
@click.option(
    "--base-url", metavar="URL", help="An OpenAI-compatible server that has the model."
)
@click.option(
    "--serve", is_flag=True, help="Start a vLLM server here for the time of the eval."
)
@click.option(
    "--replicas",
    type=click.IntRange(1),
    help="Copies of the model, one per GPU (--serve).",
)
@click.option(
    "--gpu-memory-utilization",
    type=click.FloatRange(0, 1, min_open=True),
    help="vLLM's share of a GPU.",
)
@click.option(
    "--max-model-len",
    type=click.IntRange(1),
    help="vLLM: longest prompt with completion.",
)
@click.option(
    "--max-num-seqs",
    type=click.IntRange(1),
    help="vLLM: completions generated at once.",
)
@click.option(
    "--tensor-parallel-size",
    type=click.IntRange(1),
    help="vLLM: GPUs that share one copy of the model.",
)
@click.option(
    "--key-variable",
    metavar="NAME",
    help="The environment variable with the endpoint's key.",
)
@click.option(
    "--api", type=click.Choice(["auto", "chat", "completions"]), help="Of the endpoint."
)
@click.option(
    "--judge", metavar="NAME[:MODEL]", help="Who judges, for evals that need it."
)
@click.option("--judge-base-url", metavar="URL", help="Another server for the judge.")
@click.option(
    "--judge-price",
    type=float,
    metavar="USD",
    help="Dollars per million tokens, in and out.",
)
@click.option(
    "--max-cost",
    type=float,
    metavar="USD",
    help="Stop judging before this is exceeded.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    help="Requests under way at once (default: 16; with --serve 256).",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="This many samples, spread over the data; always the same ones.",
)
@click.option("--split", help="Another split of the data.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Completions per question.",
)
@click.option("--prompt", help="A prompt's name (align plugins list).")
@click.option(
    "--prompt-file", metavar="FILE", help="A prompt template, taken byte for byte."
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="[EVAL.]KEY=VALUE",
    help="A sampling setting, or an option of an eval or its dataset (repeatable).",
)
@click.option(
    "--data",
    metavar="PATH",
    help="A file, or a folder of benchmark files (also: the variable ALIGN_DATA).",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Completions at once, of a model in this process (default: 32).",
)
@click.option(
    "--dtype", metavar="NAME", help="Of the weights (default: the model's own)."
)
@click.option(
    "--out", metavar="DIR", help="Where results go (default: runs/evals/MODEL)."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with results already there.",
)
@kit_option
@json_option
def evaluate(
    evals: tuple[str, ...], models: tuple[str, ...], responses: str | None, **flags: Any
) -> int:
    """Evaluate models, an endpoint, or stored responses on benchmarks. Without --model:
    the newest finished run.
    """
    from alignkit.evaluate import StoredResponses
    from alignkit.evaluate.engines import EngineChoice

    texts = {**flags, "responses": responses, "model": "" if "" in models else None}
    if empty := ", ".join(
        f"--{name.replace('_', '-')}" for name, value in texts.items() if value == ""
    ):
        raise InputError(
            f"{empty}: an empty text was given (a variable that is not set?); leave it"
            " out or fill it"
        )
    registry = load_registry(kit=flags["kit"])
    out = console(flags["as_json"])
    stored = None
    asked = {field.name: flags[field.name] for field in fields(EngineChoice)}
    if flags["judge"] and not (flags["base_url"] or flags["serve"]):
        asked["concurrency"] = None  # the judge reads it
    if responses is not None:
        given = ["model"] * bool(models) + [
            name for name, value in asked.items() if value not in (None, False, "auto")
        ]
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                "--responses scores what is stored, nothing is generated: leave out"
                f" {names}"
            )
        stored = StoredResponses.read(responses)
    elif not models and (flags["base_url"] or flags["engine"] == "openai"):
        raise InputError("--model: name the model as the server of --base-url calls it")
    elif not models:
        models = (_newest(out),)
    choice = EngineChoice(**asked)
    for name in models:
        choice.check(name)
    plugins = [registry.get("eval", name) for name in dict.fromkeys(evals)]
    planned = plan(registry, plugins, stored, flags)
    try:
        summaries = list(_work(planned, choice, models, stored, registry, flags, out))
    except KeyboardInterrupt:
        click.echo(
            "interrupted; what is done is kept: run the same command again to go on",
            err=True,
        )
        return 130
    if flags["as_json"]:
        print_json(summaries)
    else:
        show(summaries, out)
    left = sum(s["status"].get("open", 0) for s in summaries)
    if left:
        click.echo(
            f"{left} judgements are left open; run the same command again to judge"
            " them",
            err=True,
        )
    return 1 if left else 0


def plan(
    registry: Registry,
    plugins: Sequence[Plugin],
    stored: StoredResponses | None,
    flags: Any,
) -> list[Planned]:
    """All evals ready to run, or every problem at once."""
    from alignkit.evaluate import plan_eval

    if flags["prompt"] and flags["prompt_file"]:
        raise InputError("--prompt and --prompt-file exclude each other")
    needing = [p.name for p in plugins if p.value.judge is not None]
    if needing and not flags["judge"]:
        raise InputError(
            f"{', '.join(needing)}: judged by a model; name one with --judge"
            f" ({_judges(registry)})"
        )
    if flags["judge"] and not needing:
        raise InputError(
            f"--judge: no model judges {', '.join(p.name for p in plugins)}; leave"
            " it out"
        )
    for name in ("judge_base_url", "judge_price", "max_cost"):
        if flags[name] is not None and not flags["judge"]:
            raise InputError(
                f"--{name.replace('_', '-')} is for a judge: name one with --judge, or"
                " leave it out"
            )
    if flags["data"] and len(plugins) > 1 and not Path(flags["data"]).is_dir():
        raise InputError(
            "--data is one file for several evals; give a folder, or one eval"
        )
    changes = settings(registry, plugins, flags["sets"])
    planned: list[Planned] = []
    problems: list[str] = []
    for plugin in plugins:
        try:
            planned.append(
                plan_eval(
                    _request(plugin, changes[plugin.name], flags), registry, stored
                )
            )
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return planned


def _request(
    plugin: Plugin, changes: Mapping[str, dict[str, Any]], flags: Any
) -> EvalRequest:
    from alignkit.evaluate import EvalRequest

    data = {
        **changes["data"],
        **{k: flags[v] for k, v in (("split", "split"), ("path", "data")) if flags[v]},
    }
    prompt = {"file": flags["prompt_file"]} if flags["prompt_file"] else flags["prompt"]
    names = ("limit", "samples", "seed")
    return EvalRequest(
        plugin=plugin,
        options=changes["options"],
        sampling=changes["sampling"],
        data=data,
        prompt=prompt,
        **{name: flags[name] for name in names},
    )


def settings(
    registry: Registry, plugins: Sequence[Plugin], sets: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """{eval: {sampling, options, data}} from `KEY=VALUE` (for every eval that has it)
    and `EVAL.KEY=VALUE`.
    """
    from ruamel.yaml import YAML, YAMLError

    from alignkit.errors import nearest
    from alignkit.evaluate import SAMPLING

    found: dict[str, dict[str, dict[str, Any]]] = {
        p.name: {"sampling": {}, "options": {}, "data": {}} for p in plugins
    }
    for text in sets:
        key, equals, value = text.partition("=")
        scope, _, name = key.strip().rpartition(".")
        if not equals or (scope and scope not in found):
            raise InputError(
                f"--set {text}: expected KEY=VALUE or EVAL.KEY=VALUE with one of"
                f" {', '.join(found)}"
            )
        try:
            parsed = YAML(typ="safe", pure=True).load(value)
        except YAMLError as error:
            raise InputError(f"--set {text}: the value is not YAML") from error
        known = set(SAMPLING)
        taken = False
        for plugin in plugins:
            if scope not in ("", plugin.name):
                continue
            dataset = registry.get("dataset", plugin.value.data.get("dataset", "jsonl"))
            homes = {
                "sampling": SAMPLING,
                "options": plugin.options(),
                "data": dataset.options(),
            }
            known |= {name for names in homes.values() for name in names}
            home = next((home for home, names in homes.items() if name in names), None)
            if home is not None:
                found[plugin.name][home][name] = parsed
                taken = True
        if not taken:
            raise InputError(f"--set {text}: no such setting; {nearest(name, known)}")
    return found


def _work(
    planned: Sequence[Planned],
    choice: EngineChoice,
    models: Sequence[str],
    stored: StoredResponses | None,
    registry: Registry,
    flags: Any,
    out: Console,
) -> Iterator[dict[str, Any]]:
    from alignkit.evaluate import evaluate as run_eval
    from alignkit.evaluate.engines import slug, step_of
    from alignkit.grading import Grader

    names = [f"responses:{stored.path}"] if stored else list(models)
    root = Path(flags["out"]) if flags["out"] else ROOT / "evals"
    judge = (
        _judge(registry, flags, root)
        if any(p.request.plugin.value.judge for p in planned)
        else None
    )
    with Grader() as grader:
        for name in names:
            beside = flags["out"] and len(names) == 1
            folder = root if beside else root / slug(name)
            engine = (
                None
                if stored
                else choice.open(name, folder / "serve.log", _patience(name))
            )
            try:
                for work in planned:
                    with progress(out, f"{work.request.plugin.name}") as report:
                        yield run_eval(
                            work,
                            engine,
                            folder,
                            model=name if stored else None,
                            how={
                                key: flags[key]
                                for key in ("api", "dtype")
                                if flags[key] not in (None, "auto")
                            },
                            step=0 if stored else step_of(name),
                            judge=judge,
                            grader=grader,
                            resume=flags["resume"],
                            progress=report,
                            announce=lambda text: click.echo(text, err=True),
                        )
            finally:
                if engine is not None:
                    engine.close()


def _patience(model: str) -> Callable[[float], None]:
    """Says every ten seconds that the server is still starting."""
    last = 0.0

    def waiting(seconds: float) -> None:
        nonlocal last
        if seconds >= last + 10:
            last = seconds
            click.echo(f"waiting for vLLM to serve {model}: {seconds:.0f} s", err=True)

    return waiting


def _judge(registry: Registry, flags: Any, root: Path) -> JudgeClient:
    from alignkit.endpoint.judges import JudgeClient, resolve

    chosen = resolve(
        registry, flags["judge"], flags["judge_base_url"], flags["judge_price"]
    )
    store = root / "judgements.jsonl"
    return JudgeClient(
        chosen,
        store,
        max_cost=flags["max_cost"],
        concurrency=flags["concurrency"] or 16,
    )


def _judges(registry: Registry) -> str:
    return ", ".join(registry.names("judge"))


def _newest(out: Console) -> str:
    from alignkit.run import newest_finished

    found = newest_finished(ROOT).folder
    out.print(
        f"model: {found} (the newest finished run)",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return str(found)


@contextmanager
def progress(out: Console, name: str) -> Iterator[Progress]:
    """A bar with rate and time left on a terminal; elsewhere a line at each tenth."""
    if not out.is_terminal:
        seen: dict[str, int] = {}

        def line(stage: str, done: int, total: int) -> None:
            tenth = 10 * done // total if total else 10
            if tenth > seen.get(stage, 0):
                seen[stage] = tenth
                click.echo(f"{name}: {stage} {done}/{total}", err=True)

        yield line
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=out, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def bar(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(
                    f"{name}: {stage}", total=total, completed=done, rate=""
                )
            task = bars.tasks[bars.task_ids.index(tasks[stage])]
            rate = f"{task.speed:.1f}/s" if task.speed else ""
            bars.update(tasks[stage], completed=done, rate=rate)

        yield bar


def show(summaries: Sequence[Mapping[str, Any]], out: Console) -> None:
    """One row per eval and model."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "eval",
        "model",
        "metric",
        "value",
        "95 % interval",
        "n",
        "statuses",
        box=None,
        pad_edge=False,
    )
    for s in summaries:
        value = "-" if s["value"] is None else f"{s['value']:.4f}"
        interval = "-" if s["low"] is None else f"{s['low']:.4f} to {s['high']:.4f}"
        statuses = ", ".join(
            f"{count} {status}" for status, count in s["status"].items()
        )
        table.add_row(
            s["eval"],
            escape(s["provenance"]["model"]),
            s["metric"],
            value,
            interval,
            str(s["n"]),
            statuses,
        )
    out.print(table)
    for s in summaries:
        for name, count in s["tally"].items():
            out.print(f"{s['eval']}: {name}: {count}", highlight=False, markup=False)
        passes = {k: v for k, v in s["metrics"].items() if k.startswith("pass@")}
        if passes:
            out.print(
                f"{s['eval']}: " + ", ".join(f"{k} {v:.4f}" for k, v in passes.items()),
                highlight=False,
                markup=False,
            )
        if "judging" in s:
            spent = s["judging"]["dollars"]
            cost = "cost unknown" if spent is None else f"${spent:.4f}"
            judged = f"{s['metrics']['scored']} of {s['completions']} judged"
            out.print(f"{s['eval']}: {judged}, {cost}", highlight=False, markup=False)
        out.print(
            f"{s['eval']}: {s['folder']}", highlight=False, markup=False, soft_wrap=True
        )
