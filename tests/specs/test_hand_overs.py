"""Hand-overs: specifications of the decider, by the stories that they tell."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from orjson import loads

from ledger import reasons
from ledger.conditions import Condition
from ledger.customer import Admitted, Unregistered
from ledger.deciders import LATEST, decider
from ledger.deciding import apply_parking
from ledger.envelope import Event
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver, Identifier
from ledger.handing_over import PART_CUSTOMERS, people_at
from ledger.settled import Settled
from ledger.store.guards import customer_of, state_of
from tests.specs.story import START, Story
from tests.specs.test_conflicts import last
from tests.specs.test_groups import ROOT, claimed, gone, group
from tests.specs.test_ownership import NAME, claim, company, policy, register
from tests.specs.test_transfers import accepts

ALONE: dict[str, Any] = {"approval_rules": (), "protection_days": 0}
"""Rules by which nobody has to be asked."""


def owning(*customers: str, region: str | None = "east", **rules: Any) -> Story:
    """A company in which per_a, of the east, owns these customers."""
    story = company(**{"protection_days": 0, **rules})
    for customer in customers:
        story.when(register(customer, region)).when(claim("per_a", customer))
    return story.later(hours=1)


def hand_over(*receivers: str, giver: str = "per_a", **more: Any) -> r.HandOverRequested:
    plan: Any = "all_to_one" if len(receivers) == 1 else "spread"
    return r.HandOverRequested(giver, "hov_1", receivers, plan, "moved_on", **more)


def moved(
    customer: str, to: str = "per_b", *, home: str | None = "ter_east", **more: Any
) -> d.OwnershipTransferred:
    return d.OwnershipTransferred(
        customer, to, "per_a", "hov_1", home, "ter_east", hand_over="hov_1", **more
    )


def stays(customer: str, reason: str, owner: str | None = "per_a", **m: Any) -> d.Decision:
    return d.HandOverLineRefused(customer, "hov_1", reason, owner, **m)


def done(moved: int = 0, waiting: int = 0, settled: int = 0, **refused: int) -> d.Decision:
    return d.HandOverCompleted("per_a", "hov_1", moved, waiting, settled, refused)


def void(customer: str, approval: str) -> d.ApprovalClosed:
    return d.ApprovalClosed(customer, approval, "void", reasons.HANDED_OVER)


def leave(story: Story, person: str = "per_a") -> Story:
    return story.given(facts.PersonLeft(person, date(2026, 3, 2)))


def owners(settled: Settled) -> dict[str, str | None]:
    return {
        name: each.owner for name, each in settled.customers.items() if isinstance(each, Admitted)
    }


# --- the way through ---------------------------------------------------------------------------


def test_all_that_somebody_owns_goes_to_one_receiver() -> None:
    story = owning("cus_2", "cus_1", **ALONE).when(register("cus_3")).when(claim("per_b", "cus_3"))
    story.when(hand_over("per_b"), by="per_head").then(moved("cus_1"), moved("cus_2"), done(2))
    assert owners(story.settled) == {"cus_1": "per_b", "cus_2": "per_b", "cus_3": "per_b"}
    assert story.settled.holdings_of("per_a").held == 0
    assert story.settled.holdings_of("per_b").held == 3
    assert story.effective == START + timedelta(hours=1)


def test_nothing_is_handed_over_where_nothing_is_held() -> None:
    company(**ALONE).when(hand_over("per_b"), by="per_head").then(done())


def test_a_new_owner_is_protected_as_by_any_transfer() -> None:
    story = owning("cus_1", approval_rules=(), protection_days=30).later(days=40)
    until = story.now + timedelta(days=30)
    story.when(hand_over("per_b"), by="per_head")
    story.then(moved("cus_1", protected_until=until), done(1))


def test_a_head_s_own_step_counts_as_given_and_the_receiver_is_asked_to_accept() -> None:
    story = owning("cus_1").when(hand_over("per_b"), by="per_head")
    name = f"apr_{story.position - 2}_cus_1"
    opened = d.ApprovalOpened(
        "cus_1",
        name,
        "transfer",
        "per_head",
        "per_a",
        "moved_on",
        "per_b",
        (accepts("per_b"),),
        ("per_b",),
        hand_over="hov_1",
    )
    story.then(opened, done(waiting=1))
    assert owners(story.settled) == {"cus_1": "per_a"}
    story.when(r.ApprovalGiven("cus_1", name), by="per_b").then(
        d.StepAnswered("cus_1", name, 0, 0, "per_b", True),
        d.OwnershipTransferred(
            "cus_1", "per_b", "per_a", name, "ter_east", "ter_east", hand_over="hov_1"
        ),
        d.ApprovalClosed("cus_1", name, "completed"),
    )


def test_across_territories_the_receiving_head_is_asked_as_well() -> None:
    story = owning("cus_1").given(
        facts.PersonJoined("per_west", NAME, "ter_west", ("manager",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_west"),
    )
    story.when(hand_over("per_c"), by="per_head")
    opened = story.decided
    assert isinstance(opened, d.ApprovalOpened)
    assert opened.steps == (
        ApprovalStep((Approver("head", "ter_west"),), 1),
        accepts("per_c"),
    )


def test_what_nobody_could_approve_stays() -> None:
    role = {"steps": [{"approvers": [{"kind": "role", "role": "legal"}]}]}
    story = owning("cus_1", approval_rules=[role, role, role])
    story.when(hand_over("per_b"), by="per_head").then(
        stays("cus_1", reasons.NO_APPROVER, receiver="per_b"), done(no_approver=1)
    )


def test_the_cause_of_an_open_conflict_is_gone() -> None:
    story = owning("cus_1", approval_rules=(), conflict_kinds=["deal"])
    story.when(r.DealRecorded("cus_1", "dea_1", "per_c", "won"), by="per_c")
    conflict = f"cft_{story.position - 2}"
    story.when(hand_over("per_b"), by="per_head").then(
        moved("cus_1"),
        d.ConflictClosed("cus_1", conflict, "gone", reasons.OWNERSHIP_CHANGED),
        done(1),
    )


def test_no_party_of_a_conflict_orders_the_hand_over_of_what_it_is_about() -> None:
    """A head with a deal at the customer handed it to whom the head liked, and it was over."""
    story = owning("cus_1", "cus_2", approval_rules=(), conflict_kinds=["deal", "group"])
    story.when(r.DealRecorded("cus_1", "dea_1", "per_head", "won"), by="per_head")
    story.when(hand_over("per_b"), by="per_head")
    story.then(stays("cus_1", reasons.OWN_CAUSE), moved("cus_2"), done(1, own_cause=1))
    story.when(hand_over("per_b"), by="per_boss")
    assert owners(story.settled) == {"cus_1": "per_b", "cus_2": "per_b"}


def test_nor_of_what_its_ruling_has_opened() -> None:
    story = owning("cus_1", conflict_kinds=["deal"])
    for person in ("per_c", "per_head"):
        story.when(r.DealRecorded("cus_1", f"dea_{person}", person, "won"), by=person)
    conflict = f"cft_{last(story) - 3}"
    story.when(r.RulingGiven("cus_1", conflict, "award", "theirs", receiver="per_c"), by="per_boss")
    story.when(hand_over("per_b"), by="per_head")
    story.then(stays("cus_1", reasons.OWN_CAUSE), done(own_cause=1))


def test_what_a_ruler_has_awarded_outlasts_the_ruler() -> None:
    """All that the ruler held was handed over, and with it the award was void."""
    story = owning("cus_1", conflict_kinds=["deal"])
    story.when(r.DealRecorded("cus_1", "dea_1", "per_b", "won"), by="per_b")
    award = r.RulingGiven("cus_1", f"cft_{last(story)}", "award", "theirs", receiver="per_b")
    story.when(award, by="per_head")
    approval = f"apr_{last(story)}"
    story.when(hand_over("per_deputy", giver="per_head"), by="per_boss")
    story.then(d.HandOverCompleted("per_head", "hov_1", 0, 0, 0, {}))
    story.when(r.ApprovalGiven("cus_1", approval), by="per_b")
    assert owners(story.settled) == {"cus_1": "per_b"}


def test_what_awaited_approval_before_is_void() -> None:
    story = owning("cus_1").when(r.TransferRequested("cus_1", "trf_1", "per_c", "x"), by="per_a")
    story.when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    assert story.draft.all[0] == void("cus_1", "trf_1")
    assert isinstance(story.draft.all[1], d.ApprovalOpened)
    assert story.draft.all[2:] == (done(waiting=1, settled=1),)


def test_in_version_2_the_figures_leave_out_what_was_settled_besides() -> None:
    story = owning("cus_1").when(r.TransferRequested("cus_1", "trf_1", "per_c", "x"), by="per_a")
    story.version = 2
    story.when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    assert story.draft.all[-1] == done(waiting=1)


# --- who may order it --------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["per_head", "per_deputy", "per_boss", "per_admin"])
def test_a_manager_above_the_giver_may_order_it_and_an_administrator(by: str) -> None:
    owning("cus_1", **ALONE).when(hand_over("per_b"), by=by).then(moved("cus_1"), done(1))


@pytest.mark.parametrize("by", ["per_c", "per_x"])
def test_nobody_else_may(by: str) -> None:
    story = owning("cus_1", **ALONE).given(
        facts.PersonJoined("per_x", NAME, "ter_west", ("manager",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_x"),
    )
    story.when(hand_over("per_b"), by=by)
    story.then(d.HandOverRefused("per_a", "hov_1", reasons.NOT_ABOVE_GIVER))
    assert owners(story.settled) == {"cus_1": "per_a"}


def test_a_manager_who_has_left_may_no_longer() -> None:
    story = leave(owning("cus_1", **ALONE), "per_head").when(hand_over("per_b"), by="per_head")
    story.then(d.HandOverRefused("per_a", "hov_1", reasons.NOT_ABOVE_GIVER))


@pytest.mark.parametrize(
    ("giver", "receiver", "by"),
    [
        ("per_head", "per_b", "per_head"),  # the giver
        ("per_a", "per_head", "per_head"),  # a receiver
        ("per_a", "per_b", "per_deputy"),  # who acts for the receiver
        ("per_a", "per_b", "per_head"),  # who acts for whoever acts for the receiver
    ],
)
def test_nobody_orders_a_hand_over_of_their_own(giver: str, receiver: str, by: str) -> None:
    always = (date(2026, 1, 1), date(2030, 1, 1))
    story = owning("cus_1", **ALONE).given(
        facts.DelegateNamed("per_b", "per_deputy", *always),
        facts.DelegateNamed("per_deputy", "per_head", *always),
    )
    story.when(hand_over(receiver, giver=giver), by=by)
    story.then(d.HandOverRefused(giver, "hov_1", reasons.OWN_CAUSE))


def test_nothing_is_handed_to_whoever_has_left() -> None:
    story = leave(owning("cus_1", **ALONE), "per_b").when(hand_over("per_b"), by="per_head")
    story.then(d.HandOverRefused("per_a", "hov_1", reasons.CLAIMANT_LEFT))


# --- what stays --------------------------------------------------------------------------------


def test_protection_holds_against_a_manager_and_not_against_the_head() -> None:
    story = owning("cus_1", approval_rules=(), protection_days=30)
    until = START + timedelta(days=30)
    story.when(hand_over("per_b"), by="per_deputy").then(
        stays("cus_1", reasons.PROTECTED, retry_at=until), done(protected=1)
    )
    story.when(hand_over("per_b"), by="per_head")
    assert isinstance(story.decided, d.OwnershipTransferred)


def test_protection_protects_nobody_who_has_left() -> None:
    story = leave(owning("cus_1", approval_rules=(), protection_days=30))
    story.when(hand_over("per_b"), by="per_deputy")
    assert isinstance(story.decided, d.OwnershipTransferred)


def test_a_closed_customer_stays() -> None:
    story = owning("cus_1", **ALONE).when(r.CustomerChangeRequested("cus_1", closed=True))
    story.when(hand_over("per_b"), by="per_head").then(
        stays("cus_1", reasons.CUSTOMER_CLOSED), done(customer_closed=1)
    )


def test_a_receiver_s_limit_counts_what_the_hand_over_itself_brings() -> None:
    story = owning("cus_1", "cus_2", "cus_3", holding_limit=3, **ALONE)
    story.when(register("cus_4")).when(claim("per_b", "cus_4"))
    story.when(hand_over("per_b"), by="per_head").then(
        moved("cus_1"), moved("cus_2"), stays("cus_3", reasons.HOLDING_LIMIT),
        done(2, holding_limit=1),
    )  # fmt: skip


def test_and_what_it_only_asks_the_receiver_to_accept() -> None:
    story = owning("cus_1", "cus_2", holding_limit=2)
    story.when(register("cus_3")).when(claim("per_b", "cus_3"))
    story.when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    assert story.draft.all[-2:] == (
        stays("cus_2", reasons.HOLDING_LIMIT),
        done(waiting=1, holding_limit=1),
    )


def test_won_customers_take_no_place_where_the_policy_says_so() -> None:
    story = owning("cus_1", "cus_2", holding_limit=2, won_customers_count=False, **ALONE)
    story.when(register("cus_3")).when(claim("per_b", "cus_3"))
    story.when(r.DealRecorded("cus_1", "dea_1", "per_a", "won"), by="per_a")
    story.when(hand_over("per_b"), by="per_head").then(moved("cus_1"), moved("cus_2"), done(2))


# --- a chosen part -----------------------------------------------------------------------------


def test_only_the_customers_that_are_named_go() -> None:
    story = owning("cus_1", "cus_2", **ALONE).when(register("cus_3")).when(register("cus_4"))
    story.when(claim("per_b", "cus_4"))
    named = ("cus_4", "cus_1", "cus_3", "cus_9")
    story.when(hand_over("per_b", customers=named), by="per_head").then(
        moved("cus_1"),
        stays("cus_3", reasons.NOT_THE_GIVERS, None),
        stays("cus_4", reasons.NOT_THE_GIVERS, "per_b"),
        stays("cus_9", reasons.CUSTOMER_NOT_ADMITTED, None),
        done(1, not_the_givers=2, customer_not_admitted=1),
    )  # fmt: skip
    assert owners(story.settled)["cus_2"] == "per_a"


NUMBER = (Identifier("uscc", "91350100M000100Y43"),)


def entered_twice(version: int = LATEST) -> Story:
    """per_a owns cus_5, which was entered again as cus_2 and as cus_7."""
    story = company(**ALONE).when(register("cus_5", identifiers=NUMBER))
    story.when(claim("per_a", "cus_5"))
    for duplicate in ("cus_2", "cus_7"):
        story.when(register(duplicate, identifiers=NUMBER))
    story.version = version
    return story


@pytest.mark.parametrize(
    "named",
    [("cus_2",), ("cus_7",), ("cus_2", "cus_7"), ("cus_2", "cus_5"), ("cus_7", "cus_5", "cus_2")],
)
def test_by_the_id_of_a_duplicate_the_customer_that_exists_goes_once(
    named: tuple[str, ...],
) -> None:
    """It was refused as what was never admitted."""
    story = entered_twice().when(hand_over("per_b", customers=named), by="per_head")
    story.then(moved("cus_5"), done(1))


def test_in_version_2_a_duplicate_is_refused() -> None:
    story = entered_twice(2).when(hand_over("per_b", customers=("cus_2",)), by="per_head")
    story.then(stays("cus_2", reasons.CUSTOMER_NOT_ADMITTED, None), done(customer_not_admitted=1))


def test_only_what_lies_in_a_territory_goes() -> None:
    story = owning("cus_1", claim_scope="everywhere", **ALONE)
    story.when(register("cus_2", "west")).when(claim("per_a", "cus_2"))
    story.when(register("cus_3", None)).when(claim("per_a", "cus_3"))
    story.when(hand_over("per_b", territories=("ter_west", "ter_east")), by="per_boss")
    assert owners(story.settled) == {"cus_1": "per_b", "cus_2": "per_b", "cus_3": "per_a"}
    story.when(hand_over("per_a", giver="per_b", territories=("ter_all",)), by="per_boss")
    assert set(owners(story.settled).values()) == {"per_a"}


def test_only_what_meets_the_conditions_goes() -> None:
    story = owning("cus_1", **ALONE)
    attributes: Any = {"region": "east", "grade": "key"}
    key = r.RegistrationRequested("cus_2", "organisation", "客户", attributes=attributes)
    story.when(key).when(claim("per_a", "cus_2"))
    conditions = (Condition(attribute="grade", operator="is", value="key"),)
    story.when(hand_over("per_b", conditions=conditions), by="per_head")
    story.then(moved("cus_2"), done(1))


def test_a_chosen_part_leaves_other_things_alone() -> None:
    story = owning("cus_1").when(register("cus_2")).when(claim("per_b", "cus_2"))
    story.when(r.TransferRequested("cus_2", "trf_1", "per_a", "x"), by="per_a")
    story.when(hand_over("per_c", territories=("ter_west",)), by="per_boss").then(done())


# --- spread ------------------------------------------------------------------------------------


def test_customers_are_spread_by_load_and_ties_go_by_the_order_of_the_names() -> None:
    story = owning("cus_1", "cus_2", "cus_3", "cus_4", **ALONE)
    story.given(facts.PersonJoined("per_d", NAME, "ter_east", ("rep",)))
    story.when(register("cus_9")).when(claim("per_b", "cus_9"))
    story.when(hand_over("per_d", "per_b"), by="per_head").then(
        moved("cus_1", "per_d"), moved("cus_2", "per_d"), moved("cus_3", "per_b"),
        moved("cus_4", "per_d"), done(4),
    )  # fmt: skip


def test_customers_go_to_those_of_their_territory_first_and_else_to_anybody() -> None:
    story = owning("cus_1", "cus_2", "cus_3", holding_limit=4, **ALONE)
    for number in (5, 6):
        name = f"cus_{number}"
        story.when(register(name)).when(claim("per_b", name))
    story.when(hand_over("per_c", "per_b"), by="per_boss").then(
        moved("cus_1"), moved("cus_2"), moved("cus_3", "per_c", home="ter_west"), done(3)
    )


def test_who_has_left_gets_nothing() -> None:
    story = leave(owning("cus_1", **ALONE), "per_b").when(
        hand_over("per_b", "per_c"), by="per_boss"
    )
    story.then(moved("cus_1", "per_c", home="ter_west"), done(1))


# --- parts -------------------------------------------------------------------------------------


def many(count: int, **rules: Any) -> Story:
    unlimited = {"daily_claim_limit": None, "holding_limit": None}
    return owning(*(f"cus_{number:04d}" for number in range(count)), **{**unlimited, **rules})


def test_a_large_hand_over_is_decided_in_parts_and_the_last_brings_the_outcome() -> None:
    story = many(2 * PART_CUSTOMERS + 1, **ALONE).when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    told = [each for each in story.draft.all if not isinstance(each, d.OwnershipTransferred)]
    assert told == [
        d.HandOverAdvanced("per_a", "hov_1", "cus_0249", 251, 250),
        d.HandOverAdvanced("per_a", "hov_1", "cus_0499", 502, 500),
        done(501),
    ]
    assert set(owners(story.settled).values()) == {"per_b"}
    assert story.settled.hand_over_of("per_a") is None


def test_exactly_one_part_is_the_last() -> None:
    story = many(PART_CUSTOMERS, **ALONE).when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    assert story.draft.all[-1] == done(PART_CUSTOMERS)
    assert len(story.draft.all) == PART_CUSTOMERS + 1


def test_a_limit_counts_over_the_parts() -> None:
    limit = PART_CUSTOMERS + 20
    story = many(PART_CUSTOMERS + 50).given(
        facts.PolicyAdopted(2, policy(protection_days=0, holding_limit=limit).as_rules())
    )
    story.when(hand_over("per_b"), by="per_head")
    assert story.draft is not None
    assert story.draft.all[-1] == done(waiting=limit, holding_limit=30)


def test_named_customers_go_in_parts_as_well() -> None:
    story = many(PART_CUSTOMERS + 2, **ALONE)
    named = tuple(f"cus_{number:04d}" for number in range(1, PART_CUSTOMERS + 2))
    story.when(hand_over("per_b", customers=named), by="per_head")
    assert story.draft is not None
    assert story.draft.all[-1] == done(PART_CUSTOMERS + 1)
    assert owners(story.settled)["cus_0000"] == "per_a"


# --- who has left ------------------------------------------------------------------------------


def test_what_was_asked_in_front_of_it_gives_a_leaver_nothing_any_more() -> None:
    """As where a claim was parked, or another enforcer decides it later: its own facts know of no
    leaving.
    """
    story = owning("cus_1", **ALONE).when(register("cus_2"))
    story.when(register("cus_3")).when(claim("per_b", "cus_3"))
    early = story.position + 1
    story.position += 10
    leave(story).when(hand_over("per_b"), by="per_head")
    story.then(moved("cus_1"), d.HandOverCompleted("per_a", "hov_1", 1, left=True))
    behind, story.position = story.position, early
    story.when(claim("per_a", "cus_2"), by="per_a")
    story.then(d.ClaimRefused("cus_2", "per_a", reasons.CLAIMANT_LEFT))
    story.when(r.AssignmentRequested("cus_2", "per_a"))
    story.then(d.AssignmentRefused("cus_2", "per_a", reasons.CLAIMANT_LEFT))
    story.when(r.TransferRequested("cus_3", "trf_1", "per_a", "x"), by="per_b")
    story.then(d.TransferRefused("cus_3", "trf_1", "per_a", reasons.CLAIMANT_LEFT, "per_b"))
    story.position = behind
    story.given(facts.PersonReturned("per_a", date(2026, 3, 2)))
    story.when(claim("per_a", "cus_2"), by="per_a")
    assert isinstance(story.decided, d.OwnershipGranted)
    assert story.settled.holdings_of("per_a").held == 1


def overtaken(version: int = LATEST) -> Story:
    """A request comes next that was recorded before per_a left and all of theirs was handed over.

    per_b owns cus_3; cus_4 is orphaned.
    """
    story = owning("cus_1", **ALONE)
    for person, customer in (("per_b", "cus_3"), ("per_deputy", "cus_4")):
        story.when(register(customer)).when(claim(person, customer))
    leave(story, "per_deputy")
    story.version = version
    early = story.position + 1
    story.position += 10
    leave(story).when(hand_over("per_b"), by="per_head")
    story.then(moved("cus_1"), d.HandOverCompleted("per_a", "hov_1", 1, left=True))
    story.position = early
    return story


ASKED_EARLIER = r.CollaborationRequested("cus_3", "col_1", "per_a", "presales", "x")
NAMED_EARLIER = r.StandInRequested("cus_4", "sta_1", "per_a", date(2026, 3, 9), "x")


def test_nor_does_a_leaver_collaborate_or_stand_in_by_what_was_asked_in_front_of_it() -> None:
    """Both went by the leaver's own facts at the request alone, which knew of no leaving."""
    story = overtaken().when(ASKED_EARLIER, by="per_b")
    reason = reasons.CLAIMANT_LEFT
    story.then(d.CollaborationRefused("cus_3", "col_1", reason, "per_a", "per_b"))
    story.when(NAMED_EARLIER, by="per_head")
    story.then(d.StandInRefused("cus_4", "sta_1", reason, "per_a", "per_deputy"))


