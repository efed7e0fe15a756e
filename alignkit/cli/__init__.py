"""The command line: parse and print only. Each command's module is imported when it is
called.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from alignkit import __version__
from alignkit.terminal import echo, trace

# name: (module, function, one line of help); a table, because importing the commands for --help is slow.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "run": (
        "alignkit.cli.run",
        "run",
        "Run a recipe: evaluate, train, evaluate, save.",
    ),
    "plan": (
        "alignkit.cli.plan",
        "plan",
        "Show what a recipe would do, and what is missing, without doing it.",
    ),
    "eval": (
        "alignkit.cli.eval",
        "evaluate",
        "Evaluate models, endpoints or stored responses on benchmarks.",
    ),
    "grade": (
        "alignkit.cli.grade",
        "grade",
        "Grade a file of stored outputs with rewards.",
    ),
    "sweep": ("alignkit.cli.sweep", "sweep", "Run variants of a recipe over seeds."),
    "compare": (
        "alignkit.cli.compare",
        "compare",
        "Compare runs with statistics and figures.",
    ),
    "diff": (
        "alignkit.cli.diff",
        "diff",
        "Show what differs between two recipes or runs.",
    ),
    "show": (
        "alignkit.cli.show_run",
        "show",
        "Look inside a run: groups, responses, questions, evals.",
    ),
    "view": (
        "alignkit.cli.view",
        "view",
        "Show runs as a page on this machine, or as one file to send.",
    ),
    "check": (
        "alignkit.cli.check",
        "check",
        "Look for what goes wrong silently in a run or a sweep.",
    ),
    "replay": (
        "alignkit.cli.replay",
        "replay",
        "Compute a step of a run again, and compare it with what was logged.",
    ),
    "data": (
        "alignkit.cli.data",
        "data",
        "Split, distill, filter, measure and show data.",
    ),
    "plugins": (
        "alignkit.cli.plugins",
        "plugins",
        "List, show, make and check plugins.",
    ),
    "schema": (
        "alignkit.cli.diff",
        "schema",
        "Print the JSON Schema of recipes, for editors.",
    ),
    "doctor": ("alignkit.cli.doctor", "doctor", "Say what this machine has and lacks."),
}
_HIDDEN = {"_sample": ("alignkit.cli.sample", "sample")}


class _LazyGroup(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS and name not in _HIDDEN:
            return None
        module, function = _HIDDEN.get(name) or _COMMANDS[name][:2]
        return getattr(importlib.import_module(module), function)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if (
            args
            and args[0] not in {**_COMMANDS, **_HIDDEN}
            and not args[0].startswith("-")
        ):
            from alignkit.errors import nearest

            context.fail(
                f"there is no command '{args[0]}'; {nearest(args[0], _COMMANDS)}"
            )
        return super().resolve_command(context, args)

    def format_commands(
        self, context: click.Context, formatter: click.HelpFormatter
    ) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, text) for name, (_, _, text) in _COMMANDS.items()]
            )


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="align")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Align language models by recipes, on TRL. Start with: align run
    recipes/quickstart.yaml
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave with its exit code: 0, 1 failed, 2 wrong input, 3
    missing, 130 interrupted, 143 by SIGTERM.
    """
    # Before torch is imported: with the default spin-wait its threads slow each other
    # down on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    given = sys.argv[1:] if arguments is None else arguments
    from alignkit.errors import AlignError, MissingError, no_memory
    from alignkit.run import stopping
    from alignkit.run.files import full, is_full

    sys.excepthook = trace
    stopping.install()
    try:
        code = cli.main(args=given, prog_name="align", standalone_mode=False)
    except click.ClickException as error:
        told = io.StringIO()
        error.show(told)
        echo(told.getvalue(), err=True, nl=False)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        echo("\ninterrupted", err=True)
        sys.exit(stopping.exit_code())
    except AlignError as error:
        if "--debug" in given:
            raise
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        said = no_memory(error)
        if isinstance(error, OSError) and is_full(error):
            said = full(Path(error.filename or "."))
        if "--debug" in given or not said:
            raise
        echo(f"error: {said}", err=True)
        sys.exit(MissingError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)
