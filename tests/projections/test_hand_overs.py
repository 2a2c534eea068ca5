"""Hand-overs and their receipts: given events, then rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ledger import reasons
from ledger.deciders import LATEST
from ledger.events import requests
from ledger.handing_over import PART_CUSTOMERS
from projections.collaborators import list_collaborations
from projections.hand_overs import (
    counts_of,
    hand_over_of,
    hand_overs_named,
    lines_of,
    list_hand_overs,
)
from projections.intervals import HANDED_OVER, of_customer
from projections.ownership import owner_of
from projections.telling import sentence
from projections.timeline import history as timeline
from tests.projections.history import History
from tests.projections.models import Models


@pytest.fixture(autouse=True)
def nothing_parked(models: Models) -> Iterator[None]:
    """No read model meets anything that it cannot apply."""
    yield
    assert models.parked() == []


BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])


def _history(count: int = 3, **rules: Any) -> History:
    history = History().found(**{"protection_days": 0, **rules})
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b", "per_c"):
        history.join(person, "ter_east")
    for number in range(count):
        history.register(f"cus_{number:03d}")
        history.claim(f"cus_{number:03d}", "per_a")
    return history.later(hours=1)


def _order(history: History, name: str = "hov_1", **more: Any) -> int:
    order = requests.HandOverRequested(
        "per_a",
        name,
        ("per_b",),
        "all_to_one",
        "moved_on",
        history.seal("per_a", "reason", "调岗"),
        **more,
    )
    return history.ask(order, actor="per_head")


@BATCHES
def test_a_receipt_of_what_moved_and_what_stays(models: Models, batch: int) -> None:
    history = _history(approval_rules=[])
    history.ask(requests.CustomerChangeRequested("cus_001", closed=True))
    ordered = _order(history)
    models.project(history, batch=batch)
    row = hand_over_of(models.connection, "hov_1")
    assert row is not None
    assert [row] == list_hand_overs(models.connection, giver="per_a")
    assert {"hov_1": row} == hand_overs_named(models.connection, ["hov_1", "hov_9"])
    assert (row.giver, row.receivers, row.plan) == ("per_a", ("per_b",), "all_to_one")
    assert (row.orderer, row.reason_code, row.reason) == ("per_head", "moved_on", "调岗")
    assert (row.state, row.refused_because, row.chosen) == ("done", None, {})
    assert (row.moved, row.waiting, row.settled) == (2, 0, 0)
    assert row.refused == {reasons.CUSTOMER_CLOSED: 1}
    assert (row.position, row.changed_position) == (ordered, history.position)
    lines = lines_of(models.connection, "hov_1")
    assert [(each.customer, each.outcome, each.reason, each.receiver) for each in lines] == [
        ("cus_000", "moved", None, "per_b"),
        ("cus_001", "refused", reasons.CUSTOMER_CLOSED, None),
        ("cus_002", "moved", None, "per_b"),
    ]
    assert counts_of(models.connection, "hov_1") == {"customer moved": 2, "customer refused": 1}
    assert lines_of(models.connection, "hov_1", outcome="refused") == lines[1:2]
    assert lines_of(models.connection, "hov_1", after=lines[0].position, limit=1) == lines[1:2]
    assert hand_over_of(models.connection, "hov_9") is None


@BATCHES
def test_customers_move_in_every_read_model(models: Models, batch: int) -> None:
    history = _history(1, approval_rules=[])
    _order(history)
    models.project(history, batch=batch)
    owned = owner_of(models.connection, "cus_000")
    assert owned is not None
    assert owned.owner == "per_b"
    (older,) = (each for each in of_customer(models.connection, "cus_000") if each.owner == "per_a")
    assert older.end_reason == HANDED_OVER


@BATCHES
def test_what_becomes_of_lines_that_wait(models: Models, batch: int) -> None:
    history = _history()
    position = _order(history)
    models.project(history, batch=batch)
    assert counts_of(models.connection, "hov_1") == {"customer waiting": 3}
    first, second, third = (each.approval for each in lines_of(models.connection, "hov_1"))
    assert first == f"apr_{position}_cus_000"
    history.ask(requests.ApprovalGiven("cus_000", first or ""), actor="per_b")
    history.ask(requests.ApprovalDenied("cus_001", second or "", "no_time"), actor="per_b")
    history.ask(requests.TransferWithdrawn("cus_002", third or "", "x"), actor="per_head")
    models.project(history, batch=batch)
    lines = lines_of(models.connection, "hov_1")
    assert [(each.outcome, each.reason) for each in lines] == [
        ("moved", None),
        ("refused", reasons.STEP_REFUSED),
        ("withdrawn", None),
    ]


@BATCHES
def test_a_second_one_makes_the_lines_of_the_first_void(models: Models, batch: int) -> None:
    history = _history(1)
    _order(history)
    _order(history, "hov_2")
    models.project(history, batch=batch)
    (line,) = lines_of(models.connection, "hov_1")
    assert (line.outcome, line.reason) == ("void", reasons.HANDED_OVER)
    assert counts_of(models.connection, "hov_2") == {"approval ended": 1, "customer waiting": 1}
    assert [each.hand_over for each in list_hand_overs(models.connection)] == ["hov_2", "hov_1"]


@BATCHES
def test_what_else_the_giver_held(models: Models, batch: int) -> None:
    history = _history(0)
    for customer in ("cus_1", "cus_2"):
        history.register(customer)
        history.claim(customer, "per_c")
    asked = requests.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x")
    history.ask(asked, actor="per_c")
    transfer = requests.TransferRequested("cus_2", "trf_1", "per_a", "x")
    history.ask(transfer, actor="per_c")
    _order(history, collaborations="give")
    models.project(history, batch=batch)
    row = hand_over_of(models.connection, "hov_1")
    assert row is not None
    assert (row.settled, row.chosen) == (3, {"collaborations": "give"})
    lines = lines_of(models.connection, "hov_1")
    assert [(each.customer, each.what, each.outcome, each.receiver) for each in lines] == [
        ("cus_1", "collaboration", "ended", None),
        ("cus_1", "collaboration", "given", "per_b"),
        ("cus_2", "approval", "ended", None),
    ]
    there = list_collaborations(models.connection, customer="cus_1")
    assert {(each.person, each.status, each.requester) for each in there} == {
        ("per_a", "ended", "per_c"),
        ("per_b", "standing", "per_head"),
    }


@BATCHES
@pytest.mark.parametrize("version", [2, LATEST])
def test_every_figure_is_the_count_of_its_lines(models: Models, batch: int, version: int) -> None:
    """What was settled at the giver's own customers had a line and was not counted, or neither."""
    history = _history(2, approval_rules=[])
    history.version = version
    asked = requests.CollaborationRequested("cus_000", "col_1", "per_c", "presales", "x")
    history.ask(asked, actor="per_a")
    wanted = requests.CollaborationRequested("cus_001", "col_2", "per_c", "presales", "x")
    history.ask(wanted, actor="per_c")
    history.register("cus_9")
    history.claim("cus_9", "per_c")
    theirs = requests.CollaborationRequested("cus_9", "col_3", "per_a", "presales", "x")
    history.ask(theirs, actor="per_c")
    _order(history, collaborators="end", collaborations="give")
    history.ask(requests.ReleaseRequested("cus_9", "x"), actor="per_c")
    models.project(history, batch=batch)
    row = hand_over_of(models.connection, "hov_1")
    assert row is not None
    assert (row.moved, row.settled) == (2, 4)
    assert counts_of(models.connection, "hov_1") == {
        "approval ended": 1,
        "collaboration ended": 2,
        "collaboration given": 1,
        "customer moved": 2,
    }


