"""Claims: given events, then rows."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from ledger.events import requests
from projections.approvals import approval_of
from projections.claims import (
    DayCount,
    Status,
    claim_at,
    of_claimant,
    of_customer,
    of_status,
    per_day,
)
from projections.ownership import owner_of
from tests.projections.history import START, History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 4, 2_000])


def _history() -> History:
    history = History().found()
    history.join("per_a", "ter_east")
    history.join("per_b", "ter_north")
    history.register("cus_1", uscc="91310000MA1FL0LX0A")
    return history


@BATCHES
def test_a_claim_is_pending_until_it_is_decided(models: Models, batch: int) -> None:
    history = _history()
    position = history.request(requests.ClaimFiled("cus_1", "per_a"), occurred=START)
    models.project(history, batch=batch)
    (claim,) = of_customer(models.connection, "cus_1")
    assert of_status(models.connection, "pending") == [claim]
    assert (claim.position, claim.claimant, claim.status) == (position, "per_a", "pending")
    assert (claim.filed, claim.decided, claim.decided_position) == (START, None, None)

    decided = history.decide(position)
    models.project(history, batch=batch)
    (claim,) = of_customer(models.connection, "cus_1")
    assert of_status(models.connection, "pending") == []
    assert (claim.status, claim.reason, claim.owner) == ("granted", None, "per_a")
    assert (claim.claimant_territory, claim.decided_position) == ("ter_east", decided)
    assert (claim.filed, claim.effective) == (START, START)


@BATCHES
def test_a_refused_claim_shows_why_and_who_owned_the_customer(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.later(hours=1)
    position = history.claim("cus_1", "per_b")
    models.project(history, batch=batch)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.status, claim.reason, claim.owner) == ("refused", "owned_by_another", "per_a")
    assert (claim.effective, claim.claimant_territory) == (START + timedelta(hours=1), None)


@BATCHES
def test_a_refused_claim_shows_when_to_try_again(models: Models, batch: int) -> None:
    history = History().found(cooldown_days=7)
    history.join("per_a")
    history.register("cus_1")
    history.claim("cus_1", "per_a")
    history.release("cus_1")
    position = history.claim("cus_1", "per_a")
    models.project(history, batch=batch)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.reason, claim.retry_at) == ("cooldown", START + timedelta(days=7))


@BATCHES
def test_a_claim_on_a_duplicate_stands_at_the_customer_that_it_was_decided_on(
    models: Models, batch: int
) -> None:
    history = _history()
    history.register("cus_2", uscc="91310000MA1FL0LX0A")
    position = history.claim("cus_2", "per_a")
    models.project(history, batch=batch)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.status, claim.customer, claim.filed_for) == ("granted", "cus_1", "cus_2")
    assert of_customer(models.connection, "cus_1") == [claim]
    assert of_customer(models.connection, "cus_2") == [claim]


def test_listings_are_paged_from_the_newest_back(models: Models) -> None:
    history = _history()
    history.register("cus_2")
    first = history.claim("cus_1", "per_a")
    second = history.claim("cus_1", "per_b")
    third = history.claim("cus_2", "per_b")
    fourth = history.request(requests.ClaimFiled("cus_1", "per_b"))
    models.project(history)
    connection = models.connection

    def positions(claims: list[object]) -> list[int]:
        return [each.position for each in claims]  # type: ignore[attr-defined]  # claims

    assert positions([*of_customer(connection, "cus_1")]) == [fourth, second, first]
    assert positions([*of_customer(connection, "cus_1", 2)]) == [fourth, second]
    assert positions([*of_customer(connection, "cus_1", before=second)]) == [first]
    assert positions([*of_claimant(connection, "per_b")]) == [fourth, third, second]
    assert positions([*of_claimant(connection, "per_b", 1, before=fourth)]) == [third]
    assert positions([*of_status(connection, "pending")]) == [fourth]
    assert positions([*of_status(connection, "granted")]) == [third, first]
    assert positions([*of_status(connection, "granted", before=third)]) == [first]
    assert positions([*of_status(connection, "refused")]) == [second]
    assert positions([*of_status(connection, "refused", reason="owned_by_another")]) == [second]
    assert positions([*of_status(connection, "refused", reason="cooldown")]) == []
    assert claim_at(connection, first + 1) is None


def test_outcomes_are_counted_by_the_day_of_a_time_zone(models: Models) -> None:
    """At 17:00 UTC it is the next day in Shanghai."""
    history = _history()
    history.claim("cus_1", "per_a")
    history.claim("cus_1", "per_b")
    history.later(hours=16).claim("cus_1", "per_b")
    history.claim("cus_1", "per_a")
    models.project(history)
    monday, tuesday = date(2026, 1, 5), date(2026, 1, 6)
    assert per_day(models.connection, START, "Asia/Shanghai") == [
        DayCount(monday, "granted", None, 1),
        DayCount(monday, "refused", "owned_by_another", 1),
        DayCount(tuesday, "refused", "already_yours", 1),
        DayCount(tuesday, "refused", "owned_by_another", 1),
    ]
    utc = per_day(models.connection, START, "UTC")
    assert {each.day for each in utc} == {monday}
    assert per_day(models.connection, START + timedelta(hours=17), "UTC") == []


# --- that await approval -------------------------------------------------------------------------


def _from_outside() -> tuple[History, int, str]:
    """A claim from the north at a customer of the east, that its head is to approve."""
    history = History().found(claims_may_await=True)
    history.territory("ter_east", head="per_head")
    history.territory("ter_north", head="per_north")
    history.join("per_head", "ter_east", roles=("manager",))
    history.join("per_north", "ter_north", roles=("manager",))
    history.join("per_a", "ter_east")
    history.join("per_b", "ter_north")
    history.register("cus_1", uscc="91310000MA1FL0LX0A", territory="ter_east")
    history.register("cus_2", uscc="91310000MA1FL0LX0A")
    position = history.later(hours=1).claim("cus_2", "per_b")
    return history, position, f"apr_{position}"


@BATCHES
def test_a_claim_that_awaits_approval_until_it_is_granted(models: Models, batch: int) -> None:
    history, position, name = _from_outside()
    models.project(history, batch=batch)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.status, claim.approval, claim.decided) == ("awaiting", name, None)
    assert (claim.customer, claim.filed_for) == ("cus_1", "cus_2")
    assert of_status(models.connection, "awaiting") == [claim]
    assert of_status(models.connection, "pending") == []
    assert of_customer(models.connection, "cus_1") == [claim]
    approval = approval_of(models.connection, name)
    assert approval is not None
    assert (approval.purpose, approval.owner, approval.receiver) == ("claim", None, "per_b")

    for person in ("per_head", "per_north"):
        history.later(hours=1).ask(requests.ApprovalGiven("cus_1", name), actor=person)
    models.project(history, batch=batch)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.status, claim.owner, claim.approval) == ("granted", "per_b", name)
    assert (claim.customer, claim.filed_for) == ("cus_1", "cus_2")
    assert (claim.claimant_territory, claim.effective) == ("ter_north", history.now)
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert owned.owner == "per_b"


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("request_", "actor", "status", "reason"),
    [
        (lambda name: requests.ApprovalDenied("cus_1", name, "no"), "per_head",
         "refused", "step_refused"),
        (lambda name: requests.TransferWithdrawn("cus_1", name, "no_need"), "per_b",
         "withdrawn", "withdrawn"),
        (lambda name: requests.ClaimFiled("cus_1", "per_a"), "per_a",
         "refused", "owned_by_another"),
    ],
)  # fmt: skip
def test_how_a_claim_that_awaited_approval_ends_otherwise(
    models: Models, at_once: bool, request_: Any, actor: str, status: Status, reason: str
) -> None:
    history, position, name = _from_outside()
    if not at_once:
        models.project(history)
    history.ask(request_(name), actor=actor)
    models.project(history)
    claim = claim_at(models.connection, position)
    assert claim is not None
    assert (claim.status, claim.reason, claim.approval) == (status, reason, name)
    assert claim in of_status(models.connection, status)
    assert of_status(models.connection, "awaiting") == []
