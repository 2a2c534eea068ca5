"""The organisation's facts: folded once, readable as they were below every position."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.envelope import Event
from ledger.events import organisation as facts
from ledger.events.values import ForeignId, Sealed
from ledger.organisation import Absence, Delegation, Organisation, OrganisationAt

NAME, NEW_NAME = Sealed("key_1", "AA=="), Sealed("key_1", "BB==")
RECORDED = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)


def organisation(*data: facts.OrganisationFact) -> Organisation:
    """Fold facts that stand at the positions 10, 20, and so on."""
    folded = Organisation()
    folded.apply_all(
        Event(position, RECORDED, "organisation", number, "fact", {}, each)
        for number, (position, each) in enumerate(
            zip(range(10, 10 * len(data) + 1, 10), data, strict=True), 1
        )
    )
    return folded


def test_before_anything_was_said_there_are_defaults() -> None:
    empty = organisation().latest
    assert empty.time_zone == ZoneInfo("UTC")
    assert (empty.name, empty.decider, empty.policy.number) == (None, 1, 0)
    assert empty.policy.policy.holding_limit == 999
    assert [*empty.people(), *empty.territories(), *empty.imports()] == []
    assert empty.person("per_1") is None
    assert empty.territory("ter_1") is None
    assert empty.import_("imp_1") is None


def test_a_fact_counts_for_the_positions_above_its_own() -> None:
    folded = organisation(
        facts.OrganisationFounded("华东机电", "Asia/Shanghai"),
        facts.PersonJoined("per_1", NAME, "ter_1"),
        facts.PolicyAdopted(1, {"holding_limit": 5}),
        facts.DeciderAdopted(2),
    )
    assert (folded.position, folded.version) == (40, 4)
    at, above = folded.at(10), folded.at(11)
    assert (at.name, above.name) == (None, "华东机电")
    assert above.time_zone == ZoneInfo("Asia/Shanghai")
    assert folded.at(20).person("per_1") is None
    assert folded.at(21).person("per_1") is not None
    assert [folded.at(position).policy.number for position in (30, 31)] == [0, 1]
    assert folded.at(31).policy.policy.holding_limit == 5
    assert [folded.at(position).decider for position in (40, 41)] == [1, 2]
    assert folded.latest == folded.at(41)


def test_it_is_read_while_another_thread_folds_it() -> None:
    """A fact of somebody new ended whoever was just going through the people or territories."""
    folded = organisation(
        facts.TerritoryDefined("ter_1", "华东"),
        facts.TerritoryDefined("ter_2", "上海", "ter_1"),
        facts.PersonJoined("per_1", NAME, "ter_1"),
        facts.PersonJoined("per_2", NAME, "ter_1"),
    )
    read = folded.latest
    people, territories = read.people(), read.territories()
    seen = [next(people).person, next(territories).territory]
    for position, data in (
        (50, facts.PersonJoined("per_3", NAME)),
        (60, facts.TerritoryDefined("ter_2", "上海")),
        (70, facts.TerritoryDefined("ter_3", "华西")),
    ):
        folded.apply(Event(position, RECORDED, "organisation", position, "fact", {}, data))
    seen += [*(each.person for each in people), *(each.territory for each in territories)]
    assert seen == ["per_1", "ter_1", "per_2", "ter_2"]
    assert [each.territory for each in read.lineage("ter_2")] == ["ter_2", "ter_1"]
    assert [each.territory for each in folded.latest.lineage("ter_2")] == ["ter_2"]


def test_a_person_through_time() -> None:
    folded = organisation(
        facts.PersonJoined(
            "per_1", NAME, "ter_1", ("rep",), date(2020, 1, 1), (ForeignId("hr", "7"),)
        ),
        facts.PersonChanged("per_1", None, ("manager", "admin")),
        facts.PersonChanged("per_1", "ter_2", ("rep",), NEW_NAME),
        facts.PersonAway("per_1", date(2026, 1, 1), date(2026, 1, 8)),
        facts.DelegateNamed("per_1", "per_2", date(2026, 1, 1), date(2026, 1, 8)),
        facts.PersonLeft("per_1", date(2026, 3, 2)),
        facts.PersonReturned("per_1", date(2026, 6, 1)),
    )

    first, changed, renamed, away, delegated, left, back = (
        folded.at(position + 1).person("per_1") for position in range(10, 80, 10)
    )
    assert first is not None
    assert (first.territory, first.roles, first.joined_on) == (
        "ter_1",
        frozenset({"rep"}),
        date(2020, 1, 1),
    )
    assert first.foreign_ids == (ForeignId("hr", "7"),)
    assert changed is not None
    assert (changed.territory, changed.roles, changed.name) == (
        None,
        frozenset({"manager", "admin"}),
        NAME,
    )
    assert renamed is not None
    assert renamed.name == NEW_NAME
    assert away is not None
    assert away.absences == (Absence(date(2026, 1, 1), date(2026, 1, 8)),)
    assert delegated is not None
    assert delegated.delegations == (Delegation("per_2", date(2026, 1, 1), date(2026, 1, 8)),)
    assert left is not None
    assert [left.has_left(date(2026, 3, day)) for day in (1, 2, 3)] == [False, True, True]
    assert back is not None
    assert not back.has_left(date(2026, 3, 3))
    assert back.joined_on == date(2026, 6, 1)
    assert list(folded.latest.people()) == [back]
    assert list(folded.at(10).people()) == []
    # What was said before stays.
    assert (back.absences, back.delegations) == (away.absences, delegated.delegations)


def test_an_absence_and_a_delegation_end_before_their_day() -> None:
    """Once stated they ran to their last day, whoever came back before it."""
    day = [date(2026, 1, number) for number in range(32)[1:]]
    folded = organisation(
        facts.PersonJoined("per_1", NAME),
        facts.PersonAway("per_1", day[0], day[8]),
        facts.PersonAway("per_1", day[3], day[9]),
        facts.PersonAway("per_1", day[20], day[25]),
        facts.DelegateNamed("per_1", "per_2", day[0], day[8]),
        facts.AbsenceEnded("per_1", day[3]),
        facts.DelegationEnded("per_1", day[7]),
    )
    person = folded.latest.person("per_1")
    assert person is not None
    # What was to begin on that day does not; what lies ahead stays.
    assert person.absences == (Absence(day[0], day[3]), Absence(day[20], day[25]))
    assert person.delegations == (Delegation("per_2", day[0], day[7]),)
    before = folded.at(60).person("per_1")
    assert before is not None
    assert len(before.absences) == 3


def test_a_fact_of_another_kind_is_a_defect() -> None:
    with pytest.raises(KeyError):
        organisation(facts.PersonLeft("per_none", date(2026, 3, 2)))


def test_an_import_is_open_until_it_is_closed() -> None:
    folded = organisation(
        facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", {"holding_limit": None}, RECORDED),
        facts.ImportOpened("imp_2", "erp", "Asia/Shanghai"),
        facts.ImportClosed("imp_1"),
    )
    opened = folded.at(11).import_("imp_1")
    assert opened is not None
    assert (opened.closed, opened.opened_position, opened.cut_over) == (False, 10, RECORDED)
    assert opened.policy.holding_limit is None
    assert [(each.import_id, each.closed) for each in folded.latest.imports()] == [
        ("imp_1", True),
        ("imp_2", False),
    ]
    assert [each.import_id for each in folded.at(20).imports()] == ["imp_1"]


# --- territories --------------------------------------------------------------------------------


@pytest.fixture
def tree() -> OrganisationAt:
    return organisation(
        facts.TerritoryDefined("ter_all", "全国", None, "per_all"),
        facts.TerritoryDefined("ter_east", "华东", "ter_all", "per_east", ("per_two",)),
        facts.TerritoryDefined("ter_suzhou", "苏州", "ter_east"),
        facts.TerritoryDefined("ter_lost", "失", "ter_gone"),
    ).latest


def test_managers_and_heads_of_those_above(tree: OrganisationAt) -> None:
    assert [each.territory for each in tree.lineage("ter_suzhou")] == [
        "ter_suzhou",
        "ter_east",
        "ter_all",
    ]
    assert [tree.manages(each, "ter_suzhou") for each in ("per_all", "per_east", "per_two")] == [
        True
    ] * 3
    assert [tree.heads(each, "ter_suzhou") for each in ("per_all", "per_east", "per_two")] == [
        True,
        True,
        False,
    ]
    assert not tree.manages("per_east", "ter_all")
    assert not tree.manages("per_all", None)
    assert not tree.manages("per_all", "ter_gone")
    assert [tree.is_manager(each) for each in ("per_two", "per_none")] == [True, False]


def test_what_lies_within_what(tree: OrganisationAt) -> None:
    assert tree.is_within("ter_suzhou", "ter_all")
    assert tree.is_within("ter_east", "ter_east")
    assert not tree.is_within("ter_all", "ter_east")
    assert not tree.is_within("ter_east", None)
    assert not tree.is_within(None, "ter_all")
    assert [each.territory for each in tree.lineage("ter_lost")] == ["ter_lost"]


def test_a_territory_is_as_it_was_said_last() -> None:
    folded = organisation(
        facts.TerritoryDefined("ter_1", "华东", None, "per_1", ("per_2",)),
        facts.TerritoryDefined("ter_2", "华北"),
        facts.TerritoryDefined("ter_1", "大华东", "ter_2"),
    )
    found = folded.latest.territory("ter_1")
    assert found is not None
    assert (found.name, found.parent, found.head, found.managers) == (
        "大华东",
        "ter_2",
        None,
        frozenset(),
    )
    assert [each.territory for each in folded.latest.territories()] == ["ter_1", "ter_2"]
    assert [each.territory for each in folded.at(15).territories()] == ["ter_1"]


def test_a_circle_of_territories_ends() -> None:
    folded = organisation(
        facts.TerritoryDefined("ter_1", "a", "ter_2"), facts.TerritoryDefined("ter_2", "b", "ter_1")
    )
    assert [each.territory for each in folded.latest.lineage("ter_1")] == ["ter_1", "ter_2"]


# --- days ---------------------------------------------------------------------------------------

zones = st.sampled_from(
    [
        "UTC",
        "Asia/Shanghai",
        "Europe/Berlin",
        "America/Santiago",
        "America/Havana",
        "Africa/Cairo",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Pacific/Kiritimati",
    ]
)
days = st.dates(date(2015, 1, 1), date(2035, 12, 31))
YEAR_2015 = datetime(2015, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def zoned(zone: str) -> OrganisationAt:
    return organisation(facts.OrganisationFounded("公司", zone)).latest


@given(zones, days)
def test_a_day_begins_where_the_one_before_ends(zone: str, day: date) -> None:
    at = zoned(zone)
    begins = at.start_of(day)
    assert begins.utcoffset() == timedelta(0)
    assert at.day(begins) == day
    assert at.day(begins - TICK) == day - timedelta(days=1)


@given(
    zones,
    st.integers(0, 20 * 365 * 86_400).map(lambda seconds: YEAR_2015 + timedelta(seconds=seconds)),
    st.integers(1, 400),
)
def test_days_later_it_is_the_same_time_of_that_day(
    zone: str, moment: datetime, count: int
) -> None:
    at = zoned(zone)
    later = at.days_after(moment, count)
    assert later.utcoffset() == timedelta(0)
    local, local_later = moment.astimezone(at.time_zone), later.astimezone(at.time_zone)
    wanted = local.replace(tzinfo=None) + timedelta(days=count)
    # A time that a day leaves out is an hour later, or half of one on Lord Howe.
    assert timedelta(0) <= local_later.replace(tzinfo=None) - wanted <= timedelta(hours=1)
    assert later > moment
