"""The page's tables and sweeps in a real browser."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
from made_runs import Made
from pages import HOSTILE, browser_only

from alignkit.report.comparison import Comparison, Row
from alignkit.report.intervals import Interval
from alignkit.report.results import Result
from alignkit.report.stats import Difference
from alignkit.report.tables import as_json
from alignkit.run import append_rows, new_row, write_json
from alignkit.view import Library, serve


@browser_only
@pytest.mark.parametrize("value", [3.0, 0.1 + 0.2, 1e12, -7.5, 0.0])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_numbers_that_never_change_are_drawn_as_they_are(
    root, server, page, value, right
):
    """A flat curve is a curve, and nothing but wrong responses is no blue map."""
    run = Made(root / "healthy", "grpo")
    for row in run.metrics:
        row["train/response_length"] = value
    run.every(reward=right, status="ok" if right else "wrong")
    shutil.rmtree(run.folder)
    run.folder.mkdir()
    run.write()
    page.open(f"{server}#/run?id=healthy")
    page.until("document.querySelectorAll('figure canvas').length >= 6")
    page.until("document.querySelector('canvas.heat')?.width > 0")
    page.page.wait_for_timeout(100)
    dots = "[...document.querySelector('canvas.heat').getContext('2d')"
    red, _, blue, _ = page.page.evaluate(f"() => {dots}.getImageData(4, 4, 1, 1).data]")
    assert (blue > red) is bool(right)


@browser_only
def test_tables_are_walked_by_keys(server, page):
    page.open(server)
    for key, place in (("j", 0), ("j", 1), ("k", 0), ("k", 1)):
        page.page.keyboard.press(key)
        page.until(
            f"[...document.querySelectorAll('tbody a')].indexOf(document.activeElement)"
            f" === {place}"
        )
    page.page.keyboard.press("Enter")
    page.until("location.hash.startsWith('#/run')")


@browser_only
def test_the_recipes_of_two_runs_stand_against_each_other(root, server, page):
    text = json.dumps({"method": "grpo", "seed": 77, "name": HOSTILE[:60]})
    (root / "hostile" / "recipe.yaml").write_text(text)
    page.page.goto(f"{server}#/run?id=healthy&tab=recipe")
    page.until("document.querySelectorAll('#other option').length === 2")
    page.page.select_option("#other", "hostile")
    page.until("document.querySelector('table.differences')")
    rows = page.page.locator("table.differences tbody tr").all_inner_texts()
    assert [r.split("\t")[-1] for r in rows if r.startswith("seed\t")] == ["77"]
    assert page.page.evaluate("window.hacked") is None
    page.page.select_option("#other", "")
    page.until("!document.querySelector('table.differences')")


@browser_only
def test_two_evals_say_what_their_responses_are_like(root, server, page):
    run = Made(root / "healthy", "grpo")
    for step, response in ((0, "</think> so it is"), (60, f"\\boxed{{4}} {HOSTILE}")):
        said = {"response": response, "reward": 1.0}
        samples = [new_row({**sample, **said}) for sample in run.samples]
        file = root / "healthy" / "evals" / f"quiz@{step}" / "samples.jsonl"
        file.unlink()
        append_rows(file, samples)
    place = "name=quiz%4060&base=healthy&base_name=quiz%400"
    page.open(f"{server}#/eval?id=healthy&run=healthy&{place}")
    page.until("document.querySelector('table.traits')")
    rows = page.page.locator("table.traits tbody tr").all_inner_texts()
    assert "empty thinking\t100 %\t0 %" in rows and "a box\t0 %\t100 %" in rows
    assert sum(row.startswith("“") for row in rows) == 5
    assert page.page.evaluate("window.hacked") is None


@browser_only
def test_a_sweep_shows_its_runs_with_their_alarms(root, tmp_path_factory, page):
    folder = tmp_path_factory.mktemp("sweep")
    for variant in ("good", "dead"):
        run = Made(folder / "runs" / f"{variant}-seed0", "grpo")
        run.folder.mkdir(parents=True)
        if variant == "dead":
            run.every(reward=0.0, status="unparsed", advantage=0.0)
        run.write()
    write_json(
        folder / "manifest.json",
        {"name": "two", "status": "done", "method": "sweep", "pid": 1},
    )
    jobs = [
        {"variant": v, "seed": 0, "status": "done", "note": ""}
        for v in ("good", "dead")
    ]
    write_json(folder / "sweep.json", {"jobs": jobs, "variants": {}})
    results = {
        name: Result(
            value,
            Interval(value - 0.1, value + 0.1, "questions"),
            {"0": value},
            500,
            gap,
        )
        for name, value, gap in (
            ("good", 0.8, None),
            ("dead", 0.0, Difference(-0.8, None, "", 0.01, "questions", 0.1, 9.0)),
        )
    }
    rows = [
        Row(name, name == "good", [0], {}, {"m": results[name]}, []) for name in results
    ]
    (folder / "compare").mkdir()
    (folder / "compare/compare.json").write_text(as_json(Comparison([], ["m"], rows)))
    made = serve(Library(folder))
    threading.Thread(target=made.serve_forever, daemon=True).start()
    page.open(f"http://127.0.0.1:{made.server_port}/#/sweep?id=.")
    page.until("document.body.innerText.includes('The reward is dead')")
    assert "0.000" in page.page.inner_text("main") and "-80.0" in page.page.inner_text(
        "main"
    )
    (line,) = [
        r
        for r in page.page.locator("table").last.locator("tbody tr").all()
        if "dead" in r.inner_text().split("\t")[0]
    ]
    assert "stop: The reward is dead: 0 for every response" in line.inner_text()
    assert "to do: " in line.inner_text()
    made.shutdown()
    made.server_close()
