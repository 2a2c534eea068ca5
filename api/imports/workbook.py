"""Rows of an Excel workbook in bounded memory.

openpyxl reads the package: sheets, styles, the date system. Its own row readers are not used:
they keep an element for every row and all shared strings in memory, pass numbers through float,
and give no merged ranges, nor tell a formula without a cached value from an empty cell.
"""

from __future__ import annotations

import re
import tempfile
import warnings
import zipfile
import zlib
from array import array
from bisect import insort
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date, datetime, time
from decimal import Context, Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from openpyxl.reader.excel import ExcelReader
from openpyxl.utils.cell import coordinate_to_tuple, range_boundaries
from openpyxl.utils.datetime import WINDOWS_EPOCH, from_excel, from_ISO8601
from openpyxl.utils.escape import unescape
from openpyxl.worksheet._read_only import ReadOnlyWorksheet
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS
from openpyxl.xml.functions import iterparse

from api.imports.cells import Cell, CellFault, Record
from api.imports.errors import NotAWorkbookError, SheetMissingError
from api.imports.rejects import RejectReason

# openpyxl's types are too wide: a duration comes only where one is asked for.
_from_serial: Any = from_excel
_from_iso: Any = from_ISO8601

# Merged ranges are kept while the sheet is read.
MERGED_RANGES_MAX = 200_000

_STRINGS_IN_MEMORY_BYTES = 8 << 20
_STRINGS_CACHED = 10_000
_CHUNK_BYTES = 1 << 20

# Excel itself keeps 15 significant digits; the files hold 17, the last ones a float's tail.
_EXCEL_PRECISION = Context(prec=15)

_LAST_ROW = 1_048_576
_LAST_COLUMN = 16_384

_TAG = "{" + SHEET_MAIN_NS + "}"
_ROW, _CELL, _VALUE = _TAG + "row", _TAG + "c", _TAG + "v"
_FORMULA, _INLINE, _DATA = _TAG + "f", _TAG + "is", _TAG + "sheetData"
_STRING, _TEXT, _RUN = _TAG + "si", _TAG + "t", _TAG + "r"

_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\s[^<>]*?\bref\s*=\s*[\"']([^\"']+)[\"']")


def read_workbook(path: Path, sheet: str | None) -> Iterator[Record]:
    """Yield (row number, cells by place) of one sheet: ``sheet``, else the first visible one.

    Hidden rows are rows: a filter hides them from the eye, not from the table. The value of a
    merged range counts for each of its cells; a row that has no value but from such ranges is
    blank, because a person sees one tall row there. Formulas count by the value that Excel
    stored. Raises NotAWorkbookError or SheetMissingError.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            reader = _open_package(file)
            strings = stack.enter_context(_SharedStrings(reader))
            parser = _SheetParser(reader, _chosen_sheet(path, reader, sheet), strings)
            yield from parser.rows()
        except (NotAWorkbookError, SheetMissingError):
            raise
        except OSError as error:
            # openpyxl raises it too, without a number, where a package holds no workbook.
            if error.errno is not None:
                raise
            raise _not_a_workbook(path, error) from error
        except (
            *(zipfile.BadZipFile, zlib.error, ParseError, KeyError, ValueError, IndexError),
            *(EOFError, TypeError, AttributeError, NotImplementedError, RuntimeError),
        ) as error:
            raise _not_a_workbook(path, error) from error


def _not_a_workbook(path: Path, error: Exception) -> NotAWorkbookError:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"\xd0\xcf\x11\xe0":
        return NotAWorkbookError(
            path.name,
            "It is a workbook of the old format (.xls), or protected by a password.",
            way_out="Open it in Excel and save it as .xlsx, without a password, or as CSV.",
        )
    if magic[:2] != b"PK":
        return NotAWorkbookError(
            path.name,
            "It is no Excel workbook, whatever its name says.",
            way_out="If it is text, rename it to .csv; else save it as .xlsx again.",
        )
    return NotAWorkbookError(
        path.name,
        f"It is no Excel workbook, or it is damaged ({error}).",
        way_out="Open it in Excel, save it as .xlsx and import that.",
    )


class _PackageReader(ExcelReader):
    """openpyxl's reader of the package, without the shared strings."""

    def read_strings(self) -> None:
        self.shared_strings = []


def _open_package(file: IO[bytes]) -> _PackageReader:
    reader = _PackageReader(file, read_only=True, data_only=True, keep_links=False)
    with warnings.catch_warnings():
        # They concern styles and extensions, which mean nothing to an import.
        warnings.simplefilter("ignore")
        reader.read()
    return reader


