"""Conflicts 撞单: specifications of the decider, by the stories that they tell."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger import deadlines, reasons
from ledger.conflicts import ALLOWED_MAX, EVIDENCE_MAX, PARTIES_MAX, common_territory
from ledger.customer import Admitted
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver, Part
from ledger.settled import Settled
from ledger.store.guards import _put, state_of
from tests.specs.story import START, Story
from tests.specs.test_collaborations import end, follow_up, wants
from tests.specs.test_ownership import NAME
from tests.specs.test_transfers import FOREVER, accepts, agree, deny, owned, owner_of, transfer

ALL = ["competing_claims", "follow_up", "deal"]


def disputed(**rules: Any) -> Story:
    """A customer of the east that a owns since an hour, where conflicts are seen."""
    return owned(**{"conflict_kinds": ALL, **rules})


def claim(person: str) -> r.ClaimFiled:
    return r.ClaimFiled("cus_1", person)


def deal(person: str, name: str = "dea_1") -> r.DealRecorded:
    return r.DealRecorded("cus_1", name, person, "won")


def opened(
    story: Story,
    kind: str,
    person: str = "per_b",
    asked: tuple[str, ...] = ("per_head",),
    owner: str = "per_a",
) -> d.ConflictOpened:
    position = last(story)
    return d.ConflictOpened("cus_1", f"cft_{position}", kind, (owner, person), (position,), asked)


def last(story: Story) -> int:
    """The position of the last request."""
    assert story.draft is not None
    return story.position - len(story.draft.all)


def more(story: Story, conflict: str, *joining: str, asked: str = "per_head") -> Any:
    return d.ConflictEvidenceAdded("cus_1", conflict, (last(story),), joining, (asked,))


def ruling(conflict: str, what: str, **terms: Any) -> r.RulingGiven:
    return r.RulingGiven("cus_1", conflict, what, "first_contact", **terms)


def closed(
    conflict: str, outcome: str, by: str | None = "per_head", receiver: str | None = None
) -> d.ConflictClosed:
    return d.ConflictClosed("cus_1", conflict, outcome, "first_contact", by, receiver)


def gone(conflict: str, reason: str = reasons.OWNERSHIP_CHANGED) -> d.ConflictClosed:
    return d.ConflictClosed("cus_1", conflict, "gone", reason)


def refused(conflict: str, reason: str, person: str = "per_head") -> d.RulingRefused:
    return d.RulingRefused("cus_1", conflict, person, reason)


def only_noted(remark: str, owner: str | None = "per_a") -> d.Noted:
    return d.Noted("cus_1", remark, owner)


NON_OWNER = d.Noted("cus_1", reasons.FOLLOW_UP_BY_NON_OWNER, "per_a")
NO_DEAL_OF_THEIRS = d.Noted("cus_1", reasons.DEAL_BY_NON_OWNER, "per_a")


def customer_of(story: Story) -> Admitted:
    found = story.settled.customers["cus_1"]
    assert isinstance(found, Admitted)
    return found


def followed_up(**rules: Any) -> tuple[Story, str]:
    """A conflict: b has followed up where a owns."""
    story = disputed(**rules).when(follow_up("per_b"), by="per_b")
    story.then(NON_OWNER, opened(story, "follow_up"))
    return story, f"cft_{last(story)}"


# --- what opens one ----------------------------------------------------------------------------


def test_another_claim_within_the_window_competes() -> None:
    story = disputed().when(claim("per_b"), by="per_b")
    lost = d.ClaimRefused("cus_1", "per_b", reasons.OWNED_BY_ANOTHER, "per_a")
    story.then(lost, opened(story, "competing_claims"))


def test_a_head_above_the_owner_competes_with_nobody() -> None:
    story = disputed().when(claim("per_head"), by="per_head")
    story.then(d.ClaimRefused("cus_1", "per_head", reasons.OWNED_BY_ANOTHER, "per_a"))


def test_a_claim_behind_the_window_is_only_late() -> None:
    story = disputed(conflict_window_hours=5)
    story.later(hours=4).when(claim("per_b"), by="per_b")
    story.then(d.ClaimRefused("cus_1", "per_b", reasons.OWNED_BY_ANOTHER, "per_a"))


def test_a_claim_that_fails_for_something_else_opens_none() -> None:
    story = disputed().when(claim("per_a"), by="per_a")
    story.then(d.ClaimRefused("cus_1", "per_a", reasons.ALREADY_YOURS, "per_a"))


def test_who_claims_what_was_just_transferred_competes_with_nobody() -> None:
    story = disputed(approval_rules=[]).when(transfer(), by="per_a")
    story.when(claim("per_c"), by="per_c")
    story.then(d.ClaimRefused("cus_1", "per_c", reasons.OWNED_BY_ANOTHER, "per_b"))


def test_a_follow_up_by_a_rival_opens_one_and_later_ones_are_added() -> None:
    story, conflict = followed_up()
    story.when(follow_up("per_b", "fol_2"), by="per_b").then(NON_OWNER, more(story, conflict))
    # With somebody of the west the nearest common territory is the whole company.
    story.when(follow_up("per_c", "fol_3"), by="per_c")
    story.then(NON_OWNER, more(story, conflict, "per_c", asked="per_boss"))
    (found,) = customer_of(story).conflicts
    assert found.parties == ("per_a", "per_b", "per_c")
    assert [each.act for each in found.evidence] == ["fol_1", "fol_2", "fol_3"]


def test_who_does_not_sell_or_is_a_head_above_is_no_rival() -> None:
    story = disputed().given(
        facts.PersonJoined("per_service", NAME, "ter_east", ("integration",)),
        facts.PersonJoined("per_boss", NAME, "ter_all", ("manager", "rep")),
        facts.PersonJoined("per_west", NAME, "ter_west", ("manager", "rep")),
    )
    for person in ("per_service", "per_boss", "per_head"):
        story.when(follow_up(person, f"fol_{person}"), by=person).then(NON_OWNER)
    story.when(follow_up("per_west"), by="per_west")
    story.then(NON_OWNER, opened(story, "follow_up", "per_west", ("per_boss",)))


def test_collaborators_follow_up_without_one_until_they_end() -> None:
    story = disputed().when(wants(), by="per_a")
    story.when(follow_up("per_b"), by="per_b").then(d.Noted("cus_1", None, "per_a"))
    story.when(end(), by="per_a").when(follow_up("per_b", "fol_2"), by="per_b")
    story.then(NON_OWNER, opened(story, "follow_up"))


def test_a_late_follow_up_is_judged_by_who_owned_the_customer_then() -> None:
    story = disputed().later(days=1)
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a").later(hours=1)
    story.when(claim("per_deputy"), by="per_deputy").later(hours=1)
    # Of a's time, which is over: there is nothing to rule on.
    story.when(follow_up("per_b"), by="per_b", on=story.now - timedelta(hours=20)).then(NON_OWNER)
    story.when(follow_up("per_a", "fol_2"), by="per_a", on=story.now - timedelta(hours=20))
    story.then(d.Noted("cus_1", None, "per_a"))
    story.when(follow_up("per_b", "fol_3"), by="per_b", on=story.now - timedelta(minutes=5))
    assert story.draft is not None
    assert isinstance(story.draft.all[-1], d.ConflictOpened)
    assert story.draft.all[-1].parties == ("per_deputy", "per_b")


def test_at_a_free_customer_nobody_is_in_the_way() -> None:
    story = disputed().when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.when(follow_up("per_b"), by="per_b")
    story.then(only_noted(reasons.FOLLOW_UP_BY_NON_OWNER, None))
    story.when(deal("per_b"), by="per_b").then(only_noted(reasons.DEAL_BY_NON_OWNER, None))


def test_a_deal_by_somebody_else_opens_one_whoever_it_is() -> None:
    story = disputed().when(deal("per_head"), by="per_head")
    story.then(NO_DEAL_OF_THEIRS, opened(story, "deal", "per_head", ("per_boss",)))


def test_but_not_one_by_somebody_with_an_agreed_share() -> None:
    story = disputed().when(wants(share=Decimal(20)), by="per_a")
    story.when(deal("per_b"), by="per_b").then(NO_DEAL_OF_THEIRS)
    story.when(wants("per_c", "col_2"), by="per_a")
    story.when(deal("per_c", "dea_2"), by="per_c")
    story.then(NO_DEAL_OF_THEIRS, opened(story, "deal", "per_c", ("per_boss",)))


def test_of_each_kind_one_may_be_open() -> None:
    story, _ = followed_up()
    story.when(claim("per_b"), by="per_b").when(deal("per_b"), by="per_b")
    story.then(NO_DEAL_OF_THEIRS, opened(story, "deal"))
    kinds = [each.kind for each in customer_of(story).conflicts]
    assert kinds == ["follow_up", "competing_claims", "deal"]


@pytest.mark.parametrize("kind", ALL)
def test_a_policy_says_which_kinds_there_are(kind: str) -> None:
    story = disputed(conflict_kinds=[kind])
    for request in (claim("per_b"), follow_up("per_b"), deal("per_b")):
        story.when(request, by="per_b")
    assert [each.kind for each in customer_of(story).conflicts] == [kind]


def test_an_imported_history_opens_none_unless_its_policy_says_so() -> None:
    for said, count in ((False, 0), (True, 1)):
        story = disputed()
        rules = story.organisation.latest.policy.policy.as_rules()
        rules |= {"conflicts_in_imports": said}
        story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
        story.when(follow_up("per_b"), by="per_b", on=story.now, under="imp_1")
        assert len(customer_of(story).conflicts) == count


def test_only_so_much_evidence_is_collected() -> None:
    story, conflict = followed_up()
    for number in range(EVIDENCE_MAX - 1):
        story.when(follow_up("per_b", f"fol_{number}"), by="per_b")
        story.then(NON_OWNER, more(story, conflict))
    story.when(follow_up("per_b", "fol_more"), by="per_b").then(NON_OWNER)


def proved_fully(**rules: Any) -> tuple[Story, str]:
    """A conflict of a and b, of which nobody looks at further proofs."""
    story, conflict = followed_up(**rules)
    for number in range(2, EVIDENCE_MAX + 1):
        story.when(follow_up("per_b", f"fol_{number}"), by="per_b")
    assert len(customer_of(story).conflicts[0].evidence) == EVIDENCE_MAX
    return story, conflict


def test_whoever_comes_later_is_a_party_however_much_was_proved_before() -> None:
    """From the twentieth proof on a new rival was none, and no ruling was about that one."""
    story, conflict = proved_fully()
    story.when(follow_up("per_c", "fol_c"), by="per_c")
    story.then(NON_OWNER, more(story, conflict, "per_c", asked="per_boss"))
    story.when(follow_up("per_c", "fol_more"), by="per_c").then(NON_OWNER)
    # What brought somebody into it stands, also where all that was proved before never happened.
    for number in range(1, EVIDENCE_MAX + 1):
        story.when(r.FollowUpVoided("cus_1", f"fol_{number}", "double"), by="per_b")
        story.then(d.Noted("cus_1"))
    (found,) = customer_of(story).conflicts
    assert [each.act for each in found.evidence] == ["fol_c"]
    story.when(r.FollowUpVoided("cus_1", "fol_c", "double"), by="per_c")
    story.then(d.Noted("cus_1"), gone(conflict, reasons.ACT_VOIDED))


def test_version_2_collects_no_parties_behind_the_last_proof() -> None:
    story, _ = proved_fully()
    story.version = 2
    story.when(follow_up("per_c", "fol_c"), by="per_c").then(NON_OWNER)


def test_only_so_many_are_parties() -> None:
    story, _ = followed_up()
    people = [f"per_{number:03}" for number in range(PARTIES_MAX - 1)]
    story.given(*(facts.PersonJoined(each, NAME, "ter_east") for each in people))
    for person in people:
        story.when(follow_up(person, f"fol_{person}"), by=person)
    assert len(customer_of(story).conflicts[0].parties) == PARTIES_MAX
    story.then(NON_OWNER)


def test_whoever_is_to_own_it_may_follow_up_already() -> None:
    story = disputed().when(transfer(), by="per_a")
    story.when(follow_up("per_b"), by="per_b").then(NON_OWNER)
    # But nobody gets round a conflict by asking for the customer.
    asking = disputed().when(transfer(), by="per_b")
    asking.when(follow_up("per_b"), by="per_b").then(NON_OWNER, opened(asking, "follow_up"))


# --- who rules ---------------------------------------------------------------------------------


def test_nobody_rules_on_a_cause_of_their_own_nor_whoever_acts_for_a_party() -> None:
    story, conflict = followed_up()
    story.given(facts.DelegateNamed("per_b", "per_head", *FOREVER))
    for person in ("per_a", "per_b", "per_head"):
        story.when(ruling(conflict, "keep"), by=person)
        story.then(refused(conflict, reasons.OWN_CAUSE, person))
    story.when(ruling(conflict, "keep"), by="per_deputy")
    story.then(refused(conflict, reasons.NOT_ASKED, "per_deputy"))
    story.when(ruling(conflict, "keep"), by="per_boss").then(closed(conflict, "keep", "per_boss"))


def test_nor_whoever_acts_for_somebody_who_acts_for_a_party() -> None:
    """The delegate of a party's delegate ruled, who may well stand in for the party itself."""
    story, conflict = followed_up()
    story.given(
        facts.DelegateNamed("per_b", "per_c", *FOREVER),
        facts.DelegateNamed("per_c", "per_head", *FOREVER),
    )
    story.when(ruling(conflict, "keep"), by="per_head").then(refused(conflict, reasons.OWN_CAUSE))
    story.when(ruling(conflict, "keep"), by="per_boss").then(closed(conflict, "keep", "per_boss"))


