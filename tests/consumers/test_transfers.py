"""Transfers through the real store: several decisions of one request stand or fall together."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from consumers.rebuilding import compare_guards
from ledger import commands, reasons
from ledger import organisation_commands as facts
from ledger.events import decisions as d
from ledger.policy import Policy
from ledger.recording import Recorded
from ledger.store import arrays
from ledger.verification import verify_log
from tests.ledger.test_verification import tampering
from tests.support.database import DatabaseUrls
from tests.support.ledgers import TestLedger, open_test_ledger

POLICY = Policy(protection_days=0, cooldown_days=0)


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        yield opened


def _owned(ledger: TestLedger) -> str:
    ledger.found(["per_a", "per_b", "per_head"], POLICY)
    head = facts.DefineTerritory(territory="ter_1", name="华东", head="per_head")
    ledger.recording.record_fact(head, ledger.origin())
    return ledger.register("苏州恒信电子有限公司", "per_a", claim_for="per_a")


def _transfer(ledger: TestLedger, customer: str) -> str:
    asked = ledger.ask(commands.RequestTransfer(customer=customer, receiver="per_b"), "per_a")
    assert asked.made is not None
    return asked.made


def _approve(ledger: TestLedger, customer: str, approval: str, person: str) -> Recorded:
    return ledger.ask(commands.Approve(customer=customer, approval=approval), person)


def _holds(ledger: TestLedger) -> None:
    with psycopg.connect(ledger.urls.superuser_url) as superuser:
        arrays.register(superuser)
        assert verify_log(superuser, ledger.catalogue).failure is None
    assert compare_guards(ledger.connection, ledger.catalogue) == []


@pytest.mark.parametrize("each_apart", [True, False])
def test_a_transfer_is_decided_the_same_in_one_batch_and_in_many(
    ledger: TestLedger, each_apart: bool
) -> None:
    customer = _owned(ledger)
    if each_apart:
        ledger.decide()
    transfer = _transfer(ledger, customer)
    last = None
    for person in ("per_head", "per_b", "per_b"):
        if each_apart:
            ledger.decide()
        last, before = _approve(ledger, customer, transfer, person), last
    ledger.decide()
    assert last is not None
    assert before is not None
    assert [type(each.data) for each in ledger.decisions(before)] == [
        d.StepAnswered,
        d.OwnershipTransferred,
        d.ApprovalClosed,
    ]
    (late,) = ledger.decisions(last)
    assert late.data.reason == reasons.APPROVAL_CLOSED
    _holds(ledger)


def test_guards_made_again_hold_an_approval_that_is_open(ledger: TestLedger) -> None:
    customer = _owned(ledger)
    transfer = _transfer(ledger, customer)
    _approve(ledger, customer, transfer, "per_head")
    ledger.decide()
    _holds(ledger)
    _approve(ledger, customer, transfer, "per_b")
    ledger.decide()
    _holds(ledger)


def test_verify_misses_the_last_of_several_decisions(ledger: TestLedger) -> None:
    customer = _owned(ledger)
    transfer = _transfer(ledger, customer)
    _approve(ledger, customer, transfer, "per_head")
    _approve(ledger, customer, transfer, "per_b")
    ledger.decide()
    with tampering(ledger) as tampered:
        last = len(tampered.log)
        assert isinstance(tampered.log[-1].data, d.ApprovalClosed)
        tampered.execute("DELETE FROM ledger.events WHERE position = %s", last)
        assert tampered.found() == (last, "decision")


@pytest.mark.parametrize(
    ("name", "was", "becomes"),
    [
        ("StepOpened.v1", '"step":1', '"step":0'),
        ("OwnershipTransferred.v1", '"former_owner":"per_a"', '"former_owner":"per_b"'),
        ("ApprovalClosed.v1", '"outcome":"completed"', '"outcome":"void"'),
    ],
)
def test_verify_finds_a_changed_decision_that_is_not_the_first(
    ledger: TestLedger, name: str, was: str, becomes: str
) -> None:
    customer = _owned(ledger)
    transfer = _transfer(ledger, customer)
    _approve(ledger, customer, transfer, "per_head")
    _approve(ledger, customer, transfer, "per_b")
    ledger.decide()
    with tampering(ledger) as tampered:
        position = tampered.position(name)
        (body,) = tampered.superuser.execute(
            "SELECT convert_from(body, 'UTF8') FROM ledger.events WHERE position = %s", (position,)
        ).fetchone() or ("",)
        assert was in body
        tampered.execute(
            "UPDATE ledger.events SET body = convert_to(%s, 'UTF8') WHERE position = %s",
            body.replace(was, becomes),
            position,
        )
        tampered.rehash(position)
        assert tampered.found() == (position, "decision")
