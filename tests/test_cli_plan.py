"""What `align plan` shows: the verdict first, groups, and few lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignkit import kits
from alignkit.cli import main
from alignkit.cli.plan_shown import WIDTH

RECIPES = sorted((kits.builtin().root / "recipes").glob("*.yaml"))
SMALL = """\
method: sft
model: {build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}}
data: {train: {dataset: arithmetic, size: 64}, prompt: arithmetic}
train: {max_steps: 2, learning_rate: 0.02}
"""


@pytest.fixture
def planned(capsys, monkeypatch, tmp_path):
    """The exit code and the lines of the plan of a recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def plan(text: str | Path, *flags: str) -> tuple[int, list[str]]:
        file = text if isinstance(text, Path) else tmp_path / "small.yaml"
        if isinstance(text, str):
            file.write_text(text)
        with pytest.raises(SystemExit) as stopped:
            main(["plan", str(file), *flags])
        return stopped.value.code, capsys.readouterr().out.splitlines()

    return plan


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_plan_begins_with_the_verdict_and_is_short(planned, recipe):
    code, lines = planned(recipe)
    words = {0: "can start here", 2: "cannot work", 3: "cannot start here"}
    assert lines[0].startswith(words[code])
    if "pipeline" not in (text := recipe.read_text()) and "stages:" not in text:
        assert len(lines) <= 40
    trouble = ("missing:", "warning:", "wrong:", "cannot")
    assert all(len(x) <= WIDTH for x in lines if not x.startswith(trouble))


@pytest.mark.parametrize(
    ("change", "verdict", "code"),
    [
        ("", "can start here", 0),
        ("data.train.dataset=nowhere", "", 2),
        ("model.path=nowhere/none", "cannot start here: 1 thing missing", 3),
    ],
)
def test_the_verdict_says_what_the_exit_code_says(planned, change, verdict, code):
    text = SMALL
    if change.startswith("model"):
        text = SMALL.replace(
            "build: {tokenizer: digits, hidden_size: 16, layers: 1, heads: 2, max_length: 64}",
            "path: nowhere/none",
        )
        change = ""
    got, lines = planned(text, *(["--set", change] if change else []))
    assert got == code and (not verdict or lines[0] == verdict)


def test_what_was_stated_is_told_by_section_and_its_place_on_request(planned):
    _, lines = planned(SMALL)
    assert "  train        max_steps 2; learning_rate 0.02" in lines
    assert not any("small.yaml:4" in line for line in lines)
    _, lines = planned(SMALL, "--origins")
    [rate] = [line for line in lines if line.startswith("train.learning_rate")]
    assert rate.split() == ["train.learning_rate", "0.02", "small.yaml:4:23"]
    assert "Settings, as stated" not in lines


def test_text_from_outside_breaks_no_line(planned):
    hostile = SMALL.replace("method: sft", 'method: sft\nname: "a[red]\\e]0;x\\ab"')
    _, lines = planned(hostile)
    assert not any("\x1b" in line or "\x07" in line for line in lines)


GRPO = SMALL.replace("method: sft", "method: grpo").replace(
    "learning_rate: 0.02", "num_generations: 2"
)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("cache_implementation=nope", "train.cache_implementation: Invalid"),
        (
            "generation_kwargs={cache_implementation: nope}",
            "generation_kwargs: Invalid",
        ),
        (
            "generation_kwargs={repetition_penlty: 1.1}",
            "repetition_penlty: transformers",
        ),
        ("generation_kwargs={no_repeat_ngram_size: 3}", ""),
    ],
)
def test_what_transformers_refuses_of_generation_is_told(planned, setting, words):
    recipe = f"{GRPO}rewards: {{math: {{}}}}\ngeneration: {{engine: transformers, max_new_tokens: 8}}\n"
    code, lines = planned(recipe, "--set", f"train.{setting}")
    assert code == (2 if words else 0)
    assert not words or any(words in line for line in lines)
