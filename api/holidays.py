"""The holidays of mainland China, as the library ``chinesecalendar`` knows them.

The State Council announces those of a year in the November before. What is taken from the library
becomes a fact of the organisation, so that a newer one never changes what was decided; nothing else
asks it, and no decider ever does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from importlib.metadata import version

from chinese_calendar.constants import holidays, workdays

from ledger.commands import InvalidRequestError
from ledger.organisation_commands import StateCalendar
from ledger.working_days import StatedYear, is_weekend

LIBRARY = "chinesecalendar"
# Hong Kong, Macau and Taipei have other holidays.
_MAINLAND_ZONES = frozenset(
    {
        *("Asia/Shanghai", "Asia/Urumqi", "Asia/Chongqing", "Asia/Chungking", "Asia/Harbin"),
        *("Asia/Kashgar", "PRC"),
    }
)


def known_years() -> range:
    """Return the years that the library knows."""
    years = {each.year for each in holidays}
    return range(min(years), max(years) + 1)


def year_of_library(year: int) -> StateCalendar:
    """Return what the library says of a year; raises InvalidRequestError where it knows nothing."""
    known = known_years()
    if year not in known:
        raise InvalidRequestError(
            "year",
            f"{LIBRARY} {version(LIBRARY)} knows the years {known[0]} to {known[-1]}, not {year};"
            " a newer guishu may, and guishu calendar state says what people know",
        )
    return StateCalendar(
        year=year,
        holidays=_of_year(holidays, year, on_weekends=False),
        workdays=_of_year(workdays, year, on_weekends=True),
        source=f"{LIBRARY} {version(LIBRARY)}",
    )


def years_for(time_zone: str, day: date) -> list[StateCalendar]:
    """Return what a new organisation is to begin with: ``years_around``, where they hold at all."""
    return years_around(day) if time_zone in _MAINLAND_ZONES else []


def years_around(day: date) -> list[StateCalendar]:
    """Return what the library says of the year before a day, its own and the next one.

    What the library does not know is left out.
    """
    around = (day.year - 1, day.year, day.year + 1)
    return [year_of_library(year) for year in around if year in known_years()]


def says_the_same(stated: StatedYear | None, command: StateCalendar) -> bool:
    """Say whether a year is stated already, with just these days."""
    return stated is not None and (stated.holidays, stated.workdays) == (
        command.holidays,
        command.workdays,
    )


def _of_year(days: Iterable[date], year: int, *, on_weekends: bool) -> tuple[date, ...]:
    # Its holidays hold the Saturdays and Sundays within them, which are no exception.
    found = {each for each in days if each.year == year and is_weekend(each) is on_weekends}
    return tuple(sorted(found))
