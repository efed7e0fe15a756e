"""Runs to look at, a server at work, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import Made
from pages import CHROMIUM, HOSTILE, Page

from alignkit.view import Library, serve


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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield started
        started.close()


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
