"""Collaborators: given events, then rows."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest

from ledger import reasons
from ledger.events import requests
from ledger.events.values import Site
from projections.approvals import Outcome
from projections.collaborators import (
    ASKED,
    ENDED,
    STANDING,
    Status,
    collaboration_of,
    list_collaborations,
)
from projections.deadlines import due
from projections.telling import ids_named, sentence
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])


def _history() -> History:
    history = History().found(protection_days=0)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b", "per_c"):
        history.join(person, "ter_east")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    site = Site("sit_1", history.seal("cus_1", "name", "总部"))
    history.ask(requests.CustomerChangeRequested("cus_1", sites=(site,)), actor="per_a")
    return history.later(hours=1)


def _collaborate(
    history: History, name: str, person: str, actor: str = "per_a", **more: Any
) -> int:
    reason = history.seal("cus_1", "reason", "一起拜访")
    asked = requests.CollaborationRequested(
        "cus_1", name, person, "presales", "joint_visit", reason, **more
    )
    return history.ask(asked, actor=actor)


def _end(history: History, name: str, actor: str = "per_a") -> int:
    return history.ask(requests.CollaborationEndRequested("cus_1", name, "done"), actor=actor)


@BATCHES
def test_one_that_holds_at_once_and_ends(models: Models, batch: int) -> None:
    history = _history()
    until = history.now.date() + timedelta(days=9)
    begun = _collaborate(
        history, "col_1", "per_b", share=Decimal("12.5"), site="sit_1", until_day=until
    )
    models.project(history, batch=batch)
    row = collaboration_of(models.connection, "col_1")
    assert row is not None
    assert (row.customer, row.person, row.role) == ("cus_1", "per_b", "presales")
    assert (row.share, row.site, row.requester) == (Decimal("12.5"), "sit_1", "per_a")
    assert (row.status, row.since, row.reason_code) == ("standing", history.now, "joint_visit")
    assert row.until == history.organisation.latest.start_of(until)
    assert (row.opened_position, row.changed_position) == (begun + 1, begun + 1)
    assert row.is_current(history.now)
    assert not row.is_current(history.now + timedelta(days=10))
    assert list_collaborations(models.connection, current_at=history.now) == [row]
    assert list_collaborations(models.connection, current_at=row.until) == []

    ended = _end(history.later(days=1), "col_1")
    models.project(history, batch=batch)
    row = collaboration_of(models.connection, "col_1")
    assert row is not None
    assert (row.status, row.until, row.reason_code) == ("ended", history.now, "done")
    assert (row.opened_position, row.changed_position) == (begun + 1, ended + 1)


def test_one_that_begins_later_does_not_stand_yet(models: Models) -> None:
    """It was listed as one that does."""
    history = _history()
    first, last = (history.now.date() + timedelta(days=each) for each in (2, 4))
    _collaborate(history, "col_1", "per_b", from_day=first, until_day=last)
    models.project(history)
    row = collaboration_of(models.connection, "col_1")
    assert row is not None
    told = [row.status_at(history.now + timedelta(days=each)) for each in (0, 2, 4)]
    assert told == ["to begin", "standing", "over"]


@BATCHES
def test_one_that_is_asked_for_and_answered(models: Models, batch: int) -> None:
    history = _history()
    opened = _collaborate(history, "col_1", "per_b", "per_b") + 1
    models.project(history, batch=batch)
    row = collaboration_of(models.connection, "col_1")
    assert row is not None
    assert (row.status, row.since, row.requester) == ("asked", None, "per_b")
    assert row.is_current(history.now)
    history.later(hours=1).ask(requests.ApprovalGiven("cus_1", "col_1"), actor="per_a")
    models.project(history, batch=batch)
    row = collaboration_of(models.connection, "col_1")
    assert row is not None
    assert (row.status, row.since, row.requester) == ("standing", history.now, "per_b")
    assert (row.reason_code, row.opened_position) == ("joint_visit", opened)


@BATCHES
def test_how_else_it_may_end(models: Models, batch: int) -> None:
    history = _history()
    _collaborate(history, "col_1", "per_b", "per_b")
    for person in ("per_a", "per_head"):
        history.ask(requests.ApprovalDenied("cus_1", "col_1", "not_now"), actor=person)
    _collaborate(history, "col_2", "per_b", "per_b")
    history.ask(requests.TransferWithdrawn("cus_1", "col_2", "withdrawn"), actor="per_b")
    _collaborate(history, "col_3", "per_b", "per_b")
    _collaborate(history, "col_4", "per_c")
    _collaborate(history, "col_5", "per_a")
    history.release("cus_1")
    models.project(history, batch=batch)
    found = {
        row.collaboration: (row.status, row.reason_code)
        for row in list_collaborations(models.connection, customer="cus_1")
    }
    assert found == {
        "col_1": ("refused", reasons.STEP_REFUSED),
        "col_2": ("withdrawn", "joint_visit"),
        "col_3": ("void", reasons.OWNERSHIP_CHANGED),
        "col_4": ("ended", reasons.OWNERSHIP_CHANGED),
    }
    assert list_collaborations(models.connection, current_at=history.now) == []
    newest, *_ = list_collaborations(models.connection, person="per_b", limit=1)
    assert newest.collaboration == "col_3"
    older = list_collaborations(
        models.connection, person="per_b", before=newest.opened_position, status="withdrawn"
    )
    assert [row.collaboration for row in older] == ["col_2"]


@BATCHES
def test_of_several_things_that_await_an_answer_the_next_one_falls_due(
    models: Models, batch: int
) -> None:
    history = _history()
    _collaborate(history, "col_1", "per_b", "per_b")
    asked = requests.TransferRequested("cus_1", "trf_1", "per_c", "better_placed")
    history.later(hours=1).ask(asked, actor="per_a")
    for name in ("col_1", "trf_1"):
        models.project(history, batch=batch)
        (row,) = due(models.connection, history.now + timedelta(days=99))
        assert (row.customer, row.subject) == ("cus_1", name)
        history.ask(requests.ApprovalGiven("cus_1", name), actor="per_head")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_c")
    models.project(history, batch=batch)
    assert due(models.connection, history.now + timedelta(days=99)) == []


def test_the_type_of_a_status_has_every_way_in_which_an_approval_ends() -> None:
    """It lacked what expires."""
    ends = set(get_args(Outcome)) - {"completed", "not_opened"}
    assert set(get_args(Status)) == ends | {ASKED, STANDING, ENDED}


def test_answers_to_other_things_are_none_of_its_business(models: Models) -> None:
    history = _history()
    asked = requests.TransferRequested("cus_1", "trf_1", "per_b", "better_placed")
    history.ask(asked, actor="per_a")
    history.ask(requests.ApprovalDenied("cus_1", "trf_1", "not_now"), actor="per_head")
    models.project(history)
    assert list_collaborations(models.connection) == []


def test_the_timeline_tells_it(models: Models) -> None:
    history = _history()
    until = date(2026, 2, 1)
    _collaborate(history, "col_1", "per_b", share=Decimal(30), site="sit_1", until_day=until)
    _collaborate(history, "col_2", "per_c", "per_c")
    _collaborate(history, "col_3", "per_a")
    _end(history, "col_1", "per_b")
    models.project(history)
    entries = timeline(models.connection, "cus_1")
    names = {"per_a": "李想", "per_b": "王芳", "per_c": "孙磊", "per_head": "赵敏"}
    assert {"per_b", "per_c", "per_head"} <= ids_named(entries)
    told = [sentence(each, names) for each in entries]
    assert told[-8:] == [
        "李想 asked that 王芳 may collaborate as presales at the site sit_1 for 30 % of the credit"
        " until 2026-02-01 (joint visit). (reason: 一起拜访)",
        "王芳 collaborates as presales at the site sit_1 for 30 % of the credit"
        " from 2026-01-05T02:00:00Z until 2026-01-31T16:00:00Z.",
        "孙磊 asked to collaborate as presales (joint visit). (reason: 一起拜访)",
        "The collaboration awaits approval in one step; asked: 李想, 赵敏.",
        "李想 asked to collaborate as presales (joint visit). (reason: 一起拜访)",
        "What was asked about a collaboration was refused: The customer is the claimant's already.",
        "王芳 asked to end a collaboration (done).",
        "王芳 no longer collaborates (done).",
    ]
