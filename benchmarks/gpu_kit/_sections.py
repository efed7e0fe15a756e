"""What is measured, each with the seconds that it may take."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import time
from collections.abc import Callable
from typing import Any

from gpu_kit._bench import GIB, KIT, STEADY, Bench, clean, gib, peak, reset_peak, steps

LORA = KIT.parents[1] / "recipes" / "overlays" / "lora.yaml"


class NotRunError(Exception):
    """A section that this machine cannot run; the text says why."""


def needs(module: str) -> None:
    """Leave the section out where a package is missing."""
    if importlib.util.find_spec(module) is None:
        raise NotRunError(f"{module} is not installed")


def needs_gpu() -> None:
    """Leave the section out without a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise NotRunError("there is no GPU")


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
        *("eval", "continuation", "--kit", str(KIT), "--data", str(shortened)),
        *("--model", str(bench.start), "--engine", "transformers"),
        *("--batch-size", str(rows)),
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
    run = bench.run("sft", "--with", str(LORA), train__max_steps=4)
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
    allowed = (0.001 if bench.tiny else 6) * GIB
    torch.cuda.set_per_process_memory_fraction(allowed / total)
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


def optimizer(module: str, name: str) -> Section:
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


def beside(method: str, module: str = "", **sets: Any) -> Section:
    """Both trainers' figures, under settings that may need `module`."""

    def section(bench: Bench) -> dict[str, Any]:
        if module:
            needs(module)
        return bench.beside(method, **sets)

    return section


WITHOUT = {"train__gradient_checkpointing": False}
FLASH = {"model__attention": "flash_attention_2"}
Section = Callable[[Bench], dict[str, Any]]
SECTIONS: dict[str, tuple[float, Section]] = {  # with the seconds that each may take
    "doctor": (60, doctor),
    "sft": (80, beside("sft")),
    "reload": (30, reload),
    "grpo": (120, beside("grpo")),
    "dpo": (80, beside("dpo")),
    "plan": (30, plan),
    "evaluation": (60, evaluation),
    "lora": (60, lora),
    "sft_without_checkpointing": (60, beside("sft", **WITHOUT)),
    "grpo_without_checkpointing": (100, beside("grpo", **WITHOUT)),
    "dpo_without_checkpointing": (60, beside("dpo", **WITHOUT)),
    "out_of_memory": (60, out_of_memory),
    "adamw_8bit": (60, optimizer("bitsandbytes", "adamw_8bit")),
    "paged_adamw_8bit": (60, optimizer("bitsandbytes", "paged_adamw_8bit")),
    "adamw_torch_8bit": (100, optimizer("torchao", "adamw_torch_8bit")),
    "flash_attention": (60, beside("sft", "flash_attn", **FLASH)),
    "vllm": (150, vllm),
}
