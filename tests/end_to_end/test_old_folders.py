"""What alignkit 0.1 left is read: runs, sweeps and evals that tests/data/v01 holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from commands import align

from alignkit.cli import main
from alignkit.run import Run, newest_finished, read_jsonl

RUNS = ("grpo", "rloo", "dpo", "expert_iteration", "pipeline")
FORMAT = "eval/arithmetic/format_reward"


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """The command in this process, beside the old folders: (code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        return left.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def with_start(old_folder):
    """Old folders, together with what their recipes name; the first one's path."""

    def copy(*names):
        old_folder("start")
        old_folder("pairs.jsonl")
        first, *_ = [old_folder(name) for name in names]
        return first

    return copy


def last_summary(folder):
    last_stage = sorted(folder.glob("stages/*/manifest.json"), key=stage_created)[-1:]
    home = last_stage[0].parent if last_stage else folder
    summaries = [json.loads(p.read_text()) for p in home.glob("evals/*/summary.json")]
    return max(summaries, key=lambda summary: summary["step"])


def stage_created(manifest):
    return json.loads(manifest.read_text())["created"]


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("manifest.json")}


def samples_of(folder):
    return {
        (row["id"], row["sample"]): (row["response"], row["reward"], row["status"])
        for row in read_jsonl(folder / "samples.jsonl")
    }


