"""The page's answers: to whom, of what, and of damaged folders."""

from __future__ import annotations

import json
import shutil
import sys
from urllib.parse import urlencode

import pytest
from made_runs import GROUPS, SIZE, STEPS, Made
from pages import get

from alignkit.cli import main
from alignkit.errors import InputError
from alignkit.run import append_rows, new_row
from alignkit.run.rows import plain
from alignkit.view import Library, export
from alignkit.view.index import Index

# -- who is answered, and with what --------------------------------------------------------


def test_a_name_that_points_here_from_elsewhere_is_refused(server):
    assert get(server, "/")[0] == 200
    assert get(server, "/api/runs", Host="evil.example")[0] == 403
    assert get(server, "/api/runs", Host="127.0.0.1.nip.io")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_but_reading_is_answered(server, method):
    assert get(server, "/api/runs", method)[0] == 501


def test_pages_may_run_only_what_lies_here(server):
    policy = get(server, "/")[1]["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "/static/../../server.py",
        "/api/run?id=../..",
        "/api/run?id=/etc",
        "/api/stage?id=healthy/../../..",
        "/api/nothing",
        "/api/step?id=healthy&step=x",
        "/api/step?id=healthy&step=1&more=1",
        "/api/step",
        "/api/eval?id=healthy&name=no",
    ],
)
def test_what_is_not_there_is_a_404_and_never_a_file_elsewhere(server, path):
    status, _, body = get(server, path)
    assert status == 404
    assert b"root:" not in body and b"import" not in body


