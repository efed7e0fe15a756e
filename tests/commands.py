"""The command line in a process of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

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
