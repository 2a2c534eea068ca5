"""Orphaned customers and who stands in at them: given events, then rows."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from ledger.events import organisation as facts
from ledger.events import requests
from projections.orphans import counts, list_orphans
from projections.stand_ins import of_customer, standing_at
from projections.telling import ids_named, sentence
from projections.timeline import history as timeline
from tests.projections.history import START, History
from tests.projections.models import Models

BATCHES = pytest.mark.parametrize("batch", [1, 3, 2_000])
ZONE = "Asia/Shanghai"


def _history() -> History:
    """``per_a`` has left with two customers, ``per_c`` of no territory with one."""
    history = History().found(protection_days=0)
    history.territory("ter_east", head="per_head")
    history.territory("ter_north", head="per_north")
    for person in ("per_head", "per_a", "per_b"):
        history.join(person, "ter_east")
    history.join("per_c")
    for customer, owner in (("cus_1", "per_a"), ("cus_2", "per_a"), ("cus_3", "per_b")):
        history.register(customer, territory="ter_east")
        history.claim(customer, owner)
    history.register("cus_4", territory="ter_north")
    history.assign("cus_4", "per_c")
    history.leave("per_a")
    history.leave("per_c", date(2026, 1, 20))
    return history.later(hours=1)


def _name(history: History, person: str, name: str, customer: str = "cus_1") -> int:
    until = history.now.date() + timedelta(days=7)
    reason = history.seal(customer, "reason", "先顶一下")
    asked = requests.StandInRequested(customer, name, person, until, "orphaned", reason)
    return history.ask(asked, actor="per_head")


def _listed(models: Models, history: History, **filters: str | None) -> list[str]:
    found = list_orphans(models.connection, history.now, history.now.date(), ZONE, **filters)  # type: ignore[arg-type]  # of which kinds, the test sees
    return [each.customer for each in found]


def test_whose_owner_has_left_and_since_when(models: Models) -> None:
    history = _history()
    models.project(history)
    connection, today = models.connection, history.now.date()
    assert _listed(models, history) == ["cus_1", "cus_2"]
    assert counts(connection, today) == {"ter_east": 2}
    (first, _) = list_orphans(connection, history.now, today, ZONE)
    assert (first.owner, first.since, first.owned_since) == ("per_a", today, START)
    assert (first.customer_territory, first.owner_territory) == ("ter_east", "ter_east")
    assert (first.stand_in, first.stand_in_until) == (None, None)

    history.later(days=20)
    assert _listed(models, history) == ["cus_1", "cus_2", "cus_4"]
    assert counts(connection, history.now.date()) == {"ter_east": 2, "ter_north": 1}
    assert _listed(models, history, owner="per_c") == ["cus_4"]
    assert _listed(models, history, after="cus_1", owner="per_a") == ["cus_2"]
    assert _listed(models, history, territories=["ter_north"]) == ["cus_4"]  # type: ignore[arg-type]  # a list
    history.fact(facts.PersonReturned("per_a", history.now.date()))
    models.project(history)
    assert _listed(models, history) == ["cus_4"]


@BATCHES
def test_a_stand_in_that_is_named_replaced_and_ended(models: Models, batch: int) -> None:
    history = _history()
    _name(history, "per_b", "sta_1")
    models.project(history, batch=batch)
    row = standing_at(models.connection, "cus_1", history.now)
    assert row is not None
    assert (row.person, row.owner, row.named_by) == ("per_b", "per_a", "per_head")
    assert (row.since, row.ended) == (history.now, None)
    (first, _) = list_orphans(models.connection, history.now, history.now.date(), ZONE)
    assert (first.stand_in, first.stand_in_until) == ("per_b", row.until)
    assert standing_at(models.connection, "cus_1", row.until) is None

    _name(history.later(hours=1), "per_c", "sta_2")
    replaced = history.now
    history.later(hours=1)
    ending = requests.StandInEndRequested("cus_1", "sta_2", "not_needed")
    history.ask(ending, actor="per_c")
    models.project(history, batch=batch)
    newer, older = of_customer(models.connection, "cus_1")
    assert (older.ended, older.end_reason) == (replaced, "replaced")
    assert (newer.ended, newer.end_reason) == (history.now, "not_needed")
    assert standing_at(models.connection, "cus_1", history.now) is None


def test_who_has_left_stands_in_no_longer(models: Models) -> None:
    """They were shown until the day that had been said."""
    history = _history()
    _name(history, "per_b", "sta_1")
    history.leave("per_b", history.now.date() + timedelta(days=2))
    models.project(history)
    today = history.now.date()
    for day, person in ((today, "per_b"), (today + timedelta(days=2), None)):
        first, *_ = list_orphans(models.connection, history.now, day, ZONE)
        found = standing_at(models.connection, "cus_1", history.now, day)
        assert (first.stand_in, found and found.person) == (person, person)
    assert standing_at(models.connection, "cus_1", history.now) is not None


@BATCHES
def test_with_the_ownership_it_ends_and_a_later_one_stands(models: Models, batch: int) -> None:
    history = _history()
    _name(history, "per_b", "sta_1")
    _name(history, "per_b", "sta_2", "cus_2")
    history.release("cus_1", actor="per_head")
    released = history.now
    history.later(hours=1).claim("cus_1", "per_b")
    history.leave("per_b")
    _name(history.later(hours=1), "per_head", "sta_3")
    models.project(history, batch=batch)
    newer, older = of_customer(models.connection, "cus_1")
    assert (older.ended, older.end_reason) == (released, "ownership_changed")
    assert (newer.stand_in, newer.ended) == ("sta_3", None)
    assert standing_at(models.connection, "cus_2", history.now) is not None


def test_it_is_told_in_the_customers_history(models: Models) -> None:
    history = _history()
    before = history.position
    _name(history, "per_b", "sta_1")
    ending = requests.StandInEndRequested("cus_1", "sta_1", "not_needed")
    history.ask(ending, actor="per_head")
    history.ask(ending, actor="per_head")
    models.project(history)
    entries = timeline(models.connection, "cus_1", after=before)
    assert ids_named(entries) >= {"per_a", "per_b", "per_head"}
    assert [sentence(each, {"per_a": "张伟", "per_b": "李娜"}) for each in entries] == [
        "per_head asked that 李娜 stands in for the owner, who left, until 2026-01-12 (orphaned)."
        " (reason: 先顶一下)",
        "李娜 stands in for 张伟 until 2026-01-11T16:00:00Z.",
        "per_head asked to end a stand-in (not needed).",
        "李娜 no longer stands in (not needed).",
        "per_head asked to end a stand-in (not needed).",
        "The stand-in was refused: There is no such stand-in at this customer now.",
    ]
