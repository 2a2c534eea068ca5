"""What would be decided, asked before acting: the same as what then is, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from consumers.checking import Checked, WouldWaitError, would_decide
from ledger import commands, reasons
from ledger import organisation_commands as facts
from ledger.commands import CustomerCommand, UnknownIdError
from ledger.events import decisions as d
from ledger.policy import Policy
from ledger.recording import Asked
from tests.consumers.support import catch_up, failing_at
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """Two reps of a territory with a head, who may hold two customers each."""
    with open_test_ledger(database) as opened:
        opened.found(["per_a", "per_b", "per_head"], Policy(holding_limit=2, protection_days=0))
        opened.recording.record_fact(
            facts.DefineTerritory(territory="ter_1", name="华东", head="per_head"),
            opened.origin(),
        )
        yield opened


def _check(ledger: TestLedger, command: CustomerCommand, actor: str) -> Checked:
    asked = Asked(command, ledger.origin(actor))
    return would_decide(ledger.connection, ledger.catalogue, ledger.recording, asked)


def _claim(customer: str, person: str = "per_a") -> commands.FileClaim:
    return commands.FileClaim(customer=customer, claimant=person, note="我先问问")


def _written(ledger: TestLedger) -> list[tuple[object, ...]]:
    """Everything that a check could have left behind."""
    counted = ledger.connection.execute(
        "SELECT (SELECT count(*) FROM ledger.events), (SELECT count(*) FROM ledger.guards),"
        " (SELECT count(*) FROM ledger.request_ids), (SELECT count(*) FROM keys.subject_keys)"
    )
    return counted.fetchall()


def test_a_claim_that_would_be_granted_is_granted_when_it_is_filed(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    ledger.decide()
    before = _written(ledger)
    checked = _check(ledger, _claim(customer), "per_a")
    assert _written(ledger) == before
    filed = ledger.claim(customer, "per_a")
    ledger.decide()
    (decided,) = ledger.decisions(filed)
    assert checked.draft.all == (decided.data,)
    assert isinstance(decided.data, d.OwnershipGranted)
    assert not checked.is_behind


def test_a_refusal_says_why_and_when_to_try_again(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    ledger.claim(customer, "per_a")
    ledger.decide()
    theirs = _check(ledger, _claim(customer, "per_b"), "per_b").draft.data
    assert theirs == d.ClaimRefused(customer, "per_b", reasons.OWNED_BY_ANOTHER, "per_a")
    ledger.ask(commands.ReleaseCustomer(customer=customer, reason_code="done"), "per_a")
    ledger.decide()
    again = _check(ledger, _claim(customer), "per_a").draft.data
    assert isinstance(again, d.ClaimRefused)
    assert again.reason == reasons.COOLDOWN
    assert again.retry_at is not None
    assert again.retry_at > datetime.now(UTC) + timedelta(days=2)


def test_a_limit_counts_what_is_held_elsewhere(ledger: TestLedger) -> None:
    for name in ("甲", "乙"):
        ledger.claim(ledger.register(name), "per_a")
    customer = ledger.register("丙")
    ledger.decide()
    assert _check(ledger, _claim(customer), "per_a").draft.data == d.ClaimRefused(
        customer, "per_a", reasons.HOLDING_LIMIT
    )


def test_of_a_customer_entered_twice_the_one_that_exists_is_asked_for(ledger: TestLedger) -> None:
    first = ledger.register("客户", identifiers=[{"system": "erp", "value": "7"}])
    second = ledger.register("客户", identifiers=[{"system": "erp", "value": "7"}])
    ledger.decide()
    assert _check(ledger, _claim(second), "per_a").draft.data.customer == first


def test_a_transfer_names_who_would_be_asked(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    ledger.claim(customer, "per_a")
    ledger.decide()
    transfer = commands.RequestTransfer(customer=customer, receiver="per_b")
    opened = _check(ledger, transfer, "per_a").draft.data
    assert isinstance(opened, d.ApprovalOpened)
    assert (len(opened.steps), opened.asked) == (2, ("per_head",))
    assert ledger.log()[-1].name != "TransferRequested.v1"


def test_what_still_waits_for_its_decision_is_told(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    ledger.decide()
    ledger.claim(customer, "per_b")
    checked = _check(ledger, _claim(customer), "per_a")
    assert checked.is_behind
    assert isinstance(checked.draft.data, d.OwnershipGranted)


def test_the_door_refuses_as_it_does_when_something_is_recorded(ledger: TestLedger) -> None:
    with pytest.raises(UnknownIdError):
        _check(ledger, _claim("cus_nobody"), "per_a")


def test_a_customer_that_waits_for_a_parked_request_would_wait(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    parked = ledger.claim(customer, "per_a")
    catch_up(ledger, versions={1: failing_at(parked.positions[0])})
    with pytest.raises(WouldWaitError) as raised:
        _check(ledger, _claim(customer), "per_a")
    assert raised.value.code == "would_wait"


def test_an_enforcer_at_work_keeps_no_check_waiting(ledger: TestLedger) -> None:
    customer = ledger.register("客户")
    ledger.decide()
    ledger.connection.execute("SET lock_timeout = '1ms'")
    with psycopg.connect(ledger.urls.service_url) as deciding:
        deciding.execute("SELECT FROM ledger.guards FOR UPDATE")
        assert isinstance(_check(ledger, _claim(customer), "per_a").draft.data, d.OwnershipGranted)