@pytest.mark.parametrize(
    "pair", [("grpo", "rloo"), ("dpo", "grpo"), ("expert_iteration", "pipeline")]
)
def test_old_runs_are_compared(here, old_folder, pair):
    folders = [old_folder(name) for name in pair]
    code, out, err = here("compare", *pair, "--metric", FORMAT, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [row["label"] for row in rows] == list(pair)
    for row, folder in zip(rows, folders, strict=True):
        value = last_summary(folder)["metrics"]["format_reward"]
        assert row["results"][FORMAT]["value"] == value


def test_an_old_run_that_was_not_finished_is_not_compared(here, old_folder):
    old_folder("grpo")
    old_folder("sft")
    code, _, err = here("compare", "grpo", "sft")
    assert code == 2 and "sft is not finished: its status is 'died'" in err


@pytest.mark.parametrize("name", [*RUNS, "sft"])
def test_nothing_differs_between_an_old_run_and_its_recipe(here, with_start, name):
    with_start(name, "written")
    code, out, err = here("diff", name, f"written/{name}.yaml")
    assert (code, out.strip()) == (0, "nothing differs"), err


def test_an_old_run_differs_from_another_recipe_in_what_that_changes(here, with_start):
    with_start("grpo", "written")
    _, out, _ = here("diff", "grpo", "written/rloo.yaml", "--json")
    rows = {row["key"]: (row["a"], row["b"]) for row in json.loads(out)}
    assert rows["method"] == ("grpo", "rloo")
    assert rows["train.max_steps"] == (4, 2)
    assert rows["rewards.length_penalty.target"] == (2, None)
    assert "seed" not in rows and "model.path" not in rows


def test_two_old_runs_differ_in_recipe_and_data(here, with_start):
    with_start("grpo", "dpo")
    _, out, _ = here("diff", "grpo", "dpo", "--json")
    rows = {row["key"]: row["a_from"] for row in json.loads(out)}
    assert rows["data.train.dataset"].startswith("grpo/recipe.yaml:")
    assert rows["data.train"] == "manifest"


@pytest.mark.parametrize("name", [*RUNS, "sft"])
def test_the_recipe_of_an_old_run_can_be_run_again(here, with_start, name):
    code, _, err = here("plan", with_start(name) / "recipe.yaml")
    assert code == 0, err


def test_an_old_sweep_is_compared(here, old_folder):
    folder = old_folder("sweep")
    code, out, err = here("compare", folder, "--metric", FORMAT, "--json")
    assert code == 0, err
    rows = json.loads(out)["rows"]
    assert [(row["label"], row["seeds"]) for row in rows] == [
        ("none", [0, 1]),
        ("std", [0, 1]),
    ]
    by_seed = rows[0]["results"][FORMAT]["by_seed"]
    for seed, value in by_seed.items():
        summary = last_summary(folder / f"runs/none-seed{seed}")
        assert value == summary["metrics"]["format_reward"]


def test_a_done_old_sweep_runs_nothing_again(with_start, tmp_path):
    folder = with_start("sweep")
    before = files_of(folder / "runs")
    done = align("sweep", "--resume", folder, cwd=tmp_path)
    assert "4 runs (2 variants), 4 done already" in done.out
    assert files_of(folder / "runs") == before and len(before) == 4


# as 0.1 measured runs, whatever their recipes say of their evals
PUBLISHED = ("--set", "temperature=0.0", "--seed", 0)


def test_an_old_run_answers_as_it_did(here, old_folder):
    old_folder("start")
    old_folder("grpo")
    for model, out in (("start/model", "new/start"), ("grpo", "new/grpo")):
        asked = ("--model", model, "--limit", 8, "--out", out, *PUBLISHED)
        code, _, err = here("eval", "arithmetic", *asked)
        assert code == 0, err
    answers = samples_of(Path("new/grpo/arithmetic@4"))
    assert answers == samples_of(old_folder("eval") / "arithmetic@4")
    assert answers != samples_of(Path("new/start/arithmetic@0"))


def test_an_old_eval_keeps_its_completions(here, old_folder):
    old_folder("grpo")
    before = samples_of(old_folder("eval") / "arithmetic@4")
    again = ("--model", "grpo", "--limit", 8, "--out", "eval", *PUBLISHED)
    code, _, err = here("eval", "arithmetic", *again)
    assert code == 0, err
    assert "8 of 8 completions are kept" in err
    assert samples_of(Path("eval/arithmetic@4")) == before


def test_an_old_eval_of_stored_responses_is_gone_on_with(here, old_folder):
    old_folder("responses.jsonl")
    folder = old_folder("eval_stored") / "arithmetic@0"
    before = samples_of(folder)
    stored = ("--responses", "responses.jsonl", "--out", "eval_stored")
    code, out, err = here("eval", "arithmetic", *stored, "--json")
    assert code == 0, err
    assert json.loads(out)[0]["value"] == 0.5
    assert samples_of(folder) == before and len(before) == 8


def test_the_samples_of_an_old_eval_are_stored_responses(here, old_folder):
    folder = old_folder("eval") / "arithmetic@4"
    stored = ("--responses", folder / "samples.jsonl", "--limit", 8, "--out", "new")
    code, out, err = here("eval", "arithmetic", *stored, "--json")
    assert code == 0, err
    (summary,) = json.loads(out)
    old = json.loads((folder / "summary.json").read_text())
    names = ("n", "value", "low", "high", "status", "tally")
    assert {n: summary[n] for n in names} == {n: old[n] for n in names}


def test_the_newest_old_run_is_found(old_folder, tmp_path):
    for name in (*RUNS, "sft"):
        old_folder(name)
    assert newest_finished(tmp_path).folder == tmp_path / "pipeline/stages/grpo"


def test_an_old_run_that_is_done_is_not_resumed(here, old_folder):
    old_folder("pipeline")
    code, _, err = here("run", "--resume", "pipeline")
    assert code == 2 and "pipeline is done; there is nothing to resume" in err


def test_an_old_run_at_work_on_another_machine_is_not_taken_over(here, old_folder):
    Run.open(old_folder("sft")).update(host="elsewhere")
    code, _, err = here("run", "--resume", "sft")
    assert code == 2 and "may still be worked on" in err


def test_an_old_run_is_not_resumed_with_other_rows(here, old_folder):
    file = old_folder("sft") / "recipe.yaml"
    file.write_text(file.read_text().replace("size: 256", "size: 255"))
    before = files_of(file.parent)
    code, _, err = here("run", "--resume", "sft")
    assert code == 2 and "other data" in err
    assert files_of(file.parent) == before


@pytest.mark.slow
def test_a_killed_old_run_goes_on_from_its_checkpoint(old_folder, tmp_path):
    folder = old_folder("sft")
    killed = Run.open(folder).metrics()
    assert killed[-1]["step"] == 10
    align("run", "--resume", folder, cwd=tmp_path)
    run = Run.open(folder)
    assert run.status == "done" and (run.model / "config.json").is_file()
    rows = run.metrics()
    expected = read_jsonl(old_folder("undisturbed.jsonl"))
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    kept = [row for row in killed if row["step"] <= 8]  # the checkpoint's step
    assert rows[: len(kept)] == kept
    names = ("train/loss", "tokens", "eval/arithmetic/accuracy")
    for row, other in zip(rows, expected, strict=True):
        same = {name: other[name] for name in names if name in other}
        assert {n: row[n] for n in same} == pytest.approx(same, rel=1e-3), row["step"]
    evals = {path.name for path in (folder / "evals").iterdir()}
    assert evals == {"arithmetic@0", "arithmetic@6", "arithmetic@12"}


@pytest.mark.slow
def test_an_old_pipeline_keeps_its_done_stage(old_folder, tmp_path):
    folder = old_folder("pipeline")
    shutil.rmtree(folder / "stages/grpo")
    Run.open(folder).update(status="interrupted")
    before = files_of(folder / "stages/sft")
    done = align("run", "--resume", folder, cwd=tmp_path)
    assert "stage sft: done already, kept" in done.out
    assert files_of(folder / "stages/sft") == before
    assert Run.open(folder).status == Run.open(folder / "stages/grpo").status == "done"


@pytest.mark.slow
def test_an_old_expert_iteration_keeps_what_it_sampled(old_folder, tmp_path):
    folder = old_folder("expert_iteration")
    last = folder / "iterations/002"
    shutil.rmtree(last / "sft")
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "evals/arithmetic@2")
    Run.open(folder).update(status="running")  # and its process is gone
    sampled = (last / "rollouts.jsonl").read_bytes()
    before = Run.open(folder).metrics()
    align("run", "--resume", folder, cwd=tmp_path)
    assert (last / "rollouts.jsonl").read_bytes() == sampled
    run = Run.open(folder)
    assert run.status == "done" and (run.model / "config.json").is_file()
    for row, old in zip(run.metrics(), before, strict=True):
        clock = {"time": row["time"], "seconds": row["seconds"]}
        assert row == row | old | clock


@pytest.mark.slow
def test_an_old_sweep_runs_only_what_is_missing(with_start, tmp_path):
    folder = with_start("sweep")
    shutil.rmtree(folder / "runs/std-seed1")
    state = json.loads((folder / "sweep.json").read_text())
    (job,) = (j for j in state["jobs"] if (j["variant"], j["seed"]) == ("std", 1))
    job["status"] = "waiting"
    (folder / "sweep.json").write_text(json.dumps(state))
    before = files_of(folder / "runs")
    done = align("sweep", "--resume", folder, cwd=tmp_path)
    assert "3 done already" in done.out and "done std-seed1" in done.out
    after = files_of(folder / "runs")
    assert {path: after[path] for path in before} == before and len(after) == 4
