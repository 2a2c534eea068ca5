"""Tables as wide as the terminal: in columns where their words have room, else in blocks."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

ID = "id"
"""The title of a column of ids: an id in pieces cannot be copied."""

# Chinese is broken anywhere, but a person's name should not be; other words only if they are longer
# than any code of ours.
_WIDE_KEPT, _WORD_KEPT = 8, 24
# What a table needs besides its columns: a line on the left, and three cells for each column.
_FRAME, _BESIDE = 1, 3

Cells = Sequence[Sequence[str]]


def laid_out(title: str, columns: Sequence[str], rows: Cells, width: int) -> RenderableType:
    """Return rows as a table of at most ``width``; where its words would be cut, as blocks.

    What stands in the cells is never taken for markup.
    """
    whole = [_widest(each, rows, number) for number, each in enumerate(columns)]
    least = [_least(each, rows, number) for number, each in enumerate(columns)]
    room = width - _FRAME - _BESIDE * len(columns)
    if sum(whole) <= room:
        return _table(title, columns, rows, [None] * len(columns))
    if sum(least) <= room:
        return _table(title, columns, rows, _shared(least, whole, room))
    return _blocks(title, columns, rows)


def _widest(column: str, rows: Cells, number: int) -> int:
    lines = (line for row in rows for line in row[number].split("\n"))
    return max(cell_len(column), *(cell_len(line) for line in lines))


def _least(column: str, rows: Cells, number: int) -> int:
    """Return how wide a column must be for none of its words to be cut."""
    cells = [column, *(row[number] for row in rows)]
    words = [word for cell in cells for word in cell.split()]
    if column == ID:
        return max(map(cell_len, words))
    return max(map(_kept, words), default=1)


def _kept(word: str) -> int:
    width = cell_len(word)
    return min(width, _WORD_KEPT if width == len(word) else _WIDE_KEPT)


def _shared(least: Sequence[int], whole: Sequence[int], room: int) -> list[int | None]:
    """Return the widths of columns that share the room, each as wide as it must and no wider."""
    widths = list(least)
    while sum(widths) < room:
        # The narrowest that lacks something: what is short is soon whole, what is long shares.
        lacking = (each for each, width in enumerate(widths) if width < whole[each])
        widths[min(lacking, key=lambda each: widths[each])] += 1
    return list(widths)


def _table(
    title: str, columns: Sequence[str], rows: Cells, widths: Sequence[int | None]
) -> RenderableType:
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, overflow="fold", no_wrap=column == ID, width=width)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _blocks(title: str, columns: Sequence[str], rows: Cells) -> RenderableType:
    """Return a block of lines for each row, a line for each cell in which something stands."""
    wide = max(map(cell_len, columns))
    lines = [Text(title, style="italic")] if title else []
    for row in rows:
        lines.append(Text())
        for column, cell in zip(columns, row, strict=True):
            if cell:
                told = cell.replace("\n", "; ")
                lines.append(Text(f"{column}{' ' * (wide - cell_len(column))}  {told}"))
    return Group(*lines)
