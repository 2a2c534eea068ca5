"""Transfers that need approval: specifications of the decider, by the stories that they tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver, Money
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME, company, register

HEAD_EAST = ApprovalStep((Approver("head", "ter_east"),), 1)
HEAD_WEST = ApprovalStep((Approver("head", "ter_west"),), 1)
HEAD_ALL = ApprovalStep((Approver("head", "ter_all"),), 1)
FOREVER = (date(2026, 1, 1), date(2030, 1, 1))


def accepts(receiver: str) -> ApprovalStep:
    return ApprovalStep((Approver("receiver", person=receiver),), 1)


def owned(owner: str = "per_a", *, attributes: dict[str, Any] | None = None, **rules: Any) -> Story:
    """A customer of the east that ``owner`` owns, past its protection; the west has a head, too."""
    story = company(**{"protection_days": 0, **rules}).given(
        facts.PersonJoined("per_west", NAME, "ter_west", ("manager",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_west"),
    )
    registration = register(**({"region": "east"} if attributes is None else {}))
    if attributes is not None:
        registration = r.RegistrationRequested(
            "cus_1", "organisation", "客户", attributes={"region": "east", **attributes}
        )
    story.when(registration).when(r.ClaimFiled("cus_1", owner))
    return story.later(hours=1)


def transfer(receiver: str = "per_b", name: str = "trf_1", **more: Any) -> r.TransferRequested:
    return r.TransferRequested("cus_1", name, receiver, "better_placed", **more)


def opened(
    receiver: str,
    steps: tuple[ApprovalStep, ...],
    asked: tuple[str, ...],
    *,
    requester: str,
    owner: str = "per_a",
) -> d.ApprovalOpened:
    return d.ApprovalOpened(
        "cus_1", "trf_1", "transfer", requester, owner, "better_placed", receiver, steps, asked
    )


def agree(story: Story, person: str, name: str = "trf_1") -> Story:
    return story.when(r.ApprovalGiven("cus_1", name), by=person)


def answered(step: int, person: str, *, agreed: bool = True, approver: int = 0) -> d.StepAnswered:
    return d.StepAnswered("cus_1", "trf_1", step, approver, person, agreed)


def not_counted(person: str, reason: str, name: str = "trf_1") -> d.AnswerNotCounted:
    return d.AnswerNotCounted("cus_1", name, person, reason)


def closed(outcome: str, reason: str | None = None, name: str = "trf_1") -> d.ApprovalClosed:
    return d.ApprovalClosed("cus_1", name, outcome, reason)


def refused(reason: str, receiver: str = "per_b", **more: Any) -> d.TransferRefused:
    return d.TransferRefused("cus_1", "trf_1", receiver, reason, **{"owner": "per_a", **more})


def owner_of(story: Story) -> str | None:
    found: Any = story.settled.customers["cus_1"]
    owner: str | None = found.owner
    return owner


# --- the way through ---------------------------------------------------------------------------


def test_inside_one_territory_its_head_approves_and_the_receiver_accepts() -> None:
    story = owned().when(transfer(), by="per_a")
    story.then(opened("per_b", (HEAD_EAST, accepts("per_b")), ("per_head",), requester="per_a"))
    agree(story.later(hours=1), "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_b",))
    )
    assert owner_of(story) == "per_a"
    agree(story.later(hours=1), "per_b").then(
        answered(1, "per_b"),
        d.OwnershipTransferred("cus_1", "per_b", "per_a", "trf_1", "ter_east", "ter_east"),
        closed("completed"),
    )
    assert owner_of(story) == "per_b"
    assert story.settled.holdings_of("per_a").held == 0
    assert story.settled.holdings_of("per_b").held == 1
    assert story.effective == START + timedelta(hours=3)


def test_across_territories_the_releasing_head_and_then_the_receiving_one() -> None:
    story = owned().when(transfer("per_c"), by="per_a")
    story.then(
        opened("per_c", (HEAD_EAST, HEAD_WEST, accepts("per_c")), ("per_head",), requester="per_a")
    )
    agree(story, "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_west",))
    )
    agree(story, "per_west").then(
        answered(1, "per_west"), d.StepOpened("cus_1", "trf_1", 2, ("per_c",))
    )
    agree(story, "per_c")
    assert owner_of(story) == "per_c"


def test_for_a_key_customer_the_head_above_both_as_well() -> None:
    story = owned(attributes={"grade": "key"}).when(transfer("per_c"), by="per_a")
    story.then(
        opened(
            "per_c",
            (HEAD_EAST, HEAD_WEST, HEAD_ALL, accepts("per_c")),
            ("per_head",),
            requester="per_a",
        )
    )
    for person in ("per_head", "per_west", "per_boss", "per_c"):
        assert owner_of(story) == "per_a"
        agree(story, person)
    assert owner_of(story) == "per_c"


def test_whoever_wants_the_customer_has_accepted_by_asking() -> None:
    story = owned().when(transfer(), by="per_b")
    story.then(opened("per_b", (HEAD_EAST,), ("per_head",), requester="per_b"))
    agree(story, "per_head").then(
        answered(0, "per_head"),
        d.OwnershipTransferred("cus_1", "per_b", "per_a", "trf_1", "ter_east", "ter_east"),
        closed("completed"),
    )


def test_the_value_of_the_deal_and_named_people_may_choose_steps() -> None:
    rules = [
        {
            "value_at_least": {"amount": "100000", "currency": "CNY"},
            "steps": [
                {
                    "approvers": [
                        {"kind": "person", "person": "per_boss"},
                        {"kind": "role", "role": "admin"},
                        {"kind": "owner"},
                    ],
                    "needed": 2,
                }
            ],
        },
        {"steps": [{"approvers": [{"kind": "head", "of": "customer"}]}]},
    ]
    step = ApprovalStep(
        (
            Approver("person", person="per_boss"),
            Approver("role", role="admin"),
            Approver("owner", person="per_a"),
        ),
        2,
    )
    small = owned(approval_rules=rules)
    for value in (None, Money(100_000, "USD"), Money(99_999, "CNY")):  # type: ignore[arg-type]  # whole amounts do as well
        story = owned(approval_rules=rules).when(transfer(value=value), by="per_b")
        story.then(opened("per_b", (HEAD_EAST,), ("per_head",), requester="per_b"))
    large = small.when(transfer(value=Money(100_000, "CNY")), by="per_b")  # type: ignore[arg-type]
    large.then(
        opened("per_b", (step, HEAD_EAST), ("per_a", "per_admin", "per_boss"), requester="per_b")
    )
    agree(large, "per_a").then(answered(0, "per_a", approver=2))
    agree(large, "per_a").then(not_counted("per_a", reasons.ALREADY_ANSWERED))
    agree(large, "per_admin").then(
        answered(0, "per_admin", approver=1), d.StepOpened("cus_1", "trf_1", 1, ("per_head",))
    )


def test_of_any_one_is_enough_and_only_the_refusal_of_all_refuses() -> None:
    two = [{"kind": "head"}, {"kind": "person", "person": "per_deputy"}]
    rules = [{"steps": [{"approvers": two, "needed": "any"}]}]
    story = owned(approval_rules=rules).when(transfer(), by="per_b")
    deny(story, "per_head").then(answered(0, "per_head", agreed=False))
    agree(story, "per_deputy")
    assert owner_of(story) == "per_b"


def deny(story: Story, person: str, name: str = "trf_1") -> Story:
    return story.when(r.ApprovalDenied("cus_1", name, "not_now"), by=person)


def test_without_any_step_it_is_transferred_at_once() -> None:
    owned(approval_rules=[]).when(transfer(), by="per_a").then(
        opened("per_b", (), (), requester="per_a"),
        d.OwnershipTransferred("cus_1", "per_b", "per_a", "trf_1", "ter_east", "ter_east"),
        closed("completed"),
    )


def test_the_new_owner_is_protected_and_the_former_one_waits() -> None:
    story = owned(protection_days=30, approval_rules=[]).when(transfer(), by="per_a")
    (_, transferred, _) = story.draft.all if story.draft else ()
    assert isinstance(transferred, d.OwnershipTransferred)
    assert transferred.protected_until is not None
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_b")
    story.when(r.ClaimFiled("cus_1", "per_a"))
    assert isinstance(story.decided, d.ClaimRefused)
    assert story.decided.reason == reasons.COOLDOWN


# --- refused at the door -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("receiver", "reason"),
    [
        ("per_a", reasons.ALREADY_YOURS),
        ("per_nobody", reasons.CLAIMANT_UNKNOWN),
        ("per_left", reasons.CLAIMANT_LEFT),
    ],
)
def test_to_whom_it_cannot_go(receiver: str, reason: str) -> None:
    story = owned().given(
        facts.PersonJoined("per_left", NAME, "ter_east"),
        facts.PersonLeft("per_left", date(2026, 3, 1)),
    )
    story.when(transfer(receiver), by="per_head").then(refused(reason, receiver))


LEFT = facts.PersonLeft("per_a", START.date())


def test_whoever_has_left_asks_for_no_transfer_and_releases_nothing() -> None:
    """An owner who had left gave customers away in front of the head who acts as their owner."""
    story = owned().given(LEFT).when(transfer(), by="per_a")
    story.then(refused(reasons.REQUESTER_LEFT))
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.then(d.ReleaseRefused("cus_1", reasons.REQUESTER_LEFT, "per_a"))
    story.when(transfer(), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_nor_what_was_asked_before_all_was_handed_over_and_is_decided_behind_it() -> None:
    story = owned()
    held = story.settled.holdings_of("per_a")
    story.settled.holdings["per_a"] = replace(held, closed=10_000)
    story.when(transfer(), by="per_a").then(refused(reasons.REQUESTER_LEFT))


def test_who_leaves_tomorrow_may_still_ask_today() -> None:
    tomorrow = facts.PersonLeft("per_a", START.date() + timedelta(days=1))
    owned().given(tomorrow).when(transfer(), by="per_a").then(
        opened("per_b", (HEAD_EAST, accepts("per_b")), ("per_head",), requester="per_a")
    )


@pytest.mark.parametrize("version", [1, 2])
def test_versions_before_let_them(version: int) -> None:
    story = owned().given(LEFT)
    story.version = version
    story.when(transfer(), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    assert owner_of(story) is None


def test_not_to_somebody_who_is_at_the_holding_limit() -> None:
    story = owned(holding_limit=1)
    story.when(register("cus_2")).when(r.ClaimFiled("cus_2", "per_b"))
    story.when(transfer(), by="per_a").then(refused(reasons.HOLDING_LIMIT))


def test_not_what_nobody_owns_or_is_closed_or_was_never_admitted() -> None:
    free = owned().when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    free.when(transfer(), by="per_b").then(refused(reasons.NOT_OWNED, owner=None))
    shut = owned().when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    shut.when(transfer(), by="per_a").then(refused(reasons.CUSTOMER_CLOSED))
    nothing = company().when(transfer(), by="per_a")
    nothing.then(refused(reasons.CUSTOMER_NOT_ADMITTED, owner=None))


def test_protection_refuses_others_and_neither_the_owner_nor_the_head() -> None:
    until = START + timedelta(days=30)
    for asks, held in (("per_b", False), ("per_c", False), ("per_a", True), ("per_head", True)):
        story = owned(protection_days=30).when(transfer(), by=asks)
        assert isinstance(story.decided, d.ApprovalOpened) == held
        if not held:
            assert isinstance(story.decided, d.TransferRefused)
            assert story.decided.reason == reasons.PROTECTED
            assert story.decided.retry_at == until


def test_of_two_transfers_at_once_the_later_one_is_refused() -> None:
    story = owned().when(transfer(), by="per_a").when(transfer("per_c", "trf_2"), by="per_a")
    assert story.draft is not None
    assert story.draft.all == (
        d.TransferRefused("cus_1", "trf_2", "per_c", reasons.APPROVAL_OPEN, "per_a"),
    )


def test_where_nobody_is_entitled_it_is_refused_at_the_door() -> None:
    story = Story().given(
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        facts.PersonJoined("per_a", NAME, "ter_east"),
        facts.PersonJoined("per_b", NAME, "ter_east"),
        facts.TerritoryDefined("ter_east", "华东", None, "per_a"),
    )
    story.when(register()).when(r.ClaimFiled("cus_1", "per_a")).later(days=40)
    # The only head asks, and there is no administrator.
    story.when(transfer(), by="per_a").then(refused(reasons.NO_APPROVER))


def test_an_imported_transfer_older_than_the_last_decision_is_out_of_order() -> None:
    story = owned().given(
        facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {"approval_rules": []})
    )
    story.when(transfer(), by="per_a", on=START - timedelta(days=1), under="imp_1")
    story.then(refused(reasons.HISTORY_OUT_OF_ORDER))


def in_an_import(story: Story, request: r.Request, by: str) -> Story:
    """Record a row of an import, of before the transfer was asked for."""
    return story.when(request, by=by, on=START, under="imp_1")


def test_an_imported_answer_older_than_the_last_decision_is_out_of_order() -> None:
    """It counted, and moved the owner at a time before which it was said to have happened."""
    story = (
        owned()
        .when(transfer(), by="per_a")
        .given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {"approval_rules": []}))
    )
    for answer, by in (
        (r.ApprovalGiven("cus_1", "trf_1"), "per_head"),
        (r.ApprovalDenied("cus_1", "trf_1", "no"), "per_head"),
        (r.TransferWithdrawn("cus_1", "trf_1", "no"), "per_a"),
    ):
        in_an_import(story, answer, by).then(not_counted(by, reasons.HISTORY_OUT_OF_ORDER))
    story.version = 2
    in_an_import(story, r.ApprovalGiven("cus_1", "trf_1"), "per_head")
    assert isinstance(story.decided, d.StepAnswered)
    in_an_import(story, r.TransferWithdrawn("cus_1", "trf_1", "no"), "per_a")
    story.then(closed("withdrawn"))


# --- who may answer ----------------------------------------------------------------------------


def test_answers_that_do_not_count() -> None:
    story = owned().when(transfer("per_c"), by="per_a")
    agree(story, "per_west").then(not_counted("per_west", reasons.NOT_YOUR_TURN))
    agree(story, "per_deputy").then(not_counted("per_deputy", reasons.NOT_ASKED))
    agree(story, "per_a").then(not_counted("per_a", reasons.OWN_CAUSE))
    agree(story, "per_head", "trf_9").then(
        not_counted("per_head", reasons.APPROVAL_CLOSED, "trf_9")
    )
    agree(story, "per_head")
    agree(story, "per_head").then(not_counted("per_head", reasons.ALREADY_ANSWERED))
    assert owner_of(story) == "per_a"


def test_a_head_who_asks_is_replaced_by_the_next_head_up() -> None:
    story = owned().when(transfer(), by="per_head")
    story.then(opened("per_b", (HEAD_EAST, accepts("per_b")), ("per_boss",), requester="per_head"))
    agree(story, "per_head").then(not_counted("per_head", reasons.OWN_CAUSE))
    agree(story, "per_boss").then(
        answered(0, "per_boss"), d.StepOpened("cus_1", "trf_1", 1, ("per_b",))
    )


def test_neither_may_who_acts_for_a_party() -> None:
    """Else a head who stands in for the requester would judge the requester's cause."""
    story = owned().given(facts.DelegateNamed("per_a", "per_head", *FOREVER))
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_boss",)  # type: ignore[union-attr]


