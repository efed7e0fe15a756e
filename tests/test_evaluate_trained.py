"""A run is measured as it was trained: `align eval EVAL --model RUN` takes the run's own
settings and says so, or what differs.
"""

import json
import re
import shlex

import pytest
from click.testing import CliRunner

from alignkit.cli import cli, main

RECIPE = """
name: small
method: sft
seed: 7
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 32}, prompt: {file: plain.prompt}}
train: {max_steps: 1, per_device_train_batch_size: 4, save_strategy: "no"}
evals:
  arithmetic:
    limit: 12
    prompt: {file: plain.prompt}
    sampling: {temperature: 0.5, max_new_tokens: 9}
  mine: {data: {path: rows.jsonl}, reward: exact_match, prompt: arithmetic, limit: 3}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run, and what it printed."""
    home = tmp_path_factory.mktemp("trained")
    (home / "plain.prompt").write_text("{question}=")
    rows = [{"question": f"{n}+{n}", "truth": str(2 * n)} for n in range(1, 5)]
    (home / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (home / "small.yaml").write_text(RECIPE)
    folder = home / "the run"
    asked = ["run", str(home / "small.yaml"), "--folder", str(folder)]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    return folder, done.output


@pytest.fixture
def align(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: (exit code, stdout, stderr in one line)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([*map(str, arguments)])
        out, err = capsys.readouterr()
        return stopped.value.code, out, " ".join(err.split())

    return call


def stored(folder, name):
    text = (folder / f"evals/{name}@1/summary.json").read_text()
    return json.loads(text)


def test_the_command_that_a_run_names_measures_what_the_run_measured(run, align):
    folder, said = run
    commands = [shlex.split(c) for c in re.findall(r"next: align (.*)", said)]
    assert [words[1] for words in commands] == ["arithmetic", "mine"]
    for words in commands:
        code, out, err = align(*words, "--json")
        (summary,) = json.loads(out)
        before = stored(folder, summary["eval"])
        assert code == 0 and f"as {folder} measured it" in err
        for key in ("prompt", "data", "sampling", "options", "grader"):
            assert summary["provenance"][key] == before["provenance"][key], key
        assert summary["value"] == before["value"]


def test_what_is_typed_wins_by_key_and_is_said(run, align):
    folder, _ = run
    typed = ("--set", "temperature=0", "--seed", 8, "--limit", 2)
    code, out, err = align("eval", "arithmetic", "--model", folder, *typed, "--json")
    sampling = json.loads(out)[0]["provenance"]["sampling"]
    assert code == 0 and sampling["max_new_tokens"] == 9
    assert (sampling["temperature"], sampling["seed"]) == (0.0, 8)
    assert "but temperature 0 (there 0.5), seed 8 (there 7)" in err


def test_an_eval_that_the_run_did_not_measure_says_what_differs(run, align):
    folder, _ = run
    recipe = (folder / "recipe.yaml").read_text()
    text = recipe.replace("  arithmetic:\n    before", "  other:\n    before")
    assert text != recipe
    (folder / "recipe.yaml").write_text(text)
    asked = ("eval", "arithmetic", "--model", folder, "--limit", 2, "--json")
    try:
        code, out, err = align(*asked)
    finally:
        (folder / "recipe.yaml").write_text(recipe)
    assert code == 0 and "did not measure it" in err
    assert "the prompt of its training" in err
    assert json.loads(out)[0]["provenance"]["prompt"]["name"].endswith("plain.prompt")


def test_a_recipe_that_says_nonsense_of_an_eval_is_told_and_not_taken(run, align):
    folder, _ = run
    recipe = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("limit: 12", "limit: many"))
    asked = ("eval", "arithmetic", "--model", folder, "--limit", 2)
    try:
        code, _, err = align(*asked)
    finally:
        (folder / "recipe.yaml").write_text(recipe)
    assert code == 0 and "evals.arithmetic.limit" in err and "cannot be read" in err


def test_a_refusal_names_prompts_and_settings_not_hashes(run, align):
    folder, _ = run
    asked = ("eval", "arithmetic", "--model", folder, "--limit", 2, "--out", "o")
    assert align(*asked)[0] == 0
    other = ("--prompt", "arithmetic", "--set", "temperature=0")
    code, _, err = align(*asked, *other)
    assert code == 2 and "sampling: temperature 0.5 there, 0.0 now" in err
    assert "plain.prompt there, arithmetic now" in err
    assert not re.search(r"[0-9a-f]{32}", err)


def test_a_relative_path_of_an_eval_is_looked_up_beside_its_plugin(align, tmp_path):
    (tmp_path / "kit/evals").mkdir(parents=True)
    (tmp_path / "kit/evals/near.jsonl").write_text(
        '{"question": "1+1", "truth": "2"}\n'
    )
    (tmp_path / "kit/evals/near.py").write_text(
        """
from alignkit import Eval, Sample, Score, hookimpl


def samples(rows, render):
    for number, row in enumerate(rows):
        yield Sample(str(number), render(row), row["truth"])


def score(sample, response):
    return Score(float(sample.truth in response))


@hookimpl
def align_evals():
    data = {"dataset": "jsonl", "path": "near.jsonl"}
    yield Eval(name="near", samples=samples, score=score, data=data, prompt="arithmetic")
"""
    )
    (tmp_path / "answers.jsonl").write_text('{"id": "0", "response": "</think> 2"}\n')
    asked = ("eval", "near", "--kit", "kit", "--responses", "answers.jsonl", "--json")
    code, out, err = align(*asked)
    assert code == 0 and json.loads(out)[0]["value"] == 1.0, err
