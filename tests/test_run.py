"""The run folder: never overwritten, never half-written, readable after a crash."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignkit import run
from alignkit.errors import InputError, MissingError, WorkError
from alignkit.machine import here


def test_two_runs_of_one_name_have_two_folders(tmp_path: Path):
    assert run.Run.create(tmp_path, "a").folder != run.Run.create(tmp_path, "a").folder


def test_a_hostile_name_stays_inside_the_root(tmp_path: Path):
    made = run.Run.create(tmp_path, "../../etc/passwd")
    assert made.folder.parent == tmp_path


def test_an_exact_folder_is_never_overwritten(tmp_path: Path):
    run.Run.create(tmp_path, "a", tmp_path / "x")
    with pytest.raises(InputError, match="never overwrites"):
        run.Run.create(tmp_path, "a", tmp_path / "x")


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next_append(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    run.append_jsonl(path, [{"a": 1}])
    with path.open("a") as file:
        file.write('{"a": 2')
    assert run.read_jsonl(path) == [{"a": 1}]
    run.append_jsonl(path, [{"a": 3}])
    assert run.read_jsonl(path) == [{"a": 1}, {"a": 3}]


def test_a_damaged_line_inside_is_an_error_with_its_number(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n')
    with pytest.raises(InputError, match=r"rows.jsonl:2"):
        run.read_jsonl(path)


def test_lone_surrogates_of_a_model_can_be_written(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    run.append_jsonl(path, [{"response": "a\ud800b\x00"}])
    assert len(run.read_jsonl(path)) == 1


def test_an_atomic_write_leaves_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "m.json"
    run.atomic_write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingError, match="No space left on device"):
        run.atomic_write(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == [
        "m.json"
    ]


def test_an_unwritable_root_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match="cannot write"):
        run.Run.create(tmp_path / "file" / "runs", "a")


def test_work_that_fails_is_recorded_with_its_reason(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    with pytest.raises(WorkError), made.recorded():
        raise WorkError("no luck")
    again = run.Run.open(made.folder)
    assert (again.status, again.manifest["error"]) == ("failed", "no luck")
    assert "no luck" in (made.folder / "log.txt").read_text()


def test_an_unexpected_error_leaves_its_traceback_in_the_log(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    with pytest.raises(ZeroDivisionError), made.recorded():
        raise ZeroDivisionError
    assert "ZeroDivisionError" in (made.folder / "log.txt").read_text()


def test_an_interrupted_run_says_so(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    with pytest.raises(KeyboardInterrupt), made.recorded():
        raise KeyboardInterrupt
    assert run.Run.open(made.folder).status == "interrupted"


def test_logging_goes_to_the_log_and_stops_with_the_run(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    with made.recorded():
        logging.getLogger("x").warning("inside")
    logging.getLogger("x").warning("outside")
    text = (made.folder / "log.txt").read_text()
    assert "inside" in text and "outside" not in text


def test_a_run_whose_process_is_gone_has_died_and_can_be_taken_over(tmp_path: Path):
    code = (
        "from alignkit import run; from pathlib import Path;"
        f" run.Run.create(Path({str(tmp_path)!r}), 'a')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    (found,) = run.find_runs(tmp_path)
    assert found.status == "died"
    assert run.Run.reopen(found.folder).status == "running"


def test_a_run_at_work_cannot_be_taken_over(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    made.update(pid=os.getppid())
    with pytest.raises(InputError, match="still being worked on"):
        run.Run.reopen(made.folder)


def test_a_finished_run_has_nothing_to_resume(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    made.finish("done")
    with pytest.raises(InputError, match="nothing to resume"):
        run.Run.reopen(made.folder)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(InputError, match=r"no manifest.json"):
        run.Run.open(tmp_path)


def test_a_damaged_manifest_is_named_and_left_out_of_the_list(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    (made.folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        run.Run.open(made.folder)
    assert run.find_runs(tmp_path) == []


HOSTILE = {
    "empty": "",
    "cut": '{"name": "a", "sta',
    "a list": "[]",
    "a number": "7",
    "deep": '{"x": ' + "[" * 200_000,
    "a long integer": '{"pid": ' + "9" * 5000 + "}",
    "pid: text": '{"status": "running", "pid": "x"}',
    "pid: a list": '{"status": "running", "pid": [1]}',
    "pid: a fraction": '{"status": "running", "pid": 1e300}',
    "identity: a list": '{"identity": [1]}',
    "identity: text": '{"identity": "x"}',
    "identity.parts: none": '{"identity": {"parts": null}}',
    "versions: text": '{"versions": "x"}',
    "resumed: a map": '{"resumed": {}}',
    "status: a list": '{"status": []}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_manifest_is_one_line_that_names_it(tmp_path: Path, kind: str):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text(HOSTILE[kind])
    with pytest.raises(InputError, match=r"manifest.json is damaged: ") as said:
        run.Run.open(tmp_path / "a")
    field = kind.partition(":")[0] if ":" in kind else ""
    assert "\n" not in str(said.value) and field in str(said.value)
    assert len(str(said.value)) < len(str(tmp_path)) + 300
    assert run.find_runs(tmp_path) == []


@pytest.mark.parametrize("pid", [0, -1, 2**31, 10**200])
def test_a_number_that_no_process_has_is_that_of_none(tmp_path: Path, pid: int):
    made = run.Run.create(tmp_path, "a")
    made.update(pid=pid)
    assert run.Run.open(made.folder).status == "died"


def test_the_newest_finished_run_is_one_that_is_done_with_a_model(tmp_path: Path):
    with pytest.raises(InputError, match="no finished run"):
        run.newest_finished(tmp_path)
    for name in ("a", "b"):
        made = run.Run.create(tmp_path, name)
        made.model.mkdir()
        if name == "a":
            made.finish("done")
    assert run.newest_finished(tmp_path).manifest["name"] == "a"


def test_the_last_stage_of_a_finished_pipeline_is_the_newest_run_with_a_model(
    tmp_path: Path,
):
    pipeline = run.Run.create(tmp_path, "whole")
    for name in ("sft", "grpo"):
        stage = run.Run.create(
            pipeline.folder / "stages", name, folder=pipeline.folder / "stages" / name
        )
        stage.model.mkdir()
        stage.finish("done")
        time.sleep(0.005)  # the order is by the time of creation, in milliseconds
    pipeline.finish("done")
    assert run.newest_finished(tmp_path).manifest["name"] == "grpo"


def test_metrics_after_a_checkpoint_are_forgotten_on_resume(tmp_path: Path):
    made = run.Run.create(tmp_path, "a")
    for step in (1, 2, 3):
        made.append_metrics({"step": step, "train/loss": 1.0})
        made.write_rollouts(step, [{"step": step}])
    made.forget_after(2)
    assert [row["step"] for row in made.metrics()] == [1, 2]
    assert len(list((made.folder / "rollouts").iterdir())) == 2


def test_the_environment_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "sekret-value")
    made = run.Run.create(
        tmp_path, "a", versions=here.versions(), git=here.git_state(tmp_path)
    )
    made.finish("done")
    assert "sekret-value" not in "".join(
        p.read_text() for p in made.folder.rglob("*") if p.is_file()
    )


def test_versions_name_what_a_result_depends_on():
    assert {"python", "torch", "trl", "transformers"} <= set(here.versions())
    json.dumps(here.versions())


def test_the_state_of_a_checkout_is_read_without_its_configuration(tmp_path: Path):
    """A stranger's .git may name programs that `git status` would run."""

    def git(*arguments: str) -> None:
        who = "-c", "user.name=n", "-c", "user.email=e"
        command = ["git", "-C", str(tmp_path / "c"), *who, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    checkout, mark = tmp_path / "c", tmp_path / "ran"
    (checkout / "recipes").mkdir(parents=True)
    file = checkout / "recipes" / "a.yaml"
    file.write_text("a\n")
    (checkout / ".gitattributes").write_text("*.yaml filter=mine\n")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "m")
    clean = here.git_state(file.parent)
    assert clean is not None and not clean["changed"]
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    evil.chmod(0o755)
    for key in ("filter.mine.clean", "filter.mine.process", "core.fsmonitor"):
        git("config", key, str(evil))
    (checkout / ".git" / "info" / "attributes").write_text("*.yaml filter=mine\n")
    (checkout / ".git" / "info" / "exclude").write_text("ignored\n")
    (checkout / "ignored").write_text("")
    os.utime(file, (1, 1))  # its content has to be compared
    assert here.git_state(file.parent) == clean
    file.write_text("b\n")
    assert here.git_state(file.parent) == {**clean, "changed": True}
    assert not mark.exists()
    tree = tmp_path / "tree"
    git("config", "--unset", "core.fsmonitor")
    git("worktree", "add", "-q", str(tree))
    assert here.git_state(tree) == clean
    assert here.git_state(tmp_path) is None
