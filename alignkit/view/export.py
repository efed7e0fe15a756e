"""One self-contained file to send: the page with the answers it would ask for."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from alignkit.errors import AlignError, InputError
from alignkit.run import atomic_write
from alignkit.run.rows import encode
from alignkit.view.library import Library
from alignkit.view.server import STATIC

ROWS = 20_000  # rollouts that one file holds
SCRIPTS = ("vendor.js", "app.js")


def export(folder: Path, file: Path) -> int:
    """Write a run as one HTML file that opens from disk, without a server.

    Returns:
        The number of steps whose responses are in it; of a long run every n-th step.
    """
    if not (folder / "manifest.json").is_file():
        raise InputError(f"{folder} is no run; one file holds one run")
    library = Library(folder)
    answers: dict[str, Any] = {}

    def ask(question: str, /, **asked: str) -> Any:
        value = library.answer(question, asked)
        answers[f"{question}?{urlencode(sorted(asked.items()))}"] = value
        return value

    ask("runs")
    run = ask("run", id=".")
    ask("checks", id=".")
    ask("says", id=".")
    if run["kind"] == "sweep":
        ask("sweep", id=".")
    shown = 0
    evals: dict[str, tuple[str, str]] = {}
    for stage in run["stages"]:
        id = stage["id"]
        read = ask("stage", id=id)
        shown += _steps(read["heat"], id, ask)
        for each in read["evals"]:
            name = f"{each['name']}@{each['step']}"
            if before := evals.get(each["name"]):
                _versus(ask, id, name, before)
            ask("eval", id=id, name=name)
            evals[each["name"]] = (id, name)
    atomic_write(file, _page(answers))
    return shown


def _steps(heat: Any, id: str, ask: Any) -> int:
    """Ask for every n-th step, so that the file stays one that opens."""
    rows = sum(count for *_, count in heat)
    steps = sorted({step for step, *_ in heat})
    every = max(1, -(-rows // ROWS))
    chosen = sorted({*steps[::every], *steps[-1:]})
    for step in chosen:
        ask("step", id=id, step=str(step))
    return len(chosen)


def _versus(ask: Any, id: str, name: str, before: tuple[str, str]) -> None:
    try:
        ask("versus", id=id, name=name, base=before[0], base_name=before[1])
    except AlignError:
        return  # no common question: the page has nothing to compare


def _page(answers: dict[str, Any]) -> str:
    """`<` is escaped, so that no text of a model ends the block it stands in."""
    data = encode([answers]).decode().strip().replace("<", "\\u003c")
    script = "\n".join((STATIC / name).read_text() for name in SCRIPTS)
    style = (STATIC / "style.css").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>alignkit</title><style>{style}</style></head>"
        '<body><div id="app"></div>'
        f'<script type="application/json" id="answers">{data}</script>'
        f"<script>{script}</script></body></html>"
    )
