"""Ownership intervals on both time axes: given events, then rows and answers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from ledger.events import decisions, organisation, requests
from projections import schema
from projections.base import FRESH, LIVE
from projections.intervals import (
    CustomerAt,
    Free,
    Interval,
    Intervals,
    OverlapError,
    Owned,
    Unknown,
    begun_at,
    check_no_overlap,
    held_by,
    of_customer,
    of_owner,
    owner_at,
    owners_at,
    position_at,
)
from tests.projections.history import START, History
from tests.projections.models import Models

HOUR = timedelta(hours=1)
BATCHES = pytest.mark.parametrize("batch", [1, 4, 2_000])


def _history() -> History:
    """A claims at 1 o'clock, gives back at 2; B is assigned it at 3."""
    history = History().found()
    history.join("per_a")
    history.join("per_b")
    history.register("cus_1")
    history.later(hours=1).claim("cus_1", "per_a")
    history.later(hours=1).release("cus_1")
    history.later(hours=1).assign("cus_1", "per_b")
    return history


@BATCHES
def test_each_ownership_is_an_interval_with_its_end_and_why(models: Models, batch: int) -> None:
    history = _history()
    models.project(history, batch=batch)
    admitted, granted, released, assigned = (
        each.position for each in history.events if each.stream == "ownership-cus_1"
    )
    assert admitted < granted
    assert of_customer(models.connection, "cus_1") == [
        Interval(
            *("cus_1", "per_a", START + HOUR, START + 2 * HOUR, granted, released),
            *("no_need", None, "granted", "released", None),
        ),
        Interval(
            *("cus_1", "per_b", START + 3 * HOUR, None, assigned, None),
            *(None, "per_admin", "assigned", None, None),
        ),
    ]


@BATCHES
def test_who_owned_it_at_a_moment(models: Models, batch: int) -> None:
    models.project(_history(), batch=batch)
    first = Owned("per_a", START + HOUR, START + 2 * HOUR)
    second = Owned("per_b", START + 3 * HOUR, None)
    answers = {
        START - timedelta(microseconds=1): Unknown(),
        START: Free(START),
        START + HOUR - timedelta(microseconds=1): Free(START),
        START + HOUR: first,
        START + 2 * HOUR - timedelta(microseconds=1): first,
        START + 2 * HOUR: Free(START + 2 * HOUR),
        START + 3 * HOUR: second,
        START + timedelta(days=1000): second,
    }
    for moment, answer in answers.items():
        assert owner_at(models.connection, "cus_1", moment) == answer, moment
    assert owner_at(models.connection, "cus_2", START) == Unknown()


def _recorded(models: Models, position: int) -> datetime:
    ((recorded,),) = models.rows("SELECT recorded FROM ledger.events WHERE position = %s", position)
    assert isinstance(recorded, datetime)
    return recorded


def test_what_was_believed_at_a_moment(models: Models) -> None:
    """The end of the first ownership is known only once the release is in the log."""
    history = _history()
    while history.append(models.connection, limit=1):
        pass
    models.project(history)
    registered, _, claimed, granted, _, released, _, assigned = range(
        history.position - 7, history.position + 1
    )
    late = START + timedelta(days=1)

    def believed(position: int, as_of: datetime = late) -> object:
        return owner_at(models.connection, "cus_1", as_of, _recorded(models, position))

    assert believed(registered) == Unknown()
    assert believed(registered + 1) == Free(START)
    assert believed(claimed) == Free(START)
    assert believed(granted) == Owned("per_a", START + HOUR, None)
    assert believed(granted, START + HOUR / 2) == Free(START)
    assert believed(released) == Free(START + 2 * HOUR)
    assert believed(released, START + HOUR) == Owned("per_a", START + HOUR, START + 2 * HOUR)
    assert believed(assigned) == Owned("per_b", START + 3 * HOUR, None)
    before = _recorded(models, 1) - timedelta(seconds=1)
    assert owner_at(models.connection, "cus_1", late, before) == Unknown()


def test_the_last_position_recorded_at_or_before_a_moment(models: Models) -> None:
    history = History().found()
    assert position_at(models.connection, START) == 0
    while history.append(models.connection, limit=2):
        pass
    times = models.rows("SELECT position, recorded FROM ledger.events ORDER BY position")
    assert len(times) == history.position > 2
    for _, recorded in times:
        for moment in (recorded, recorded - timedelta(microseconds=1)):
            expected = max((each for each, at in times if at <= moment), default=0)
            assert position_at(models.connection, moment) == expected


