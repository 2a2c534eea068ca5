"""A follow-up that is entered late: judged by who owned the customer when it happened."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from ledger import reasons
from ledger.customer import FORMER_OWNERSHIPS_MAX
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX
from tests.specs.story import START, Story
from tests.specs.test_ownership import claim, company, granted, policy, refused, register
from tests.specs.test_time import CUT_OVER, firm, under_import, utc

DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
BY_OWNER = None
BY_NON_OWNER = reasons.FOLLOW_UP_BY_NON_OWNER


def handed_on(**rules: object) -> Story:
    """per_a owns cus_1 for two days, nobody for one, and per_b from then on."""
    story = company(cooldown_days=0, **rules).when(register())
    granted(story.when(claim("per_a")), "per_a")
    story.later(days=2).when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.later(days=1)
    granted(story.when(claim("per_b")), "per_b")
    return story


def followed_up(person: str, happened: datetime, story: Story, **how: str) -> Story:
    """Enter what somebody did at some time."""
    request = r.FollowUpLogged("cus_1", f"fol_{story.position}", person, "visit")
    return story.when(request, by=person, on=happened, **how)


@pytest.mark.parametrize(
    ("person", "happened", "remark", "owner"),
    [
        ("per_a", START + DAY, BY_OWNER, "per_a"),
        ("per_b", START + DAY, BY_NON_OWNER, "per_a"),
        # Ownership is from its beginning to just before its end.
        ("per_a", START, BY_OWNER, "per_a"),
        ("per_a", START + 2 * DAY - TICK, BY_OWNER, "per_a"),
        ("per_a", START + 2 * DAY, BY_NON_OWNER, None),
        ("per_b", START + 3 * DAY - TICK, BY_NON_OWNER, None),
        ("per_b", START + 3 * DAY, BY_OWNER, "per_b"),
        ("per_a", START + 3 * DAY, BY_NON_OWNER, "per_b"),
        # Before anybody entered the customer nobody knows whose it was.
        ("per_b", START - TICK, BY_OWNER, "per_b"),
        # A clock that is ahead makes nothing late.
        ("per_b", START + 4 * DAY + timedelta(minutes=4), BY_OWNER, "per_b"),
    ],
)
def test_it_is_judged_by_who_owned_the_customer_when_it_happened(
    person: str, happened: datetime, remark: str | None, owner: str | None
) -> None:
    """The days that the policy allows had no effect: all was judged by who owned it on entry.

    So the last visit before a hand-over counted as a stranger's, unless it was entered in time.
    """
    story = handed_on().later(days=1)
    followed_up(person, happened, story).then(d.Noted("cus_1", remark, owner))
    assert story.effective == START + 4 * DAY, "the decision itself holds from now on"


def test_what_is_entered_later_than_the_policy_allows_is_judged_by_who_owns_it_now() -> None:
    story = handed_on(late_follow_up_days=3)
    happened = START + DAY
    story.now = happened + 3 * DAY
    followed_up("per_a", happened, story).then(d.Noted("cus_1", BY_OWNER, "per_a"))
    story.now += TICK
    followed_up("per_a", happened, story).then(d.Noted("cus_1", BY_NON_OWNER, "per_b"))
    followed_up("per_b", happened, story).then(d.Noted("cus_1", BY_OWNER, "per_b"))


def test_a_policy_of_no_days_judges_everything_by_who_owns_it_now() -> None:
    story = handed_on(late_follow_up_days=0)
    followed_up("per_b", story.now - TICK, story).then(d.Noted("cus_1", BY_OWNER, "per_b"))


def test_the_policy_in_force_on_entry_says_how_late_that_may_be() -> None:
    """A longer period reaches back behind its adoption: what it asks for is remembered."""
    story = handed_on(late_follow_up_days=0).later(days=LATE_FOLLOW_UP_DAYS_MAX - 4)
    longest = policy(late_follow_up_days=LATE_FOLLOW_UP_DAYS_MAX)
    story.given(facts.PolicyAdopted(2, longest.as_rules()))
    followed_up("per_a", START + DAY, story).then(d.Noted("cus_1", BY_OWNER, "per_a"))


def test_days_are_days_of_the_organisation() -> None:
    """Three days on from nine o'clock is nine o'clock, also where one of them has 23 hours."""
    story = firm("Europe/Berlin", late_follow_up_days=3, cooldown_days=0)
    story.now = happened = utc("2026-03-27 08:00")
    story.when(register()).when(claim("per_a"))
    story.now = utc("2026-03-28 08:00")
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.now = utc("2026-03-30 07:00")
    followed_up("per_a", happened, story).then(d.Noted("cus_1", BY_OWNER, "per_a"))
    story.now += TICK
    followed_up("per_a", happened, story).then(d.Noted("cus_1", BY_NON_OWNER))


def test_every_change_of_owner_of_the_last_days_counts() -> None:
    story = company(cooldown_days=0, daily_claim_limit=None).when(register())
    for number in range(12):
        story.when(claim(("per_a", "per_b")[number % 2]))
        story.later(hours=6).when(r.ReleaseRequested("cus_1", "done"), by="per_admin")
        story.later(hours=6)
    for number in range(12):
        happened = START + number * timedelta(hours=12)
        owner = ("per_a", "per_b")[number % 2]
        followed_up(owner, happened, story).then(d.Noted("cus_1", BY_OWNER, owner))
        happened += timedelta(hours=6)
        followed_up(owner, happened, story).then(d.Noted("cus_1", BY_NON_OWNER))


def test_what_is_no_longer_remembered_is_judged_by_who_owns_it_now() -> None:
    """So many owners in so few days are no business; but every request is decided."""
    story = company(cooldown_days=0, daily_claim_limit=None).when(register())
    for _ in range(FORMER_OWNERSHIPS_MAX + 1):
        story.when(claim("per_a")).later(minutes=1)
        story.when(r.ReleaseRequested("cus_1", "done"), by="per_admin").later(minutes=1)
    granted(story.when(claim("per_b")), "per_b")
    remembered = START + timedelta(minutes=2)
    followed_up("per_a", remembered, story).then(d.Noted("cus_1", BY_OWNER, "per_a"))
    followed_up("per_a", remembered - TICK, story).then(d.Noted("cus_1", BY_NON_OWNER, "per_b"))


def test_before_the_cut_over_of_an_opening_balance_nobody_knows() -> None:
    """As of then the answer is unknown, and not free: so the owner is not blamed."""
    story = under_import().when(register(), under="imp_1").when(claim("per_a"), under="imp_1")
    before = CUT_OVER - TICK
    assert before > START - 7 * DAY
    followed_up("per_a", before, story).then(d.Noted("cus_1", BY_OWNER, "per_a"))
    followed_up("per_b", before, story).then(d.Noted("cus_1", BY_NON_OWNER, "per_a"))


def test_imported_follow_ups_are_judged_in_their_own_time_as_ever() -> None:
    story = under_import().when(register(), on=CUT_OVER, under="imp_1")
    story.when(claim("per_a"), on=CUT_OVER, under="imp_1")
    happened = CUT_OVER + timedelta(hours=1)
    followed_up("per_a", happened, story, under="imp_1").then(d.Noted("cus_1", BY_OWNER, "per_a"))
    assert story.effective == happened
    followed_up("per_a", CUT_OVER, story, under="imp_1")
    story.then(d.Noted("cus_1", reasons.HISTORY_OUT_OF_ORDER, "per_a"))


def test_a_late_follow_up_at_what_was_never_admitted_is_noted_as_such() -> None:
    followed_up("per_a", START - DAY, company()).then(
        d.Noted("cus_1", reasons.CUSTOMER_NOT_ADMITTED)
    )


def test_claims_limits_and_deals_never_look_back() -> None:
    """Back-dating would beat limits and rivals."""
    story = handed_on().later(days=1)
    then = START + 2 * DAY + timedelta(hours=1)
    refused(story.when(claim("per_a"), on=then), reasons.OWNED_BY_ANOTHER, owner="per_b")
    story.when(r.DealRecorded("cus_1", "dea_1", "per_a", "won"), by="per_a", on=START + DAY)
    story.then(d.Noted("cus_1", reasons.DEAL_BY_NON_OWNER, "per_b"))
