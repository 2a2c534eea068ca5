"""From what a cell says to names, moments, numbers and money; whatever fails, rejects the row."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from api.imports.rejects import RejectReason, RowRejectedError

NAME_CHARACTERS_MAX = 300
TEXT_CHARACTERS_MAX = 10_000
DAY_MIN = date(1900, 1, 1)
DAY_MAX = date(9999, 12, 30)

# As many digits as a decimal number in an event may have, before and after the point together.
DIGITS_MAX = 28
INTEGER_MAX = 2**53 - 1

# Year first in all of them, so that no two can read one text in two ways.
DATE_FORMATS_DEFAULT = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y年%m月%d日",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S%z",
    "%Y-%m-%dT%H:%M:%S.%f%z",
)

_DIRECTIVES = {
    "%Y": r"\d{4}",
    "%y": r"\d{2}",
    "%m": r"\d{1,2}",
    "%d": r"\d{1,2}",
    "%H": r"\d{1,2}",
    "%I": r"\d{1,2}",
    "%M": r"\d{1,2}",
    "%S": r"\d{1,2}",
    "%f": r"\d{1,6}",
    "%p": "[AaPp][Mm]",
    "%b": "[A-Za-z]+",
    "%B": "[A-Za-z]+",
    "%z": r"(?:Z|[+-]\d{2}:?\d{2})",
    "%%": "%",
}
_TIME_DIRECTIVES = ("%H", "%I", "%M", "%S", "%f", "%p", "%z")

_CURRENCY_SIGNS = {
    "CNY": ("¥", "元", "RMB", "人民币"),
    "JPY": ("¥", "円"),
    "USD": ("US$", "$"),
    "HKD": ("HK$", "$"),
    "TWD": ("NT$", "$"),
    "SGD": ("S$", "$"),
    "EUR": ("€",),
    "GBP": ("£",),
    "KRW": ("₩",),
    "INR": ("₹",),
}
_CURRENCY = re.compile("[A-Z]{3}")
_GROUP_SEPARATORS = {".": "[,' ]", ",": "[.' ]"}


def folded(text: str) -> str:
    """Return a name as it is shown: trimmed, each run of spaces and line breaks one space."""
    return " ".join(text.split())


def match_key(text: str) -> str:
    """Return the key by which names are the same: NFKC, case folded, spaces folded, trimmed.

    Characters that cannot be seen (zero-width spaces, marks of direction) do not count.
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    wide = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = (character for character in wide if unicodedata.category(character) != "Cf")
    return " ".join("".join(seen).split())


def id_key(text: str) -> str:
    """Return the key by which foreign ids are the same: NFKC, spaces folded, trimmed."""
    return folded(unicodedata.normalize("NFKC", text))


def date_format_problem(date_format: str, *, two_digit_years: bool) -> str | None:
    """Return what is wrong with a format of the mapping, or None."""
    found = re.findall("%.?", date_format)
    for directive in found:
        if directive not in _DIRECTIVES:
            known = " ".join(_DIRECTIVES)
            return f"{date_format!r} holds {directive!r}; the known parts are {known}."
    if len(set(found)) != len(found):
        return f"{date_format!r} holds a part twice."
    if "%y" in found and not two_digit_years:
        return (
            f"{date_format!r} has years of two digits, which leave the century open; "
            "say [constants] two_digit_years_from = 1970, or whichever year they begin with."
        )
    if not {"%Y", "%y"} & set(found) or not {"%m", "%b", "%B"} & set(found) or "%d" not in found:
        return f"{date_format!r} must hold a year (%Y), a month (%m) and a day (%d)."
    return None


