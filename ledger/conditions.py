"""Conditions over a customer's attributes, as policies hold them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from ledger.events.values import Attribute

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