@pytest.mark.parametrize(("version", "waits"), [(2, False), (3, True)])
def test_an_owner_against_whom_it_is_ruled_has_not_agreed_to_the_award(
    version: int, *, waits: bool
) -> None:
    """A step of any of the owner and a named person was done with the owner, who is not asked."""
    two = [{"kind": "owner"}, {"kind": "person", "person": "per_boss"}]
    story, conflict = followed_up(approval_rules=[{"steps": [{"approvers": two, "needed": "any"}]}])
    story.version = version
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    assert owner_of(story) == ("per_a" if waits else "per_b")
    found: Any = story.settled.customers["cus_1"]
    steps = () if found.approval is None else tuple(each.step for each in found.approval.steps)
    assert steps == ((ApprovalStep((Approver("person", person="per_boss"),), 1),) if waits else ())


def test_a_head_who_is_a_party_is_replaced_by_the_next_one_up() -> None:
    story = disputed().when(deal("per_head"), by="per_head")
    conflict = f"cft_{last(story)}"
    story.when(ruling(conflict, "dismiss"), by="per_head")
    story.then(refused(conflict, reasons.OWN_CAUSE))
    story.when(ruling(conflict, "dismiss"), by="per_boss")
    story.then(closed(conflict, "dismiss", "per_boss"))


