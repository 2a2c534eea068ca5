"""Policies: the limits and territory rules of an organisation, as versioned data.

The defaults are those that open Chinese CRMs ship with, or the stricter of two; where a figure
comes from stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from ledger.approval_rules import ApprovalDeadlines, ApprovalRule, default_rules
from ledger.conditions import Condition
from ledger.events.values import Attribute
from ledger.recycling_rules import Recycling

# A century: periods are added to moments, which end with the year 9999.
DAYS_MAX = 36_500
# A quarter: for so long, and no longer, is it remembered whose a customer was at any moment.
LATE_FOLLOW_UP_DAYS_MAX = 92
COLLABORATORS_MAX = 50
CONFLICT_WINDOW_HOURS_MAX = 24 * 366

ConflictKind = Literal["competing_claims", "follow_up", "deal", "group", "identifier"]


class TerritoryRule(BaseModel):
    """Customers that match all conditions belong to ``territory``; the first such rule counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    territory: str
    conditions: tuple[Condition, ...] = Field(min_length=1)


class Policy(BaseModel):
    """The rules in force. None means: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # 999 customers is the seed of the most used open CRM.
    holding_limit: int | None = Field(default=999, ge=0, strict=True)
    won_customers_count: StrictBool = True
    # Against mass claiming of the pool (OWASP API6); counts grants of the local day, so that
    # claim-and-release does not bypass it.
    daily_claim_limit: int | None = Field(default=50, ge=0, strict=True)
    cooldown_days: int = Field(default=3, ge=0, le=DAYS_MAX, strict=True)
    protection_days: int = Field(default=30, ge=0, le=DAYS_MAX, strict=True)
    claim_scope: Literal["own_territory", "subtree", "everywhere"] = "subtree"
    # Whether a claim from outside that scope, in whose way nothing else stands, awaits the steps of
    # the rules for claims, instead of being refused.
    claims_may_await: StrictBool = False
    # The same of a customer in whose group only others own members, and no ruling lets the claimant
    # own some beside them. Known since version 3 of the decider.
    claims_in_others_groups: Literal["allow", "refuse", "await"] = "allow"
    territory_rules: tuple[TerritoryRule, ...] = ()
    # Who may change an attribute that a territory rule reads, or the territory itself.
    guarded_changes_by: Literal["head", "manager", "anyone"] = "head"
    # A follow-up entered at most so many days late is judged by who owned the customer when it
    # happened; one that is entered later, by who owns it now.
    late_follow_up_days: int = Field(default=7, ge=0, le=LATE_FOLLOW_UP_DAYS_MAX, strict=True)
    # Whose approval a transfer, release or larger share needs: the steps of all rules that match,
    # in order.
    approval_rules: tuple[ApprovalRule, ...] = Field(default_factory=default_rules, max_length=50)
    # When what awaits approval is reminded, passed on and given up.
    approval_deadlines: ApprovalDeadlines = ApprovalDeadlines()
    # Which customers go back to the pool that nobody works: none, unless rules say so.
    recycling: Recycling = Recycling()

    # The percentage of the credit that a collaborator may have without anybody's approval: whoever
    # is to have more than half of it had rather become the owner. None: any.
    collaborator_share_max: Decimal | None = Field(
        default=Decimal(50), ge=0, le=100, max_digits=5, decimal_places=2
    )
    # Who collaborates at one customer, or has asked to; all of them stand in its guard.
    collaborators_max: int = Field(default=20, ge=0, le=COLLABORATORS_MAX, strict=True)

    # For so many days a head may have somebody stand in for an owner who has left: a quarter, in
    # which the customer is to find an owner of its own.
    stand_in_days_max: int = Field(default=92, ge=1, le=DAYS_MAX, strict=True)

    # What counts as a conflict (撞单). Another claim does within so many hours of the grant: later
    # ones are no rivals, but late. The last two are known since version 2 of the decider.
    conflict_kinds: tuple[ConflictKind, ...] = (
        "competing_claims",
        "follow_up",
        "deal",
        "group",
        "identifier",
    )
    conflict_window_hours: int = Field(default=24, ge=0, le=CONFLICT_WINDOW_HOURS_MAX, strict=True)
    # An imported history would open one for each quarrel of the past. Only that it brings a
    # customer of somebody else's a second time is seen in any case, since version 3.
    conflicts_in_imports: StrictBool = False

    @model_validator(mode="after")
    def _has_steps_for_claims(self) -> Policy:
        has_steps = any("claim" in rule.purposes for rule in self.approval_rules)
        if self.claims_may_await and not has_steps:
            raise ValueError("claims_may_await needs an approval rule with the purpose claim")
        if self.claims_in_others_groups == "await" and not has_steps:
            raise ValueError("claims_in_others_groups: await needs a rule with the purpose claim")
        return self

    @cached_property
    def guarded_attributes(self) -> frozenset[str]:
        """The attributes that this policy reads."""
        return frozenset(
            condition.attribute
            for rules in (self.territory_rules, self.approval_rules, self.recycling.rules)
            for rule in rules
            for condition in rule.conditions
        )

    def territory_of(self, explicit: str | None, attributes: Mapping[str, Attribute]) -> str | None:
        """Return a customer's territory: the one named, else by the first rule, else None."""
        if explicit is not None:
            return explicit
        for rule in self.territory_rules:
            if all(condition.matches(attributes) for condition in rule.conditions):
                return rule.territory
        return None

    def as_rules(self) -> dict[str, Any]:
        """Return the JSON of this policy, as PolicyAdopted holds it."""
        return self.model_dump(mode="json")


def without_limits(policy: Policy) -> Policy:
    """Return ``policy`` as an import uses it by default: the same territories, and no limits."""
    return policy.model_copy(
        update={
            "holding_limit": None,
            "daily_claim_limit": None,
            "cooldown_days": 0,
            "protection_days": 0,
            "claim_scope": "everywhere",
            "claims_may_await": False,
            "claims_in_others_groups": "allow",
            "guarded_changes_by": "anyone",
            "approval_rules": (),
            "collaborator_share_max": None,
        }
    )
