"""`align eval` beside lm-eval's hf backend: GSM8K and MMLU over the same random model,
data and batch size.

Needs lm-eval (`pip install lm-eval==0.4.13`, in an environment of its own: `--lm-eval
PYTHON`) and ALIGN_DATA with gsm8k_test.jsonl and mmlu_test.jsonl. Every call is a
process of its own; a call over one document measures the start, and the rate is over
the other documents. What a busy machine does to both is evened out by turns; use the
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

DOCUMENTS = 200
TASKS = {
    "gsm8k": (
        """\
task: bench_gsm8k
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {do_sample: false, temperature: 0.0, max_gen_toks: 64, until: ["# Query:"]}
metric_list: [{metric: exact_match}]
"""
    ),
    "mmlu": (
        """\
task: bench_mmlu
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: "Multiple-choice questions on {{subject.replace('_', ' ')}}, each with its answer.\\n\\n\
{{question}}\\nA. {{options[0]}}\\nB. {{options[1]}}\\nC. {{options[2]}}\\nD. {{options[3]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer
metric_list: [{metric: acc}]
"""
    ),
}
OURS = {
    "gsm8k": ["--prompt-file", "gsm8k.txt", "--set", "max_new_tokens=64"],
    "mmlu": ["--set", "mode=likelihood"],
}


def make(folder: Path) -> None:
    """A random Llama of about 6 M parameters on bytes, the first documents of each
    benchmark, lm-eval's tasks.
    """
    from alignkit import models

    spec = {
        "tokenizer": "bytes",
        "hidden_size": 256,
        "layers": 6,
        "heads": 4,
        "intermediate_size": 1024,
    }
    models.save(
        *models.build(SimpleNamespace(**spec, init_std=0.02, max_length=4096), 0),
        folder / "model",
    )
    data = Path(os.environ["ALIGN_DATA"])
    # the very prompt of the task above
    (folder / "gsm8k.txt").write_text("{question}\nAnswer:")
    for name, task in TASKS.items():
        lines = (
            (data / f"{name}_test.jsonl")
            .read_text(encoding="utf-8")
            .splitlines()[:DOCUMENTS]
        )
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{name}.yaml").write_text(task.replace("DATA", str(file)))


def seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """(wall, processor) time of one process and its children."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - started, cpu


def commands(
    name: str, limit: int, batch: int, folder: Path, python: str
) -> dict[str, list[str]]:
    """The call of each harness."""
    ours = [
        sys.executable,
        "-m",
        "alignkit.cli",
        "eval",
        name,
        "--model",
        "model",
        "--data",
        f"{name}.jsonl",
    ]
    ours += [
        "--limit",
        str(limit),
        "--batch-size",
        str(batch),
        "--no-resume",
        *OURS[name],
    ]
    theirs = [
        python,
        "-m",
        "lm_eval",
        "--model",
        "hf",
        "--model_args",
        "pretrained=model,dtype=float32",
    ]
    theirs += [
        "--tasks",
        f"bench_{name}",
        "--include_path",
        str(folder),
        "--batch_size",
        str(batch),
    ]
    return {
        "alignkit": ours,
        "lm-eval": [*theirs, "--limit", str(limit), "--device", "cpu"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lm-eval",
        default=sys.executable,
        metavar="PYTHON",
        help="Python that has lm-eval",
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if "ALIGN_DATA" not in os.environ:
        sys.exit("set ALIGN_DATA to the folder of benchmark files")
    if subprocess.run(
        [given.lm_eval, "-c", "import lm_eval"], capture_output=True
    ).returncode:
        sys.exit(
            "lm-eval is not installed: pip install lm-eval==0.4.13, or --lm-eval PYTHON"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        for task in TASKS:
            taken = {
                harness: {1: [], DOCUMENTS: []} for harness in ("alignkit", "lm-eval")
            }
            for _ in range(given.rounds):
                for limit in (1, DOCUMENTS):
                    for harness, command in commands(
                        task, limit, given.batch, folder, given.lm_eval
                    ).items():
                        taken[harness][limit].append(seconds(command, folder))
            found = {}
            for harness, times in taken.items():
                start, whole = (
                    [statistics.median(t[k] for t in times[n]) for k in (0, 1)]
                    for n in (1, DOCUMENTS)
                )
                rates = [
                    (DOCUMENTS - 1) / (b - a) for a, b in zip(start, whole, strict=True)
                ]
                found[harness] = {
                    "start_s": start[0],
                    "documents_per_s": rates[0],
                    "documents_per_cpu_s": rates[1],
                }
            ratios = {
                k: found["alignkit"][k] / found["lm-eval"][k] for k in found["alignkit"]
            }
            print(
                json.dumps(
                    {
                        "task": task,
                        "batch": given.batch,
                        **found,
                        "alignkit / lm-eval": ratios,
                    },
                    indent=2,
                )
            )


if __name__ == "__main__":
    main()
