"""The command line in a process of its own, as a user has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

# a vLLM starts in 10 s on an idle machine, and takes ten times as long on a busy one
SECONDS = 1500


def align(*arguments, cwd, check=0, before=""):
    """Run the command line in a process of its own; `before` is Python run first in
    that process.
    """
    code = (
        f"import sys\n{before}\nif __name__ == '__main__':\n    from alignkit.cli"
        " import main\n    main(sys.argv[1:])"
    )
    script = Path(cwd) / "run_align.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == check, (
        f"{arguments} left with {done.returncode}:\n{done.stdout}\n{done.stderr[-8000:]}"
    )
    return SimpleNamespace(out=done.stdout, err=done.stderr)


NOTE_OPENED = """\
import json, os, sys
_file = os.open(os.environ["OPENED_FILES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(os.environ["OPENED_UNDER"]):
            os.write(_file, (json.dumps([os.getpid(), path]) + "\\n").encode())
sys.addaudithook(_note)
"""


def opened_files(*arguments, cwd, under):
    """Run the command line; every opening of a file in the folder `under` by Python code.

    Returns:
        (process id, path relative to `under`) in order, of the command's process and of
        all that it started.
    """
    root = Path(under).resolve()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "opened"
        log.touch()
        (Path(folder) / "sitecustomize.py").write_text(NOTE_OPENED)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PYTHONPATH", path)
            environment.setenv("OPENED_FILES", str(log))
            environment.setenv("OPENED_UNDER", f"{root}{os.sep}")
            align(*arguments, cwd=cwd)
        opened = [json.loads(line) for line in log.read_text().splitlines()]
    return [(process, str(Path(path).relative_to(root))) for process, path in opened]
