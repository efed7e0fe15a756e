"""Bad input: exit 2 or 3, no traceback, nothing written but the log."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit import cli as command_line
from alignkit.cli import cli
from alignkit.errors import InputError

GOOD = """
name: tiny
method: sft
model: {build: {tokenizer: bytes, max_length: 256}}
data: {train: {dataset: jsonl, path: rows.jsonl}, prompt: question_only}
train: {max_steps: 1, per_device_train_batch_size: 2, save_strategy: "no"}
"""
GRPO = """
name: tiny
method: grpo
model: {build: {tokenizer: bytes, max_length: 256}}
data: {train: {dataset: jsonl, path: rows.jsonl}, prompt: question_only}
rewards: {exact_match: }
generation: {engine: transformers, max_new_tokens: 8}
train: {max_steps: 1, per_device_train_batch_size: 4, num_generations: 4, save_strategy: "no"}
"""
ROWS = '{"question": "1+1?", "truth": "2", "response": "2"}\n' * 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


def align(*arguments: str) -> tuple[int, str]:
    """Exit code and everything printed, through the same `main` as the command."""
    code = "from alignkit.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def refused(
    folder: Path, text: str, code: int, *words: str, arguments: tuple[str, ...] = ()
) -> None:
    """`align run` of a recipe: the exit code, the words, no traceback, no run folder."""
    (folder / "recipe.yaml").write_text(text)
    before = sorted(p.name for p in folder.iterdir())
    runner = CliRunner()
    with runner.isolation() as (out, err, _):
        try:
            command_line.main(["run", "recipe.yaml", *arguments])
            given = 0
        except SystemExit as stop:
            given = stop.code
        shown = out.getvalue().decode() + err.getvalue().decode()
    assert given == code, shown
    for word in words:
        assert word in shown, shown
    assert "Traceback" not in shown
    assert sorted(p.name for p in folder.iterdir()) == before, "something was written"


def test_an_unknown_key_gets_the_nearest(folder: Path):
    refused(
        folder, GOOD + "sede: 3\n", 2, "recipe.yaml:7:1", "sede", "did you mean 'seed'?"
    )


def test_several_faults_are_reported_at_once(folder: Path):
    text = (
        GOOD.replace("max_steps: 1", "max_stepz: 1, learning_rate: fast") + "seed: -1\n"
    )
    refused(folder, text, 2, "max_stepz", "learning_rate", "seed")


def test_a_wrong_type_is_named(folder: Path):
    refused(
        folder, GOOD.replace("max_steps: 1", "max_steps: 1.5"), 2, "max_steps", "1.5"
    )


def test_an_unknown_choice_of_trl_is_named(folder: Path):
    refused(
        folder,
        GOOD.replace("max_steps: 1", "max_steps: 1, lr_scheduler_type: cosin"),
        2,
        "lr_scheduler_type",
        "cosine",
    )


def test_a_missing_recipe(folder: Path):
    code, shown = align("run", "nothing.yaml")
    assert code == 2 and "nothing.yaml" in shown and "Traceback" not in shown


def test_a_recipe_that_is_a_folder(folder: Path):
    (folder / "sub").mkdir()
    code, shown = align("run", "sub")
    assert code == 2 and "Traceback" not in shown


def test_a_binary_recipe(folder: Path):
    (folder / "x.yaml").write_bytes(bytes(range(256)))
    code, shown = align("run", "x.yaml")
    assert code == 2 and "Traceback" not in shown


def test_an_extends_cycle_names_the_chain(folder: Path):
    (folder / "b.yaml").write_text("extends: recipe.yaml\n")
    refused(folder, "extends: b.yaml\n", 2, "recipe.yaml", "b.yaml")


def test_a_duplicate_key(folder: Path):
    refused(folder, GOOD + "name: again\n", 2, "recipe.yaml:7:1", "name")


def test_a_tab_names_line_and_column(folder: Path):
    refused(folder, GOOD + "track:\n\t- wandb\n", 2, "recipe.yaml:8")


def test_an_unknown_plugin_gets_the_nearest(folder: Path):
    refused(
        folder,
        GRPO.replace("exact_match", "exact_mach"),
        2,
        "exact_mach",
        "did you mean 'exact_match'?",
    )


def test_an_option_that_a_plugin_does_not_have(folder: Path):
    refused(
        folder,
        GRPO.replace("{exact_match: }", "{exact_match: {ignorecase: true}}"),
        2,
        "ignorecase",
    )


def test_a_batch_that_the_group_does_not_divide(folder: Path):
    refused(
        folder,
        GRPO.replace("num_generations: 4", "num_generations: 3"),
        2,
        "not divisible by num_generations (3)",
    )


def test_lengths_that_drop_every_prompt(folder: Path):
    (folder / "rows.jsonl").write_text(ROWS.replace("1+1?", "x" * 500))
    refused(folder, GRPO, 2, "no row is left")


def test_a_missing_data_file_is_exit_3(folder: Path):
    refused(folder, GOOD.replace("rows.jsonl", "gone.jsonl"), 3, "gone.jsonl")


def test_malformed_data_name_the_line(folder: Path):
    (folder / "rows.jsonl").write_text(ROWS + "{nonsense\n")
    refused(folder, GOOD, 2, "rows.jsonl", "5")


def test_a_model_that_is_nowhere_is_exit_3(folder: Path):
    text = GOOD.replace(
        "build: {tokenizer: bytes, max_length: 256}", "path: nobody/nothing"
    )
    refused(folder, text, 3, "nobody/nothing", "mini.yaml")


def test_an_overlay_that_is_missing(folder: Path):
    refused(folder, GOOD, 2, "gone.yaml", arguments=("--with", "gone.yaml"))


def test_a_set_of_an_unknown_key(folder: Path):
    refused(
        folder,
        GOOD,
        2,
        "tarin",
        "did you mean 'train'?",
        arguments=("--set", "tarin.max_steps=2"),
    )


def test_an_output_folder_that_is_a_file(folder: Path):
    refused(
        folder, GOOD, 3, "rows.jsonl", arguments=("--set", "output.root=rows.jsonl")
    )


def test_a_kit_with_a_broken_plugin(folder: Path):
    (folder / "kit" / "rewards").mkdir(parents=True)
    (folder / "kit" / "rewards" / "bad.py").write_text("import nothing_like_this\n")
    refused(
        folder, GOOD, 2, "bad.py:1", "nothing_like_this", arguments=("--kit", "kit")
    )


def test_an_unknown_command_gets_the_nearest():
    result = CliRunner().invoke(cli, ["rnu"])
    assert result.exit_code == 2 and "did you mean 'run'?" in result.output


def test_an_output_folder_that_cannot_be_made(folder: Path):
    refused(
        folder, GOOD, 3, "cannot write", arguments=("--set", "output.root=/proc/runs")
    )


def test_a_new_plugin_is_not_named_by_a_word_of_pythons(folder: Path):
    result = CliRunner().invoke(cli, ["plugins", "new", "reward", "class"])
    assert (
        isinstance(result.exception, InputError) and not (folder / "rewards").exists()
    )


def test_an_empty_stop_string(folder: Path):
    refused(
        folder,
        GRPO.replace("max_new_tokens: 8", "stop: ['']"),
        2,
        "generation.stop.0",
        "not empty",
    )


def test_validation_rows_that_nothing_would_read(folder: Path):
    text = GOOD.replace(
        "}, prompt", "}, validation: {dataset: jsonl, path: rows.jsonl}, prompt"
    )
    refused(folder, text, 2, "data.validation", "eval_strategy")


def test_a_validation_without_rows(folder: Path):
    refused(
        folder,
        GOOD.replace("max_steps: 1", "max_steps: 1, eval_strategy: steps"),
        2,
        "data.validation",
    )


def test_validation_rows_that_are_missing(folder: Path):
    text = GOOD.replace(
        "}, prompt", "}, validation: {dataset: jsonl, path: gone.jsonl}, prompt"
    )
    refused(
        folder,
        text.replace("max_steps: 1", "max_steps: 1, eval_strategy: epoch"),
        3,
        "gone.jsonl",
    )


def test_a_batch_of_nothing(folder: Path):
    refused(
        folder,
        GRPO.replace("batch_size: 4", "batch_size: 0"),
        2,
        "per_device_train_batch_size",
        "at least 1",
    )


def test_rows_without_the_truth_that_a_reward_needs(folder: Path):
    (folder / "rows.jsonl").write_text(ROWS.replace("truth", "answer"))
    refused(folder, GRPO, 2, "reward 'exact_match'", "truth", "answer")


def test_a_dataset_that_needs_a_file(folder: Path):
    refused(folder, GOOD.replace(", path: rows.jsonl", ""), 2, "jsonl", "path")


def test_a_template_that_shows_no_question(folder: Path):
    refused(
        folder, GOOD.replace("question_only", "{template: Hello}"), 2, "placeholder"
    )


def test_text_that_is_half_a_character(folder: Path):
    (folder / "rows.jsonl").write_text(
        ROWS + '{"question": "\\ud800", "truth": "2", "response": "2"}\n'
    )
    refused(folder, GOOD, 2, "rows.jsonl:5")


def test_a_vllm_context_without_room_for_the_whole_completion_is_refused(folder: Path):
    """vLLM itself would cut every response short and say nothing."""
    text = GRPO.replace(
        "engine: transformers, max_new_tokens: 8",
        "engine: vllm, max_new_tokens: 8, vllm: {}",
    )
    refused(
        folder,
        text.replace("{}", "{max_model_len: 9}"),
        2,
        "all 4 prompts are too long for 1 tokens",
    )


def test_processes_that_tensor_parallel_does_not_divide_are_refused(folder: Path):
    text = GRPO.replace(
        "engine: transformers, max_new_tokens: 8",
        "engine: vllm, vllm: {tensor_parallel: 2}",
    )
    refused(folder, text, 2, "generation.vllm.tensor_parallel: 2", "1 processes")
