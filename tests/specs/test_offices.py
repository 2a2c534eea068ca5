"""Who may do what: managers of territories, heads, administrators, and those who left."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from tests.specs.story import Story
from tests.specs.test_ownership import (
    NAME,
    assign,
    change,
    claim,
    company,
    follow_up,
    granted,
    refused,
    register,
)

TODAY = date(2026, 3, 2)


def gone(story: Story, *people: str, on: date = TODAY) -> Story:
    return story.given(*(facts.PersonLeft(person, on) for person in people))


@pytest.mark.parametrize("by", ["per_head", "per_deputy", "per_boss", "per_admin"])
def test_who_has_left_is_manager_and_administrator_no_longer(by: str) -> None:
    """Territories go on naming managers who left, and their powers held for ever."""
    story = gone(company().when(register()), by)
    refused(story.when(assign(), by=by), reasons.NOT_MANAGER)
    refused(story.when(change(closed=True), by=by), reasons.NOT_OWNER)
    refused(story.when(change(territory="ter_west"), by=by), reasons.NOT_HEAD)
    story.when(claim("per_a")).when(follow_up("per_a"), by="per_a")
    refused(story.when(r.ReleaseRequested("cus_1", "x"), by=by), reasons.NOT_OWNER)
    refused(story.when(r.FollowUpVoided("cus_1", "fol_per_a", "x"), by=by), reasons.NOT_YOURS)


def test_where_the_policy_lets_managers_change_those_who_left_may_not() -> None:
    west = change(attributes={"region": "west"})
    story = gone(company(guarded_changes_by="manager").when(register()), "per_deputy")
    refused(story.when(west, by="per_deputy"), reasons.NOT_HEAD)
    free = gone(company().when(register(region=None)), "per_head")
    refused(free.when(change(territory="ter_west"), by="per_head"), reasons.NOT_HEAD)


def test_powers_end_with_the_day_on_which_somebody_leaves() -> None:
    story = gone(company().when(register()), "per_head", on=TODAY + timedelta(days=1))
    story.when(change(closed=True), by="per_head").then(d.CustomerChanged("cus_1", "ter_east"))
    refused(story.later(days=1).when(change(closed=False), by="per_head"), reasons.NOT_OWNER)


def test_whoever_returns_has_the_powers_again() -> None:
    story = gone(company().when(register()), "per_head", "per_a")
    story.given(facts.PersonReturned("per_head", TODAY), facts.PersonReturned("per_a", TODAY))
    story.when(assign(), by="per_head")
    assert isinstance(story.decided, d.OwnershipAssigned)


def test_the_customers_of_who_left_stay_until_somebody_frees_them() -> None:
    story = company().when(register()).when(claim("per_a"))
    gone(story, "per_a")
    refused(story.when(claim("per_b")), reasons.OWNED_BY_ANOTHER, owner="per_a")
    refused(story.when(assign("per_b"), by="per_head"), reasons.OWNED_BY_ANOTHER)
    story.when(r.ReleaseRequested("cus_1", "left"), by="per_head")
    granted(story.when(claim("per_b")), "per_b")
    assert story.settled.holdings["per_a"].held == 0


def test_a_customer_without_territory_is_assigned_by_the_assignees_manager() -> None:
    story = company().when(register(region=None))
    refused(story.when(assign("per_c"), by="per_head"), reasons.NOT_MANAGER)
    story.when(assign("per_a"), by="per_head")
    assert isinstance(story.decided, d.OwnershipAssigned)
    assert story.decided.customer_territory is None


def test_somebody_of_no_territory_is_given_customers_by_administrators_alone() -> None:
    story = company().given(facts.PersonJoined("per_free", NAME)).when(register())
    refused(story.when(assign("per_free"), by="per_head"), reasons.OUTSIDE_TERRITORY)
    refused(story.when(assign("per_free"), by="per_boss"), reasons.OUTSIDE_TERRITORY)
    story.when(assign("per_free"), by="per_admin")
    assert isinstance(story.decided, d.OwnershipAssigned)


def test_a_stranger_has_no_powers() -> None:
    story = company().when(register())
    refused(story.when(assign(), by="per_stranger"), reasons.NOT_MANAGER)
    refused(story.when(change(closed=True), by="per_stranger"), reasons.NOT_OWNER)


def test_the_customers_manager_frees_it_from_an_owner_of_elsewhere() -> None:
    story = company(claim_scope="everywhere").when(register()).when(claim("per_c"))
    refused(story.when(r.ReleaseRequested("cus_1", "x"), by="per_b"), reasons.NOT_OWNER)
    story.when(r.ReleaseRequested("cus_1", "x"), by="per_deputy")
    story.then(d.OwnershipReleased("cus_1", "per_c", "x", "ter_east"))


def test_facts_count_from_the_request_behind_them_on() -> None:
    story = company().when(register("cus_1")).when(register("cus_2"))
    story.given(facts.PersonChanged("per_a", "ter_west", ("rep",)))
    refused(story.when(claim("per_a", "cus_1")), reasons.OUTSIDE_TERRITORY)
    story.given(facts.TerritoryDefined("ter_west", "华西", "ter_all", "per_a"))
    story.given(facts.PersonChanged("per_a", "ter_all", ("rep", "manager")))
    granted(story.when(claim("per_a", "cus_1")), "per_a", owner_territory="ter_all")


def test_a_policy_counts_from_the_request_behind_it_on() -> None:
    story = company(holding_limit=0).when(register())
    refused(story.when(claim("per_a")), reasons.HOLDING_LIMIT)
    assert story.draft is not None
    assert story.draft.policy == 1
    story.given(facts.PolicyAdopted(2, {"holding_limit": None}))
    granted(story.when(claim("per_a")), "per_a", customer_territory=None)
    assert story.draft.policy == 2


# --- which reason counts where several do -------------------------------------------------------


def obstacles() -> list[tuple[str, Any]]:
    """The reasons to refuse a claim, the strongest first, each with what takes it away."""
    reopen = change(closed=False)
    free = r.ReleaseRequested("cus_1", "done")
    home = facts.PersonChanged("per_a", "ter_east", ("rep",))
    return [
        (reasons.CUSTOMER_CLOSED, reopen),
        (reasons.CLAIMANT_LEFT, facts.PersonReturned("per_a", TODAY)),
        (reasons.OWNED_BY_ANOTHER, free),
        (reasons.OUTSIDE_TERRITORY, home),
        (reasons.COOLDOWN, facts.PolicyAdopted(2, rules(cooldown_days=0))),
        (reasons.HOLDING_LIMIT, facts.PolicyAdopted(3, rules(holding_limit=None))),
        (reasons.DAILY_LIMIT, facts.PolicyAdopted(4, rules(daily_claim_limit=None))),
    ]


def rules(**changed: Any) -> dict[str, Any]:
    """Later policies keep what an earlier one took away."""
    kept = {"holding_limit": 1, "daily_claim_limit": 1, "cooldown_days": 0}
    if "holding_limit" in changed or "daily_claim_limit" in changed:
        kept["holding_limit"] = None  # type: ignore[assignment]  # no limit
    return kept | changed


def test_of_several_reasons_the_first_is_given_and_the_others_wait_behind_it() -> None:
    story = company(holding_limit=1, daily_claim_limit=1, cooldown_days=3, claim_scope="subtree")
    for customer in ("cus_1", "cus_2"):
        story.when(register(customer))
    story.when(claim("per_a")).when(r.ReleaseRequested("cus_1", "done"), by="per_a")
    story.when(claim("per_b")).when(assign_other())
    story.when(change(closed=True)).given(facts.PersonChanged("per_a", "ter_west", ("rep",)))
    gone(story, "per_a")
    for reason, remedy in obstacles():
        refused(story.when(claim("per_a")), reason)
        if isinstance(remedy, r.CustomerChangeRequested | r.ReleaseRequested):
            story.when(remedy)
        else:
            story.given(remedy)
    granted(story.when(claim("per_a")), "per_a")


def assign_other() -> r.AssignmentRequested:
    return r.AssignmentRequested("cus_2", "per_a")
