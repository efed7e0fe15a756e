"""What a real browser makes of the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import Made
from pages import Page, browser_only

from alignkit.run import append_rows, new_row
from alignkit.view import export


@browser_only
def test_every_page_is_reached_and_left_by_keys(server, page):
    page.open(server)
    page.page.keyboard.press("f")
    page.page.keyboard.type("status:done made")
    page.until("document.querySelectorAll('tbody tr').length === 1")
    page.page.keyboard.press("Tab")
    page.page.click("tbody a")
    page.until("document.querySelector('.side .cell.chosen')")
    walk = {
        "ArrowLeft": "step=59",
        "j": "group=1",
        "l": "sample=1",
        "h": "sample=0",
        "k": "group=0",
        "ArrowRight": "step=60",
        "r": "raw=1",
        "m": "math=1",
        "d": "group=",
        "Enter": "wide=1",
    }
    for key, place in walk.items():
        page.page.evaluate("document.activeElement.blur()")
        page.page.keyboard.press(key)
        page.until(f"location.hash.includes({json.dumps(place)})")
    page.page.keyboard.press("Enter")
    page.page.keyboard.press("ArrowLeft")
    page.page.keyboard.press("w")
    page.until("document.querySelector('.cell.chosen:not(.ok)')")
    page.page.keyboard.press("?")
    page.until("document.querySelector('dialog[open]')")
    page.page.keyboard.press("Escape")
    page.until("!document.querySelector('dialog')")
    page.page.keyboard.press("q")
    page.until("location.hash.startsWith('#/question')")
    page.page.go_back()
    page.until("document.querySelector('a.compare')")
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.press("c")
    page.until("location.hash.startsWith('#/eval') && document.querySelector('.says')")
    page.page.keyboard.press("g")
    page.until("location.hash.startsWith('#/runs')")


@browser_only
def test_the_page_shows_what_the_rows_hold(server, page):
    page.open(f"{server}#/run?id=healthy&step=7&group=2&sample=1")
    (row,) = [
        r
        for r in Made(Path("x"), "grpo").rows
        if (r["step"], r["group"], r["sample"]) == (7, 2, 1)
    ]
    shown = page.page.inner_text('.side pre[aria-label="response"]')
    assert shown == row["response"]
    assert f"{row['reward']:g}, advantage {row['advantage']:g}" in page.page.inner_text(
        ".side dl"
    )


@browser_only
def test_hostile_text_is_text(server, page):
    page.open(f"{server}#/run?id=hostile&step=3&group=0&sample=0")
    shown = page.page.inner_text('.side pre[aria-label="response"]')
    assert "<script>window.hacked=1</script><img src=x" in shown
    assert "U+001B" in shown and "U+202E" in shown and "U+0000" in shown
    assert page.page.evaluate("window.hacked") is None
    assert page.page.locator("#app img, #app script, #app iframe").count() == 0
    page.open(f"{server}#/run?id=hostile&step=60&group=7&sample=3")
    page.until(
        "document.querySelector('.side').innerText.includes('show all 1,000,000 characters')"
    )
    for more in (
        "math=1&step=3",
        "raw=1&step=3",
        "tab=recipe",
        "tab=settings",
        "tab=log",
    ):
        page.page.goto(f"{server}#/run?id=hostile&group=0&sample=0&{more}")
        page.page.wait_for_timeout(200)
    assert page.page.evaluate("window.hacked") is None


@browser_only
def test_a_run_that_grows_is_followed(root, server, page):
    page.open(f"{server}#/run?id=healthy")
    page.until("document.querySelector('.side h2')?.innerText.startsWith('STEP 60')")
    page.page.wait_for_timeout(2500)  # the first stamp
    run = Made(root / "healthy", "grpo")
    append_rows(
        root / "healthy/rollouts/step-000061.jsonl",
        [new_row({**row, "step": 61}) for row in run.rows if row["step"] == 60],
    )
    with (root / "healthy/metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 61, "train/reward": 0.9}) + "\n")
    page.until("document.querySelector('.side h2')?.innerText.startsWith('STEP 61')")


@browser_only
@pytest.mark.parametrize("name", ["healthy", "hostile"])
def test_an_exported_file_opens_from_disk_and_asks_for_nothing(
    root, tmp_path, page, name
):
    file = tmp_path / "page.html"
    export(root / name, file)
    page.open(file.as_uri())
    page.until("document.querySelector('.side .cell.chosen')")
    page.page.evaluate("document.activeElement.blur()")
    page.page.keyboard.press("ArrowLeft")
    page.until("location.hash.includes('step=59')")
    page.page.keyboard.press("w")
    page.until("document.querySelector('.cell.chosen')")
    page.page.click("a.compare")
    page.until("document.querySelector('.says')")
    assert page.page.evaluate("window.hacked") is None
    assert {url.partition(":")[0] for url in page.asked} == {"file"}


@browser_only
@pytest.mark.parametrize("width", [420, 900, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_their_width_and_have_no_serious_barrier(
    server, browser, width, scheme
):
    from axe_playwright_python.sync_playwright import Axe

    one = Page(browser, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for address in (
        "#/runs",
        "#/run?id=healthy&step=7",
        "#/run?id=healthy&tab=settings",
        "#/question?id=healthy&run=healthy&text=Question%207",
        "#/eval?id=healthy&run=healthy&name=quiz%4060&base=healthy&base_name=quiz%400",
    ):
        one.open(server + address)
        one.page.wait_for_timeout(300)
        assert one.page.evaluate("document.documentElement.scrollWidth") <= width, (
            address
        )
        if width == 900:
            found = Axe().run(one.page).response["violations"]
            serious = [
                (v["id"], v["nodes"][0]["html"][:200])
                for v in found
                if v["impact"] in ("serious", "critical")
            ]
            assert serious == [], address
    assert one.said == []
    one.page.close()
