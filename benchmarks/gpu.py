"""What alignkit costs on one GPU beside a stock TRL trainer: seconds, memory, saving.

Random weights in the shape of Qwen2.5-1.5B; nothing is fetched. Of each method alignkit
runs a recipe of gpu_kit/ by its command line, then TRL's own trainer runs with the
settings that the run resolved to, in the same process. The figures are written after
each section; a section that fails is recorded in its place, and the next one goes on.
`--tiny` is a rehearsal of the script itself, on a CPU too; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KIT = ROOT / "benchmarks" / "gpu_kit"
GIB = 2**30
START = 60  # seconds that a process may take to import everything and build the model
STEADY = {"sft": 2, "dpo": 2, "grpo": 1}  # steps that warm up
SHAPE = {
    "vocab_size": 151_936,
    "hidden_size": 1536,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "intermediate_size": 8960,
}
TINY_SHAPE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 128,
}
TINY_SETS = {
    "sft": {"train.max_length": 64, "train.max_steps": 3},
    "dpo": {"train.max_length": 64, "train.max_steps": 3},
    "grpo": {
        "generation.min_new_tokens": 8,
        "generation.max_new_tokens": 8,
        "train.max_steps": 2,
        "train.per_device_train_batch_size": 4,
        "train.num_generations": 4,
    },
}
VERSIONS = (
    *("torch", "triton", "transformers", "trl", "accelerate", "peft", "datasets"),
    *("bitsandbytes", "torchao", "flash-attn", "vllm"),
)


class NotRunError(Exception):
    """A section that this machine cannot run; the text says why."""


class Bench:
    """The model, the rows and the settings of one series of measurements."""

    def __init__(self, folder: Path, *, tiny: bool, tokenizer: Path | None) -> None:
        self.folder = folder
        self.tiny = tiny
        self.tokenizer = tokenizer
        self.start = folder / "start"
        self.rows = folder / "rows.jsonl"

    def prepare(self) -> None:
        """Write the rows and the model with random weights, once."""
        if self.start.is_dir():
            return
        draw = random.Random(0)
        length = (
            200 if self.tiny else 8000
        )  # characters; each is a token or a part of one
        with self.rows.open("w", encoding="utf-8") as file:
            for _ in range(256):
                question = text(draw, 20 if self.tiny else 120)
                row = {"prompt": question, "question": question, "truth": "1"}
                row |= {
                    name: text(draw, length)
                    for name in ("response", "chosen", "rejected")
                }
                file.write(json.dumps(row) + "\n")
        model, tokenizer = self._build()
        made = self.folder / "start.new"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        made.rename(self.start)

    def _build(self) -> tuple[Any, Any]:
        import torch
        from transformers import Qwen2Config, Qwen2ForCausalLM

        from alignkit import models

        shape = dict(TINY_SHAPE if self.tiny else SHAPE)
        if self.tokenizer is None:
            tokenizer = models.build_tokenizer("bytes", 4096)
        else:
            tokenizer = models.load_tokenizer(str(self.tokenizer))
            shape["vocab_size"] = SHAPE["vocab_size"]
        config = Qwen2Config(
            **shape,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype=torch.float32 if self.tiny else torch.bfloat16,
        )
        torch.manual_seed(0)
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2ForCausalLM(config).to(config.dtype)
        # No completion shall hold a token that the tokenizer does not have: along the
        # first direction, in which every state points, those point the other way.
        with torch.no_grad():
            model.get_input_embeddings().weight[:, 0] = 1.0
            model.get_input_embeddings().weight[len(tokenizer) :, 0] = -1.0
        return model, tokenizer

    def command(self, *arguments: str) -> int:
        """An `align` command in this process; its exit code."""
        from alignkit.cli import main

        print("\n$ align", *arguments, flush=True)
        try:
            main(list(arguments))
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    def run(self, method: str, *arguments: str, **sets: Any) -> Path:
        """The folder of an alignkit run of the kit's recipe."""
        folder = self.folder / f"run-{len(list(self.folder.glob('run-*')))}"
        recipe = str(KIT / "recipes" / f"{method}.yaml")
        options = ["--folder", str(folder), *self.settings(method, **sets)]
        reset_peak()
        code = self.command("run", recipe, *arguments, *options)
        if code:
            raise RuntimeError(f"align run left with {code}; the log says why")
        return folder

    def settings(self, method: str, **sets: Any) -> list[str]:
        """`--set` for all that a recipe of the kit leaves to this series."""
        stated = {"model.path": str(self.start), "data.train.path": str(self.rows)}
        if self.tiny:
            stated |= {"model.dtype": "float32", **TINY_SETS[method]}
        stated |= {key.replace("__", "."): value for key, value in sets.items()}
        pairs = [f"{key}={json.dumps(value)}" for key, value in stated.items()]
        return [word for pair in pairs for word in ("--set", pair)]

    def stock(self, method: str, run: Path) -> Path:
        """The folder of the figures of TRL's own trainer, set as `run` resolved to."""
        import torch
        import yaml
        from gauge import note
        from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback

        recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
        folder = self.folder / f"stock-{run.name}"
        folder.mkdir()

        class Gauge(TrainerCallback):
            def on_log(self, args, state, control, logs=None, **_):
                if "loss" in logs:
                    note(folder, state.global_step, logs["loss"], logs.get("reward"))

        model = AutoModelForCausalLM.from_pretrained(
            self.start,
            dtype=getattr(torch, recipe["model"]["dtype"]),
            attn_implementation=recipe["model"]["attention"],
        )
        reset_peak()
        trainer = stock_trainer(method, recipe, model, self.start, self.rows, folder)
        trainer.add_callback(Gauge())
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        return folder

    def beside(self, method: str, **sets: Any) -> dict[str, Any]:
        """Both trainers' figures and their ratio."""
        run = self.run(method, **sets)
        ours = steps(run, method) | {"saving_peak_gib": peak()}
        clean()
        theirs = steps(self.stock(method, run), method)
        clean()
        ratio = {
            name: round(ours[name] / theirs[name], 3)
            for name in ("seconds_per_step", "peak_gib")
            if theirs[name]
        }
        return {"alignkit": ours, "trl": theirs, "alignkit / trl": ratio}


