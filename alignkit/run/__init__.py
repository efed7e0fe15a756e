"""What a run leaves on disk: its folder, its files, its rows."""

from alignkit.run.files import (
    append_jsonl,
    atomic_write,
    read_jsonl,
    write_json,
    writing,
)
from alignkit.run.folder import Run, eval_summaries, find_runs, newest_finished, now

__all__ = [
    "Run",
    "append_jsonl",
    "atomic_write",
    "eval_summaries",
    "find_runs",
    "newest_finished",
    "now",
    "read_jsonl",
    "write_json",
    "writing",
]
