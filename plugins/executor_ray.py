"""Actors of a Ray cluster, one for each run: `--executor ray --address HOST:PORT`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from alignkit import Executor, LostError, Task, Workers, asks_for, hookimpl

from ._ray_cluster import connect, room
from ._ray_work import Work, environment, unpack


@dataclass
class _Handle:
    task: Task
    actor: Any
    asked: Any  # the poll that is under way
    code: int | None = None
    begun: bool = False


class RayWorkers:
    """A cluster's room, by processors and GPUs."""

    def __init__(self, address: str, jobs: int | None, processes: int) -> None:
        self._ray = connect(address)
        self._processes = processes
        self.slots, resources = room(self._ray, jobs, processes)
        self._work = self._ray.remote(**resources)(Work)

    def submit(self, task: Task) -> _Handle:
        """Ask for an actor, which begins when there is room for it."""
        recipe = task.recipe.read_bytes()
        actor = self._work.remote(task, recipe, self._processes, environment())
        return _Handle(task, actor, actor.poll.remote())

    def poll(self, handle: _Handle) -> int | None:
        """The exit code, once all that the run wrote is here."""
        ray = self._ray
        if handle.code is not None or not ray.wait([handle.asked], timeout=0)[0]:
            return handle.code
        try:
            code, news = ray.get(handle.asked)
            handle.begun = True
            for name, text in news.items():
                file = handle.task.folder / name if name else handle.task.log
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text)
            if code is None:
                handle.asked = handle.actor.poll.remote()
            else:
                self._fetch(handle)
        except ray.exceptions.RayActorError as error:
            raise LostError(f"its worker is gone: {error}".splitlines()[0]) from error
        handle.code = code
        return code

    def _fetch(self, handle: _Handle) -> None:
        ray, actor, folder = self._ray, handle.actor, handle.task.folder
        size, packed = ray.get(actor.pack.remote()), folder.with_suffix(".tar")
        if size:
            with packed.open("wb") as file:
                while file.tell() < size:
                    file.write(ray.get(actor.piece.remote(file.tell())))
            unpack(packed, folder)
        ray.get(actor.clean.remote())
        ray.kill(actor)  # gives its room back

    def cancel(self, handle: _Handle) -> None:
        """Ask the run to stop; what has not begun is dropped."""
        if handle.begun or self._ray.wait([handle.asked], timeout=0)[0]:
            handle.actor.stop.remote()
        else:
            self._ray.kill(handle.actor)
            handle.code = 143


def ray(*, jobs: int | None = None, processes: int = 1, address: str = "") -> Workers:
    """`--address HOST:PORT`: the cluster; without, one of this machine alone."""
    try:
        return RayWorkers(address, jobs, processes)
    except ImportError as error:
        raise asks_for("ray", "ray", "--executor ray") from error


@hookimpl
def align_executors() -> Iterable[Executor]:
    yield Executor("ray", ray)
