"""Orphaned customers and stand-ins: specifications of the decider, by the stories they tell."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from orjson import loads

from ledger import orphans, reasons, standing_in
from ledger.customer import Admitted
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import ApprovalStep, Approver
from ledger.store.guards import customer_of, state_of
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME, claim, company, policy, register

KEY = {"region": "east", "grade": "key"}
TODAY = START.date()
NEXT_WEEK = TODAY + timedelta(days=7)
ALL_KINDS = {"conflict_kinds": ["competing_claims", "follow_up", "deal"]}


def orphaned(*, attributes: dict[str, Any] | None = None, **rules: Any) -> Story:
    """A customer of the east, whose owner ``per_a`` has left; the west has a head, too."""
    story = company(**{**ALL_KINDS, **rules}).given(
        facts.PersonJoined("per_west", NAME, "ter_west", ("manager",)),
        facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_west"),
    )
    registration = (
        register()
        if attributes is None
        else r.RegistrationRequested("cus_1", "organisation", "客户", attributes=attributes)
    )
    story.when(registration).when(claim("per_a")).later(hours=1)
    return story.given(facts.PersonLeft("per_a", TODAY)).later(hours=1)


def stand_in(
    person: str = "per_b", name: str = "sta_1", until: date = NEXT_WEEK
) -> r.StandInRequested:
    return r.StandInRequested("cus_1", name, person, until, "orphaned")


def named(story: Story, person: str = "per_b", name: str = "sta_1") -> Story:
    return story.when(stand_in(person, name), by="per_head")


def follow_up(person: str, name: str = "fup_1") -> r.FollowUpLogged:
    return r.FollowUpLogged("cus_1", name, person, "call")


def deal(person: str) -> r.DealRecorded:
    return r.DealRecorded("cus_1", "dea_1", person, "won")


def transfer(receiver: str, name: str = "trf_1") -> r.TransferRequested:
    return r.TransferRequested("cus_1", name, receiver, "moved")


def release() -> r.ReleaseRequested:
    return r.ReleaseRequested("cus_1", "no_need")


def customer(story: Story) -> Admitted:
    found = story.settled.customers["cus_1"]
    assert isinstance(found, Admitted)
    return found


# --- in whose care -------------------------------------------------------------------------------


def test_the_head_of_the_leavers_territory_looks_after_them() -> None:
    organisation = orphaned().organisation.latest
    assert orphans.is_orphaned("per_a", organisation, TODAY)
    assert not orphans.is_orphaned("per_a", organisation, TODAY - timedelta(days=1))
    assert not orphans.is_orphaned(None, organisation, TODAY)
    assert orphans.looked_after_by("per_a", "ter_west", organisation, TODAY) == ("per_head",)


def test_without_a_home_it_is_the_head_of_the_customers_territory() -> None:
    story = orphaned().given(facts.PersonChanged("per_a", None, ("rep",)))
    organisation = story.organisation.latest
    assert orphans.looked_after_by("per_a", "ter_west", organisation, TODAY) == ("per_west",)
    assert orphans.acts_as_owner("per_west", "per_a", "ter_west", organisation, TODAY)
    assert not orphans.acts_as_owner("per_head", "per_a", "ter_west", organisation, TODAY)


def test_where_the_head_is_away_whoever_acts_for_the_head_does() -> None:
    week = (TODAY, NEXT_WEEK)
    story = orphaned().given(
        facts.PersonAway("per_head", *week), facts.DelegateNamed("per_head", "per_c", *week)
    )
    organisation = story.organisation.latest
    assert orphans.looked_after_by("per_a", "ter_east", organisation, TODAY) == ("per_c",)
    assert orphans.acts_as_owner("per_c", "per_a", "ter_east", organisation, TODAY)
    assert not orphans.acts_as_owner("per_head", "per_a", "ter_east", organisation, TODAY)
    # The head above may as well.
    assert orphans.acts_as_owner("per_boss", "per_a", "ter_east", organisation, TODAY)


# --- acting as the owner -------------------------------------------------------------------------


def test_the_head_releases_a_key_customer_without_asking_themselves() -> None:
    orphaned(attributes=KEY).when(release(), by="per_head").then(
        d.OwnershipReleased("cus_1", "per_a", "no_need", "ter_east")
    )


def test_while_the_owner_is_there_the_head_above_is_asked() -> None:
    story = orphaned(attributes=KEY).given(facts.PersonReturned("per_a", TODAY))
    story.when(release(), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.decided.asked == ("per_boss",)


def test_version_1_asks_the_head_above_even_then() -> None:
    story = orphaned(attributes=KEY)
    story.version = 1
    story.when(release(), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)


def test_of_a_transfer_the_heads_own_step_counts_and_the_others_are_open() -> None:
    story = orphaned().when(transfer("per_c"), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.decided.steps == (
        ApprovalStep((Approver("head", "ter_west"),), 1),
        ApprovalStep((Approver("receiver", person="per_c"),), 1),
    )
    assert story.decided.asked == ("per_west",)


def test_to_themselves_the_head_transfers_nothing_alone() -> None:
    story = orphaned().when(transfer("per_head"), by="per_head")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.decided.asked == ("per_boss",)


def test_whoever_acts_for_the_head_asks_against_no_protection() -> None:
    week = (TODAY, NEXT_WEEK)
    story = orphaned().given(
        facts.PersonAway("per_head", *week), facts.DelegateNamed("per_head", "per_c", *week)
    )
    story.when(transfer("per_b"), by="per_c")
    assert isinstance(story.decided, d.ApprovalOpened)
    story.when(transfer("per_b", "trf_2"), by="per_deputy")
    assert isinstance(story.decided, d.TransferRefused)


def test_whoever_acts_for_the_head_releases_and_lets_others_collaborate() -> None:
    week = (TODAY, NEXT_WEEK)
    story = orphaned().given(
        facts.PersonAway("per_head", *week), facts.DelegateNamed("per_head", "per_c", *week)
    )
    asked = r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help")
    assert isinstance(story.when(asked, by="per_c").decided, d.CollaboratorAdded)
    assert isinstance(story.when(release(), by="per_c").decided, d.OwnershipReleased)


def test_the_head_gives_a_larger_share_without_asking_themselves() -> None:
    asked = r.CollaborationRequested(
        "cus_1", "col_1", "per_b", "support", "help", share=Decimal(80)
    )
    story = orphaned().when(asked, by="per_head")
    assert isinstance(story.decided, d.CollaboratorAdded)


def test_the_head_withdraws_what_the_leaver_has_asked_for() -> None:
    story = company(protection_days=0).when(register()).when(claim("per_a"))
    story.when(transfer("per_b"), by="per_a").given(facts.PersonLeft("per_a", TODAY))
    withdrawal = r.TransferWithdrawn("cus_1", "trf_1", "no_need")
    story.when(withdrawal, by="per_deputy").then(
        d.AnswerNotCounted("cus_1", "trf_1", "per_deputy", reasons.NOT_REQUESTER)
    )
    story.when(withdrawal, by="per_head").then(d.ApprovalClosed("cus_1", "trf_1", "withdrawn"))


def test_what_another_has_asked_for_the_head_does_not_withdraw() -> None:
    story = company(protection_days=0).when(register()).when(claim("per_a"))
    story.when(transfer("per_b"), by="per_b").given(facts.PersonLeft("per_a", TODAY))
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "no_need"), by="per_head").then(
        d.AnswerNotCounted("cus_1", "trf_1", "per_head", reasons.NOT_REQUESTER)
    )


@pytest.mark.parametrize("person", ["per_head", "per_boss"])
def test_what_the_head_does_there_is_the_owners(person: str) -> None:
    story = orphaned().when(follow_up(person), by=person).then(d.Noted("cus_1", None, "per_a"))
    story.when(deal(person), by=person).then(d.Noted("cus_1", None, "per_a"))
    assert customer(story).conflicts == ()


def test_in_version_1_a_heads_deal_there_is_a_conflict() -> None:
    story = orphaned()
    story.version = 1
    story.when(deal("per_head"), by="per_head")
    assert len(customer(story).conflicts) == 1


def test_others_are_no_owners() -> None:
    story = orphaned().when(follow_up("per_b"), by="per_b")
    assert len(customer(story).conflicts) == 1


# --- stand-ins -----------------------------------------------------------------------------------


def test_a_stand_in_works_the_customer_until_the_day() -> None:
    story = named(orphaned())
    until = story.organisation.latest.start_of(NEXT_WEEK)
    story.then(d.StandInNamed("cus_1", "sta_1", "per_b", "per_a", "per_head", until))
    story.later(days=1).when(follow_up("per_b"), by="per_b")
    story.then(d.Noted("cus_1", None, "per_a"))
    story.when(deal("per_b"), by="per_b").then(d.Noted("cus_1", None, "per_a"))
    assert customer(story).conflicts == ()
    # With the day it is over.
    story.now = until
    story.when(follow_up("per_b", "fup_2"), by="per_b")
    assert len(customer(story).conflicts) == 1


def test_what_is_entered_late_is_judged_by_who_stood_in_when_it_happened() -> None:
    story = named(orphaned()).later(days=1)
    happened = story.now
    story.later(hours=1).when(r.StandInEndRequested("cus_1", "sta_1", "over"), by="per_head")
    story.later(days=1).when(follow_up("per_b"), by="per_b", on=happened).then(
        d.Noted("cus_1", None, "per_a")
    )


def test_a_stand_in_takes_no_decision_for_the_owner() -> None:
    story = named(orphaned())
    assert isinstance(story.when(release(), by="per_b").decided, d.ReleaseRefused)


def test_one_who_is_named_replaces_who_was() -> None:
    story = named(named(orphaned()).later(days=1), "per_c", "sta_2")
    until = story.organisation.latest.start_of(NEXT_WEEK)
    story.then(
        d.StandInEnded("cus_1", "sta_1", "per_b", "replaced"),
        d.StandInNamed("cus_1", "sta_2", "per_c", "per_a", "per_head", until),
    )
    found = standing_in.standing(customer(story).stand_ins, story.now)
    assert found is not None
    assert found.person == "per_c"


@pytest.mark.parametrize("change", ["release", "transfer"])
def test_it_ends_with_the_ownership(change: str) -> None:
    story = named(orphaned())
    if change == "release":
        story.when(release(), by="per_head")
        story.when(claim("per_deputy"))
    else:
        story.when(transfer("per_deputy"), by="per_head")
        story.when(r.ApprovalGiven("cus_1", "trf_1"), by="per_deputy")
    assert customer(story).owner == "per_deputy"
    assert standing_in.standing(customer(story).stand_ins, story.now) is None
    story.later(hours=1).when(follow_up("per_b"), by="per_b")
    assert len(customer(story).conflicts) == 1


@pytest.mark.parametrize("by", ["per_head", "per_b", "per_admin", "per_a"])
def test_who_may_end_it(by: str) -> None:
    story = named(orphaned()).later(hours=1)
    story.when(r.StandInEndRequested("cus_1", "sta_1", "over"), by=by).then(
        d.StandInEnded("cus_1", "sta_1", "per_b", "over")
    )
    story.when(r.StandInEndRequested("cus_1", "sta_1", "over"), by=by).then(
        d.StandInRefused("cus_1", "sta_1", reasons.UNKNOWN_STAND_IN, None, "per_a")
    )


def test_who_may_not_end_it() -> None:
    named(orphaned()).when(r.StandInEndRequested("cus_1", "sta_1", "over"), by="per_c").then(
        d.StandInRefused("cus_1", "sta_1", reasons.NOT_OWNER_OR_HEAD, "per_b", "per_a")
    )


def refused(reason: str, person: str = "per_b", owner: str | None = "per_a") -> d.StandInRefused:
    return d.StandInRefused("cus_1", "sta_1", reason, person, owner)


def test_what_stands_in_the_way() -> None:
    story = orphaned()
    story.when(stand_in(), by="per_b").then(refused(reasons.NOT_OWNER_OR_HEAD))
    story.when(stand_in("per_x"), by="per_head").then(refused(reasons.CLAIMANT_UNKNOWN, "per_x"))
    story.when(stand_in("per_a"), by="per_head").then(refused(reasons.CLAIMANT_LEFT, "per_a"))
    story.when(stand_in(until=TODAY), by="per_head").then(refused(reasons.DAY_NOT_AHEAD))
    far = TODAY + timedelta(days=100)
    story.when(stand_in(until=far), by="per_head").then(refused(reasons.STAND_IN_TOO_LONG))
    story.given(facts.PersonReturned("per_a", TODAY))
    story.when(stand_in(), by="per_head").then(refused(reasons.NOT_ORPHANED))


def test_a_closed_free_or_unknown_customer_has_none() -> None:
    story = orphaned()
    story.when(r.CustomerChangeRequested("cus_1", closed=True))
    story.when(stand_in(), by="per_head").then(refused(reasons.CUSTOMER_CLOSED))
    story.when(release(), by="per_head")
    story.when(stand_in(), by="per_head").then(refused(reasons.NOT_OWNED, owner=None))
    unknown = r.StandInRequested("cus_9", "sta_1", "per_b", NEXT_WEEK, "orphaned")
    story.when(unknown, by="per_head").then(
        d.StandInRefused("cus_9", "sta_1", reasons.CUSTOMER_NOT_ADMITTED, "per_b")
    )
    story.when(r.StandInEndRequested("cus_9", "sta_1", "over"), by="per_head").then(
        d.StandInRefused("cus_9", "sta_1", reasons.UNKNOWN_STAND_IN)
    )


def test_where_history_is_out_of_order_nothing_is_named_or_ended() -> None:
    story = named(orphaned()).given(
        facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", policy().as_rules())
    )
    then = START - timedelta(days=1)
    again = r.StandInRequested("cus_1", "sta_2", "per_b", NEXT_WEEK, "orphaned")
    story.when(again, by="per_head", on=then, under="imp_1").then(
        d.StandInRefused("cus_1", "sta_2", reasons.HISTORY_OUT_OF_ORDER, "per_b", "per_a")
    )


def test_it_does_not_end_out_of_order() -> None:
    story = named(orphaned())
    began = story.now
    story.later(hours=3).when(follow_up("per_b"), by="per_b")
    story.given(facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", policy().as_rules()))
    ending = r.StandInEndRequested("cus_1", "sta_1", "over")
    story.when(ending, by="per_head", on=began + timedelta(hours=1), under="imp_1").then(
        d.StandInRefused("cus_1", "sta_1", reasons.HISTORY_OUT_OF_ORDER, "per_b", "per_a")
    )


def test_by_the_default_a_customer_is_no_orphan_while_its_owner_has_not_left_yet() -> None:
    story = company().when(register()).when(claim("per_a"))
    story.given(facts.PersonLeft("per_a", NEXT_WEEK))
    story.when(stand_in(), by="per_head").then(refused(reasons.NOT_ORPHANED))


def test_the_guards_keep_stand_ins_and_only_the_last_of_them() -> None:
    story = orphaned()
    for number in range(standing_in.REMEMBERED_MAX + 3):
        named(story.later(hours=1), "per_b", f"sta_{number}")
    assert len(customer(story).stand_ins) == standing_in.REMEMBERED_MAX
    assert customer_of(loads(state_of(story.settled, ("customer", "cus_1")))) == customer(story)