def test_who_is_asked_follows_the_organisation_up_to_the_ruling() -> None:
    story, conflict = followed_up()
    story.given(facts.PersonAway("per_head", *FOREVER))
    story.when(ruling(conflict, "keep"), by="per_head")
    story.then(refused(conflict, reasons.NOT_ASKED))
    story.given(facts.DelegateNamed("per_head", "per_deputy", *FOREVER))
    story.when(ruling(conflict, "keep"), by="per_deputy")
    story.then(closed(conflict, "keep", "per_deputy"))


def test_people_without_a_territory_are_ruled_on_by_an_administrator() -> None:
    story = Story().given(
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        facts.PersonJoined("per_admin", NAME, None, ("admin",)),
        facts.PersonJoined("per_a", NAME),
        facts.PersonJoined("per_b", NAME),
    )
    story.when(r.RegistrationRequested("cus_1", "organisation", "客户"))
    story.when(claim("per_a"), by="per_a").when(claim("per_b"), by="per_b")
    lost = d.ClaimRefused("cus_1", "per_b", reasons.OWNED_BY_ANOTHER, "per_a")
    story.then(lost, opened(story, "competing_claims", asked=("per_admin",)))
    assert common_territory(("per_a", "per_x"), story.organisation.latest) is None


def test_what_is_not_open_cannot_be_ruled_on() -> None:
    story, conflict = followed_up()
    story.when(ruling("cft_9", "keep"), by="per_head")
    story.then(refused("cft_9", reasons.CONFLICT_CLOSED))
    story.when(ruling(conflict, "keep"), by="per_head")
    story.when(ruling(conflict, "keep"), by="per_head")
    story.then(refused(conflict, reasons.CONFLICT_CLOSED))
    unknown = r.RulingGiven("cus_9", conflict, "keep", "x")
    story.when(unknown, by="per_head").then(
        d.RulingRefused("cus_9", conflict, "per_head", reasons.CONFLICT_CLOSED)
    )


