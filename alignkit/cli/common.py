"""What several commands share: options, loading a recipe with its plugins, printing."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignkit import terminal

if TYPE_CHECKING:
    from rich.console import Console

    from alignkit.grading.bound import BoundReward
    from alignkit.plugins import Registry
    from alignkit.recipe import Recipe

print_json = terminal.print_json
kit_option = click.option(
    "--kit",
    "kit",
    multiple=True,
    metavar="DIR",
    help="A kit to load plugins from (repeatable).",
)


def _allow(context: click.Context, option: click.Parameter, given: Any) -> None:
    if given:
        from alignkit.endpoint import permits

        pairs = [p for text in given for p in permits.parsed(text, "--allow-host")]
        context.with_resource(permits.allowing(pairs))


def allow(pairs: Sequence[tuple[str, str | None]]) -> None:
    """What the user has typed may be asked, until the command ends."""
    from alignkit.endpoint import permits

    click.get_current_context().with_resource(permits.allowing(pairs))


def allow_typed(base_url: str | None, variable: str | None) -> None:
    """As `allow`, for a URL and the variable of a key."""
    from alignkit.endpoint import permits

    if base_url:
        allow([(permits.place(permits.checked_url(base_url)[0]), variable)])


def typed_rewards(registry: Registry, specs: Sequence[str]) -> dict[str, BoundReward]:
    """Rewards of the command line, by their text; the judges that these name may be
    asked.
    """
    from alignkit.grading.bound import bind_specs
    from alignkit.plan.hosts import asked_by
    from alignkit.recipe import options

    bound = bind_specs(registry, specs)
    for spec in specs:
        name, stated = options.named(spec, "--reward")
        judge = asked_by(registry.get("reward", name), stated)
        if judge is not None and judge.create is None:
            allow_typed(judge.base_url, judge.key)
    return bound


allow_option = click.option(
    "--allow-host",
    multiple=True,
    expose_value=False,
    callback=_allow,
    metavar="HOST[=VARIABLE]",
    help="Ask this server too, with the key of that variable (repeatable).",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON."
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """RECIPE, --with, --set, --kit and --allow-host."""
    for option in (
        allow_option,
        kit_option,
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="KEY=VALUE",
            help="Change one key (repeatable).",
        ),
        click.option(
            "--with",
            "overlays",
            multiple=True,
            metavar="FILE",
            help="Merge an overlay (repeatable).",
        ),
        click.argument("recipe", metavar="RECIPE"),
    ):
        command = option(command)
    return command


def load_registry(recipes: Sequence[Path] = (), kit: Sequence[str] = ()) -> Registry:
    """The plugins of all kits in force; also settles whether the Hub is used, before
    anything asks it.

    `recipes` are files that `locate` found.
    """
    from alignkit import kits, plugins
    from alignkit.machine import hub
    from alignkit.recipe.plugin_check import refuse_taken

    hub.settle()
    registry = plugins.load(kits.find(recipes, kit))
    refuse_taken(registry)
    return registry


def load_recipe(
    recipe: str,
    overlays: Sequence[str] = (),
    sets: Sequence[str] = (),
    kit: Sequence[str] = (),
    *,
    told: bool = True,
) -> tuple[Recipe, Registry]:
    """The recipe, resolved and checked, with the registry of its plugins; the first line
    of output says which file it is.
    """
    from alignkit import recipe as recipes
    from alignkit.errors import InputError
    from alignkit.sweep.spec import is_sweep_file

    file = locate(recipe)
    if told:
        tell_file(file)
    if is_sweep_file(file):
        raise InputError(
            f"{recipe} is a sweep, not a recipe; to see its variants: align sweep"
            f" {recipe} --dry-run"
        )
    registry = load_registry([file], kit)
    files = [locate(overlay) for overlay in overlays]
    with kits_asked_for(file, registry):
        loaded = recipes.load(file, files, sets, registry)
    if sets:
        from alignkit.plan import hosts

        allow(hosts.typed(loaded, registry))
    return loaded, registry


@contextmanager
def kits_asked_for(file: Path, registry: Registry) -> Iterator[None]:
    """Where a recipe of a run or sweep cannot be used: say which kits that was started
    with and this command has not. They are not mounted for it: its folder may be a
    stranger's.

    Raises:
        InputError: with that line behind its own.
    """
    from alignkit import kits
    from alignkit.errors import InputError

    try:
        yield
    except InputError as error:
        made = kits.made_folder(file.resolve())
        here = {str(kit.root) for kit in registry.kits}
        lacking = sorted({*kits.recorded(made)} - here) if made else []
        if not lacking:
            raise
        flags = shlex.join(part for root in lacking for part in ("--kit", root))
        raise type(error)(
            *error.problems,
            f"{made} was started with code that a run does not bring along; if you"
            f" trust it, add {flags}",
        ) from error


def locate(name: str) -> Path:
    """The recipe, overlay or sweep file that is read for a name as typed: the one here,
    else alignkit's own.

    Raises:
        RecipeError: there is neither.
    """
    from alignkit.recipe import paths

    return paths.locate(name, Path.cwd(), paths.recipe_dirs())


def tell_file(file: Path) -> None:
    """Say which file is used: what is not here is the one that comes with alignkit."""
    from alignkit.recipe.paths import shown
    from alignkit.terminal import say

    say(console(as_json=True), f"recipe: {shown(str(file))}")


def hold(out: Path) -> None:
    """Be the only process that writes this file, until the command ends.

    Raises:
        InputError: another process is at work on it.
    """
    from alignkit.run import lock

    click.get_current_context().with_resource(lock(out))


def console(as_json: bool = False) -> Console:
    """Rich output; on standard error where standard output carries JSON."""
    return terminal.screen(stderr=as_json)


def counts(by_name: Mapping[str, int]) -> str:
    """`3 ok, 1 wrong`."""
    return ", ".join(f"{count} {name}" for name, count in by_name.items())


def progress(title: str) -> terminal.Progress:
    """How far a command is, on standard error beside its result."""
    return terminal.Progress(console(as_json=True), title)
