"""Rows that cannot be used: why, and the file that lists them for people."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from api.imports.errors import RejectsUnwritableError

# Enough to recognise a value by; the row itself stands in the file that was read.
SHOWN_CHARACTERS_MAX = 200

# What a spreadsheet would run as a formula when somebody opens the list.
_FORMULA_START = re.compile(r"[=+\-@\t\r]")
_PLAIN_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

COLUMNS = ("file", "row", "column", "reason", "value")


class RejectReason(StrEnum):
    """Why a row is not used. The codes are stable: programs and people count by them."""

    TOO_FEW_FIELDS = "too_few_fields"
    TOO_MANY_FIELDS = "too_many_fields"
    QUOTING_BROKEN = "quoting_broken"
    FIELD_TOO_LONG = "field_too_long"
    ROW_TOO_LONG = "row_too_long"
    CONTROL_CHARACTER = "control_character"
    CELL_ERROR = "cell_error"
    FORMULA_WITHOUT_VALUE = "formula_without_value"
    KEY_MISSING = "key_missing"
    KEY_DUPLICATE = "key_duplicate"
    NAME_MISSING = "name_missing"
    NAME_TOO_LONG = "name_too_long"
    TEXT_TOO_LONG = "text_too_long"
    CUSTOMER_MISSING = "customer_missing"
    CUSTOMER_UNKNOWN = "customer_unknown"
    CUSTOMER_AMBIGUOUS = "customer_ambiguous"
    PERSON_MISSING = "person_missing"
    PERSON_UNKNOWN = "person_unknown"
    PERSON_AMBIGUOUS = "person_ambiguous"
    TERRITORY_UNKNOWN = "territory_unknown"
    TERRITORY_AMBIGUOUS = "territory_ambiguous"
    PARENT_CYCLE = "parent_cycle"
    PARENT_REJECTED = "parent_rejected"
    CONTRADICTS_EARLIER_ROW = "contradicts_earlier_row"
    SECOND_OWNER = "second_owner"
    VALUE_UNKNOWN = "value_unknown"
    DATE_MISSING = "date_missing"
    DATE_UNREADABLE = "date_unreadable"
    DATE_DOES_NOT_EXIST = "date_does_not_exist"
    DATE_AMBIGUOUS = "date_ambiguous"
    DATE_OUT_OF_RANGE = "date_out_of_range"
    DATE_IN_FUTURE = "date_in_future"
    YEAR_OF_TWO_DIGITS = "year_of_two_digits"
    TIME_IN_GAP = "time_in_gap"
    TIME_IN_OVERLAP = "time_in_overlap"
    CLOSED_BEFORE_ENGAGED = "closed_before_engaged"
    RELEASED_BEFORE_CLAIMED = "released_before_claimed"
    OUTCOME_MISSING = "outcome_missing"
    NUMBER_MISSING = "number_missing"
    NUMBER_UNREADABLE = "number_unreadable"
    NUMBER_OUT_OF_RANGE = "number_out_of_range"
    NUMBER_NEGATIVE = "number_negative"
    CURRENCY_UNKNOWN = "currency_unknown"


class RowRejectedError(Exception):
    """A row cannot be used; it is caught where rows are staged, and listed."""

    def __init__(self, reason: RejectReason, column: str = "", shown: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.column = column
        self.shown = shown


def shown_text(text: str) -> str:
    """Return ``text`` fit for a list: short, with what cannot be printed written as \\uXXXX."""
    cut = text[:SHOWN_CHARACTERS_MAX] + "…" if len(text) > SHOWN_CHARACTERS_MAX else text
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", cut)


def write_rejects(path: Path, rejects: Iterable[tuple[str, int, str, str, str]]) -> None:
    """Write (file, row, column, reason, value) lines as CSV with a byte-order mark, for Excel.

    A value that a spreadsheet would run as a formula gets an apostrophe in front. The file
    appears whole or not at all, and only its owner may read it: values are personal data.
    """
    with _private(path, "utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, row, column, reason, value in rejects:
            writer.writerow((_inert(name), row, _inert(column), reason, _inert(value)))


def copy_rejects(path: Path, to: Path) -> None:
    """Copy a list of rejects; the copy, too, appears whole, and only for its owner to read.

    Raises RejectsUnwritableError.
    """
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r", encoding="utf-8", newline="") as source, _private(to, "utf-8") as file:
            shutil.copyfileobj(source, file)
    except OSError as error:
        raise RejectsUnwritableError(
            f"The list of rejects cannot be written to {to} ({error.strerror}).",
            way_out="Name another file for it with --rejects.",
        ) from error


@contextmanager
def _private(path: Path, encoding: str) -> Iterator[TextIO]:
    """Open a file for writing that only its owner may read; it appears when all is written."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding=encoding, newline="") as file:
            yield file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def append_reject(path: Path, file: str, row: int, column: str, reason: str, value: str) -> None:
    """Add a line to a list that ``write_rejects`` has written, for a row refused later on."""
    with path.open("a", encoding="utf-8", newline="") as listed:
        fields = (_inert(file), row, _inert(shown_text(column)), reason, _inert(shown_text(value)))
        csv.writer(listed).writerow(fields)


def _inert(text: str) -> str:
    if _FORMULA_START.match(text) and not _PLAIN_NUMBER.fullmatch(text):
        return "'" + text
    return text
