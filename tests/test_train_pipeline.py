"""Pipelines: which stages are run, kept, redone or refused."""

from __future__ import annotations

import contextlib
import json

import pytest

from alignkit import kits, plugins, recipe
from alignkit.cli import main
from alignkit.data.datasets import Datasets
from alignkit.errors import InputError, WorkError
from alignkit.run import Run
from alignkit.train import branch, children, pipeline
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


@pytest.fixture
def done(two, tmp_path):
    """A run of the pipeline both of whose stages say that they are done."""
    registry = plugins.load([kits.builtin()])
    datasets = Datasets(registry)
    loaded = recipe.load(two, registry=registry)
    whole = create_run(loaded, registry, datasets, folder=tmp_path / "run")
    for name, stage in loaded.stages.items():
        inside = whole.folder / "stages" / name
        settled = pipeline.resolved(stage, whole.folder, name)
        file = tmp_path / f"{name}.yaml"
        file.write_text(recipe.to_yaml(settled))
        stage = recipe.load(file, registry=registry)
        begun = create_run(stage, registry, datasets, folder=inside)
        (inside / "model").mkdir()
        (inside / "model" / "model.safetensors").write_text(name)
        begun.finish("done")
    whole.finish("done")
    return whole.folder


@pytest.mark.parametrize(
    ("before", "after", "stages", "anew"),
    [
        ("", "", ["sft", "grpo"], ""),
        (
            "tokens: 4",
            "tokens: 5",
            ["sft"],
            "its recipe changed (generation.max_new_tokens)",
        ),
        ("drgrpo", "math", ["sft"], "rewards.drgrpo"),
        ("rows", "", ["sft"], "rows of data.train changed"),
        ("begun", "", ["sft"], "it is not done"),
        (
            "size: 16",
            "size: 8",
            None,
            "stage sft: its recipe changed (data.train.size)",
        ),
        ("name: two", "seed: 3\nname: two", None, "(seed)"),
    ],
)
def test_a_pipeline_keeps_the_first_stages_that_another_has_done_alike(
    two, tmp_path, done, before, after, stages, anew
):
    registry = plugins.load([kits.builtin()])
    if before == "rows":
        (tmp_path / "rows.jsonl").write_text('{"question": "1=?", "truth": "1"}\n' * 4)
    elif before == "begun":
        Run.open(done / "stages" / "grpo").update(status="interrupted")
    else:
        two.write_text(two.read_text().replace(before, after, 1))
    changed = recipe.load(two, registry=registry)
    datasets = Datasets(registry)
    if stages is None:
        with pytest.raises(InputError, match="no stage to keep") as refused:
            branch.kept_stages(str(done), changed, registry, datasets)
        assert anew in str(refused.value)
        return
    lineage = branch.kept_stages(str(done), changed, registry, datasets)
    assert lineage["stages"] == stages and anew in lineage["anew"]
    begun = create_run(changed, registry, datasets, folder=tmp_path / "new")
    branch.keep(lineage, begun)
    for name in stages:
        for file in (done / "stages" / name).rglob("*.*"):
            copied = begun.folder / file.relative_to(done)
            assert copied.read_bytes() == file.read_bytes()
            assert copied.samefile(file) is (file.suffix == ".safetensors")


def test_a_pipeline_keeps_nothing_of_another_kind_of_run(two, tmp_path, capsys, done):
    single = done / "stages" / "sft"
    assert align(two, "--from", single, "--out", tmp_path / "runs") == 2
    assert align(tmp_path / "sft.yaml", "--from", done, "--out", tmp_path / "runs") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "this recipe is none" in said and f"--from {done}/stages/NAME" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("done", [True, False])
def test_work_that_is_done_is_done_although_its_process_aborts_at_exit(
    tmp_path, monkeypatch, done
):
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "aborts.py").write_text(
        "import atexit, os\natexit.register(os.abort)\n"
    )
    monkeypatch.setenv("ALIGN_KITS", str(tmp_path))
    registry = plugins.load([kits.builtin()])
    run = ["plugins", "list"], registry, "stage a", tmp_path / "log.txt", tmp_path
    ends = (
        contextlib.nullcontext() if done else pytest.raises(WorkError, match="stage a")
    )
    with ends:
        children.child(*run, done=lambda: done)


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

    two.write_text(two.read_text().replace("tokens: 4", "tokens: 5"))
    other = tmp_path / "other"
    capsys.readouterr()
    assert align(two, "--from", folder, "--folder", other) == 0
    assert (other / "stages/sft/manifest.json").read_text() == sft
    assert "sft kept of" in capsys.readouterr().out and Run.open(other).status == "done"
    with pytest.raises(SystemExit) as left:
        main(["compare", str(folder), str(other)])
    told = capsys.readouterr()
    assert left.value.code == 0 and "sft kept of" in " ".join(told.out.split())

    changed = json.loads(sft)
    changed["identity"]["parts"]["versions"]["trl"] = "0.1"
    (folder / "stages/sft/manifest.json").write_text(json.dumps(changed))
    assert align("--resume", folder, "--from", "grpo") == 2
    said = capsys.readouterr().err
    assert "stage sft was done with other data" in said and "trl 0.1 there" in said
