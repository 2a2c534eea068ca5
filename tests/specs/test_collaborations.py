"""Collaborators: specifications of the decider, by the stories that they tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from ledger import deadlines, reasons
from ledger.collaborating import ENDED_MAX, Collaboration, largest_sum
from ledger.customer import Admitted, open_approvals
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver, Site
from ledger.settled import Settled
from ledger.store.guards import _put, state_of
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME
from tests.specs.test_transfers import agree, deny, owned

OWNER_OR_HEAD = ApprovalStep((Approver("owner", person="per_a"), Approver("head", "ter_east")), 1)
HEAD = ApprovalStep((Approver("head", "ter_east"),), 1)
OWNER = ApprovalStep((Approver("owner", person="per_a"),), 1)


def wants(person: str = "per_b", name: str = "col_1", **more: Any) -> r.CollaborationRequested:
    return r.CollaborationRequested("cus_1", name, person, "presales", "joint_visit", **more)


def added(story: Story, person: str = "per_b", name: str = "col_1", **more: Any) -> Any:
    given = {"since": story.effective, **more}
    return d.CollaboratorAdded("cus_1", name, person, "presales", **given)


def refused(reason: str, person: str | None = "per_b", name: str = "col_1") -> Any:
    return d.CollaborationRefused("cus_1", name, reason, person, "per_a")


def asked(
    steps: tuple[ApprovalStep, ...], people: tuple[str, ...], by: str = "per_b"
) -> d.ApprovalOpened:
    return d.ApprovalOpened(
        "cus_1", "col_1", "collaboration", by, "per_a", "joint_visit", "per_b", steps, people
    )


def ended(*names: str, people: tuple[str, ...], why: str = reasons.OWNERSHIP_CHANGED) -> Any:
    return d.CollaborationsEnded("cus_1", names, people, why)


def closed(outcome: str, reason: str | None = None, name: str = "col_1") -> d.ApprovalClosed:
    return d.ApprovalClosed("cus_1", name, outcome, reason)


def follow_up(person: str, name: str = "fol_1", **more: Any) -> r.FollowUpLogged:
    return r.FollowUpLogged("cus_1", name, person, "call", **more)


def end(name: str = "col_1") -> r.CollaborationEndRequested:
    return r.CollaborationEndRequested("cus_1", name, "done")


def customer_of(story: Story) -> Admitted:
    found = story.settled.customers["cus_1"]
    assert isinstance(found, Admitted)
    return found


def day(moment: datetime, after: int = 0) -> date:
    return (moment + timedelta(days=after)).date()


# --- beginning ---------------------------------------------------------------------------------


def test_what_the_owner_or_a_head_asks_for_holds_at_once() -> None:
    for person in ("per_a", "per_head", "per_boss", "per_admin"):
        story = owned().when(wants(share=Decimal(30)), by=person)
        story.then(added(story, share=Decimal(30)))


def test_anybody_may_ask_and_the_owner_answers() -> None:
    story = owned().when(wants(), by="per_b")
    story.then(asked((OWNER_OR_HEAD,), ("per_a", "per_head")))
    agree(story.later(hours=2), "per_b", "col_1").then(
        d.AnswerNotCounted("cus_1", "col_1", "per_b", reasons.OWN_CAUSE)
    )
    agree(story, "per_a", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 0, "per_a", True),
        added(story, since=story.now),
        closed("completed"),
    )
    assert [each.approval for each in customer_of(story).collaborations] == [None]
    agree(story, "per_head", "col_1").then(
        d.AnswerNotCounted("cus_1", "col_1", "per_head", reasons.APPROVAL_CLOSED)
    )


def test_or_the_head_answers() -> None:
    story = owned().when(wants(), by="per_b")
    agree(story, "per_head", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 1, "per_head", True), added(story), closed("completed")
    )


def test_refused_or_withdrawn_it_never_begins() -> None:
    story = owned().when(wants(), by="per_b")
    deny(story, "per_head", "col_1").then(d.StepAnswered("cus_1", "col_1", 0, 1, "per_head", False))
    deny(story, "per_a", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 0, "per_a", False),
        closed("refused", reasons.STEP_REFUSED),
    )
    assert customer_of(story).collaborations == ()
    assert customer_of(story).turned_down == ()
    story.when(wants(name="col_2"), by="per_b")
    story.when(r.TransferWithdrawn("cus_1", "col_2", "withdrawn"), by="per_b")
    story.then(closed("withdrawn", name="col_2"))
    assert customer_of(story).collaborations == ()


def test_a_head_who_wants_to_collaborate_is_a_party_and_asks_like_others() -> None:
    story = owned().when(wants("per_head"), by="per_head")
    opened = story.decided
    assert isinstance(opened, d.ApprovalOpened)
    assert opened.asked == ("per_a", "per_boss")


def test_an_ask_stands_in_the_way_of_no_transfer() -> None:
    """Else anybody could keep a customer where it is, by asking."""
    story = owned().when(wants(), by="per_b")
    story.when(r.TransferRequested("cus_1", "trf_1", "per_c", "better_placed"), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)
    agree(story, "per_a", "col_1")
    assert isinstance(customer_of(story).collaborations[0].approval, type(None))
    approval = customer_of(story).approval
    assert approval is not None
    assert approval.approval == "trf_1"


def test_a_dated_one_begins_and_ends_with_its_days() -> None:
    story = owned()
    first, last = day(story.now, 2), day(story.now, 5)
    story.when(wants(from_day=first, until_day=last), by="per_a")
    latest = story.organisation.latest
    since, until = latest.start_of(first), latest.start_of(last)
    story.then(added(story, since=since, until=until))
    for hours, remark in ((0, True), (49, False), (72, True)):
        story.later(hours=hours).when(follow_up("per_b", f"fol_{hours}"), by="per_b")
        expected = reasons.FOLLOW_UP_BY_NON_OWNER if remark else None
        story.then(d.Noted("cus_1", expected, "per_a"))
    story.when(wants(name="col_2"), by="per_a").then(added(story, name="col_2"))


def test_what_is_refused_at_the_door() -> None:
    story = owned(collaborators_max=2)
    story.when(wants("per_a"), by="per_a").then(refused(reasons.ALREADY_YOURS, "per_a"))
    story.when(wants("per_nobody"), by="per_a").then(
        refused(reasons.CLAIMANT_UNKNOWN, "per_nobody")
    )
    story.when(wants(site="sit_1"), by="per_a").then(refused(reasons.SITE_UNKNOWN))
    story.when(wants(until_day=day(START)), by="per_a").then(refused(reasons.PERIOD_OVER))
    story.when(wants(), by="per_a")
    story.when(wants(name="col_2"), by="per_b").then(
        refused(reasons.ALREADY_COLLABORATES, name="col_2")
    )
    story.when(wants("per_c", "col_3"), by="per_c")
    story.when(wants("per_c", "col_4"), by="per_a").then(
        refused(reasons.ALREADY_COLLABORATES, "per_c", "col_4")
    )
    story.when(wants("per_deputy", "col_5"), by="per_a").then(
        refused(reasons.COLLABORATORS_LIMIT, "per_deputy", "col_5")
    )


def test_nor_where_the_customer_or_the_person_is_no_more() -> None:
    left = owned().given(facts.PersonLeft("per_b", day(START)))
    left.when(wants(), by="per_a").then(refused(reasons.CLAIMANT_LEFT))
    shut = owned().when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    shut.when(wants(), by="per_a").then(refused(reasons.CUSTOMER_CLOSED))
    free = owned().when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    free.when(wants(), by="per_head").then(
        d.CollaborationRefused("cus_1", "col_1", reasons.NOT_OWNED, "per_b")
    )
    unknown = owned().when(replace(wants(), customer="cus_9"), by="per_a")
    unknown.then(d.CollaborationRefused("cus_9", "col_1", reasons.CUSTOMER_NOT_ADMITTED, "per_b"))
    old = owned().given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {}))
    old.when(wants(), by="per_a", on=START - timedelta(days=1), under="imp_1")
    old.then(refused(reasons.HISTORY_OUT_OF_ORDER))


def test_where_nobody_may_answer_it_is_refused() -> None:
    story = owned().given(
        facts.PersonJoined("per_a", NAME, "ter_east"),
        *(
            facts.PersonLeft(person, day(START))
            for person in ("per_a", "per_head", "per_boss", "per_admin")
        ),
    )
    story.when(wants(), by="per_b").then(refused(reasons.NO_APPROVER))


def test_an_ask_that_nobody_answers_is_reminded_and_expires_like_any_other() -> None:
    story = owned(approval_deadlines={"remind_days": 1, "pass_on_days": None, "expire_days": 3})
    story.when(r.TransferRequested("cus_1", "trf_1", "per_c", "better_placed"), by="per_a")
    story.later(hours=1).when(wants(), by="per_b")
    reach(story, "trf_1", deadlines.STEP_REMINDER)
    reach(story, "col_1", deadlines.STEP_REMINDER)
    story.then(d.StepReminded("cus_1", "col_1", 0, ("per_a", "per_head")))
    reach(story, "trf_1", deadlines.APPROVAL_EXPIRY)
    reach(story, "col_1", deadlines.APPROVAL_EXPIRY)
    story.then(closed("expired"))
    assert customer_of(story).collaborations == ()
    assert list(open_approvals(customer_of(story))) == []


def reach(story: Story, subject: str, kind: str) -> None:
    """Let the clock raise what falls due next at the customer, which must be this."""
    found = deadlines.next_of(open_approvals(customer_of(story)), {}, story.organisation.latest)
    assert found is not None
    assert (found.subject, found.kind) == (subject, kind)
    story.now = max(story.now, found.due)
    request = r.DeadlineReached("cus_1", kind, subject, found.due)
    story.when(request, by=deadlines.CLOCK)


# --- shares ------------------------------------------------------------------------------------


def test_a_larger_share_than_the_policy_allows_needs_the_head() -> None:
    story = owned().when(wants(share=Decimal("50.01")), by="per_a")
    story.then(asked((HEAD,), ("per_head",), by="per_a"))
    agree(story, "per_head", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 0, "per_head", True),
        added(story, share=Decimal("50.01")),
        closed("completed"),
    )


def test_whoever_asks_for_it_needs_the_owner_and_then_the_head() -> None:
    story = owned().when(wants(share=Decimal(60)), by="per_b")
    story.then(asked((OWNER, HEAD), ("per_a",)))
    agree(story, "per_a", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 0, "per_a", True),
        d.StepOpened("cus_1", "col_1", 1, ("per_head",)),
    )
    agree(story, "per_head", "col_1")
    assert customer_of(story).collaborations[0].share == Decimal(60)


def test_a_large_share_is_not_had_in_pieces() -> None:
    story = owned().when(
        r.CustomerChangeRequested("cus_1", sites=(Site("sit_1", "总部"),)), by="per_a"
    )
    story.when(wants(share=Decimal(30)), by="per_a")
    story.when(wants(name="col_2", share=Decimal(30), site="sit_1"), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)
    asking = owned().when(
        r.CustomerChangeRequested("cus_1", sites=(Site("sit_1", "总部"),)), by="per_a"
    )
    asking.when(wants(share=Decimal(30)), by="per_b")
    asking.when(wants(name="col_2", share=Decimal(30), site="sit_1"), by="per_b")
    assert asking.decided.steps == (OWNER, HEAD)  # type: ignore[union-attr]


def test_without_a_rule_for_it_a_larger_share_is_refused() -> None:
    story = owned(approval_rules=[]).when(wants(share=Decimal(60)), by="per_a")
    story.then(refused(reasons.SHARE_NEEDS_APPROVAL))
    free = owned(approval_rules=[], collaborator_share_max=None)
    free.when(wants(share=Decimal(100)), by="per_a").then(added(free, share=Decimal(100)))


def test_no_more_than_the_whole_is_given_away() -> None:
    story = owned().when(wants(share=Decimal(50)), by="per_a")
    story.when(wants("per_c", "col_2", share=Decimal(50)), by="per_a")
    story.when(wants("per_deputy", "col_3", share=Decimal("0.01")), by="per_a")
    story.then(refused(reasons.SHARES_EXCEEDED, "per_deputy", "col_3"))


def test_what_was_asked_for_is_checked_again_when_it_is_answered() -> None:
    story = owned().when(wants(share=Decimal(50), until_day=day(START, 3)), by="per_b")
    for person, name in (("per_c", "col_2"), ("per_deputy", "col_3")):
        story.when(wants(person, name, share=Decimal(30)), by="per_a")
    agree(story, "per_a", "col_1").then(
        d.StepAnswered("cus_1", "col_1", 0, 0, "per_a", True),
        closed("void", reasons.SHARES_EXCEEDED),
    )
    story.when(wants(name="col_4", until_day=day(START, 3)), by="per_b").later(days=4)
    agree(story, "per_a", "col_4").then(
        d.StepAnswered("cus_1", "col_4", 0, 0, "per_a", True),
        closed("void", reasons.PERIOD_OVER, "col_4"),
    )


def test_shares_that_do_not_meet_are_not_added_up() -> None:
    def share(percent: int, first: int, last: int | None) -> Collaboration:
        since = START + timedelta(days=first)
        until = None if last is None else START + timedelta(days=last)
        return Collaboration(f"col_{first}", "per_b", "x", since, until, Decimal(percent))

    beside = [share(40, 0, 5), share(50, 5, 9), share(20, 7, None)]
    assert largest_sum(beside, share(10, 1, 3)) == 50
    assert largest_sum(beside, share(10, 1, 6)) == 60
    assert largest_sum(beside, share(10, 1, None)) == 80
    assert largest_sum(beside, share(10, 9, None)) == 30
    assert largest_sum([], share(10, 9, None)) == 10


# --- follow-ups --------------------------------------------------------------------------------


def test_collaborators_follow_up_without_a_remark() -> None:
    story = owned().when(wants(), by="per_a")
    story.when(follow_up("per_b"), by="per_b").then(d.Noted("cus_1", None, "per_a"))
    story.when(follow_up("per_c", "fol_2"), by="per_c")
    story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))
    story.when(follow_up("per_b", "fol_3", contact="con_9"), by="per_b")
    story.then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))


def test_at_one_site_only_there() -> None:
    story = owned().when(
        r.CustomerChangeRequested("cus_1", sites=(Site("sit_1", "总部"),)), by="per_a"
    )
    story.when(wants(site="sit_1"), by="per_a").then(added(story, site="sit_1"))
    story.when(follow_up("per_b", site="sit_1"), by="per_b").then(d.Noted("cus_1", None, "per_a"))
    for number, site in enumerate((None, "sit_2")):
        story.when(follow_up("per_b", f"fol_{number}", site=site), by="per_b")
        story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))
    story.when(r.CustomerChangeRequested("cus_1", removed=("site:sit_1",)), by="per_a")
    story.when(wants("per_c", "col_2", site="sit_1"), by="per_a")
    story.then(refused(reasons.SITE_UNKNOWN, "per_c", "col_2"))


def test_a_late_follow_up_is_judged_by_who_collaborated_then() -> None:
    story = owned().when(wants(), by="per_a")
    began = story.effective
    story.later(days=1).when(end(), by="per_a").later(days=1)
    story.when(follow_up("per_b"), by="per_b", on=began + timedelta(hours=3))
    story.then(d.Noted("cus_1", None, "per_a"))
    for number, moment in enumerate((began - timedelta(minutes=1), story.now)):
        story.when(follow_up("per_b", f"fol_{number}"), by="per_b", on=moment)
        story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))


# --- ending ------------------------------------------------------------------------------------


def test_the_owner_a_head_or_whoever_collaborates_ends_it() -> None:
    for person in ("per_a", "per_head", "per_b"):
        story = owned().when(wants(), by="per_a").later(hours=1)
        story.when(end(), by=person).then(ended("col_1", people=("per_b",), why="done"))
        story.when(follow_up("per_b"), by="per_b")
        story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a"))
        story.when(end(), by=person).then(refused(reasons.COLLABORATION_ENDED))


def test_nobody_else_ends_it_nor_what_is_none() -> None:
    story = owned().when(wants(), by="per_a")
    story.when(end(), by="per_c").then(refused(reasons.NOT_OWNER_OR_HEAD))
    story.when(end("col_9"), by="per_a").then(refused(reasons.UNKNOWN_COLLABORATION, None, "col_9"))
    story.when(wants("per_c", "col_2"), by="per_c")
    story.when(end("col_2"), by="per_a").then(
        refused(reasons.UNKNOWN_COLLABORATION, "per_c", "col_2")
    )
    story.when(replace(end(), customer="cus_9"), by="per_a").then(
        d.CollaborationRefused("cus_9", "col_1", reasons.UNKNOWN_COLLABORATION)
    )
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {}))
    story.when(end(), by="per_a", on=START - timedelta(days=1), under="imp_1")
    story.then(refused(reasons.HISTORY_OUT_OF_ORDER))


def test_a_release_ends_them_and_voids_what_awaits_an_answer() -> None:
    story = owned().when(wants(), by="per_a").when(wants("per_c", "col_2"), by="per_c")
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a").then(
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east"),
        ended("col_1", people=("per_b",)),
        closed("void", reasons.OWNERSHIP_CHANGED, "col_2"),
    )


def transferred(to: str, collaborators: Any = None) -> Story:
    """A customer with two collaborators is transferred; somebody else asks to be one."""
    story = owned(approval_rules=[]).when(wants(), by="per_a")
    story.when(wants("per_c", "col_2"), by="per_a").when(wants("per_deputy", "col_3"), by="per_b")
    asking = r.TransferRequested("cus_1", "trf_1", to, "better_placed", collaborators=collaborators)
    return story.when(asking, by="per_a")


def test_a_transfer_keeps_them_where_nothing_is_said() -> None:
    for said in (None, "keep"):
        story = transferred("per_west", said)
        assert story.draft is not None
        assert story.draft.all[-1] == closed("void", reasons.OWNERSHIP_CHANGED, "col_3")
        assert not any(isinstance(each, d.CollaborationsEnded) for each in story.draft.all)
        story.when(follow_up("per_b"), by="per_b").then(d.Noted("cus_1", None, "per_west"))


def test_the_new_owner_no_longer_collaborates() -> None:
    story = transferred("per_c", "keep")
    assert story.draft is not None
    assert ended("col_2", people=("per_c",)) in story.draft.all


def test_a_transfer_may_say_that_they_end() -> None:
    story = transferred("per_west", "end")
    assert story.draft is not None
    assert ended("col_1", "col_2", people=("per_b", "per_c")) in story.draft.all
    story.when(follow_up("per_b"), by="per_b")
    story.then(d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_west"))


def test_what_a_transfer_said_holds_when_it_was_approved() -> None:
    story = owned().when(wants("per_c"), by="per_a")
    asking = r.TransferRequested("cus_1", "trf_1", "per_b", "better_placed", collaborators="end")
    story.when(asking, by="per_a")
    assert story.decided.collaborators == "end"  # type: ignore[union-attr]
    agree(story, "per_head")
    agree(story, "per_b")
    assert story.draft is not None
    assert story.draft.all[-1] == ended("col_1", people=("per_c",))


# --- what is remembered ------------------------------------------------------------------------


def test_only_the_last_of_those_that_ended_are_remembered() -> None:
    story = owned(collaborators_max=1)
    for number in range(ENDED_MAX + 3):
        story.when(wants(name=f"col_{number}"), by="per_a").later(minutes=1)
        story.when(end(f"col_{number}"), by="per_a")
    names = [each.collaboration for each in customer_of(story).collaborations]
    assert names == [f"col_{number}" for number in range(3, ENDED_MAX + 3)]
    story.later(days=94).when(wants(name="col_new"), by="per_a")
    assert [each.collaboration for each in customer_of(story).collaborations] == ["col_new"]


def test_a_guard_holds_what_stands_and_what_awaits_an_answer() -> None:
    story = owned().when(
        r.CustomerChangeRequested("cus_1", sites=(Site("sit_1", "总部"),)), by="per_a"
    )
    story.when(wants(share=Decimal("12.5"), site="sit_1", until_day=day(START, 9)), by="per_a")
    story.when(wants("per_c", "col_2"), by="per_c")
    stored = state_of(story.settled, ("customer", "cus_1"))
    loaded = Settled()
    _put(loaded, ("customer", "cus_1"), 1, stored)
    assert loaded.customers["cus_1"] == story.settled.customers["cus_1"]
    assert state_of(loaded, ("customer", "cus_1")) == stored
