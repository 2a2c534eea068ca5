"""Claims from outside the territory that await approval: the stories that they tell."""

from __future__ import annotations

import random
from datetime import date
from typing import Any

import pytest
from orjson import loads
from pydantic import ValidationError

from ledger import deadlines, reasons
from ledger.customer import Admitted
from ledger.deadlines import next_at
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver
from ledger.policy import Policy, without_limits
from ledger.store.guards import customer_of, state_of
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME, claim, company, granted, policy, refused, register

HEAD_EAST = ApprovalStep((Approver("head", "ter_east"),), 1)
HEAD_WEST = ApprovalStep((Approver("head", "ter_west"),), 1)
FOREVER = (date(2026, 1, 1), date(2030, 1, 1))


def outside(**rules: Any) -> Story:
    """A free customer of the east, and a west with a head of its own."""
    rules = {"claims_may_await": True, "protection_days": 0, **rules}
    story = company(**rules).given(
        facts.PersonJoined("per_west", NAME, "ter_west", ("manager",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_west"),
    )
    return story.when(register()).later(hours=1)


def waiting(**rules: Any) -> tuple[Story, str]:
    """The same, claimed from the west by ``per_c``; and the id of what awaits approval."""
    story = outside(**rules).when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened), story.decided
    return story, story.decided.approval


def agree(story: Story, name: str, person: str) -> Story:
    return story.when(r.ApprovalGiven("cus_1", name), by=person)


def closed(name: str, outcome: str, reason: str | None = None) -> d.ApprovalClosed:
    return d.ApprovalClosed("cus_1", name, outcome, reason)


def customer(story: Story) -> Admitted:
    found = story.settled.customers["cus_1"]
    assert isinstance(found, Admitted)
    return found


# --- the way through ---------------------------------------------------------------------------


def test_the_customers_head_and_then_the_claimants_approve() -> None:
    story, name = waiting()
    story.then(
        d.ApprovalOpened(
            "cus_1",
            name,
            "claim",
            "per_c",
            None,
            "claim",
            "per_c",
            (HEAD_EAST, HEAD_WEST),
            ("per_head",),
        )
    )
    assert customer(story).owner is None
    agree(story.later(hours=1), name, "per_head").then(
        d.StepAnswered("cus_1", name, 0, 0, "per_head", True),
        d.StepOpened("cus_1", name, 1, ("per_west",)),
    )
    agree(story.later(hours=1), name, "per_west").then(
        d.StepAnswered("cus_1", name, 1, 0, "per_west", True),
        d.OwnershipGranted("cus_1", "per_c", "ter_west", "ter_east", approval=name),
        closed(name, "completed"),
    )
    assert customer(story).owner == "per_c"
    assert customer(story).approval is None
    assert story.settled.holdings_of("per_c").held == 1
    assert story.settled.grants_of("per_c", "2026-03-02") == 1


def test_where_the_policy_does_not_say_so_it_is_refused_as_before() -> None:
    story = outside(claims_may_await=False).when(claim("per_c"), by="per_c")
    refused(story, reasons.OUTSIDE_TERRITORY)


def test_version_1_refuses_it_whatever_the_policy_says() -> None:
    story = outside()
    story.version = 1
    refused(story.when(claim("per_c"), by="per_c"), reasons.OUTSIDE_TERRITORY)


def test_within_the_territory_a_claim_is_granted_at_once() -> None:
    granted(outside().when(claim("per_a"), by="per_a"), "per_a", approval=None)


def test_one_head_of_both_territories_does_not_answer_twice() -> None:
    story, name = outside(), ""
    story.given(facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_head"))
    story.when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)
    name = story.decided.approval
    agree(story, name, "per_head").then(
        d.StepAnswered("cus_1", name, 0, 0, "per_head", True),
        d.StepOpened("cus_1", name, 1, ("per_boss",)),
    )


def test_whoever_claims_as_the_head_does_not_approve_it() -> None:
    story = outside().given(facts.PersonChanged("per_head", "ter_west", ("manager",)))
    story.when(claim("per_head"), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.decided.asked == ("per_boss",)


OWNER_OR_HEAD = {
    "purposes": ["claim", "release"],
    "steps": [
        {
            "approvers": [{"kind": "owner"}, {"kind": "receiver"}, {"kind": "head"}],
            "needed": "any",
        }
    ],
}


def test_an_owner_whom_a_free_customer_does_not_have_has_agreed_to_nothing() -> None:
    """A step of any of owner and head was done with the owner of whom there is none."""
    story = outside(approval_rules=[OWNER_OR_HEAD]).when(claim("per_c"), by="per_boss")
    assert isinstance(story.decided, d.ApprovalOpened)
    receiver = Approver("receiver", person="per_c")
    head = Approver("head", "ter_east")
    assert story.decided.steps == (ApprovalStep((receiver, head), 1),)


@pytest.mark.parametrize("needed", ["any", 2, "all"])
def test_for_whom_there_is_none_nobody_waits(needed: Any) -> None:
    two = [{"kind": "owner"}, {"kind": "head", "of": "customer"}]
    rule = {"purposes": ["claim"], "steps": [{"approvers": two, "needed": needed}]}
    story = outside(approval_rules=[rule]).when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.decided.steps == (HEAD_EAST,)


def test_before_version_3_who_was_not_asked_counted_as_having_agreed() -> None:
    story = outside(approval_rules=[OWNER_OR_HEAD])
    story.version = 2
    refused(story.when(claim("per_c"), by="per_boss"), reasons.OUTSIDE_TERRITORY)


# --- what is refused at the door -----------------------------------------------------------------


def test_what_else_stands_in_the_way_is_what_it_is_refused_for() -> None:
    refused(
        outside(holding_limit=0).when(claim("per_c"), by="per_c"),
        reasons.HOLDING_LIMIT,
    )


def test_without_a_rule_that_matches_nobody_approves_it() -> None:
    rule = {
        "purposes": ["claim"],
        "conditions": [{"attribute": "grade", "operator": "is", "value": "key"}],
        "steps": [{"approvers": [{"kind": "head", "of": "customer"}]}],
    }
    story = outside(approval_rules=[rule]).when(claim("per_c"), by="per_c")
    refused(story, reasons.OUTSIDE_TERRITORY)


def test_where_nobody_is_entitled_it_is_refused() -> None:
    story = outside()
    for person in ("per_head", "per_west", "per_boss", "per_admin"):
        story.given(facts.PersonLeft(person, date(2026, 1, 1)))
    refused(story.when(claim("per_c"), by="per_c"), reasons.NO_APPROVER)


def test_a_second_claim_from_outside_is_refused_while_one_waits() -> None:
    story, _ = waiting()
    story.given(facts.PersonJoined("per_d", NAME, "ter_west", ("rep",)))
    story.when(claim("per_d"), by="per_d").then(
        d.ClaimRefused("cus_1", "per_d", reasons.APPROVAL_OPEN)
    )
    story.when(claim("per_c"), by="per_c").then(
        d.ClaimRefused("cus_1", "per_c", reasons.APPROVAL_OPEN)
    )


# --- what becomes of it --------------------------------------------------------------------------


def test_whoever_may_claim_it_meanwhile_gets_it_and_what_waited_is_void() -> None:
    story, name = waiting()
    story.when(claim("per_a"), by="per_a").then(
        d.OwnershipGranted("cus_1", "per_a", "ter_east", "ter_east"),
        closed(name, "void", reasons.OWNED_BY_ANOTHER),
    )
    assert customer(story).approval is None
    agree(story, name, "per_head").then(
        d.AnswerNotCounted("cus_1", name, "per_head", reasons.APPROVAL_CLOSED)
    )


def test_an_assignment_voids_it_as_well() -> None:
    story, name = waiting()
    story.when(r.AssignmentRequested("cus_1", "per_b"), by="per_head").then(
        d.OwnershipAssigned("cus_1", "per_b", "per_head", "ter_east", "ter_east"),
        closed(name, "void", reasons.OWNED_BY_ANOTHER),
    )


def test_whoever_gets_it_in_another_way_meanwhile_need_not_wait() -> None:
    story, name = waiting()
    story.given(facts.PersonChanged("per_c", "ter_east", ("rep",)))
    story.when(claim("per_c"), by="per_c").then(
        d.OwnershipGranted("cus_1", "per_c", "ter_east", "ter_east"),
        closed(name, "void", reasons.ALREADY_YOURS),
    )


def turned_down(name: str, person: str = "per_c") -> d.ApprovalClosed:
    return d.ApprovalClosed("cus_1", name, "refused", reasons.STEP_REFUSED, person)


def deny(story: Story, name: str, person: str = "per_head") -> Story:
    return story.when(r.ApprovalDenied("cus_1", name, "not_ours"), by=person)


def test_a_head_refuses_it_and_it_may_be_claimed_again_after_the_cooldown() -> None:
    """Who was turned down asked again at once, while the receiver of a transfer had to wait."""
    story, name = waiting(cooldown_days=3)
    deny(story, name).then(
        d.StepAnswered("cus_1", name, 0, 0, "per_head", False),
        turned_down(name),
    )
    ends = story.organisation.latest.days_after(story.effective, 3)
    story.later(days=2, hours=23).when(claim("per_c"), by="per_c").then(
        d.ClaimRefused("cus_1", "per_c", reasons.COOLDOWN, None, ends)
    )
    story.later(hours=1).when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_version_2_let_it_be_claimed_again_at_once() -> None:
    story, name = waiting(cooldown_days=3)
    story.version = 2
    deny(story, name).then(
        d.StepAnswered("cus_1", name, 0, 0, "per_head", False),
        closed(name, "refused", reasons.STEP_REFUSED),
    )
    story.when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_without_a_cooldown_who_was_turned_down_does_not_wait() -> None:
    story, name = waiting(cooldown_days=0)
    deny(story, name).when(claim("per_c"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_others_do_not_wait_for_whoever_was_turned_down() -> None:
    story, name = waiting(cooldown_days=3)
    story.given(facts.PersonJoined("per_d", NAME, "ter_west", ("rep",)))
    deny(story, name).when(claim("per_d"), by="per_d")
    assert isinstance(story.decided, d.ApprovalOpened)
    other = story.decided.approval
    deny(story, other).then(
        d.StepAnswered("cus_1", other, 0, 0, "per_head", False), turned_down(other, "per_d")
    )
    assert [each.person for each in customer(story).claim_refusals] == ["per_d", "per_c"]
    assert customer_of(loads(state_of(story.settled, ("customer", "cus_1")))) == customer(story)


@pytest.mark.parametrize("by", ["per_admin", "per_c"])
def test_who_filed_it_and_whom_it_was_filed_for_withdraw_it(by: str) -> None:
    story = outside().when(claim("per_c"), by="per_admin")
    assert isinstance(story.decided, d.ApprovalOpened)
    name = story.decided.approval
    story.when(r.TransferWithdrawn("cus_1", name, "no_need"), by=by).then(closed(name, "withdrawn"))


def test_nobody_else_withdraws_it() -> None:
    story, name = waiting()
    story.when(r.TransferWithdrawn("cus_1", name, "no_need"), by="per_a").then(
        d.AnswerNotCounted("cus_1", name, "per_a", reasons.NOT_REQUESTER)
    )


def both_agree(story: Story, name: str) -> Story:
    return agree(agree(story, name, "per_head"), name, "per_west")


def test_the_limits_are_checked_again_at_the_end() -> None:
    story, name = waiting(holding_limit=1)
    story.when(register("cus_2", "west")).when(claim("per_c", "cus_2"), by="per_c")
    both_agree(story, name).then(
        d.StepAnswered("cus_1", name, 1, 0, "per_west", True),
        closed(name, "void", reasons.HOLDING_LIMIT),
    )
    assert customer(story).owner is None


def test_who_has_left_by_the_end_gets_nothing() -> None:
    story, name = waiting()
    story.given(facts.PersonLeft("per_c", START.date()))
    both_agree(story, name).then(
        d.StepAnswered("cus_1", name, 1, 0, "per_west", True),
        closed(name, "void", reasons.CLAIMANT_LEFT),
    )


def test_a_customer_that_is_closed_by_the_end_is_nobodys() -> None:
    story, name = waiting()
    story.when(r.CustomerChangeRequested("cus_1", closed=True))
    both_agree(story, name)
    assert customer(story).owner is None


def test_it_is_reminded_passed_on_and_expires_like_any_approval() -> None:
    story, name = waiting()
    kinds = []
    while (due := next_at("cus_1", customer(story), story.organisation.latest, story.now)) is not (
        None
    ):
        story.now = due.due
        story.when(r.DeadlineReached("cus_1", due.kind, due.subject, due.due), by="clock")
        kinds.append(due.kind)
    assert kinds[:2] == [deadlines.STEP_REMINDER, deadlines.PASSING_ON]
    story.then(closed(name, "expired"))


def test_who_was_turned_down_has_it_by_no_colleague_either() -> None:
    """Somebody within the territory claims it, releases it, and it is free for all who may."""
    story, name = waiting(cooldown_days=30)
    deny(story, name)
    story.when(claim("per_a"), by="per_a").when(r.ReleaseRequested("cus_1", "no"), by="per_a")
    story.given(facts.PersonChanged("per_c", "ter_east", ("rep",)))
    refused(story.when(claim("per_c"), by="per_c"), reasons.COOLDOWN)
    granted(story.later(days=30).when(claim("per_c"), by="per_c"), "per_c")


def test_what_waits_is_told_of_in_the_guards_and_read_from_them_again() -> None:
    story, _ = waiting()
    assert customer_of(loads(state_of(story.settled, ("customer", "cus_1")))) == customer(story)


def test_in_an_import_the_grant_says_what_todays_limits_would_have_refused() -> None:
    story, name = waiting()
    story.given(facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", policy().as_rules()))
    agree(story, name, "per_head")
    story.when(r.ApprovalGiven("cus_1", name), by="per_west", under="imp_1")
    granted_, _ = story.draft.all[1:] if story.draft else ()
    assert isinstance(granted_, d.OwnershipGranted)
    assert granted_.limits_waived == (reasons.OUTSIDE_TERRITORY,)


# --- the policy ----------------------------------------------------------------------------------


def test_a_policy_that_lets_claims_await_has_a_rule_for_them() -> None:
    with pytest.raises(ValidationError, match="claims_may_await needs an approval rule"):
        Policy.model_validate({"claims_may_await": True, "approval_rules": []})


def test_an_import_takes_no_claim_to_an_approver() -> None:
    Policy.model_validate(without_limits(policy(claims_may_await=True)).as_rules())


# --- a random walk -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_nobody_from_outside_ever_owns_a_customer_without_the_heads(seed: int) -> None:
    """Whatever happens meanwhile: a grant from outside has an agreeing answer to every step."""
    chance = random.Random(seed)  # noqa: S311 - it must come out the same
    story = outside(cooldown_days=0)
    agreed: dict[str, int] = {}
    steps: dict[str, int] = {}
    outside_grants = 0
    for _ in range(3_000):
        approval = customer(story).approval
        name = approval.approval if approval else "none"
        person = chance.choice(["per_a", "per_c", "per_c", "per_head", "per_west", "per_boss"])
        may_come: list[r.Request] = [
            claim(person),
            *[r.ApprovalGiven("cus_1", name)] * 6,
            r.ApprovalDenied("cus_1", name, "no"),
            r.ReleaseRequested("cus_1", "no_need"),
            r.TransferWithdrawn("cus_1", name, "no_need"),
        ]
        story.later(hours=1).when(chance.choice(may_come), by=person)
        assert story.draft is not None
        for data in story.draft.all:
            if isinstance(data, d.ApprovalOpened):
                steps[data.approval] = len(data.steps)
            elif isinstance(data, d.StepAnswered) and data.agreed:
                agreed[data.approval] = agreed.get(data.approval, 0) + 1
            elif isinstance(data, d.OwnershipGranted):
                home = data.owner_territory
                assert (home in {"ter_east", "ter_all"}) == (data.approval is None)
                if data.approval is not None:
                    outside_grants += 1
                    assert agreed[data.approval] == steps[data.approval]
        held = customer(story).owner
        assert held is None or customer(story).approval is None
    assert outside_grants > 3


# --- in a group of others ----------------------------------------------------------------------


def in_a_group(said: str, **rules: Any) -> Story:
    """A root with the branches 1 and 2, of which ``per_a`` owns the first."""
    story = company(claims_in_others_groups=said, protection_days=0, **rules)
    story.when(register("cus_root"))
    for number in (1, 2):
        story.when(register(f"cus_{number}", parent="cus_root"))
    return story.when(claim("per_a", "cus_1"), by="per_a")


def test_a_policy_may_refuse_a_claim_in_a_group_of_others() -> None:
    """No policy refused a claim because of the group, and so none could await approval."""
    story = in_a_group("refuse")
    for customer_id in ("cus_2", "cus_root"):
        story.when(claim("per_b", customer_id), by="per_b")
        story.then(d.ClaimRefused(customer_id, "per_b", reasons.GROUP_OF_ANOTHER))
    granted(story.when(claim("per_a", "cus_2"), by="per_a"), "per_a", "cus_2")
    # What is in no group, or in one that nobody owns, is anybody's.
    for number, parent in ((3, None), (4, "cus_3")):
        story.when(register(f"cus_{number}", parent=parent))
    granted(story.when(claim("per_b", "cus_4"), by="per_b"), "per_b", "cus_4")


def test_otherwise_and_before_version_3_a_claim_in_a_group_of_others_is_granted() -> None:
    for said, version in (("allow", 3), ("refuse", 2), ("await", 2)):
        story = in_a_group(said)
        story.version = version
        granted(story.when(claim("per_b", "cus_2"), by="per_b"), "per_b", "cus_2")


def test_whom_a_ruling_lets_go_on_may_claim_in_the_group() -> None:
    story = in_a_group("allow", conflict_kinds=["group"])
    story.when(claim("per_b", "cus_2"), by="per_b")
    assert story.draft is not None
    (opened,) = (each for each in story.draft.all if isinstance(each, d.ConflictOpened))
    story.when(r.RulingGiven("cus_root", opened.conflict, "allow", "heard"), by="per_head")
    rules = policy(claims_in_others_groups="refuse", cooldown_days=0).as_rules()
    story.given(facts.PolicyAdopted(2, rules))
    story.when(r.ReleaseRequested("cus_2", "no_need"), by="per_b")
    granted(story.when(claim("per_b", "cus_2"), by="per_b"), "per_b", "cus_2")


def test_or_it_awaits_the_head_and_opens_the_conflict_once_it_is_granted() -> None:
    story = in_a_group("await", conflict_kinds=["group"])
    story.when(claim("per_b", "cus_2"), by="per_b")
    opened = story.decided
    assert isinstance(opened, d.ApprovalOpened)
    assert opened.steps == (HEAD_EAST,)
    story.when(r.ApprovalGiven("cus_2", opened.approval), by="per_head")
    assert story.draft is not None
    kinds = [type(each) for each in story.draft.all]
    assert kinds == [d.StepAnswered, d.OwnershipGranted, d.ApprovalClosed, d.ConflictOpened]


def test_what_may_not_await_besides_is_refused() -> None:
    for said, may_await in (("await", False), ("refuse", True)):
        story = in_a_group(said, claims_may_await=may_await)
        story.when(claim("per_c", "cus_2"), by="per_c")
        assert isinstance(story.decided, d.ClaimRefused)
    both = in_a_group("await", claims_may_await=True).when(claim("per_c", "cus_2"), by="per_c")
    assert isinstance(both.decided, d.ApprovalOpened)


def test_such_a_policy_has_steps_for_claims_and_imports_know_no_such_limit() -> None:
    with pytest.raises(ValidationError, match="needs a rule with the purpose claim"):
        policy(claims_in_others_groups="await", approval_rules=[])
    assert policy(claims_in_others_groups="refuse", approval_rules=[]) is not None
    assert (
        without_limits(policy(claims_in_others_groups="await")).claims_in_others_groups == "allow"
    )
    assert Policy.model_validate({}).claims_in_others_groups == "allow"


def test_an_import_says_which_claims_todays_policy_would_refuse_for_the_group() -> None:
    story = in_a_group("refuse")
    rules = without_limits(story.organisation.latest.policy.policy).as_rules()
    story.given(facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", rules))
    story.when(claim("per_b", "cus_2"), by="per_b", on=story.now, under="imp_1")
    granted(story, "per_b", "cus_2", limits_waived=(reasons.GROUP_OF_ANOTHER,))