def test_a_link_out_of_the_folder_is_not_followed(root, server, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    shutil.copytree(root / "healthy", outside / "run")
    (root / "link").symlink_to(outside / "run")
    assert get(server, "/api/run?id=link")[0] == 404


# -- what it answers -----------------------------------------------------------------------


def test_a_step_is_answered_as_its_rows_are_stored(root):
    groups = plain(Library(root).answer("step", {"id": "healthy", "step": "7"}))
    stored = [
        json.loads(line)
        for line in (root / "healthy/rollouts/step-000007.jsonl")
        .read_text()
        .splitlines()
    ]
    assert [row for group in groups for row in group["rows"]] == stored
    assert [group["group"] for group in groups] == list(range(GROUPS))


def test_the_heat_map_holds_the_mean_of_every_group(root):
    heat = Library(root).answer("stage", {"id": "healthy"})["heat"]
    assert len(heat) == STEPS * GROUPS
    rows = Made(root / "x", "grpo").rows
    wanted = [r["reward"] for r in rows if (r["step"], r["group"]) == (9, 3)]
    (cell,) = [cell for cell in heat if cell[:2] == (9, 3)]
    assert cell[2] == pytest.approx(sum(wanted) / SIZE)
    assert cell[3] == (min(wanted) == max(wanted))


def test_next_wrong_and_next_dead_are_those_after_a_place(root):
    library, rows = Library(root), Made(root / "x", "grpo").rows
    place = {"id": "healthy", "step": "5", "group": "2", "sample": "1"}
    wrong = next(
        [row["step"], row["group"], row["sample"]]
        for row in rows
        if (row["step"], row["group"], row["sample"]) > (5, 2, 1)
        and row["status"] != "ok"
    )
    assert library.answer("next", {**place, "wanted": "wrong"}) == wrong
    step, group, sample = library.answer("next", {**place, "wanted": "dead"})
    rewards = {r["reward"] for r in rows if (r["step"], r["group"]) == (step, group)}
    assert len(rewards) == 1 and (step, group) > (5, 2) and sample == 0


def test_an_eval_against_an_earlier_one_counts_fixed_and_broken(root):
    compared = Library(root).answer(
        "versus",
        {"id": "healthy", "name": "quiz@60", "base": "healthy", "base_name": "quiz@0"},
    )
    assert compared["counts"] == {
        "fixed": 0,
        "broken": 0,
        "still wrong": 250,
        "right in both": 250,
    }
    assert "0 fixed, 0 broken of 500" in compared["says"]


def test_the_index_follows_a_run_that_grows_and_one_that_was_taken_back(root):
    index = Index(root / "healthy")
    index.refresh()
    path = root / "healthy/rollouts/step-000061.jsonl"
    row = new_row({"step": 61, "group": 0, "sample": 0, "prompt": "p", "response": "r"})
    append_rows(path, [row])
    with path.open("ab") as file:
        file.write(b'{"torn": ')
    index.refresh()
    assert len(index.step(61)) == 1
    append_rows(path, [{**row, "sample": 1}])  # cuts the torn line off first
    index.refresh()
    assert [each["sample"] for each in index.step(61)] == [0, 1]
    path.write_bytes(path.read_bytes().splitlines(True)[0])
    index.refresh()
    assert len(index.step(61)) == 1
    path.unlink()
    index.refresh()
    assert index.step(61) == []


def test_damaged_folders_open_as_far_as_they_can(root):
    healthy = root / "healthy"
    (healthy / "rollouts/step-000002.jsonl").write_text('{]\n{"step": 2}\n[]\nnull\n')
    (healthy / "metrics.jsonl").write_text("{]\n")
    (healthy / "evals/quiz@30/summary.json").write_text("[" * 5000)
    (root / "foreign").mkdir()
    (root / "foreign/manifest.json").write_text("[]")
    library = Library(root)
    assert len(library.answer("runs", {})["runs"]) == 2
    stage = library.answer("stage", {"id": "healthy"})
    assert len(stage["evals"]) == 2 and len(stage["unread"]) == 2
    assert library.answer("step", {"id": "healthy", "step": "3"})


def test_a_folder_that_cannot_be_written_is_indexed_elsewhere(root):
    before = sorted(root.rglob("*"))
    Library(root).answer("stage", {"id": "healthy"})
    assert sorted(root.rglob("*")) == before


def test_an_export_of_a_long_run_takes_every_nth_step(root, tmp_path, monkeypatch):
    module = sys.modules["alignkit.view.export"]
    monkeypatch.setattr(module, "ROWS", STEPS * GROUPS * SIZE // 4)
    assert export(root / "healthy", tmp_path / "page.html") <= STEPS // 4 + 2


def test_a_folder_that_is_no_run_is_not_exported(root, tmp_path, capsys):
    with pytest.raises(InputError, match="is no run"):
        export(root, tmp_path / "page.html")
    with pytest.raises(SystemExit) as left:
        main(["view", str(root / "nothing")])
    assert left.value.code == 2 and "there is no folder" in capsys.readouterr().err


def test_vendored_libraries_are_those_whose_hashes_are_listed():
    import hashlib

    from alignkit.view.server import STATIC

    for line in (STATIC / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == digest


def test_a_step_is_found_by_the_index_whatever_the_size_of_the_run(root):
    index = Index(root / "healthy")
    index.refresh()
    plan = index.connection.execute(
        "EXPLAIN QUERY PLAN SELECT place FROM rows WHERE step = 7"
    ).fetchall()
    assert "by_step" in str(plan)


DAMAGES = {
    "empty": "",
    "torn": '{"a',
    "deep": "[" * 1200,
    "a list": "[]\n",
    "null": "null\n",
    "numbers": f'{{"step": {10**30}, "group": {10**30}, "reward": {10**30}}}\n',
    "other kinds": '{"jobs": [1], "proofs": [1], "verdicts": 3, "response": [1]}\n',
}
FILES = [
    "manifest.json",
    "recipe.yaml",
    "metrics.jsonl",
    "proofs.json",
    "sweep.json",
    "compare/compare.json",
    "evals/quiz@30/summary.json",
    "evals/quiz@60/samples.jsonl",
    "rollouts/step-000002.jsonl",
]


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_answered_in_words(file, root, server):
    """One line, or what else the folder holds; never a connection that breaks off."""
    (root / "healthy/compare").mkdir()
    sides = {"name": "quiz@60", "base": "healthy", "base_name": "quiz@0"}
    place = {"step": "1", "group": "0", "sample": "0", "wanted": "wrong"}
    asked = {
        **{each: {} for each in ("run", "stage", "checks", "says", "sweep", "stamp")},
        "step": {"step": "2"},
        "next": place,
        "question": {"text": "Q"},
        "eval": {"name": "quiz@60"},
        "versus": sides,
    }
    for text in DAMAGES.values():
        (root / "healthy" / file).write_text(text)
        for question, fields in asked.items():
            query = urlencode({"id": "healthy", **fields})
            status, _, body = get(server, f"/api/{question}?{query}")
            answer = json.loads(body)
            assert status == 200 or (status == 404 and answer["error"])
        assert get(server, "/api/runs")[0] == 200


def test_one_damaged_file_leaves_the_rest_to_be_seen(root):
    healthy = root / "healthy"
    (healthy / "proofs.json").write_text("[" * 5000)
    (healthy / "evals/quiz@60/samples.jsonl").write_text("{]\n")
    library = Library(root)
    stage = library.answer("stage", {"id": "healthy"})
    assert len(stage["heat"]) == STEPS * GROUPS and "proofs.json" in stage["unread"][0]
    (report,) = library.answer("checks", {"id": "healthy"})
    assert "samples.jsonl:1" in report["unchecked"]["judge_prefers_a_place"]
    assert "dead_reward" in report["passed"]


@pytest.mark.parametrize("number", ["9" * 30, "9" * 5000, "1.5", "", "٣"])
def test_a_number_that_none_is_gets_a_404(server, number):
    query = urlencode({"id": "healthy", "step": number})
    status, _, body = get(server, f"/api/step?{query}")
    assert status == 404 and b"expected a number" in body
