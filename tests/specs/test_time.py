"""When decisions hold: local days, daylight saving, imports, and customers that never go back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.policy import Policy, without_limits
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME, claim, company, granted, policy, refused, register


def utc(text: str) -> datetime:
    """Return a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def firm(zone: str, **rules: Any) -> Story:
    """A firm in a time zone, with one rep, and these rules."""
    return Story().given(
        facts.OrganisationFounded("Firma", zone),
        facts.PersonJoined("per_a", NAME),
        facts.PolicyAdopted(1, Policy.model_validate(rules).as_rules()),
    )


@pytest.mark.parametrize(
    ("zone", "begins", "ends"),
    [
        # A day of 23 hours, one of 25, one that begins at one o'clock, one that no zone shifts.
        ("Europe/Berlin", "2026-03-28 23:00", "2026-03-29 22:00"),
        ("Europe/Berlin", "2026-10-24 22:00", "2026-10-25 23:00"),
        ("America/Santiago", "2026-09-06 04:00", "2026-09-07 03:00"),
        ("Asia/Shanghai", "2026-03-01 16:00", "2026-03-02 16:00"),
    ],
)
def test_a_day_of_claims_is_a_calendar_day_of_the_organisation(
    zone: str, begins: str, ends: str
) -> None:
    story = firm(zone, daily_claim_limit=1)
    story.now = utc(begins) - timedelta(days=2)
    for customer in "abcde":
        story.when(register(customer))
    tick = timedelta(microseconds=1)
    story.now = utc(begins) - tick
    granted(story.when(claim("per_a", "a")), "per_a", "a")
    refused(story.when(claim("per_a", "b")), reasons.DAILY_LIMIT, retry_at=utc(begins))
    story.now = utc(begins)
    granted(story.when(claim("per_a", "b")), "per_a", "b")
    story.now = utc(ends) - tick
    refused(story.when(claim("per_a", "c")), reasons.DAILY_LIMIT, retry_at=utc(ends))
    story.now = utc(ends)
    granted(story.when(claim("per_a", "c")), "per_a", "c")


@pytest.mark.parametrize(
    ("ended", "again"),
    [
        ("2026-03-27 09:00", "2026-03-30 08:00"),  # ten o'clock, before and after the change
        ("2026-10-23 08:00", "2026-10-26 09:00"),
        ("2026-03-26 01:30", "2026-03-29 01:30"),  # 02:30 does not exist on that day
    ],
)
def test_a_cooldown_ends_at_the_same_time_of_the_local_day(ended: str, again: str) -> None:
    story = firm("Europe/Berlin", cooldown_days=3)
    story.now = utc(ended)
    story.when(register()).when(claim("per_a"))
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.now = utc(again) - timedelta(microseconds=1)
    refused(story.when(claim("per_a")), reasons.COOLDOWN, retry_at=utc(again))
    story.now = utc(again)
    granted(story.when(claim("per_a")), "per_a")


def test_protection_ends_at_the_same_time_of_the_local_day() -> None:
    story = firm("Europe/Berlin", protection_days=30)
    story.now = utc("2026-03-01 11:00")
    story.when(register()).when(claim("per_a"))
    granted(story, "per_a", protected_until=utc("2026-03-31 10:00"))


def test_only_grants_count_towards_the_daily_limit() -> None:
    """Neither refused claims nor what a manager assigns uses up a rep's claims of the day."""
    story = company(daily_claim_limit=1)
    for customer in ("cus_1", "cus_2", "cus_3"):
        story.when(register(customer))
    granted(story.when(claim("per_b", "cus_1")), "per_b", "cus_1")
    refused(story.when(claim("per_a", "cus_1")), reasons.OWNED_BY_ANOTHER)
    story.when(r.AssignmentRequested("cus_2", "per_a"), by="per_head")
    assert isinstance(story.decided, d.OwnershipAssigned)
    granted(story.when(claim("per_a", "cus_3")), "per_a", "cus_3")


# --- imports ------------------------------------------------------------------------------------

CUT_OVER = utc("2026-02-28 16:00")


def under_import(cut_over: datetime | None = CUT_OVER, **rules: Any) -> Story:
    """A company with an open import; ``rules`` are those of the import."""
    policy = without_limits(Policy()).model_copy(update=rules)
    opened = facts.ImportOpened("imp_1", "crm", "Asia/Shanghai", policy.as_rules(), cut_over)
    return company().given(opened)


def test_an_opening_balance_is_known_from_the_cut_over_on() -> None:
    story = under_import()
    story.when(register(opening=True), on=CUT_OVER, under="imp_1")
    story.then(d.CustomerAdmitted("cus_1", "organisation", CUT_OVER))
    granted(story.when(claim("per_a"), on=CUT_OVER, under="imp_1"), "per_a")
    assert story.effective == CUT_OVER


def test_a_row_without_a_date_holds_at_the_cut_over() -> None:
    """Such rows took effect when they were recorded, unless the importer stated the cut-over."""
    story = under_import()
    story.when(register(opening=True), under="imp_1")
    story.then(d.CustomerAdmitted("cus_1", "organisation", CUT_OVER))
    granted(story.when(claim("per_a"), under="imp_1"), "per_a")
    assert story.effective == CUT_OVER


def test_a_row_without_a_date_holds_at_once_where_there_is_no_cut_over() -> None:
    story = under_import(cut_over=None).when(register(), under="imp_1")
    story.then(d.CustomerAdmitted("cus_1", "organisation", START))


def test_an_import_of_another_name_is_none() -> None:
    long_ago = START - timedelta(days=900)
    story = under_import().when(register(), on=long_ago, under="imp_2")
    assert story.effective == START


