"""The guards follow from the log: they are compared with it, and made again from it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from consumers.enforcer import EnforcerLimits, GuardsStaleError
from consumers.progress import FencedError
from consumers.rebuilding import compare_guards, rebuild_guards
from ledger import commands
from ledger.events.decisions import OwnershipGranted
from ledger.recording import Recorded
from ledger.store.appending import Append, NewEvent
from tests.consumers.support import (
    PROGRESS_LOCK,
    catch_up,
    check,
    customer_guard,
    enforcing,
    failing_at,
    grants,
    holding,
    running,
)
from tests.support.ledgers import TestLedger

SNAPSHOT = {
    "guards": "SELECT key, version, convert_from(state, 'UTF8')::jsonb FROM ledger.guards"
    " WHERE state IS NOT NULL AND state NOT IN ('null', '0', '[0,0]') ORDER BY key",
    "parked": "SELECT position, customer, split_part(error, ':', 1) FROM ledger.parked_requests"
    " ORDER BY position",
}


class Filled:
    """A ledger in which everything is in use: identifiers, acts, holdings, a parked request."""

    def __init__(self, ledger: TestLedger) -> None:
        self.ledger = ledger
        number = [{"system": "uscc", "value": "91350100M000100Y43"}]
        self.customer = ledger.register("甲公司", identifiers=number, claim_for="per_1")
        self.parked = ledger.register("乙公司", attributes={"region": "华东"})
        ledger.register("甲公司", identifiers=number)
        ledger.ask(
            commands.RecordDeal(customer=self.customer, person="per_1", outcome="won"), "per_1"
        )
        self.bad = ledger.claim(self.parked, "per_2")
        self.behind = ledger.claim(self.parked, "per_3")
        ledger.ask(commands.LogFollowUp(customer=self.customer, person="per_1"), "per_1")
        self.defective = {1: failing_at(self.bad.positions[0])}
        catch_up(ledger, versions=self.defective)

    def unpark(self) -> Recorded:
        position = self.bad.positions[0]
        command = commands.UnparkRequest(customer=self.parked, request=position, decider=1)
        return self.ledger.ask(command)


@pytest.fixture
def filled(ledger: TestLedger) -> Filled:
    return Filled(ledger)


@pytest.fixture
def superuser(ledger: TestLedger) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(ledger.urls.superuser_url, autocommit=True) as connection:
        yield connection


def state(ledger: TestLedger) -> dict[str, list[tuple[object, ...]]]:
    return {name: ledger.connection.execute(q.encode()).fetchall() for name, q in SNAPSHOT.items()}


def rebuild(ledger: TestLedger) -> None:
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        rebuild_guards(connection, ledger.catalogue)


def test_what_is_made_again_is_what_was_there(filled: Filled) -> None:
    ledger = filled.ledger
    before = state(ledger)
    assert len(before["guards"]) == 8
    assert len(before["parked"]) == 2
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    rebuild(ledger)
    assert state(ledger) == before
    assert compare_guards(ledger.connection, ledger.catalogue) == []


def test_what_only_waited_at_the_end_is_read_again(filled: Filled) -> None:
    """The log does not say that the enforcer has come by it."""
    ledger = filled.ledger
    ledger.claim(filled.parked, "per_5")
    catch_up(ledger, versions=filled.defective)
    before = state(ledger)
    rebuild(ledger)
    assert len(state(ledger)["parked"]) == 2
    catch_up(ledger, versions=filled.defective)
    assert state(ledger) == before


def test_everything_goes_on_after_all_was_lost(
    filled: Filled, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    ledger = filled.ledger
    for table in ("guards", "parked_requests", "consumer_progress"):
        superuser.execute(f"TRUNCATE ledger.{table}".encode())
    rebuild(ledger)
    filled.unpark()
    ledger.ask(commands.ReleaseCustomer(customer=filled.customer), "per_1")
    ledger.decide()
    assert grants(ledger) == {filled.customer: 1, filled.parked: 1}
    check(ledger)


def test_it_may_be_made_again_while_what_waited_is_half_decided(filled: Filled) -> None:
    """What an unparking has set free has no parked request in front of it any more."""
    ledger = filled.ledger
    for number in range(8):
        ledger.claim(filled.parked, f"per_{number}")
    limits = EnforcerLimits(batch_requests_max=2)
    catch_up(ledger, versions=filled.defective, limits=limits)
    filled.unpark()
    later = ledger.claim(filled.parked, "per_9")
    with enforcing(ledger, limits=limits) as enforcer:
        enforcer._committed = cut_off  # the process ends behind the first part
        with pytest.raises(InterruptedError):
            enforcer.catch_up()
    rebuild(ledger)
    assert compare_guards(ledger.connection, ledger.catalogue) == []
    ledger.decide()
    assert ledger.decisions(later)[0].data.reason == "owned_by_another"
    check(ledger)


def cut_off() -> None:
    raise InterruptedError


def test_an_unreadable_request_stands_in_nobodys_way(ledger: TestLedger) -> None:
    (bad,) = ledger.committer.append(
        Append((NewEvent("customer-cus_x", "ClaimFiled.v1", b"no json"),))
    ).positions
    ledger.decide()
    before = state(ledger)
    assert [position for position, _, _ in before["parked"]] == [bad]
    rebuild(ledger)
    assert state(ledger) == before
    assert compare_guards(ledger.connection, ledger.catalogue) == []


@pytest.mark.parametrize(
    ("statement", "differs"),
    [
        ("DELETE FROM ledger.guards WHERE key LIKE 'customer%%{customer}'", "customer {customer}"),
        (
            "UPDATE ledger.guards SET version = version - 1 WHERE key LIKE '%%{customer}'",
            "customer {customer}",
        ),
        (
            "UPDATE ledger.guards SET state = '[7,7]' WHERE key LIKE 'holdings%%per_1'",
            "holdings per_1",
        ),
        ("DELETE FROM ledger.guards WHERE key LIKE 'identifier%%'", "identifier uscc {number}"),
        (
            "INSERT INTO ledger.guards VALUES ('holdings' || chr(31) || 'per_x', 0, '[1,0]')",
            "holdings per_x",
        ),
        ("DELETE FROM ledger.parked_requests WHERE error IS NOT NULL", "parked {bad}"),
        ("DELETE FROM ledger.parked_requests WHERE error IS NULL", "parked {behind}"),
        ("INSERT INTO ledger.parked_requests VALUES (1, 'cus_x', 'Error')", "parked 1"),
    ],
)
def test_what_differs_is_named(
    filled: Filled,
    superuser: psycopg.Connection[tuple[object, ...]],
    statement: str,
    differs: str,
) -> None:
    words = {
        "customer": filled.customer,
        "number": "91350100M000100Y43",
        "bad": str(filled.bad.positions[0]),
        "behind": str(filled.behind.positions[0]),
    }
    ledger = filled.ledger
    superuser.execute(statement.format(**words).replace("%%", "%").encode())
    assert compare_guards(ledger.connection, ledger.catalogue) == [differs.format(**words)]
    rebuild(ledger)
    assert compare_guards(ledger.connection, ledger.catalogue) == []


def test_all_guards_lost_are_told_in_bounds(
    filled: Filled,
    superuser: psycopg.Connection[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    superuser.execute("TRUNCATE ledger.guards")
    monkeypatch.setattr("consumers.rebuilding.DIFFERENCES_MAX", 3)
    assert len(compare_guards(filled.ledger.connection, filled.ledger.catalogue)) == 3


class TestStaleGuards:
    """An enforcer that finds its guards to contradict the log stops and says what to do."""

    LOST = (
        "DELETE FROM ledger.guards",
        "UPDATE ledger.guards SET version = version - 1, state = NULL WHERE key LIKE 'customer%'",
        "DELETE FROM ledger.consumer_progress",
        "UPDATE ledger.consumer_progress SET position = 40",
        "UPDATE ledger.consumer_progress SET position = 1000",
    )

    @pytest.mark.parametrize("statement", LOST)
    def test_it_stops_and_goes_on_when_they_were_made_again(
        self,
        filled: Filled,
        superuser: psycopg.Connection[tuple[object, ...]],
        statement: str,
    ) -> None:
        ledger = filled.ledger
        superuser.execute(statement.encode())
        ledger.ask(commands.ReleaseCustomer(customer=filled.customer), "per_1")
        before = len(ledger.log())
        with enforcing(ledger) as enforcer, pytest.raises(GuardsStaleError) as caught:
            enforcer.catch_up()
        assert "guishu rebuild --guards" in caught.value.way_out
        assert len(ledger.log()) == before
        rebuild(ledger)
        filled.unpark()
        ledger.decide()
        check(ledger)

    def test_the_process_does_not_try_again_and_again(
        self, filled: Filled, superuser: psycopg.Connection[tuple[object, ...]]
    ) -> None:
        ledger = filled.ledger
        superuser.execute("DELETE FROM ledger.guards")
        ledger.claim(filled.customer, "per_4")
        seen = threading.Event()
        with pytest.raises(GuardsStaleError), running(ledger.urls, ended=seen.set):
            assert seen.wait(30)

    def test_somebody_else_who_writes_decisions_is_noticed(self, filled: Filled) -> None:
        ledger = filled.ledger
        name = ledger.catalogue.name_of(OwnershipGranted(filled.customer, "per_9"))
        stream = f"ownership-{filled.customer}"
        ledger.committer.append(Append((NewEvent(stream, name, b"{}"),)))
        ledger.claim(filled.customer, "per_4")
        with enforcing(ledger) as enforcer, pytest.raises(GuardsStaleError):
            enforcer.catch_up()


class TestBesideAnEnforcer:
    """Making guards again, and comparing them, while an enforcer is there."""

    def test_an_enforcer_that_was_there_before_is_fenced(self, filled: Filled) -> None:
        ledger = filled.ledger
        with enforcing(ledger, versions=filled.defective) as enforcer:
            rebuild(ledger)
            ledger.claim(filled.customer, "per_4")
            with pytest.raises(FencedError):
                enforcer.catch_up()
        ledger.decide()

    def test_one_that_comes_meanwhile_waits(self, filled: Filled) -> None:
        ledger = filled.ledger
        limits = EnforcerLimits(lock_timeout_ms=20)
        with holding(ledger.urls, PROGRESS_LOCK), pytest.raises(errors.LockNotAvailable):
            catch_up(ledger, limits=limits)
        ledger.decide()

    def test_what_is_decided_meanwhile_is_no_difference(
        self, filled: Filled, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The guards are read behind the log, and hold what it did not say yet."""
        ledger = filled.ledger
        ledger.ask(commands.ReleaseCustomer(customer=filled.customer), "per_1")
        told: list[int] = []

        def decide_meanwhile(position: int) -> None:
            if not told:
                ledger.decide()
            told.append(position)

        assert compare_guards(ledger.connection, ledger.catalogue, decide_meanwhile) == []
        assert len(told) >= 2

    def test_an_enforcer_goes_on_beside_and_behind_it(self, filled: Filled) -> None:
        ledger = filled.ledger
        with running(ledger.urls):
            for number in range(5):
                ledger.claim(filled.customer, f"per_{number}")
                rebuild(ledger)
                assert compare_guards(ledger.connection, ledger.catalogue) == []
        filled.unpark()
        ledger.decide()
        check(ledger)


def test_the_key_of_a_customer_is_its_row(filled: Filled) -> None:
    row = filled.ledger.connection.execute(
        "SELECT version FROM ledger.guards WHERE key = %s", (customer_guard(filled.customer),)
    ).fetchone()
    assert row == (4,)
