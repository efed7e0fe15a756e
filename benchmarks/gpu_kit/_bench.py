"""One series of measurements: the model, the rows, an alignkit run, a stock trainer."""

from __future__ import annotations

import gc
import itertools
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KIT = Path(__file__).resolve().parent
GIB = 2**30
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
        asked, answered = (20, 200) if self.tiny else (120, 8000)  # characters
        with self.rows.open("w", encoding="utf-8") as file:
            for _ in range(256):
                question = text(draw, asked)
                row = {"prompt": question, "question": question, "truth": "1"}
                for name in ("response", "chosen", "rejected"):
                    row[name] = text(draw, answered)
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
        from gpu_kit.plugins.gauge import note
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
    lines = rows.read_text(encoding="utf-8").splitlines()
    data = datasets.Dataset.from_list([json.loads(line) for line in lines])
    data = data.select_columns(columns[method])
    shared = {"model": model, "processing_class": models.load_tokenizer(str(start))}
    if method == "sft":
        shared["train_dataset"] = data.rename_column("response", "completion")
        return trl.SFTTrainer(args=trl.SFTConfig(**fields), **shared)
    shared["train_dataset"] = data
    if method == "dpo":
        args = trl.DPOConfig(**fields, beta=recipe["loss"]["beta"])
        return trl.DPOTrainer(args=args, **shared)
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
    from gpu_kit.rewards.evenness import evenness

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
