"""Policies: the limits and territory rules of an organisation, as versioned data.

The defaults are those that open Chinese CRMs ship with, or the stricter of two; where a figure
comes from stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ledger.events.values import Attribute

# A century: periods are added to moments, which end with the year 9999.
DAYS_MAX = 36_500
# A quarter: for so long, and no longer, is it remembered whose a customer was at any moment.
LATE_FOLLOW_UP_DAYS_MAX = 92

Operator = Literal["is", "is_not", "one_of", "contains", "at_least", "at_most", "starts_with"]


class Condition(BaseModel):
    """One predicate over a customer's attributes; an absent attribute never matches.

    ``is``, ``is_not``, ``one_of``, ``starts_with`` compare text, and never match a set, which
    ``contains`` asks;
    ``at_least`` and ``at_most`` compare integers, decimals, amounts of money and dates.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: str
    operator: Operator
    value: str | tuple[str, ...]

    @model_validator(mode="after")
    def _fits(self) -> Condition:
        if (self.operator == "one_of") != isinstance(self.value, tuple):
            raise ValueError("one_of takes a list of values, every other operator a single one")
        if self.operator in {"at_least", "at_most"} and not _is_bound(str(self.value)):
            raise ValueError(f"{self.operator} takes a number, or a date such as 2026-03-01")
        return self

    def matches(self, attributes: Mapping[str, Attribute]) -> bool:
        """Say whether ``attributes`` satisfy the condition."""
        found = attributes.get(self.attribute)
        if found is None:
            return False
        if self.operator == "contains":
            held = found.get("set") if isinstance(found, dict) else None
            return isinstance(held, list) and self.value in held
        if isinstance(found, dict) and "set" in found:
            return False
        text = _plain(found)
        if not isinstance(self.value, str):
            return text in self.value
        if self.operator == "is":
            return text == self.value
        if self.operator == "is_not":
            return text != self.value
        if self.operator == "starts_with":
            return text.startswith(self.value)
        ordering = _compare(found, self.value)
        if ordering is None:
            return False
        return ordering >= 0 if self.operator == "at_least" else ordering <= 0


def _plain(found: Attribute) -> str:
    if isinstance(found, dict):
        ((_, inner),) = found.items()
        return str(inner["amount"]) if isinstance(inner, dict) else str(inner)
    return str(found)


def _is_bound(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return _number(text) is not None
    return True


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return None if number.is_nan() else number


def _compare(found: Attribute, bound: str) -> int | None:
    """Return -1, 0 or 1 as ``found`` is below, at or above ``bound``; None where neither."""
    if isinstance(found, dict) and "date" in found:
        try:
            mine, other = date.fromisoformat(_plain(found)), date.fromisoformat(bound)
        except ValueError:
            return None
        return (mine > other) - (mine < other)
    number, limit = _number(_plain(found)), _number(bound)
    if number is None or limit is None:
        return None
    return (number > limit) - (number < limit)


class TerritoryRule(BaseModel):
    """Customers that match all conditions belong to ``territory``; the first such rule counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    territory: str
    conditions: tuple[Condition, ...] = Field(min_length=1)


class Policy(BaseModel):
    """The rules in force. None means: no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # 999 customers is the seed of the most used open CRM.
    holding_limit: int | None = Field(default=999, ge=0)
    won_customers_count: bool = True
    # Against mass claiming of the pool (OWASP API6); counts grants of the local day, so that
    # claim-and-release does not bypass it.
    daily_claim_limit: int | None = Field(default=50, ge=0)
    cooldown_days: int = Field(default=3, ge=0, le=DAYS_MAX)
    protection_days: int = Field(default=30, ge=0, le=DAYS_MAX)
    claim_scope: Literal["own_territory", "subtree", "everywhere"] = "subtree"
    territory_rules: tuple[TerritoryRule, ...] = ()
    # Who may change an attribute that a territory rule reads, or the territory itself.
    guarded_changes_by: Literal["head", "manager", "anyone"] = "head"
    # A follow-up entered at most so many days late is judged by who owned the customer when it
    # happened; one that is entered later, by who owns it now.
    late_follow_up_days: int = Field(default=7, ge=0, le=LATE_FOLLOW_UP_DAYS_MAX)

    @cached_property
    def guarded_attributes(self) -> frozenset[str]:
        """The attributes that this policy reads."""
        return frozenset(
            condition.attribute for rule in self.territory_rules for condition in rule.conditions
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
            "guarded_changes_by": "anyone",
        }
    )
