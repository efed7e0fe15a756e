"""Pipelines: which stages are run, kept, redone or refused."""

from __future__ import annotations

import json

import pytest

from alignkit import kits, plugins, recipe
from alignkit.cli import main
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError
from alignkit.run import Run
from alignkit.train import pipeline
from alignkit.train.start import create_run

TWO = """\
name: two
method: pipeline
stages:
  sft:
    method: sft
    model: {build: {tokenizer: digits, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32, max_length: 64}}
    data: {train: {dataset: arithmetic, size: 16}, prompt: arithmetic}
    train: {max_steps: 1, save_strategy: "no"}
  grpo:
    method: grpo
    model: {path: stage:sft}
    data: {train: {dataset: jsonl, path: rows.jsonl}, prompt: arithmetic}
    rewards: {drgrpo: {}}
    generation: {max_new_tokens: 4}
    train: {max_steps: 1, per_device_train_batch_size: 4, num_generations: 4, save_strategy: "no"}
"""


@pytest.fixture
def two(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "1+1+1+1=?", "truth": "4"}\n' * 4
    )
    return path


def align(*arguments):
    with pytest.raises(SystemExit) as left:
        main(["run", *map(str, arguments)])
    return left.value.code


@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        (["--only", "dpo"], "there is no stage 'dpo'"),
        (["--only", "grpo"], "stage grpo starts from stage sft, which is not done"),
        (
            ["--from", "grpo"],
            "--from runs stages of a run anew: give the run with --resume",
        ),
    ],
)
def test_a_choice_that_cannot_be_run_makes_no_folder(
    two, tmp_path, capsys, chosen, text
):
    assert align(two, "--out", tmp_path / "runs", *chosen) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_from_needs_the_stages_before_it(two, tmp_path):
    registry = plugins.load([kits.builtin()])
    loaded = recipe.load(two, registry=registry)
    with pytest.raises(InputError, match="stage sft comes before grpo and is not done"):
        pipeline.check(
            loaded, "grpo", None, tmp_path / "run", registry, Datasets(registry)
        )


def test_stages_that_could_not_all_be_set_aside_are_not_passed_off_as_new(
    two, tmp_path, capsys
):
    registry = plugins.load([kits.builtin()])
    begun = create_run(
        recipe.load(two, registry=registry),
        registry,
        Datasets(registry),
        folder=tmp_path / "run",
    )
    begun.finish("interrupted")
    folder = begun.folder
    for place in ("stages/sft", "stages/grpo", "earlier/sft-2"):
        (folder / place).mkdir(parents=True)
        (folder / place / "manifest.json").write_text('{"status": "done"}')
    (tmp_path / "rows.jsonl").write_text(
        '{"question": "2+1+1+1=?", "truth": "5"}\n' * 4
    )
    # sft cannot be moved: its place is taken
    assert align("--resume", folder, "--from", "sft") == 3
    assert (
        not (folder / "stages/grpo").exists() and (folder / "earlier/grpo-1").is_dir()
    )
    Run.open(folder).update(status="interrupted")
    assert align("--resume", folder) == 2
    said = capsys.readouterr().err
    assert (
        "other data, plugins or versions" in said
        and f"--resume {folder} --from STAGE" in said
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_only_leaves_the_rest_to_resume_and_from_runs_stages_anew(
    two, tmp_path, capsys
):
    folder = tmp_path / "run"
    assert align(two, "--folder", folder, "--only", "sft") == 0
    assert Run.open(folder).status == "interrupted"
    sft = (folder / "stages/sft/manifest.json").read_text()
    assert align("--resume", folder) == 0
    assert Run.open(folder).status == "done"
    grpo = json.loads((folder / "stages/grpo/manifest.json").read_text())

    (tmp_path / "rows.jsonl").write_text(
        '{"question": "2+1+1+1=?", "truth": "5"}\n' * 4
    )
    Run.open(folder).update(status="interrupted")
    assert align("--resume", folder) == 2
    assert "other data, plugins or versions" in capsys.readouterr().err
    assert align("--resume", folder, "--from", "grpo") == 0
    assert json.loads((folder / "earlier/grpo-1/manifest.json").read_text()) == grpo
    assert (
        json.loads((folder / "stages/grpo/manifest.json").read_text())["fingerprint"]
        != grpo["fingerprint"]
    )
    assert (folder / "stages/sft/manifest.json").read_text() == sft
    assert Run.open(folder).status == "done"

    changed = json.loads(sft)
    changed["identity"]["parts"]["versions"]["trl"] = "0.1"
    (folder / "stages/sft/manifest.json").write_text(json.dumps(changed))
    assert align("--resume", folder, "--from", "grpo") == 2
    said = capsys.readouterr().err
    assert "stage sft was done with other data" in said and "trl 0.1 there" in said