def test_a_ruling_of_an_import_is_no_older_than_what_was_decided() -> None:
    story, conflict = followed_up()
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {}))
    story.when(ruling(conflict, "keep"), by="per_head", on=START, under="imp_1")
    story.then(refused(conflict, reasons.HISTORY_OUT_OF_ORDER))


# --- waiting -----------------------------------------------------------------------------------


def reach(story: Story) -> Story:
    """Let the clock raise what falls due next of the conflict that is open."""
    found = next_due(story)
    assert found is not None
    story.now = max(story.now, found.due)
    request = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    return story.when(request, by=deadlines.CLOCK)


def next_due(story: Story) -> deadlines.Deadline | None:
    (conflict,) = customer_of(story).conflicts
    return deadlines.of_ruling(conflict.conflict, conflict.waiting, story.organisation.latest)


def days_since(story: Story, moment: datetime) -> int:
    return (story.now - moment).days


def test_a_ruling_is_reminded_and_passed_on_upwards_like_a_step() -> None:
    story, conflict = followed_up()
    opened_at = story.now
    reach(story).then(d.RulingReminded("cus_1", conflict, ("per_head",)))
    assert days_since(story, opened_at) == 2
    reach(story).then(d.RulingPassedOn("cus_1", conflict, ("per_boss",)))
    assert days_since(story, opened_at) == 4
    story.when(ruling(conflict, "keep"), by="per_head")
    story.then(refused(conflict, reasons.NOT_ASKED))
    # What proves it further is for whoever is asked by now.
    story.when(follow_up("per_b", "fol_2"), by="per_b")
    story.then(NON_OWNER, more(story, conflict, asked="per_boss"))
    reach(story).then(d.RulingReminded("cus_1", conflict, ("per_boss",)))
    reach(story).then(d.RulingPassedOn("cus_1", conflict, ("per_admin",)))
    for _ in range(2):  # nobody is further up
        reach(story).then(d.RulingReminded("cus_1", conflict, ("per_admin",)))
    story.when(ruling(conflict, "keep"), by="per_admin")
    story.then(closed(conflict, "keep", "per_admin"))


