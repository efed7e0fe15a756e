"""What a run leaves on disk: its folder, its files, its rows, its lock."""

from alignkit.run.files import (
    append_jsonl,
    atomic_write,
    now,
    read_jsonl,
    write_json,
    writing,
)
from alignkit.run.find import eval_summaries, find_runs, newest_finished
from alignkit.run.folder import Run
from alignkit.run.locks import lock
from alignkit.run.rows import append_rows, new_row, read_rows, write_rows

__all__ = [
    "Run",
    "append_jsonl",
    "append_rows",
    "atomic_write",
    "eval_summaries",
    "find_runs",
    "lock",
    "new_row",
    "newest_finished",
    "now",
    "read_jsonl",
    "read_rows",
    "write_json",
    "write_rows",
    "writing",
]
