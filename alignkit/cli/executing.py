"""Where the work of a command is done: `--executor` and what belongs to it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit.cli.common import console, print_json
from alignkit.errors import InputError, WorkError
from alignkit.run import stopping

if TYPE_CHECKING:
    from alignkit.executors import Workers
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

HERE = "local"


@dataclass(frozen=True)
class Choice:
    """An executor and its options, as typed."""

    name: str
    slurm: tuple[str, ...]
    address: str | None

    @property
    def flags(self) -> list[str]:
        """As they have to be typed again."""
        words = [] if self.name == HERE else ["--executor", self.name]
        words += [part for text in self.slurm for part in ("--slurm", text)]
        return words + (["--address", self.address] if self.address else [])

    def open(self, registry: Registry, jobs: int | None, processes: int) -> Workers:
        """The executor at work.

        Raises:
            InputError: an option that it has not, or a value that cannot be.
            MissingError: what it needs is not here.
        """
        from alignkit.plugins import check_options
        from alignkit.recipe import options

        plugin = registry.get("executor", self.name)
        stated: dict[str, Any] = {}
        if self.slurm:
            stated["slurm"] = dict(
                options.halves(text, f"--slurm {text}", "KEY=VALUE")
                for text in self.slurm
            )
        if self.address:
            stated["address"] = self.address
        if problems := check_options(plugin, stated):
            raise InputError(*(f"--{key}: {text}" for key, text in problems))
        made: Workers = plugin.value.make(jobs=jobs, processes=processes, **stated)
        return made


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--executor, --slurm and --address, as one `executor`."""

    @click.option(
        "--executor",
        "name",
        default=HERE,
        show_default=True,
        metavar="NAME",
        help="Where to work: local, slurm, ray, or a plugin's.",
    )
    @click.option(
        "--slurm",
        multiple=True,
        metavar="KEY=VALUE",
        help="With slurm: a parameter of its jobs (repeatable): time=120 partition=gpu.",
    )
    @click.option(
        "--address",
        metavar="HOST:PORT",
        help="With ray: the cluster; without, one is started on this machine.",
    )
    @functools.wraps(command)
    def wrapped(
        *given: Any,
        name: str,
        slurm: tuple[str, ...],
        address: str | None,
        **named: Any,
    ) -> Any:
        return command(*given, executor=Choice(name, slurm, address), **named)

    return wrapped


def elsewhere(
    recipe: Recipe,
    registry: Registry,
    choice: Choice,
    root: Path | None,
    folder: Path | None,
    resume: Path | None,
    take_over: bool,
    as_json: bool,
) -> int:
    """Have a run worked on by an executor, show what it prints, and give its exit code.

    Its recipe, log and scripts lie beside its folder, which it makes itself.
    """
    from alignkit import kits
    from alignkit.executors import LostError, Task
    from alignkit.recipe import to_yaml
    from alignkit.run import atomic_write
    from alignkit.run.files import fresh
    from alignkit.sweep.runner import PATIENCE, POLL, TRIES
    from alignkit.terminal import say

    screen = console(as_json)
    workers = choice.open(registry, 1, recipe.config.launch.processes)
    config = recipe.config
    at = resume or folder or fresh(root or Path(config.output.root), config.name)
    at = at.resolve()
    if resume is None and at.exists():
        raise InputError(f"{at} is there already; name a new folder")
    home = at.with_name(f"{at.name}.submitted")
    atomic_write(home / "recipe.yaml", to_yaml(recipe.resolved))
    files = home / "recipe.yaml", at, home / "log.txt"
    task = Task(config.name, *files, take_over=take_over)
    say(screen, f"run folder: {at}")
    handle = workers.submit(task)
    shown, tries = task.log.stat().st_size if task.log.is_file() else 0, 1
    try:
        while True:
            try:
                code = workers.poll(handle)
            except LostError as error:
                say(screen, f"lost: {error}")
                if tries == TRIES:
                    raise WorkError(f"{at}: lost {TRIES} times: {error}") from error
                tries += 1
                handle = workers.submit(replace(task, take_over=True))
                continue
            if task.log.is_file():
                with task.log.open("rb") as log:
                    log.seek(shown)
                    text = log.read()
                shown += len(text)
                if text:
                    say(screen, text.decode(errors="replace").rstrip("\n"))
            if code is not None:
                if as_json:
                    print_json({"folder": str(at), "exit": code})
                return code if code >= 0 else WorkError.exit_code
            time.sleep(POLL)
    except KeyboardInterrupt:
        end = time.monotonic() + PATIENCE
        workers.cancel(handle)
        try:
            while workers.poll(handle) is None and time.monotonic() < end:
                time.sleep(POLL)
        except LostError:
            pass
        again = kits.command(registry.kits, "run", "--resume", at, *choice.flags)
        say(screen, f"interrupted; to go on: {again}")
        return stopping.exit_code()