def test_what_a_policy_leaves_out_never_falls_due() -> None:
    figures = {"remind_days": 1, "pass_on_days": None, "expire_days": 3}
    story, conflict = followed_up(approval_deadlines=figures)
    reach(story).then(d.RulingReminded("cus_1", conflict, ("per_head",)))
    assert next_due(story) is None
    figures = {"remind_days": None, "pass_on_days": 3, "expire_days": None}
    story, conflict = followed_up(approval_deadlines=figures)
    reach(story).then(d.RulingPassedOn("cus_1", conflict, ("per_boss",)))


def test_what_an_import_opened_is_awaited_from_its_closing_on() -> None:
    story = disputed()
    rules = story.organisation.latest.policy.policy.as_rules() | {"conflicts_in_imports": True}
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
    story.when(follow_up("per_b"), by="per_b", on=story.now, under="imp_1")
    assert next_due(story) is None
    story.later(days=9).given(facts.ImportClosed("imp_1"))
    found = next_due(story)
    assert found is not None
    assert found.due == story.now + timedelta(days=2)


def test_a_deadline_of_what_was_ruled_on_brings_nothing() -> None:
    story, conflict = followed_up()
    found = next_due(story)
    assert found is not None
    story.when(ruling(conflict, "keep"), by="per_head").later(days=2)
    late = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    story.when(late, by=deadlines.CLOCK).then(d.Noted("cus_1", reasons.DEADLINE_MOVED))


# --- rulings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["keep", "dismiss"])
def test_kept_or_dismissed_it_ends_and_the_next_quarrel_is_a_new_one(what: str) -> None:
    story, conflict = followed_up()
    story.when(ruling(conflict, what), by="per_head").then(closed(conflict, what))
    assert owner_of(story) == "per_a"
    story.when(follow_up("per_b", "fol_2"), by="per_b")
    story.then(NON_OWNER, opened(story, "follow_up"))


def test_allowed_it_is_asked_once() -> None:
    story, conflict = followed_up()
    story.when(ruling(conflict, "allow"), by="per_head").then(closed(conflict, "allow"))
    story.when(follow_up("per_b", "fol_2"), by="per_b").then(NON_OWNER)
    # It covers these parties and this cause, and no others.
    story.when(follow_up("per_c", "fol_3"), by="per_c")
    story.then(NON_OWNER, opened(story, "follow_up", "per_c", ("per_boss",)))
    story.when(deal("per_b"), by="per_b").then(NO_DEAL_OF_THEIRS, opened(story, "deal"))


def test_what_is_allowed_ends_with_the_owner() -> None:
    story, conflict = followed_up(approval_rules=[], cooldown_days=0)
    story.when(ruling(conflict, "allow"), by="per_head")
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.when(claim("per_a"), by="per_a").when(follow_up("per_b", "fol_2"), by="per_b")
    story.then(NON_OWNER, opened(story, "follow_up"))


def test_only_the_last_rulings_that_allow_are_remembered() -> None:
    story = disputed()
    people = [f"per_{number}" for number in range(ALLOWED_MAX + 1)]
    story.given(*(facts.PersonJoined(each, NAME, "ter_east") for each in people))
    for person in people:
        story.when(follow_up(person, f"fol_{person}"), by=person)
        story.when(ruling(f"cft_{last(story)}", "allow"), by="per_head")
    assert len(customer_of(story).allowed) == ALLOWED_MAX
    story.when(follow_up(people[1], "fol_1"), by=people[1]).then(NON_OWNER)
    story.when(follow_up(people[0], "fol_2"), by=people[0])
    story.then(NON_OWNER, opened(story, "follow_up", people[0]))


def test_awarded_it_moves_once_the_steps_that_are_not_the_rulers_are_done() -> None:
    story, conflict = followed_up()
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    name = f"apr_{last(story)}"
    story.then(
        closed(conflict, "award", receiver="per_b"),
        d.ApprovalOpened(
            "cus_1",
            name,
            "transfer",
            "per_head",
            "per_a",
            "first_contact",
            "per_b",
            (accepts("per_b"),),
            ("per_b",),
            ruled_among=("per_a", "per_b"),
        ),
    )
    assert owner_of(story) == "per_a"
    agree(story, "per_b", name)
    assert owner_of(story) == "per_b"


def test_awarded_under_a_policy_of_heads_alone_it_moves_at_once() -> None:
    rules = [{"purposes": ["transfer"], "steps": [{"approvers": [{"kind": "head"}]}]}]
    story, conflict = followed_up(approval_rules=rules)
    story.when(deal("per_b"), by="per_b")
    other = f"cft_{last(story)}"
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    name = f"apr_{last(story)}"
    story.then(
        closed(conflict, "award", receiver="per_b"),
        d.ApprovalOpened(
            *("cus_1", name, "transfer", "per_head", "per_a", "first_contact", "per_b"),
            ruled_among=("per_a", "per_b"),
        ),
        d.OwnershipTransferred("cus_1", "per_b", "per_a", name, "ter_east", "ter_east"),
        d.ApprovalClosed("cus_1", name, "completed"),
        gone(other),
    )
    assert customer_of(story).conflicts == ()


