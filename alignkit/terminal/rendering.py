"""The one console of rich: text from outside stays text, whoever prints it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from alignkit.errors import printable
from alignkit.terminal import printing


class Screen(Console):
    """Neither rich's markup nor codes of emoji are read, and no character reaches the
    terminal that it would obey, from a string or from inside a table.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Also onto a full disk."""
        with printing():
            super().print(*objects, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Before widths are counted."""
        return super().render_str(printable(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Also what no string was: control segments are rich's own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
