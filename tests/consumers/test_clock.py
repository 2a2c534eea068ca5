"""The clock: every deadline once, in order, whoever sleeps, is killed, or runs beside another."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import psycopg
import pytest

from consumers.clock import Clock, ClockLimits, database_now, keep_time
from ledger import commands
from ledger import organisation_commands as facts
from ledger.deadlines import (
    APPROVAL_EXPIRY,
    CLOCK,
    PASSING_ON,
    RECYCLE,
    RECYCLE_WARNING,
    STEP_REMINDER,
)
from ledger.events import decisions, requests
from ledger.policy import Policy
from ledger.store import arrays
from projections.deadlines import Deadlines
from projections.runner import Runner
from tests.consumers.support import check, count
from tests.support.clocks import DatabaseClock, injected
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger
from tests.support.processes import start, wait_until

REPS = ["per_a", "per_b"]


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """A ledger with two reps, whose territory has a head."""
    with open_test_ledger(database) as opened:
        opened.found(REPS, Policy(protection_days=0, daily_claim_limit=None))
        opened.recording.record_facts(
            [
                facts.AddPerson(person="per_head", name="赵敏", territory="ter_1"),
                facts.DefineTerritory(territory="ter_1", name="华东", head="per_head"),
            ],
            opened.origin(),
        )
        yield opened


@pytest.fixture
def time(database: DatabaseUrls) -> DatabaseClock:
    return injected(database)


def ask_for_transfers(ledger: TestLedger, number: int) -> list[str]:
    """Have transfers await the head; return their customers."""
    customers = [ledger.register(f"客户{each}", claim_for="per_a") for each in range(number)]
    for customer in customers:
        ledger.ask(commands.RequestTransfer(customer=customer, receiver="per_b"), "per_a")
    settle(ledger)
    return customers


def settle(ledger: TestLedger) -> None:
    """Decide all that was recorded, and bring the deadlines up to date."""
    ledger.decide()
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        runner = Runner(connection, [Deadlines()], ledger.catalogue)
        runner.start()
        runner.catch_up()


@contextmanager
def clock(ledger: TestLedger, batch: int = 500) -> Iterator[Clock]:
    """Open a clock of its own, as another process would have it."""
    limits = ClockLimits(batch_requests_max=batch)
    with (
        open_test_ledger(ledger.urls) as other,
        psycopg.connect(ledger.urls.service_url, autocommit=True) as connection,
    ):
        arrays.register(connection)
        yield Clock(connection, other.recording, limits, DatabaseClock.now)


def raised(ledger: TestLedger) -> list[requests.DeadlineReached]:
    """Return the deadlines in the log, in its order."""
    return [e.data for e in ledger.log() if isinstance(e.data, requests.DeadlineReached)]


def brought(ledger: TestLedger) -> Counter[str]:
    """Return what the deadlines in the log have brought."""
    log = ledger.log()
    asked = {e.position for e in log if isinstance(e.data, requests.DeadlineReached)}
    return Counter(type(e.data).__name__ for e in log if e.causation in asked)


def check_each_once(ledger: TestLedger) -> None:
    """No deadline stands in the log twice, each brought something, and the log holds."""
    found = Counter((each.kind, each.subject, each.due) for each in raised(ledger))
    assert set(found.values()) <= {1}
    assert brought(ledger)["Noted"] == 0
    check(ledger)


# --- one clock ---------------------------------------------------------------------------------


def test_what_is_due_is_raised_once_and_in_time(ledger: TestLedger, time: DatabaseClock) -> None:
    (customer,) = ask_for_transfers(ledger, 1)
    with clock(ledger) as its:
        time.later(days=1, hours=23)
        assert its.run_once() == 0
        time.later(hours=2)
        assert its.run_once() == 1
        # Before it is decided and projected it would be raised again.
        assert its.run_once() == 0
        ledger.decide()
        assert its.run_once() == 0
        settle(ledger)
        assert its.run_once() == 0
    (only,) = raised(ledger)
    assert (only.customer, only.kind) == (customer, STEP_REMINDER)
    (event,) = (e for e in ledger.log() if e.data == only)
    assert (event.actor, event.caller) == (CLOCK, CLOCK)
    assert event.recorded >= only.due
    check_each_once(ledger)


def test_a_clock_that_starts_first_waits_for_the_read_model(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    """It asked a table that was not made yet, and ended a service at its very first start."""
    with clock(ledger) as its:
        assert its.run_once() == 0
        ask_for_transfers(ledger, 1)
        assert its.run_once() == 0


def test_a_clock_that_slept_a_week_catches_up_in_order(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    """A reminder that comes a week late still runs its two days before the step is passed on."""
    ask_for_transfers(ledger, 3)
    time.later(days=9)
    with clock(ledger, batch=2) as its:
        assert its.run_once() == 3
        settle(ledger)
        assert its.run_once() == 0
        time.later(days=1, hours=23)
        assert its.run_once() == 0
        time.later(hours=2)
        assert its.run_once() == 3
        settle(ledger)
        time.later(days=7)
        while its.run_once():
            settle(ledger)
            time.later(days=2, minutes=1)
    kinds = [each.kind for each in raised(ledger)]
    expected = [STEP_REMINDER, PASSING_ON, STEP_REMINDER, APPROVAL_EXPIRY]
    assert kinds == [each for each in expected for _ in range(3)]
    dues = [each.due for each in raised(ledger)]
    assert dues == sorted(dues)
    assert brought(ledger) == {"StepReminded": 6, "StepPassedOn": 3, "ApprovalClosed": 3}
    check_each_once(ledger)


def test_a_clock_that_was_told_of_an_older_state_changes_nothing(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    (customer,) = ask_for_transfers(ledger, 1)
    time.later(days=3)
    (opened,) = (
        e.data.approval for e in ledger.log() if isinstance(e.data, decisions.ApprovalOpened)
    )
    ledger.ask(commands.Approve(customer=customer, approval=opened), "per_head")
    with clock(ledger) as its:
        assert its.run_once() == 1
    settle(ledger)
    assert brought(ledger) == {"Noted": 1}
    check(ledger)


def test_a_request_that_is_parked_holds_up_nobody_else(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    """What a read model goes on showing is recorded once all the same."""
    ask_for_transfers(ledger, 2)
    time.later(days=3)
    with clock(ledger) as its, clock(ledger) as another:
        assert its.run_once() == 2
        ledger.decide()  # and nobody projects it
        assert another.run_once() == 0
    assert len(raised(ledger)) == 2


def test_recorded_times_and_the_clock_are_of_one_database(ledger: TestLedger) -> None:
    before = database_now(ledger.connection)
    ledger.register("恒信")
    assert before <= ledger.log()[-1].recorded <= database_now(ledger.connection)


def test_what_was_put_off_is_raised_again_where_that_is_taken_back(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    """A deadline had one request for ever: back at the very moment of then it was never raised.

    So the customer of somebody whose follow-up was voided was not recycled any more.
    """
    policy = Policy.model_validate(
        {"protection_days": 0, "recycling": {"rules": [{"follow_up_days": 10}]}}
    )
    ledger.recording.record_facts([facts.AdoptPolicy(policy=policy)], ledger.origin())
    customer = ledger.register("恒信", claim_for="per_a")
    settle(ledger)
    time.later(days=8)
    voided = 0
    with clock(ledger) as first, clock(ledger) as second:
        for _ in range(2):  # and where it comes to nothing twice
            worked = ledger.ask(commands.LogFollowUp(customer=customer, person="per_a"), "per_a")
            # The read model does not know of it yet.
            assert first.run_once() == 1
            assert second.run_once() == 0
            settle(ledger)
            assert first.run_once() + second.run_once() == 0
            made = worked.made or ""
            ledger.ask(commands.VoidFollowUp(customer=customer, follow_up=made), "per_a")
            settle(ledger)
            voided += 1
            assert brought(ledger) == {"Noted": voided}
        assert first.run_once() == 1
        assert second.run_once() == 0
        settle(ledger)
        assert first.run_once() + second.run_once() == 0
    assert brought(ledger) == {"Noted": 2, "RecycleWarned": 1}
    assert len({each.due for each in raised(ledger)}) == 1
    check(ledger)


# --- two clocks --------------------------------------------------------------------------------


def test_two_clocks_at_once_record_each_deadline_once(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    ask_for_transfers(ledger, 30)
    time.later(days=3)
    barrier, found = threading.Barrier(2), list[int]()

    def work() -> None:
        with clock(ledger, batch=4) as its:
            barrier.wait(30)
            found.append(its.run_once())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(found) == len(raised(ledger)) == 30
    settle(ledger)
    assert brought(ledger) == {"StepReminded": 30}
    check_each_once(ledger)


@pytest.mark.parametrize("seed", range(4))
def test_however_two_clocks_take_turns_each_deadline_is_recorded_once(
    ledger: TestLedger, time: DatabaseClock, seed: int
) -> None:
    """Whatever the order in which clocks, enforcer, projector, people and time go on."""
    random = Random(seed)  # noqa: S311 - which test it is, and no secret
    customers = ask_for_transfers(ledger, 4)
    opened: dict[str, Any] = {
        e.data.customer: e.data.approval
        for e in ledger.log()
        if isinstance(e.data, decisions.ApprovalOpened)
    }

    def answer() -> None:
        customer = random.choice(customers)
        person = random.choice(["per_head", "per_b", ADMINISTRATOR])
        ledger.ask(commands.Approve(customer=customer, approval=opened[customer]), person)

    with clock(ledger, batch=2) as first, clock(ledger, batch=3) as second:
        steps = [
            *[first.run_once, second.run_once, lambda: settle(ledger)] * 3,
            *[ledger.decide, lambda: time.later(days=1), lambda: time.later(days=5)] * 2,
            answer,
        ]
        for _ in range(40):
            random.choice(steps)()
        # In the end the time of everything comes, and everything has an end.
        for _ in range(12):
            settle(ledger)
            time.later(days=14)
            first.run_once()
            second.run_once()
    settle(ledger)
    found = Counter((each.kind, each.subject, each.due) for each in raised(ledger))
    assert set(found.values()) == {1}
    assert count(ledger.urls, "SELECT count(due) FROM projections.deadlines") == 0
    check(ledger)
    log = ledger.log()
    recorded = {e.position: e.recorded for e in log}
    asked = {e.position: e.data for e in log if isinstance(e.data, requests.DeadlineReached)}
    told: dict[str, Any] = {}
    for event in log:
        # Nothing happened before its time, and each warning ran its two days.
        cause = asked.get(event.causation or 0)
        if cause is None or isinstance(event.data, decisions.Noted):
            continue
        assert recorded[event.causation or 0] >= cause.due
        if cause.customer in told:
            assert (event.effective - told[cause.customer]).days >= 2
        told[cause.customer] = event.effective


# --- processes ---------------------------------------------------------------------------------


def _process(urls: DatabaseUrls, batch: int) -> subprocess.Popen[bytes]:
    arguments = [urls.service_url, str(batch)]
    return start(
        sys.executable, "-m", "tests.consumers.clock_process", *arguments, stdout=subprocess.PIPE
    )


def test_where_a_clock_is_killed_another_goes_on(ledger: TestLedger, time: DatabaseClock) -> None:
    ask_for_transfers(ledger, 60)
    time.later(days=3)
    first, second = _process(ledger.urls, 1), None
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"1\n"
        second = _process(ledger.urls, 7)
        first.kill()
        first.wait()
        wait_until(lambda: len(raised(ledger)) == 60)
    finally:
        for process in filter(None, (first, second)):
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    settle(ledger)
    assert brought(ledger) == {"StepReminded": 60}
    check_each_once(ledger)


def test_one_stands_by_while_another_leads(ledger: TestLedger, time: DatabaseClock) -> None:
    ask_for_transfers(ledger, 1)
    time.later(days=3)
    stop, began = threading.Event(), threading.Event()
    limits = ClockLimits(poll_seconds=0.01, standby_seconds=0.01)

    def work() -> None:
        with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
            arrays.register(connection)
            keep_time(
                connection,
                ledger.recording,
                stop,
                stop.wait,
                limits,
                now=DatabaseClock.now,
                raised=lambda count: began.set(),
            )

    leading = psycopg.connect(ledger.urls.service_url, autocommit=True)
    held = "SELECT pg_advisory_lock(hashtext('guishu clock'), hashtext(current_database()))"
    leading.execute(held)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        refused = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND query LIKE 'SELECT pg_try_advisory_lock%%' AND state = 'idle'"
        )
        wait_until(lambda: count(ledger.urls, refused) > 0)
        assert raised(ledger) == []
        leading.close()
        assert began.wait(30)
    finally:
        leading.close()
        stop.set()
        thread.join()
    assert len(raised(ledger)) == 1


# --- recycling ---------------------------------------------------------------------------------


def test_a_customer_that_nobody_works_is_recycled_also_where_the_clock_sleeps(
    ledger: TestLedger, time: DatabaseClock
) -> None:
    """Two weeks too late it warns first, and each warning runs its full time."""
    policy = Policy.model_validate(
        {"protection_days": 0, "recycling": {"rules": [{"follow_up_days": 10}]}}
    )
    ledger.recording.record_facts([facts.AdoptPolicy(policy=policy)], ledger.origin())
    customers = [ledger.register(f"客户{each}", claim_for="per_a") for each in range(4)]
    settle(ledger)
    time.later(days=24)
    with clock(ledger, batch=3) as first, clock(ledger, batch=3) as second:
        for hours, raises in ((0, 4), (47, 0), (2, 4), (22, 0)):
            time.later(hours=hours)
            assert first.run_once() + second.run_once() == raises
            settle(ledger)
        worked = commands.LogFollowUp(customer=customers[0], person="per_a")
        ledger.ask(worked, "per_a")
        settle(ledger)
        time.later(hours=3)
        assert second.run_once() == 3
        settle(ledger)
        assert first.run_once() + second.run_once() == 0
    assert brought(ledger) == {"RecycleWarned": 8, "CustomerRecycled": 3}
    kinds = Counter(each.kind for each in raised(ledger))
    assert kinds == {RECYCLE_WARNING: 8, RECYCLE: 3}
    recycled = {
        e.data.customer for e in ledger.log() if isinstance(e.data, decisions.CustomerRecycled)
    }
    assert recycled == set(customers[1:])
    check_each_once(ledger)