def test_across_territories_both_heads_still_have_their_say() -> None:
    story = disputed().when(claim("per_c"), by="per_c")
    conflict = f"cft_{last(story)}"
    story.when(ruling(conflict, "award", receiver="per_c"), by="per_boss")
    assert story.draft is not None
    approval = story.draft.all[1]
    assert isinstance(approval, d.ApprovalOpened)
    assert [each.approvers[0] for each in approval.steps] == [
        Approver("head", "ter_east"),
        Approver("head", "ter_west"),
        Approver("receiver", person="per_c"),
    ]


def test_the_owner_is_not_asked_whether_to_lose_it() -> None:
    rules = [
        {
            "purposes": ["transfer"],
            "steps": [
                {"approvers": [{"kind": "owner"}]},
                {"approvers": [{"kind": "head"}, {"kind": "receiver"}]},
            ],
        }
    ]
    story, conflict = followed_up(approval_rules=rules)
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    assert story.draft is not None
    approval = story.draft.all[1]
    assert isinstance(approval, d.ApprovalOpened)
    assert approval.steps == (ApprovalStep((Approver("receiver", person="per_b"),), 1),)


def test_a_ruling_while_a_transfer_is_open() -> None:
    story, conflict = followed_up()
    story.when(transfer("per_c"), by="per_a")
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    assert story.draft is not None
    _, void, approval = story.draft.all
    assert void == d.ApprovalClosed("cus_1", "trf_1", "void", reasons.RULED_ON)
    assert isinstance(approval, d.ApprovalOpened)
    agree(story, "per_head").then(
        d.AnswerNotCounted("cus_1", "trf_1", "per_head", reasons.APPROVAL_CLOSED)
    )
    deny(story, "per_b", approval.approval)
    assert owner_of(story) == "per_a"


# --- nobody judges what a ruling on a cause of their own has opened -----------------------------


def awarded(to: str = "per_b", by: str = "per_head", **rules: Any) -> tuple[Story, str]:
    """An award, of a conflict in which c of the west is a party too, and what it has opened."""
    story, conflict = followed_up(**rules)
    if by == "per_boss":
        story.when(follow_up("per_c", "fol_2"), by="per_c")
    story.when(ruling(conflict, "award", receiver=to), by=by)
    assert story.draft is not None
    opened = story.draft.all[1]
    assert isinstance(opened, d.ApprovalOpened)
    return story, opened.approval


def not_counted(approval: str, person: str, reason: str = reasons.OWN_CAUSE) -> d.AnswerNotCounted:
    return d.AnswerNotCounted("cus_1", approval, person, reason)


def test_no_party_judges_what_the_ruling_opens() -> None:
    """A party who stood in for the head refused what the ruling had awarded to another."""
    story, approval = awarded("per_c", "per_boss")
    story.given(
        facts.PersonAway("per_head", *FOREVER), facts.DelegateNamed("per_head", "per_b", *FOREVER)
    )
    deny(story, "per_b", approval).then(not_counted(approval, "per_b"))
    deny(story, "per_a", approval).then(not_counted(approval, "per_a"))
    # Nor whoever acts for one.
    story.given(
        facts.DelegateNamed("per_head", "per_deputy", *FOREVER),
        facts.DelegateNamed("per_a", "per_deputy", *FOREVER),
    )
    deny(story, "per_deputy", approval)
    story.then(not_counted(approval, "per_deputy", reasons.NOT_ASKED))
    for person in ("per_admin", "per_west", "per_c"):
        agree(story, person, approval)
    assert owner_of(story) == "per_c"


def test_what_version_2_opened_is_judged_as_it_was_opened() -> None:
    story, conflict = followed_up()
    story.version = 2
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    name = f"apr_{last(story)}"
    assert story.draft is not None
    opened = story.draft.all[1]
    assert isinstance(opened, d.ApprovalOpened)
    assert opened.ruled_among is None
    story.version = 3
    agree(story, "per_b", name)
    assert owner_of(story) == "per_b"


def test_the_receiver_accepts_and_no_other_party_in_place_of_the_receiver() -> None:
    """The owner, who stood in for the receiver, refused to accept in the receiver's name."""
    story, approval = awarded()
    story.given(
        facts.PersonAway("per_b", *FOREVER),
        facts.DelegateNamed("per_b", "per_a", *FOREVER),
    )
    deny(story, "per_a", approval).then(not_counted(approval, "per_a"))
    story.given(facts.DelegateNamed("per_b", "per_deputy", *FOREVER))
    agree(story, "per_deputy", approval)
    assert owner_of(story) == "per_b"


def test_a_receiver_who_acts_for_the_owner_accepts_all_the_same() -> None:
    story, approval = awarded()
    story.given(facts.DelegateNamed("per_a", "per_b", *FOREVER))
    agree(story, "per_b", approval)
    assert owner_of(story) == "per_b"


