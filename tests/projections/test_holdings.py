"""Holdings and workload: given events, then rows."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from ledger.events import requests
from projections.holdings import Workload, workloads
from tests.projections.history import START, History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 4, 2_000])
DAY = timedelta(days=1)


def _history(now: datetime = START) -> History:
    history = History(now).found()
    history.join("per_a")
    history.join("per_b")
    for number in range(1, 5):
        history.register(f"cus_{number}")
    return history


def _held(models: Models) -> dict[str, tuple[int, int]]:
    found = workloads(models.connection, now=START)
    return {each.person: (each.held, each.held_won) for each in found}


@BATCHES
def test_what_is_held_rises_and_falls(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.claim("cus_2", "per_a")
    history.assign("cus_3", "per_b")
    history.claim("cus_3", "per_a")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (2, 0), "per_b": (1, 0)}
    history.release("cus_1")
    history.release("cus_3")
    history.claim("cus_3", "per_a")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (2, 0), "per_b": (0, 0)}


@BATCHES
def test_a_won_deal_counts_once_for_a_customer_and_goes_with_it(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.deal("cus_1", "per_a")
    history.deal("cus_1", "per_a")
    history.deal("cus_2", "per_a", "won")
    history.claim("cus_3", "per_a")
    history.deal("cus_3", "per_a", "lost")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (2, 1)}
    history.claim("cus_2", "per_a")
    history.release("cus_1")
    history.claim("cus_1", "per_b")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (2, 1), "per_b": (1, 1)}


@BATCHES
def test_a_corrected_or_voided_deal_counts_as_what_it_is_now(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    first, second = history.deal("cus_1", "per_a"), history.deal("cus_1", "per_a", "lost")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (1, 1)}
    history.ask(requests.DealVoided("cus_1", first, "twice"))
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (1, 0)}
    history.ask(requests.DealCorrected("cus_1", second, "mistake", outcome="won"))
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (1, 1)}
    history.ask(requests.DealCorrected("cus_1", second, "mistake", outcome="lost"))
    third = history.deal("cus_1", "per_a")
    history.ask(requests.DealVoided("cus_1", third, "twice"))
    # What was voided cannot be corrected: that is refused, and changes nothing.
    history.ask(requests.DealCorrected("cus_1", third, "mistake", outcome="won"))
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (1, 0)}


@BATCHES
def test_a_deal_of_a_customer_that_was_not_admitted_does_not_count(
    models: Models, batch: int
) -> None:
    history = _history()
    history.deal("cus_9", "per_a")
    history.register("cus_9")
    history.claim("cus_9", "per_a")
    models.project(history, batch=batch)
    assert _held(models) == {"per_a": (1, 0)}


@BATCHES
def test_what_is_done_at_no_customer_is_nobodys_work(models: Models, batch: int) -> None:
    """A follow-up at a customer that was never admitted counted as activity of its person."""
    history = _history()
    history.follow_up("cus_9", "per_a")
    history.deal("cus_9", "per_b")
    history.later(days=1)
    history.follow_up("cus_1", "per_a")
    models.project(history, batch=batch)
    (found,) = workloads(models.connection, now=history.now)
    assert (found.person, found.follow_ups, found.last_activity) == ("per_a", 1, history.now)
    assert models.rows("SELECT count(*) FROM holding_acts") == [(1,)]


@BATCHES
def test_grants_and_follow_ups_of_the_last_days(models: Models, batch: int) -> None:
    """Days are the organisation's: at 17:00 UTC it is the next day in Shanghai."""
    history = _history(START - 40 * DAY)
    history.follow_up("cus_1", "per_a")
    history.now = START - 29 * DAY
    history.follow_up("cus_1", "per_a")
    history.now = START - 6 * DAY
    history.claim("cus_1", "per_a")
    history.follow_up("cus_1", "per_a")
    history.now = START
    history.claim("cus_2", "per_a")
    history.assign("cus_3", "per_a")
    history.follow_up("cus_1", "per_a")
    models.project(history, batch=batch)

    def counted(now: datetime) -> Workload:
        (found,) = workloads(models.connection, ["per_a"], now=now)
        return found

    assert counted(START) == Workload("per_a", 3, 0, 1, 2, 2, 3, START)
    tomorrow = START + timedelta(hours=16)
    assert counted(tomorrow) == Workload("per_a", 3, 0, 0, 1, 1, 2, START)


@BATCHES
def test_a_voided_follow_up_no_longer_counts_and_a_corrected_one_at_its_time(
    models: Models, batch: int
) -> None:
    history = _history()
    first, second = history.follow_up("cus_1", "per_a"), history.follow_up("cus_1", "per_a")
    models.project(history, batch=batch)
    (found,) = workloads(models.connection, now=START)
    assert (found.follow_ups_7_days, found.follow_ups) == (2, 2)
    history.ask(requests.FollowUpVoided("cus_1", first, "twice"))
    earlier = START - 20 * DAY
    history.ask(requests.FollowUpCorrected("cus_1", second, "mistake", at=earlier))
    models.project(history, batch=batch)
    (found,) = workloads(models.connection, now=START)
    assert (found.follow_ups_7_days, found.follow_ups) == (0, 1)
    assert found.last_activity == earlier


def test_who_holds_most_comes_first(models: Models) -> None:
    history = _history()
    history.claim("cus_1", "per_b")
    history.claim("cus_2", "per_b")
    history.claim("cus_3", "per_a")
    models.project(history)
    assert [each.person for each in workloads(models.connection)] == ["per_b", "per_a"]
    assert [each.person for each in workloads(models.connection, limit=1)] == ["per_b"]
    assert [each.person for each in workloads(models.connection, ["per_a"])] == ["per_a"]
    assert workloads(models.connection, []) == []