def test_a_limit_of_the_import_itself_refuses() -> None:
    story = under_import(holding_limit=1)
    for customer in ("cus_1", "cus_2"):
        story.when(register(customer), on=CUT_OVER, under="imp_1")
    granted(
        story.when(claim("per_a", "cus_1"), on=CUT_OVER, under="imp_1"),
        "per_a",
        "cus_1",
        limits_waived=(),
    )
    refused(story.when(claim("per_a", "cus_2"), on=CUT_OVER, under="imp_1"), reasons.HOLDING_LIMIT)


def test_imported_grants_count_on_the_day_on_which_they_held() -> None:
    story = under_import(daily_claim_limit=1)
    first, second = CUT_OVER - timedelta(days=2), CUT_OVER - timedelta(days=1)
    for customer in ("cus_1", "cus_2", "cus_3"):
        story.when(register(customer), on=first, under="imp_1")
    granted(story.when(claim("per_a", "cus_1"), on=first, under="imp_1"), "per_a", "cus_1")
    refused(story.when(claim("per_a", "cus_2"), on=first, under="imp_1"), reasons.DAILY_LIMIT)
    granted(story.when(claim("per_a", "cus_2"), on=second, under="imp_1"), "per_a", "cus_2")


@pytest.mark.parametrize("stated", [None, START])
def test_an_opening_balance_is_no_claim_of_its_day(stated: datetime | None) -> None:
    """Who had got fifty customers of the opening balance could claim nothing on that day.

    Nobody claimed those on the day of the cut-over; they only have no better date.
    """
    story = under_import(START).given(
        facts.PolicyAdopted(2, policy(daily_claim_limit=1).as_rules())
    )
    for customer in ("cus_1", "cus_2", "cus_3", "cus_4"):
        story.when(register(customer), on=stated, under="imp_1")
    for customer in ("cus_1", "cus_2"):
        story.when(claim("per_a", customer), on=stated, under="imp_1")
        granted(story, "per_a", customer, opening=True, limits_waived=())
        assert story.effective == START
    assert not story.settled.grants
    granted(story.when(claim("per_a", "cus_3")), "per_a", "cus_3", opening=None)
    refused(story.when(claim("per_a", "cus_4")), reasons.DAILY_LIMIT)


def test_no_daily_limit_of_an_import_holds_for_its_opening_balance() -> None:
    story = under_import(daily_claim_limit=0).when(register(), under="imp_1")
    granted(story.when(claim("per_a"), under="imp_1"), "per_a", opening=True)
    story.when(register("cus_2"), on=START, under="imp_1")
    story.when(claim("per_a", "cus_2"), on=START, under="imp_1")
    refused(story, reasons.DAILY_LIMIT)


def test_an_undated_row_is_no_claim_of_today_where_there_is_no_cut_over() -> None:
    story = under_import(cut_over=None).when(register(), under="imp_1")
    granted(story.when(claim("per_a"), under="imp_1"), "per_a", opening=True)
    assert not story.settled.grants


def test_a_live_claim_without_a_date_is_a_claim_of_its_day() -> None:
    granted(company().when(register()).when(claim("per_a")), "per_a", opening=None)


def test_an_imported_grant_within_a_cooldown_of_today_says_so_once() -> None:
    story = under_import()
    story.when(register(), on=CUT_OVER, under="imp_1").when(
        claim("per_a"), on=CUT_OVER, under="imp_1"
    )
    hour_later = CUT_OVER + timedelta(hours=1)
    release = r.ReleaseRequested("cus_1", "done")
    story.when(release, by="per_a", on=hour_later, under="imp_1")
    story.when(claim("per_a"), on=hour_later, under="imp_1")
    granted(story, "per_a", limits_waived=(reasons.COOLDOWN,))


def test_a_claimant_who_had_not_left_yet_owns_it_in_history() -> None:
    story = under_import().given(facts.PersonLeft("per_a", CUT_OVER.date() - timedelta(days=9)))
    before = CUT_OVER - timedelta(days=20)
    story.when(register(), on=before, under="imp_1")
    granted(story.when(claim("per_a"), on=before, under="imp_1"), "per_a")
    story.when(register("cus_2"), on=CUT_OVER, under="imp_1")
    refused(story.when(claim("per_a", "cus_2"), on=CUT_OVER, under="imp_1"), reasons.CLAIMANT_LEFT)


def test_a_live_request_never_holds_before_what_was_imported() -> None:
    """Clocks differ: an import may state a time some seconds ahead of the log's."""
    ahead = START + timedelta(minutes=4)
    story = under_import().when(register(), on=ahead, under="imp_1").when(claim("per_a"))
    assert story.effective == ahead
    assert isinstance(story.decided, d.OwnershipGranted)
    story.later(minutes=5).when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    assert story.effective == START + timedelta(minutes=5)


def test_rows_of_one_instant_stand_in_the_order_of_the_log() -> None:
    story = under_import().when(register(), on=CUT_OVER, under="imp_1")
    granted(story.when(claim("per_a"), on=CUT_OVER, under="imp_1"), "per_a")
    story.when(r.ReleaseRequested("cus_1", "done"), by="per_a", on=CUT_OVER, under="imp_1")
    granted(story.when(claim("per_b"), on=CUT_OVER, under="imp_1"), "per_b")


def test_a_correction_out_of_order_holds_for_it_is_of_the_record() -> None:
    story = under_import().when(register(), on=CUT_OVER, under="imp_1")
    story.when(r.DealRecorded("cus_1", "dea_1", "per_a", "won"), on=CUT_OVER, under="imp_1")
    before = CUT_OVER - timedelta(days=1)
    void = r.DealVoided("cus_1", "dea_1", "double")
    story.when(void, by="per_a", on=before, under="imp_1").then(d.Noted("cus_1"))
    assert story.effective == CUT_OVER
