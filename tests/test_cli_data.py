"""`align data`: what is written, printed and refused."""

import json

import pytest
from servers import OpenAIServer

from alignkit.cli import main
from alignkit.models import build_tokenizer


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run `align data …` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ALIGN_DATA", raising=False)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["data", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


@pytest.fixture
def rows(tmp_path):
    """A file of ten answered questions, each with a wrong trace beside it."""
    path = tmp_path / "rows.jsonl"
    lines = []
    for i in range(10):
        for answer in (i, i + 1):
            response = f"{i} it is</think> <answer>{answer}</answer>"
            lines.append(
                {
                    "problem": f"What is {i}?",
                    "response": response,
                    "truth": str(i),
                    "tokens": 10 + i,
                }
            )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def tokenizer(tmp_path):
    build_tokenizer("bytes", 512).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_split_writes_three_files_that_share_no_question(align, rows, tmp_path):
    bench = tmp_path / "bench.jsonl"
    bench.write_text('{"question": "what is 3"}\n')
    code, out, _ = align(
        "split", rows, "--out", "parts", "--validation", 2, "--against", bench, "--json"
    )
    counts = json.loads(out)
    parts = {
        name: read(tmp_path / "parts" / f"{name}.jsonl")
        for name in ("train", "validation", "removed")
    }
    assert code == 0 and {name: len(part) for name, part in parts.items()} == {
        k: counts[k] for k in parts
    }
    assert (counts["train"], counts["validation"], counts["removed"]) == (14, 2, 4)
    assert not {r["problem"] for r in parts["train"]} & {
        r["problem"] for r in parts["validation"]
    }
    assert sum("bench.jsonl" in r["removed"] for r in parts["removed"]) == 2


def test_filter_by_reward_keeps_the_right_answers_and_says_why_others_went(
    align, rows, tmp_path
):
    code, out, _ = align(
        "filter", rows, "--reward", "drgrpo:fast=true", "--out", "kept.jsonl"
    )
    kept = read(tmp_path / "kept.jsonl")
    assert (
        code == 0
        and len(kept) == 10
        and all(r["reward"] == 1.0 and r["status"] == "ok" for r in kept)
    )
    assert "10 of 20 rows kept" in out and "dropped: 10 reward below 1" in out


def test_filter_by_length_takes_the_column_or_a_tokenizer(
    align, rows, tokenizer, tmp_path
):
    assert align("filter", rows, "--max-tokens", 12, "--out", "a.jsonl")[0] == 0
    assert {r["tokens"] for r in read(tmp_path / "a.jsonl")} == {10, 11, 12}
    align(
        "filter", rows, "--min-tokens", 35, "--tokenizer", tokenizer, "--out", "b.jsonl"
    )
    kept = read(tmp_path / "b.jsonl")
    assert 0 < len(kept) < 20 and all(len(r["response"]) >= 35 for r in kept)


def test_stats_count_tokens_and_suggest_a_length(align, rows, tokenizer):
    code, out, _ = align(
        "stats",
        rows,
        "--prompt",
        "question_only",
        "--tokenizer",
        tokenizer,
        "--max-length",
        12,
        "--json",
    )
    found = json.loads(out)
    assert code == 0 and found["rows"] == 20
    # the end token
    assert (
        found["lengths"]["response"]["longest"]
        == len("9 it is</think> <answer>10</answer>") + 1
    )
    assert found["limits"]["12"]["dropped"] == 20
    code, out, _ = align(
        "stats", rows, "--prompt", "question_only", "--tokenizer", tokenizer
    )
    assert (
        f"suggested max_length: {found['suggested_max_length']} (the 95th percentile)"
        in out
    )
    assert "max_length 512: 0 rows dropped" in out and "#" in out


def test_stats_refuse_a_first_row_without_the_response_that_others_have(
    align, tokenizer, tmp_path
):
    (tmp_path / "some.jsonl").write_text(
        '{"prompt": "a"}\n{"prompt": "a", "response": "b"}\n'
    )
    code, _, err = align("stats", tmp_path / "some.jsonl", "--tokenizer", tokenizer)
    assert code == 2 and "row 1: expected a text in `response`" in err


