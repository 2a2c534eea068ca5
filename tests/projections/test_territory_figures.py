"""Figures per territory: given facts, requests and decisions, then sums."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest

from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import catalogue
from projections import territory_figures
from projections.rebuild import compare
from projections.territory_figures import (
    DayOfClaims,
    FiguresOfTerritory,
    TerritoryFigures,
    WonDeals,
)
from tests.projections.failing import FailsOnce
from tests.projections.history import History
from tests.projections.models import Models


def staffed() -> History:
    """Return a history with a person in each of two territories."""
    history = History().found(claim_scope="everywhere")
    history.territory("ter_1")
    history.territory("ter_2")
    history.join("per_1", "ter_1")
    history.join("per_2", "ter_2")
    return history


def figures(models: Models) -> dict[str | None, FiguresOfTerritory]:
    return {each.territory: each for each in territory_figures.figures(models.connection)}


def test_territories_without_anything_are_listed_with_nothing(models: Models) -> None:
    models.project(staffed())
    listed = territory_figures.figures(models.connection)
    assert listed == [
        FiguresOfTerritory("ter_1", "区ter_1", 0, 0, 0, 0, {}, (), 0, 0),
        FiguresOfTerritory("ter_2", "区ter_2", 0, 0, 0, 0, {}, (), 0, 0),
    ]


def test_customers_are_counted_where_they_are_now(models: Models) -> None:
    history = staffed()
    for number in range(4):
        history.register(f"cus_{number}", territory="ter_1")
    history.register("cus_none")
    history.claim("cus_0", "per_1")
    history.claim("cus_1", "per_1")
    history.ask(requests.CustomerChangeRequested("cus_3", closed=True))
    models.project(history)
    here = figures(models)["ter_1"]
    assert (here.owned, here.free, here.closed) == (2, 1, 1)
    nowhere = figures(models)[None]
    assert (nowhere.name, nowhere.owned, nowhere.free) == (None, 0, 1)
    # An owned and a free one move, and an owned one is released.
    history.move("cus_0", "ter_2")
    history.move("cus_2", "ter_2")
    history.release("cus_1")
    models.project(history)
    after = figures(models)
    assert (after["ter_1"].owned, after["ter_1"].free, after["ter_1"].closed) == (0, 1, 1)
    assert (after["ter_2"].owned, after["ter_2"].free, after["ter_2"].closed) == (1, 1, 0)


def test_deals_and_follow_ups_go_with_their_customer(models: Models) -> None:
    history = staffed()
    history.register("cus_1", territory="ter_1")
    history.register("cus_2", territory="ter_2")
    history.deal("cus_1", "per_2", value="10.10")
    history.deal("cus_1", "per_2", value="0.20")
    history.deal("cus_1", "per_2", "lost")
    history.deal("cus_2", "per_2", value="5")
    void = history.deal("cus_2", "per_2", value="1000")
    history.ask(requests.DealVoided("cus_2", void, "returned"))
    history.follow_up("cus_1", "per_1")
    history.follow_up("cus_1", "per_1")
    void = history.follow_up("cus_1", "per_1")
    history.ask(requests.FollowUpVoided("cus_1", void, "twice"))
    models.project(history)
    before = figures(models)
    assert before["ter_1"].won == (WonDeals("CNY", 2, Decimal("10.30")),)
    assert (before["ter_1"].lost, before["ter_1"].follow_ups) == (1, 2)
    assert before["ter_2"].won == (WonDeals("CNY", 1, Decimal("5")),)
    history.move("cus_1", "ter_2")
    models.project(history)
    after = figures(models)
    assert (after["ter_1"].won, after["ter_1"].lost, after["ter_1"].follow_ups) == ((), 0, 0)
    assert after["ter_2"].won == (WonDeals("CNY", 3, Decimal("15.30")),)
    assert (after["ter_2"].lost, after["ter_2"].follow_ups) == (1, 2)


def test_acts_at_what_was_never_admitted_are_in_no_figure(models: Models) -> None:
    """They stood among those of no territory, as somebody's success at no customer."""
    history = staffed()
    history.deal("cus_none", "per_1")
    history.deal("cus_none", "per_1", "lost")
    history.follow_up("cus_none", "per_1")
    history.register("cus_1", territory="ter_1")
    history.request(requests.FollowUpLogged("cus_1", "fup_late", "per_1", "phone"))
    models.project(history)
    listed = figures(models)
    assert listed.keys() == {"ter_1", "ter_2"}
    assert listed["ter_1"].follow_ups == 0, "what is not decided does not count yet"


def test_claims_count_for_the_home_of_the_claimant_at_that_moment(models: Models) -> None:
    history = staffed()
    history.register("cus_1", territory="ter_1")
    history.claim("cus_1", "per_2")
    history.claim("cus_1", "per_1")
    history.claim("cus_1", "per_2")
    history.fact(facts.PersonChanged("per_1", "ter_2", ("rep",)))
    history.claim("cus_1", "per_1")
    history.claim("cus_1", "per_nobody")
    models.project(history)
    counted = figures(models)
    assert (counted["ter_1"].granted, counted["ter_1"].refused) == (0, {"owned_by_another": 1})
    assert counted["ter_2"].granted == 1
    assert counted["ter_2"].refused == {"already_yours": 1, "owned_by_another": 1}
    assert (counted[None].granted, counted[None].refused) == (0, {"claimant_unknown": 1})


