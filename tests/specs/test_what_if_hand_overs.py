"""What if another policy had been in force while somebody's customers were handed over."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.deciders import LATEST, decider
from ledger.events import requests
from ledger.handing_over import PART_CUSTOMERS
from tests.projections.history import History
from tests.specs.test_what_if import _decide_again, _same

COUNT = PART_CUSTOMERS + 5


def _handed_over(count: int = COUNT, **rules: Any) -> tuple[History, int]:
    """Return a history in which per_a's customers are handed over, and where that is ordered."""
    history = History().found(protection_days=0, **rules)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    for number in range(count):
        history.register(f"cus_{number:03d}")
        history.claim(f"cus_{number:03d}", "per_a")
    order = requests.HandOverRequested("per_a", "hov_1", ("per_b",), "all_to_one", "moved_on")
    return history, history.ask(order, actor="per_head")


@pytest.mark.parametrize("behind", [-1, 0, 1, 100, PART_CUSTOMERS, PART_CUSTOMERS + 3])
def test_under_the_same_policy_nothing_is_different(behind: int) -> None:
    """Also where it begins in the middle of a hand-over, whose rest stays as it was decided."""
    history, ordered = _handed_over()
    history.claim("cus_000", "per_a")
    report = _decide_again(history, ordered + behind, _same())
    assert (report.decisions.total, report.terms.total, report.owners) == (0, 0, {})
    assert (report.undecidable.total, report.undecided.total) == (0, 0)
    assert report.requests == (2 if behind < 1 else 1)


def test_where_nobody_had_to_be_asked_all_would_have_moved() -> None:
    history, ordered = _handed_over()
    report = _decide_again(history, ordered - 1, _same(approval_rules=()))
    assert report.decisions.total == COUNT
    assert {name: count.total for name, count in report.changes.items()} == {
        ("ApprovalOpened", "OwnershipTransferred"): COUNT
    }
    assert (report.steps.total, report.steps_asked, report.steps_would_be) == (COUNT, COUNT, 0)
    assert set(report.owners.values()) == {("per_a", "per_b")}
    assert len(report.not_waiting) == COUNT


def test_a_receiver_s_limit_would_have_kept_some() -> None:
    history, ordered = _handed_over(4, approval_rules=[])
    report = _decide_again(history, ordered - 1, _same(approval_rules=(), holding_limit=3))
    assert report.owners == {"cus_003": ("per_b", "per_a")}
    assert list(report.changes) == [("OwnershipTransferred", "HandOverLineRefused: holding_limit")]


def test_who_would_own_nothing_hands_nothing_over() -> None:
    history, _ = _handed_over(2, approval_rules=[])
    report = _decide_again(history, 5, _same(approval_rules=(), holding_limit=0))
    assert report.owners == {"cus_000": ("per_b", None), "cus_001": ("per_b", None)}
    assert ("OwnershipTransferred", "") in report.changes


def test_a_customer_that_waits_for_a_parked_request_would_stay_as_it_does() -> None:
    """What would be knew of no parking, and so another owner seemed to follow from the policy."""
    history, _ = _handed_over(0, approval_rules=[])
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    begin = history.position
    parked = history.request(requests.FollowUpLogged("cus_1", "fol_1", "per_a", "call"))
    history.park(parked, "cus_1")
    order = requests.HandOverRequested("per_a", "hov_2", ("per_b",), "all_to_one", "moved_on")
    history.ask(order, actor="per_head")
    history.decide(parked)
    report = _decide_again(history, begin, _same(approval_rules=()))
    assert (report.decisions.total, report.owners, report.undecided.total) == (0, {}, 0)
    assert report.requests == 2


def test_the_rest_of_a_hand_over_that_contradicts_what_would_be_is_left_out() -> None:
    """It began in front of where this begins, and a release behind that would not have to wait."""
    history, _ = _handed_over(0)
    last = f"cus_{COUNT - 1:03d}"
    for number in range(COUNT):
        name = f"cus_{number:03d}"
        history.register(name, attributes={"grade": "key"})
        history.claim(name, "per_a")
    order = requests.HandOverRequested("per_a", "hov_2", ("per_b",), "all_to_one", "moved_on")
    ordered = history.request(order, actor="per_head")
    cause, organisation = history.event(ordered), history.organisation.at(ordered)
    first = decider(LATEST)(history.settled, cause, organisation)
    for ordinal, data in enumerate(first.all):
        history.decided(ordered, data, first.effective, first.policy, first.guards, ordinal)
        history.settled.apply(cause, data, first.effective, organisation)
    begin = history.position
    history.ask(requests.ReleaseRequested(last, "no_need"), actor="per_a")
    history.decide(ordered)
    report = _decide_again(history, begin, _same(approval_rules=()))
    assert report.decisions.customers == {last: 1}
    assert last not in report.owners, "nobody knows how it would have gone on"
    assert report.owners == {}
