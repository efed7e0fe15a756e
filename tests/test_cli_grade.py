"""`align grade`: what it prints and writes, resuming, and every kind of bad file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignkit.cli import main
from alignkit.errors import ending
from alignkit.evaluate.grades import summarize_grades
from alignkit.grading import stored as stored_rows
from alignkit.grading.bound import Graded
from alignkit.types import Score


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["grade", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


def row(answer, truth="5", **more):
    return {
        "response": f"t </think> <answer>{answer}</answer>",
        "ground_truth": truth,
        **more,
    }


def write(path, *rows):
    path.write_bytes(
        b"".join(
            r if isinstance(r, bytes) else json.dumps(r).encode() + b"\n" for r in rows
        )
    )
    return path


@pytest.fixture
def file(tmp_path):
    return write(
        tmp_path / "rows.jsonl",
        row(5, id=1),
        row(6, id=2),
        {"response": "none", "ground_truth": "5", "id": 3},
    )


def test_accuracy_interval_statuses_and_the_format_answer_table_are_printed(
    align, file
):
    code, out, _ = align(file, "--reward", "drgrpo")
    assert code == 0
    assert (
        "0.3333" in out
        and "0.0615 to 0.7923" in out
        and "1 ok, 1 wrong, 1 unparsed" in " ".join(out.split())
    )
    for line in (
        "format=1 answer=1: 1",
        "format=1 answer=0: 1",
        "format=0 answer=0: 1",
    ):
        assert line in out


def test_json_says_the_same(align, file):
    code, out, _ = align(file, "--reward", "drgrpo", "--json")
    found = json.loads(out)["rewards"]["drgrpo"]
    assert code == 0 and found["accuracy"] == pytest.approx(1 / 3) and found["n"] == 3
    assert found["status"] == {"ok": 1, "wrong": 1, "unparsed": 1}
    assert found["seconds"]["p50"] > 0 and json.loads(out)["problems"] == []


def test_two_rewards_and_where_they_disagree(align, tmp_path):
    file = write(tmp_path / "f.jsonl", row(5), row("2^{2}", "4"), row(6))
    code, out, _ = align(
        file, "--reward", "drgrpo", "--reward", "drgrpo:fast=false", "--json"
    )
    assert code == 0
    [differing] = json.loads(out)["disagreements"]
    assert differing == {
        "line": 2,
        "drgrpo": "0 (sympy)",
        "drgrpo:fast=false": "1 (math_verify)",
    }


def test_explain_says_which_stage_decided_and_what_both_became(align, file):
    code, out, _ = align(file, "--reward", "drgrpo", "--explain", 2)
    assert code == 0 and "drgrpo: 0 (wrong; format_reward 1, answer_reward 0)" in out
    assert "decided by sympy: '6' is not '5': compared as rational numbers" in out
    assert align(file, "--reward", "drgrpo", "--explain", 9)[::2] == (
        2,
        f"error: {file} has no row at line 9\n",
    )


def test_out_holds_every_row_in_order_with_its_grade(align, file, tmp_path):
    assert align(file, "--reward", "drgrpo", "--out", "o.jsonl")[0] == 0
    rows = [
        json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()
    ]
    assert [r["id"] for r in rows] == [1, 2, 3]
    assert rows[0]["grade"]["drgrpo"].keys() == {
        "reward",
        "parts",
        "status",
        "stage",
        "seconds",
    }
    assert rows[1]["grade"]["drgrpo"]["parts"] == {
        "format_reward": 1.0,
        "answer_reward": 0.0,
    }


def test_an_interrupted_file_goes_on_where_it_was_and_ends_the_same(
    align, file, tmp_path
):
    out = tmp_path / "o.jsonl"
    _, whole, _ = align(file, "--reward", "drgrpo", "--out", out, "--json")
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(lines[0] + lines[1][:20])  # torn in the second row
    code, again, err = align(file, "--reward", "drgrpo", "--out", out, "--json")
    assert code == 0 and "1 rows were graded before" in err
    assert (
        out.read_bytes().splitlines()[0] == lines[0].strip()
        and len(out.read_bytes().splitlines()) == 3
    )
    assert (
        json.loads(again)["rewards"]["drgrpo"]["status"]
        == json.loads(whole)["rewards"]["drgrpo"]["status"]
    )


def test_results_of_another_file_or_reward_are_not_taken_for_this_one(
    align, file, tmp_path
):
    align(file, "--reward", "drgrpo", "--out", "o.jsonl")
    other = write(tmp_path / "other.jsonl", row(7, id=9))
    code, _, err = align(other, "--reward", "drgrpo", "--out", "o.jsonl")
    assert code == 2 and "o.jsonl:1 is no result of this file" in err
    assert align(file, "--reward", "math_verify", "--out", "o.jsonl")[0] == 2
    assert align(file, "--reward", "drgrpo", "--out", file)[0] == 2


def test_graded_rows_can_be_graded_by_another_reward(align, file):
    align(file, "--reward", "drgrpo", "--out", "a.jsonl")
    assert (
        align("a.jsonl", "--reward", "exact_match:form=r1_zero", "--out", "b.jsonl")[0]
        == 0
    )
    rows = [json.loads(line) for line in Path("b.jsonl").read_text().splitlines()]
    assert [set(r["grade"]) for r in rows] == [
        {"drgrpo", "exact_match:form=r1_zero"}
    ] * 3


def test_malformed_rows_are_named_by_line_and_the_others_are_graded(align, tmp_path):
    rows = [
        row(5),
        b"{broken\n",
        b"\xff\xfe\n",
        b"[1]\n",
        {"answer": "5"},
        {**row(5), "response": 7},
        b"\n",
        row(6),
    ]
    file = write(tmp_path / "bad.jsonl", *rows)
    code, out, _ = align(file, "--reward", "drgrpo", "--json", "--out", "o.jsonl")
    found = json.loads(out)
    assert code == 2 and found["rewards"]["drgrpo"]["n"] == 2
    said = [
        ":2: not JSON",
        ":3: not UTF-8: byte 0xff at column 1",
        ":4: expected an object, got list",
        ":5: there is no field 'response' for the response; the row has answer",
        ":6: the response in 'response' is no text but int",
    ]
    assert len(found["problems"]) == 5
    for problem, text in zip(found["problems"], said, strict=True):
        assert text in problem
    written = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [("grade" in r, r.get("line")) for r in written] == [
        (True, None), (False, 2), (False, 3), (False, 4), (False, 5), (False, 6), (True, None),
    ]  # fmt: skip
    # and all of it is known already
    assert align(file, "--reward", "drgrpo", "--out", "o.jsonl")[0] == 2


@pytest.mark.parametrize(
    "content, arguments, code, said",
    [
        (b"", ["--reward", "drgrpo"], 2, "is empty"),
        (b"{}\n{}\n", ["--reward", "drgrpo"], 2, "none of the 2 rows can be graded"),
        (None, ["--reward", "drgrpo"], 3, "there is no file"),
        (b"{}\n", ["--reward", "drgrop"], 2, "did you mean 'drgrpo'?"),
        (b"{}\n", ["--reward", "drgrpo:fats=true"], 2, "did you mean 'fast'?"),
        (b"{}\n", ["--reward", "drgrpo:fast=7"], 2, "expected bool"),
        (b"{}\n", ["--reward", "drgrpo:fast"], 2, "expected NAME[:OPTION=VALUE,…]"),
        (b"{}\n", [], 2, "--reward"),
    ],
)
def test_wrong_input_is_refused_with_what_to_do(
    align, tmp_path, content, arguments, code, said
):
    file = tmp_path / "f.jsonl"
    if content is not None:
        file.write_bytes(content)
    got, _, err = align(file, *arguments)
    assert got == code and said in err
    assert "Traceback" not in err


def test_other_fields_and_a_truth_called_truth(align, tmp_path):
    file = write(
        tmp_path / "f.jsonl",
        {"out": row(5)["response"], "truth": 5},
        {"out": row(6)["response"], "truth": [6]},
    )
    code, out, _ = align(
        file, "--reward", "drgrpo", "--response-field", "out", "--json"
    )
    assert code == 0 and json.loads(out)["rewards"]["drgrpo"]["accuracy"] == 1.0


def test_rewards_that_want_no_truth_are_not_refused_for_lack_of_one(align, tmp_path):
    file = write(tmp_path / "f.jsonl", {"response": "a " * 600}, {"response": "short"})
    code, out, _ = align(
        file, "--reward", "length_penalty:target=100,buffer=100", "--json"
    )
    assert (
        code == 0
        and json.loads(out)["rewards"]["length_penalty:target=100,buffer=100"]["mean"]
        == -0.5
    )


KIT = """
import time
from alignkit import Reward, hookimpl

