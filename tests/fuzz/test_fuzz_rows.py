"""Mutated files of rows, over each command that reads rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import shutil

import pytest
from fuzzing import FULL, Tally, changed, damaged, fault, invoked, torn, written

from alignkit import models

ROW = {
    "question": "1+1?",
    "truth": "2",
    "response": "It is 2",
    "prompt": "1+1=",
}
ROW |= {"tokens": 3, "finish_reason": "stop", "reward": 1.0, "status": "ok", "step": 1}
CHAT = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
KINDS = ("jsonl", "json", "csv", "tsv", "jsonl.gz", "parquet")
TOKENS = ["--tokenizer", "tokens", "--json"]
COMMANDS = [
    ["grade", "FILE", "--reward", "exact_match", "--json"],
    [
        "grade",
        "FILE",
        "--reward",
        "math",
        "--reward",
        "exact_match",
        "--out",
        "g.jsonl",
    ],
    ["data", "show", "FILE", "--prompt", "question_only", *TOKENS],
    ["data", "stats", "FILE", *TOKENS],
    ["data", "filter", "FILE", "--out", "f.jsonl", "--max-tokens", "9", "--json"],
    ["data", "filter", "FILE", "--out", "f.jsonl", "--reward", "exact_match"],
    ["data", "filter", "FILE", "--out", "f.jsonl", "--duplicates", "both"],
    ["data", "split", "FILE", "--out", "parts", "--validation", "1", "--json"],
    ["eval", "math", "--responses", "FILE", "--out", "evals", "--json"],
]


def file_of(kind, dice):
    """A file of rows, damaged; six formats."""
    rows = [{**ROW, "question": f"{i}+1?", "truth": str(i)} for i in range(6)]
    if dice.random() < 0.3:
        rows = [{"messages": CHAT, "truth": "2"} for _ in rows]
    structured = dice.random() < 0.6
    at = dice.randrange(len(rows))
    if structured and kind != "parquet":
        rows[at] = changed(rows[at], dice)
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        held = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), held)
        return torn(held.getvalue(), dice)
    lines = [written(row).replace("\n", "") for row in rows]
    if kind == "json":
        content = ("[" + ",\n".join(lines) + "]").encode()
    elif kind in ("csv", "tsv"):
        text = io.StringIO()
        names = list(rows[at - 1])
        table = csv.writer(text, delimiter="," if kind == "csv" else "\t")
        table.writerow(names)
        for row in rows:
            table.writerow(
                [row.get(n) if isinstance(row, dict) else row for n in names]
            )
        content = text.getvalue().encode("utf-8", "backslashreplace")
    else:
        content = ("\n".join(lines) + "\n").encode()
    content = content if structured else torn(content, dice)
    if kind.endswith(".gz"):
        content = gzip.compress(content)
        content = torn(content, dice) if dice.random() < 0.3 else content
    return content


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models.build_tokenizer("bytes", 256).save_pretrained("tokens")
    return tmp_path


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=FULL)], ids=str)
@pytest.mark.timeout(2400)
def test_mutated_rows_are_refused_in_one_line(count, folder):
    tally = Tally("files of rows", count)
    dice = tally.dice
    for number in tally:
        file = folder / f"rows.{dice.choice(KINDS)}"
        content = file_of(file.name.partition(".")[2], dice)
        file.write_bytes(content)
        # the short form takes the commands in turn
        for command in COMMANDS if tally.full else [COMMANDS[number % len(COMMANDS)]]:
            for made in ("g.jsonl", "f.jsonl", "parts", "evals"):
                shutil.rmtree(made, ignore_errors=True)
                (folder / made).unlink(missing_ok=True)
            words = [file.name if word == "FILE" else word for word in command]
            outcome = invoked(words)
            said = fault(outcome, [file.name, "validation questions"])
            tally.note(outcome, said, f"{number} {' '.join(words)}", content[:900])


def test_the_rows_that_are_mutated_are_whole(folder):
    lines = [{**ROW, "question": f"{i}+1?", "truth": str(i)} for i in range(6)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    for command in COMMANDS:
        words = ["rows.jsonl" if word == "FILE" else word for word in command]
        outcome = invoked(words)
        assert outcome.code == 0, (words, outcome.said)


def test_tokenizers_that_are_damaged_are_refused_in_one_line(folder):
    dice = random.Random(0)
    (folder / "rows.jsonl").write_text(json.dumps(ROW) + "\n")
    files = sorted(p.name for p in (folder / "tokens").iterdir())
    for _ in range(20):
        shutil.copytree("tokens", "odd", dirs_exist_ok=True)
        name = dice.choice(files)
        how = damaged(folder / "odd" / name, dice)
        words = ["data", "show", "rows.jsonl", "--tokenizer", "odd", "--json"]
        said = fault(invoked(words), ["odd", "rows.jsonl"])
        assert not said, f"{name} {how}: {said}"
        shutil.rmtree("odd")