def _chosen_sheet(path: Path, reader: _PackageReader, sheet: str | None) -> ReadOnlyWorksheet:
    # Charts are sheets too, without rows.
    sheets = [each for each in reader.wb.worksheets if isinstance(each, ReadOnlyWorksheet)]
    if sheet is not None:
        sheets = [each for each in sheets if each.title.strip() == sheet.strip()]
    else:
        sheets = [each for each in sheets if each.sheet_state == "visible"] or sheets
    if sheets:
        return sheets[0]
    names = ", ".join(repr(name) for name in reader.wb.sheetnames)
    raise SheetMissingError(
        path.name,
        f"The workbook has no sheet {sheet!r}; it has {names or 'none'}.",
        way_out="Name one of its sheets by sheet, or leave it out for the first visible one.",
    )


class _SharedStrings:
    """The workbook's table of strings, in a temporary file beyond a few megabytes."""

    def __init__(self, reader: _PackageReader) -> None:
        # Closed on leaving the context that this object is.
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115
            max_size=_STRINGS_IN_MEMORY_BYTES
        )
        self._ends = array("Q", [0])
        self.get = lru_cache(_STRINGS_CACHED)(self._read)
        package: Any = reader.package
        part = package.find(SHARED_STRINGS)
        if part is not None:
            with reader.archive.open(part.PartName[1:]) as source:
                self._load(source)

    def __enter__(self) -> _SharedStrings:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _load(self, source: IO[bytes]) -> None:
        root: Element | None = None
        for event, element in iterparse(source, ("start", "end")):
            if root is None:
                root = element
            if event == "end" and element.tag == _STRING:
                data = _rich_text(element).encode("utf-8", "surrogatepass")
                self._file.write(data)
                self._ends.append(self._ends[-1] + len(data))
                root.clear()

    def _read(self, index: int) -> str:
        if not 0 <= index < len(self._ends) - 1:
            raise IndexError(f"there is no shared string {index}")
        start, end = self._ends[index], self._ends[index + 1]
        self._file.seek(start)
        return self._file.read(end - start).decode("utf-8", "surrogatepass")


def _rich_text(element: Element) -> str:
    """Return the text of a string and its runs; phonetic guides (rPh) are no part of it."""
    parts = [child.text or "" for child in element if child.tag == _TEXT]
    for run in element.iterfind(_RUN):
        parts.extend(child.text or "" for child in run if child.tag == _TEXT)
    return _unescaped("".join(parts))