def acted_for_by_the_head(person: str, **rules: Any) -> Story:
    """``person`` is acted for by a colleague, who is acted for by the head."""
    return owned(**rules).given(
        facts.DelegateNamed(person, "per_c", *FOREVER),
        facts.DelegateNamed("per_c", "per_head", *FOREVER),
    )


@pytest.mark.parametrize("party", ["per_a", "per_b"])
def test_nor_may_who_acts_for_somebody_who_acts_for_a_party(party: str) -> None:
    """The delegate of a party's delegate judged, who may well stand in for the party itself."""
    story = acted_for_by_the_head(party).when(transfer(), by="per_a")
    assert story.decided.asked == ("per_boss",)  # type: ignore[union-attr]
    agree(story, "per_head").then(not_counted("per_head", reasons.NOT_ASKED))


@pytest.mark.parametrize("version", [1, 2])
def test_versions_before_excluded_the_nearest_delegates_alone(version: int) -> None:
    story = acted_for_by_the_head("per_a")
    story.version = version
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_head",)  # type: ignore[union-attr]


def test_people_who_act_for_each_other_are_excluded_together() -> None:
    story = acted_for_by_the_head("per_a").given(
        facts.DelegateNamed("per_head", "per_a", *FOREVER),
        facts.DelegateNamed("per_head", "per_boss", *FOREVER),
    )
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_admin",)  # type: ignore[union-attr]