def test_a_head_who_is_a_third_party_has_no_step_of_what_the_ruling_opens() -> None:
    """The step of a head who was a party stood open for that head, and not for the next one up."""
    story = (
        disputed().when(deal("per_west"), by="per_west").when(deal("per_c", "dea_2"), by="per_c")
    )
    (conflict,) = customer_of(story).conflicts
    assert conflict.parties == ("per_a", "per_west", "per_c")
    story.when(ruling(conflict.conflict, "award", receiver="per_c"), by="per_boss")
    assert story.draft is not None
    approval = story.draft.all[1]
    assert isinstance(approval, d.ApprovalOpened)
    assert approval.steps == (ApprovalStep((Approver("head", "ter_east"),), 1), accepts("per_c"))


@pytest.mark.parametrize("version", [2, 3])
def test_a_split_takes_no_step_of_a_head_who_is_a_party(version: int) -> None:
    """The share needed the step of a head who was a party, and so was refused to the next one."""
    story = (
        disputed().when(deal("per_head"), by="per_head").when(deal("per_b", "dea_2"), by="per_b")
    )
    (conflict,) = customer_of(story).conflicts
    parts = (Part("per_b", Decimal(60)),)
    story.version = version
    story.when(ruling(conflict.conflict, "split", parts=parts), by="per_boss")
    if version == 2:
        story.then(refused(conflict.conflict, reasons.SHARE_NEEDS_APPROVAL, "per_boss"))
    else:
        assert customer_of(story).collaborations[0].share == Decimal(60)


def test_no_party_makes_void_what_the_ruling_opens() -> None:
    """The owner released the customer, or closed it, and the award was void."""
    story, approval = awarded()
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.then(d.ReleaseRefused("cus_1", reasons.APPROVAL_OPEN, "per_a"))
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    story.then(d.ChangeRefused("cus_1", reasons.APPROVAL_OPEN, ("closed",)))
    agree(story, "per_b", approval)
    assert owner_of(story) == "per_b"
    # A manager above them may.
    other, approval = awarded()
    other.when(r.ReleaseRequested("cus_1", "no_need"), by="per_boss").then(
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east"),
        d.ApprovalClosed("cus_1", approval, "void", reasons.OWNERSHIP_CHANGED),
    )


def test_an_award_that_cannot_be_is_refused_as_a_whole() -> None:
    story, conflict = followed_up(holding_limit=1)
    for person in ("per_a", "per_c", None):
        story.when(ruling(conflict, "award", receiver=person), by="per_head")
        story.then(refused(conflict, reasons.NOT_A_PARTY))
    story.when(r.RegistrationRequested("cus_2", "organisation", "客户"))
    story.when(r.ClaimFiled("cus_2", "per_b"), by="per_b")
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    story.then(refused(conflict, reasons.HOLDING_LIMIT))
    story.when(r.ReleaseRequested("cus_2", "no_need"), by="per_b")
    story.given(facts.PersonAway("per_b", *FOREVER))
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    story.then(refused(conflict, reasons.NO_APPROVER))
    story.given(facts.PersonLeft("per_b", date(2026, 3, 1)))
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    story.then(refused(conflict, reasons.CLAIMANT_LEFT))
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    story.when(ruling(conflict, "award", receiver="per_b"), by="per_head")
    story.then(refused(conflict, reasons.CUSTOMER_CLOSED))
    assert [each.conflict for each in customer_of(story).conflicts] == [conflict]


def test_split_the_others_collaborate_with_the_owner() -> None:
    story, conflict = followed_up()
    story.when(follow_up("per_c", "fol_2"), by="per_c")
    parts = (Part("per_b", Decimal(30)), Part("per_c"))
    story.when(ruling(conflict, "split", parts=parts), by="per_boss")
    position, now = last(story), story.effective
    story.then(
        closed(conflict, "split", "per_boss"),
        d.CollaboratorAdded("cus_1", f"col_{position}_0", "per_b", "split", now, None, Decimal(30)),
        d.CollaboratorAdded("cus_1", f"col_{position}_1", "per_c", "split", now),
    )
    story.when(follow_up("per_b", "fol_3"), by="per_b").then(d.Noted("cus_1", None, "per_a"))


def test_split_whoever_collaborates_already_does_so_by_the_rulings_terms() -> None:
    story = disputed().when(wants(), by="per_a").when(deal("per_b"), by="per_b")
    conflict = f"cft_{last(story)}"
    story.when(ruling(conflict, "split", parts=(Part("per_b", Decimal(40)),)), by="per_head")
    story.then(
        closed(conflict, "split"),
        d.CollaborationsEnded("cus_1", ("col_1",), ("per_b",), reasons.RULED_ON),
        d.CollaboratorAdded(
            "cus_1",
            f"col_{last(story)}_0",
            "per_b",
            "split",
            story.effective,
            None,
            Decimal(40),
        ),
    )
    story.when(deal("per_b", "dea_2"), by="per_b").then(NO_DEAL_OF_THEIRS)


