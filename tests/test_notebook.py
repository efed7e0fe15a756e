"""Runs in Python: the same rows as on disk, as frames or as lists."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path

import pytest
from made_runs import GROUPS, SIZE, STEPS, Made

import alignkit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        run = Made(tmp_path / name, "grpo")
        run.folder.mkdir()
        run.manifest["created"] = name
        run.manifest["requested"] = {"train.beta": 0.1, "seed": 0}
        run.write()
    return tmp_path


def test_runs_give_frames_of_what_lies_on_disk(folder):
    pytest.importorskip("pandas")
    first, second = alignkit.runs(folder)
    assert [run.folder.name for run in (first, second)] == ["a", "b"]
    assert len(first.metrics) == STEPS
    assert len(first.rollouts) == STEPS * GROUPS * SIZE
    by_step = first.rollouts.groupby("step").reward.mean()
    assert by_step[STEPS] > by_step[1]
    settings = first.settings.set_index("setting")
    assert settings.loc["train.beta", "requested"] == 0.1
    assert settings.loc["train.beta", "in force"] == 0.04
    assert list(first.evals) == ["quiz@0", "quiz@30", "quiz@60"]
    assert len(first.evals["quiz@60"].samples) == 500
    assert first.check().alarms == []


def test_without_pandas_they_are_lists(folder, monkeypatch):
    real = builtins.__import__

    def without(name: str, *rest):
        if name == "pandas":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    (run,) = alignkit.runs(folder / "a")
    assert isinstance(run.metrics, list) and run.metrics[0]["step"] == 1


def test_what_cannot_be_compared_is_refused_as_by_the_command(folder):
    (folder / "b" / "recipe.yaml").write_text("name: made\nmethod: grpo\nseed: [\n")
    with pytest.raises(alignkit.InputError):
        alignkit.compare(folder / "a", folder / "b")


def test_the_notebook_of_the_docs_runs(folder, capsys):
    pytest.importorskip("pandas")
    path = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
    cells = json.loads(path.read_text())["cells"]
    assert all(cell.get("outputs", []) == [] for cell in cells)
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            source = source.replace('RUNS = "runs"', f"RUNS = {str(folder)!r}")
            exec(compile(source, str(path), "exec"), names)
    said = capsys.readouterr().out
    assert "quiz@60 0.8 500" in said and "ok" in said