def test_a_head_over_both_territories_fills_one_step_only() -> None:
    story = owned().given(facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_head"))
    story.when(transfer("per_c"), by="per_a")
    agree(story, "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_boss",))
    )


def test_whoever_is_away_is_replaced_by_a_delegate_and_that_one_by_another() -> None:
    away = facts.PersonAway("per_head", *FOREVER)
    story = owned().given(away, facts.DelegateNamed("per_head", "per_deputy", *FOREVER))
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_deputy",)  # type: ignore[union-attr]
    story.given(
        facts.PersonAway("per_deputy", *FOREVER),
        facts.DelegateNamed("per_deputy", "per_west", *FOREVER),
        facts.DelegateNamed("per_west", "per_head", *FOREVER),
    )
    # Who is entitled is judged by the facts in front of the answer.
    agree(story, "per_deputy").then(not_counted("per_deputy", reasons.NOT_ASKED))
    agree(story, "per_west").then(
        answered(0, "per_west"), d.StepOpened("cus_1", "trf_1", 1, ("per_b",))
    )


def test_where_every_head_is_away_an_administrator_answers() -> None:
    story = owned().given(
        *(facts.PersonAway(person, *FOREVER) for person in ("per_head", "per_boss"))
    )
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_admin",)  # type: ignore[union-attr]


