"""A run that was stopped ends as one that nobody disturbed: to the bit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from construction import BASES, merged
from safetensors.torch import load_file

from alignkit.cli import cli
from alignkit.errors import InputError
from alignkit.run import Run, checkpoints
from alignkit.train import resumed

MODEL = {"build": {"tokenizer": "digits", "layers": 1, "hidden_size": 16, "heads": 2}}
KIT = Path(__file__).parent / "data" / "even"
# logs and checkpoints fall apart, so that a checkpoint lies between two logs
STEPS = {
    "train": {"max_steps": 7, "save_steps": 2, "logging_steps": 3},
    "evals": {"arithmetic": {"before": True, "every": 3, "limit": 4}},
}
CASES = {
    "sft": ("sft", {"train": {"gradient_accumulation_steps": 2}}),
    "dpo": ("dpo", {}),
    "grpo": ("grpo", {"loss": {"name": "trl"}}),
    "rloo": ("rloo", {"train": {"beta": 0.1}}),
    "grpo off policy": (
        "grpo",
        {"train": {"gradient_accumulation_steps": 2, "num_iterations": 2}},
    ),
}


def invoke(*command: object, code: int = 0) -> str:
    words = [*map(str, command), "--kit", str(KIT)]
    result = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def train(home: Path, case: str, further: dict | None = None) -> Path:
    method, change = CASES[case]
    recipe = {"name": "stopped", "method": method, "model": MODEL}
    for part in (BASES[method], STEPS, change, further or {}):
        recipe = merged(recipe, part)
    if "rewards" in recipe:
        recipe["rewards"] = {"even": {}}
    if recipe["train"].get("save_strategy") == "no":
        del recipe["train"]["save_steps"]
    if method == "dpo":
        pairs = [
            {"prompt": f"1+{i}=?", "chosen": f"{i + 1}", "rejected": "0"}
            for i in range(8)
        ]
        recipe["data"]["train"]["path"] = "pairs.jsonl"
        (home / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    (home / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    invoke("run", home / "recipe.yaml", "--folder", home / "run")
    return home / "run"


def stopped(run: Path, folder: Path, step: int) -> Path:
    """The run as it was when its process was stopped after the checkpoint of a step."""
    shutil.copytree(run, folder)
    for path in (folder / "checkpoints").glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > step:
            shutil.rmtree(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("training")
    (folder / "manifest.json").write_text(
        json.dumps({**manifest, "status": "interrupted"})
    )
    return folder


def left(folder: Path) -> dict:
    """All that a run leaves, without times."""
    run = Run.open(folder)
    timed = ("time", "second")

    def without(row):
        return {k: v for k, v in row.items() if not any(t in k for t in timed)}

    rollouts = {
        path.name: [without(json.loads(line)) for line in path.open()]
        for path in sorted((folder / "rollouts").glob("*"))
    }
    samples = {
        str(path.parent.name): [without(json.loads(line)) for line in path.open()]
        for path in sorted(folder.glob("evals/*/samples.jsonl"))
    }
    weights = load_file(folder / "model" / "model.safetensors")
    return {
        "status": run.status,
        "training": without(run.manifest["training"]),
        "metrics": [without(row) for row in run.metrics()],
        "rollouts": rollouts,
        "evals": samples,
        "weights": {name: tensor.tolist() for name, tensor in weights.items()},
    }


@pytest.mark.parametrize(
    "case", ["sft", *(pytest.param(c, marks=pytest.mark.slow) for c in [*CASES][1:])]
)
def test_a_resumed_run_leaves_what_an_undisturbed_one_leaves(tmp_path: Path, case: str):
    whole = train(tmp_path, case)
    expected = left(whole)
    for step in (4, 2, 0):
        folder = stopped(whole, tmp_path / f"stopped{step}", step)
        invoke("run", "--resume", folder)
        assert left(folder) == expected, step
        manifest = Run.open(folder).manifest
        assert manifest["training"]["loss"] == pytest.approx(
            resumed.mean_loss(Run.open(folder), 0)
        )
        assert (manifest["training"]["seconds"] > 0) and len(manifest["resumed"]) == 1


@pytest.mark.parametrize(
    "change", [{"train": {"max_steps": 6}}, {"budget": {"tokens": 260}}]
)
def test_a_run_stopped_behind_its_last_step_takes_no_further_one(
    tmp_path: Path, change: dict
):
    """Transformers would, from a checkpoint that ends within an epoch."""
    change = merged({"train": {"logging_steps": 2}}, change)
    whole = train(tmp_path, "sft", change)
    expected = left(whole)
    last = max(checkpoints.by_step(whole / "checkpoints"))
    assert last == expected["training"]["steps"] < 7
    folder = stopped(whole, tmp_path / "stopped", last)
    shutil.rmtree(folder / "model")
    invoke("run", "--resume", folder)
    assert left(folder) == expected


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path):
    whole = train(tmp_path, "sft")
    expected = left(whole)
    folder = stopped(whole, tmp_path / "stopped", 6)
    (folder / "checkpoints" / "checkpoint-6" / "trainer_state.json").unlink()
    shutil.rmtree(folder / "model")
    said = invoke("run", "--resume", folder)
    assert "checkpoint-6: trainer_state.json is missing" in said
    assert "going on from checkpoint-4" in said
    assert left(folder) == expected


def test_a_run_goes_on_under_every_spelling_of_its_folder_and_as_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also before its first checkpoint, when only the evals of its start are there."""
    whole = train(tmp_path, "sft")
    expected = left(whole)
    begun = stopped(whole, tmp_path / "begun", 0)
    shutil.rmtree(begun / "model")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    spellings = {
        "relative": (tmp_path, "relative"),
        "from elsewhere": (tmp_path / "elsewhere", "../from elsewhere"),
        "linked": (tmp_path / "elsewhere", tmp_path / "link" / "linked"),
        "a [b] 'c'": (tmp_path, "./a [b] 'c'/"),
    }
    for name, (here, spelled) in spellings.items():
        shutil.copytree(begun, tmp_path / name)
        monkeypatch.chdir(here)
        invoke("run", "--resume", spelled)
        assert left(tmp_path / name) == expected, name


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_resume_that_cannot_go_on_has_deleted_nothing(
    tmp_path: Path, half_done: Path, name: str
):
    folder = tmp_path / "run"
    shutil.copytree(half_done, folder)
    damaged = folder / "checkpoints" / "checkpoint-4" / name
    damaged.write_bytes(b"x" * damaged.stat().st_size)  # as its marker says
    before = contents(folder)
    with pytest.raises(InputError, match=r"checkpoint-4 cannot be loaded .*remove it"):
        invoke("run", "--resume", folder)
    after = contents(folder)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed <= {"manifest.json", "proofs.json", "log.txt"}
    shutil.rmtree(damaged.parent)
    invoke("run", "--resume", folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("half")
    return stopped(train(home, "sft"), home / "stopped", 4)


def started(*command: object) -> subprocess.Popen:
    arguments = [sys.executable, "-m", "alignkit.cli", "run", *map(str, command)]
    arguments += ["--kit", str(KIT)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def logged(folder: Path, process: subprocess.Popen) -> None:
    """Wait until it trains."""
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if (folder / "metrics.jsonl").is_file() and "loss" in (
            folder / "metrics.jsonl"
        ).read_text():
            return
        time.sleep(0.05)
    raise AssertionError("it never trained")


@pytest.mark.parametrize(
    "case",
    ["sft", *(pytest.param(c, marks=pytest.mark.slow) for c in ("grpo off policy",))],
)
def test_a_run_that_is_asked_to_stop_saves_its_step_and_says_how_to_go_on(
    tmp_path: Path, case: str
):
    """Also where the recipe saves no checkpoints."""
    change = {"train": {"save_strategy": "no", "max_steps": 24, "logging_steps": 1}}
    expected = left(train(tmp_path, case, change))
    folder = tmp_path / "stopped"
    process = started(tmp_path / "recipe.yaml", "--folder", folder)
    logged(folder, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"align run --resume {folder}" in said
    begun = Run.open(folder)
    assert begun.status == "interrupted"
    newest, _ = checkpoints.newest(folder / "checkpoints")
    assert newest is not None
    rows = [row["step"] for row in begun.metrics()]
    assert int(newest.name.rpartition("-")[2]) == rows[-1] < 24
    invoke("run", "--resume", folder)
    assert left(folder) == expected


@pytest.mark.parametrize("kilobytes", [8, 20])
def test_a_full_disk_is_one_line_and_costs_nothing_that_was_whole(
    tmp_path: Path, kilobytes: int
):
    """`ulimit -f` stands for the disk: the model is smaller than a limit of 20, the
    optimizer's state is not.
    """
    expected = left(train(tmp_path, "sft"))
    folder = tmp_path / "filled"
    room = stopped(tmp_path / "run", folder, 2) if kilobytes == 20 else None
    what = (
        ["--resume", folder] if room else [tmp_path / "recipe.yaml", "--folder", folder]
    )
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE,"
        f" ({kilobytes * 1024},) * 2); from alignkit.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "run", *map(str, what), "--kit", str(KIT)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 3, process.stderr
    errors = [line for line in process.stderr.splitlines() if "error" in line.lower()]
    assert len(errors) == 1 and "the disk is full" in errors[0], process.stderr
    assert "Traceback" not in process.stderr + process.stdout
    assert not list(folder.rglob("*.partial")) and not list(folder.rglob(".writing/*"))
    if room:
        assert "checkpoint-2 is whole: align run --resume" in errors[0]
        assert checkpoints.newest(folder / "checkpoints")[0].name == "checkpoint-2"
        assert Run.open(folder).status == "failed"
        invoke("run", "--resume", folder)
        assert left(folder) == expected


@pytest.mark.parametrize("step", [None, 2])
def test_a_run_starts_from_the_weights_of_another_and_says_so(
    tmp_path: Path, half_done: Path, step: int | None
):
    """What has no model is taken at its newest whole checkpoint."""
    before = tmp_path / "before: 'a'"
    shutil.copytree(half_done, before)
    shutil.rmtree(before / "model")
    (before / "checkpoints" / "checkpoint-4" / "optimizer.pt").unlink()
    (tmp_path / "recipe.yaml").write_text((before / "recipe.yaml").read_text())
    given = before if step is None else f"{before}@{step}"
    change = ["--set", "train.learning_rate=0.01", "--set", "train.max_steps=1"]
    folder = tmp_path / "after"
    recipe = tmp_path / "recipe.yaml"
    invoke("run", recipe, "--from", given, *change, "--folder", folder)
    lineage = Run.open(folder).manifest["lineage"]
    assert lineage["run"] == str(before.resolve()) and lineage["step"] == 2
    start = load_file(before / "checkpoints" / "checkpoint-2" / "model.safetensors")
    weights = load_file(folder / "model" / "model.safetensors")
    moved = max(float((weights[n] - start[n]).abs().max()) for n in start)
    assert 0 < moved < 0.02  # one step of that rate
    said = invoke("diff", before, folder)
    assert "lineage" in said


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("@9", "no step 9 .* these steps: 2, 4"),
        ("@x", "no step x"),
        ("@4", "is not whole"),
    ],
)
def test_a_step_that_cannot_be_started_from_is_named(
    tmp_path: Path, half_done: Path, at: str, text: str
):
    before = tmp_path / "before"
    shutil.copytree(half_done, before)
    (before / "checkpoints" / "checkpoint-4" / "optimizer.pt").unlink()
    with pytest.raises(InputError, match=text):
        invoke("run", before / "recipe.yaml", "--from", f"{before}{at}")
