"""`align data` holds no rows: its memory does not grow with what a file holds."""

import json
import tracemalloc

import pytest

from alignkit.cli import main
from alignkit.cli import show as showing
from alignkit.data.spool import Spool
from alignkit.models import build_tokenizer

TEXT = "so it is then that number and the next one " * 100  # 4 kB
FEW, MANY = 50, 500


@pytest.fixture
def tokenizer(tmp_path):
    build_tokenizer("bytes", 512).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run `align data …`: its standard output."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *map(str, arguments)])
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return call


def write(path, count):
    with path.open("w") as file:
        for i in range(count):
            row = {"question": f"{i}?", "prompt": f"{i}?", "response": f"{i} {TEXT}"}
            file.write(json.dumps(row | {"truth": str(i), "tokens": i}) + "\n")
    return path


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "command",
    [
        ("split", "--validation", "0.1", "--out", "parts"),
        ("split", "--validation", "0.1", "--out", "parts", "--against", "FILE"),
        ("filter", "--duplicates", "both", "--out", "kept.jsonl"),
        ("filter", "--min-tokens", "1", "--out", "kept.jsonl"),
        ("show", "--tokenizer", "tokenizer"),
    ],
    ids=" ".join,
)
def test_ten_times_the_rows_do_not_take_their_size_more_in_memory(
    command, align, tokenizer, tmp_path
):
    def on(count):
        file = write(tmp_path / f"{count}.jsonl", count)
        said = [str(file) if part == "FILE" else part for part in command]
        return lambda: align(said[0], file, *said[1:])

    few, many = on(FEW), on(MANY)
    few()  # what is imported once counts for neither
    more = peak(many) - peak(few)
    assert more < 0.1 * (MANY - FEW) * len(TEXT)


def test_a_long_row_is_shown_as_far_as_the_window_goes(align, tokenizer, tmp_path):
    shown = {}
    for count in (showing.SHOWN, 10 * showing.SHOWN):
        file = tmp_path / f"{count}.jsonl"
        file.write_text(json.dumps({"prompt": "q", "response": "x" * count}) + "\n")
        said = align("show", file, "--tokenizer", tokenizer, "--json")
        _, shown[count] = json.loads(said)[0]["segments"]
    whole, cut = shown.values()
    assert "characters_left_out" not in whole
    assert cut["characters_left_out"] == 9 * showing.SHOWN
    assert cut["ids"] == whole["ids"][:-1]  # the end token stands behind the rest
    said = align("show", file, "--tokenizer", tokenizer)
    assert said.rstrip().endswith(
        f"… {9 * showing.SHOWN} more characters are not shown"
    )


def test_rows_in_a_spool_are_those_that_went_in():
    rows = [
        {"n": n, "value": value} for n, value in enumerate((None, "\ud800", b"x", 1.5))
    ]
    spool = Spool(iter(rows))
    assert len(spool) == 4 and list(spool) == rows
    assert spool[-1] == rows[-1] and spool[1:3] == rows[1:3]
    # two readers at once
    assert list(zip(spool, spool, strict=True)) == list(zip(rows, rows, strict=True))
    with pytest.raises(IndexError):
        spool[4]