def test_a_receiver_who_is_away_accepts_by_a_delegate_or_not_at_all() -> None:
    story = owned().given(
        facts.PersonAway("per_b", *FOREVER), facts.DelegateNamed("per_b", "per_c", *FOREVER)
    )
    agree(story.when(transfer(), by="per_a"), "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_c",))
    )
    alone = owned().given(facts.PersonAway("per_b", *FOREVER))
    alone.when(transfer(), by="per_a").then(refused(reasons.NO_APPROVER))


def away(receiver: str, *acting: str) -> Story:
    """The receiver is away, and acted for by the last one, else by the one before."""
    return owned().given(
        facts.PersonAway(receiver, *FOREVER),
        *(facts.DelegateNamed(receiver, each, *FOREVER) for each in acting),
    )


def test_nobody_accepts_for_the_receiver_what_they_have_asked_for_themselves() -> None:
    """Else an owner gets rid of a customer by accepting it for a colleague who is away."""
    away("per_b", "per_a").when(transfer(), by="per_a").then(refused(reasons.NO_APPROVER))
    story = away("per_b", "per_deputy", "per_a").when(transfer(), by="per_a")
    agree(story, "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_deputy",))
    )
    agree(story, "per_a").then(not_counted("per_a", reasons.OWN_CAUSE))
    agree(story, "per_deputy")
    assert owner_of(story) == "per_b"


