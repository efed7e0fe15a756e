"""A checkpoint is whole, or it is not there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alignkit.run import checkpoints


def tensors(numbers: int) -> bytes:
    """A file of safetensors, with one tensor of so many bytes."""
    about = {"dtype": "U8", "shape": [numbers], "data_offsets": [0, numbers]}
    header = json.dumps({"weight": about}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(numbers)


def make(home: Path, step: int) -> Path:
    made = home / checkpoints.ASIDE / f"checkpoint-{step}"
    (made / "adapter").mkdir(parents=True)
    (made / "model.safetensors").write_bytes(tensors(100))
    (made / "adapter" / "adapter.safetensors").write_bytes(tensors(10))
    (made / "optimizer.pt").write_bytes(b"o" * 50)
    (made / checkpoints.STATE).write_text(json.dumps({"global_step": step}))
    return checkpoints.publish(made)


def cut(name: str, keep: float):
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])

    return damage


def remark(folder: Path) -> None:
    """The marker agrees with what is there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    sizes = {str(p.relative_to(folder)): p.stat().st_size for p in files}
    sizes.pop(checkpoints.MARKER)
    (folder / checkpoints.MARKER).write_text(json.dumps(sizes))


def and_remark(damage):
    return lambda folder: (damage(folder), remark(folder))


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


FILES = ["model.safetensors", "optimizer.pt", "trainer_state.json", "whole.json"]
DAMAGES = {
    **{f"{name} gone": (lambda f, n=name: (f / n).unlink()) for name in FILES},
    **{f"{name} cut": cut(name, 0.6) for name in FILES},
    **{f"{name} empty": cut(name, 0) for name in FILES},
    "one byte more": lambda f: (f / "optimizer.pt").open("ab").write(b"x"),
    "inner tensors cut": cut("adapter/adapter.safetensors", 0.5),
    "tensors cut, sizes agree": and_remark(cut("model.safetensors", 0.9)),
    "header cut, sizes agree": and_remark(cut("model.safetensors", 0.1)),
    "endless header": and_remark(
        lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 200)
    ),
    "header is a list": and_remark(
        lambda f: (f / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]")
    ),
    "marker is a list": write("whole.json", "[]"),
    "marker names nothing": write("whole.json", "{}"),
    "deep marker": write("whole.json", "[" * 100_000),
    "marker is a folder": lambda f: (
        (f / "whole.json").unlink(),
        (f / "whole.json").mkdir(),
    ),
    "state of another step": and_remark(
        write("trainer_state.json", '{"global_step": 3}')
    ),
    "state without a step": and_remark(write("trainer_state.json", "{}")),
    "state is a number": and_remark(write("trainer_state.json", "7")),
    "state is no text": and_remark(
        lambda f: (f / "trainer_state.json").write_bytes(b"\xff\xfe")
    ),
    "all gone": lambda f: [p.unlink() for p in f.rglob("*") if p.is_file()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_its_reason(
    tmp_path: Path, damage: str
):
    older, newer = make(tmp_path, 2), make(tmp_path, 10)
    (tmp_path / "README.md").write_text("of TRL")
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoints.newest(tmp_path) == (newer, {})
    DAMAGES[damage](newer)
    found, passed = checkpoints.newest(tmp_path)
    assert found == older
    assert list(passed) == ["checkpoint-10"] and len(passed["checkpoint-10"]) > 5


def test_what_is_still_being_written_is_no_checkpoint(tmp_path: Path):
    made = tmp_path / checkpoints.ASIDE / "checkpoint-4"
    made.mkdir(parents=True)
    (made / checkpoints.STATE).write_text('{"global_step": 4}')
    assert checkpoints.newest(tmp_path) == (None, {})
    assert checkpoints.newest(tmp_path / "nowhere") == (None, {})


def test_one_that_is_whole_takes_the_place_of_a_damaged_one(tmp_path: Path):
    damaged = make(tmp_path, 4)
    (damaged / "optimizer.pt").unlink()
    assert checkpoints.newest(tmp_path) != (damaged, {})
    assert make(tmp_path, 4) == damaged
    assert checkpoints.newest(tmp_path) == (damaged, {})


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [8, 6, 4, 2]),
        (3, None, [6, 4, 2]),
        (1, None, [6]),
        (1, 2, [6, 2]),
        (2, 6, [6, 4]),
    ],
)
def test_a_limit_never_removes_the_newest_whole_or_the_best(
    tmp_path: Path, limit: int | None, best: int | None, left: list[int]
):
    for step in (2, 4, 6, 8):
        make(tmp_path, step)
    (tmp_path / "checkpoint-8" / "optimizer.pt").unlink()
    checkpoints.prune(tmp_path, limit, best)
    assert list(checkpoints.by_step(tmp_path)) == left


def test_a_limit_removes_nothing_where_nothing_is_whole(tmp_path: Path):
    for step in (2, 4):
        (make(tmp_path, step) / checkpoints.MARKER).unlink()
    checkpoints.prune(tmp_path, 1, None)
    assert list(checkpoints.by_step(tmp_path)) == [4, 2]


def test_those_of_0_1_have_no_marker(tmp_path: Path):
    folder = make(tmp_path, 4)
    (folder / checkpoints.MARKER).unlink()
    assert checkpoints.newest(tmp_path, marked=False) == (folder, {})
    shutil.copy(folder / "optimizer.pt", folder / "model.safetensors")
    assert checkpoints.newest(tmp_path, marked=False)[0] is None
