"""From a sweep to the cause of what went wrong in it, by keys and in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from made_runs import Made
from pages import browser_only

from alignkit.cli import cli
from alignkit.run import write_json

VARIANTS = ("good", "short", "fast", "both")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two values each of max_new_tokens and learning rate, in a folder of runs."""
    sweep = tmp_path / "sweep"
    for variant in VARIANTS:
        run = Made(sweep / "runs" / f"{variant}-seed0", "grpo")
        run.folder.mkdir(parents=True)
        if variant in ("short", "both"):
            run.every(reward=0.0, status="unparsed", response="so")
            run.every(finish_reason="length")
        if variant == "fast":
            run.log("train/reward", 0.01, after=45)
            run.manifest["effective"]["train.learning_rate"] = 0.03
        run.write()
    write_json(
        sweep / "manifest.json",
        {"name": "two by two", "status": "done", "method": "sweep", "pid": 1},
    )
    jobs = [{"variant": v, "seed": 0, "status": "done", "note": ""} for v in VARIANTS]
    write_json(sweep / "sweep.json", {"jobs": jobs, "variants": {}})
    return tmp_path


def test_the_terminal_names_both_causes(root):
    result = CliRunner().invoke(cli, ["check", str(root / "sweep")])
    said = " ".join(result.output.split())
    assert "The reward is dead" in said and "generation.max_new_tokens" in said
    assert "collapsed" in said and "learning rate" in said
    told = CliRunner().invoke(cli, ["check", str(root / "sweep"), "--json"]).output
    alarms = {
        report["stage"]: {
            f["check"] for f in report["findings"] if f["level"] == "stop"
        }
        for report in json.loads(told)["reports"]
    }
    assert alarms.pop("good-seed0") == set()
    assert "collapse" in alarms.pop("fast-seed0")
    assert all("dead_reward" in found for found in alarms.values())


@browser_only
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_keys_lead_from_the_runs_to_both_causes(server, page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page.page.emulate_media(color_scheme=scheme)
    page.open(server)
    for key in ("j", "Enter"):
        page.page.keyboard.press(key)
    page.until("document.body.innerText.includes('raise generation.max_new_tokens')")
    page.until("/a third of the learning rate/.test(document.body.innerText)")
    found = Axe().run(page.page).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
    for key in ("j", "j", "Enter"):  # past the good one, to the rows of the second
        page.page.keyboard.press(key)
    page.until("document.querySelector('.side .cell.chosen')")
    page.until("document.body.innerText.includes('The reward is dead')")
    page.page.set_viewport_size({"width": 420, "height": 900})
    page.page.go_back()
    page.until("location.hash.startsWith('#/sweep')")
    page.page.wait_for_timeout(200)
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 420
