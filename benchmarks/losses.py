"""A loss plugin beside TRL's own trainer and loss: seconds and peak memory per
optimizer step, same model, same data.

Both trainers take turns, step by step, in one process; the ratio is the median over the
pairs of steps, and freed memory is kept by the process, for what the system's page
faults cost varies more than what is measured. On a CPU the seconds are those of the
processor, on a GPU those of the clock. Memory is measured in a second process: on a GPU
what torch allocated at most, on a CPU how far the resident memory rose during the step.
Rollouts are given, so that nothing but the loss and its step is timed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# TRL's loss by method
METHODS = {"sft": "nll", "grpo": "dr_grpo", "rloo": "its only one", "dpo": "sigmoid"}
PLUGINS = {
    "sft": ("sft", "token"),
    "grpo": ("grpo_clip", "constant"),
    "rloo": ("rloo", None),
    "dpo": ("dpo", None),
}
PROMPT, RESPONSE, ROWS, ACCUMULATION = 64, 128, 4, 2
VOCABULARY = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS)
    )
    parser.add_argument(
        "--pairs", type=int, default=40, help="timed steps of each trainer"
    )
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument(
        "--measure", nargs=2, metavar=("WHAT", "METHOD"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.measure:
        what, method = args.measure
        print(json.dumps(measure(what, method, args.pairs, args.hidden)))
        return
    print(
        f"{'method':6} {'plugin':10} {'TRL':12} {'s/step plugin':>13} {'TRL':>7}"
        f" {'ratio':>6} ",
        end="",
    )
    print(f"{'MiB plugin':>11} {'TRL':>7} {'ratio':>6}")
    for method in args.methods:
        found = {what: child(what, method, args) for what in ("seconds", "memory")}
        seconds, memory = found["seconds"], found["memory"]
        plugin, stock = (statistics.median(seconds[kind]) for kind in ("plugin", "trl"))
        mine, theirs = (
            statistics.median(memory[kind]) / 2**20 for kind in ("plugin", "trl")
        )
        ratio = statistics.median(
            a / b for a, b in zip(seconds["plugin"], seconds["trl"], strict=True)
        )
        print(
            f"{method:6} {PLUGINS[method][0]:10} {METHODS[method]:12} {plugin:13.3f}"
            f" {stock:7.3f} ",
            end="",
        )
        print(f"{ratio:6.3f} ", end="")
        print(f"{mine:11.1f} {theirs:7.1f} {mine / theirs:6.3f}", flush=True)


def child(what: str, method: str, args: argparse.Namespace) -> dict[str, list[float]]:
    """One measurement in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }
    # freed tensors go back to the system at once, so that resident memory follows the
    # live ones
    if what == "memory":
        environment |= {
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "0",
        }
    else:
        environment |= {
            "MALLOC_MMAP_THRESHOLD_": str(2**25),
            "MALLOC_TRIM_THRESHOLD_": str(2**33),
        }
        environment["MALLOC_TOP_PAD_"] = str(2**29)
    command = [sys.executable, __file__, "--measure", what, method]
    # memory hardly varies
    pairs = args.pairs if what == "seconds" else min(args.pairs, 8)
    command += ["--pairs", str(pairs), "--hidden", str(args.hidden)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(what: str, method: str, pairs: int, hidden: int) -> dict[str, list[float]]:
    """Per step, of the plugin's trainer and of TRL's own by turns. The first three
    pairs warm up.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            kind: make(method, kind, hidden, folder) for kind in ("plugin", "trl")
        }
        found: dict[str, list[float]] = {kind: [] for kind in trainers}
        for turn in range(pairs + 3):
            order = list(trainers) if turn % 2 else list(trainers)[::-1]
            for kind in order:
                value = one_step(trainers[kind], what)
                if turn >= 3:
                    found[kind].append(value)
    return found


def one_step(trainer, what: str) -> float:
    """Seconds, or bytes above those at rest, of one optimizer step."""
    import torch

    cuda = torch.cuda.is_available()
    gc.collect()
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated()
    elif what == "memory":
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        rest = resident("VmRSS")
    trainer.clock.seconds = 0.0
    trainer.train()
    if what == "seconds":
        return trainer.clock.seconds
    return float(
        (torch.cuda.max_memory_allocated() if cuda else resident("VmHWM")) - rest
    )


def resident(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    line = next(
        row
        for row in Path("/proc/self/status").read_text().splitlines()
        if row.startswith(name)
    )
    return int(line.split()[1]) * 1024


def make(method: str, kind: str, hidden: int, folder: str):
    """A trainer of one optimizer step over random rows; `kind` is plugin or trl."""
    import datasets
    import torch
    import trl
    from transformers import (
        PrinterCallback,
        Qwen2Config,
        Qwen2ForCausalLM,
        TrainerCallback,
    )
    from transformers.utils import logging

    from alignkit import kits, models, plugins
    from alignkit.train import dpo, policy, sft
    from alignkit.train.objective import Objective

    logging.set_verbosity_error()
    datasets.disable_progress_bars()
    cuda = torch.cuda.is_available()
    tokenizer = models.build_tokenizer("digits")
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=4 * hidden,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
        )
    )
    dice = random.Random(0)
    ids = [
        [dice.randrange(3, VOCABULARY) for _ in range(PROMPT + RESPONSE)]
        for _ in range(ROWS * ACCUMULATION)
    ]
    config = {
        "output_dir": folder,
        "per_device_train_batch_size": ROWS,
        "gradient_accumulation_steps": ACCUMULATION,
        "max_steps": 1,
        "learning_rate": 1e-4,
        "use_cpu": not cuda,
        "bf16": cuda,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "report_to": [],
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    name, normalize = PLUGINS[method]
    loss = plugins.load([kits.builtin()]).get("loss", name).value
    shared = {"model": model, "processing_class": tokenizer}
    if kind == "plugin":
        shared["objective"] = Objective(loss, normalize=normalize)
    if method == "sft":
        rows = [
            {"input_ids": row, "labels": [-100] * PROMPT + row[PROMPT:]} for row in ids
        ]
        args = trl.SFTConfig(**config)
        base = sft.AlignSFTTrainer if kind == "plugin" else trl.SFTTrainer
        trainer = base(
            args=args, train_dataset=datasets.Dataset.from_list(rows), **shared
        )
    elif method == "dpo":
        base = dpo.AlignDPOTrainer if kind == "plugin" else trl.DPOTrainer
        rows = [
            {
                "prompt_ids": r[:PROMPT],
                "chosen_ids": r[PROMPT:],
                "rejected_ids": r[:PROMPT:-1],
            }
            for r in ids
        ]

        class Tokenised(base):
            def _prepare_dataset(self, dataset, *_):
                return dataset

        reference = Qwen2ForCausalLM(model.config)
        data = datasets.Dataset.from_list(rows)
        trainer = Tokenised(
            ref_model=reference,
            args=trl.DPOConfig(**config),
            train_dataset=data,
            **shared,
        )
    else:
        own = {"grpo": policy.AlignGRPOTrainer, "rloo": policy.AlignRLOOTrainer}[method]
        base = (
            own
            if kind == "plugin"
            else {"grpo": trl.GRPOTrainer, "rloo": trl.RLOOTrainer}[method]
        )
        config |= {
            "beta": 0.0,
            "num_generations": ROWS,
            "max_completion_length": RESPONSE,
        }
        if method == "grpo" and kind == "trl":
            config["loss_type"] = METHODS["grpo"]

        class Given(base):
            def _generate_single_turn(self, prompt_ids, *_):
                rows = [row[PROMPT:] for row in ids[: len(prompt_ids)]]
                return (rows, None) if method == "grpo" else rows

        kinds = {"grpo": trl.GRPOConfig, "rloo": trl.RLOOConfig}
        data = datasets.Dataset.from_list(
            [{"prompt": "1+2+3+4=?" * 6}, {"prompt": "5+6=?" * 10}]
        )
        trainer = Given(
            args=kinds[method](**config),
            reward_funcs=reward,
            train_dataset=data,
            **shared,
        )

    tick = time.perf_counter if cuda else time.process_time

    class Clock(TrainerCallback):
        seconds = 0.0

        def on_step_begin(self, *_, **__):
            self.started = tick()

        def on_step_end(self, *_, **__):
            if cuda:
                torch.cuda.synchronize()
            self.seconds += tick() - self.started

    trainer.clock = Clock()
    trainer.add_callback(trainer.clock)
    trainer.remove_callback(PrinterCallback)
    return trainer


def reward(completions, **_):
    """Any numbers with variance in each group."""
    return [float(index % ROWS) for index in range(len(completions))]


if __name__ == "__main__":
    main()
