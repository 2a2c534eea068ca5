"""Approvals: given events, then rows."""

from __future__ import annotations

from decimal import Decimal

import pytest

from ledger import deadlines, reasons
from ledger.events import requests
from ledger.events.values import Money
from projections.approvals import NOT_OPENED, approval_of, list_approvals
from projections.holdings import workloads
from projections.intervals import TRANSFERRED, of_customer
from projections.ownership import owner_of
from projections.telling import sentence
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])


def _history() -> History:
    history = History().found(protection_days=0)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    history.later(hours=1)
    return history


def _ask(history: History, name: str = "trf_1", receiver: str = "per_b") -> int:
    money = Money(Decimal("88000.00"), "CNY")
    transfer = requests.TransferRequested(
        "cus_1", name, receiver, "better_placed", history.seal("cus_1", "reason", "更近"), money
    )
    return history.ask(transfer, actor="per_a")


def _agree(history: History, person: str, name: str = "trf_1") -> int:
    return history.later(hours=1).ask(requests.ApprovalGiven("cus_1", name), actor=person)


@BATCHES
def test_a_transfer_with_its_steps_and_answers(models: Models, batch: int) -> None:
    history = _history()
    opened = _ask(history) + 1
    models.project(history, batch=batch)
    row = approval_of(models.connection, "trf_1")
    assert row is not None
    assert row == list_approvals(models.connection, is_open=True)[0]
    assert (row.customer, row.purpose, row.requester) == ("cus_1", "transfer", "per_a")
    assert (row.owner, row.receiver, row.reason_code) == ("per_a", "per_b", "better_placed")
    assert (row.value, row.outcome) == (Money(Decimal("88000.00"), "CNY"), None)
    assert (row.opened_position, row.changed_position) == (opened, opened)
    assert row.state is not None
    assert [len(each.step.approvers) for each in row.state.steps] == [1, 1]

    _agree(history, "per_head")
    models.project(history, batch=batch)
    row = approval_of(models.connection, "trf_1")
    assert row is not None
    assert row.state is not None
    assert row.state == history.settled.customers["cus_1"].approval  # type: ignore[union-attr]
    assert (row.state.current, row.state.answered) == (1, frozenset({"per_head"}))

    _agree(history, "per_b")
    models.project(history, batch=batch)
    row = approval_of(models.connection, "trf_1")
    assert row is not None
    assert (row.outcome, row.outcome_reason, row.closed) == ("completed", None, history.now)
    assert list_approvals(models.connection, is_open=True) == []
    assert list_approvals(models.connection, is_open=False) == [row]


@BATCHES
def test_a_transfer_moves_the_customer_in_every_read_model(models: Models, batch: int) -> None:
    history = _history()
    history.deal("cus_1", "per_a")
    _ask(history)
    _agree(history, "per_head")
    moved = _agree(history, "per_b") + 2
    models.project(history, batch=batch)
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert (owned.owner, owned.since, owned.changed_position) == ("per_b", history.now, moved)
    newest, oldest = sorted(of_customer(models.connection, "cus_1"), key=lambda i: -i.from_position)
    assert (newest.owner, newest.from_position, newest.to_position) == ("per_b", moved, None)
    assert (oldest.owner, oldest.to_position, oldest.end_reason) == ("per_a", moved, TRANSFERRED)
    held = {
        each.person: (each.held, each.held_won)
        for each in workloads(models.connection, ["per_a", "per_b"], now=history.now)
    }
    assert held == {"per_a": (0, 0), "per_b": (1, 1)}


@BATCHES
def test_how_else_it_may_end(models: Models, batch: int) -> None:
    history = _history()
    _ask(history, "trf_1", "per_a")
    _ask(history, "trf_2")
    history.ask(requests.ApprovalDenied("cus_1", "trf_2", "not_now"), actor="per_head")
    _ask(history, "trf_3")
    history.ask(requests.TransferWithdrawn("cus_1", "trf_3", "withdrawn"), actor="per_a")
    _ask(history, "trf_4")
    history.release("cus_1")
    models.project(history, batch=batch)
    found = {
        row.approval: (row.outcome, row.outcome_reason)
        for row in list_approvals(models.connection, customer="cus_1")
    }
    assert found == {
        "trf_1": (NOT_OPENED, reasons.ALREADY_YOURS),
        "trf_2": ("refused", reasons.STEP_REFUSED),
        "trf_3": ("withdrawn", None),
        "trf_4": ("void", reasons.OWNERSHIP_CHANGED),
    }
    assert approval_of(models.connection, "trf_9") is None
    newest, *older = list_approvals(models.connection, requester="per_a", limit=1)
    assert (newest.approval, older) == ("trf_4", [])
    before = list_approvals(models.connection, receiver="per_b", before=newest.opened_position)
    assert [row.approval for row in before] == ["trf_3", "trf_2"]


@BATCHES
def test_one_that_nobody_answers_is_reminded_passed_on_and_expires(
    models: Models, batch: int
) -> None:
    history = _history()
    _ask(history)
    for expected in (
        "step_reminder",
        "step_pass_on",
        "step_reminder",
        *["step_pass_on"] * 3,  # where nobody is further up
        "approval_expiry",
    ):
        approval = history.settled.customers["cus_1"].approval  # type: ignore[union-attr]
        assert approval is not None
        found = deadlines.of_approval(approval, history.organisation.latest)
        assert found is not None
        assert found.kind == expected
        history.now = found.due
        asked = requests.DeadlineReached("cus_1", found.kind, found.subject, found.due)
        history.ask(asked, actor=deadlines.CLOCK)
        models.project(history, batch=batch)
        row = approval_of(models.connection, "trf_1")
        assert row is not None
        settled = history.settled.customers["cus_1"].approval  # type: ignore[union-attr]
        assert row.outcome == (None if settled else "expired")
        assert row.state == (settled or approval)
    assert list_approvals(models.connection, is_open=True) == []


def test_the_timeline_tells_it(models: Models) -> None:
    history = _history()
    _ask(history)
    _agree(history, "per_b")
    _agree(history, "per_head")
    _agree(history, "per_b")
    models.project(history)
    names = {"per_a": "李想", "per_b": "王芳", "per_head": "赵敏"}
    told = [sentence(each, names) for each in timeline(models.connection, "cus_1")]
    assert told[-11:] == [
        "李想 asked to transfer the customer to 王芳 with a deal worth 88000.00 CNY"
        " (better placed). (reason: 更近)",
        "The transfer awaits approval in 2 steps; asked: 赵敏.",
        "王芳 approved.",
        "What 王芳 answered does not count: The person is asked at a later step.",
        "赵敏 approved.",
        "赵敏 agreed (step 1).",
        "Step 2 is to be answered now; asked: 王芳.",
        "王芳 approved.",
        "王芳 agreed (step 2).",
        "王芳 owns the customer, which was 李想's.",
        "What awaited approval is completed.",
    ]