def test_a_head_may_split_off_a_share_that_takes_the_heads_own_step() -> None:
    story, conflict = followed_up()
    story.when(ruling(conflict, "split", parts=(Part("per_b", Decimal(60)),)), by="per_head")
    assert customer_of(story).collaborations[0].share == Decimal(60)


def test_a_split_that_cannot_be_is_refused_as_a_whole() -> None:
    story, conflict = followed_up()
    story.when(follow_up("per_c", "fol_2"), by="per_c")
    for parts, reason in (
        ((Part("per_a"),), reasons.NOT_A_PARTY),
        ((Part("per_b"), Part("per_deputy")), reasons.NOT_A_PARTY),
        ((Part("per_b", Decimal(50)), Part("per_c", Decimal(51))), reasons.SHARES_EXCEEDED),
        # The boss's ruling is not what the head of the east has to say.
        ((Part("per_b", Decimal(60)),), reasons.SHARE_NEEDS_APPROVAL),
    ):
        story.when(ruling(conflict, "split", parts=parts), by="per_boss")
        if reason == reasons.SHARES_EXCEEDED:
            assert isinstance(story.decided, d.RulingRefused)
        else:
            story.then(refused(conflict, reason, "per_boss"))
    assert customer_of(story).collaborations == ()
    without, other = followed_up(approval_rules=[])
    without.when(ruling(other, "split", parts=(Part("per_b", Decimal(60)),)), by="per_head")
    without.then(refused(other, reasons.SHARE_NEEDS_APPROVAL))


# --- gone --------------------------------------------------------------------------------------


def test_with_the_ownership_its_conflicts_are_gone() -> None:
    story, conflict = followed_up()
    story.when(claim("per_b"), by="per_b")
    other = f"cft_{last(story)}"
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a").then(
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east"), gone(conflict), gone(other)
    )
    moved, conflict = followed_up(approval_rules=[])
    moved.when(transfer("per_c"), by="per_a")
    assert moved.draft is not None
    assert moved.draft.all[-1] == gone(conflict)


def test_a_follow_up_that_never_happened_proves_nothing() -> None:
    story, conflict = followed_up()
    story.when(follow_up("per_b", "fol_2"), by="per_b")
    story.when(r.FollowUpVoided("cus_1", "fol_1", "double"), by="per_c")
    story.then(d.CorrectionRefused("cus_1", "fol_1", reasons.NOT_YOURS))
    story.when(r.FollowUpVoided("cus_1", "fol_1", "double"), by="per_b")
    story.then(d.Noted("cus_1"))
    story.when(r.FollowUpVoided("cus_1", "fol_2", "double"), by="per_b")
    story.then(d.Noted("cus_1"), gone(conflict, reasons.ACT_VOIDED))


def test_nor_a_deal_that_fell_through() -> None:
    story = disputed().when(deal("per_b"), by="per_b")
    conflict = f"cft_{last(story)}"
    story.when(r.DealVoided("cus_1", "dea_1", "fell_through"), by="per_b")
    story.then(d.Noted("cus_1"), gone(conflict, reasons.ACT_VOIDED))


def test_once_all_others_collaborate_there_is_nothing_to_rule_on() -> None:
    story, conflict = followed_up()
    story.when(follow_up("per_c", "fol_2"), by="per_c")
    story.when(claim("per_b"), by="per_b").when(deal("per_b"), by="per_b")
    other = f"cft_{last(story)}"
    assert further(story.when(wants(), by="per_a")) == []
    assert further(story.when(wants("per_c", "col_2"), by="per_a")) == [
        gone(conflict, reasons.COLLABORATES)
    ]
    story.when(end(), by="per_a")
    assert further(story.when(wants(name="col_3", share=Decimal(10)), by="per_a")) == [
        gone(other, reasons.COLLABORATES)
    ]
    assert [each.kind for each in customer_of(story).conflicts] == ["competing_claims"]


def further(story: Story) -> list[d.Decision]:
    """What the last request brought besides a new collaborator."""
    assert story.draft is not None
    added, *others = story.draft.all
    assert isinstance(added, d.CollaboratorAdded)
    return others


# --- what is remembered ------------------------------------------------------------------------


def test_a_guard_holds_what_is_open_and_what_is_allowed() -> None:
    story, conflict = followed_up()
    story.when(ruling(conflict, "allow"), by="per_head").when(deal("per_c"), by="per_c")
    stored = state_of(story.settled, ("customer", "cus_1"))
    loaded = Settled()
    _put(loaded, ("customer", "cus_1"), 1, stored)
    assert loaded.customers["cus_1"] == story.settled.customers["cus_1"]
    assert state_of(loaded, ("customer", "cus_1")) == stored
