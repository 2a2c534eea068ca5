"""Approval times and conflict counts per territory: given events, then figures."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ledger.events import requests
from projections.case_figures import ApprovalTimes, CaseFigures, case_figures
from tests.projections.history import History
from tests.projections.models import Models

HOUR = 3_600
ALWAYS = (datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC))


def company() -> History:
    history = History().found(
        protection_days=0,
        conflict_kinds=["follow_up", "competing_claims"],
        claim_scope="everywhere",
        approval_rules=[
            {
                "purposes": ["transfer"],
                "conditions": [{"attribute": "grade", "operator": "is", "value": "key"}],
                "steps": [{"approvers": [{"kind": "head"}]}],
            }
        ],
    )
    history.territory("ter_east", head="per_head")
    history.territory("ter_west", head="per_head")
    history.join("per_head", "ter_east", ("manager",))
    for person in ("per_a", "per_b"):
        history.join(person, "ter_east")
    for number in (1, 2, 3, 4):
        history.register(
            f"cus_{number}", territory="ter_east", attributes={"grade": "key", "no": number}
        )
        history.claim(f"cus_{number}", "per_a")
    return history.later(days=3)


def transfer(history: History, customer: str, name: str, receiver: str = "per_b") -> None:
    request = requests.TransferRequested(customer, name, receiver, "better")
    history.ask(request, actor="per_a")


def of(models: Models, since: datetime, until: datetime) -> dict[str | None, CaseFigures]:
    return {each.territory: each for each in case_figures(models.connection, since, until)}


@pytest.fixture
def history(models: Models) -> History:
    """Three transfers that took an hour, three and ten, of which the last was not agreed to."""
    history = company()
    for number, hours in ((1, 1), (2, 2), (3, 7)):
        transfer(history, f"cus_{number}", f"trf_{number}")
        history.later(hours=hours)
    for number in (1, 2):
        history.ask(requests.ApprovalGiven(f"cus_{number}", f"trf_{number}"), actor="per_head")
    history.ask(requests.ApprovalDenied("cus_3", "trf_3", "no"), actor="per_head")
    transfer(history, "cus_4", "trf_4")
    return history


def test_how_long_approvals_took(models: Models, history: History) -> None:
    # What the customer's territory is by now does not matter, only where it was then.
    history.move("cus_1", "ter_west")
    # Nor does what needed no step, or was refused at the door.
    history.register("cus_5", territory="ter_east")
    history.claim("cus_5", "per_a")
    transfer(history, "cus_5", "trf_5")
    transfer(history, "cus_3", "trf_6", "per_a")
    models.project(history)
    figures = of(models, *ALWAYS)
    assert figures["ter_east"].approvals == (
        ApprovalTimes("completed", 2, 19 * HOUR // 2, 10 * HOUR),
        ApprovalTimes("refused", 1, 7 * HOUR, 7 * HOUR),
    )
    assert figures["ter_east"].approvals_open == 1
    assert figures["ter_west"] == CaseFigures("ter_west", "区ter_west", (), 0, 0, 0, {}, 0)
    assert list(figures) == ["ter_east", "ter_west"]
    # Before the answers all of them were open, and behind them nothing ended.
    before = of(models, ALWAYS[0], history.now - timedelta(hours=1))["ter_east"]
    assert (before.approvals, before.approvals_open) == ((), 3)
    after = of(models, history.now + timedelta(hours=1), ALWAYS[1])["ter_east"]
    assert (after.approvals, after.approvals_open) == ((), 1)


def test_how_long_claims_awaited_approval(models: Models) -> None:
    """A claim from outside the territory waits as a transfer does, at a customer of nobody."""
    history = History().found(claims_may_await=True, claim_scope="own_territory")
    history.territory("ter_east", head="per_head")
    history.territory("ter_west", head="per_head")
    history.join("per_head", "ter_east", ("manager",))
    history.join("per_b", "ter_west")
    for number in (1, 2, 3):
        history.register(f"cus_{number}", territory="ter_east")
        history.ask(requests.ClaimFiled(f"cus_{number}", "per_b"), actor="per_b")
    opened = (each.data for each in history.events if each.name == "ApprovalOpened.v1")
    names = [each.approval for each in opened]
    history.later(hours=2)
    history.ask(requests.ApprovalDenied("cus_1", names[0], "no"), actor="per_head")
    for person in ("per_head", "per_admin"):
        history.ask(requests.ApprovalGiven("cus_2", names[1]), actor=person)
    models.project(history)
    figures = of(models, *ALWAYS)
    assert figures["ter_east"].approvals == (
        ApprovalTimes("completed", 1, 2 * HOUR, 2 * HOUR),
        ApprovalTimes("refused", 1, 2 * HOUR, 2 * HOUR),
    )
    assert figures["ter_east"].approvals_open == 1
    assert figures["ter_west"].approvals == ()


def test_how_conflicts_ended(models: Models) -> None:
    history = company()
    begun = history.now
    names = []
    for number in (1, 2, 3, 4):
        history.follow_up(f"cus_{number}", "per_b")
        names.append(f"cft_{history.position - 2}")
    history.later(days=1)
    for number, ruling in ((1, "keep"), (2, "allow")):
        request = requests.RulingGiven(f"cus_{number}", names[number - 1], ruling, "heard")
        history.ask(request, actor="per_head")
    history.release("cus_3")
    # In no territory, and in one that was never defined.
    history.register("cus_6")
    history.register("cus_7", territory="ter_gone")
    for customer in ("cus_6", "cus_7"):
        history.claim(customer, "per_a")
        history.claim(customer, "per_b")
    models.project(history)
    assert of(models, *ALWAYS)["ter_east"] == CaseFigures(
        "ter_east", "区ter_east", (), 0, 4, 1, {"allow": 1, "keep": 1}, 1
    )
    first_day = of(models, begun, begun + timedelta(hours=1))["ter_east"]
    assert (first_day.conflicts_opened, first_day.conflicts_open) == (4, 4)
    assert (first_day.ruled, first_day.gone) == ({}, 0)
    second = of(models, begun + timedelta(hours=1), ALWAYS[1])
    assert (second["ter_east"].conflicts_opened, second["ter_east"].conflicts_open) == (0, 1)
    assert list(second) == ["ter_east", "ter_west", "ter_gone", None]
    assert (second[None].conflicts_opened, second["ter_gone"].conflicts_open) == (1, 1)
