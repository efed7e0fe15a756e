"""How every figure looks: colours, lines, legend, caption, and the files it becomes.
Colours are Okabe and Ito's (2008), which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASE = "#000000"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
MARKERS = ("s", "^", "D", "v", "P", "X")
LABELS = {
    "train/reward": "training reward",
    "train/loss": "loss",
    "train/response_length": "response length (tokens)",
    "train/entropy": "entropy (nats per token)",
    "train/grad_norm": "gradient norm",
}
FORMATS: dict[str, dict[str, Any]] = {
    "png": {"dpi": 200},
    "svg": {"metadata": {"Date": None}},
}
STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "axes.edgecolor": "#555555",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "text.parse_math": False,  # a name is no formula
    "svg.hashsalt": "alignkit",  # the same comparison gives the same file
}


def label(metric: str) -> str:
    """What an axis says of a metric, with its unit."""
    if metric in LABELS:
        return LABELS[metric]
    words = metric.split("/")
    name = words[-1].replace("_", " ")
    if words[0] == "eval" and len(words) == 3:
        return f"{words[1]}: {name}"
    return name


def legend(figure: Figure, order: Sequence[str], drawn: set[str]) -> int:
    """One legend above all panels; returns its number of lines."""
    from matplotlib.lines import Line2D

    names = [name for name in order if name in drawn]
    lines = [Line2D([], [], markersize=4, **look(order.index(name))) for name in names]
    texts = [name + (" (base)" if name == order[0] else "") for name in names]
    room = int(figure.get_figwidth() / (0.7 + 0.085 * max(map(len, texts))))
    columns = max(1, min(len(texts), room))
    figure.legend(lines, texts, loc="outside upper left", ncols=columns, frameon=False)
    return -(-len(texts) // columns)


def caption(figure: Figure, text: str, warning: str) -> None:
    figure.supxlabel(text, fontsize=8, color="#555555", x=0.01, ha="left")
    if warning:
        figure.suptitle(
            warning, color="#B00020", fontsize=10, fontweight="bold", x=0.01, ha="left"
        )


def look(place: int) -> dict[str, Any]:
    """Colour, line and marker of the variant in this place; the base, in place 0, is
    black and broad.
    """
    if place == 0:
        return {"color": BASE, "linestyle": "-", "marker": "o", "linewidth": 2.4}
    lap, turn = divmod(place - 1, len(COLOURS))
    line, marker = LINES[lap % len(LINES)], MARKERS[(turn + lap) % len(MARKERS)]
    return {
        "color": COLOURS[turn],
        "linestyle": line,
        "marker": marker,
        "linewidth": 1.6,
    }


@contextmanager
def style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def save(
    figure: Figure, stem: Path, kinds: Sequence[str] = ("png", "svg")
) -> list[Path]:
    from io import BytesIO

    from alignkit.run import atomic_write

    files = []
    for kind in kinds:
        buffer = BytesIO()
        figure.savefig(buffer, format=kind, **FORMATS[kind])
        path = stem.with_name(f"{stem.name}.{kind}")
        atomic_write(path, buffer.getvalue())
        files.append(path)
    return files