def test_show_prints_every_token_once_and_what_is_trained_on(align, rows, tokenizer):
    code, out, _ = align(
        "show",
        rows,
        "--prompt",
        "r1_zero",
        "--tokenizer",
        tokenizer,
        "--rows",
        1,
        "--json",
    )
    (row,) = json.loads(out)
    prompt, response = row["segments"]
    assert code == 0 and (prompt["trained"], response["trained"]) == (False, True)
    assert len(response["ids"]) == len("0 it is</think> <answer>0</answer>") + 1
    code, out, _ = align(
        "show",
        rows,
        "--prompt",
        "r1_zero",
        "--tokenizer",
        tokenizer,
        "--rows",
        1,
        "--first",
        2,
    )
    assert "row 2 of 20" in out and "0 it is</think> <answer>1</answer><|end|>" in out
    assert f"response: {len(response['ids'])} tokens, trained on" in out


def test_show_marks_what_a_recipes_maximum_length_cuts(
    align, rows, tokenizer, tmp_path
):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nmethod: sft\nmodel: {build: {tokenizer: bytes}}\ndata: {train:"
        f" {{dataset: jsonl, path: {rows}}}, prompt: {{template: 'Q"
        " {question}'}}\ntrain: {max_length: 30, max_steps: 1}\n"
    )
    code, out, err = align("show", recipe, "--rows", 1, "--json")
    assert code == 0, err
    parts = json.loads(out)[0]["segments"]
    assert [(p["part"], p["trained"]) for p in parts] == [
        ("prompt", False),
        ("response", True),
        ("response (cut at 30 tokens)", False),
    ]
    assert len(parts[0]["ids"]) + len(parts[1]["ids"]) == 30


def test_control_characters_and_markup_of_the_data_are_only_shown(
    align, tokenizer, tmp_path
):
    path = tmp_path / "evil.jsonl"
    path.write_text(
        json.dumps({"prompt": "\x1b[2J [red]x[/red] é", "response": "[/nope] 漢\x07"})
        + "\n"
    )
    code, out, _ = align("show", path, "--tokenizer", tokenizer)
    assert code == 0 and "\x1b[2J" not in out and "\x07" not in out
    assert "\\x1b[2J [red]x[/red] é" in out and "[/nope] 漢\\x07" in out


def teacher(server, *more):
    return (
        "--teacher",
        "vllm:m",
        "--base-url",
        server.url,
        "--out",
        "made.jsonl",
        *more,
    )


def test_distill_estimates_asks_and_resumes(align, rows, tmp_path):
    with OpenAIServer(lambda b: "because") as server:
        code, out, err = align("distill", rows, *teacher(server), "--max-cost", 1)
        assert (
            code == 0
            and "to ask: 10 requests" in err
            and "10 of 10 answers finished" in out
        )
        code, out, _ = align("distill", rows, *teacher(server), "--json")
    assert json.loads(out)["reused"] == 10 and len(server.served) == 10
    assert read(tmp_path / "made.jsonl")[0]["response"] == "because"