class DateReader:
    """Reads dates by the formats of a mapping, and places them in its time zone.

    ``formats`` are strptime formats that passed ``date_format_problem``. Dates of which two
    formats make two different days are rejected, as are dates without a century, unless
    ``two_digit_years_from`` gives the first of the hundred years that two digits mean.
    """

    def __init__(
        self, formats: Sequence[str], zone: ZoneInfo, *, two_digit_years_from: int | None = None
    ) -> None:
        self._formats = tuple(formats)
        self._zone = zone
        self._years_from = two_digit_years_from
        self._shapes = tuple(_shape(each) for each in formats)
        self._short_shapes = tuple(_shape(each.replace("%Y", "%y")) for each in formats)

    def read(self, text: str) -> date | datetime:
        """Return a date, or a datetime (with zone only where the text states one)."""
        plain = unicodedata.normalize("NFKC", text).strip()
        found: list[date | datetime] = []
        for each in self._formats:
            value = self._by_format(plain, each)
            if value is not None and value not in found:
                found.append(value)
        if len(found) == 1:
            return found[0]
        if found:
            raise RowRejectedError(RejectReason.DATE_AMBIGUOUS)
        if any(shape.fullmatch(plain) for shape in self._shapes):
            raise RowRejectedError(RejectReason.DATE_DOES_NOT_EXIST)
        if any(shape.fullmatch(plain) for shape in self._short_shapes):
            raise RowRejectedError(RejectReason.YEAR_OF_TWO_DIGITS)
        raise RowRejectedError(RejectReason.DATE_UNREADABLE)

    def _by_format(self, text: str, date_format: str) -> date | datetime | None:
        try:
            moment = datetime.strptime(text, date_format)  # noqa: DTZ007  # the zone comes later
        except ValueError:
            return None
        if "%y" in date_format and self._years_from is not None:
            first = self._years_from
            try:
                moment = moment.replace(year=first + (moment.year - first) % 100)
            except ValueError:
                raise RowRejectedError(RejectReason.DATE_DOES_NOT_EXIST) from None
        has_time = any(directive in date_format for directive in _TIME_DIRECTIVES)
        return moment if has_time else moment.date()

    def instant(self, value: date | datetime) -> datetime:
        """Return the instant in UTC: of a date, the first of that day in the time zone.

        Rejects times that the zone's clocks skipped or showed twice, and years before 1900.
        """
        day = value.date() if isinstance(value, datetime) else value
        if not DAY_MIN <= day <= DAY_MAX:
            raise RowRejectedError(RejectReason.DATE_OUT_OF_RANGE)
        if not isinstance(value, datetime):
            return self._day_start(value)
        if value.tzinfo is not None:
            return value.astimezone(UTC)
        first = value.replace(tzinfo=self._zone, fold=0).astimezone(UTC)
        if first == value.replace(tzinfo=self._zone, fold=1).astimezone(UTC):
            return first
        shown_twice = first.astimezone(self._zone).replace(tzinfo=None) == value
        raise RowRejectedError(
            RejectReason.TIME_IN_OVERLAP if shown_twice else RejectReason.TIME_IN_GAP
        )

    def day(self, instant: datetime) -> date:
        """Return the calendar day of an instant in the time zone."""
        return instant.astimezone(self._zone).date()

    def _day_start(self, day: date) -> datetime:
        # Where the clocks skip midnight this is the moment of the skip; a zone that crossed the
        # date line has skipped a whole day.
        start = datetime.combine(day, time(), tzinfo=self._zone).astimezone(UTC)
        if start.astimezone(self._zone).date() != day:
            raise RowRejectedError(RejectReason.DATE_DOES_NOT_EXIST)
        return start


def _shape(date_format: str) -> re.Pattern[str]:
    parts = re.split("(%.)", date_format)
    return re.compile("".join(_DIRECTIVES.get(part) or re.escape(part) for part in parts))


def microseconds(instant: datetime) -> int:
    """Return the whole microseconds since 1970 in UTC, exactly."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def from_microseconds(count: int) -> datetime:
    """Return the instant in UTC of ``microseconds``."""
    return _EPOCH + timedelta(microseconds=count)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NumberReader:
    """Reads numbers as people write them, with ``decimal_separator`` "." or ","."""

    def __init__(self, decimal_separator: str = ".") -> None:
        group = _GROUP_SEPARATORS[decimal_separator]
        point = re.escape(decimal_separator)
        self._point = decimal_separator
        self._pattern = re.compile(
            rf"(?P<whole>[0-9]{{1,3}}(?:{group}[0-9]{{3}})+|[0-9]+)?(?:{point}(?P<part>[0-9]+))?"
        )

    def decimal(self, text: str) -> Decimal:
        """Return the number, with as many decimal places as the text shows.

        Groups of three may be set apart; a minus stands in front, or the number in brackets.
        """
        plain = unicodedata.normalize("NFKC", text).strip().replace("\u2212", "-")
        negative = plain.startswith("(") and plain.endswith(")")
        plain = plain[1:-1].strip() if negative else plain
        if plain[:1] in ("-", "+"):
            negative = negative or plain[0] == "-"
            plain = plain[1:].strip()
        match = self._pattern.fullmatch(plain)
        if match is None or not plain:
            raise RowRejectedError(RejectReason.NUMBER_UNREADABLE)
        whole = re.sub("[^0-9]", "", match["whole"] or "0")
        part = match["part"]
        if len(whole) + len(part or "") > DIGITS_MAX:
            raise RowRejectedError(RejectReason.NUMBER_OUT_OF_RANGE)
        number = Decimal(f"{whole}.{part}" if part else whole)
        return number.copy_negate() if negative and number else number

    def integer(self, text: str) -> int:
        """Return a whole number within +-(2^53 - 1)."""
        number = self.decimal(text)
        if number != number.to_integral_value():
            raise RowRejectedError(RejectReason.NUMBER_UNREADABLE)
        if abs(number) > INTEGER_MAX:
            raise RowRejectedError(RejectReason.NUMBER_OUT_OF_RANGE)
        return int(number)

    def amount(self, text: str, currency: str) -> Decimal:
        """Return an amount, which may carry the sign or the code of ``currency`` and no other."""
        plain = unicodedata.normalize("NFKC", text).strip()
        for sign in (currency, *_CURRENCY_SIGNS.get(currency, ())):
            if plain.startswith(sign):
                plain = plain.removeprefix(sign).strip()
                break
            if plain.startswith("-" + sign):
                plain = "-" + plain.removeprefix("-" + sign).strip()
                break
            if plain.endswith(sign):
                plain = plain.removesuffix(sign).strip()
                break
        return self.decimal(plain)


def currency_code(text: str) -> str:
    """Return an ISO 4217 code in capitals."""
    code = unicodedata.normalize("NFKC", text).strip().upper()
    if not _CURRENCY.fullmatch(code):
        raise RowRejectedError(RejectReason.CURRENCY_UNKNOWN)
    return code