@BATCHES
def test_of_ownerships_at_one_instant_the_last_position_counts(models: Models, batch: int) -> None:
    """An empty interval belongs to nobody at any moment, and does not hide what follows it."""
    history = History().found()
    history.join("per_a")
    history.join("per_b")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    history.release("cus_1")
    history.claim("cus_1", "per_b")
    history.register("cus_2")
    history.claim("cus_2", "per_a")
    history.release("cus_2")
    models.project(history, batch=batch)
    assert owner_at(models.connection, "cus_1", START) == Owned("per_b", START, None)
    assert owner_at(models.connection, "cus_2", START) == Free(START)
    assert [each.owner for each in of_customer(models.connection, "cus_1")] == ["per_a", "per_b"]
    check_no_overlap(models.connection)


def test_before_the_cut_over_of_an_opening_balance_it_is_unknown_not_free(models: Models) -> None:
    history = History().found()
    history.join("per_a")
    cut_over = START - timedelta(days=10)
    opened = organisation.ImportOpened("imp_1", "opening", "Asia/Shanghai", {}, cut_over)
    history.fact(opened)
    registration = requests.RegistrationRequested("cus_1", "organisation", "公司", opening=True)
    history.ask(registration, occurred=cut_over, import_id="imp_1")
    history.claim("cus_1", "per_a", occurred=cut_over, import_id="imp_1")
    models.project(history)
    assert owner_at(models.connection, "cus_1", cut_over - HOUR) == Unknown()
    assert owner_at(models.connection, "cus_1", cut_over) == Owned("per_a", cut_over, None)


def test_whose_every_customer_was_at_a_moment_in_pages(models: Models) -> None:
    history = _history()
    history.register("cus_2")
    history.later(hours=1).register("cus_3")
    models.project(history)
    moment = START + 3 * HOUR
    expected = [
        CustomerAt("cus_1", Owned("per_b", moment, None)),
        CustomerAt("cus_2", Free(moment)),
        CustomerAt("cus_3", Unknown()),
    ]
    connection = models.connection
    assert owners_at(connection, moment) == expected
    assert owners_at(connection, moment, limit=2) == expected[:2]
    assert owners_at(connection, moment, after="cus_2") == expected[2:]
    before = _recorded(models, 1) - timedelta(seconds=1)
    assert owners_at(connection, moment, before) == []


def test_what_somebody_held_and_why_it_ended_in_pages(models: Models) -> None:
    history = _history()
    history.register("cus_2")
    history.later(hours=1).claim("cus_2", "per_a")
    models.project(history)
    first, second = of_owner(models.connection, "per_a")
    assert (first.customer, first.end_reason) == ("cus_1", "no_need")
    assert (second.customer, second.to_position) == ("cus_2", None)
    assert of_owner(models.connection, "per_a", 1) == [first]
    assert of_owner(models.connection, "per_a", after=first) == [second]
    assert of_owner(models.connection, "per_a", after=second) == []


@BATCHES
def test_how_each_ownership_of_somebody_began_and_ended(models: Models, batch: int) -> None:
    history = History().found(protection_days=0, conflict_kinds=["follow_up"])
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b", "per_c"):
        history.join(person, "ter_east")
    for number in range(1, 5):
        history.register(f"cus_{number}", territory="ter_east")
        history.later(hours=1).claim(f"cus_{number}", "per_a")
    history.release("cus_1", "no_need")
    history.assign("cus_1", "per_b", actor="per_head")
    transfer = requests.TransferRequested("cus_2", "trf_1", "per_b", "moved")
    history.later(hours=1).ask(transfer, actor="per_b")
    history.ask(requests.ApprovalGiven("cus_2", "trf_1"), actor="per_head")
    # Awarded by the head, who need not be asked; the receiver still accepts.
    quarrel = history.ask(requests.FollowUpLogged("cus_3", "fol_1", "per_c", "call"))
    ruling = requests.RulingGiven("cus_3", f"cft_{quarrel}", "award", "heard", receiver="per_c")
    awarded = history.later(hours=1).ask(ruling, actor="per_head")
    history.ask(requests.ApprovalGiven("cus_3", f"apr_{awarded}"), actor="per_c")
    models.project(history, batch=batch)
    connection = models.connection

    def told(person: str, **how: Any) -> list[tuple[Any, ...]]:
        found = held_by(connection, person, **how)
        return [(e.customer, e.begun_by, e.ended_by, e.next_owner) for e in found]

    assert told("per_a", every=True) == [
        ("cus_4", "granted", None, None),
        ("cus_3", "granted", "ruled", "per_c"),
        ("cus_2", "granted", "transferred", "per_b"),
        ("cus_1", "granted", "released", None),
    ]
    assert told("per_a") == [("cus_4", "granted", None, None)]
    assert told("per_b") == [
        ("cus_2", "transferred", None, None),
        ("cus_1", "assigned", None, None),
    ]
    assert told("per_c") == [("cus_3", "ruled", None, None)]
    then = START + 2 * HOUR
    assert [each[0] for each in told("per_a", as_of=then)] == ["cus_2", "cus_1"]
    assert [each[0] for each in told("per_a", as_of=then - HOUR)] == ["cus_1"]
    assert [each[0] for each in told("per_a", as_of=then, every=True)] == ["cus_2", "cus_1"]
    first = held_by(connection, "per_a", every=True, limit=1)
    assert begun_at(connection, "per_a", first[0].from_position) == first[0]
    assert begun_at(connection, "per_b", first[0].from_position) is None
    rest = held_by(connection, "per_a", every=True, before=first[0])
    assert [each.customer for each in rest] == ["cus_3", "cus_2", "cus_1"]


