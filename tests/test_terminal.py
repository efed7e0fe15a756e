"""Text from outside is text: on the terminal, in JSON, in tables and pages."""

import ast
import html
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from unicodedata import category

import pytest
from rich.table import Table
from rich.text import Text

import alignkit
from alignkit import kits, terminal
from alignkit.cli import main
from alignkit.errors import printable
from alignkit.report import cells, markdown

HOSTILE = [
    "[bold]x[/bold] [/nope] [link=https://x]y[/link]",
    "\x1b]0;owned\x07\x1b[2J",
    "\x9b31m\x90q\x9c\x7f",
    "\u202egpj.exe\u2066\u200f\u061c",
    "half \ud800 a pair",
    "a\rb\bc\x0bd\x0ce",
    ":smile: \U000e0041",
]
ROOT = Path(alignkit.__file__).parent
SOURCES = [
    *ROOT.rglob("*.py"),
    *(f for n in kits.PLUGIN_FOLDERS for f in (kits.builtin().root / n).glob("*.py")),
]


def obeyed(text):
    """Characters that a terminal would obey or that cannot be sent."""
    return {c for c in text if category(c) in ("Cc", "Cf", "Cs")} - set("\n\t")


def other_ways_to_print(tree):
    """Where a file prints past the terminal room, by line."""
    typing = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            way = name in ("print", "pprint", "pprint.pprint", "input") or re.search(
                r"^click\.(echo|secho|progressbar|prompt|confirm|style)\b"
                r"|\bstd(out|err)(\.buffer)?\.write(lines)?$"
                r"|\bfrom_(markup|ansi)$",
                name,
            )
            if way:
                yield f"{node.lineno}: {name}"
        elif isinstance(node, ast.ImportFrom) and node not in typing:
            names = {alias.name for alias in node.names}
            if node.module in ("rich", "rich.console", "rich.markup") and names & {
                "print",
                "Console",
                "escape",
                "render",
                "inspect",
            }:
                yield f"{node.lineno}: from {node.module} import {sorted(names)}"


def test_nothing_prints_but_through_the_room_of_the_terminal():
    ways = {
        str(path): list(other_ways_to_print(ast.parse(path.read_text())))
        for path in SOURCES
        if path.parent != ROOT / "terminal"
    }
    assert len(ways) > 200
    assert {path: found for path, found in ways.items() if found} == {}


@pytest.mark.parametrize(
    "line",
    [
        "print(x)",
        "import click; click.echo(x)",
        "import sys; sys.stdout.write(x)",
        "from rich.console import Console; Console().print(x)",
        "from rich import print",
        "Text.from_markup(x)",
    ],
)
def test_other_ways_to_print_are_found(line):
    assert list(other_ways_to_print(ast.parse(line)))


@pytest.fixture(params=["pipe", "terminal"])
def screen(request, monkeypatch):
    if request.param == "terminal":
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
    screen = terminal.screen()
    screen.file = io.StringIO()
    screen.width = 200
    assert screen.is_terminal == (request.param == "terminal")
    return screen


def shown(screen):
    """Without rich's own colours."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.file.getvalue())


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_is_printed_is_shown_as_it_stands(text, screen):
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text, style="red"))
    ways = [
        lambda: screen.print(text),
        lambda: screen.print(Text(text)),
        lambda: screen.print(table),
        lambda: screen.rule(text),
        lambda: terminal.say(screen, text, "bold"),
        lambda: terminal.mark(screen, "wrong", "red", text),
    ]
    for way in ways:
        way()
    out = shown(screen)
    assert obeyed(out) <= {"\r"} if screen.is_terminal else not obeyed(out)
    first = printable(text).split()[0]
    assert out.count(first) >= len(ways)


@pytest.mark.parametrize("text", HOSTILE)
def test_progress_shows_names_as_they_stand(text, screen):
    with terminal.Progress(screen, text) as report:
        report(text, 1, 2, text)
        report(text, 2, 2, text)
    assert obeyed(shown(screen)) <= {"\r"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_spinner_shows_its_text_as_it_stands_and_only_on_a_terminal(text, screen):
    with terminal.waiting(screen, text):
        pass
    assert obeyed(shown(screen)) <= {"\r"}
    assert bool(shown(screen)) is screen.is_terminal


@pytest.mark.parametrize("text", [*HOSTILE, "é 漢 \U0001f600", 'q"\\\n\t'])
def test_json_keeps_every_character_and_shows_none_that_is_obeyed(text, capsys):
    terminal.print_json({text: [text]})
    out = capsys.readouterr().out
    assert not obeyed(out)
    assert json.loads(out) == {text: [text]}


def test_errors_usage_and_tracebacks_are_shown_as_text(capsys):
    hostile = "x\x1b]0;owned\x07\u202e[/b]"
    for arguments in (["plan", hostile], ["plan", f"--{hostile}"], [hostile]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        told = capsys.readouterr()
        assert left.value.code == 2 and "[/b]" in told.err
        assert not obeyed(told.out + told.err)
    try:
        raise ValueError(hostile)
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    told = capsys.readouterr().err
    assert "ValueError: x" in told and not obeyed(told)


def test_a_full_disk_behind_standard_output_is_one_line(tmp_path):
    for command in (["schema"], ["plugins", "list"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "from alignkit.cli import main; main()",
                    *command,
                ],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                cwd=tmp_path,
            )
        assert done.returncode == 3
        assert re.fullmatch(r"error: the result cannot be written.*\n", done.stderr)


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("+cmd|x", "'+cmd|x"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        (" =1", "' =1"),
        ("\t=1", "'\t=1"),
        ("\r=1", "\ufffd=1"),
        ("-1.5e-3", "-1.5e-3"),
        ("+2", "+2"),
        (-1.5, -1.5),
        (None, None),
        ("1e-5", "1e-5"),
        ("a=b", "a=b"),
    ],
)
def test_no_cell_of_a_csv_is_computed_and_numbers_stay_numbers(cell, written):
    assert cells.csv_cell(cell) == written


@pytest.mark.parametrize(
    "text",
    [
        "a|b",
        "<script>x",
        "[x](http://y)",
        "![x](y)",
        "[a][b]",
        "# h\n# i",
        "`c`",
        "\\|",
    ],
)
def test_a_page_shows_names_as_they_stand(text):
    markdown_it = pytest.importorskip("markdown_it")
    page = markdown_it.MarkdownIt("gfm-like", {"linkify": False})
    [head, rule, line] = markdown.table(["x"], [[text]])
    rendered = page.render("\n".join([head, rule, line]))
    told = re.search(r"<td>(.*?)</td>", rendered).group(1)

    assert html.unescape(told) == " ".join(text.split())
