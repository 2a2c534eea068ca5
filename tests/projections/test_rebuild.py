"""Making read models again: healing, swapping under readers, comparing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from ledger.events.catalogue import catalogue
from projections import rebuild as rebuilding
from projections.base import FRESH, LIVE
from projections.claims import Claims
from projections.comparing import Difference, digests
from projections.holdings import Holdings
from projections.intervals import OverlapError
from projections.ownership import list_ownership
from projections.rebuild import RebuildRunningError, SwapError, compare, rebuild
from projections.runner import ProjectorFencedError, positions
from tests.projections.history import History
from tests.projections.models import Models
from tests.support.processes import wait_until


def _history(customers: int = 10) -> History:
    history = History().found()
    for person in ("per_a", "per_b"):
        history.join(person)
    for number in range(customers):
        customer = f"cus_{number:03d}"
        history.register(customer)
        history.claim(customer, "per_a")
        history.later(minutes=1).claim(customer, "per_b")
        history.follow_up(customer, "per_a")
        history.deal(customer, "per_a")
        if number % 3 == 0:
            history.release(customer)
            history.claim(customer, "per_b")
    return history


def _digests(models: Models) -> dict[str, str]:
    return digests(models.connection, models.projections, LIVE)


def test_a_rebuild_makes_the_same_tables(models: Models) -> None:
    history = _history()
    models.project(history, batch=7)
    before = _digests(models)
    assert len(set(before.values())) > len(models.projections)
    told: list[int] = []
    models.rebuild(told.append)
    assert _digests(models) == before
    assert told[-1] == history.position
    assert told == sorted(told)
    assert set(positions(models.connection).values()) == {history.position}


def test_a_rebuild_keeps_keys_indexes_and_rights(models: Models) -> None:
    models.project(_history())
    described = (
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'projections'"
        " ORDER BY 1, 2"
    )
    before = models.rows(described)
    models.rebuild()
    assert models.rows(described) == before
    assert (
        models.rows(
            "SELECT tablename FROM pg_tables WHERE schemaname IN ('projections_fresh',"
            " 'projections_check')"
        )
        == []
    )


def test_a_rebuild_of_some_leaves_the_others_as_they_are(models: Models) -> None:
    history = _history()
    models.project(history)
    before = _digests(models)
    models.rows("DELETE FROM decided_claims RETURNING 1")
    models.rows("DELETE FROM ownership RETURNING 1")
    rebuild(models.connect, [Claims()], catalogue())
    after = _digests(models)
    assert {name for name in before if before[name] != after[name]} == {"ownership"}
    assert set(positions(models.connection).values()) == {history.position}


def test_a_rebuild_before_the_first_start_makes_everything(models: Models) -> None:
    history = _history(3)
    history.append(models.connection)
    models.rebuild()
    assert set(positions(models.connection).values()) == {history.position}
    assert compare(models.connect, models.projections, catalogue()) == []


def test_readers_go_on_while_events_arrive_and_everything_is_rebuilt(models: Models) -> None:
    """A reader never meets an error, a missing table, or fewer customers than it saw before."""
    history = _history(120)
    history.append(models.connection, limit=1_000)
    models.runner().catch_up()
    ended, problems, counts = threading.Event(), [], []

    def watched(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except Exception as error:  # told to the test at its end
                problems.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def read() -> None:
        with models.connect() as connection:
            while not ended.is_set():
                counts.append(len(list_ownership(connection, limit=10_000)))

    def write() -> None:
        with models.connect() as connection:
            while history.append(connection, limit=10):
                pass

    def project() -> None:
        with models.connect() as connection:
            runner = models.runner(connection, batch=50)
            while not (ended.is_set() and runner.position == history.position):
                try:
                    runner.run_once()
                except ProjectorFencedError:
                    runner.start()

    writing = watched(write)
    threads = [watched(read), watched(project), writing]
    rebuilt = 0
    while writing.is_alive() or rebuilt < 2:
        models.rebuild()
        rebuilt += 1
    ended.set()
    for each in threads:
        each.join()
    assert problems == []
    assert counts == sorted(counts)
    assert counts[-1] <= 120
    assert len(list_ownership(models.connection, limit=10_000)) == 120
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []


def _waiting_for_a_lock(models: Models) -> bool:
    return bool(
        models.rows(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
    )


def test_a_swap_behind_a_long_reader_is_tried_again_and_lets_others_read(models: Models) -> None:
    history = _history()
    models.project(history)
    with models.connect() as long, models.connect() as other:
        long.execute("BEGIN")
        long.execute("SELECT count(*) FROM projections.ownership")
        thread = threading.Thread(target=models.rebuild)
        thread.start()
        for number in range(4):
            wait_until(lambda: _waiting_for_a_lock(models))
            # It queues behind the swap, until that gives up for now.
            assert len(list_ownership(other)) == 10
            if number == 1:
                # The next try has it in its delta, and gives that up as well.
                history.claim("cus_001", "per_b")
                history.append(models.connection)
        long.execute("COMMIT")
        thread.join()
    # What came meanwhile is in it.
    assert set(positions(models.connection).values()) == {history.position}
    assert compare(models.connect, models.projections, catalogue()) == []


def test_a_swap_that_never_gets_its_lock_changes_nothing(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = _history()
    runner = models.project(history)
    before = _digests(models)
    monkeypatch.setattr(rebuilding, "SWAP_TRIES_MAX", 2)
    with models.connect() as long:
        long.execute("BEGIN")
        long.execute("SELECT count(*) FROM projections.ownership")
        with pytest.raises(SwapError):
            models.rebuild()
        long.execute("ROLLBACK")
    assert _digests(models) == before
    # The live runner was not fenced, and goes on.
    history.claim("cus_001", "per_b")
    history.append(models.connection)
    assert runner.run_once() == 2
    models.rebuild()
    assert set(positions(models.connection).values()) == {history.position}


def test_a_rebuild_that_was_cut_off_is_begun_anew(models: Models) -> None:
    history = _history()
    models.project(history)
    before = _digests(models)

    class CutOffError(Exception):
        pass

    def cut_off(position: int) -> None:
        raise CutOffError

    with pytest.raises(CutOffError):
        models.rebuild(cut_off)
    assert digests(models.connection, models.projections, FRESH).keys() == before.keys()
    assert _digests(models) == before
    models.rebuild()
    assert _digests(models) == before


def test_of_two_rebuilds_at_once_the_second_is_refused(models: Models) -> None:
    models.project(_history(2))
    refused: list[str] = []

    def second(position: int) -> None:
        with pytest.raises(RebuildRunningError) as caught:
            models.rebuild()
        refused.append(caught.value.code)

    models.rebuild(second)
    assert set(refused) == {"rebuild_running"}
    models.rebuild()


# --- comparing ---------------------------------------------------------------------------------


DAMAGES = {
    "a row that is changed": (
        "UPDATE ownership SET owner = 'per_z' WHERE customer = 'cus_004' RETURNING 1",
        Difference("ownership", 10, 10, "customer cus_004"),
    ),
    "a row that is missing": (
        "DELETE FROM ownership WHERE customer = 'cus_004' RETURNING 1",
        Difference("ownership", 9, 10, "customer cus_004"),
    ),
    "the last row missing": (
        "DELETE FROM ownership WHERE customer = 'cus_009' RETURNING 1",
        Difference("ownership", 9, 10, "customer cus_009"),
    ),
    "a row too many": (
        "INSERT INTO ownership VALUES ('cus_004b', NULL, now(), NULL, NULL, NULL, 1) RETURNING 1",
        Difference("ownership", 11, 10, "customer cus_004b"),
    ),
    "a row too many at the end": (
        "INSERT INTO ownership VALUES ('cus_9', NULL, now(), NULL, NULL, NULL, 1) RETURNING 1",
        Difference("ownership", 11, 10, "customer cus_9"),
    ),
    "a key of two columns": (
        "UPDATE ownership_intervals SET end_reason = 'x' WHERE from_position ="
        " (SELECT min(from_position) FROM ownership_intervals) RETURNING 1",
        None,
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_a_comparison_names_the_table_and_the_first_row_that_differs(
    models: Models, damage: str, expected: Difference | None
) -> None:
    models.project(_history())
    assert models.rows(damage) == [(1,)]
    (found,) = compare(models.connect, models.projections, catalogue())
    if expected is None:
        assert found.table == "ownership_intervals"
        assert found.key.startswith("customer_no ")
        assert "from_position" in found.key
    else:
        assert found == expected
    models.rebuild()
    assert compare(models.connect, models.projections, catalogue()) == []


def test_a_comparison_waits_for_nobody_and_sees_each_at_its_own_position(models: Models) -> None:
    """Read models that stand apart are compared where they stand, while others read and write."""
    history = _history(4)
    history.append(models.connection)
    late = [each for each in models.projections if not isinstance(each, Holdings)]
    early = Models(models.urls, models.connection, [Holdings()])
    models.runner()
    early.runner(batch=20).run_once()
    Models(models.urls, models.connection, late).runner().catch_up()
    assert positions(models.connection)["holdings"] == 20
    assert compare(models.connect, models.projections, catalogue()) == []
    models.rows("DELETE FROM holding_acts RETURNING 1")
    models.rows("UPDATE holdings SET held = held + 1 RETURNING 1")
    found = compare(models.connect, models.projections, catalogue())
    assert "holdings" in {each.table for each in found}
    assert models.rows("SELECT 1 FROM pg_tables WHERE schemaname = 'projections_check'") == []


def test_a_comparison_reports_another_version(models: Models) -> None:
    models.project(_history(2))
    models.rows("UPDATE tracking SET version = 99 WHERE name = 'ownership' RETURNING 1")
    assert compare(models.connect, models.projections, catalogue()) == [
        Difference("ownership", 2, 0, "another version")
    ]


def test_a_comparison_reports_another_shape(models: Models) -> None:
    models.project(_history(2))
    with psycopg.connect(models.urls.service_url) as connection:
        connection.execute("ALTER TABLE projections.ownership ADD COLUMN extra integer")
    (found,) = compare(models.connect, models.projections, catalogue())
    assert found.table == "ownership"
    assert "extra" in found.key


def test_a_rebuild_checks_that_nobody_ever_had_two_owners(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.project(_history(2))
    before = _digests(models)

    def overlapping(connection: object, where: str = LIVE) -> None:
        raise OverlapError(where)

    monkeypatch.setattr(rebuilding, "check_no_overlap", overlapping)
    with pytest.raises(OverlapError, match="projections_fresh"):
        models.rebuild()
    assert _digests(models) == before
