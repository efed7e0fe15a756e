"""Each data set is loaded once, and its rows are not kept for ever."""

from __future__ import annotations

import gc
import weakref

import pytest

from alignkit import data, kits, plugins
from alignkit.data.datasets import Datasets
from alignkit.evaluate import EvalRequest, plan_eval

LINE = '{"question": "1+1=?", "truth": "2"}\n'


@pytest.fixture
def datasets():
    return Datasets(plugins.load([kits.builtin()]))


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "rows.jsonl").write_text(LINE * 3)
    return {"dataset": "jsonl", "path": str(tmp_path / "rows.jsonl")}


def test_rows_are_loaded_once_by_what_is_said_of_them(datasets, spec, tmp_path):
    rows = datasets.rows(spec, 0)
    same = dict(reversed(spec.items()))
    (tmp_path / "rows.jsonl").write_text(LINE)
    assert datasets.rows(same, 0) is rows
    assert len(datasets.rows({**spec, "limit": 1}, 0)) == 1


def test_a_seed_gives_other_rows_where_a_data_set_draws_them(datasets):
    drawn = {"dataset": "arithmetic", "size": 8}
    assert datasets.rows(drawn, 0) != datasets.rows(drawn, 1)


def test_a_fingerprint_outlives_the_rows_and_is_that_of_the_content(
    datasets, spec, tmp_path
):
    first = datasets.fingerprint(spec, 0)
    assert first == data.fingerprint(data.load_rows(spec, datasets.registry))
    datasets.release()
    (tmp_path / "rows.jsonl").unlink()
    assert datasets.fingerprint(spec, 0) == first


def test_rows_that_were_released_are_held_by_nobody(datasets, spec, monkeypatch):
    class Rows(list):
        """A list that a weak reference can point to."""

    load = data.load_rows
    monkeypatch.setattr(data, "load_rows", lambda *a, **k: Rows(load(*a, **k)))
    held = weakref.ref(datasets.rows(spec, 0))
    datasets.release()
    gc.collect()
    assert held() is None


def test_an_eval_that_changes_its_rows_changes_nobody_elses(datasets, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "greedy.py").write_text(GREEDY)
    registry = plugins.load(kits.find([], [str(tmp_path)]))
    spec = {"dataset": "arithmetic", "split": "test", "size": 4}
    datasets = Datasets(registry)
    before = [dict(row) for row in datasets.rows(spec, 0)]
    request = EvalRequest.of(registry.get("eval", "greedy"), data=spec)
    plan_eval(request, registry, datasets=datasets)
    assert datasets.rows(spec, 0) == before


GREEDY = """\
from alignkit import Eval, Sample, Score, hookimpl


def score(sample, response):
    return Score(0.0)


def samples(rows, render):
    for number, row in enumerate(rows):
        yield Sample(str(number), row.pop("question"), row.pop("truth"))


@hookimpl
def align_evals():
    yield Eval(name="greedy", samples=samples, score=score)
"""