def stock_trainer(
    method: str,
    recipe: Mapping[str, Any],
    model: Any,
    start: Path,
    rows: Path,
    folder: Path,
) -> Any:
    """TRL's own trainer with its own loss, which the recipe's plugin equals."""
    import datasets
    import torch
    import trl

    from alignkit import models

    datasets.disable_progress_bars()
    fields = {
        "output_dir": str(folder),
        "seed": recipe["seed"],
        "report_to": "none",
        "logging_steps": 1,
        "disable_tqdm": True,
        **recipe["train"],
    }
    if not torch.cuda.is_available():
        fields |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
        fields["dataloader_pin_memory"] = False
    columns = {
        "sft": ["prompt", "response"],
        "dpo": ["prompt", "chosen", "rejected"],
        "grpo": ["prompt"],
    }
    stored = [
        json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()
    ]
    data = datasets.Dataset.from_list(
        [{k: r[k] for k in columns[method]} for r in stored]
    )
    shared = {"model": model, "processing_class": models.load_tokenizer(str(start))}
    if method == "sft":
        shared["train_dataset"] = data.rename_column("response", "completion")
        return trl.SFTTrainer(args=trl.SFTConfig(**fields), **shared)
    shared["train_dataset"] = data
    if method == "dpo":
        return trl.DPOTrainer(
            args=trl.DPOConfig(**fields, beta=recipe["loss"]["beta"]), **shared
        )
    generation = recipe["generation"]
    args = trl.GRPOConfig(
        **fields,
        loss_type="dr_grpo",
        max_completion_length=generation["max_new_tokens"],
        generation_kwargs={"min_new_tokens": generation["min_new_tokens"]},
    )
    return trl.GRPOTrainer(reward_funcs=stock_reward, args=args, **shared)


def stock_reward(completions: Sequence[str], **_: Any) -> list[float]:
    """The reward of the recipe as TRL calls it."""
    from evenness import evenness

    return [evenness(response) for response in completions]