def test_nor_does_who_acts_for_whoever_asked_unless_it_is_the_receiver() -> None:
    acting = facts.DelegateNamed("per_a", "per_c", *FOREVER)
    away("per_b", "per_c").given(acting).when(transfer(), by="per_a").then(
        refused(reasons.NO_APPROVER)
    )
    story = owned().given(acting).when(transfer("per_c"), by="per_a")
    for person in ("per_head", "per_west", "per_c"):
        agree(story, person)
    assert owner_of(story) == "per_c"


@pytest.mark.parametrize("version", [1, 2])
def test_versions_before_let_who_asked_accept_for_the_receiver(version: int) -> None:
    story = away("per_b", "per_a")
    story.version = version
    agree(agree(story.when(transfer(), by="per_a"), "per_head"), "per_a")
    assert owner_of(story) == "per_b"


def test_where_the_receivers_delegate_has_filled_a_step_that_ones_delegate_accepts() -> None:
    """Else nobody was asked, and what all had agreed to expired."""
    story = agree(owned().when(transfer(), by="per_a"), "per_head")
    story.given(
        facts.PersonAway("per_b", *FOREVER),
        facts.DelegateNamed("per_b", "per_head", *FOREVER),
        facts.DelegateNamed("per_head", "per_deputy", *FOREVER),
    )
    agree(story, "per_deputy")
    assert owner_of(story) == "per_b"


def test_a_new_head_answers_for_a_step_that_was_opened_before() -> None:
    story = owned().when(transfer(), by="per_a")
    story.given(facts.TerritoryDefined("ter_east", "华东", "ter_all", "per_deputy"))
    agree(story, "per_head").then(not_counted("per_head", reasons.NOT_ASKED))
    agree(story, "per_deputy").then(
        answered(0, "per_deputy"), d.StepOpened("cus_1", "trf_1", 1, ("per_b",))
    )


