"""`align view`: the page of runs, on this machine or as one file."""

from __future__ import annotations

from pathlib import Path

import click

from alignkit.cli.common import console
from alignkit.errors import InputError
from alignkit.terminal import say


@click.command()
@click.argument(
    "folder", metavar="[FOLDER]", default="runs", type=click.Path(path_type=Path)
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: a free one.")
@click.option("--open", "opens", is_flag=True, help="Open it in the browser.")
@click.option(
    "--export",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one run as one HTML file to send, and serve nothing.",
)
def view(folder: Path, port: int, opens: bool, file: Path | None) -> None:
    """Show the runs of FOLDER (or one run) as a page on this machine: what happened,
    checks, curves, every group of every step, every response, evals side by side.
    """
    from alignkit import view as page

    out = console()
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; runs are made by `align run`")
    if file is not None:
        steps = page.export(folder, file)
        size = file.stat().st_size / 1e6
        say(out, f"{file}: {size:.1f} MB, the responses of {steps} steps")
        return
    server = page.serve(page.Library(folder), port)
    url = f"http://127.0.0.1:{server.server_port}/"
    say(out, f"{url} (Ctrl-C ends it)")
    if opens:
        click.launch(url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
