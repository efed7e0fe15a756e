"""`align eval`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import (
    allow_option,
    allow_typed,
    console,
    json_option,
    kit_option,
    load_registry,
    print_json,
    progress,
    typed_rewards,
)
from alignkit.cli.eval_options import engine_options, judge_options, prompt_options
from alignkit.cli.eval_results import left_open, show
from alignkit.cli.judging import judge_client, judge_config
from alignkit.errors import InputError
from alignkit.run import stopping
from alignkit.terminal import echo, say

if TYPE_CHECKING:
    from alignkit.evaluate import EvalRequest, StoredResponses
    from alignkit.evaluate.engines import EngineChoice
    from alignkit.plugins import Plugin, Registry

ROOT = Path("runs")


@click.command("eval")
@click.argument("evals", metavar="EVAL...", nargs=-1, required=True)
@click.option(
    "--reward",
    metavar="NAME[:OPTION=VALUE,…]",
    help="Grades the rows of the eval data:FILE.",
)
@click.option(
    "--responses", metavar="FILE", help="Score stored responses; no model is loaded."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    help="This many samples, spread over the data; always the same ones.",
)
@click.option("--split", help="Another split of the data.")
@click.option(
    "--seed", type=int, help="Of sampling (default: that of the model's run, else 0)."
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Completions per question.",
)
@prompt_options
@click.option(
    "--grader",
    metavar="NAME",
    help="How an eval reads answers, where it has several: --set grader=NAME.",
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
    "--out", metavar="DIR", help="Where results go (default: runs/evals/MODEL)."
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on with results already there.",
)
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["wandb", "trackio", "tensorboard"]),
    help="Send the results to a tracker too (repeatable).",
)
@engine_options
@judge_options
@kit_option
@allow_option
@json_option
def evaluate(
    evals: tuple[str, ...], models: tuple[str, ...], responses: str | None, **flags: Any
) -> int:
    """Evaluate models, an endpoint, or stored responses on benchmarks (align plugins
    list), or on rows of your own: data:FILE with --reward. Without --model: the newest
    finished run. A run's model is measured as its recipe says, but for what is typed.
    """
    from alignkit.evaluate.session import Session, plan_all, plan_each, requests
    from alignkit.evaluate.trained import Trained
    from alignkit.plan import machine

    _refuse_empty({**flags, "responses": responses}, models)
    machine.require_trackers(flags["track"])
    registry = load_registry(kit=flags["kit"])
    config = judge_config(registry, evals, flags)
    choice = _choice(flags)
    stored = _stored(responses, choice, models)
    if stored is None and not models:
        models = (_default_model(choice, flags["as_json"]),)
    for name in models:
        choice.check(name)
    allow_typed(choice.base_url, choice.key_variable)
    runs = filter(None, map(Trained.of, models))
    asked = requests(registry, evals, flags["reward"], list(runs))
    typed_rewards(registry, [flags["reward"]] if flags["reward"] else [])
    typed = _requests(registry, asked, flags)
    if stored is not None:
        planned = {f"responses:{stored.path}": plan_all(typed, registry, stored)}
    else:
        planned = plan_each(typed, flags["seed"], models, registry, _announce)
    for one in (one for each in planned.values() for one in each):
        if one.likelihood and stored is None:
            choice.check_likelihood(one.request.plugin.name)
    root = Path(flags["out"]) if flags["out"] else ROOT / "evals"
    session = Session(
        planned=planned,
        choice=choice,
        stored=stored,
        root=root,
        own_root=bool(flags["out"]) and len(models) < 2,
        judge=judge_client(registry, flags, root, config),
        resume=flags["resume"],
    )
    try:
        summaries = list(session.run(progress, _announce, _patience))
    except KeyboardInterrupt:
        _announce(
            "interrupted; what is done is kept: run the same command again to go on"
        )
        return stopping.exit_code()
    if flags["track"]:
        from alignkit.train import direct, tracking

        direct.track_evals(flags["track"], summaries, root)
        tracking.say_how_to_sync(console(flags["as_json"]), flags["track"], root)
    if flags["as_json"]:
        print_json(summaries)
    else:
        show(summaries, console())
    left = sum(s["status"].get("open", 0) for s in summaries)
    if left:
        _announce(left_open(left, summaries))
    return 1 if left else 0


def _refuse_empty(texts: Mapping[str, Any], models: Sequence[str]) -> None:
    empty = [name for name, value in texts.items() if value == ""]
    names = ", ".join(map(_flag, empty + ["model"] * ("" in models)))
    if names:
        raise InputError(
            f"{names}: an empty text was given (a variable that is not set?); leave it"
            " out or fill it"
        )


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _choice(flags: Mapping[str, Any]) -> EngineChoice:
    from alignkit.evaluate.engines import EngineChoice

    asked = {field.name: flags[field.name] for field in fields(EngineChoice)}
    if flags["judge"] and not (flags["base_url"] or flags["serve"]):
        asked["concurrency"] = None  # the judge reads it
    return EngineChoice(**asked)


def _stored(
    responses: str | None, choice: EngineChoice, models: Sequence[str]
) -> StoredResponses | None:
    from alignkit.evaluate import StoredResponses

    if responses is None:
        return None
    asked = {field.name: getattr(choice, field.name) for field in fields(choice)}
    stated = [
        name for name, value in asked.items() if value not in (None, False, "auto")
    ]
    if names := ", ".join(map(_flag, ["model"] * bool(models) + stated)):
        raise InputError(
            "--responses scores what is stored, nothing is generated: leave out"
            f" {names}"
        )
    return StoredResponses.read(responses)


def _default_model(choice: EngineChoice, as_json: bool) -> str:
    from alignkit.run import newest_finished

    if choice.base_url or choice.engine == "openai":
        raise InputError("--model: name the model as the server of --base-url calls it")
    newest = str(newest_finished(ROOT).folder)
    say(console(as_json), f"model: {newest} (the newest finished run)")
    return newest


def _requests(
    registry: Registry, asked: Sequence[EvalRequest], flags: Mapping[str, Any]
) -> list[EvalRequest]:
    """Each eval as the flags ask for it."""
    from alignkit.evaluate.session import settings

    plugins = [request.plugin for request in asked]
    if flags["prompt"] and flags["prompt_file"]:
        raise InputError("--prompt and --prompt-file exclude each other")
    _check_judge(registry, plugins, flags)
    if flags["data"] and len(plugins) > 1 and not Path(flags["data"]).is_dir():
        raise InputError(
            "--data is one file for several evals; give a folder, or one eval"
        )
    sets = list(flags["sets"])
    if flags["grader"]:
        sets.append(f"grader={flags['grader']}")
    if flags["both_orders"]:
        sets.append("both_orders=true")
    changes = settings(registry, plugins, sets)
    sources = {"split": flags["split"], "path": flags["data"]}
    source = {key: value for key, value in sources.items() if value}
    prompt = {"file": flags["prompt_file"]} if flags["prompt_file"] else flags["prompt"]
    of_files = [Path(request.data["path"]) for request in asked if request.reward]
    if flags["data"] and of_files:
        raise InputError("--data: data:FILE names its file itself; leave it out")
    if flags["split"] and any(path.is_file() for path in of_files):
        raise InputError("--split: data:FILE is one file, without splits; leave it out")
    return [
        replace(
            request,
            options=changes[request.plugin.name]["options"],
            sampling=changes[request.plugin.name]["sampling"],
            data={**request.data, **changes[request.plugin.name]["data"], **source},
            prompt=prompt,
            reasoning=flags["reasoning"],
            limit=flags["limit"],
            samples=flags["samples"],
            shots=flags["shots"],
            shots_from=flags["shots_from"],
            seed=flags["seed"] or 0,
        )
        for request in asked
    ]


def _check_judge(
    registry: Registry, plugins: Sequence[Plugin], flags: Mapping[str, Any]
) -> None:
    needing = [plugin.name for plugin in plugins if plugin.value.judge is not None]
    if needing and not flags["judge"]:
        raise InputError(
            f"{', '.join(needing)}: judged by a model; name one with --judge"
            f" ({', '.join(registry.names('judge'))})"
        )
    if flags["judge"] and not needing:
        names = ", ".join(plugin.name for plugin in plugins)
        raise InputError(f"--judge: no model judges {names}; leave it out")
    of_judges = ("base_url", "key", "tokens", "price")
    for name in (*(f"judge_{part}" for part in of_judges), "max_cost"):
        if flags[name] is not None and not flags["judge"]:
            raise InputError(
                f"{_flag(name)} is for a judge: name one with --judge, or leave it out"
            )


def _announce(text: str) -> None:
    echo(text, err=True)


def _patience(model: str) -> Callable[[float], None]:
    """Says every ten seconds that the server is still starting."""
    last = 0.0

    def waiting(seconds: float) -> None:
        nonlocal last
        if seconds >= last + 10:
            last = seconds
            _announce(f"waiting for vLLM to serve {model}: {seconds:.0f} s")

    return waiting
