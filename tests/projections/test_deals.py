"""Deals: given requests and decisions, then what stands and what it is worth."""

from __future__ import annotations

import random
from decimal import Decimal
from typing import Any

import pytest

from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId, Identifier, Money
from projections import deals
from projections.deals import Deal, Deals, DealTotal
from projections.rebuild import compare
from tests.projections.failing import FailsOnce
from tests.projections.history import History
from tests.projections.models import Models


@pytest.fixture
def models(models: Models) -> Models:
    """Only the read model of deals."""
    models.projections = [Deals()]
    return models


def staffed() -> History:
    """Return a history with two people and a customer that per_1 owns."""
    history = History().found()
    history.join("per_1")
    history.join("per_2")
    history.register("cus_1")
    history.claim("cus_1", "per_1")
    return history


def shown(models: Models, deal: str) -> Deal:
    """Return a deal that must be there."""
    found = deals.deal(models.connection, deal)
    assert found is not None
    return found


def yuan(amount: str) -> Money:
    return Money(Decimal(amount), "CNY")


def test_a_deal_is_shown_at_once_and_judged_when_decided(models: Models) -> None:
    history = staffed()
    request = history.request(
        requests.DealRecorded(
            "cus_1", "dea_1", "per_2", "won", yuan("1054.50"), "GTX", (ForeignId("crm", "9"),)
        ),
        actor="per_2",
    )
    models.project(history)
    undecided = shown(models, "dea_1")
    assert undecided.value == yuan("1054.50")
    assert (undecided.product, undecided.foreign_ids) == ("GTX", (ForeignId("crm", "9"),))
    assert undecided.at == undecided.recorded
    assert (undecided.by_owner, undecided.decided_position) == (None, None)
    decision = history.decide(request)
    models.project(history)
    assert shown(models, "dea_1").decided_position == decision
    assert shown(models, "dea_1").by_owner is False
    assert shown(models, "dea_1").remark == "deal_by_non_owner"


def test_an_amount_keeps_every_digit(models: Models) -> None:
    history = staffed()
    history.deal("cus_1", "per_1", value="12345678901234.567890")
    models.project(history)
    (only,) = deals.of_customer(models.connection, "cus_1")
    assert only.value is not None
    assert str(only.value.amount) == "12345678901234.567890"


def test_a_correction_holds_once_it_is_noted_and_keeps_what_it_does_not_say(
    models: Models,
) -> None:
    history = staffed()
    deal = history.deal("cus_1", "per_1")
    correction = history.request(
        requests.DealCorrected("cus_1", deal, "typo", value=Money(Decimal("7"), "USD")),
        actor="per_1",
    )
    models.project(history)
    assert shown(models, deal).value == yuan("1054.00")
    history.decide(correction)
    history.ask(requests.DealCorrected("cus_1", deal, "lost", outcome="lost"), actor="per_1")
    models.project(history)
    corrected = shown(models, deal)
    assert (corrected.outcome, corrected.value) == ("lost", Money(Decimal("7"), "USD"))
    assert corrected.corrections == 2
    assert models.rows("SELECT * FROM deal_corrections") == []


def test_what_is_refused_changes_nothing(models: Models) -> None:
    history = staffed()
    deal = history.deal("cus_1", "per_1")
    history.ask(requests.DealCorrected("cus_1", deal, "typo", outcome="lost"), actor="per_2")
    history.ask(requests.DealVoided("cus_1", deal, "returned"), actor="per_2")
    models.project(history)
    assert (shown(models, deal).outcome, shown(models, deal).stands) == ("won", True)
    assert models.rows("SELECT * FROM deal_corrections") == []


def test_totals_count_what_stands_by_currency(models: Models) -> None:
    history = staffed()
    history.register("cus_2")
    history.deal("cus_1", "per_1", value="10.10")
    history.deal("cus_2", "per_1", value="0.20")
    history.deal("cus_1", "per_2", "lost", value="5")
    history.ask(
        requests.DealRecorded("cus_1", "dea_usd", "per_2", "won", Money(Decimal("3"), "USD"))
    )
    history.ask(requests.DealRecorded("cus_1", "dea_free", "per_2", "won"))
    void = history.deal("cus_1", "per_1", value="1000")
    history.ask(requests.DealVoided("cus_1", void, "returned"), actor="per_1")
    models.project(history)
    assert not shown(models, void).stands
    assert shown(models, void).void_code == "returned"
    assert deals.totals(models.connection) == [
        DealTotal("won", "CNY", 2, Decimal("10.30")),
        DealTotal("won", "USD", 1, Decimal("3")),
        DealTotal("won", None, 1, None),
        DealTotal("lost", "CNY", 1, Decimal("5")),
    ]
    assert deals.totals(models.connection, customer="cus_2") == [
        DealTotal("won", "CNY", 1, Decimal("0.20"))
    ]
    assert deals.totals(models.connection, person="per_2", customer="cus_2") == []