def test_a_policy_that_comes_into_force_meanwhile_takes_no_step_away() -> None:
    story = owned().when(transfer(), by="per_a")
    rules = company(approval_rules=[], protection_days=0).organisation.latest.policy.policy
    story.given(facts.PolicyAdopted(2, rules.as_rules()))
    agree(story, "per_head").then(
        answered(0, "per_head"), d.StepOpened("cus_1", "trf_1", 1, ("per_b",))
    )


# --- how else it ends --------------------------------------------------------------------------


def test_one_refusal_closes_it_and_the_receiver_may_not_claim_after_a_release() -> None:
    """Else what was refused as a transfer would be had by a release and a claim."""
    story = owned(cooldown_days=3).when(transfer(), by="per_a")
    deny(story, "per_head").then(
        answered(0, "per_head", agreed=False), closed("refused", reasons.STEP_REFUSED)
    )
    agree(story, "per_head").then(not_counted("per_head", reasons.APPROVAL_CLOSED))
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    released = story.effective
    story.later(days=1).when(r.ClaimFiled("cus_1", "per_b"))
    assert story.decided == d.ClaimRefused(
        "cus_1", "per_b", reasons.COOLDOWN, None, story.organisation.latest.days_after(released, 3)
    )
    story.later(days=2).when(r.ClaimFiled("cus_1", "per_b"))
    assert isinstance(story.decided, d.OwnershipGranted)


def test_a_refusal_is_forgotten_with_the_next_owner() -> None:
    story = owned(cooldown_days=3).when(transfer(), by="per_a")
    deny(story, "per_head")
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.when(r.ClaimFiled("cus_1", "per_deputy"))
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_deputy")
    story.when(r.ClaimFiled("cus_1", "per_b"))
    assert isinstance(story.decided, d.OwnershipGranted)


def test_whoever_asked_may_withdraw_and_nobody_else() -> None:
    story = owned().when(transfer(), by="per_a")
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_head")
    story.then(not_counted("per_head", reasons.NOT_REQUESTER))
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    story.then(closed("withdrawn"))
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    story.then(not_counted("per_a", reasons.APPROVAL_CLOSED))
    story.when(transfer("per_c", "trf_2"), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_a_release_between_two_answers_makes_it_void() -> None:
    story = agree(owned().when(transfer(), by="per_a"), "per_head")
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a").then(
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east"),
        closed("void", reasons.OWNERSHIP_CHANGED),
    )
    agree(story, "per_b").then(not_counted("per_b", reasons.APPROVAL_CLOSED))
    assert owner_of(story) is None


def test_a_receiver_who_leaves_between_the_steps_receives_nothing() -> None:
    story = owned().when(transfer(), by="per_b")
    story.given(facts.PersonLeft("per_b", date(2026, 3, 1)))
    agree(story, "per_head").then(answered(0, "per_head"), closed("void", reasons.CLAIMANT_LEFT))
    assert owner_of(story) == "per_a"


def test_the_receivers_limit_is_checked_again_at_the_end() -> None:
    story = owned(holding_limit=1).when(transfer(), by="per_b")
    story.when(register("cus_2")).when(r.ClaimFiled("cus_2", "per_b"))
    agree(story, "per_head").then(answered(0, "per_head"), closed("void", reasons.HOLDING_LIMIT))


def test_a_customer_that_is_closed_meanwhile_stays_where_it_is() -> None:
    story = owned().when(transfer(), by="per_b")
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    agree(story, "per_head").then(answered(0, "per_head"), closed("void", reasons.CUSTOMER_CLOSED))


@pytest.mark.parametrize(
    ("version", "reason"), [(2, reasons.APPROVAL_CLOSED), (3, reasons.CUSTOMER_NOT_ADMITTED)]
)
def test_an_answer_at_what_was_never_admitted_does_not_count(version: int, reason: str) -> None:
    """It was told that something no longer awaited approval, which there had never been."""
    story = company()
    story.version = version
    agree(story, "per_head").then(not_counted("per_head", reason))
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "no_need"), by="per_a")
    story.then(not_counted("per_a", reason))


# --- releases that need approval ---------------------------------------------------------------


