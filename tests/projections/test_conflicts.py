"""Conflicts: given events, then rows."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from ledger import reasons
from ledger.deadlines import CLOCK
from ledger.events import requests
from ledger.events.values import Part
from projections.conflicts import conflict_of, conflicts_named, list_conflicts
from projections.deadlines import due
from projections.telling import ids_named, sentence
from projections.timeline import at_positions
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])


def _history() -> History:
    kinds = ["competing_claims", "follow_up", "deal"]
    history = History().found(protection_days=0, conflict_kinds=kinds)
    history.territory("ter_all", head="per_boss")
    history.territory("ter_east", "ter_all", head="per_head")
    history.territory("ter_west", "ter_all")
    history.join("per_boss", "ter_all", ("manager",))
    history.join("per_head", "ter_east", ("manager",))
    for person in ("per_a", "per_b"):
        history.join(person, "ter_east")
    history.join("per_c", "ter_west")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    return history.later(hours=1)


def _rule(history: History, conflict: str, what: str, by: str = "per_head", **terms: object) -> int:
    reason = history.seal("cus_1", "reason", "先联系的")
    given = requests.RulingGiven(
        "cus_1",
        conflict,
        what,
        "first_contact",
        reason,
        **terms,  # type: ignore[arg-type]  # each test knows what a ruling takes
    )
    return history.ask(given, actor=by)


def _last(history: History) -> str:
    """The id of the conflict that the last request opened."""
    return next(
        str(event.data.conflict)
        for event in reversed(history.events)
        if event.name == "ConflictOpened.v1"
    )


@BATCHES
def test_one_that_is_proved_further_and_ruled_on(models: Models, batch: int) -> None:
    history = _history()
    history.follow_up("cus_1", "per_b")
    opened = history.position
    began, conflict = history.now, _last(history)
    models.project(history, batch=batch)
    row = conflict_of(models.connection, conflict)
    assert row is not None
    assert row == list_conflicts(models.connection, is_open=True)[0]
    assert (row.customer, row.kind, row.owner) == ("cus_1", "follow_up", "per_a")
    assert (row.parties, row.evidence) == (("per_a", "per_b"), (opened - 2,))
    assert (row.opened, row.outcome, row.opened_position) == (began, None, opened)

    for person in ("per_b", "per_c"):
        history.later(hours=1).follow_up("cus_1", person)
    models.project(history, batch=batch)
    row = conflict_of(models.connection, conflict)
    assert row is not None
    assert row.parties == ("per_a", "per_b", "per_c")
    assert row.evidence == (opened - 2, opened + 1, opened + 4)
    found = at_positions(models.connection, row.evidence)
    assert [(each.position, each.person) for each in found] == [
        (opened - 2, "per_b"),
        (opened + 1, "per_b"),
        (opened + 4, "per_c"),
    ]

    ruled = _rule(history.later(hours=1), conflict, "award", "per_boss", receiver="per_b")
    models.project(history, batch=batch)
    row = conflict_of(models.connection, conflict)
    assert row is not None
    assert (row.outcome, row.reason_code, row.ruled_by) == ("award", "first_contact", "per_boss")
    assert (row.receiver, row.closed) == ("per_b", history.now)
    assert (row.opened_position, row.changed_position) == (opened, ruled + 1)
    assert list_conflicts(models.connection, is_open=True) == []
    assert list_conflicts(models.connection, is_open=False) == [row]
    assert list_conflicts(models.connection, party="per_c", kind="follow_up") == [row]
    assert list_conflicts(models.connection, party="per_head") == []
    assert list_conflicts(models.connection, before=opened) == []


@BATCHES
def test_one_whose_cause_is_gone(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_b")
    history.deal("cus_1", "per_b")
    history.release("cus_1")
    models.project(history, batch=batch)
    found = [
        (row.kind, row.outcome, row.reason_code, row.ruled_by)
        for row in list_conflicts(models.connection, customer="cus_1")
    ]
    assert found == [
        ("deal", "gone", reasons.OWNERSHIP_CHANGED, None),
        ("competing_claims", "gone", reasons.OWNERSHIP_CHANGED, None),
    ]
    assert conflict_of(models.connection, "cft_0") is None


@BATCHES
def test_what_falls_due_next_and_to_whom_it_was_passed_on(models: Models, batch: int) -> None:
    history = _history()
    history.follow_up("cus_1", "per_b")
    conflict = _last(history)
    history.deal("cus_1", "per_b")
    for passed_on, kind in ((0, "ruling_reminder"), (0, "ruling_pass_on"), (1, "ruling_reminder")):
        models.project(history, batch=batch)
        row = conflict_of(models.connection, conflict)
        assert row is not None
        assert row.passed_on == passed_on
        (first,) = due(models.connection, history.now + timedelta(days=99))
        assert (first.customer, first.kind) == ("cus_1", kind)
        for subject in (conflict, _last(history)):
            history.now = max(history.now, first.due)
            reached = requests.DeadlineReached("cus_1", kind, subject, first.due)
            history.ask(reached, actor=CLOCK)
    for subject in (conflict, _last(history)):
        _rule(history, subject, "keep", "per_boss")
    models.project(history, batch=batch)
    assert due(models.connection, history.now + timedelta(days=99)) == []
    told = [sentence(each, {}) for each in timeline(models.connection, "cus_1")]
    assert "The conflict has no ruling yet, of which is reminded; asked: per_head." in told
    assert "The conflict still has no ruling and is passed on; asked: per_boss." in told
    assert conflicts_named(models.connection, [conflict, "cft_0"]).keys() == {conflict}


def test_the_timeline_tells_it(models: Models) -> None:
    history = _history()
    history.follow_up("cus_1", "per_b")
    conflict = _last(history)
    history.follow_up("cus_1", "per_c")
    _rule(history, conflict, "keep", "per_b")
    _rule(history, conflict, "split", "per_boss", parts=(Part("per_b", Decimal(30)), Part("per_c")))
    history.deal("cus_1", "per_c")
    _rule(history, _last(history), "award", "per_boss", receiver="per_c")
    history.claim("cus_1", "per_b")
    history.release("cus_1")
    models.project(history)
    entries = timeline(models.connection, "cus_1", limit=1_000)
    names = {
        "per_a": "李想",
        "per_b": "王芳",
        "per_c": "孙磊",
        "per_head": "赵敏",
        "per_boss": "陈建国",
    }
    assert names.keys() <= ids_named(entries)
    told = [
        sentence(each, names) for each in entries if each.event.startswith(("Conflict", "Ruling"))
    ]
    assert told == [
        "A conflict of 李想 and 王芳: a follow-up by somebody else; asked: 赵敏.",
        "One more proof of the conflict, which 孙磊 joins; asked: 陈建国.",
        "王芳 ruled that the owner keeps the customer (first contact). (reason: 先联系的)",
        "The ruling of 王芳 does not hold: Nobody judges a cause of their own.",
        "陈建国 ruled that the owner shares the customer with 王芳 for 30 %, 孙磊"
        " (first contact). (reason: 先联系的)",
        "The conflict was ruled on by 陈建国: split.",
        "A conflict of 李想 and 孙磊: a deal by somebody else; asked: 陈建国.",
        "陈建国 ruled that the customer goes to 孙磊 (first contact). (reason: 先联系的)",
        "The conflict was ruled on by 陈建国: award.",
        "A conflict of 李想 and 王芳: another claim so soon after the grant; asked: 赵敏.",
        "The conflict is gone: The ownership ended in another way meanwhile.",
    ]
