"""The page of runs: what it answers, to whom, and what a real browser makes of it."""

from __future__ import annotations

import http.client
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import GROUPS, SIZE, STEPS, Made

from alignkit.cli import main
from alignkit.errors import InputError
from alignkit.report.comparison import Comparison, Row
from alignkit.report.intervals import Interval
from alignkit.report.results import Result
from alignkit.report.stats import Difference
from alignkit.report.tables import as_json
from alignkit.run import append_rows, new_row, write_json
from alignkit.run.rows import plain
from alignkit.view import Library, export, serve
from alignkit.view.index import Index

HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    "[a](javascript:window.hacked=1) \x1b[31m \u202egnp.exe \x00 \ud800 </script>"
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs: a healthy one and one whose every text is hostile."""
    for name in ("healthy", "hostile"):
        run = Made(tmp_path / name, "grpo")
        run.folder.mkdir()
        if name == "hostile":
            run.every(response=HOSTILE, prompt=HOSTILE, truth=HOSTILE)
            run.rows[-1]["response"] = "x" * 1_000_000
            run.manifest["name"] = HOSTILE.replace("\ud800", "").replace("\x00", "")
        for number, sample in enumerate(run.samples):
            sample["reward"] = float(number % 2)
            sample["metadata"] = {"question": sample["prompt"]}
        run.write()
    return tmp_path


@pytest.fixture
def server(root: Path) -> Iterator[str]:
    """The address of a server at work."""
    made = serve(Library(root))
    worker = threading.Thread(target=made.serve_forever, daemon=True)
    worker.start()
    yield f"http://127.0.0.1:{made.server_port}/"
    made.shutdown()
    made.server_close()
    worker.join()


def get(
    server: str, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    port = int(server.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


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


# -- in a real browser -----------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
browser_only = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: make browser"
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield started
        started.close()


class Page:
    """A page and what it said and asked for."""

    def __init__(self, browser, **options):
        self.page = browser.new_page(**options)
        self.said, self.asked = [], []
        self.page.on(
            "console", lambda m: self.said.append(m.text) if m.type == "error" else None
        )
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("dialog", lambda dialog: self.said.append("dialog"))

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector(".side pre, table")

    def until(self, expression: str) -> None:
        """Wait for an expression; playwright's own way needs eval, which the page
        forbids.
        """
        for _ in range(200):
            if self.page.evaluate(f"() => Boolean({expression})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"{expression} never came true: {self.page.url}")


@pytest.fixture
def page(browser):
    one = Page(browser, viewport={"width": 1280, "height": 900})
    yield one
    assert one.said == []
    assert all(
        url.startswith(("http://127.0.0.1:", "file:", "data:", "blob:"))
        for url in one.asked
    )
    one.page.close()


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


def test_a_step_is_found_by_the_index_whatever_the_size_of_the_run(root):
    index = Index(root / "healthy")
    index.refresh()
    plan = index.connection.execute(
        "EXPLAIN QUERY PLAN SELECT place FROM rows WHERE step = 7"
    ).fetchall()
    assert "by_step" in str(plan)