def test_distill_writes_and_reads_batch_files_without_a_key(
    align, rows, tmp_path, monkeypatch
):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    code, out, _ = align(
        "distill", rows, "--out", "made.jsonl", "--write-batch", "batch.jsonl"
    )
    assert code == 0 and "10 requests in batch.jsonl" in out
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    results = [
        {"custom_id": r["custom_id"], "response": {"choices": [choice]}}
        for r in read(tmp_path / "batch.jsonl")
    ]
    (tmp_path / "results.jsonl").write_text(
        "".join(json.dumps(r) + "\n" for r in results)
    )
    code, out, _ = align(
        "distill", rows, "--out", "made.jsonl", "--read-batch", "results.jsonl"
    )
    assert (
        code == 0
        and "batch: 10 taken" in out
        and len(read(tmp_path / "made.jsonl")) == 10
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["stats", "rows.jsonl", "--prompt", "question_only"], 2, "--tokenizer"),
        (["stats", "none.jsonl"], 3, "there is no data file none.jsonl"),
        (["stats", "matth"], 2, "did you mean 'math'"),
        (
            ["show", "rows.jsonl", "--prompt", "a", "--prompt-file", "b"],
            2,
            "exclude each other",
        ),
        (
            ["split", "rows.jsonl", "--out", "x", "--validation", "500"],
            2,
            "only 10 distinct",
        ),
        (
            ["split", "rows.jsonl", "--out", "x", "--validation", "nan"],
            2,
            "expected a number",
        ),
        (
            ["split", "rows.jsonl", "--out", "x", "--validation", "inf"],
            2,
            "expected a number",
        ),
        (
            ["split", "rows.jsonl", "--out", "x", "--column", "question"],
            2,
            "expected NAME=THEIRS",
        ),
        (
            ["filter", "rows.jsonl", "--out", "x", "--reward", "drgrp"],
            2,
            "did you mean 'drgrpo'",
        ),
        (
            ["filter", "rows.jsonl", "--out", "x", "--reward", "drgrpo:fsat=true"],
            2,
            "no option 'fsat'",
        ),
        (
            ["filter", "rows.jsonl", "--out", "x", "--finish-reason", "stop"],
            2,
            "no 'finish_reason'",
        ),
        (
            ["filter", "rows.jsonl", "--out", "x", "--split", "test"],
            2,
            "--split test: the file rows.jsonl has no",
        ),
        (
            ["filter", "rows.jsonl", "--out", "x", "--data", "y.jsonl"],
            2,
            "rows.jsonl is a file itself",
        ),
        (["filter", "a" * 300, "--out", "x"], 2, "there is no dataset"),
        (
            ["split", "rows.jsonl", "--out", "x", "--against", "a" * 300],
            2,
            "there is no dataset",
        ),
        (
            ["filter", "rows.jsonl", "--out", "."],
            2,
            ". is no file; name a file to write",
        ),
        (
            ["distill", "rows.jsonl", "--out", "/", "--teacher", "vllm:m"],
            2,
            "/ is no file; name a file to write",
        ),
        (
            ["filter", "rows.jsonl", "--out", "/dev/null"],
            2,
            "/dev/null is no file; name a file to write",
        ),
        (
            ["distill", "rows.jsonl", "--out", "x", "--teacher", "fireworks"],
            3,
            "FIREWORKS_API_KEY",
        ),
        (
            ["distill", "rows.jsonl", "--out", "x", "--teacher", "vllm"],
            2,
            "needs its model's name",
        ),
        (
            ["distill", "rows.jsonl", "--out", "x", "--teacher", "local"],
            2,
            "is no endpoint",
        ),
        (
            [
                "distill",
                "rows.jsonl",
                "--out",
                "x",
                "--teacher",
                "together",
                "--max-cost",
                "1",
            ],
            2,
            "needs a price",
        ),
        (
            ["distill", "rows.jsonl", "--out", "x", "--base-url", "http://u:pw@h/v1"],
            2,
            "password",
        ),
    ],
)
def test_what_is_wrong_or_missing_is_said_with_its_exit_code(
    align, rows, monkeypatch, arguments, code, says
):
    monkeypatch.delenv("FIREWORKS_API_KEY", raising=False)
    monkeypatch.setenv("TOGETHER_API_KEY", "x")
    got, _, err = align(*arguments)
    assert (got, "Traceback" in err) == (code, False) and says in err


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["filter", "rows.jsonl", "--out", "./rows.jsonl"], "rows.jsonl"),
        (
            [
                "distill",
                "rows.jsonl",
                "--out",
                "rows.jsonl",
                "--teacher",
                "vllm:m",
                "--limit",
                1,
            ],
            "rows.jsonl",
        ),
        (
            [
                "distill",
                "rows.jsonl",
                "--out",
                "x.jsonl",
                "--write-batch",
                "rows.jsonl",
            ],
            "rows.jsonl",
        ),
        (["split", "train.jsonl", "--out", ".", "--validation", 1], "train.jsonl"),
        (
            [
                "split",
                "rows.jsonl",
                "--out",
                ".",
                "--validation",
                1,
                "--against",
                "train.jsonl",
            ],
            "train.jsonl",
        ),
    ],
)
def test_what_is_read_is_never_written_over(align, rows, tmp_path, arguments, names):
    (tmp_path / "train.jsonl").write_bytes(rows.read_bytes())
    before = rows.read_bytes()
    code, _, err = align(*arguments)
    assert code == 2 and f"{names} is read by this command" in err
    assert rows.read_bytes() == (tmp_path / "train.jsonl").read_bytes() == before


def test_a_repeated_prompt_is_counted_among_what_was_not_asked(align, rows, tmp_path):
    with OpenAIServer(lambda b: "because") as server:
        _, out, _ = align("distill", rows, *teacher(server))
    assert "10 of the rows' answers repeat a prompt" in out


