"""Evals without a plugin: rows of one's own with a reward, on the command line and in a
recipe.
"""

import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from servers import OpenAIServer

from alignkit import kits, plugins
from alignkit import recipe as recipes
from alignkit.cli import cli, main
from alignkit.errors import PluginError, RecipeError

ROWS = [
    {"problem": f"What is {n} + {n}?", "answer": str(2 * n), "level": f"L{n % 2}"}
    for n in range(1, 7)
]
KIT = """
from alignkit import InputError, Reward, Score, hookimpl

ASKED = []


def levels(responses, metadatas):
    ASKED.append(len(responses))
    if len(ASKED) == 1:
        raise ValueError("out of reach")
    return [float(one["level"] == "L1") for one in metadatas]


@hookimpl
def align_rewards():
    yield Reward("levels", levels)
"""


def write(path: Path, rows=ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def double(body):
    """Right on odd numbers; on even ones the answer stands in no tags."""
    number = int(body["prompt"].split("What is ")[1].split()[0])
    said = f"</think> <answer>{2 * number}</answer>"
    return f"both</think> It is {2 * number + 1}." if number % 2 == 0 else said


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run `align eval` in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "rows.jsonl")

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(["eval", *map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return call


def at(server, *more):
    return ("--base-url", server.url, "--model", "m", *more)


def test_rows_are_graded_by_a_reward_and_the_provenance_holds_both(align, tmp_path):
    asked = ("data:rows.jsonl", "--reward", "drgrpo:fast=false", "--prompt", "r1_zero")
    with OpenAIServer(double) as server:
        code, out, _ = align(*asked, *at(server), "--json")
        (summary,) = json.loads(out)
        assert (code, summary["eval"], summary["metric"]) == (0, "data:rows", "reward")
        assert summary["status"] == {"ok": 3, "unparsed": 3} and summary["value"] == 0.5
        known = summary["provenance"]
        assert known["grader"]["name"] == "drgrpo"
        assert known["grader"]["options"]["fast"] is False
        assert "rewards/drgrpo.py" in known["grader"]["parts"]
        assert known["prompt"]["name"] == "r1_zero"

        align(*asked, *at(server))
        assert len(server.served) == 6, "what is there is not asked again"
        write(tmp_path / "rows.jsonl", [{**ROWS[0], "answer": "3"}, *ROWS[1:]])
        _, out, _ = align(*asked, *at(server), "--json")
        (changed,) = json.loads(out)
        assert len(server.served) == 6 and changed["status"]["ok"] == 2
        assert changed["provenance"]["data"]["sha256"] != known["data"]["sha256"]

    stored = f"{summary['folder']}/samples.jsonl"
    _, out, _ = align(*asked, "--responses", stored, "--out", "o", "--json")
    assert json.loads(out)[0]["status"] == changed["status"]


def test_what_a_reward_in_this_process_could_not_have_is_left_open(align, tmp_path):
    (tmp_path / "kit/rewards").mkdir(parents=True)
    (tmp_path / "kit/rewards/levels.py").write_text(KIT)
    asked = ("data:rows.jsonl", "--reward", "levels", "--prompt", "question_only")
    with OpenAIServer(double) as server:
        flags = (*at(server), "--kit", "kit", "--json")
        code, out, err = align(*asked, *flags)
        assert code == 1 and json.loads(out)[0]["status"] == {"open": 6}
        assert "6 judgements are left open" in err and "again" in err
        code, out, _ = align(*asked, *flags)
        assert code == 0 and json.loads(out)[0]["value"] == 0.5
        assert len(server.served) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["data:rows.jsonl"], 2, "--reward NAME (drgrpo, "),
        (["data:"], 2, "expected data:FILE"),
        (["data:none.jsonl", "--reward", "math"], 3, "no data file none.jsonl"),
        (["data:rows.jsonl", "--reward", "mathh"], 2, "did you mean 'math'"),
        (["data:rows.jsonl", "--reward", "math:unit=x"], 2, "did you mean 'units'"),
        (["data:rows.jsonl", "--reward", "math:units=x"], 2, "units"),
        (
            ["data:rows.jsonl", "--reward", "reward_model"],
            2,
            "needs the option 'model'",
        ),
        (["data:rows.jsonl", "--reward", "math"], 2, "no prompt is named"),
        (["arithmetic", "--reward", "math"], 2, "arithmetic has a score of its own"),
        (
            ["data:rows.jsonl", "--reward", "math", "--data", "rows.jsonl"],
            2,
            "data:FILE names its file itself",
        ),
        (
            ["data:rows.jsonl", "--reward", "math", "--split", "test"],
            2,
            "data:FILE is one file, without splits",
        ),
        (
            ["data:rows.jsonl", "data:other/rows.jsonl", "--reward", "math"],
            2,
            "two files are called data:rows",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(align, arguments, code, message):
    left, _, err = align(
        *arguments, "--base-url", "http://127.0.0.1:9/v1", "--model", "m"
    )
    assert left == code and message in " ".join(err.split())


@pytest.mark.parametrize("missing", [None, "", " ", math.nan, []])
def test_rows_without_a_truth_are_refused_by_row(align, tmp_path, missing):
    write(tmp_path / "rows.jsonl", [*ROWS[:2], {**ROWS[2], "answer": missing}])
    asked = ("data:rows.jsonl", "--reward", "math", "--prompt", "r1_zero")
    code, _, err = align(*asked, "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert code == 2 and "row 3" in err and "truth" in err


RECIPE = """
name: own
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: arithmetic}
train: {max_steps: 1, per_device_train_batch_size: 4, save_strategy: "no"}
evals: {EVALS}
"""


def problems_of(folder: Path, evals: str) -> str:
    (folder / "recipe.yaml").write_text(RECIPE.replace("{EVALS}", evals))
    registry = plugins.load([kits.builtin()])
    with pytest.raises(RecipeError) as refused:
        recipes.load(folder / "recipe.yaml", registry=registry)
    return str(refused.value)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("aritmetic: {limit: 3}", "did you mean 'arithmetic'?"),
        ("mine: {data: {path: r.jsonl}}", "need `reward` beside `data`"),
        ("mine: {reward: math}", "need `data` beside `reward`"),
        ("mine: {data: {path: r.jsonl}, rewad: math}", "need `reward` beside `data`"),
        ("mine: {date: {path: r.jsonl}, reward: math}", "need `data` beside `reward`"),
        ("mine: {data: {path: r.jsonl}, reward: mth}", "did you mean 'math'"),
        ("mine: {data: {path: r.jsonl}, reward: {name: math, unit: x}}", "'unit'"),
        (
            "mine: {data: {path: r.jsonl}, reward: math, limt: 3}",
            "did you mean 'limit'",
        ),
        ("mine: {data: {path: r.jsonl, colums: {}}, reward: math}", "'colums'"),
        ("../mine: {data: {path: r.jsonl}, reward: math}", "cannot be an eval's name"),
        ("math: {data: {path: r.jsonl}, reward: math}", "has a score of its own"),
    ],
)
def test_a_recipe_names_the_nearest_of_what_is_misspelt(tmp_path, entry, said):
    write(tmp_path / "r.jsonl")
    assert said in problems_of(tmp_path, f"{{{entry}}}")


def test_an_eval_of_ones_own_runs_in_training_and_is_part_of_the_fingerprint(tmp_path):
    rows = [{"question": f"{n}+{n}=?", "truth": str(2 * n)} for n in range(1, 5)]
    write(tmp_path / "rows.jsonl", rows)
    own = """{mine: {data: {path: rows.jsonl}, prompt: arithmetic, before: true,
  reward: {name: exact_match, form: r1_zero}, sampling: {max_new_tokens: 8}}}"""
    (tmp_path / "own.yaml").write_text(RECIPE.replace("{EVALS}", own))
    done = CliRunner().invoke(
        cli, ["run", str(tmp_path / "own.yaml"), "--folder", str(tmp_path / "run")]
    )
    assert done.exit_code == 0, done.output
    logged = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert sum("eval/mine/reward" in row for row in logged) == 2
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    parts = manifest["identity"]["parts"]
    assert "rewards/exact_match.py" in parts["reward exact_match"]
    assert "rows of evals.mine.data" in parts
    summary = json.loads((tmp_path / "run/evals/mine@1/summary.json").read_text())
    options = {"form": "r1_zero", "ignore_case": False}
    assert summary["provenance"]["grader"]["options"] == options


@pytest.mark.parametrize("word", ["data", "lm"])
def test_no_eval_or_option_is_called_as_a_way_to_name_evals(tmp_path, word):
    (tmp_path / "evals").mkdir()
    file = tmp_path / "evals/taken.py"
    text = """
from alignkit import Eval, Sample, hookimpl, Score


def samples(rows, render, *, OPTION: int = 1):
    yield Sample("a", "b")


def score(sample, response):
    return Score(1.0)


@hookimpl
def align_evals():
    yield Eval(name="NAME", samples=samples, score=score)
"""
    for name, option in ((word, "x"), ("free", word)):
        file.write_text(text.replace("NAME", name).replace("OPTION", option))
        with pytest.raises(PluginError, match=f"can be called '{word}'"):
            plugins.load_kit(tmp_path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": 7, "truth": "1"}], "has the prompt 7; expected a text, or a list"),
        ([{"prompt": [{"role": "user"}], "truth": "1"}], "with role and content"),
        (
            [{"id": 1, "prompt": "a", "truth": "1"}] * 2,
            "2 samples with the id '1'; each needs its own",
        ),
    ],
)
def test_rows_that_ask_nothing_are_refused(align, tmp_path, rows, said):
    write(tmp_path / "rows.jsonl", rows)
    server = ("--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    code, _, err = align("data:rows.jsonl", "--reward", "math", *server)
    assert code == 2 and said in " ".join(err.split())


def test_a_prompt_that_is_named_is_put_around_the_rows_own(align, tmp_path):
    write(tmp_path / "rows.jsonl", [{"prompt": "What is 1 + 1?", "truth": "2"}])
    asked = ("data:rows.jsonl", "--reward", "math")
    with OpenAIServer(lambda body: "2") as server:
        align(*asked, *at(server), "--out", "a")
        align(*asked, *at(server), "--out", "b", "--prompt", "r1_zero")
        first, second = (body["prompt"] for body in server.served)
    assert first == "What is 1 + 1?"
    assert second.endswith("User: What is 1 + 1?\nAssistant: <think>")


def test_prompts_too_long_for_the_model_stop_a_run_before_it_trains(tmp_path):
    rows = [{"question": f"{n}+{n}=?", "truth": "1"} for n in (1, 2, 10**70)]
    write(tmp_path / "rows.jsonl", rows)
    own = "{mine: {data: {path: rows.jsonl}, prompt: arithmetic, reward: math}}"
    (tmp_path / "own.yaml").write_text(RECIPE.replace("{EVALS}", own))
    done = CliRunner().invoke(
        cli, ["run", str(tmp_path / "own.yaml"), "--folder", str(tmp_path / "run")]
    )
    assert "evals.mine: the model reads at most 64 tokens" in str(done.exception)
    assert "prompt 2 (" in str(done.exception)
    assert not (tmp_path / "run/metrics.jsonl").exists(), "nothing was trained"
