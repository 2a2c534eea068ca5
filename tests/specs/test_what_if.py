"""What if another policy had been in force: histories decided again, and what is different."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.approval_rules import ApprovalRule, ApproverRule, StepRule
from ledger.customer import Admitted
from ledger.deadlines import CLOCK, of_approval
from ledger.deciders import DeciderMissingError
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.decisions import Noted
from ledger.folding import Folding
from ledger.policy import Policy
from ledger.what_if import Report, WhatIf
from tests.projections.history import History

OPEN: dict[str, Any] = {
    "holding_limit": None,
    "daily_claim_limit": None,
    "cooldown_days": 0,
    "conflict_kinds": (),
}


def _history(**rules: Any) -> History:
    history = History().found(protection_days=0, **rules)
    history.territory("ter_east", head="per_head")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    for customer in ("cus_1", "cus_2", "cus_3"):
        history.register(customer)
    return history


def _decide_again(history: History, after: int, policy: Policy) -> Report:
    folding = Folding(catalogue())
    requests_ = {each.position: each for each in history.events}
    folding.take_all(history.events[:after], requests_)
    deciding = WhatIf(folding, policy)
    for event in history.events[after:]:  # each a page of its own
        deciding.take_all([event], requests_)
    return deciding.report()


def _same(**rules: Any) -> Policy:
    return Policy(**(OPEN | {"protection_days": 0} | rules))


def test_under_the_same_policy_nothing_is_different() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    history.claim("cus_1", "per_b")
    history.follow_up("cus_1", "per_b")
    deal = history.deal("cus_1", "per_a")
    history.ask(requests.DealVoided("cus_1", deal, "fell_through"), actor="per_a")
    history.ask(requests.TransferRequested("cus_1", "trf_1", "per_b", "moved"), actor="per_a")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_head")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_b")
    for after in (0, begin):
        report = _decide_again(history, after, _same())
        assert (report.decisions.total, report.terms.total, report.owners) == (0, 0, {})
        assert (report.steps.total, report.steps_asked, report.steps_would_be) == (0, 2, 2)
        assert (report.waiting, report.not_waiting) == ([], [])
        assert (report.undecidable.total, report.undecided.total) == (0, 0)
    assert (report.after, report.upto, report.requests) == (begin, history.position, 8)


def test_a_stricter_limit_changes_owners_and_what_follows_from_them() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    history.claim("cus_2", "per_a")
    history.claim("cus_2", "per_b")
    report = _decide_again(history, begin, _same(holding_limit=1))
    assert report.requests == 3
    assert report.decisions.total == 2
    assert report.decisions.customers == {"cus_2": 2}
    assert {change: count.customers for change, count in report.changes.items()} == {
        ("OwnershipGranted", f"ClaimRefused: {reasons.HOLDING_LIMIT}"): {"cus_2": 1},
        # The second claim is judged by what would have become of the first.
        (f"ClaimRefused: {reasons.OWNED_BY_ANOTHER}", "OwnershipGranted"): {"cus_2": 1},
    }
    assert report.owners == {"cus_2": ("per_a", "per_b")}


def test_a_policy_that_looks_at_groups_shows_which_are_divided() -> None:
    history = _history()
    for member in ("cus_2", "cus_3"):
        history.ask(requests.CustomerChangeRequested(member, parent="cus_1"))
    begin = history.position
    history.claim("cus_2", "per_a")
    history.claim("cus_3", "per_b")
    history.later(days=9).release("cus_3")
    report = _decide_again(history, begin, _same(conflict_kinds=["group"]))
    divided, united = report.changes.items()
    assert divided[0] == ("OwnershipGranted", "OwnershipGranted, ConflictOpened")
    assert united[0] == ("OwnershipReleased", "OwnershipReleased, ConflictClosed")
    assert (divided[1].customers, united[1].customers) == ({"cus_3": 1}, {"cus_3": 1})
    # The ruling would have been reminded at the root, and passed on.
    assert report.raised.customers.keys() == {"cus_1"}
    assert report.owners == {}


def test_what_was_decided_before_stays_as_it_was() -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.claim("cus_2", "per_a")
    begin = history.position
    history.claim("cus_3", "per_a")
    report = _decide_again(history, begin, _same(holding_limit=2))
    assert report.requests == 1
    assert report.owners == {"cus_3": ("per_a", None)}


def test_a_request_recorded_before_keeps_the_policy_of_then() -> None:
    history = _history()
    claim = history.request(requests.ClaimFiled("cus_1", "per_a"), actor="per_a")
    begin = history.position
    history.decide(claim)
    report = _decide_again(history, begin, _same(holding_limit=0))
    assert (report.requests, report.decisions.total) == (1, 0)


def test_the_given_policy_holds_also_where_others_were_adopted_since() -> None:
    history = _history()
    begin = history.position
    history.fact(facts.PolicyAdopted(2, _same(holding_limit=0).as_rules()))
    history.claim("cus_1", "per_a")
    report = _decide_again(history, begin, _same())
    assert report.owners == {"cus_1": (None, "per_a")}


def test_other_terms_are_no_other_decision() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    report = _decide_again(history, begin, _same(protection_days=60))
    assert (report.decisions.total, report.terms.customers) == (0, {"cus_1": 1})
    assert report.owners == {}


def test_steps_that_nobody_answered_wait() -> None:
    history = _history()
    history.territory("ter_east", head="per_head")
    history.join("per_boss", roles=("manager",))
    begin = history.position
    history.claim("cus_1", "per_a")
    history.ask(requests.TransferRequested("cus_1", "trf_1", "per_b", "moved"), actor="per_a")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_head")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_b")
    more = ApprovalRule(
        steps=(StepRule(approvers=(ApproverRule(kind="person", person="per_boss"),)),)
    )
    rules = (*Policy().approval_rules, more)
    report = _decide_again(history, begin, _same(approval_rules=rules))
    assert (report.steps.customers, report.steps_asked, report.steps_would_be) == (
        {"cus_1": 1},
        2,
        3,
    )
    assert report.waiting == ["cus_1"]
    assert report.owners == {"cus_1": ("per_b", "per_a")}
    assert list(report.changes) == [
        ("StepAnswered, OwnershipTransferred, ApprovalClosed", "StepAnswered, StepOpened")
    ]


def test_without_steps_nothing_waits_that_waited() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    history.ask(requests.TransferRequested("cus_1", "trf_1", "per_b", "moved"), actor="per_a")
    report = _decide_again(history, begin, _same(approval_rules=()))
    assert (report.waiting, report.not_waiting) == ([], ["cus_1"])
    assert report.owners == {"cus_1": ("per_a", "per_b")}
    assert (report.steps_asked, report.steps_would_be) == (2, 0)


def test_an_import_keeps_its_own_policy() -> None:
    history = _history()
    begin = history.position
    rules = _same().as_rules()
    history.fact(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
    history.claim("cus_1", "per_a", import_id="imp_1", occurred=history.now - timedelta(days=3))
    history.claim("cus_2", "per_a")
    report = _decide_again(history, begin, _same(holding_limit=0))
    # Of the imported claim only what the policy in force would have refused is told differently.
    assert report.decisions.customers == {"cus_2": 1}
    assert report.owners == {"cus_2": ("per_a", None)}


def test_what_was_never_decided_counts_apart() -> None:
    history = _history()
    waiting = history.request(requests.ClaimFiled("cus_1", "per_a"), actor="per_a")
    begin = history.position
    history.request(requests.ClaimFiled("cus_1", "per_b"), actor="per_b")
    report = _decide_again(history, begin, _same())
    assert waiting <= begin
    assert report.undecided.customers == {"cus_1": 1}
    assert report.requests == 0


def test_what_cannot_be_decided_again_counts_apart_with_all_behind_it() -> None:
    """As the customer would wait for the enforcer: what comes later is not guessed at."""
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    broken = history.request(requests.ClaimFiled("cus_2", "per_a"), actor="per_a")
    history.events[broken - 1] = history.event(broken)._replace(data=_Broken("cus_2"))
    history.decided(broken, Noted("cus_2"))
    history.claim("cus_2", "per_b")
    report = _decide_again(history, begin, _same())
    assert report.undecidable.customers == {"cus_2": 2}
    assert report.requests == 1
    assert report.owners == {}


class _Broken:
    """The data of a request that the decider does not know."""

    def __init__(self, customer: str) -> None:
        self.customer = customer


def _let_pass(history: History) -> None:
    """Let the next deadline of the customer pass, and the clock say so at once."""
    customer = history.settled.customers["cus_1"]
    assert isinstance(customer, Admitted)
    assert customer.approval is not None
    found = of_approval(customer.approval, history.organisation.latest)
    assert found is not None
    history.now = found.due
    asked = requests.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    history.ask(asked, actor=CLOCK)


def _waiting(**rules: Any) -> tuple[History, int]:
    """A transfer of ``cus_1`` that nobody answers, and where it was asked for."""
    history = _history(**rules)
    history.claim("cus_1", "per_a")
    begin = history.position
    history.ask(requests.TransferRequested("cus_1", "trf_1", "per_b", "moved"), actor="per_a")
    return history, begin


def _figures(expire_days: int) -> dict[str, Any]:
    return {"approval_deadlines": {"expire_days": expire_days, "remind_days": None}}


def test_deadlines_are_raised_anew_and_come_out_the_same() -> None:
    history, begin = _waiting()
    for _ in range(3):
        _let_pass(history)
    history.later(days=1).claim("cus_2", "per_a")
    for after in (0, begin, history.position - 4):
        report = _decide_again(history, after, _same())
        assert report.dropped.total == report.raised.total
        assert (report.decisions.total, report.owners, report.waiting) == (0, {}, [])
    assert _decide_again(history, begin, _same()).raised.customers == {"cus_1": 3}


def test_what_would_have_expired_earlier_waits_no_longer() -> None:
    history, begin = _waiting()
    history.later(days=3)
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_head")
    report = _decide_again(history, begin, _same(**_figures(2)))
    assert (report.dropped.total, report.raised.customers) == (0, {"cus_1": 1})
    assert report.not_waiting == ["cus_1"]
    assert list(report.changes) == [
        ("StepAnswered, StepOpened", f"AnswerNotCounted: {reasons.APPROVAL_CLOSED}")
    ]


def test_what_would_not_have_expired_still_waits() -> None:
    history, begin = _waiting(**_figures(2))
    _let_pass(history)
    history.claim("cus_2", "per_a")
    report = _decide_again(history, begin, _same(**_figures(30)))
    assert (report.dropped.customers, report.raised.total) == ({"cus_1": 1}, 0)
    assert report.waiting == ["cus_1"]


def test_what_was_opened_before_goes_by_its_own_figures() -> None:
    history, _ = _waiting(**_figures(2))
    begin = history.position
    _let_pass(history)
    history.claim("cus_2", "per_a")
    report = _decide_again(history, begin, _same(**_figures(30)))
    assert (report.raised.customers, report.waiting) == ({"cus_1": 1}, [])


def test_what_an_import_brought_falls_due_once_it_is_closed() -> None:
    history = _history()
    begin = history.position
    history.fact(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", _same().as_rules()))
    history.claim("cus_1", "per_a", import_id="imp_1")
    transfer = requests.TransferRequested("cus_1", "trf_1", "per_b", "moved")
    history.ask(transfer, actor="per_a", import_id="imp_1")
    history.later(days=60).claim("cus_2", "per_a")
    assert _decide_again(history, begin, _same(**_figures(2))).raised.total == 0
    history.fact(facts.ImportClosed("imp_1"))
    history.later(days=3).claim("cus_3", "per_a")
    report = _decide_again(history, begin, _same(**_figures(2)))
    assert report.raised.customers == {"cus_1": 1}
    assert report.not_waiting == ["cus_1"]


def test_it_can_begin_between_the_decisions_of_one_request() -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.ask(requests.TransferRequested("cus_1", "trf_1", "per_b", "moved"), actor="per_a")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_head")
    history.ask(requests.ApprovalGiven("cus_1", "trf_1"), actor="per_b")
    for after in range(history.position - 3, history.position):
        report = _decide_again(history, after, _same())
        assert (report.owners, report.decisions.total, report.waiting) == ({}, 0, [])


def test_a_decider_that_this_version_lacks_is_told() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    last = history.events[-1]
    history.events[-1] = last._replace(envelope={**last.envelope, "decider": 99})
    with pytest.raises(DeciderMissingError):
        _decide_again(history, begin, _same())


def test_what_would_have_been_recycled_is_reported() -> None:
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    history.claim("cus_2", "per_a")
    history.later(days=20).follow_up("cus_2", "per_a")
    today = history.organisation.latest.day(history.now)
    # One that is put off by an absence which is known only later.
    history.claim("cus_3", "per_b")
    history.later(days=20).fact(
        facts.PersonAway("per_b", today + timedelta(days=20), today + timedelta(days=50))
    )
    history.later(days=30).claim("cus_1", "per_b")
    policy = _same(recycling={"rules": [{"follow_up_days": 31}], "warnings": []})
    report = _decide_again(history, begin, policy)
    assert report.owners == {"cus_1": ("per_a", "per_b"), "cus_2": ("per_a", None)}
    assert report.raised.customers == {"cus_1": 1, "cus_2": 1}
    assert report.undecidable.total == 0


def test_what_falls_due_by_working_days_goes_by_the_calendars_stated_meanwhile() -> None:
    """A worked weekend brings forward what was expected later; only a look anew can tell."""
    recycling = {"rules": [{"follow_up_days": 5}], "days": "working", "warnings": []}
    history = _history()
    history.claim("cus_1", "per_a")  # on a Monday at nine: it falls on the Monday behind
    begin = history.position
    monday = history.now.date()
    saturday, sunday = monday + timedelta(days=5), monday + timedelta(days=6)
    history.fact(facts.CalendarStated(monday.year, (), (saturday, sunday)))
    history.later(days=5, hours=1).claim("cus_1", "per_b")
    for days, owner in (("working", "per_b"), ("calendar", "per_b")):
        policy = _same(recycling={**recycling, "days": days})
        report = _decide_again(history, begin, policy)
        assert report.owners == {"cus_1": ("per_a", owner)}
    report = _decide_again(history, begin, _same(recycling={**recycling, "rules": []}))
    assert (report.owners, report.raised.total) == ({}, 0)


def test_what_falls_due_earlier_since_somebody_is_back_is_expected_anew() -> None:
    """Whoever came back had nothing fall due until some request touched the customer again."""
    recycling = {"rules": [{"follow_up_days": 10}], "warnings": []}
    history = _history()
    history.claim("cus_1", "per_a")
    history.claim("cus_2", "per_b")
    day = history.organisation.latest.day(history.now)
    history.fact(facts.PersonAway("per_a", day + timedelta(days=1), day + timedelta(days=60)))
    history.fact(facts.PersonLeft("per_b", day))
    begin = history.position
    history.later(days=2)
    back = day + timedelta(days=2)
    history.fact(facts.AbsenceEnded("per_a", back))
    history.fact(facts.PersonReturned("per_b", back))
    history.later(days=20).register("cus_9")
    report = _decide_again(history, begin, _same(recycling=recycling))
    assert report.owners == {"cus_1": ("per_a", None), "cus_2": ("per_b", None)}


def test_a_note_that_would_have_been_a_token_resets_nothing() -> None:
    """Notes are remembered by the policy that would be, and not by the one that is."""
    history = _history()
    begin = history.position
    history.claim("cus_1", "per_a")
    for number in range(3):
        logged = requests.FollowUpLogged("cus_1", f"fol_{number}", "per_a", "call", note_digest="a")
        history.later(days=4).ask(logged, actor="per_a")
    history.later(days=1).claim("cus_1", "per_b")
    recycling = {"rules": [{"follow_up_days": 8}], "warnings": []}
    report = _decide_again(history, begin, _same(recycling=recycling))
    assert report.owners == {"cus_1": ("per_a", "per_b")}
    assert report.decisions.total == 3


def test_a_policy_that_lets_claims_await_says_what_would_wait_and_what_the_heads_were_asked() -> (
    None
):
    history = _history()
    history.territory("ter_north", head="per_north")
    history.join("per_north", "ter_north", roles=("manager",))
    history.join("per_c", "ter_north")
    history.move("cus_1", "ter_east")
    begin = history.position
    history.claim("cus_1", "per_c")
    report = _decide_again(history, begin, _same(claims_may_await=True))
    assert report.waiting == ["cus_1"]
    assert report.owners == {}
    assert (report.steps.total, report.steps_would_be) == (1, 2)
    change = ("ClaimRefused: outside_territory", "ApprovalOpened")
    assert report.changes[change].customers == {"cus_1": 1}
