"""Deadlines of approvals: what the clock's requests bring, and when they bring nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ledger import deadlines, reasons
from ledger.deadlines import APPROVAL_EXPIRY, PASSING_ON, STEP_REMINDER, Deadline
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from tests.specs.story import START, Story
from tests.specs.test_ownership import NAME
from tests.specs.test_transfers import agree, closed, owned, owner_of, transfer

OPENED = START + timedelta(hours=1)
MOVED = d.Noted("cus_1", reasons.DEADLINE_MOVED)


def waiting(**figures: int | None) -> Story:
    """A transfer that awaits the head of the east and then its receiver."""
    rules: dict[str, Any] = {"approval_deadlines": figures} if figures else {}
    return owned(**rules).when(transfer(), by="per_a")


def next_due(story: Story) -> Deadline | None:
    """Return what the clock would raise next."""
    customer: Any = story.settled.customers["cus_1"]
    if customer.approval is None:
        return None
    return deadlines.of_approval(customer.approval, story.organisation.latest)


def reach(story: Story, deadline: Deadline, **late: float) -> Story:
    """Let the deadline pass, and the clock say so, in time or ``late``."""
    story.now = max(story.now, deadline.due + timedelta(**late))
    request = r.DeadlineReached("cus_1", deadline.kind, deadline.subject, deadline.due)
    return story.when(request, by=deadlines.CLOCK)


def raise_next(story: Story, **late: float) -> Story:
    found = next_due(story)
    assert found is not None
    return reach(story, found, **late)


def reminded(*asked: str, step: int = 0) -> d.StepReminded:
    return d.StepReminded("cus_1", "trf_1", step, asked)


def passed_on(*asked: str, step: int = 0) -> d.StepPassedOn:
    return d.StepPassedOn("cus_1", "trf_1", step, asked)


def test_the_id_of_a_deadline_says_what_it_is_about() -> None:
    """Two clocks that raise it say the same, and the store records one request."""
    found = next_due(waiting())
    assert found is not None
    name = "deadline:step_reminder:trf_1:2026-03-04T02:00:00.000000Z"
    assert deadlines.request_id(found) == name
    assert deadlines.request_id(found, 17) == f"{name}:17"


# --- in time -----------------------------------------------------------------------------------


def test_a_step_is_reminded_passed_on_upwards_and_in_the_end_everything_expires() -> None:
    story = waiting()
    for days, kind, expected in (
        (2, STEP_REMINDER, reminded("per_head")),
        (4, PASSING_ON, passed_on("per_boss")),
        (6, STEP_REMINDER, reminded("per_boss")),
        (8, PASSING_ON, passed_on("per_admin")),
        (10, STEP_REMINDER, reminded("per_admin")),
        # Nobody is further up.
        (12, PASSING_ON, reminded("per_admin")),
        (14, APPROVAL_EXPIRY, closed("expired")),
    ):
        assert next_due(story) == Deadline(kind, "trf_1", OPENED + timedelta(days=days))
        raise_next(story).then(expected)
    assert next_due(story) is None
    assert owner_of(story) == "per_a"
    customer: Any = story.settled.customers["cus_1"]
    assert (customer.approval, customer.turned_down) == (None, ())


def test_whoever_it_was_passed_on_to_answers_and_nobody_else() -> None:
    story = raise_next(raise_next(waiting()))
    agree(story, "per_head").then(
        d.AnswerNotCounted("cus_1", "trf_1", "per_head", reasons.NOT_ASKED)
    )
    agree(story, "per_boss").then(
        d.StepAnswered("cus_1", "trf_1", 0, 0, "per_boss", True),
        d.StepOpened("cus_1", "trf_1", 1, ("per_b",)),
    )


def test_each_step_has_a_reminder_of_its_own_counted_from_its_opening() -> None:
    story = agree(raise_next(waiting()).later(hours=5), "per_head")
    answered = story.now
    assert next_due(story) == Deadline(STEP_REMINDER, "trf_1", answered + timedelta(days=2))
    raise_next(story).then(reminded("per_b", step=1))
    # To accept is nobody else's: the receiver hears of it once more.
    raise_next(story).then(reminded("per_b", step=1))


def test_a_day_is_a_calendar_day_of_the_organisation() -> None:
    """Where clocks are set forward a day has 23 hours, and the time of day stays."""
    story = owned(approval_rules=[{"steps": [{"approvers": [{"kind": "head"}]}]}])
    story.given(facts.OrganisationFounded("公司", "Europe/Berlin"))
    story.now = datetime(2026, 3, 28, 9, 0, tzinfo=UTC)
    story.when(transfer(), by="per_a")
    found = next_due(story)
    assert found is not None
    assert found.due == datetime(2026, 3, 30, 8, 0, tzinfo=UTC)


def test_with_several_approvers_only_those_hear_who_have_not_answered() -> None:
    two = [{"kind": "head"}, {"kind": "person", "person": "per_deputy"}]
    story = owned(approval_rules=[{"steps": [{"approvers": two, "needed": "all"}]}])
    agree(story.when(transfer(), by="per_a"), "per_head")
    raise_next(story).then(reminded("per_deputy"))


# --- a clock that has slept ---------------------------------------------------------------------


def test_a_clock_that_slept_goes_on_in_order_and_each_warning_runs_its_full_time() -> None:
    story = raise_next(waiting(), days=7)
    story.then(reminded("per_head"))
    told = story.now
    assert next_due(story) == Deadline(PASSING_ON, "trf_1", told + timedelta(days=2))
    raise_next(story, days=7).then(passed_on("per_boss"))
    # Its fortnight is over; but whoever is asked now has just heard of it.
    assert next_due(story) == Deadline(APPROVAL_EXPIRY, "trf_1", story.now + timedelta(days=2))
    raise_next(story).then(closed("expired"))


def test_nothing_expires_before_somebody_was_reminded() -> None:
    story = raise_next(waiting(), days=40)
    story.then(reminded("per_head"))
    assert next_due(story) == Deadline(APPROVAL_EXPIRY, "trf_1", story.now + timedelta(days=2))


# --- other figures -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"remind_days": None}, [(4, PASSING_ON), (8, PASSING_ON), (12, PASSING_ON)]),
        ({"pass_on_days": None}, [(2, STEP_REMINDER), (14, APPROVAL_EXPIRY)]),
        ({"expire_days": 3}, [(2, STEP_REMINDER), (4, APPROVAL_EXPIRY)]),
        ({"remind_days": None, "pass_on_days": None}, [(14, APPROVAL_EXPIRY)]),
        ({"remind_days": None, "pass_on_days": None, "expire_days": None}, []),
    ],
)
def test_what_the_policy_leaves_out_never_comes(
    figures: dict[str, int | None], expected: list[tuple[int, str]]
) -> None:
    story = waiting(**figures)
    seen: list[tuple[int, str]] = []
    while (found := next_due(story)) is not None and len(seen) < max(len(expected), 1):
        seen.append(((found.due - OPENED).days, found.kind))
        reach(story, found)
    assert seen == expected


def test_it_goes_by_the_policy_with_which_it_was_opened() -> None:
    story = waiting(remind_days=3, pass_on_days=5)
    story.given(facts.PolicyAdopted(2, {"approval_deadlines": {"remind_days": 1}}))
    assert next_due(story) == Deadline(STEP_REMINDER, "trf_1", OPENED + timedelta(days=3))


# --- what brings nothing -----------------------------------------------------------------------


def test_before_its_time_a_deadline_brings_nothing() -> None:
    story = waiting()
    found = next_due(story)
    assert found is not None
    reach(story, found, seconds=-1).then(d.Noted("cus_1", reasons.DEADLINE_AHEAD))
    assert next_due(story) == found


def test_what_is_not_next_or_is_over_or_never_was_brings_nothing() -> None:
    story = waiting()
    first = next_due(story)
    assert first is not None
    agree(story.later(hours=1), "per_head")
    reach(story, first).then(MOVED)
    ahead = Deadline(APPROVAL_EXPIRY, "trf_1", OPENED + timedelta(days=14))
    reach(story, ahead).then(MOVED)  # the receiver was never reminded
    reach(story, Deadline(STEP_REMINDER, "trf_2", OPENED)).then(MOVED)
    agree(story, "per_b")
    assert owner_of(story) == "per_b"
    reach(story, ahead).then(MOVED)
    unknown = r.DeadlineReached("cus_9", STEP_REMINDER, "trf_1", OPENED)
    story.when(unknown, by=deadlines.CLOCK).then(d.Noted("cus_9", reasons.DEADLINE_MOVED))


def test_of_an_answer_and_a_deadline_at_one_instant_the_first_in_the_log_counts() -> None:
    late, early = waiting(), waiting()
    found = next_due(late)
    assert found is not None
    agree(reach(late, found), "per_head")
    assert isinstance(late.decided, d.StepAnswered)
    early.now = found.due
    reach(agree(early, "per_head"), found).then(MOVED)


# --- imports -----------------------------------------------------------------------------------


def test_what_an_import_brought_counts_from_its_closing_on() -> None:
    story = owned().given(facts.PersonJoined("per_old", NAME, "ter_east"))
    rules = {"approval_rules": [{"steps": [{"approvers": [{"kind": "head"}]}]}]}
    story.given(facts.ImportOpened("imp_1", "history", "Asia/Shanghai", rules))
    asked = START + timedelta(hours=2)
    story.later(days=30).when(transfer(), by="per_a", on=asked, under="imp_1")
    assert isinstance(story.decided, d.ApprovalOpened)
    assert story.effective == asked
    assert next_due(story) is None
    long_due = Deadline(STEP_REMINDER, "trf_1", asked + timedelta(days=2))
    reach(story, long_due).then(MOVED)
    closing = story.later(days=1).now
    story.given(facts.ImportClosed("imp_1"))
    assert next_due(story) == Deadline(STEP_REMINDER, "trf_1", closing + timedelta(days=2))
    raise_next(story).then(reminded("per_head"))


def test_whoever_is_away_when_it_is_passed_on_is_passed_over() -> None:
    story = raise_next(waiting())
    story.given(facts.PersonAway("per_boss", date(2026, 1, 1), date(2030, 1, 1)))
    raise_next(story).then(passed_on("per_admin"))
