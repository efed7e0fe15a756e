"""Processes on this machine: `--executor local`, the default."""

from __future__ import annotations

from collections.abc import Iterable

from alignkit import Executor, LocalWorkers, Workers, hookimpl


def local(*, jobs: int | None = None, processes: int = 1) -> Workers:
    """A job per GPU at a time, without a GPU one, unless `jobs` says otherwise."""
    return LocalWorkers(jobs, processes)


@hookimpl
def align_executors() -> Iterable[Executor]:
    yield Executor("local", local)