def outside(claimant: str = "per_2") -> History:
    """Five customers of the one territory, claimed by somebody who is at home in the other."""
    history = History().found(claims_may_await=True, claim_scope="own_territory")
    history.territory("ter_1", head="per_head")
    history.territory("ter_2", head="per_head")
    history.join("per_head", "ter_1", ("manager",))
    history.join("per_other", roles=("admin",))
    for person, home in (("per_1", "ter_1"), ("per_2", "ter_2")):
        history.join(person, home)
    for number in range(5):
        history.register(f"cus_{number}", territory="ter_1")
        history.ask(requests.ClaimFiled(f"cus_{number}", claimant), actor=claimant)
    return history


def approvals(history: History) -> list[str]:
    opened = (each.data for each in history.events if each.name == "ApprovalOpened.v1")
    return [each.approval for each in opened]


@pytest.mark.parametrize("batch", [1, 3, 2_000])
def test_claims_that_await_approval_are_counted_until_they_ended_and_then_for_how(
    models: Models, batch: int
) -> None:
    """Those of whom the heads approved nothing stood in no figure at all."""
    history = outside()
    names = approvals(history)
    assert len(names) == 5
    models.project(history, batch=batch)
    before = figures(models)
    assert (before["ter_2"].granted, before["ter_2"].refused) == (0, {})
    assert (before["ter_2"].awaiting, before["ter_1"].awaiting) == (5, 0)

    history.ask(requests.ApprovalDenied("cus_0", names[0], "no"), actor="per_head")
    history.ask(requests.TransferWithdrawn("cus_1", names[1], "no"), actor="per_2")
    history.claim("cus_2", "per_1")
    for person in ("per_head", "per_admin"):
        history.ask(requests.ApprovalGiven("cus_3", names[3]), actor=person)
    # A transfer that is refused is no claim.
    history.ask(requests.TransferRequested("cus_2", "trf_1", "per_2", "wish"), actor="per_1")
    history.ask(requests.TransferWithdrawn("cus_2", "trf_1", "no"), actor="per_1")
    models.project(history, batch=batch)
    after = figures(models)
    assert after["ter_2"].refused == {"owned_by_another": 1, "step_refused": 1, "withdrawn": 1}
    assert (after["ter_2"].granted, after["ter_2"].awaiting) == (1, 1)
    assert (after["ter_1"].granted, after["ter_1"].refused) == (1, {})
    assert compare(models.connect, models.projections, catalogue()) == []


def test_a_claim_that_awaits_by_somebody_of_no_territory_is_counted_too(models: Models) -> None:
    models.project(outside("per_admin"))
    assert figures(models)[None].awaiting == 5


def test_an_assignment_is_no_claim(models: Models) -> None:
    history = staffed()
    history.register("cus_1", territory="ter_1")
    history.assign("cus_1", "per_1")
    models.project(history)
    counted = figures(models)["ter_1"]
    assert (counted.owned, counted.granted, counted.refused) == (1, 0, {})


def test_days_are_days_of_the_organisation(models: Models) -> None:
    """One hour past midnight in Shanghai is the afternoon of the day before in Greenwich."""
    history = staffed()  # nine o'clock on Monday, 5 January, in Shanghai
    for number in range(4):
        history.register(f"cus_{number}")
    history.claim("cus_0", "per_1")
    history.later(hours=14)  # eleven in the evening
    history.claim("cus_1", "per_1")
    history.later(hours=2)  # one in the night
    history.claim("cus_2", "per_2")
    history.claim("cus_2", "per_1")
    models.project(history)
    monday, tuesday = date(2026, 1, 5), date(2026, 1, 6)

    def days(since: date, until: date, territory: str | None = None) -> list[DayOfClaims]:
        return territory_figures.claims_per_day(
            models.connection, since, until, territory=territory
        )

    both = [
        DayOfClaims(monday, 2, {}),
        DayOfClaims(tuesday, 1, {"owned_by_another": 1}),
    ]
    assert days(monday, tuesday) == both
    assert days(tuesday, tuesday) == both[1:]
    assert days(monday, tuesday, "ter_2") == [DayOfClaims(tuesday, 1, {})]
    assert days(tuesday + timedelta(days=1), tuesday + timedelta(days=9)) == []


def eventful() -> History:
    """Return a history of claims by people who move between territories."""
    history = staffed()
    for number in range(20):
        history.register(f"cus_{number}", territory=f"ter_{number % 2 + 1}")
        history.claim(f"cus_{number}", f"per_{number % 2 + 1}")
        history.claim(f"cus_{number}", "per_1")
        if number % 4 == 0:
            home = f"ter_{number // 4 % 2 + 1}"
            history.fact(facts.PersonChanged("per_1", home, ("rep",)))
        history.later(hours=7)
    return history


@pytest.mark.parametrize("batch", [1, 3, 2_000])
def test_sums_are_the_same_whatever_the_batches(models: Models, batch: int) -> None:
    models.project(eventful(), batch=batch)
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
    total = sum(each.granted + sum(each.refused.values()) for each in figures(models).values())
    assert total == 40


def test_a_failed_batch_counts_nothing_twice(models: Models) -> None:
    models.projections = [
        FailsOnce(each) if isinstance(each, TerritoryFigures) else each
        for each in models.projections
    ]
    models.project(eventful())
    assert models.parked() == []
    total = sum(each.granted + sum(each.refused.values()) for each in figures(models).values())
    assert total == 40