@pytest.mark.parametrize("batch", [1, 2_000])
def test_two_owners_at_one_instant_cannot_be_stored(models: Models, batch: int) -> None:
    """A second grant without a release parks the stream, whether or not in one batch."""
    history = History().found()
    history.join("per_a")
    history.join("per_b")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    request = history.request(requests.ClaimFiled("cus_1", "per_b"))
    bad = history.decided(request, decisions.OwnershipGranted("cus_1", "per_b"))
    models.project(history, batch=batch)
    assert ("intervals", "ownership-cus_1", bad, "UniqueViolation") in models.parked()
    (interval,) = of_customer(models.connection, "cus_1")
    assert (interval.owner, interval.to_position) == ("per_a", None)
    with pytest.raises(psycopg.errors.UniqueViolation):
        models.rows(
            "INSERT INTO ownership_intervals"
            " (customer_no, from_position, from_effective, owner, begun_by)"
            " SELECT customer_no, from_position + 1, from_effective, 'per_b', 'granted'"
            " FROM ownership_intervals RETURNING 1"
        )


@pytest.mark.parametrize("batch", [1, 2_000])
def test_a_release_by_somebody_who_is_not_the_owner_parks_the_stream(
    models: Models, batch: int
) -> None:
    history = History().found()
    history.join("per_a")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    request = history.request(requests.ReleaseRequested("cus_1", "no_need"))
    bad = history.decided(request, decisions.OwnershipReleased("cus_1", "per_b", "no_need"))
    models.project(history, batch=batch)
    assert [each[:3] for each in models.parked() if each[0] == "intervals"] == [
        ("intervals", "ownership-cus_1", bad)
    ]


DAMAGES = {
    "an interval that begins before the one before it ended": (
        "UPDATE ownership_intervals SET from_effective = from_effective - interval '2 hours'"
        " WHERE owner = 'per_b' RETURNING 1"
    ),
    "an interval that ends after the next one began": (
        "UPDATE ownership_intervals SET to_effective = to_effective + interval '2 hours'"
        " WHERE owner = 'per_a' RETURNING 1"
    ),
    "a tie out of order": (
        "UPDATE ownership_intervals SET to_position = to_position + 1000"
        " WHERE owner = 'per_a' RETURNING 1"
    ),
    "an ownership before the customer was known": (
        "UPDATE known_customers SET known_from = known_from + interval '90 minutes' RETURNING 1"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_the_check_of_the_whole_history_names_the_customer(models: Models, damage: str) -> None:
    models.project(_history())
    check_no_overlap(models.connection, LIVE)
    assert models.rows(damage) == [(1,)]
    with pytest.raises(OverlapError, match="cus_1") as caught:
        check_no_overlap(models.connection, LIVE)
    assert caught.value.customer == "cus_1"


def test_the_check_finds_an_overlap_that_positions_do_not_show(models: Models) -> None:
    """The exclusion constraint looks at times alone, and its violation names the customer, too."""
    models.project(_history())
    # Neighbours are in order; the first reaches over its neighbour into the one after.
    models.rows(
        "UPDATE ownership_intervals SET from_effective = from_effective - interval '1 day',"
        " to_effective = from_effective - interval '1 day' WHERE owner = 'per_b'"
        " RETURNING 1"
    )
    with pytest.raises(OverlapError, match="cus_1"):
        check_no_overlap(models.connection)


def test_the_check_of_fresh_tables_does_not_compare_every_row_with_every_other(
    models: Models,
) -> None:
    """Finding: without statistics, as a rebuild leaves the tables, the join of 130,000 intervals
    with 100,000 customers went row by row, and the check took ten minutes instead of seconds.
    """
    models.runner()
    with models.connect() as connection:
        schema.plan_for_batches(connection)
        with connection.transaction():
            schema.make_tables(connection, Intervals(), FRESH, indexed=False)
            connection.execute(
                "INSERT INTO known_customers"
                " SELECT 'cus_' || n, n, '2026-01-01' FROM generate_series(1, 60000) n"
            )
            connection.execute(
                "INSERT INTO ownership_intervals"
                " (customer_no, from_position, from_effective, owner, begun_by)"
                " SELECT n, 100000 + n, '2026-01-01', 'per_a', 'granted'"
                " FROM generate_series(1, 60000) n"
            )
        connection.execute("SET statement_timeout = '30s'")
        check_no_overlap(connection, FRESH)
