"""A folder of made-up data in every layout that the built-in datasets look for under
ALIGN_DATA.
"""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

ROWS = 80


def write(folder: Path) -> Path:
    """Write the files; the numbers in them are drawn by a fixed seed."""
    draw = random.Random(7)
    pairs = [(draw.randint(2, 99), draw.randint(2, 99)) for _ in range(ROWS)]
    asked = [f"How many apples are {a} apples and {b} apples?" for a, b in pairs]
    sums = [a + b for a, b in pairs]

    def math(split):
        said = "the first half" if split == "train" else "the second half"
        rows = zip(pairs, sums, strict=True)
        return [
            {
                "problem": f"In {said}: what is ${a}+{b}$?",
                "solution": rf"It is $\boxed{{{c}}}$.",
                "level": "Level 1",
            }
            | {"type": "Algebra"}
            for (a, b), c in rows
        ]

    traces = [
        {
            "prompt": f"User: {question}\nAssistant: <think>",
            # every third trace ends in a wrong answer, for recipes that keep the right
            # ones only
            "response": (
                f" {a} and {b}.</think> <answer> {c + (number % 3 == 0)} </answer>"
            ),
            "ground_truth": str(c),
        }
        for number, (question, (a, b), c) in enumerate(
            zip(asked, pairs, sums, strict=True)
        )
    ]
    long_traces = [
        {
            "problem": q,
            "generated_solution": f"<think>{a} plus {b}</think>So {c}.",
            "expected_answer": str(c),
        }
        for q, (a, b), c in zip(asked, pairs, sums, strict=True)
    ]
    published_traces = [
        {
            "problem": q,
            "reasoning_trace": f" {a} and {b}.</think> <answer> {c} </answer>",
            "expected_answer": str(c),
        }
        for q, (a, b), c in zip(asked, pairs, sums, strict=True)
    ]
    grade_school = [
        {"question": q, "answer": f"{a} + {b} = {c}\n#### {c}"}
        for q, (a, b), c in zip(asked, pairs, sums, strict=True)
    ]
    choices = [
        {
            "question": q,
            "options": [str(c), str(c + 1), str(c + 2), str(c + 3)],
            "answer": "A",
            "subject": subject,
        }
        for q, c, subject in zip(
            asked, sums, ["astronomy", "philosophy"] * (ROWS // 2), strict=True
        )
    ]
    talks = [
        {
            "messages": [
                {"role": "user", "content": q},
                {"role": "assistant", "content": f"There are {c} of them."},
            ]
        }
        for q, c in zip(asked, sums, strict=True)
    ]
    preferred = [
        {"prompt": q, **{side: [*talk["messages"][:1], {"role": "assistant", "content": text}]
                         for side, text in (("chosen", f"{c} apples."), ("rejected", "Apples grow on trees."))}}
        for q, c, talk in zip(asked, sums, talks, strict=True)
    ]  # fmt: skip
    compared = [
        {
            side: f"\n\nHuman: {q}\n\nAssistant: {text}"
            for side, text in (("chosen", f"{c}."), ("rejected", "Many."))
        }
        for q, c in zip(asked, sums, strict=True)
    ]
    files = {
        "math_train7500.jsonl": math("train"),
        "math_test5k.jsonl": math("test"),
        "math_sft_r1_1767.jsonl": traces,
        "open_math_reasoning_cot.jsonl": long_traces,
        "sft_gpt-oss-120b.jsonl": published_traces,
        "sft-reason/sft_gpt-oss-120b_filtered.jsonl": published_traces[::2],
        "gsm8k_train.jsonl": grade_school,
        "gsm8k_test.jsonl": grade_school,
        "mmlu_dev.jsonl": choices,
        "mmlu_test.jsonl": choices,
        "smoltalk_train.jsonl": talks,
        "ultrafeedback_train_prefs.jsonl": preferred,
        "ultrafeedback_test_prefs.jsonl": preferred,
        **{
            f"instructions_{split}.jsonl.gz": [
                {"prompt": t["prompt"], "response": t["response"]} for t in traces
            ]
            for split in ("train", "test")
        },
    }
    for source in (
        "harmless-base",
        "helpful-base",
        "helpful-online",
        "helpful-rejection-sampled",
    ):
        files |= {f"hh/{source}/{split}.jsonl": compared for split in ("train", "test")}
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(
            gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
        )
    return folder