def test_a_deal_at_what_was_never_admitted_is_shown_and_counts_for_nobody(models: Models) -> None:
    """Such deals were in everybody's totals, and in no count of the enforcer."""
    history = staffed()
    history.deal("cus_none", "per_1", value="1000")
    request = history.request(
        requests.DealRecorded("cus_1", "dea_1", "per_1", "won", yuan("3")), actor="per_1"
    )
    models.project(history)
    (only,) = deals.of_customer(models.connection, "cus_none")
    assert (only.remark, only.stands, only.counts) == ("customer_not_admitted", True, False)
    assert (shown(models, "dea_1").stands, shown(models, "dea_1").counts) == (True, False)
    assert deals.totals(models.connection) == []
    history.decide(request)
    models.project(history)
    assert shown(models, "dea_1").counts
    assert deals.totals(models.connection, person="per_1") == [
        DealTotal("won", "CNY", 1, Decimal("3"))
    ]


def test_a_duplicate_s_deal_is_shown_where_it_was_decided(models: Models) -> None:
    history = staffed()
    history.register("cus_2", uscc="X1")
    history.ask(
        requests.RegistrationRequested(
            "cus_3", "organisation", "又一次", (Identifier("uscc", "X1"),)
        )
    )
    deal = history.deal("cus_3", "per_1")
    models.project(history)
    assert shown(models, deal).customer == "cus_2"


def test_a_person_s_deals_are_paged(models: Models) -> None:
    history = staffed()
    made = [history.deal("cus_1", "per_1") for _ in range(5)]
    history.deal("cus_1", "per_2")
    models.project(history)
    first = deals.of_person(models.connection, "per_1", limit=3)
    rest = deals.of_person(models.connection, "per_1", after=first[-1].position)
    assert [each.deal for each in [*first, *rest]] == made


def shuffled(chance: random.Random) -> History:
    """Return a history whose deals are made, corrected, voided and decided in any legal order."""
    history = staffed()
    undecided: dict[str, list[int]] = {}
    for number in range(12):
        history.register(f"cus_{number}x")
    for step in range(600):
        customer = f"cus_{chance.randrange(12)}x"
        deal = f"dea_{customer}_{chance.randrange(3)}"
        actor = chance.choice(["per_1", "per_2"])
        value = chance.choice([None, yuan(f"{step}.00"), Money(Decimal(step), "USD")])
        outcome = chance.choice(["won", "lost"])
        match chance.randrange(6):
            case 0:
                asked: requests.Request = requests.DealRecorded(
                    customer, deal, actor, outcome, value
                )
            case 1 | 2:
                asked = requests.DealCorrected(
                    customer, deal, "typo", outcome=outcome, value=value, product=f"p{step}"
                )
            case 3:
                asked = requests.DealVoided(customer, deal, f"void{step}")
            case _:
                waiting = undecided.get(customer)
                if waiting:
                    history.decide(waiting.pop(0))
                continue
        undecided.setdefault(customer, []).append(history.request(asked, actor=actor))
    for waiting in undecided.values():
        for request in waiting:
            history.decide(request)
    return history


def expected(history: History) -> dict[str, tuple[Any, ...]]:
    """Fold what was noted, one decision after the other."""
    rows: dict[str, tuple[Any, ...]] = {}
    for event in history.events:
        if event.name != "Noted.v1" or event.causation is None:
            continue
        match history.event(event.causation).data:
            case requests.DealRecorded() as data:
                rows.setdefault(data.deal, (data.outcome, data.value, None, 0, None))
            case requests.DealCorrected() as data:
                outcome, value, product, count, void = rows[data.deal]
                rows[data.deal] = (
                    data.outcome or outcome,
                    data.value or value,
                    data.product or product,
                    count + 1,
                    void,
                )
            case requests.DealVoided() as data:
                rows[data.deal] = (*rows[data.deal][:4], data.reason_code)
            case _:
                pass
    return rows


@pytest.mark.parametrize(("seed", "batch"), [(1, 1), (2, 7), (3, 60), (4, 2_000)])
def test_corrections_in_any_legal_order_come_out_as_they_were_decided(
    models: Models, seed: int, batch: int
) -> None:
    history = shuffled(random.Random(seed))  # noqa: S311 - a test is to come out the same
    models.project(history, batch=batch)
    assert models.parked() == []
    wanted = expected(history)
    seen = {
        deal: (each.outcome, each.value, each.product, each.corrections, each.void_code)
        for deal in wanted
        for each in [shown(models, deal)]
    }
    assert seen == wanted
    assert models.rows("SELECT count(*) FROM deals") == [(len(wanted),)]
    assert any(void for *_, void in wanted.values())
    assert any(count > 1 for *_, count, _ in wanted.values())
    assert compare(models.connect, models.projections, catalogue()) == []


def test_a_failed_batch_leaves_nothing_behind_and_is_applied_again(models: Models) -> None:
    models.projections = [FailsOnce(Deals())]
    models.project(shuffled(random.Random(5)))  # noqa: S311 - a test is to come out the same
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
