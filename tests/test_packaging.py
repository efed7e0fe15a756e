"""The wheel holds the whole product, and what a user writes elsewhere runs against it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alignkit import kits

ROOT = kits.builtin().root


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in a folder; its dependencies come from the test environment."""
    site = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
    ]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True, timeout=300)
    return site


def align(
    site: Path, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    environment.pop("ALIGN_MOUNTS", None)
    command = [sys.executable, "-P", "-m", "alignkit.cli", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_the_wheel_holds_exactly_the_files_of_the_product(wheel: Path):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=True
    ).stdout
    expected = set()
    for name in tracked.splitlines():
        top = name.split("/")[0]
        if not (ROOT / name).is_file():
            continue
        if top == "alignkit":
            expected.add(name)
        elif top in kits.FOLDERS:
            expected.add(f"alignkit/kit/{name}")
    missing = expected - names
    assert not missing
    assert not {
        n
        for n in names - expected
        if "__pycache__" in n or not n.endswith((".py", ".yaml", ".typed"))
    }


def test_the_installed_wheel_brings_its_own_kit(installed: Path, tmp_path: Path):
    done = align(installed, tmp_path, "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout and str(ROOT / "rewards") not in done.stdout


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder where someone's reward lies that nobody asked for; it leaves a mark when
    it is imported.
    """
    (tmp_path / "rewards").mkdir()
    (tmp_path / "rewards" / "evil.py").write_text(
        "from pathlib import Path\nPath(__file__ + '.imported').touch()\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        ("plan",),
        ("diff",),
        ("doctor", "--recipe"),
        ("sweep", "--seeds", "2", "--dry-run"),
    ],
)
def test_an_installed_recipe_is_read_in_any_folder(
    installed: Path, stranger: Path, command: tuple[str, ...]
):
    done = align(installed, stranger, *command, "recipes/quickstart.yaml")
    assert done.returncode == 0, done.stderr
    assert not list(stranger.rglob("*.imported"))


@pytest.mark.slow
def test_the_first_command_of_the_help_works_in_any_folder(
    installed: Path, stranger: Path
):
    """Also in one named recipes, below which the run writes recipes of its own."""
    here = stranger / "recipes"
    here.mkdir()
    steps = (
        "sft.train.max_steps=1",
        "grpo.train.max_steps=1",
        "sft.evals=~",
        "grpo.evals=~",
    )
    sets = [part for step in steps for part in ("--set", f"stages.{step}")]
    only = ("--folder", "run", "--only", "sft")
    done = [align(installed, here, "run", "recipes/quickstart.yaml", *sets, *only)]
    done += [
        align(installed, here, *more)
        for more in (("run", "--resume", "run"), ("diff", "run", "run"))
    ]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]
    assert json.loads((here / "run" / "manifest.json").read_text())["status"] == "done"
    assert not list(stranger.rglob("*.imported"))


@pytest.mark.slow
def test_a_new_reward_in_a_folder_elsewhere_trains_against_the_wheel(
    installed: Path, tmp_path: Path
):
    done = align(installed, tmp_path, "plugins", "new", "reward", "short_answer")
    assert done.returncode == 0, done.stderr
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=tmp_path,
        # the kits of this process are the checkout's
        env={**os.environ, "PYTHONPATH": str(installed), "ALIGN_MOUNTS": "{}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert tests.returncode == 0, tests.stdout
    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "truth": "2"}\n' * 8)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "short.yaml").write_text(
        "extends: grpo_math.yaml\nname: short\nrewards: {drgrpo: ~, short_answer:"
        " {max_words: 3}}\ndata: {train: {dataset: jsonl, path:"
        " ../rows.jsonl}}\nevals: ~\n"
    )
    run = align(
        installed,
        tmp_path,
        "run",
        "recipes/short.yaml",
        "--with",
        "recipes/overlays/mini.yaml",
        "--json",
    )
    assert run.returncode == 0, run.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    rollouts = (folder / "rollouts" / "step-000001.jsonl").read_text()
    assert '"short_answer"' in rollouts


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_methods_sweeps_and_checks_work_from_the_wheel_in_an_empty_folder(
    installed: Path, tmp_path: Path
):
    def works(*arguments: str) -> str:
        done = align(installed, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    (tmp_path / "rows.jsonl").write_text('{"question": "1+1?", "truth": "2"}\n' * 8)
    rows = [
        "--set",
        "data.train={dataset: jsonl, path: rows.jsonl}",
        "--set",
        "evals={}",
    ]
    mini = ["--with", "recipes/overlays/mini.yaml", *rows]
    works("run", "recipes/expert_iteration_math.yaml", *mini, "--folder", "ei")
    two = ["--set", "launch.processes=2", "--folder", "two"]
    works("run", "recipes/grpo_math.yaml", *mini, *two)
    (tmp_path / "sweep.yaml").write_text(
        "base: grpo_math.yaml\nvariants: {a: {}, b: {train: {learning_rate: 1.0e-4}}}\n"
        "metric: train/reward\n"
    )
    works("sweep", "sweep.yaml", *mini, "--out", "sweeps")
    (sweep,) = (tmp_path / "sweeps").iterdir()
    assert "train/reward" in works("compare", str(sweep), "--metric", "train/reward")
    assert "0 stop" not in works("check", str(sweep))
    works("plugins", "new", "reward", "short_answer")
    works("plugins", "check", "short_answer", "--kit", ".")
