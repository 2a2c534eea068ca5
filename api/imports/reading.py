"""Rows of CSV files and Excel workbooks, one after the other, in bounded memory."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rapidfuzz import fuzz, process

from api.imports.cells import Cell, Record, cell_text
from api.imports.encodings import settle_encoding
from api.imports.errors import (
    ColumnMissingError,
    FileEmptyError,
    FileUnreadableError,
    HeaderDuplicateError,
    HeaderMissingError,
    LineTooLongError,
    NotAWorkbookError,
    QuoteOpenError,
)
from api.imports.rejects import RejectReason

DELIMITERS = (",", ";", "\t")

# What csv itself allows in a field is 131,072 characters; a line may hold many fields.
LINE_CHARACTERS_MAX = 4 << 20
_SAMPLE_CHARACTERS = 1 << 16

_ZIP_MAGIC = b"PK\x03\x04"
_OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


@dataclass(frozen=True, slots=True)
class Row:
    """A row: ``number`` as a spreadsheet counts it (the first row of the file is 1).

    Blank lines count, and a quoted field with line breaks in it does not make more rows.
    ``cells`` holds every column with a name of its own, by the name as ``header_name`` gives it.
    """

    number: int
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that could not be told apart into cells, and why."""

    number: int
    reason: RejectReason
    shown: str


@dataclass(frozen=True, slots=True)
class TableFormat:
    """What the mapping states of a file; what is None is told from the file itself.

    ``header_row`` is the row of the header, counted from 1.
    """

    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    header_row: int = 1