def test_the_release_of_a_key_customer_awaits_its_head() -> None:
    story = owned(attributes={"grade": "key"})
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)
    name = story.decided.approval
    story.then(
        d.ApprovalOpened(
            "cus_1", name, "release", "per_a", "per_a", "no_need", None, (HEAD_EAST,), ("per_head",)
        )
    )
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a").then(
        d.ReleaseRefused("cus_1", reasons.APPROVAL_OPEN, "per_a")
    )
    agree(story, "per_head", name).then(
        d.StepAnswered("cus_1", name, 0, 0, "per_head", True),
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east"),
        closed("completed", name=name),
    )
    assert owner_of(story) is None


def test_a_refused_release_turns_nobody_down() -> None:
    story = owned(attributes={"grade": "key"})
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    assert isinstance(story.decided, d.ApprovalOpened)
    name = story.decided.approval
    deny(story, "per_head", name)
    assert owner_of(story) == "per_a"
    found: Any = story.settled.customers["cus_1"]
    assert (found.approval, found.turned_down) == (None, ())


def test_a_release_that_nobody_may_approve_is_refused() -> None:
    story = Story().given(
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        facts.PersonJoined("per_a", NAME, "ter_east"),
        facts.TerritoryDefined("ter_east", "华东", None, "per_a"),
    )
    registration = r.RegistrationRequested(
        "cus_1", "organisation", "客户", attributes={"grade": "key"}
    )
    story.when(registration).when(r.ClaimFiled("cus_1", "per_a"))
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.then(d.ReleaseRefused("cus_1", reasons.NO_APPROVER, "per_a"))


# --- steps as data -----------------------------------------------------------------------------


def test_an_owners_own_step_is_left_out_and_counts_as_agreed() -> None:
    either = [{"kind": "owner"}, {"kind": "head"}]
    any_of = [{"steps": [{"approvers": either, "needed": "any"}]}]
    owned(approval_rules=any_of).when(transfer(), by="per_a").then(
        opened("per_b", (), (), requester="per_a"),
        d.OwnershipTransferred("cus_1", "per_b", "per_a", "trf_1", "ter_east", "ter_east"),
        closed("completed"),
    )
    both = [{"steps": [{"approvers": either}]}]
    owned(approval_rules=both).when(transfer(), by="per_a").then(
        opened("per_b", (HEAD_EAST,), ("per_head",), requester="per_a")
    )


def test_a_delegate_of_another_time_acts_for_nobody() -> None:
    over = facts.DelegateNamed("per_head", "per_deputy", date(2026, 1, 1), date(2026, 2, 1))
    story = owned().given(over, facts.PersonAway("per_head", *FOREVER))
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_boss",)  # type: ignore[union-attr]


def test_one_person_fills_one_place_of_a_step() -> None:
    """The boss is named, and would stand in for the head who is away."""
    two = [{"kind": "person", "person": "per_boss"}, {"kind": "head"}]
    story = owned(approval_rules=[{"steps": [{"approvers": two}]}])
    story.given(facts.PersonAway("per_head", *FOREVER)).when(transfer(), by="per_b")
    agree(story, "per_boss").then(answered(0, "per_boss"))
    agree(story, "per_boss").then(not_counted("per_boss", reasons.ALREADY_ANSWERED))
    agree(story, "per_admin")
    assert owner_of(story) == "per_b"


def test_a_named_person_who_is_away_is_replaced_by_the_head_over_them() -> None:
    named = [{"steps": [{"approvers": [{"kind": "person", "person": "per_deputy"}]}]}]
    story = owned(approval_rules=named).given(facts.PersonAway("per_deputy", *FOREVER))
    story.when(transfer(), by="per_b")
    assert story.decided.asked == ("per_head",)  # type: ignore[union-attr]


def test_a_territory_without_a_head_is_judged_by_the_next_one_up() -> None:
    story = owned().given(facts.TerritoryDefined("ter_east", "华东", "ter_all"))
    story.when(transfer(), by="per_a")
    assert story.decided.asked == ("per_boss",)  # type: ignore[union-attr]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_who_has_filled_a_step_does_not_accept_for_the_receiver_as_well(version: int) -> None:
    story = owned()
    story.version = version
    agree(story.when(transfer(), by="per_a"), "per_head")
    story.given(
        facts.PersonAway("per_b", *FOREVER), facts.DelegateNamed("per_b", "per_head", *FOREVER)
    )
    agree(story, "per_head").then(not_counted("per_head", reasons.ALREADY_ANSWERED))
    assert owner_of(story) == "per_a"
