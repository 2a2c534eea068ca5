"""Working days: what is worked, and recycling that counts on working days only."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledger.deadlines import RECYCLE, RECYCLE_WARNING, next_at
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.working_days import StatedYear, WorkingDays
from tests.specs.story import START, Story
from tests.specs.test_recycling import follow_up, hold, next_due, owned, raise_next
from tests.specs.test_transfers import transfer

SHANGHAI = ZoneInfo("Asia/Shanghai")
# As they are; the history of the stories begins on the 2nd of March, a Monday.
QINGMING = date(2026, 4, 6)
MAY = (date(2026, 5, 1), date(2026, 5, 4), date(2026, 5, 5))
WORKED = date(2026, 5, 9)
YEAR_2026 = facts.CalendarStated(2026, (QINGMING, *MAY), (WORKED,))
CALENDAR = WorkingDays([StatedYear(2026, (QINGMING, *MAY), (WORKED,))])


def local(day: date, hour: int = 9) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=SHANGHAI)


def expect_at(story: Story, moment: datetime, kind: str) -> None:
    found = next_due(story)
    assert found is not None
    assert (found.due.astimezone(SHANGHAI), found.kind) == (moment, kind)


def working(*rules: dict[str, Any], stated: bool = True, **more: Any) -> Story:
    story = owned(*(rules or ({"follow_up_days": 20},)), days="working", **more)
    return story.given(YEAR_2026) if stated else story


# --- the calendar ------------------------------------------------------------------------------


def test_a_day_is_worked_by_what_was_stated_of_its_year_else_from_monday_to_friday() -> None:
    assert [CALENDAR.is_worked(each) for each in (QINGMING, WORKED)] == [False, True]
    assert CALENDAR.is_worked(date(2026, 4, 7))
    assert not CALENDAR.is_worked(date(2026, 4, 5))
    assert CALENDAR.is_worked(date(2027, 1, 1))
    assert CALENDAR.unstated(date(2025, 12, 1), date(2027, 2, 1)) == [2025, 2027]
    again = CALENDAR.with_year(StatedYear(2026))
    assert again.is_worked(QINGMING)
    assert not CALENDAR.is_worked(QINGMING)


def _counted(calendar: WorkingDays, begin: datetime, end: datetime) -> timedelta:
    """Count as slowly and plainly as can be."""
    found, day = timedelta(), begin.date()
    while day <= end.date():
        if calendar.is_worked(day):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - a local time
            found += min(end, midnight + timedelta(days=1)) - max(begin, midnight)
        day += timedelta(days=1)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_working_time_is_what_counting_day_by_day_makes_of_it(seed: int) -> None:
    chance = Random(seed)  # noqa: S311 - which days they are, and no secret
    years = []
    for year in chance.sample(range(2020, 2031), chance.randrange(4)):
        days = [date(year, 1, 1) + timedelta(days=chance.randrange(365)) for _ in range(40)]
        free = {each for each in days if each.weekday() < 5}
        years.append(StatedYear(year, tuple(free), tuple(set(days) - free)))
    calendar = WorkingDays(years)
    for _ in range(50):
        begin = datetime(2018, 1, 1) + timedelta(minutes=chance.randrange(15 * 365 * 1_440))  # noqa: DTZ001
        end = begin + timedelta(minutes=chance.choice([0, 5, 1_440, 90 * 1_440]))
        passed = calendar.elapsed(end) - calendar.elapsed(begin)
        assert passed == _counted(calendar, begin, end)
        # It is the first moment at which just so much has gone by.
        first = calendar.moment(calendar.elapsed(end))
        assert first <= end
        assert calendar.elapsed(first) == calendar.elapsed(end)
        assert calendar.elapsed(first - timedelta(seconds=1)) < calendar.elapsed(end)


# --- recycling ---------------------------------------------------------------------------------


def test_only_working_days_count_and_days_go_by_the_wall_clock() -> None:
    story = working()
    # 20 days less 3: from Monday, the 2nd of March at nine, three weeks and two days.
    expect_at(story, local(date(2026, 3, 25)), RECYCLE_WARNING)
    raise_next(story)
    expect_at(story, local(date(2026, 3, 27)), RECYCLE_WARNING)
    raise_next(story)
    expect_at(story, local(date(2026, 3, 30)), RECYCLE)


def test_holidays_do_not_count_and_worked_weekends_do() -> None:
    story = working()
    story.now = local(date(2026, 4, 3)).astimezone(UTC)
    follow_up(story)
    # Behind: the 6th of April, and the 1st, 4th and 5th of May, are free; the 9th of May is not.
    expect_at(story, local(date(2026, 4, 29)), RECYCLE_WARNING)
    raise_next(story)
    raise_next(story)
    expect_at(story, local(date(2026, 5, 7)), RECYCLE)
    follow_up(story, name="fol_2")
    expect_at(story, local(date(2026, 5, 28)), RECYCLE_WARNING)


def test_what_begins_on_a_day_that_is_not_worked_counts_from_the_next_one_that_is() -> None:
    story = working({"follow_up_days": 5})
    story.now = local(date(2026, 3, 7), 15).astimezone(UTC)  # a Saturday
    follow_up(story)
    expect_at(story, local(date(2026, 3, 11), 0), RECYCLE_WARNING)
    raise_next(story)
    raise_next(story)
    # The whole of Monday to Friday has gone by when Friday has.
    expect_at(story, local(date(2026, 3, 14), 0), RECYCLE)


def test_of_a_year_that_nobody_stated_monday_to_friday_count() -> None:
    story = working(stated=False)
    story.now = local(date(2026, 4, 3)).astimezone(UTC)
    follow_up(story)
    expect_at(story, local(date(2026, 4, 28)), RECYCLE_WARNING)


def test_a_calendar_counts_from_its_fact_on_and_a_later_one_replaces_it() -> None:
    story = working(stated=False)
    story.now = local(date(2026, 4, 3)).astimezone(UTC)
    follow_up(story)
    before = next_due(story)
    assert before is not None
    story.given(YEAR_2026)
    expect_at(story, local(date(2026, 4, 29)), RECYCLE_WARNING)
    story.now = before.due
    story.when(r.DeadlineReached("cus_1", before.kind, before.subject, before.due), by="clock")
    assert getattr(story.decided, "remark", None) == "deadline_moved"
    story.given(facts.CalendarStated(2026, (), ()))
    assert next_due(story) == before
    # What was decided by the facts below it stays decided by them.
    assert not story.organisation.at(story.position - 2).working_days.is_worked(QINGMING)


def test_pauses_take_only_what_would_have_counted() -> None:
    story = working()
    # From a Friday to the Tuesday behind: one and a half working days, of three and a half.
    story.now = local(date(2026, 3, 6), 21).astimezone(UTC)
    story.when(transfer(), by="per_a")
    story.now = local(date(2026, 3, 10), 9).astimezone(UTC)
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    expect_at(story, local(date(2026, 3, 26), 21), RECYCLE_WARNING)


def test_an_absence_over_a_holiday_takes_the_working_days_in_it() -> None:
    story = working()
    story.given(facts.PersonAway("per_a", date(2026, 3, 7), date(2026, 3, 10)))
    expect_at(story, local(date(2026, 3, 26)), RECYCLE_WARNING)
    story.given(facts.PersonAway("per_a", date(2026, 3, 14), date(2026, 3, 16)))
    expect_at(story, local(date(2026, 3, 26)), RECYCLE_WARNING)


def test_a_hold_until_a_day_pauses_the_working_days_before_it() -> None:
    story = hold(working(), date(2026, 3, 9))
    expect_at(story, local(date(2026, 4, 1), 0), RECYCLE_WARNING)


def test_from_calendar_to_working_days_and_back_each_warning_runs_its_full_time() -> None:
    story = owned({"follow_up_days": 20}).given(YEAR_2026)
    expect_at(story, local(date(2026, 3, 19)), RECYCLE_WARNING)
    raise_next(story)
    number = story.organisation.latest.policy.number

    def adopt(days: str) -> None:
        nonlocal number
        number += 1
        rules = {"rules": [{"follow_up_days": 20}], "days": days}
        story.given(facts.PolicyAdopted(number, {"protection_days": 0, "recycling": rules}))

    adopt("working")
    # The first warning came too early for what is counted now: it is given anew.
    expect_at(story, local(date(2026, 3, 25)), RECYCLE_WARNING)
    raise_next(story)
    adopt("calendar")
    # By now this is long due, and still the last warning runs its two days, and its one.
    expect_at(story, local(date(2026, 3, 27)), RECYCLE_WARNING)
    raise_next(story)
    expect_at(story, local(date(2026, 3, 28)), RECYCLE)
    adopt("working")
    expect_at(story, local(date(2026, 3, 30)), RECYCLE)


def test_a_clock_that_slept_over_a_holiday_gives_each_warning_its_working_days() -> None:
    story = working()
    story.now = local(date(2026, 4, 13)).astimezone(UTC)
    follow_up(story)
    # Due on a Saturday that is worked; the clock wakes more than two weeks later.
    expect_at(story, local(WORKED), RECYCLE_WARNING)
    story.given(facts.CalendarStated(2026, (QINGMING, *MAY, date(2026, 5, 28)), (WORKED,)))
    found = next_due(story)
    assert found is not None
    story.now = local(date(2026, 5, 26)).astimezone(UTC)
    story.when(r.DeadlineReached("cus_1", found.kind, found.subject, found.due), by="clock")
    # Two working days from the 26th: the 27th, and the 29th.
    expect_at(story, local(date(2026, 5, 29)), RECYCLE_WARNING)
    raise_next(story)
    expect_at(story, local(date(2026, 6, 1)), RECYCLE)


def test_days_go_by_the_wall_clock_over_a_change_of_the_clocks() -> None:
    """Berlin puts its clocks forward in the night to the 29th of March."""
    berlin = ZoneInfo("Europe/Berlin")
    story = owned({"follow_up_days": 20}, days="working")
    story.given(facts.OrganisationFounded("GmbH", "Europe/Berlin"))
    story.now = datetime(2026, 3, 27, 9, tzinfo=berlin).astimezone(UTC)
    follow_up(story)
    found = next_due(story)
    assert found is not None
    assert found.due == datetime(2026, 4, 21, 9, tzinfo=berlin)


def test_what_an_import_brought_counts_its_working_days_from_the_closing_on() -> None:
    story = owned({"follow_up_days": 20}, days="working").given(YEAR_2026)
    story.given(facts.ImportOpened("imp_1", "old", "Asia/Shanghai", {"claim_scope": "everywhere"}))
    long_ago = START - timedelta(days=300)
    story.when(r.RegistrationRequested("cus_2", "organisation", "客户"), on=long_ago, under="imp_1")
    story.when(r.ClaimFiled("cus_2", "per_a"), on=long_ago, under="imp_1")
    story.now = local(date(2026, 4, 30)).astimezone(UTC)
    story.given(facts.ImportClosed("imp_1"))
    customer: Any = story.settled.customers["cus_2"]
    found = next_at("cus_2", customer, story.organisation.latest, story.now)
    assert found is not None
    # Seventeen working days behind the 30th of April, three of the May holidays between.
    assert found.due == local(date(2026, 5, 27)).astimezone(UTC)
