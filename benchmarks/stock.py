"""The quickstart's methods as a plain TRL script, without alignkit: what curves.py sets
its runs beside.

    python benchmarks/stock.py METHOD MODEL DATA SETTINGS OUT

MODEL is a folder; DATA rows of JSON; SETTINGS a JSON map of TRL's fields; OUT gets the
model and log.json, the trainer's log.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ANSWER = re.compile(r"</think> <answer>(-?\d+)</answer>", re.ASCII)


def right(completions: list[str], truth: list[str], **_: object) -> list[float]:
    answers = [ANSWER.search(text) for text in completions]
    return [
        float(answer is not None and answer[1] == number)
        for answer, number in zip(answers, truth, strict=True)
    ]


def main(method: str, model: str, data: str, settings: str, out: str) -> None:
    from datasets import load_dataset
    from transformers import (
        AutoModelForCausalLM,
        PreTrainedTokenizerFast,
        set_seed,
    )
    from trl import (
        DPOConfig,
        DPOTrainer,
        GRPOConfig,
        GRPOTrainer,
        RLOOConfig,
        RLOOTrainer,
        SFTConfig,
        SFTTrainer,
    )

    fields = json.loads(settings)
    set_seed(fields["seed"])
    common = {
        "output_dir": out,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        **fields,
    }
    kinds = {
        "sft": (SFTConfig, SFTTrainer, {}),
        "dpo": (DPOConfig, DPOTrainer, {}),
        "grpo": (GRPOConfig, GRPOTrainer, {"reward_funcs": right}),
        "rloo": (RLOOConfig, RLOOTrainer, {"reward_funcs": right}),
    }
    config, trainer, more = kinds[method]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    training = trainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config(**common),
        train_dataset=load_dataset("json", data_files=data, split="train"),
        processing_class=tokenizer,
        **more,
    )
    training.train()
    training.save_model(out)
    tokenizer.save_pretrained(out)
    (Path(out) / "log.json").write_text(json.dumps(training.state.log_history))


if __name__ == "__main__":
    main(*sys.argv[1:])