def test_in_version_2_a_leaver_could() -> None:
    story = overtaken(version=2).when(ASKED_EARLIER, by="per_b")
    assert isinstance(story.decided, d.CollaboratorAdded)
    story.when(NAMED_EARLIER, by="per_head")
    assert isinstance(story.decided, d.StandInNamed)


# --- other things ------------------------------------------------------------------------------


def elsewhere(**rules: Any) -> Story:
    """A customer that per_b owns, and where per_a is to have something."""
    return owning(**rules).when(register()).when(claim("per_b"))


def test_a_transfer_that_the_giver_asked_for_is_void() -> None:
    story = elsewhere().when(r.TransferRequested("cus_1", "trf_1", "per_c", "x"), by="per_a")
    story.when(hand_over("per_c"), by="per_boss").then(void("cus_1", "trf_1"), done(settled=1))


def test_a_transfer_to_the_giver_is_void() -> None:
    story = elsewhere().when(r.TransferRequested("cus_1", "trf_1", "per_a", "x"), by="per_b")
    story.when(hand_over("per_c"), by="per_boss").then(void("cus_1", "trf_1"), done(settled=1))


def test_a_transfer_between_others_goes_on() -> None:
    story = elsewhere().when(r.TransferRequested("cus_1", "trf_1", "per_c", "x"), by="per_b")
    story.when(r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x"), by="per_b")
    story.when(hand_over("per_c"), by="per_boss").then(
        d.CollaborationsEnded("cus_1", ("col_1",), ("per_a",), reasons.HANDED_OVER),
        done(settled=1),
    )
    assert story.settled.customers["cus_1"].approval is not None  # type: ignore[union-attr]


def test_what_a_hand_over_opened_is_not_its_orderer_s_to_hand_over() -> None:
    story = owning("cus_1").when(hand_over("per_b"), by="per_head")
    story.when(hand_over("per_deputy", giver="per_head"), by="per_boss")
    story.then(d.HandOverCompleted("per_head", "hov_1"))


def test_a_collaboration_of_the_giver_ends_and_one_that_awaits_an_answer_is_void() -> None:
    story = elsewhere()
    story.when(r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x"), by="per_b")
    story.when(register("cus_2")).when(claim("per_b", "cus_2"))
    story.when(r.CollaborationRequested("cus_2", "col_2", "per_a", "presales", "x"), by="per_a")
    story.when(hand_over("per_c"), by="per_boss").then(
        d.CollaborationsEnded("cus_1", ("col_1",), ("per_a",), reasons.HANDED_OVER),
        void("cus_2", "col_2"),
        done(settled=2),
    )


def test_a_collaboration_may_be_given_on_without_the_share_that_was_agreed() -> None:
    story = elsewhere()
    asked = r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x")
    story.when(asked, by="per_b")
    request = story.position + 1
    story.when(hand_over("per_c", collaborations="give"), by="per_boss").then(
        d.CollaborationsEnded("cus_1", ("col_1",), ("per_a",), reasons.HANDED_OVER),
        d.CollaboratorAdded(
            "cus_1", f"col_{request}_cus_1_0", "per_c", "presales", story.effective
        ),
        done(settled=2),
    )


@pytest.mark.parametrize("receiver", ["per_b", "per_c"])
def test_nobody_collaborates_at_their_own_customer_or_twice(receiver: str) -> None:
    story = elsewhere()
    for number, person in enumerate(("per_a", "per_c")):
        asked = r.CollaborationRequested("cus_1", f"col_{number}", person, "presales", "x")
        story.when(asked, by="per_b")
    story.when(hand_over(receiver, collaborations="give"), by="per_boss").then(
        d.CollaborationsEnded("cus_1", ("col_0",), ("per_a",), reasons.HANDED_OVER),
        done(settled=1),
    )


def test_nothing_is_given_on_at_a_closed_customer() -> None:
    story = elsewhere()
    story.when(r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x"), by="per_b")
    story.when(r.CustomerChangeRequested("cus_1", closed=True))
    story.when(hand_over("per_c", collaborations="give"), by="per_boss")
    assert story.draft is not None
    assert story.draft.all[-1] == done(settled=1)
    assert len(story.draft.all) == 2


def test_collaborators_at_the_giver_s_customers_stay_or_end_as_it_says() -> None:
    for word, ends in (("keep", False), (None, False), ("end", True)):
        story = owning("cus_1", **ALONE)
        asked = r.CollaborationRequested("cus_1", "col_1", "per_c", "presales", "x")
        story.when(asked, by="per_a")
        order: Any = hand_over("per_b", collaborators=word)
        story.when(order, by="per_head")
        ended = d.CollaborationsEnded("cus_1", ("col_1",), ("per_c",), reasons.OWNERSHIP_CHANGED)
        story.then(moved("cus_1"), *((ended,) if ends else ()), done(1, settled=int(ends)))


def test_who_collaborated_long_ago_holds_nothing() -> None:
    story = elsewhere()
    asked = r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x")
    story.when(asked, by="per_b")
    story.when(r.CollaborationEndRequested("cus_1", "col_1", "x"), by="per_b").later(hours=1)
    story.when(hand_over("per_c", collaborations="give"), by="per_boss").then(done())


def test_at_what_is_no_customer_nobody_holds_anything() -> None:
    assert people_at(Unregistered()) == frozenset()


# --- parked ------------------------------------------------------------------------------------


def park(story: Story, customer: str = "cus_1") -> int:
    """Have a customer wait for a request, which cannot be decided; return its position."""
    story.position += 2
    request = story.position - 1
    apply_parking(story.settled, d.RequestParked(customer, request, "ZeroDivisionError"))
    return request


def test_a_customer_that_waits_for_a_parked_request_stays() -> None:
    """It was handed over all the same, in front of what had been asked there before."""
    story = owning("cus_1", "cus_2", **ALONE)
    parked = park(story)
    assert (
        customer_of(loads(state_of(story.settled, ("customer", "cus_1"))))
        == (story.settled.customers["cus_1"])
    )
    story.when(hand_over("per_b"), by="per_head")
    story.then(stays("cus_1", reasons.REQUEST_PARKED), moved("cus_2"), done(1, request_parked=1))
    story.when(hand_over("per_b", territories=("ter_west",)), by="per_head").then(done())
    behind, story.position = story.position, parked - 1
    story.when(r.FollowUpLogged("cus_1", "fol_1", "per_a", "call"), by="per_a")
    story.position = behind
    story.when(hand_over("per_b"), by="per_head").then(moved("cus_1"), done(1))


def test_version_2_hands_it_over() -> None:
    story = owning("cus_1", **ALONE)
    story.version = 2
    park(story)
    story.when(hand_over("per_b"), by="per_head").then(moved("cus_1"), done(1))


def test_nor_is_what_else_the_giver_holds_there_settled() -> None:
    story = elsewhere()
    story.when(r.CollaborationRequested("cus_1", "col_1", "per_a", "presales", "x"), by="per_b")
    park(story)
    story.when(hand_over("per_c"), by="per_boss").then(
        stays("cus_1", reasons.REQUEST_PARKED, "per_b"), done(request_parked=1)
    )


def test_an_imported_row_that_is_parked_is_no_older_than_the_hand_over_that_left_it_alone() -> None:
    story = owning("cus_1", **ALONE).given(
        facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", policy().as_rules())
    )
    parked, day = park(story), story.now
    story.later(days=3).when(hand_over("per_b"), by="per_head")
    story.position = parked - 1
    follow_up = r.FollowUpLogged("cus_1", "fol_1", "per_a", "call")
    story.when(follow_up, by="per_a", on=day, under="imp_1").then(d.Noted("cus_1", owner="per_a"))


def test_who_is_no_customer_yet_waits_without_a_state() -> None:
    story = company()
    park(story)
    assert story.settled.customers == {}
    assert story.settled.version("cus_1") == 1


# --- groups ------------------------------------------------------------------------------------


def test_a_group_that_comes_under_two_owners_is_a_conflict_at_its_root() -> None:
    story = claimed(group(approval_rules=()), cus_1="per_a", cus_2="per_a", cus_11="per_a")
    story.when(hand_over("per_b", customers=("cus_1", "cus_11")), by="per_head")
    position = last(story)
    name = f"cft_{position}_2"
    parties = ("per_b", "per_a")
    story.then(
        moved("cus_1"),
        moved("cus_11"),
        d.ConflictOpened(ROOT, name, "group", parties, (position,), ("per_head",)),
        done(2),
    )
    story.when(hand_over("per_b"), by="per_head").then(
        moved("cus_2"), gone(name, reasons.ONE_OWNER), done(1)
    )


@pytest.mark.parametrize("version", [2, 3])
def test_two_parts_never_give_two_conflicts_one_id(version: int) -> None:
    """A conflict was named by its root: one that a ruling had closed was opened again by its id.

    The next part is decided in a transaction of its own, and rulings may come between the two.
    """
    story = group(approval_rules=(), daily_claim_limit=None)
    for number in range(PART_CUSTOMERS + 2):
        name = f"cus_9{number:03d}"
        story.when(register(name, parent=ROOT)).when(claim("per_a", name))
    story.version = version
    order = story._event("person-per_a", hand_over("per_b", "per_deputy"), actor="per_head")
    first = part_of(story, order)
    story.when(r.RulingGiven(ROOT, first.conflict, "dismiss", "heard"), by="per_head")
    assert isinstance(story.decided, d.ConflictClosed)
    second = part_of(story, order)
    names = [f"cft_{order.position}_{each}" for each in (PART_CUSTOMERS, PART_CUSTOMERS + 4)]
    as_it_was = [f"cft_{order.position}_{ROOT}"] * 2
    assert [first.conflict, second.conflict] == (names if version == 3 else as_it_was)


def part_of(story: Story, order: Event) -> d.ConflictOpened:
    """Decide the next part of a hand-over, and return the conflict that it opens."""
    organisation = story.organisation.at(order.position)
    draft = decider(story.version)(story.settled, order, organisation)
    for data in draft.all:
        story.settled.apply(order, data, draft.effective, organisation)
        story.position += 1
    (opened,) = (each for each in draft.all if isinstance(each, d.ConflictOpened))
    return opened


def test_a_group_that_goes_as_a_whole_is_none() -> None:
    story = claimed(group(approval_rules=()), cus_1="per_a", cus_2="per_a", cus_root="per_a")
    story.when(hand_over("per_b"), by="per_head")
    story.then(moved("cus_1"), moved("cus_2"), moved(ROOT), done(3))


def test_what_a_hand_over_brings_at_a_root_holds_no_earlier_than_what_was_decided_there() -> None:
    story = claimed(group(approval_rules=()), cus_1="per_a", cus_2="per_a")
    story.later(days=1).when(r.FollowUpLogged(ROOT, "fol_1", "per_b", "call"), by="per_b")
    later = story.now
    story.later(hours=-2).when(hand_over("per_b", customers=("cus_1",)), by="per_head")
    assert story.effective == later


def test_version_1_sees_no_groups() -> None:
    story = claimed(group(approval_rules=()), cus_1="per_a", cus_2="per_a")
    story.version = 1
    story.when(hand_over("per_b", customers=("cus_1",)), by="per_head").then(
        moved("cus_1"), done(1)
    )