def nap(response: str) -> float:
    time.sleep(0.02)
    if "crash" in response:
        raise KeyError("of the plugin")
    return 1.0

def leave(response: str) -> float:
    if response != "stay":
        kinds = {"exit": SystemExit, "stop": KeyboardInterrupt, "end": GeneratorExit}
        raise kinds[response](f"word {response} " * 40 + "LAST")
    return 1.0

async def leave_async(response: str) -> float:
    return leave(response)

def leave_batch(responses: list) -> list:
    return [leave(response) for response in responses]

@hookimpl
def align_rewards():
    yield Reward("nap", nap)
    yield Reward("leave", leave)
    yield Reward("leave_here", leave, where="process")
    yield Reward("leave_async", leave_async)
    yield Reward("leave_batch", leave_batch)
"""


@pytest.fixture
def kit(tmp_path):
    folder = tmp_path / "kit"
    (folder / "rewards").mkdir(parents=True)
    (folder / "rewards" / "nap.py").write_text(KIT)
    return folder


def test_a_crash_of_a_users_reward_is_counted_and_shown(align, tmp_path, kit):
    file = write(
        tmp_path / "f.jsonl", row(5), {"response": "crash", "ground_truth": "5"}
    )
    code, out, _ = align(file, "--kit", kit, "--reward", "nap")
    assert (
        code == 1
        and "1 error" in out
        and "line 2:" in out
        and "KeyError: 'of the plugin'" in out
    )


@pytest.mark.parametrize("reward", ["leave", "leave_here", "leave_async"])
@pytest.mark.parametrize("way", ["exit", "stop", "end"])
def test_an_exit_in_a_reward_is_a_crash_of_that_sample(
    align, tmp_path, kit, reward, way
):
    if (reward, way) == ("leave_here", "stop"):
        pytest.skip("in this process it may be the user's own Ctrl-C")
    rows = [{"response": text} for text in ("stay", way, "stay")]
    file = write(tmp_path / "f.jsonl", *rows)
    code, out, err = align(file, "--kit", kit, "--reward", reward)
    assert code == 1 and "2 ok, 1 error" in " ".join(out.split()), err
    assert "line 2:" in out and f"word {way} LAST" in out  # whole words


def test_an_exit_in_a_batch_is_a_crash_of_the_batch(align, tmp_path, kit):
    file = write(tmp_path / "f.jsonl", {"response": "stay"}, {"response": "exit"})
    code, out, _ = align(file, "--kit", kit, "--reward", "leave_batch", "--json")
    assert code == 1
    assert json.loads(out)["rewards"]["leave_batch"]["status"] == {"error": 2}


@pytest.mark.parametrize(
    ("seconds", "p50", "p99"),
    [([3], 3, 3), ([1, 9], 1, 9), ([9, 1, 5], 5, 9), (range(200), 99, 197)],
)
def test_percentiles_of_few_rows(seconds, p50, p99):
    stored = stored_rows.StoredRow(1, {})
    rows = [
        stored_rows.GradedRow(stored, {"r": Graded(Score(1.0, "ok"), float(one))})
        for one in seconds
    ]
    found = summarize_grades("f", ["r"], rows, 1.0)["rewards"]["r"]["seconds"]
    assert (found["p50"], found["p99"]) == (p50, p99)


def test_the_end_of_a_long_text_has_whole_words():
    text = "\n".join(["a line of words"] * 50 + ["Error: the end"])
    assert ending(text, 100).splitlines()[:2] == ["a line of words"] * 2
    assert len(ending(text, 100)) <= 100 and ending(text, 100).endswith("the end")
    assert (
        ending("some words " * 100, 25) == "some words some words … (1099 characters)"
    )


def test_interrupting_keeps_what_is_done_and_tells_how_to_go_on(tmp_path, kit):
    file = write(tmp_path / "f.jsonl", *[row(i, id=i) for i in range(1500)])
    command = [
        sys.executable,
        "-m",
        "alignkit.cli",
        "grade",
        str(file),
        "--kit",
        str(kit),
        "--reward",
        "nap",
        "--out",
    ]
    out = tmp_path / "o.jsonl"
    process = subprocess.Popen(
        [*command, str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    until = time.monotonic() + 60
    while not out.exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "run the same command again to go on" in err
    done = len(out.read_bytes().splitlines())
    assert 0 < done < 1500


@pytest.mark.parametrize(
    ("out", "words"),
    [("folder", "is no file; name a file"), ("rows.jsonl", "would be overwritten")],
)
def test_grades_go_neither_into_a_folder_nor_over_what_is_graded(
    align, file, tmp_path, out, words
):
    (tmp_path / "folder").mkdir()
    before = file.read_bytes()
    code, _, err = align(file, "--reward", "drgrpo", "--out", out)
    assert code == 2 and words in err
    assert file.read_bytes() == before


@pytest.mark.parametrize("reward", ["drgrpo", "question_only"])
def test_a_retired_option_names_what_took_its_place(align, file, reward):
    code, _, err = align(file, "--reward", f"{reward}:strict=true")
    assert code == 2
    assert f"reward '{reward}' has no option 'strict'" in err
    assert "`math` refuses answers that hedge" in err
