"""Working days: which days people work, and time that is counted on such days only. Pure.

Saturdays and Sundays are not worked, and all other days are, but for what the organisation has
stated of a year. Of a year of which nothing was stated, just weekends count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from types import MappingProxyType

_DAY = timedelta(days=1)
_SATURDAY = 5


def is_weekend(day: date) -> bool:
    """Say whether a day is a Saturday or Sunday."""
    return day.weekday() >= _SATURDAY


@dataclass(frozen=True, slots=True)
class StatedYear:
    """The exceptions of a year: ``holidays`` from Monday to Friday, ``workdays`` of weekends."""

    year: int
    holidays: tuple[date, ...] = ()
    workdays: tuple[date, ...] = ()
    source: str | None = None


class WorkingDays:
    """The calendar of an organisation at some position; it never changes.

    Moments are local times without a zone: days go by the wall clock.
    """

    def __init__(self, years: Iterable[StatedYear] = ()) -> None:
        self._years = {each.year: each for each in years}

    @property
    def years(self) -> Mapping[int, StatedYear]:
        """What was stated, by the year."""
        return MappingProxyType(self._years)

    def with_year(self, year: StatedYear) -> WorkingDays:
        """Return the calendar with another year, or with what replaces one."""
        return WorkingDays((self._years | {year.year: year}).values())

    def is_worked(self, day: date) -> bool:
        """Say whether people work on a day."""
        stated = self._years.get(day.year)
        if stated is None:
            return not is_weekend(day)
        return day in stated.workdays if is_weekend(day) else day not in stated.holidays

    def unstated(self, first: date, last: date) -> list[int]:
        """Return the years from one day to another of which nothing was stated."""
        return [year for year in range(first.year, last.year + 1) if year not in self._years]

    # --- counting --------------------------------------------------------------------------------

    def elapsed(self, moment: datetime) -> timedelta:
        """Return how much working time goes by from a day long ago until a moment.

        A working day is all of its 24 hours. Only differences mean anything.
        """
        number, table = moment.toordinal(), self._table
        days = table.before(number)
        if table.before(number + 1) == days:
            return timedelta(days)
        return timedelta(days) + (moment - datetime.combine(moment.date(), time()))

    def moment(self, elapsed: timedelta) -> datetime:
        """Return the first moment at which so much working time has gone by."""
        days, rest = divmod(elapsed, _DAY)
        if rest:
            return datetime.fromordinal(self._table.working_day(days + 1)) + rest
        # The end of the last of them, and not of what is not worked behind it.
        return datetime.fromordinal(self._table.working_day(days)) + _DAY

    @cached_property
    def _table(self) -> _Table:
        return _Table(self)


class _Table:
    """Counts working days; of the years stated, and those between them, each day is looked up.

    Days are ordinals (1 is the first of January of the year 1, a Monday).
    """

    def __init__(self, calendar: WorkingDays) -> None:
        years = calendar.years or (1,)
        exceptions = {
            day.toordinal()
            for each in calendar.years.values()
            for day in (*each.holidays, *each.workdays)
        }
        self._first = date(min(years), 1, 1).toordinal()
        self._last = date(max(years), 12, 31).toordinal()
        # How many working days lie before the first day, and before each later one.
        self._before = [_weekdays_before(self._first)]
        self._worked: list[int] = []
        for number in range(self._first, self._last + 1):
            if ((number - 1) % 7 < _SATURDAY) != (number in exceptions):
                self._worked.append(number)
            self._before.append(self._before[0] + len(self._worked))
        # How many more, or fewer, there are up to the end than by weekends alone.
        self._shift = self._before[-1] - _weekdays_before(self._last + 1)

    def before(self, number: int) -> int:
        """Return how many working days lie before a day."""
        if number < self._first:
            return _weekdays_before(number)
        if number <= self._last:
            return self._before[number - self._first]
        return _weekdays_before(number) + self._shift

    def working_day(self, count: int) -> int:
        """Return the day that is the working day of this number, from 1."""
        place = count - self._before[0]
        if place <= 0:
            return _weekday(count)
        if place <= len(self._worked):
            return self._worked[place - 1]
        return _weekday(count - self._shift)


def _weekdays_before(number: int) -> int:
    weeks, days = divmod(number - 1, 7)
    return weeks * 5 + min(days, 5)


def _weekday(count: int) -> int:
    weeks, days = divmod(count - 1, 5)
    return weeks * 7 + days + 1
