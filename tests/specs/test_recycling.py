"""Recycling: customers that nobody works go back to the pool, warned in steps."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from ledger import deadlines, reasons
from ledger.conflicts import Conflict, Waiting
from ledger.counting import PAUSES_MAX, Counting, Pause
from ledger.customer import Held
from ledger.deadlines import RECYCLE, RECYCLE_WARNING, Deadline
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.recycling import NO_DEAL, NO_FOLLOW_UP, Kept, fall_of, kept_by, paused_by
from ledger.recycling_rules import RecycleRule, Recycling
from ledger.store import guards
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME, company, register
from tests.specs.test_transfers import agree, transfer

MOVED = d.Noted("cus_1", reasons.DEADLINE_MOVED)
GRANTED = START


def owned(*rules: dict[str, Any], owner: str = "per_a", **more: Any) -> Story:
    """A customer of the east that ``owner`` has just been granted."""
    recycling = {"rules": list(rules or ({"follow_up_days": 31},)), **more}
    story = company(protection_days=0, cooldown_days=3, recycling=recycling)
    return story.when(register(region="east")).when(r.ClaimFiled("cus_1", owner))


def day(number: float) -> datetime:
    return GRANTED + timedelta(days=number)


def next_due(story: Story) -> Deadline | None:
    customer: Any = story.settled.customers["cus_1"]
    return deadlines.next_at("cus_1", customer, story.organisation.latest, story.now)


def expect(story: Story, number: float, kind: str) -> None:
    found = next_due(story)
    assert found is not None
    assert ((found.due - GRANTED) / timedelta(days=1), found.kind) == (number, kind)


def raise_next(story: Story, on: float | None = None) -> Story:
    """Let the clock raise what is next, in time or on a later day."""
    found = next_due(story)
    assert found is not None
    story.now = max(story.now, found.due) if on is None else day(on)
    found = next_due(story)
    assert found is not None
    request = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    return story.when(request, by=deadlines.CLOCK)


def warned(step: int, goes: float, *told: str, because: str = NO_FOLLOW_UP) -> d.RecycleWarned:
    return d.RecycleWarned("cus_1", "per_a", step, because, day(goes), told)


def recycled(because: str = NO_FOLLOW_UP, days: int | None = 31) -> d.CustomerRecycled:
    return d.CustomerRecycled("cus_1", "per_a", because, "ter_east", days)


def follow_up(story: Story, person: str = "per_a", name: str = "fol_1", **how: Any) -> Story:
    return story.when(r.FollowUpLogged("cus_1", name, person, "call"), by=person, **how)


def deal(story: Story, outcome: str = "won", person: str = "per_a", name: str = "dea_1") -> Story:
    return story.when(r.DealRecorded("cus_1", name, person, outcome), by=person)


def owner_of(story: Story) -> str | None:
    found: Any = story.settled.customers["cus_1"]
    owner: str | None = found.owner
    return owner


# --- the way to the pool -----------------------------------------------------------------------


def test_the_owner_is_warned_then_the_head_too_and_then_it_goes() -> None:
    story = owned()
    expect(story, 28, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 31, "per_a"))
    expect(story, 30, RECYCLE_WARNING)
    raise_next(story).then(warned(1, 31, "per_a", "per_head"))
    expect(story, 31, RECYCLE)
    raise_next(story).then(recycled())
    assert (owner_of(story), next_due(story)) == (None, None)
    assert story.settled.holdings_of("per_a").held == 0
    story.when(r.ClaimFiled("cus_1", "per_a"))
    assert isinstance(story.decided, d.ClaimRefused)
    assert story.decided.reason == reasons.COOLDOWN


def collaborated_on() -> Story:
    """A customer that goes next, on which b collaborates, and d has asked to."""
    story = owned().given(facts.PersonJoined("per_d", NAME, "ter_east"))
    for person, by in (("per_b", "per_a"), ("per_d", "per_d")):
        name = f"col_{person}"
        asking = r.CollaborationRequested("cus_1", name, person, "presales", "joint_visit")
        story.when(asking, by=by)
    for _ in range(2):
        raise_next_step(story)
    return story


def raise_next_step(story: Story) -> Story:
    """Let the clock raise what is next towards the pool, and nothing of what awaits an answer."""
    customer: Any = story.settled.customers["cus_1"]
    fall = fall_of("cus_1", customer, story.organisation.latest, story.now)
    assert fall is not None
    found = deadlines.of_fall(fall)
    story.now = max(story.now, found.due)
    request = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    return story.when(request, by=deadlines.CLOCK)


def test_with_a_recycled_customer_its_collaborations_end() -> None:
    """They went on beside no owner; and who had asked the former one might still begin."""
    raise_next_step(collaborated_on()).then(
        recycled(),
        d.CollaborationsEnded("cus_1", ("col_per_b",), ("per_b",), reasons.OWNERSHIP_CHANGED),
        d.ApprovalClosed("cus_1", "col_per_d", "void", reasons.OWNERSHIP_CHANGED),
    )


@pytest.mark.parametrize("version", [1, 2])
def test_before_version_3_they_went_on(version: int) -> None:
    story = collaborated_on()
    story.version = version
    raise_next_step(story).then(recycled(days=None))


def test_nothing_is_recycled_unless_the_policy_says_so() -> None:
    story = company().when(register(region="east")).when(r.ClaimFiled("cus_1", "per_a"))
    assert next_due(story.later(days=3_000)) is None


def test_a_deal_is_counted_apart_and_the_earlier_end_counts() -> None:
    story = owned({"follow_up_days": 31, "deal_days": 60})
    for number in range(3):
        follow_up(story.later(days=20), name=f"fol_{number}")
    expect(story, 57, RECYCLE_WARNING)
    raise_next(story, on=60).then(warned(0, 63, "per_a", because=NO_DEAL))
    deal(story, "lost", name="dea_0")
    expect(story, 62, RECYCLE_WARNING)
    deal(story)
    expect(story, 88, RECYCLE_WARNING)


def test_a_follow_up_of_the_owner_resets_it_and_nobody_elses() -> None:
    story = raise_next(owned())
    follow_up(story, "per_b", "fol_b")
    expect(story, 30, RECYCLE_WARNING)
    follow_up(story)
    expect(story, 28 + 28, RECYCLE_WARNING)
    # Who was warned before the follow-up has not been warned of this.
    raise_next(story).then(warned(0, 28 + 31, "per_a"))


def test_a_follow_up_that_is_voided_or_moved_no_longer_counts_as_it_did() -> None:
    story = follow_up(owned().later(days=5))
    follow_up(story.later(days=5), name="fol_2")
    expect(story, 10 + 28, RECYCLE_WARNING)
    story.when(r.FollowUpVoided("cus_1", "fol_2", "double"), by="per_a")
    expect(story, 5 + 28, RECYCLE_WARNING)
    story.when(r.FollowUpCorrected("cus_1", "fol_1", "wrong", at=day(2)), by="per_a")
    expect(story, 2 + 28, RECYCLE_WARNING)
    story.when(r.FollowUpCorrected("cus_1", "fol_1", "wrong", channel="visit"), by="per_a")
    expect(story, 2 + 28, RECYCLE_WARNING)


def test_a_deal_that_fell_through_or_was_lost_after_all_no_longer_counts() -> None:
    for undone in (
        r.DealVoided("cus_1", "dea_1", "fell_through"),
        r.DealCorrected("cus_1", "dea_1", "wrong", outcome="lost"),
    ):
        story = deal(owned({"deal_days": 31}).later(days=5))
        story.when(r.DealCorrected("cus_1", "dea_1", "wrong", outcome="won"), by="per_a")
        expect(story, 5 + 28, RECYCLE_WARNING)
        story.when(undone, by="per_a")
        expect(story, 28, RECYCLE_WARNING)


def test_a_follow_up_counts_when_it_happened_and_never_ahead() -> None:
    story = owned().later(days=10)
    follow_up(story, on=day(8))
    expect(story, 8 + 28, RECYCLE_WARNING)
    follow_up(story, name="fol_2", on=day(10) + timedelta(minutes=4))
    expect(story, 10 + 28, RECYCLE_WARNING)


def test_a_deadline_and_a_follow_up_at_one_instant_the_first_in_the_log_counts() -> None:
    late = raise_next(raise_next(raise_next(owned())))
    assert owner_of(late) is None
    follow_up(late)
    early = raise_next(raise_next(owned()))
    found = next_due(early)
    assert found is not None
    early.now = found.due
    follow_up(early)
    request = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    early.when(request, by=deadlines.CLOCK).then(MOVED)
    assert owner_of(early) == "per_a"


def test_a_new_owner_never_goes_by_the_clock_of_the_former_one() -> None:
    """In other systems a customer that was just claimed is recycled at once."""
    story = raise_next(raise_next(owned()))
    old = next_due(story)
    assert old is not None
    story.when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    story.when(r.ClaimFiled("cus_1", "per_deputy"))
    story.now = old.due
    request = r.DeadlineReached("cus_1", old.kind, old.subject, old.due)
    story.when(request, by=deadlines.CLOCK).then(MOVED)
    assert owner_of(story) == "per_deputy"
    expect(story, 30 + 28, RECYCLE_WARNING)


# --- the clock slept, the policy changed -------------------------------------------------------


def test_a_clock_that_slept_warns_first_and_each_warning_runs_its_full_time() -> None:
    story = raise_next(owned(), on=40)
    story.then(warned(0, 43, "per_a"))
    expect(story, 42, RECYCLE_WARNING)
    raise_next(story, on=50).then(warned(1, 51, "per_a", "per_head"))
    expect(story, 51, RECYCLE)


def test_a_policy_that_was_tightened_warns_first_as_well() -> None:
    story = owned().later(days=10)
    number = story.organisation.latest.policy.number + 1
    tight = {"recycling": {"rules": [{"follow_up_days": 5}]}}
    story.given(facts.PolicyAdopted(number, tight))
    raise_next(story, on=10).then(warned(0, 13, "per_a"))
    expect(story, 12, RECYCLE_WARNING)


def test_a_policy_that_was_loosened_warns_anew() -> None:
    story = raise_next(owned())
    number = story.organisation.latest.policy.number + 1
    story.given(facts.PolicyAdopted(number, {"recycling": {"rules": [{"follow_up_days": 61}]}}))
    expect(story, 58, RECYCLE_WARNING)
    raise_next(story)
    assert isinstance(story.decided, d.RecycleWarned)
    assert story.decided.step == 0


def test_before_version_3_nobody_said_how_many_days_it_were() -> None:
    story = owned(warnings=[])
    story.version = 2
    raise_next(story).then(recycled(days=None))


def test_a_rule_may_warn_in_its_own_way() -> None:
    """All rules had to warn as the policy did: key customers as late as any, and the head not."""
    own = [{"days_before": 10, "to": ["owner", "head"]}, {"days_before": 2, "to": ["head"]}]
    story = owned({"follow_up_days": 31, "warnings": own})
    expect(story, 21, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 31, "per_a", "per_head"))
    expect(story, 29, RECYCLE_WARNING)
    raise_next(story).then(warned(1, 31, "per_head"))
    expect(story, 31, RECYCLE)
    raise_next(story).then(recycled())


def test_a_rule_may_warn_nobody_where_the_policy_does() -> None:
    expect(owned({"follow_up_days": 2, "warnings": []}), 2, RECYCLE)


def test_a_rule_that_says_nothing_of_warnings_is_stored_as_before() -> None:
    stored = Recycling(rules=(RecycleRule(follow_up_days=31),)).model_dump(mode="json")
    assert "warnings" not in stored["rules"][0]
    own = Recycling.model_validate({"rules": [{"follow_up_days": 31, "warnings": []}]})
    assert own.model_dump(mode="json")["rules"][0]["warnings"] == []
    assert Recycling.model_validate(own.model_dump(mode="json")) == own


def test_without_warnings_it_just_goes() -> None:
    story = owned(warnings=[])
    expect(story, 31, RECYCLE)
    raise_next(story).then(recycled())


def test_a_deadline_that_is_still_ahead_brings_nothing() -> None:
    story = owned()
    found = next_due(story)
    assert found is not None
    request = r.DeadlineReached("cus_1", found.kind, found.subject, found.due)
    story.when(request, by=deadlines.CLOCK)
    story.then(d.Noted("cus_1", reasons.DEADLINE_AHEAD))


# --- figures and exemptions --------------------------------------------------------------------


def test_figures_go_by_lifecycle_stage_and_territory_and_some_are_exempt() -> None:
    rules = (
        {"conditions": [{"attribute": "grade", "operator": "is", "value": "key"}]},
        {
            "conditions": [{"attribute": "stage", "operator": "is", "value": "lead"}],
            "follow_up_days": 7,
        },
        {"territories": ["ter_west"], "follow_up_days": 60},
        {"territories": ["ter_all"], "follow_up_days": 31},
    )
    for attributes, expected in (
        ({"region": "east", "grade": "key", "stage": "lead"}, None),
        ({"region": "east", "stage": "lead"}, 4),
        ({"region": "west"}, 57),
        ({"region": "east"}, 28),
        ({}, None),
    ):
        story = company(protection_days=0, recycling={"rules": list(rules)})
        story.given(facts.TerritoryDefined("ter_west", "华西", "ter_all", None))
        attributes_in: dict[str, Any] = dict(attributes)
        story.when(
            r.RegistrationRequested("cus_1", "organisation", "客户", attributes=attributes_in)
        )
        story.when(r.AssignmentRequested("cus_1", "per_a"))
        if expected is None:
            assert next_due(story) is None
        else:
            expect(story, expected, RECYCLE_WARNING)


def test_who_is_recycled_goes_by_what_the_customer_is_now() -> None:
    lead = {"conditions": [{"attribute": "stage", "operator": "is", "value": "lead"}]}
    story = owned({**lead, "follow_up_days": 7}, {"follow_up_days": 31})
    expect(story, 28, RECYCLE_WARNING)
    change = r.CustomerChangeRequested("cus_1", attributes={"stage": "lead"})
    story.when(change, by="per_a")
    assert isinstance(story.decided, d.ChangeRefused)  # else the owner would choose the figures
    story.when(change, by="per_head")
    expect(story, 4, RECYCLE_WARNING)


def test_who_has_won_deals_may_be_exempt_or_have_other_figures() -> None:
    rules = (
        {"won_deals_min": 2},
        {"won_deals_min": 1, "follow_up_days": 61},
        {"follow_up_days": 31},
    )
    story = owned(*rules)
    expect(story, 28, RECYCLE_WARNING)
    deal(story, "lost", name="dea_0")
    expect(story, 28, RECYCLE_WARNING)
    deal(story)
    expect(story, 58, RECYCLE_WARNING)
    deal(story, name="dea_2")
    assert next_due(story) is None
    story.when(r.DealVoided("cus_1", "dea_2", "fell_through"), by="per_a")
    expect(story, 58, RECYCLE_WARNING)
    story.when(r.DealCorrected("cus_1", "dea_1", "wrong", outcome="lost"), by="per_a")
    expect(story, 28, RECYCLE_WARNING)


def test_a_rule_without_a_number_of_won_deals_holds_for_any() -> None:
    """What policies of before say: the field is not in their JSON."""
    rule = RecycleRule.model_validate({"follow_up_days": 31})
    assert Recycling(rules=(rule,)).rule_for(None, {}, 0, lambda *_: False) is rule
    assert Recycling(rules=(rule,)).rule_for(None, {}, 7, lambda *_: False) is rule


# --- pauses ------------------------------------------------------------------------------------


def test_nothing_counts_while_the_owner_is_away() -> None:
    story = owned()
    story.given(facts.PersonAway("per_a", date(2026, 3, 10), date(2026, 3, 17)))
    expect(story, 28 + 7, RECYCLE_WARNING)
    story.given(facts.PersonAway("per_a", date(2026, 3, 15), date(2026, 3, 20)))
    expect(story, 28 + 10, RECYCLE_WARNING)
    story.given(facts.PersonAway("per_a", date(2025, 3, 15), date(2025, 3, 20)))
    expect(story, 28 + 10, RECYCLE_WARNING)


def test_it_counts_again_from_the_day_on_which_the_owner_is_back_early() -> None:
    """An absence ran to its last day whatever happened, and its customers stayed as long."""
    story = owned()
    story.given(facts.PersonAway("per_a", date(2026, 3, 10), date(2026, 3, 17)))
    story.given(facts.AbsenceEnded("per_a", date(2026, 3, 12)))
    expect(story, 28 + 2, RECYCLE_WARNING)


def test_who_is_away_when_it_falls_due_is_warned_on_the_return() -> None:
    story = owned()
    story.given(facts.PersonAway("per_a", date(2026, 4, 5), date(2026, 4, 12)))
    # It falls due before the absence; but the clock sleeps until it has begun.
    expect(story, 28, RECYCLE_WARNING)
    first = next_due(story)
    assert first is not None
    story.now = datetime(2026, 4, 6, tzinfo=UTC)
    request = r.DeadlineReached("cus_1", first.kind, first.subject, first.due)
    story.when(request, by=deadlines.CLOCK).then(MOVED)
    found = next_due(story)
    assert found is not None
    assert found.due == story.organisation.latest.start_of(date(2026, 4, 12))


def test_nothing_counts_while_something_awaits_approval() -> None:
    story = owned().later(days=10).when(transfer(), by="per_a")
    found = next_due(story)
    assert found is not None
    assert found.kind == deadlines.STEP_REMINDER
    story.later(days=5).when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    expect(story, 28 + 5, RECYCLE_WARNING)


def test_who_receives_it_begins_anew() -> None:
    story = owned().later(days=10).when(transfer(), by="per_a")
    agree(agree(story, "per_head").later(days=1), "per_b")
    assert owner_of(story) == "per_b"
    expect(story, 11 + 28, RECYCLE_WARNING)


def test_what_fell_due_while_an_approval_was_open_comes_when_it_is_closed() -> None:
    story = owned()
    story.now = day(28.5)
    story.when(transfer(), by="per_a")
    story.now = day(29.5)
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    expect(story, 29.5, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 32.5, "per_a"))


def test_a_pause_at_the_very_beginning_takes_no_time() -> None:
    story = owned().when(transfer(), by="per_a")
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    expect(story, 28, RECYCLE_WARNING)


def disputed() -> Story:
    """A customer that is owned for ten days, at which somebody else has followed up."""
    rules = {"rules": [{"follow_up_days": 31}]}
    story = company(protection_days=0, recycling=rules, conflict_kinds=["follow_up", "deal"])
    story.when(register(region="east")).when(r.ClaimFiled("cus_1", "per_a"))
    follow_up(story.later(days=10), "per_b", "fol_b")
    assert story.draft is not None
    assert isinstance(story.draft.all[-1], d.ConflictOpened)
    return story


def conflicts_of(story: Story) -> tuple[str, ...]:
    customer: Any = story.settled.customers["cus_1"]
    return tuple(each.conflict for each in customer.conflicts)


def test_nothing_counts_while_a_conflict_awaits_its_ruling() -> None:
    story = disputed()
    expect(story, 12, deadlines.RULING_REMINDER)
    story.later(days=1).when(r.DealRecorded("cus_1", "dea_b", "per_b", "won"), by="per_b")
    first, second = conflicts_of(story)
    story.later(days=2).when(r.RulingGiven("cus_1", first, "keep", "first"), by="per_head")
    story.later(days=1).when(r.RulingGiven("cus_1", second, "keep", "first"), by="per_head")
    assert conflicts_of(story) == ()
    expect(story, 28 + 4, RECYCLE_WARNING)


def test_what_was_in_dispute_when_the_ownership_began_pauses_it_from_there() -> None:
    story = disputed()
    customer: Any = story.settled.customers["cus_1"]
    began = customer._replace(tenure=replace(customer.tenure, since=day(12), counting=Counting()))
    ended = paused_by(began, began._replace(conflicts=()), day(14))
    assert isinstance(ended.tenure, Held)
    assert ended.tenure.counting.pauses == (Pause(day(12), day(14)),)
    at_once = paused_by(began, began._replace(conflicts=()), day(12))
    assert isinstance(at_once.tenure, Held)
    assert at_once.tenure.counting == Counting()


def test_a_follow_up_of_a_collaborator_resets_it_as_well() -> None:
    story = owned().later(days=10)
    wanted = r.CollaborationRequested("cus_1", "col_1", "per_b", "support", "help")
    story.when(wanted, by="per_a")
    assert isinstance(story.draft and story.draft.all[-1], d.CollaboratorAdded)
    follow_up(story.later(days=5), "per_b", "fol_b")
    expect(story, 15 + 28, RECYCLE_WARNING)


# --- holds -------------------------------------------------------------------------------------


def hold(story: Story, until: date, by: str = "per_head") -> Story:
    return story.when(r.RecycleHoldRequested("cus_1", until, "big_tender"), by=by)


def test_a_head_holds_it_until_a_day() -> None:
    story = raise_next(owned())
    until = story.organisation.latest.start_of(date(2026, 4, 20))
    hold(story, date(2026, 4, 20)).then(d.RecycleHeld("cus_1", "per_a", until))
    held = (until - story.now) / timedelta(days=1)
    expect(story, 30 + held, RECYCLE_WARNING)


def test_a_later_hold_replaces_the_one_before_it() -> None:
    story = hold(owned(), date(2026, 5, 20))
    hold(story.later(days=2), date(2026, 3, 10))
    ends = story.organisation.latest.start_of(date(2026, 3, 10))
    expect(story, 28 + (ends - GRANTED) / timedelta(days=1), RECYCLE_WARNING)


def test_a_hold_goes_on_behind_an_approval() -> None:
    story = owned().later(days=1).when(transfer(), by="per_a")
    hold(story.later(days=1), date(2026, 4, 1))
    story.later(days=1).when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    ends = story.organisation.latest.start_of(date(2026, 4, 1))
    expect(story, 28 - 1 + (ends - GRANTED) / timedelta(days=1), RECYCLE_WARNING)


@pytest.mark.parametrize(
    ("until", "by", "reason"),
    [
        (date(2026, 3, 20), "per_a", reasons.HOLD_NEEDS_HEAD),
        (date(2026, 3, 20), "per_b", reasons.HOLD_NEEDS_HEAD),
        (date(2026, 3, 2), "per_head", reasons.DAY_NOT_AHEAD),
        (date(2026, 9, 2), "per_head", reasons.HOLD_TOO_LONG),
    ],
)
def test_holds_that_are_refused(until: date, by: str, reason: str) -> None:
    hold(owned(), until, by).then(d.RecycleHoldRefused("cus_1", reason, "per_a"))


def test_nobody_holds_their_own_nor_what_is_free_or_unknown() -> None:
    day_ahead = date(2026, 3, 20)
    own = owned(owner="per_head")
    hold(own, day_ahead).then(d.RecycleHoldRefused("cus_1", reasons.HOLD_NEEDS_HEAD, "per_head"))
    hold(own, day_ahead, "per_boss")
    assert isinstance(own.decided, d.RecycleHeld)
    free = owned().when(r.ReleaseRequested("cus_1", "no_need"), by="per_a")
    hold(free, day_ahead).then(d.RecycleHoldRefused("cus_1", reasons.NOT_OWNED))
    hold(company(), day_ahead).then(d.RecycleHoldRefused("cus_1", reasons.CUSTOMER_NOT_ADMITTED))


def test_an_imported_hold_older_than_the_last_decision_is_out_of_order() -> None:
    story = owned().given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {}))
    request = r.RecycleHoldRequested("cus_1", date(2026, 3, 20), "big_tender")
    story.when(request, by="per_head", on=day(-1), under="imp_1")
    story.then(d.RecycleHoldRefused("cus_1", reasons.HISTORY_OUT_OF_ORDER, "per_a"))


def test_of_many_follow_ups_only_the_last_are_remembered() -> None:
    story = owned()
    for number in range(5):
        follow_up(story.later(days=1), name=f"fol_{number}")
    story.when(r.FollowUpCorrected("cus_1", "fol_0", "wrong", at=day(4.5)), by="per_a")
    expect(story, 5 + 28, RECYCLE_WARNING)
    for number in (4, 3):
        story.when(r.FollowUpVoided("cus_1", f"fol_{number}", "double"), by="per_a")
    # Whoever voids all that are remembered counts from the beginning.
    expect(story, 28, RECYCLE_WARNING)


def test_what_is_counted_survives_in_the_guard_and_takes_no_room_where_it_is_nothing() -> None:
    story = owned()
    fresh = story.settled.customers["cus_1"]
    assert "counting" not in guards.customer_json(fresh)
    deal(follow_up(hold(story, date(2026, 3, 20)).later(days=1)))
    raise_next(story)
    kept = story.settled.customers["cus_1"]
    stored = orjson.dumps(guards.customer_json(kept), option=orjson.OPT_SORT_KEYS)
    assert guards.customer_of(orjson.loads(stored)) == kept


def test_many_pauses_are_taken_together_in_the_owners_favour() -> None:
    story = owned({"follow_up_days": 300})
    for number in range(PAUSES_MAX + 2):
        story.later(days=2).when(transfer(name=f"trf_{number}"), by="per_a")
        withdrawn = r.TransferWithdrawn("cus_1", f"trf_{number}", "withdrawn")
        story.later(days=1).when(withdrawn, by="per_a")
    customer: Any = story.settled.customers["cus_1"]
    assert len(customer.tenure.counting.pauses) == PAUSES_MAX
    # Eighteen days of pauses, and the four between those that were taken together.
    expect(story, 297 + PAUSES_MAX + 2 + 4, RECYCLE_WARNING)


# --- who is not recycled -----------------------------------------------------------------------


def test_what_a_leaver_owns_is_not_recycled_and_counts_anew_on_the_return() -> None:
    story = owned().given(facts.PersonLeft("per_a", date(2026, 3, 20)))
    assert next_due(story) is None
    story.given(facts.PersonReturned("per_a", date(2026, 4, 1)))
    found = next_due(story)
    assert found is not None
    assert found.due == story.organisation.latest.start_of(date(2026, 4, 29))


def test_a_leaver_who_is_still_there_when_it_falls_due_is_warned() -> None:
    story = owned().given(facts.PersonLeft("per_a", date(2026, 3, 31)))
    expect(story, 28, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 31, "per_a"))
    assert next_due(story) is None


def test_a_closed_customer_stays_where_it_is() -> None:
    story = owned().when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    assert next_due(story) is None


def test_an_owner_nobody_knows_is_not_recycled() -> None:
    story = owned()
    customer: Any = story.settled.customers["cus_1"]
    nobody = company(recycling={"rules": [{"follow_up_days": 31}]})
    unknown = customer._replace(tenure=replace(customer.tenure, owner="per_nobody"))
    assert fall_of("cus_1", unknown, nobody.organisation.latest, story.now) is None


# --- imports -----------------------------------------------------------------------------------


def imported(granted_days_ago: float) -> Story:
    story = company(protection_days=0, recycling={"rules": [{"follow_up_days": 31}]})
    story.given(facts.PersonJoined("per_old", NAME, "ter_east"))
    story.given(
        facts.ImportOpened("imp_1", "history", "Asia/Shanghai", {"claim_scope": "everywhere"})
    )
    then = START - timedelta(days=granted_days_ago)
    story.when(register(region="east"), on=then, under="imp_1")
    return story.when(r.ClaimFiled("cus_1", "per_a"), on=then, under="imp_1")


def test_what_fell_due_before_the_import_closed_counts_a_full_period_from_there() -> None:
    story = imported(200)
    assert next_due(story.later(days=1)) is None
    story.given(facts.ImportClosed("imp_1"))
    expect(story, 1 + 28, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 1 + 31, "per_a"))


def test_what_falls_due_later_keeps_its_time() -> None:
    story = imported(10).later(days=1).given(facts.ImportClosed("imp_1"))
    expect(story, 18, RECYCLE_WARNING)
    raise_next(story).then(warned(0, 21, "per_a"))


# --- what keeps a customer ---------------------------------------------------------------------


def kept(story: Story) -> tuple[Kept, ...]:
    customer: Any = story.settled.customers["cus_1"]
    return kept_by(customer, story.organisation.latest, story.now)


def test_what_keeps_a_customer_is_told() -> None:
    """It was not said anywhere: a customer was just missing among those that would go."""
    story = owned()
    assert kept(story) == ()
    story.when(transfer(), by="per_a")
    assert kept(story) == (Kept("approval_open", "trf_1"),)
    story.when(r.TransferWithdrawn("cus_1", "trf_1", "withdrawn"), by="per_a")
    assert kept(story) == ()
    story.when(r.CustomerChangeRequested("cus_1", closed=True), by="per_a")
    assert kept(story) == (Kept("closed"),)


def test_a_conflict_keeps_it_until_the_ruling() -> None:
    story = disputed()
    assert kept(story) == (Kept("conflict_open", conflicts_of(story)[0]),)


def test_a_group_divided_keeps_nothing() -> None:
    story = owned()
    customer: Any = story.settled.customers["cus_1"]
    divided = Conflict("con_1", "group", ("per_a", "per_b"), (), Waiting(START, 1))
    assert (
        kept_by(customer._replace(conflicts=(divided,)), story.organisation.latest, story.now) == ()
    )


def test_an_absence_and_a_hold_keep_it_until_their_day() -> None:
    story = owned()
    story.given(facts.PersonAway("per_a", date(2026, 3, 10), date(2026, 3, 17)))
    story.given(facts.PersonAway("per_a", date(2026, 3, 15), date(2026, 3, 20)))
    hold(story, date(2026, 3, 12))
    start_of = story.organisation.latest.start_of
    assert kept(story) == (Kept("on_hold", until=start_of(date(2026, 3, 12))),)
    story.now = start_of(date(2026, 3, 10))
    away = Kept("owner_away", until=start_of(date(2026, 3, 20)))
    assert kept(story) == (away, Kept("on_hold", until=start_of(date(2026, 3, 12))))
    # Both end by their day, without any event.
    story.now = start_of(date(2026, 3, 12))
    assert kept(story) == (away,)
    story.now = start_of(date(2026, 3, 20))
    assert kept(story) == ()


def test_a_rule_exempts_it_or_none_is_for_it() -> None:
    story = owned({"won_deals_min": 3}, {"won_deals_min": 1}, {"territories": ["ter_west"]})
    assert kept(story) == (Kept("no_rule"),)
    assert kept(deal(story)) == (Kept("exempt", rule=1),)


def test_what_belongs_to_a_leaver_is_kept() -> None:
    story = owned().given(facts.PersonLeft("per_a", date(2026, 3, 31)))
    # Warned of it, and gone before it would go.
    assert kept(story) == ()
    assert kept(raise_next(story)) == (Kept("owner_leaving"),)
    story.now = day(40)
    assert kept(story) == (Kept("orphaned"),)


def test_an_import_keeps_what_it_brought_until_it_is_closed() -> None:
    story = imported(200)
    assert kept(story) == (Kept("import_open", "imp_1"),)
    assert kept(story.given(facts.ImportClosed("imp_1"))) == ()


def test_nothing_is_kept_where_nothing_goes() -> None:
    story = owned().given(facts.PolicyAdopted(2, {}))
    assert kept(story) == ()
    free = owned().when(r.ReleaseRequested("cus_1", "not_reached"), by="per_a")
    assert kept(free) == ()
    story = owned()
    customer: Any = story.settled.customers["cus_1"]
    unknown = customer._replace(tenure=replace(customer.tenure, owner="per_nobody"))
    assert kept_by(unknown, story.organisation.latest, story.now) == ()


# --- policies as data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "recycling",
    [
        {"rules": [{"follow_up_days": 3}]},
        {"warnings": [{"days_before": 1, "to": ["owner"]}, {"days_before": 3, "to": ["owner"]}]},
        {"warnings": [{"days_before": 1, "to": []}]},
        {"rules": [{"warnings": [{"days_before": 1, "to": ["owner"]}]}]},
        {"rules": [{"follow_up_days": 5, "warnings": [{"days_before": 5, "to": ["head"]}]}]},
        {
            "rules": [{"follow_up_days": 9, "warnings": [{"days_before": 1, "to": ["head"]}] * 2}],
            "warnings": [],
        },
        {"rules": [{"follow_up_days": 0}]},
        {"rules": [{"months": 1}]},
        {"rules": [{"won_deals_min": 0}]},
    ],
)
def test_rules_that_make_no_sense_are_refused(recycling: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        company(recycling=recycling)


# --- hard cases --------------------------------------------------------------------------------


def adopt(story: Story, *rules: dict[str, Any], **more: Any) -> Story:
    number = story.organisation.latest.policy.number + 1
    recycling = {"rules": list(rules), **more}
    return story.given(facts.PolicyAdopted(number, {"protection_days": 0, "recycling": recycling}))


def raise_(story: Story, deadline: Deadline) -> Story:
    request = r.DeadlineReached("cus_1", deadline.kind, deadline.subject, deadline.due)
    return story.when(request, by=deadlines.CLOCK)


@pytest.mark.parametrize("warnings", range(3))
def test_at_one_instant_the_log_says_which_came_first(warnings: int) -> None:
    """A follow-up at the very moment at which a warning, or the end, falls due; both orders."""
    clock_first, rep_first = owned(), owned()
    for story in (clock_first, rep_first):
        for _ in range(warnings):
            raise_next(story)
    found = next_due(clock_first)
    assert found is not None
    clock_first.now = rep_first.now = found.due
    raise_(clock_first, found)
    is_gone = isinstance(clock_first.decided, d.CustomerRecycled)
    assert is_gone == (warnings == 2)
    follow_up(clock_first)
    remark = reasons.FOLLOW_UP_BY_NON_OWNER if is_gone else None
    clock_first.then(d.Noted("cus_1", remark, None if is_gone else "per_a"))
    raise_(follow_up(rep_first), found).then(MOVED)
    # Where it is still owned, both orders come to the same from here on.
    if not is_gone:
        assert next_due(clock_first) == next_due(rep_first)
    assert (owner_of(clock_first), owner_of(rep_first)) == (None if is_gone else "per_a", "per_a")


def test_a_policy_tightened_in_the_middle_of_the_warnings_keeps_what_was_given() -> None:
    story = raise_next(owned())  # on day 28; it would go on day 31
    adopt(story.later(hours=12), {"follow_up_days": 10})
    # The first warning runs its two days, and is not given once more.
    expect(story, 30, RECYCLE_WARNING)
    raise_next(story).then(warned(1, 31, "per_a", "per_head"))
    adopt(story, {"follow_up_days": 10}, warnings=[{"days_before": 5, "to": ["owner"]}])
    # Other warnings: the first one was given on day 28, and runs five days now.
    expect(story, 33, RECYCLE)
    raise_next(story)
    assert owner_of(story) is None


def test_a_warning_that_a_tightened_policy_puts_in_front_is_given_first() -> None:
    story = raise_next(owned(warnings=[{"days_before": 1, "to": ["owner"]}]))
    expect(story, 31, RECYCLE)
    steps = [{"days_before": 7, "to": ["owner"]}, {"days_before": 2, "to": ["owner"]}]
    adopt(story, {"follow_up_days": 20}, warnings=steps)
    # The one that was given counts as the first; the second one is still to come.
    expect(story, 35, RECYCLE_WARNING)
    raise_next(story).then(warned(1, 37, "per_a"))
    expect(story, 37, RECYCLE)


def test_an_import_under_all_of_these_counts_a_full_period_from_its_closing() -> None:
    """While it is open the policy is tightened, a calendar stated, and the clock asleep."""
    story = imported(200)
    long_ago = START - timedelta(days=150)
    for number in range(3):
        at = long_ago + timedelta(days=number)
        logged = r.FollowUpLogged("cus_1", f"fol_{number}", "per_a", "call", note_digest="aa")
        story.when(logged, by="per_a", on=at, under="imp_1").then(d.Noted("cus_1", None, "per_a"))
    out_of_order = r.FollowUpLogged("cus_1", "fol_9", "per_a", "call")
    story.when(out_of_order, by="per_a", on=long_ago, under="imp_1")
    story.then(d.Noted("cus_1", reasons.HISTORY_OUT_OF_ORDER, "per_a"))
    adopt(story.later(days=1), {"won_deals_min": 1}, {"follow_up_days": 10}, days="working")
    story.given(facts.CalendarStated(2026, (date(2026, 3, 9),), (date(2026, 3, 14),)))
    assert next_due(story) is None
    story.given(facts.ImportClosed("imp_1"))
    # From Tuesday the 3rd of March: seven working days, one of which is a holiday.
    expect(story, 1 + 10, RECYCLE_WARNING)
    # A copy of what was imported resets nothing; what really happens does.
    logged = r.FollowUpLogged("cus_1", "fol_3", "per_a", "call", note_digest="aa")
    story.later(days=1).when(logged, by="per_a")
    assert getattr(story.decided, "token_of", None) == "fol_2"
    expect(story, 1 + 10, RECYCLE_WARNING)
    raise_next(story, on=22).then(warned(0, 25, "per_a"))
    deal(story)
    assert next_due(story) is None
