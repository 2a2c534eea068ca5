"""Deadlines: given events, then what is due, as the decider itself would say."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger import deadlines as rules
from ledger.deadlines import APPROVAL_EXPIRY, CLOCK, PASSING_ON, STEP_REMINDER
from ledger.events import organisation as facts
from ledger.events import requests
from projections.base import LIVE
from projections.comparing import digests
from projections.deadlines import due, reached
from projections.telling import sentence
from projections.timeline import history as timeline
from tests.projections.history import START, History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])
FOR_EVER = START + timedelta(days=3_000)


def _history(**policy: Any) -> History:
    history = History().found(protection_days=0, **policy)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    for number in range(1, 4):
        history.register(f"cus_{number}", territory="ter_east")
        history.claim(f"cus_{number}", "per_a")
    return history


def _ask(history: History, number: int, **how: Any) -> History:
    transfer = requests.TransferRequested(f"cus_{number}", f"trf_{number}", "per_b", "placed")
    history.later(hours=1).ask(transfer, **{"actor": "per_a", **how})
    return history


def _raise_next(history: History, number: int) -> None:
    """Let the clock raise what is next at a customer, in time."""
    customer = history.settled.customers[f"cus_{number}"]
    found = rules.of_approval(customer.approval, history.organisation.latest)  # type: ignore[union-attr, arg-type]
    assert found is not None
    history.now = max(history.now, found.due)
    asked = requests.DeadlineReached(f"cus_{number}", found.kind, found.subject, found.due)
    history.ask(asked, actor=CLOCK)


def _expected(history: History) -> list[tuple[str, Any]]:
    """Return what the settled state says, in order."""
    found = []
    for name, customer in history.settled.customers.items():
        if customer.approval is not None:  # type: ignore[union-attr]
            deadline = rules.of_approval(customer.approval, history.organisation.latest)  # type: ignore[union-attr]
            if deadline is not None:
                found.append((name, deadline))
    return sorted(found, key=lambda each: (each[1].due, each[0]))


def _shown(models: Models) -> list[tuple[str, Any]]:
    rows = due(models.connection, FOR_EVER)
    return [(row.customer, rules.Deadline(row.kind, row.subject, row.due)) for row in rows]


@BATCHES
def test_what_is_due_is_what_the_decider_would_say(models: Models, batch: int) -> None:
    history = _history()
    for number in (1, 2, 3):
        _ask(history, number)
    models.project(history, batch=batch)
    assert [deadline.kind for _, deadline in _shown(models)] == [STEP_REMINDER] * 3
    assert _shown(models) == _expected(history)
    _raise_next(history, 1)
    history.later(hours=1).ask(requests.ApprovalGiven("cus_2", "trf_2"), actor="per_head")
    history.ask(requests.TransferWithdrawn("cus_3", "trf_3", "withdrawn"), actor="per_a")
    models.project(history, batch=batch)
    assert [(name, each.kind) for name, each in _shown(models)] == [
        ("cus_1", PASSING_ON),
        ("cus_2", STEP_REMINDER),
    ]
    assert _shown(models) == _expected(history)
    while _expected(history):
        _raise_next(history, int(_expected(history)[0][0][-1]))
        models.project(history, batch=batch)
        assert _shown(models) == _expected(history)
    assert models.rows("SELECT count(*) FROM deadlines WHERE due IS NOT NULL") == [(0,)]
    assert reached(models.connection) == history.position


@BATCHES
def test_what_an_import_opened_is_due_from_its_closing_on(models: Models, batch: int) -> None:
    history = _history()
    rules_then = {"approval_rules": [{"steps": [{"approvers": [{"kind": "head"}]}]}]}
    history.fact(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules_then))
    _ask(history, 1, occurred=history.now + timedelta(minutes=5), import_id="imp_1")
    models.project(history, batch=batch)
    assert _shown(models) == []
    closing = history.later(days=30).fact(facts.ImportClosed("imp_1"))
    models.project(history, batch=batch)
    ((recorded,),) = models.rows("SELECT recorded FROM ledger.events WHERE position = %s", closing)
    ((customer, deadline),) = _shown(models)
    assert (customer, deadline.kind) == ("cus_1", STEP_REMINDER)
    assert deadline.due == history.organisation.latest.days_after(recorded, 2)


@BATCHES
def test_where_nothing_is_recycled_there_is_a_row_only_for_what_is_open(
    models: Models, batch: int
) -> None:
    """A row of each customer was kept, which made all read models a third slower."""
    history = _history(conflict_kinds=["deal"])
    _ask(history, 1)
    history.follow_up("cus_2", "per_a")
    history.deal("cus_3", "per_b")
    history.release("cus_2")
    models.project(history, batch=batch)
    assert models.rows("SELECT customer FROM deadlines ORDER BY 1") == [("cus_1",), ("cus_3",)]
    history.ask(requests.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), actor="per_a")
    history.release("cus_3")
    models.project(history, batch=batch)
    assert models.rows("SELECT customer FROM deadlines") == []


def test_what_opens_again_begins_anew_wherever_a_batch_ends(models: Models) -> None:
    """A row kept what its last approval had left where both were in one batch, and only there.

    A rebuild has larger batches than the projector, so that the two differed.
    """
    history = _history()
    _ask(history, 1)
    history.ask(requests.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), actor="per_a")
    _ask(history, 2)
    again = requests.TransferRequested("cus_1", "trf_again", "per_b", "placed")
    history.later(hours=1).ask(again, actor="per_a")
    models.project(history, batch=1)
    before = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == before


def test_it_is_paged_in_order_and_a_rebuild_makes_the_same(models: Models) -> None:
    history = _history()
    for number in (3, 1, 2):
        _ask(history, number)
    models.project(history)
    (first,) = due(models.connection, FOR_EVER, limit=1)
    others = due(models.connection, FOR_EVER, after=(first.due, first.customer))
    assert [row.customer for row in (first, *others)] == ["cus_3", "cus_1", "cus_2"]
    assert due(models.connection, first.due) == [first]
    assert due(models.connection, first.due - timedelta(seconds=1)) == []
    before = digests(models.connection, models.projections, LIVE)
    models.rebuild()
    assert digests(models.connection, models.projections, LIVE) == before


def test_before_the_first_start_nothing_is_reflected(models: Models) -> None:
    """It was 0, which is what an empty log has, and the clock asked a table that was not there."""
    assert reached(models.connection) == -1


def test_the_timeline_tells_it(models: Models) -> None:
    history = _ask(_history(), 1)
    for _ in range(3):
        _raise_next(history, 1)
    models.project(history)
    names = {"per_head": "赵敏", "per_admin": "陈建国"}
    told = [sentence(each, names) for each in timeline(models.connection, "cus_1")]
    assert told[-6:] == [
        "A deadline was reached (step reminder).",
        "Step 1 has no answer yet and is reminded; asked: 赵敏.",
        "A deadline was reached (step pass on).",
        "Step 1 still has no answer and is passed on; asked: 陈建国.",
        "A deadline was reached (step reminder).",
        "Step 1 has no answer yet and is reminded; asked: 陈建国.",
    ]
    assert APPROVAL_EXPIRY not in {row.kind for row in due(models.connection, FOR_EVER)}