def test_leakage_between_real_benchmarks_is_found(
    align_data, align, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALIGN_DATA", str(align_data))
    code, out, _ = align(
        "split",
        "math",
        "--validation",
        500,
        "--against",
        "math:test",
        "--out",
        "parts",
        "--json",
    )
    counts = json.loads(out)
    assert code == 0 and (counts["train"], counts["validation"], counts["removed"]) == (
        6995,
        500,
        3,
    )


@pytest.mark.parametrize(
    ("row", "arguments", "says"),
    [
        (
            '{"question": "a", "response": "b"}',
            ["--reward", "drgrpo"],
            "needs the column 'truth'",
        ),
        (
            '{"response": [{"content": "1"}], "truth": "1"}',
            ["--reward", "exact_match"],
            "row 1: `response` is a list",
        ),
        (
            '{"response": "b", "tokens": "many"}',
            ["--max-tokens", 9],
            "row 1: `tokens` is 'many', expected a number",
        ),
        (
            '{"response": "b", "tokens": ' + "1" * 5000 + "}",
            ["--max-tokens", 9],
            "odd.jsonl:1: Exceeds the limit",
        ),
    ],
)
def test_a_filter_refuses_rows_that_it_cannot_judge(
    align, tmp_path, row, arguments, says
):
    (tmp_path / "odd.jsonl").write_text(row)
    code, _, err = align(
        "filter", tmp_path / "odd.jsonl", "--out", "x.jsonl", *arguments
    )
    assert code == 2 and says in err


TWICE = {
    "fine": "a</think> <answer>1</answer>",
    "begun again": "<think>a</think> <answer>1</answer>",
    "ended twice": "a</think> b</think> <answer>1</answer>",
    "answered twice": "a</think> <answer><answer>1</answer>",
    "only spoken of": "it says <answer> </answer> </answer>; so</think> <answer>1</answer>",
}


def test_show_warns_of_doubled_tags_with_a_count_and_rows(align, tokenizer, tmp_path):
    path = tmp_path / "twice.jsonl"
    rows = [{"question": "q", "response": text} for text in TWICE.values()]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows]))
    show = ("show", path, "--tokenizer", tokenizer, "--rows", 1)
    code, out, err = align(*show, "--prompt", "r1_zero")
    told = " ".join(err.split())
    assert code == 0 and "warning: 6 of 10 rows have" in told
    assert "<think>" in told and "rows 2, 3, 4, 7, 8, 9." in told
    code, out, err = align(*show, "--prompt", "question_only", "--json")
    assert code == 0 and isinstance(json.loads(out), list)
    assert "rows 3, 4, 8, 9." in " ".join(err.split())
    path.write_text(json.dumps(rows[0]))
    assert "warning" not in align(*show, "--prompt", "r1_zero")[2]


@pytest.mark.parametrize("column", ["truth", "ground_truth", "answer"])
def test_correct_keeps_the_rows_with_a_right_response_of_any_data(
    align, tokenizer, tmp_path, column
):
    texts = {
        "so</think> <answer>2</answer>": True,
        "so</think> <answer>3</answer>": False,
        "so</think>\n<answer>2</answer>": False,  # not in the form that it begins
        "It is \\boxed{2}.": True,
        "The answer is 3.": False,
        "<think>3?</think> The answer is 2.": True,
    }
    rows = [{"question": "1+1?", "response": t, column: "x #### 2"} for t in texts]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nmethod: sft\nmodel: {build: {tokenizer: bytes}}\ndata: {train:"
        f" {{dataset: jsonl, path: {path}, correct: true}}, prompt: question_only}}\n"
        "train: {max_steps: 1}\n"
    )
    code, out, err = align("show", recipe, "--rows", 9, "--json")
    assert code == 0 and len(json.loads(out)) == sum(texts.values()), err
    given = ("filter", path, "--out", "kept.jsonl", "--set")
    assert align(*given, "correct=true")[0] == 0
    kept = [row["response"] for row in read(tmp_path / "kept.jsonl")]
    assert kept == [text for text, right in texts.items() if right]
    code, _, err = align(*given, "correct=7")
    assert code == 2 and "correct is 7; expected true or false" in err
    for odd, says in (({"response": "2"}, "no truth"), ({column: "2"}, "no text")):
        path.write_text(json.dumps({"question": "q", **odd}))
        code, _, err = align(*given, "correct=true")
        assert code == 2 and f"row 1 has {says}" in err and "Traceback" not in err


@pytest.mark.parametrize("prompt", ["5", "null", "true", '{"a": 1}'])
def test_a_prompt_that_is_no_text_is_refused(align, tokenizer, tmp_path, prompt):
    path = tmp_path / "odd.jsonl"
    path.write_text(f'{{"prompt": {prompt}, "response": "b"}}')
    for command in ("stats", "show"):
        code, _, err = align(command, path, "--tokenizer", tokenizer)
        assert code == 2 and "expected a text" in err and "Traceback" not in err