def header_name(text: str) -> str:
    """Return a column's name as it is compared: NFKC, trimmed, each run of spaces one space."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("\ufeff", "").split())


def read_rows(
    path: Path, table_format: TableFormat, columns: Collection[str]
) -> Iterator[Row | BrokenRow]:
    """Yield the rows below the header of the file at ``path``, in order; blank rows are left out.

    Whether it is a workbook is told from its bytes, not its name. ``columns`` are the names that
    the caller will use: each must stand in the header exactly once. Memory does not grow with
    the number of rows.

    Raises a FileRefusedError: FileUnreadableError, FileEmptyError, EncodingUnclearError,
    BytesInvalidError, HeaderMissingError, HeaderDuplicateError, ColumnMissingError,
    QuoteOpenError, LineTooLongError, NotAWorkbookError or SheetMissingError.
    """
    try:
        yield from _rows(path, table_format, columns)
    except OSError as error:
        raise FileUnreadableError(
            path.name,
            f"It cannot be read ({error.strerror}).",
            way_out="Check the file's name in the mapping, the folder, and who may read it.",
        ) from error


def _rows(
    path: Path, table_format: TableFormat, columns: Collection[str]
) -> Iterator[Row | BrokenRow]:
    with path.open("rb") as file:
        magic = file.read(8)
    if not magic:
        raise _empty(path)
    if magic.startswith((_ZIP_MAGIC, _OLE_MAGIC)) or path.suffix.lower() in (".xlsx", ".xlsm"):
        # Imported here, because openpyxl takes long to load and few imports need it.
        from api.imports.workbook import read_workbook

        sheet = read_workbook(path, table_format.sheet)
        yield from _named_rows(path, sheet, table_format, columns, ragged=True)
    elif table_format.sheet is not None:
        raise NotAWorkbookError(
            path.name,
            f"The mapping names its sheet {table_format.sheet!r}, but it is no Excel workbook.",
            way_out="Leave sheet out, or name the workbook.",
        )
    else:
        records = _csv_records(path, table_format, columns)
        yield from _named_rows(path, records, table_format, columns, ragged=False)


def _empty(path: Path) -> FileEmptyError:
    return FileEmptyError(path.name, "It is empty.", way_out="Export the file again.")


def _named_rows(
    path: Path,
    records: Iterable[Record | BrokenRow],
    table_format: TableFormat,
    columns: Collection[str],
    *,
    ragged: bool,
) -> Iterator[Row | BrokenRow]:
    header: _Header | None = None
    seen = False
    for record in records:
        seen = True
        number = record.number if isinstance(record, BrokenRow) else record[0]
        if number < table_format.header_row:
            continue
        if header is None:
            if number > table_format.header_row or isinstance(record, BrokenRow):
                raise _header_missing(path, table_format)
            if not any(header_name(cell_text(cell)) for cell in record[1]):
                raise _header_missing(path, table_format)
            header = _Header(path, record[1], columns, ragged=ragged)
        elif isinstance(record, BrokenRow):
            yield record
        elif any(cell != "" for cell in record[1]):
            yield header.row(*record)
    if not seen:
        raise _empty(path)
    if header is None:
        raise _header_missing(path, table_format)


def _header_missing(path: Path, table_format: TableFormat) -> HeaderMissingError:
    return HeaderMissingError(
        path.name,
        f"Row {table_format.header_row} holds no header.",
        way_out="Name the row of the header by header_row (the first row is 1).",
    )


class _Header:
    """The names of the columns, and where they stand.

    Where rows are ``ragged``, as in a workbook, cells that are not there are empty, and cells
    beyond the header are notes beside the table. In a CSV file either says that a row is broken.
    """

    def __init__(
        self, path: Path, cells: Sequence[Cell], columns: Collection[str], *, ragged: bool
    ) -> None:
        self._ragged = ragged
        names = [header_name(cell_text(cell)) for cell in cells]
        while names and not names[-1]:
            names.pop()
        self._width = len(names)
        places: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            places.setdefault(name, []).append(place)
        _check_columns(path, places, columns)
        # Names that stand twice are of no use to anybody, and nobody asked for them.
        self._places = {name: at[0] for name, at in places.items() if name and len(at) == 1}
        self._all_named = len(self._places) == self._width

    def row(self, number: int, cells: Sequence[Cell]) -> Row | BrokenRow:
        surplus = len(cells) - self._width
        if surplus < 0 and self._ragged:
            cells = [*cells, *[""] * -surplus]
        elif surplus < 0:
            return BrokenRow(number, RejectReason.TOO_FEW_FIELDS, _shown(cells))
        elif surplus > 0 and not self._ragged and any(cell != "" for cell in cells[self._width :]):
            return BrokenRow(number, RejectReason.TOO_MANY_FIELDS, _shown(cells))
        if self._all_named:
            return Row(number, dict(zip(self._places, cells, strict=False)))
        return Row(number, {name: cells[place] for name, place in self._places.items()})


def _shown(cells: Iterable[Cell]) -> str:
    return " | ".join(cell_text(cell) for cell in cells)


def _check_columns(path: Path, places: Mapping[str, list[int]], columns: Collection[str]) -> None:
    missing = [column for column in columns if header_name(column) not in places]
    if missing:
        known = [name for name in places if name]
        raise ColumnMissingError(path.name, missing, _missing_sentence(missing, known))
    for column in columns:
        found = places[header_name(column)]
        if len(found) > 1:
            raise HeaderDuplicateError(path.name, column, [place + 1 for place in found])


def _missing_sentence(missing: Iterable[str], known: list[str]) -> str:
    parts = []
    for column in missing:
        near = process.extractOne(column, known, scorer=fuzz.ratio, score_cutoff=60)
        parts.append(repr(column) + (f" (did you mean {near[0]!r}?)" if near else ""))
    listed = ", ".join(repr(name) for name in known[:40])
    return f"The header lacks {', '.join(parts)}; it holds {listed or 'no names at all'}."


def _csv_records(
    path: Path, table_format: TableFormat, columns: Collection[str]
) -> Iterator[Record | BrokenRow]:
    encoding = settle_encoding(path, table_format.encoding)
    with path.open("r", encoding=encoding, newline="") as file:
        start = 1 if file.read(1) == "\ufeff" else 0
        file.seek(0)
        file.read(start)
        sample = file.read(_SAMPLE_CHARACTERS)
        if not sample.strip("\r\n\t \x00"):
            raise _empty(path)
        file.seek(0)
        file.read(start)
        stated = _stated_delimiter(sample)
        if stated is not None:
            # A line such as "sep=;" is a note to Excel; it is a row to whoever counts rows.
            file.readline(LINE_CHARACTERS_MAX)
            sample = sample.split("\n", 1)[-1] if "\n" in sample else ""
            yield 1, []
        skipped = 0 if stated is None else 1
        delimiter = table_format.delimiter or stated
        if delimiter is None:
            delimiter = _sniffed_delimiter(sample, table_format.header_row, columns)
        yield from _records(path, file, delimiter, skipped)


def _stated_delimiter(sample: str) -> str | None:
    first = sample.split("\n", 1)[0].rstrip("\r")
    return first[4] if len(first) == 5 and first.lower().startswith("sep=") else None


def _sniffed_delimiter(sample: str, header_row: int, columns: Collection[str]) -> str:
    """Return the delimiter under which the header holds most of the columns that are asked for."""
    wanted = {header_name(column) for column in columns}

    def merit(delimiter: str) -> tuple[int, int]:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        try:
            fields = next(
                (fields for number, fields in enumerate(reader, 1) if number >= header_row), []
            )
        except csv.Error:
            return 0, 0
        names = {header_name(field) for field in fields}
        return len(names & wanted), len(fields)

    return max(DELIMITERS, key=merit)


def _records(
    path: Path, file: TextIO, delimiter: str, skipped: int
) -> Iterator[Record | BrokenRow]:
    """Yield records; strictly, so that a stray quote is seen and swallows no rows unnoticed."""
    reader = csv.reader(_lines(path, file, skipped), delimiter=delimiter, strict=True)
    number = skipped
    while True:
        number += 1
        before = reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num - before != 1 or "end of data" in str(error):
                line = before + 1 + skipped
                raise QuoteOpenError(path.name, line=line, detail=str(error)) from error
            # Within one line csv finds its way again at the next one.
            too_long = "field limit" in str(error)
            reason = RejectReason.FIELD_TOO_LONG if too_long else RejectReason.QUOTING_BROKEN
            yield BrokenRow(number, reason, str(error))
        else:
            yield number, fields


def _lines(path: Path, file: TextIO, skipped: int) -> Iterator[str]:
    number = skipped
    while line := file.readline(LINE_CHARACTERS_MAX):
        number += 1
        if len(line) == LINE_CHARACTERS_MAX and line[-1] not in "\r\n":
            raise LineTooLongError(path.name, line=number, characters_max=LINE_CHARACTERS_MAX)
        yield line