def text(draw: random.Random, length: int) -> str:
    """Words of random letters."""
    letters = "etaoinshrdlu"
    words = ["".join(draw.choices(letters, k=5)) for _ in range(length // 6 + 1)]
    return " ".join(words)


def steps(folder: Path, method: str) -> dict[str, Any]:
    """The figures of the steps after those that warm up."""
    lines = (folder / "gauge.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    first = min(STEADY[method], len(rows) - 1)
    clocks = [row["clock"] for row in rows[first - 1 :]]
    seconds = [round(b - a, 4) for a, b in itertools.pairwise(clocks)]
    return {
        "seconds_per_step": statistics.median(seconds),
        "seconds": seconds,
        "peak_gib": gib(max(row["peak"] for row in rows[first:])),
        "reserved_gib": gib(max(row["reserved"] for row in rows[first:])),
        "losses": [row["loss"] for row in rows],
        "rewards": [row["reward"] for row in rows if row["reward"] is not None],
    }


def gib(size: float) -> float:
    """Bytes in GiB."""
    return round(size / GIB, 3)


def peak() -> float:
    """The most that torch held since the last logged step or reset, in GiB."""
    import torch

    return gib(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0


def reset_peak() -> None:
    """Start anew."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def clean() -> float:
    """Free what no one holds; what is still held, in GiB."""
    import torch

    gc.collect()
    if not torch.cuda.is_available():
        return 0.0
    torch.cuda.empty_cache()
    return gib(torch.cuda.memory_allocated())


def needs(module: str) -> None:
    """Leave the section out where a package is missing."""
    if importlib.util.find_spec(module) is None:
        raise NotRunError(f"{module} is not installed")


def needs_gpu() -> None:
    """Leave the section out without a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise NotRunError("there is no GPU")


# -- sections ------------------------------------------------------------------------


def doctor(bench: Bench) -> dict[str, Any]:
    """What alignkit says of the machine stands in the log."""
    return {"exit": bench.command("doctor")}


def plan(bench: Bench) -> dict[str, Any]:
    """The memory that `align plan` foresees for the sections sft, grpo and dpo."""
    found = {}
    for method in STEADY:
        recipe = str(KIT / "recipes" / f"{method}.yaml")
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = bench.command("plan", recipe, "--json", *bench.settings(method))
        if code:
            raise RuntimeError(f"align plan left with {code}; the log says why")
        answer = said.getvalue()
        stage = json.loads(answer[answer.index("{") :])["stages"][0]
        memory = stage["estimate"]["memory"]
        parts = {part: gib(size) for part, size in memory["parts"].items()}
        found[method] = {"peak_gib": gib(memory["peak"]), "parts_gib": parts}
    return found


def reload(bench: Bench) -> dict[str, Any]:
    """The model that the first run saved, loaded by transformers onto the GPU."""
    import torch
    from transformers import AutoModelForCausalLM

    saved = bench.folder / "run-0" / "model"
    if not saved.is_dir():
        raise NotRunError("no run has saved a model")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(saved, dtype="auto", device_map=device)
    ids = torch.arange(64, device=device)[None]
    with torch.no_grad():
        logits = model(ids).logits.float()
    seconds = time.perf_counter() - started
    start = AutoModelForCausalLM.from_pretrained(
        bench.start, dtype="auto", device_map=device
    )
    pairs = zip(model.parameters(), start.parameters(), strict=True)
    return {
        "seconds": round(seconds, 3),
        "dtype": str(model.dtype),
        "finite": bool(logits.isfinite().all()),
        "tensors_that_training_changed": sum(not torch.equal(a, b) for a, b in pairs),
        "tensors": len(list(model.parameters())),
    }


def evaluation(bench: Bench) -> dict[str, Any]:
    """Tokens per second of `align eval --engine transformers` and of `generate`."""
    import torch
    from transformers import AutoModelForCausalLM

    from alignkit import models

    rows, tokens = (8, 8) if bench.tiny else (64, 256)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = models.load_tokenizer(str(bench.start))
    tokenizer.padding_side = "left"
    stored = [json.loads(line) for line in bench.rows.read_text().splitlines()]
    asked = [row["question"] for row in stored[:rows]]
    inputs = tokenizer(asked, return_tensors="pt", padding=True).to(device)
    model = AutoModelForCausalLM.from_pretrained(
        bench.start, dtype="auto", device_map=device
    )
    spans = []
    for count in (2, tokens):  # the first one warms up
        started = time.perf_counter()
        made = model.generate(
            **inputs, do_sample=False, min_new_tokens=count, max_new_tokens=count
        )
        made.tolist()
        spans.append(time.perf_counter() - started)
    model = made = inputs = None
    clean()
    shortened = bench.folder / "asked.jsonl"
    shortened.write_text("".join(json.dumps(row) + "\n" for row in stored[:rows]))
    out = bench.folder / "evaluation"
    reset_peak()
    code = bench.command(
        *("eval", "continuation", "--kit", str(KIT), "--model", str(bench.start)),
        *(
            "--engine",
            "transformers",
            "--batch-size",
            str(rows),
            "--data",
            str(shortened),
        ),
        *("--set", f"max_new_tokens={tokens}", "--set", f"min_new_tokens={tokens}"),
        *("--out", str(out)),
    )
    if code:
        raise RuntimeError(f"align eval left with {code}; the log says why")
    summary = json.loads(next(out.rglob("summary.json")).read_text(encoding="utf-8"))
    ours = summary["metrics"]["mean_tokens"] * summary["completions"]
    ours /= summary["timings"]["generate_seconds"]
    theirs = rows * tokens / spans[-1]
    return {
        "completions": rows,
        "tokens_each": tokens,
        "alignkit": {"tokens_per_second": round(ours, 1), "peak_gib": peak()},
        "generate": {"tokens_per_second": round(theirs, 1)},
        "alignkit / generate": round(ours / theirs, 3),
    }


def lora(bench: Bench) -> dict[str, Any]:
    """SFT of adapters on all linear layers: the peak of training, and that of saving."""
    overlay = str(ROOT / "recipes" / "overlays" / "lora.yaml")
    run = bench.run("sft", "--with", overlay, train__max_steps=4)
    saving = peak()
    weights = sum(file.stat().st_size for file in (run / "model").glob("*.safetensors"))
    return {
        **steps(run, "sft"),
        "saving_peak_gib": saving,
        "saved_gib": gib(weights),
        "adapter": (run / "model" / "adapter").is_dir(),
    }


def out_of_memory(bench: Bench) -> dict[str, Any]:
    """What a run says that gets half of the memory that it needs."""
    needs_gpu()
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (0.001 if bench.tiny else 6) * GIB / total
    )
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            bench.run("sft", train__max_steps=1)
    except torch.OutOfMemoryError as error:
        return {"said": str(error)[:500], "traceback": True}
    except RuntimeError as error:
        return {"said": said.getvalue()[-500:], "traceback": False, "left": str(error)}
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        print(said.getvalue())
    raise RuntimeError("the run ended well")


def optimizer(module: str, name: str) -> Callable[[Bench], dict[str, Any]]:
    """SFT by another optimizer."""

    def section(bench: Bench) -> dict[str, Any]:
        needs(module)
        needs_gpu()
        return steps(bench.run("sft", train__optim=name, train__max_steps=5), "sft")

    return section


def vllm(bench: Bench) -> dict[str, Any]:
    """GRPO with vLLM in the same process."""
    needs("vllm")
    needs_gpu()
    sets = {"generation.engine": "vllm", "generation.vllm.gpu_memory_utilization": 0.25}
    return steps(bench.run("grpo", **sets), "grpo")


def beside(
    method: str, module: str = "", **sets: Any
) -> Callable[[Bench], dict[str, Any]]:
    """Both trainers under changed settings."""

    def section(bench: Bench) -> dict[str, Any]:
        if module:
            needs(module)
        return bench.beside(method, **sets)

    return section


WHOLE = {"train__gradient_checkpointing": False}
SECTIONS: dict[
    str, tuple[float, Callable[[Bench], dict[str, Any]]]
] = {  # seconds at most
    "doctor": (30, doctor),
    "sft": (80, beside("sft")),
    "reload": (30, reload),
    "grpo": (120, beside("grpo")),
    "dpo": (80, beside("dpo")),
    "plan": (30, plan),
    "evaluation": (60, evaluation),
    "lora": (60, lora),
    "sft_without_checkpointing": (60, beside("sft", **WHOLE)),
    "grpo_without_checkpointing": (100, beside("grpo", **WHOLE)),
    "dpo_without_checkpointing": (60, beside("dpo", **WHOLE)),
    "out_of_memory": (60, out_of_memory),
    "adamw_8bit": (60, optimizer("bitsandbytes", "adamw_8bit")),
    "paged_adamw_8bit": (60, optimizer("bitsandbytes", "paged_adamw_8bit")),
    "adamw_torch_8bit": (100, optimizer("torchao", "adamw_torch_8bit")),
    "flash_attention": (
        60,
        beside("sft", "flash_attn", model__attention="flash_attention_2"),
    ),
    "vllm": (150, vllm),
}


# -- processes -----------------------------------------------------------------------


def work(
    names: Sequence[str],
    options: argparse.Namespace,
    folder: Path,
    log: Path,
    to: Connection,
) -> None:
    """Send what the machine is, then what each section found.

    Ends early where a section did not give its memory back.
    """
    os.setsid()  # so that all it starts can be ended with it
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path += [str(KIT / "plugins"), str(KIT / "rewards")]
    to.send(machine())
    bench = Bench(folder, tiny=options.tiny, tokenizer=options.tokenizer)
    for name in names:
        print(f"\n=== {name}", flush=True)
        started = time.monotonic()
        try:
            bench.prepare()
            found = SECTIONS[name][1](bench)
        except NotRunError as why:
            found = {"not run": str(why)}
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a finding
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}"[:500]}
        left = clean()
        seconds = round(time.monotonic() - started, 1)
        to.send({**found, "section_seconds": seconds, "left_gib": left})
        for saved in folder.glob(
            "run-[1-9]*/model"
        ):  # 3 GiB each; `reload` reads the first
            shutil.rmtree(saved)
        if left > 1:
            break


def conduct(
    options: argparse.Namespace,
    folder: Path,
    log: Path,
    report: dict[str, Any],
    tell: Callable,
) -> None:
    """Have a process do the sections; a new one where it dies, hangs or ends early."""
    context = multiprocessing.get_context("spawn")
    deadline = time.monotonic() + options.seconds
    patience = 10 if options.tiny else 1  # a rehearsal may have to share its processor
    remaining = list(options.sections)
    while remaining and time.monotonic() < deadline:
        receiver, sender = context.Pipe(duplex=False)
        worker = context.Process(
            target=work, args=(remaining, options, folder, log, sender)
        )
        worker.start()
        sender.close()
        try:
            report["machine"] = receive(receiver, START * patience)
            if report["machine"]["card"] == "none" and not options.tiny:
                sys.exit("there is no GPU here; --tiny rehearses on the CPU")
            while remaining and time.monotonic() < deadline:
                limit = SECTIONS[remaining[0]][0] * patience
                limit = min(limit, deadline - time.monotonic())
                tell(remaining[0], receive(receiver, limit))
                del remaining[0]
        except TimeoutError as error:
            tell(remaining.pop(0), {"failed": str(error)})
        except EOFError:
            worker.join()
            if worker.exitcode:
                code = worker.exitcode
                tell(remaining.pop(0), {"failed": f"the process ended with {code}"})
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.join()
    for name in remaining:
        tell(name, {"not run": f"the {options.seconds:.0f} s were over"})


def receive(receiver: Connection, limit: float) -> dict[str, Any]:
    """What the worker sends next.

    Raises:
        TimeoutError: nothing in time. EOFError: the worker has ended.
    """
    if not receiver.poll(limit):
        raise TimeoutError(f"took longer than {limit:.0f} s")
    return receiver.recv()


def machine() -> dict[str, Any]:
    """Card and versions."""
    import torch

    found: dict[str, Any] = {"card": "none"}
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found = {"card": card.name, "memory_gib": gib(card.total_memory)}
        found["cuda"] = torch.version.cuda
    found |= {"cpus": os.cpu_count(), "python": platform.python_version()}
    for package in VERSIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def line(name: str, found: Mapping[str, Any]) -> str:
    """One section for the terminal."""
    for key in ("not run", "failed"):
        if key in found:
            return f"{name:28} {key}: {found[key]}"
    shown = found.get("alignkit / trl") or {
        k: v for k, v in found.items() if not isinstance(v, dict | list)
    }
    return f"{name:28} {json.dumps(shown)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs" / "performance-gpu.json"
    )
    parser.add_argument("--log", type=Path, help="where all that the runs print goes")
    parser.add_argument(
        "--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS)
    )
    parser.add_argument(
        "--seconds", type=float, default=600, help="for all sections together"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="a tokenizer's folder (default: bytes)"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="rehearse the script; on a CPU too"
    )
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "machine": {},
        "shape": TINY_SHAPE if options.tiny else SHAPE,
        "tokenizer": options.tokenizer.name if options.tokenizer else "bytes",
        "sections": {},
    }
    with tempfile.TemporaryDirectory() as name:
        log = options.log or Path(name) / "log.txt"

        def tell(section: str, found: dict[str, Any]) -> None:
            report["sections"][section] = found
            options.output.write_text(
                json.dumps(report, indent=1) + "\n", encoding="utf-8"
            )
            print(line(section, found), flush=True)

        conduct(options, Path(name), log, report, tell)


if __name__ == "__main__":
    main()