def test_one_that_is_refused_and_one_that_nobody_has_decided_yet(models: Models) -> None:
    history = _history(0)
    order = requests.HandOverRequested("per_a", "hov_1", ("per_b",), "all_to_one", "moved_on")
    history.ask(order, actor="per_c")
    waiting = requests.HandOverRequested("per_a", "hov_2", ("per_b",), "all_to_one", "moved_on")
    history.request(waiting)
    models.project(history)
    newest, oldest = list_hand_overs(models.connection)
    assert (oldest.state, oldest.refused_because) == ("refused", reasons.NOT_ABOVE_GIVER)
    assert (newest.state, newest.reason, newest.moved) == ("ordered", None, 0)


def test_in_the_middle_of_its_parts(models: Models) -> None:
    rules: dict[str, Any] = {"holding_limit": None, "daily_claim_limit": None}
    history = _history(PART_CUSTOMERS + 1, **rules)
    _order(history)
    left = history.append(models.connection, limit=len(history.events) - 2)
    assert left == 2
    models.runner().catch_up()
    row = hand_over_of(models.connection, "hov_1")
    assert row is not None
    assert (row.state, row.waiting) == ("under_way", PART_CUSTOMERS)
    models.project(history)
    models.rebuild()
    row = hand_over_of(models.connection, "hov_1")
    assert row is not None
    assert (row.state, row.waiting) == ("done", PART_CUSTOMERS + 1)


def test_the_timeline_tells_it(models: Models) -> None:
    history = _history(2)
    history.ask(requests.CustomerChangeRequested("cus_001", closed=True))
    _order(history)
    approval = history.settled.customers["cus_000"].approval  # type: ignore[union-attr]
    assert approval is not None
    history.ask(requests.ApprovalGiven("cus_000", approval.approval), actor="per_b")
    models.project(history)
    names = {"per_a": "李想", "per_b": "王芳", "per_head": "赵敏"}
    told = [sentence(each, names) for each in timeline(models.connection, "cus_000")]
    assert told[-5:] == [
        "The hand-over to 王芳 awaits approval in one step; asked: 王芳.",
        "王芳 approved.",
        "王芳 agreed (step 1).",
        "王芳 owns the customer, which was 李想's, by a hand-over.",
        "What awaited approval is completed.",
    ]
    last = timeline(models.connection, "cus_001")[-1]
    assert sentence(last, names) == (
        "The customer was to be handed over, and stays: The customer is closed."
    )


def test_and_that_it_moved_at_once(models: Models) -> None:
    history = _history(1, approval_rules=[])
    _order(history)
    models.project(history)
    names = {"per_a": "李想", "per_b": "王芳"}
    last = timeline(models.connection, "cus_000")[-1]
    assert sentence(last, names) == "王芳 owns the customer, which was 李想's, by a hand-over."
