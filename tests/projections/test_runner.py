"""The runner: one transaction a batch, fenced against a second, bad streams parked."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from ledger.events import decisions, requests
from ledger.events.catalogue import catalogue
from projections.base import LIVE, Change, Projection, Table
from projections.claims import Claims, of_customer
from projections.comparing import digests
from projections.holdings import workloads
from projections.ownership import Ownership, owner_of
from projections.rebuild import compare
from projections.runner import (
    NotReflectedError,
    ProjectorFencedError,
    Runner,
    RunnerLimits,
    parked_streams,
    positions,
    wait_until,
)
from tests.projections.history import History
from tests.projections.models import Models
from tests.support.processes import start
from tests.support.processes import wait_until as wait_until_true


def _history(customers: int = 20) -> History:
    history = History().found()
    for person in ("per_a", "per_b"):
        history.join(person)
    for number in range(customers):
        customer, person = f"cus_{number}", f"per_{'ab'[number % 2]}"
        history.register(customer)
        history.claim(customer, person)
        history.later(minutes=1).follow_up(customer, person)
        history.deal(customer, person)
        history.release(customer)
        history.claim(customer, person)
    return history


def _digests(models: Models) -> dict[str, str]:
    return digests(models.connection, models.projections, LIVE)


def _check(models: Models) -> None:
    """Every read model is what the log makes of it, and nothing is parked."""
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []


@dataclass
class Picky(Claims):
    """Claims, but for those of one customer, of which it cannot apply some event."""

    customer: str = "cus_bad"
    refuses: Callable[[Change], bool] = field(default=lambda change: True)

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        super().apply(connection, changes)
        for change in changes:
            if change.event.data.customer == self.customer and self.refuses(change):
                raise ValueError(f"no good: {self.customer}")


def _with(models: Models, projection: Projection) -> Models:
    others = [each for each in models.projections if each.name != projection.name]
    return Models(models.urls, models.connection, [*others, projection])


# --- positions ---------------------------------------------------------------------------------


def test_every_read_model_reflects_the_position_that_it_says(models: Models) -> None:
    assert positions(models.connection) == {}
    assert parked_streams(models.connection) == []
    history = _history()
    models.project(history, batch=7)
    expected = {each.name: history.position for each in models.projections}
    assert positions(models.connection) == expected
    wait_until(models.connection, expected, history.position, timeout_seconds=0)


def test_waiting_for_a_position_ends_when_it_is_reached_or_in_time(models: Models) -> None:
    history = _history()
    history.append(models.connection)
    runner = models.runner()
    with pytest.raises(NotReflectedError, match="claims, ownership do not reflect position 3 yet"):
        wait_until(models.connection, ["ownership", "claims"], 3, timeout_seconds=0)
    with models.connect() as reader:
        waiting = threading.Thread(
            target=wait_until, args=(reader, ["ownership"], history.position, 60)
        )
        waiting.start()
        runner.catch_up()
        waiting.join()
    assert positions(models.connection)["ownership"] == history.position


def test_whoever_lags_runs_apart_until_it_stands_where_the_others_do(models: Models) -> None:
    """Finding: who lagged was served first, and what is new waited until it had caught up."""
    history = _history(4)
    history.append(models.connection)
    early = [each for each in models.projections if each.name != "claims"]
    Models(models.urls, models.connection, early).runner(batch=10).catch_up()
    history.claim("cus_1", "per_a")
    history.append(models.connection)
    runner = models.runner(batch=5)
    assert runner.position == 0
    runner.run_once()
    reached = positions(models.connection)
    assert reached.pop("claims") == 5
    assert set(reached.values()) == {history.position}
    runner.catch_up()
    # Not past where the others stand: there they meet, and go on together.
    assert set(positions(models.connection).values()) == {history.position}
    history.claim("cus_2", "per_a")
    history.append(models.connection)
    assert runner.run_once() == 2
    _check(models)


def test_what_was_read_ahead_is_kept_while_somebody_lags(models: Models) -> None:
    history = _history(9)
    history.append(models.connection)
    early = [each for each in models.projections if each.name != "claims"]
    Models(models.urls, models.connection, early).runner(batch=3).run_once()
    runner = models.runner(batch=3)
    runner.catch_up()
    assert set(positions(models.connection).values()) == {history.position}
    _check(models)


class Dying(Claims):
    """Claims whose connection is lost at the end of a batch, once it has seen an event."""

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        super().apply(connection, changes)
        if any(change.event.position == 9 for change in changes):
            raise psycopg.OperationalError("lost")


def test_one_batch_is_one_transaction_for_all_of_them(models: Models) -> None:
    history = _history(4)
    history.append(models.connection)
    assert history.event(9).name == "OwnershipGranted.v1"
    runner = _with(models, Dying()).runner(batch=8)
    runner.run_once()
    before = _digests(models)
    with pytest.raises(psycopg.OperationalError):
        runner.run_once()
    assert set(positions(models.connection).values()) == {8}
    assert (_digests(models), models.parked()) == (before, [])


@dataclass
class Hanging(Claims):
    """Claims that wait in the middle of a batch for what becomes of its session."""

    is_there: Callable[[], bool] = field(default=lambda: False)

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        super().apply(connection, changes)
        try:
            wait_until_true(lambda: not self.is_there(), seconds_max=20)
        except AssertionError:
            # Not as an error, which would have the batch tried again, one statement at a time.
            pytest.fail("the session is there, and keeps what it has locked")


def test_who_hangs_in_the_middle_of_a_batch_lets_go_of_it(models: Models) -> None:
    """To the server its session was not idle: its lead and its rows were kept for ever."""
    if models.connection.info.server_version < 170_000:
        pytest.skip("PostgreSQL ends no transaction for its age before 17")
    _history(1).append(models.connection)
    with models.connect() as connection:
        connection.execute("SET idle_in_transaction_session_timeout = '100ms'")
        there, pid = (
            "SELECT count(*) FROM pg_stat_activity WHERE pid = %s",
            connection.info.backend_pid,
        )

        def is_there() -> bool:
            return models.connection.execute(there, (pid,)).fetchone() == (1,)

        hanging = _with(models, Hanging(is_there=is_there))
        limits = RunnerLimits(batch_seconds_max=0.3)
        runner = Runner(connection, hanging.projections, catalogue(), limits)
        runner.start()
        with pytest.raises(psycopg.OperationalError):
            runner.run_once()
    assert set(positions(models.connection).values()) == {0}


# --- two at once, and death --------------------------------------------------------------------


def test_of_two_runners_the_newer_one_goes_on(models: Models) -> None:
    history = _history(4)
    history.append(models.connection)
    older = models.runner(batch=10)
    older.run_once()
    with models.connect() as connection:
        newer = models.runner(connection, batch=10)
        with pytest.raises(ProjectorFencedError):
            older.run_once()
        newer.catch_up()
        assert newer.position == history.position
    _check(models)
    older.start()
    assert older.position == history.position


def test_two_runners_that_fight_apply_nothing_twice(models: Models) -> None:
    history = _history(60)
    history.append(models.connection)
    fenced: list[int] = []

    def fight() -> None:
        with models.connect() as connection:
            runner = models.runner(connection, batch=20)
            while runner.position < history.position:
                try:
                    runner.run_once()
                except ProjectorFencedError:
                    fenced.append(runner.position)
                    runner.start()

    models.runner()
    fighters = [threading.Thread(target=fight) for _ in range(2)]
    for each in fighters:
        each.start()
    for each in fighters:
        each.join()
    assert fenced
    _check(models)


def test_taking_over_locks_in_the_order_of_names(models: Models) -> None:
    """Finding: it locked in the order of the rows, a batch in that of names, and two that fought
    for the read models could wait for each other until one was ended as a deadlock.
    """
    models.runner()
    names = sorted(each.name for each in models.projections)
    lock = "SELECT FROM projections.tracking WHERE name = ANY(%s) FOR UPDATE NOWAIT"
    with models.connect() as holder, models.connect() as other, models.connect() as taker:
        with holder.transaction():
            holder.execute(lock, (names[:1],))
            taking = threading.Thread(target=models.runner, args=(taker,))
            taking.start()
            process = taker.info.backend_pid
            wait_until_true(lambda: models.rows(_BLOCKED, process) == [(True,)])
            with other.transaction():
                other.execute(lock, (names[1:],))
        taking.join()


_BLOCKED = "SELECT cardinality(pg_blocking_pids(%s)) > 0"


def test_a_killed_projector_loses_and_repeats_nothing(models: Models) -> None:
    history = _history(60)
    history.append(models.connection)
    models.runner()
    command = [sys.executable, "-m", "tests.projections.projecting", models.urls.service_url, "20"]
    killed_at = []
    for batches in (1, 3, 5):
        process = start(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(batches):
            line = process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        killed_at.append(int(line))
    assert 0 < killed_at[0] < killed_at[-1] < history.position
    process = start(*command, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=60)
    assert int(output.split()[-1]) == history.position
    _check(models)


def test_a_failing_database_keeps_nothing_of_the_batch(models: Models) -> None:
    history = _history(4)
    history.append(models.connection)
    with models.connect() as connection:
        runner = models.runner(connection, batch=10)
        runner.run_once()
        # On a foreign server the service is a superuser's session, which only one may end.
        with psycopg.connect(models.urls.superuser_url, autocommit=True) as superuser:
            superuser.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            runner.run_once()
    assert set(positions(models.connection).values()) == {10}
    models.project(history, batch=10)
    _check(models)


# --- parking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3, 2_000])
def test_a_stream_that_cannot_be_applied_is_parked_and_the_others_go_on(
    models: Models, batch: int
) -> None:
    models = _with(models, Picky())
    history = _history(4)
    history.register("cus_bad")
    bad = history.claim("cus_bad", "per_a")
    history.later(hours=1).release("cus_bad")
    history.claim("cus_bad", "per_b")
    history.claim("cus_1", "per_a")
    models.project(history, batch=batch)
    assert models.parked() == [
        ("claims", "customer-cus_bad", bad, "ValueError"),
        ("claims", "ownership-cus_bad", bad + 1, "rows_do_not_fit"),
    ]
    assert of_customer(models.connection, "cus_bad") == []
    assert len(of_customer(models.connection, "cus_1")) == 3
    first, second = parked_streams(models.connection)
    assert (first.stream, first.words) == ("customer-cus_bad", "no good: cus_bad")
    assert (second.position, second.code) == (bad + 1, "rows_do_not_fit")
    # The other read models have all of it.
    owned = owner_of(models.connection, "cus_bad")
    assert owned is not None
    assert owned.owner == "per_b"


class Overlong(Claims):
    """Claims, whose rows of one customer are more than PostgreSQL can index."""

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        super().apply(connection, changes)
        if any(change.event.data.customer == "cus_bad" for change in changes):
            raise psycopg.errors.ProgramLimitExceeded("index row requires 9000 bytes")


def test_what_exceeds_a_limit_of_the_database_is_parked_and_not_tried_for_ever(
    models: Models,
) -> None:
    """Finding: psycopg counts this among the errors of operation, and so the projector stopped,
    came back, and stopped again, for every read model."""
    models = _with(models, Overlong())
    history = _history(1)
    history.register("cus_bad")
    bad = history.claim("cus_bad", "per_a")
    models.project(history)
    assert ("claims", "customer-cus_bad", bad, "ProgramLimitExceeded") in models.parked()
    before = models.parked()
    models.rebuild()
    assert models.parked() == before


def test_a_body_that_is_no_object_is_parked(models: Models) -> None:
    """Finding: it ended the projector with a TypeError. No door lets it in, but a restored dump
    or another program may hold one."""
    history = _history(1)
    bad = history.raw("customer-cus_1", "ClaimFiled.v1", b"[]")
    history.claim("cus_1", "per_a")
    models.project(history)
    assert {(stream, position) for _, stream, position, _ in models.parked()} >= {
        ("customer-cus_1", bad)
    }


def test_what_came_before_in_the_same_batch_stays(models: Models) -> None:
    history = _history(1)
    history.register("cus_bad")
    first = history.claim("cus_bad", "per_a")
    second = history.claim("cus_bad", "per_b")
    refuses: Callable[[Change], bool] = lambda change: change.event.position == second  # noqa: E731
    models = _with(models, Picky(refuses=refuses))
    models.project(history)
    assert [each.position for each in of_customer(models.connection, "cus_bad")] == [first]
    assert [each[:3] for each in models.parked()] == [
        ("claims", "customer-cus_bad", second),
        ("claims", "ownership-cus_bad", second + 1),
    ]


def test_a_parked_stream_stays_parked(models: Models) -> None:
    history = _history(1)
    history.register("cus_bad")
    history.claim("cus_bad", "per_a")
    bad = _with(models, Picky())
    bad.project(history)
    parked = bad.parked()
    assert parked
    history.release("cus_bad")
    history.claim("cus_bad", "per_a")
    # Also when the code was mended meanwhile: what lies between would be missing.
    models.project(history)
    assert models.parked() == parked
    assert of_customer(models.connection, "cus_bad") == []


def test_a_rebuild_after_the_mending_heals_a_parked_stream(models: Models) -> None:
    history = _history(2)
    history.register("cus_bad")
    history.claim("cus_bad", "per_a")
    _with(models, Picky()).project(history)
    assert models.parked()
    models.rebuild()
    _check(models)
    (claim,) = of_customer(models.connection, "cus_bad")
    assert claim.status == "granted"


def test_a_rebuild_without_a_mending_parks_the_same(models: Models) -> None:
    models = _with(models, Picky())
    history = _history(2)
    history.register("cus_bad")
    history.claim("cus_bad", "per_a")
    history.raw("customer-cus_1", "CustomerSung.v1", b"{}")
    history.claim("cus_1", "per_a")
    models.project(history, batch=3)
    parked, before = models.parked(), _digests(models)
    models.rebuild()
    assert (models.parked(), _digests(models)) == (parked, before)
    assert {stream for _, stream, _, _ in parked} >= {"customer-cus_bad", "customer-cus_1"}


@pytest.mark.parametrize("batch", [1, 2_000])
def test_an_event_of_an_unknown_name_parks_its_stream_in_every_read_model(
    models: Models, batch: int
) -> None:
    history = _history(2)
    before = history.claim("cus_1", "per_a")
    unknown = history.raw("customer-cus_1", "CustomerSung.v1", b'{"data":{}}')
    history.claim("cus_0", "per_a")
    models.project(history, batch=batch)
    assert models.parked() == [
        (name, "customer-cus_1", unknown, "unknown_event")
        for name in sorted(each.name for each in models.projections)
    ]
    # What stands before it is there.
    assert of_customer(models.connection, "cus_1")[0].position == before
    assert len(of_customer(models.connection, "cus_0")) == 3


@pytest.mark.parametrize("body", [b"not JSON", b'{"data":{"customer":1}}', b"{}"])
def test_an_event_that_cannot_be_read_parks_its_stream_where_it_is_wanted(
    models: Models, body: bytes
) -> None:
    history = _history(2)
    bad = history.raw("customer-cus_1", "ClaimFiled.v1", body)
    models.project(history)
    wanting = sorted(each.name for each in models.projections if "ClaimFiled.v1" in each.handles)
    assert [each[:3] for each in models.parked()] == [
        (name, "customer-cus_1", bad) for name in wanting
    ]


def test_a_decision_whose_request_cannot_be_read_is_parked_where_it_is_needed(
    models: Models,
) -> None:
    history = _history(2)
    bad = history.raw("customer-cus_1", "FollowUpLogged.v1", b"not JSON")
    noted = history.decided(bad, decisions.Noted("cus_1"))
    history.follow_up("cus_0", "per_a")
    models.project(history, batch=3)
    assert ("holdings", "ownership-cus_1", noted, "cause_missing") in models.parked()
    (workload,) = workloads(models.connection, ["per_a"], now=history.now)
    assert workload.follow_ups == 2


# --- versions ----------------------------------------------------------------------------------


class NewOwnership(Ownership):
    """Ownership with one column more."""

    version = 2
    tables: Sequence[Table] = (
        Table(
            "ownership",
            Ownership.tables[0].columns + ", remark text DEFAULT 'new'",
            Ownership.tables[0].indexes,
        ),
    )


def test_another_version_is_left_alone_until_a_rebuild_brings_it(models: Models) -> None:
    history = _history(2)
    models.project(history)
    newer = _with(models, NewOwnership())
    with newer.connect() as connection:
        runner = Runner(connection, newer.projections, catalogue())
        (outdated,) = runner.start()
        assert outdated.name == "ownership"
        reached = history.position
        history.claim("cus_1", "per_a")
        history.append(models.connection)
        runner.catch_up()
        assert positions(models.connection)["ownership"] == reached
        assert positions(models.connection)["claims"] == history.position
        newer.rebuild()
        # The running one is fenced, begins anew, and keeps the new version as well.
        history.claim("cus_0", "per_b")
        history.append(models.connection)
        with pytest.raises(ProjectorFencedError):
            runner.run_once()
        assert runner.start() == []
        runner.catch_up()
    assert set(positions(models.connection).values()) == {history.position}
    assert newer.rows("SELECT DISTINCT remark FROM ownership") == [("new",)]
    _check(newer)


def test_a_runner_follows_until_it_is_stopped(models: Models) -> None:
    """It asks ``wait`` only when there is nothing to do, and ends where ``stop`` is set."""
    history = _history(2)
    history.append(models.connection)
    stop, waits = threading.Event(), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            history.claim("cus_0", "per_b")
            with models.connect() as connection:
                history.append(connection)
        else:
            stop.set()

    limits = RunnerLimits(batch_events_max=10, poll_seconds=0.125)
    runner = Runner(models.connection, models.projections, catalogue(), limits)
    runner.start()
    runner.run(stop, wait)
    assert waits == [0.125, 0.125]
    assert runner.position == history.position


def test_requests_in_a_batch_without_decisions_are_pending(models: Models) -> None:
    """A decision that comes batches later finds its request, also past what is remembered."""
    history = _history(1)
    asked = [
        history.request(requests.FollowUpLogged("cus_0", f"fup_{n}", "per_a", "phone"))
        for n in range(5)
    ]
    models.project(history, batch=2)
    for request in asked:
        history.decide(request)
    models.project(history, batch=2)
    _check(models)
