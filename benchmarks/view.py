"""The page of a large run: seconds to index it, to open it again, and to change a step,
in a real browser where one is here.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

STEPS, GROUPS, SIZE = 200, 50, 10
TEXT = "so it is then that number and the next one, which " * 35  # about 1.8 kB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["XDG_CACHE_HOME"] = f"{home}/cache"
        run = Path(home) / "run"
        size = make(run, args.steps)
        rows = args.steps * GROUPS * SIZE
        print(f"{rows} rollouts, {size / 1e6:.0f} MB")
        from alignkit.view import Library

        first = seconds(lambda: Library(run).answer("stage", {"id": "."}))
        again = seconds(lambda: Library(run).answer("stage", {"id": "."}))
        library = Library(run)
        each = [
            seconds(lambda at=at: library.answer("step", {"id": ".", "step": str(at)}))
            for at in range(1, min(args.steps, 40))
        ]
        print(f"index, once {first:8.2f} s")
        print(f"opened again{again:8.2f} s")
        print(f"one step    {1000 * statistics.median(each):8.1f} ms")
        print(
            f"checks      {seconds(lambda: library.answer('checks', {'id': '.'})):8.2f} s"
        )
        if chromium := shutil.which("chromium"):
            in_browser(library, chromium)


def make(run: Path, steps: int) -> int:
    """A run folder with rollouts of about 2 kB each; returns their bytes."""
    (run / "rollouts").mkdir(parents=True)
    (run / "recipe.yaml").write_text("name: large\nmethod: grpo\n")
    manifest = {"name": "large", "status": "done", "pid": 1, "method": "grpo"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    size = 0
    with (run / "metrics.jsonl").open("w") as metrics:
        for step in range(1, steps + 1):
            metrics.write(
                json.dumps({"step": step, "train/reward": step / steps}) + "\n"
            )
            path = run / "rollouts" / f"step-{step:06d}.jsonl"
            with path.open("w") as file:
                for group in range(GROUPS):
                    for sample in range(SIZE):
                        file.write(json.dumps(row(step, group, sample)) + "\n")
            size += path.stat().st_size
    return size


def row(step: int, group: int, sample: int) -> dict:
    right = (step * 7 + group * 3 + sample) % 10 < 4
    return {
        "version": 1, "step": step, "group": group, "sample": sample,
        "prompt": f"Question {step}-{group}", "response": f"{sample} {TEXT}", "truth": "1",
        "reward": float(right), "parts": {}, "rewards": {}, "advantage": right - 0.4,
        "status": "ok" if right else "wrong", "stage": "exact", "explanation": "",
        "finish_reason": "stop", "tokens": 400, "source": None, "metadata": {},
    }  # fmt: skip


def seconds(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def in_browser(library, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    from alignkit.view import serve

    server = serve(library)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox"]
        )
        page = browser.new_page()
        begun = time.perf_counter()
        page.goto(f"http://127.0.0.1:{server.server_port}/#/run?id=.")
        page.wait_for_selector(".side .cell.chosen")
        print(f"page opened {time.perf_counter() - begun:8.2f} s")
        page.wait_for_timeout(3000)
        changes = [
            page.evaluate(
                """() => new Promise((done) => {
                  const begun = performance.now(), title = document.querySelector('.side h2').innerText;
                  dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true}));
                  const look = () => document.querySelector('.side h2').innerText !== title
                    ? done(performance.now() - begun) : requestAnimationFrame(look);
                  look();
                })"""
            )
            for _ in range(20)
            if not page.wait_for_timeout(400)  # as a person walks
        ]
        print(f"step changed{statistics.median(changes):8.1f} ms")
        browser.close()
    server.shutdown()


if __name__ == "__main__":
    main()
