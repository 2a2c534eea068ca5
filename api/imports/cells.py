"""Cells of files: what one may hold, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import TypeAlias

from api.imports.rejects import RejectReason


@dataclass(frozen=True, slots=True)
class CellFault:
    """A cell of a workbook without a usable value: an error such as #N/A, or no cached value."""

    reason: RejectReason
    shown: str


# Excel knows whether a cell is a number or a date, and a CSV file does not. "" is an empty cell.
Cell: TypeAlias = str | int | Decimal | bool | date | datetime | time | CellFault

# A record is a row's number and its cells by their place; one without cells is a blank row.
Record: TypeAlias = tuple[int, Sequence[Cell]]


def cell_text(cell: Cell) -> str:
    """Return what a cell says, as a CSV file would; a midnight is a date, a fault what is shown."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, Decimal):
        return format(cell, "f")
    if isinstance(cell, datetime):
        return cell.date().isoformat() if cell.time() == time() else cell.isoformat(" ")
    if isinstance(cell, date | time):
        return cell.isoformat()
    return cell.shown if isinstance(cell, CellFault) else str(cell)
