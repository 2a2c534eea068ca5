"""Ownership now: given events, then rows."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ledger.events import decisions, requests
from projections.ownership import OwnershipNow, list_ownership, owner_of
from tests.projections.history import START, History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 4, 2_000])


def _history() -> History:
    history = History().found(protection_days=30, claim_scope="everywhere")
    history.territory("ter_east")
    history.territory("ter_north")
    history.join("per_a", "ter_east")
    history.join("per_b", "ter_east")
    history.register("cus_1", territory="ter_east")
    return history


@BATCHES
def test_an_admitted_customer_is_free_in_the_pool_of_its_territory(
    models: Models, batch: int
) -> None:
    history = _history()
    models.project(history, batch=batch)
    assert owner_of(models.connection, "cus_1") == OwnershipNow(
        "cus_1", None, START, None, "ter_east", None, history.position
    )


@BATCHES
def test_a_granted_claim_makes_the_claimant_the_owner(models: Models, batch: int) -> None:
    history = _history()
    history.later(hours=1).claim("cus_1", "per_a")
    models.project(history, batch=batch)
    since = START + timedelta(hours=1)
    assert owner_of(models.connection, "cus_1") == OwnershipNow(
        "cus_1",
        "per_a",
        since,
        "ter_east",
        "ter_east",
        since + timedelta(days=30),
        history.position,
    )


@BATCHES
def test_a_refused_claim_changes_nothing(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    changed = history.position
    history.later(hours=1).claim("cus_1", "per_b")
    models.project(history, batch=batch)
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert (owned.owner, owned.changed_position) == ("per_a", changed)


@BATCHES
def test_a_released_customer_is_free_again_and_can_be_assigned(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.later(hours=1).release("cus_1")
    models.project(history, batch=batch)
    assert owner_of(models.connection, "cus_1") == OwnershipNow(
        "cus_1", None, START + timedelta(hours=1), None, "ter_east", None, history.position
    )
    history.later(hours=1).assign("cus_1", "per_b")
    models.project(history, batch=batch)
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert (owned.owner, owned.since) == ("per_b", START + timedelta(hours=2))


@BATCHES
def test_a_customer_that_moves_keeps_its_owner(models: Models, batch: int) -> None:
    history = _history()
    history.claim("cus_1", "per_a")
    history.later(hours=1).move("cus_1", "ter_north")
    models.project(history, batch=batch)
    assert owner_of(models.connection, "cus_1") == OwnershipNow(
        "cus_1",
        "per_a",
        START,
        "ter_east",
        "ter_north",
        START + timedelta(days=30),
        history.position,
    )


@BATCHES
def test_what_came_last_of_a_move_and_a_claim_counts(models: Models, batch: int) -> None:
    history = _history()
    models.project(history)
    history.move("cus_1", "ter_north")
    history.later(hours=1).claim("cus_1", "per_a")
    models.project(history, batch=batch)
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert (owned.customer_territory, owned.changed_position) == ("ter_north", history.position)


def test_a_customer_that_was_never_admitted_has_no_row(models: Models) -> None:
    history = _history()
    history.register("cus_2", uscc="91310000MA1FL0LX0A")
    history.register("cus_3", uscc="91310000MA1FL0LX0A")
    models.project(history)
    assert owner_of(models.connection, "cus_2") is not None
    assert owner_of(models.connection, "cus_3") is None


def test_a_decision_on_a_customer_that_was_never_admitted_parks_its_stream(models: Models) -> None:
    history = _history()
    request = history.request(requests.ClaimFiled("cus_9", "per_a"))
    bad = history.decided(request, decisions.OwnershipGranted("cus_9", "per_a"))
    history.claim("cus_1", "per_a")
    models.project(history)
    assert ("ownership", "ownership-cus_9", bad, "rows_do_not_fit") in models.parked()
    owned = owner_of(models.connection, "cus_1")
    assert owned is not None
    assert owned.owner == "per_a"


def test_listing_filters_and_pages(models: Models) -> None:
    history = _history()
    for number in range(2, 8):
        history.register(f"cus_{number}", territory="ter_north" if number % 2 else "ter_east")
    for number in (2, 3, 4):
        history.claim(f"cus_{number}", "per_a")
    models.project(history)

    def listed(**filters: object) -> str:
        found = list_ownership(models.connection, **filters)  # type: ignore[arg-type]  # any filter
        return " ".join(each.customer.removeprefix("cus_") for each in found)

    assert listed() == "1 2 3 4 5 6 7"
    assert listed(limit=3) == "1 2 3"
    assert listed(after="cus_3", limit=3) == "4 5 6"
    assert listed(after="cus_7") == ""
    assert listed(owner="per_a") == "2 3 4"
    assert listed(free=True) == "1 5 6 7"
    assert listed(free=False) == "2 3 4"
    assert listed(territory="ter_north") == "3 5 7"
    assert listed(territory="ter_east", free=True, after="cus_1") == "6"
    assert listed(owner="per_b") == ""
