"""Tables, JSON and progress. Results go to standard output, progress to standard error."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Progress", "number", "print_json", "size", "table"]


def print_json(value: object) -> None:
    """One object, and nothing else."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None))


def size(number: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"


def number(value: float) -> str:
    """A count for people."""
    return f"{value:,.0f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Prints a table: by rich on a terminal, where that is installed. Columns in `right` are aligned so."""
    if sys.stdout.isatty() and _rich(head, rows, right):
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _rich(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int]) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(head):
        drawn.add_column(title, justify="right" if at in right else "left", overflow="fold")
    for row in rows:
        # As text: brackets in it are no markup.
        drawn.add_row(*map(Text, row))
    Console().print(drawn)
    return True


class Progress:
    """A bar on standard error: on a terminal, or where it is asked for."""

    def __init__(self, what: str, total: int | None, *, shown: bool = False) -> None:
        self._what, self._total = what, total
        self._terminal = sys.stderr.isatty()
        self._shown = shown or self._terminal
        self._done = 0
        self._start = time.monotonic()
        self._drawn = 0.0

    def add(self, amount: int) -> None:
        """So many more bytes are done."""
        self._done += amount
        now = time.monotonic()
        # A terminal is drawn on often, a log is not filled.
        if self._shown and now - self._drawn >= (0.1 if self._terminal else 1.0):
            self._drawn = now
            self._draw("\r" if self._terminal else "\n")

    def _draw(self, end: str) -> None:
        speed = self._done / max(time.monotonic() - self._start, 1e-9)
        text = f"{self._what}  {size(self._done)}"
        if self._total:
            part = min(self._done / self._total, 1)
            text = f"{self._what}  [{'#' * int(part * 30):<30}] {part:4.0%}  {size(self._done)} of {size(self._total)}"
        print(f"{text}  {size(speed)}/s   ", end=end, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._shown:
            self._draw("\n")