def _unescaped(text: str) -> str:
    if "_x" not in text:
        return text
    # Excel writes _x000D_ for control characters, and a pair of such for one beyond U+FFFF.
    return unescape(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


class _SheetParser:
    """Reads one sheet's XML row by row."""

    def __init__(
        self, reader: _PackageReader, sheet: ReadOnlyWorksheet, strings: _SharedStrings
    ) -> None:
        # openpyxl offers the styles and the sheet's part only by these private names; the lock
        # file holds its version, and the tests read real workbooks.
        book: Any = reader.wb
        part: Any = sheet
        self._archive = reader.archive
        self._part: str = part._worksheet_path
        self._strings = strings
        self._epoch: datetime = book.epoch
        # What counts hours beyond a day ([h]:mm) is a number here.
        self._date_styles: set[int] = book._date_formats - book._timedelta_formats

    def rows(self) -> Iterator[Record]:
        merged = _MergedRanges(self._merged_ranges())
        data: Element | None = None
        counter = 0
        with self._archive.open(self._part) as source:
            for event, element in iterparse(source, ("start", "end")):
                if event == "start":
                    data = element if element.tag == _DATA else data
                elif element.tag == _ROW and data is not None:
                    counter = _row_number(element, counter)
                    cells = merged.filled(counter, self._cells(element))
                    data.clear()
                    yield counter, cells
                elif element.tag == _DATA:
                    return

    def _merged_ranges(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield (top, left, bottom, right) of the ranges, which stand behind all the rows."""
        count = 0
        with self._archive.open(self._part) as source:
            tail = b""
            while chunk := source.read(_CHUNK_BYTES):
                text = tail + chunk
                if b"mergeCell" not in text:
                    tail = text[-16:]
                    continue
                # Cut at the last tag's beginning, so that no tag is seen in halves or twice;
                # the last tag of all closes the sheet.
                cut = text.rfind(b"<")
                text, tail = (text, b"") if cut < 0 else (text[:cut], text[cut:])
                for reference in _MERGED.findall(text):
                    count += 1
                    if count > MERGED_RANGES_MAX:
                        raise ValueError(f"more than {MERGED_RANGES_MAX:,} merged ranges")
                    yield _merged_range(reference.decode("ascii"))

    def _cells(self, row: Element) -> dict[int, Cell]:
        cells: dict[int, Cell] = {}
        column = 0
        for element in row:
            if element.tag != _CELL:
                continue
            reference = element.get("r")
            column = coordinate_to_tuple(reference)[1] if reference else column + 1
            if column > _LAST_COLUMN:
                raise ValueError(f"there is no column {column}")
            cell = self._cell(element)
            if cell != "":
                cells[column] = cell
        return cells

    def _cell(self, element: Element) -> Cell:
        kind = element.get("t", "n")
        if kind == "inlineStr":
            inline = element.find(_INLINE)
            return "" if inline is None else _rich_text(inline)
        text = element.findtext(_VALUE) or ""
        if not text:
            # An empty text is a formula's value; no value at all was never calculated.
            if kind != "str" and element.find(_FORMULA) is not None:
                return CellFault(RejectReason.FORMULA_WITHOUT_VALUE, "")
            return ""
        if kind == "s":
            return self._strings.get(int(text))
        if kind == "str":
            return _unescaped(text)
        if kind == "b":
            return text.strip() in ("1", "true")
        if kind == "e":
            return CellFault(RejectReason.CELL_ERROR, text)
        if kind == "d":
            return _iso_date(text)
        if int(element.get("s", "0")) in self._date_styles:
            return self._date(text)
        return _number(text)

    def _date(self, serial: str) -> Cell:
        days = float(serial)
        if self._epoch == WINDOWS_EPOCH and 60 <= days < 61:
            # The 29th of February 1900, which only Excel knows.
            return CellFault(RejectReason.DATE_DOES_NOT_EXIST, "1900-02-29")
        try:
            moment: datetime | time = _from_serial(days, self._epoch)
        except (OverflowError, ValueError):
            return CellFault(RejectReason.DATE_OUT_OF_RANGE, serial)
        return moment


def _row_number(element: Element, before: int) -> int:
    stated = element.get("r")
    number = int(stated) if stated else before + 1
    if not before < number <= _LAST_ROW:
        raise ValueError(f"row {number} stands behind row {before}")
    return number


def _merged_range(reference: str) -> tuple[int, int, int, int]:
    left, top, right, bottom = range_boundaries(reference)
    if left is None or top is None or right is None or bottom is None:
        raise ValueError(f"{reference} is no range of cells")
    return top, left, bottom, right


def _iso_date(text: str) -> Cell:
    try:
        moment = _from_iso(text)
    except ValueError:
        moment = None
    # It may be a duration, which is no moment.
    if isinstance(moment, date | time):
        return moment
    return CellFault(RejectReason.DATE_UNREADABLE, text)


def _number(text: str) -> Cell:
    """Return a whole number as int, another as Decimal without the tail of a binary fraction."""
    if text.isdecimal() and text.isascii():
        return int(text)
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return CellFault(RejectReason.NUMBER_UNREADABLE, text)
    if not number.is_finite() or abs(number.adjusted()) > 400:
        return CellFault(RejectReason.NUMBER_UNREADABLE, text)
    number = _EXCEL_PRECISION.plus(number)
    if number == number.to_integral_value():
        return int(number)
    return number.normalize(_EXCEL_PRECISION)


class _MergedRanges:
    """Gives each cell of a merged range the value of its first cell, row by row."""

    def __init__(self, ranges: Iterator[tuple[int, int, int, int]]) -> None:
        self._ahead = sorted(ranges, reverse=True)
        # Ranges that reach the row at hand: (bottom, top, left, right), and their values.
        self._open: list[tuple[int, int, int, int]] = []
        self._values: dict[tuple[int, int, int, int], Cell] = {}

    def filled(self, row: int, cells: dict[int, Cell]) -> list[Cell]:
        """Return the row's cells by place, [] where the row has no value of its own."""
        while self._ahead and self._ahead[-1][0] <= row:
            top, left, bottom, right = self._ahead.pop()
            if bottom >= row:
                insort(self._open, (bottom, top, left, right))
        while self._open and self._open[0][0] < row:
            self._values.pop(self._open.pop(0), None)
        for merged in self._open:
            self._enter(merged, row, cells)
        if not cells:
            return []
        for merged in self._open:
            value = self._values.get(merged, "")
            if value != "":
                cells.update(dict.fromkeys(range(merged[2], merged[3] + 1), value))
        width = max(cells)
        return [cells.get(column, "") for column in range(1, width + 1)]

    def _enter(self, merged: tuple[int, int, int, int], row: int, cells: dict[int, Cell]) -> None:
        _, top, left, right = merged
        if row == top:
            self._values[merged] = cells.get(left, "")
        # What a merge covers may still stand in the file; Excel does not show it.
        for column in range(left, right + 1):
            if (row, column) != (top, left):
                cells.pop(column, None)
