"""The pictures of docs/look.md and the README, from real runs.

    python docs/screenshots.py FOLDER     # or: make screenshots

Runs the quickstart and a sweep of two faults in FOLDER, where they are not there yet, and
opens their pages. Needs chromium (`make browser`).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from alignkit.view import Library, serve

FIGURES = Path(__file__).parent / "figures"
SIZE = {"width": 1280, "height": 860}
RUN = "#/run?id=.&step=40&group=3&sample=2"
EVAL = "#/eval?id=.&run=stages%2Fgrpo&name=arithmetic%4080&base=stages%2Fsft"
PICTURES = {  # name: which folder, the address, what is there once all is
    "view-run": ("run", RUN, ".findings li"),
    "view-eval": ("run", f"{EVAL}&base_name=arithmetic%40800", "table.traits"),
    "view-sweep": ("sweep", "#/sweep?id=.", "td .stop, td .look"),
}
BASE = """\
method: grpo
model: {path: START}
data: {train: {dataset: arithmetic, size: 25600}, prompt: arithmetic}
rewards: {math: {}}
loss: {name: trl, loss_type: dr_grpo}
advantage: {name: group, scale: none}
generation: {engine: transformers, max_new_tokens: 24}
train:
  {max_steps: 40, per_device_train_batch_size: 64, num_generations: 8,
   learning_rate: 3.0e-4, warmup_steps: 5, save_strategy: "no"}
evals: {arithmetic: {after: true}}
"""
FAULTS = """\
base: base.yaml
metric: eval/arithmetic/accuracy
grid: {generation.max_new_tokens: [24, 3], train.learning_rate: [3.0e-4, 0.03]}
seeds: [0]
"""


def align(*words: object) -> None:
    command = [sys.executable, "-P", "-m", "alignkit.cli", *map(str, words)]
    subprocess.run(command, check=True)


def runs(root: Path) -> dict[str, Path]:
    """The folders of a run of the quickstart and of a sweep from its first stage."""
    root.mkdir(parents=True, exist_ok=True)
    quickstart, sweeps = root / "quickstart", root / "sweeps"
    if not quickstart.is_dir():
        align("run", "recipes/quickstart.yaml", "--folder", quickstart)
    if not sweeps.is_dir():
        start = (quickstart / "stages" / "sft").resolve()
        (root / "base.yaml").write_text(BASE.replace("START", str(start)))
        (root / "faults.yaml").write_text(FAULTS)
        align("sweep", root / "faults.yaml", "--out", sweeps)
    return {"run": quickstart, "sweep": next(iter(sweeps.iterdir()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folders = runs(parser.parse_args().folder)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, (folder, address, ready) in PICTURES.items():
            server = serve(Library(folders[folder]))
            worker = threading.Thread(target=server.serve_forever, daemon=True)
            worker.start()
            page = browser.new_page(viewport=SIZE, color_scheme="light")
            take(page, f"http://127.0.0.1:{server.server_port}/{address}", ready, name)
            page.close()
            server.shutdown()
            server.server_close()
        browser.close()


def take(page: Page, address: str, ready: str, name: str) -> None:
    page.goto(address)
    page.wait_for_selector(ready)
    page.wait_for_timeout(500)  # curves and map
    page.screenshot(path=FIGURES / f"{name}.png")


if __name__ == "__main__":
    main()
