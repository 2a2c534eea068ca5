"""Recycling rules: which customers go back to the pool that nobody works, as data of a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ledger.conditions import Condition
from ledger.events.values import Attribute

RECYCLE_DAYS_MAX = 3_650
RULES_MAX = 50
WARNINGS_MAX = 5
WON_DEALS_MAX = 1_000
TOKEN_MINUTES_MAX = 24 * 60

Days = Annotated[int, Field(ge=1, le=RECYCLE_DAYS_MAX, strict=True)]


class RecycleWarning(BaseModel):
    """Who is told so many days before the customer goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days_before: Days
    to: Annotated[tuple[Literal["owner", "head"], ...], Field(min_length=1)]


class RecycleRule(BaseModel):
    """Figures for those customers that all it names holds for; with neither figure an exemption.

    ``won_deals_min`` holds for customers at which at least so many deals were won, by whomever.

    Days without a follow-up by the owner, and without a deal won by the owner, are each counted
    from the beginning of the ownership, or the last one since. An empty list of ``territories``
    means any; a territory stands for those below it as well. ``warnings`` are in place of those of
    the policy; None: the policy's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    territories: Annotated[tuple[str, ...], Field(max_length=200)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=20)] = ()
    won_deals_min: Annotated[int, Field(ge=1, le=WON_DEALS_MAX, strict=True)] | None = None
    follow_up_days: Days | None = None
    deal_days: Days | None = None
    # Left out where it says nothing, as in all policies from before there was any.
    warnings: Annotated[tuple[RecycleWarning, ...], Field(max_length=WARNINGS_MAX)] | None = Field(
        default=None, exclude_if=lambda warnings: warnings is None
    )

    @model_validator(mode="after")
    def _warns_of_something(self) -> RecycleRule:
        if self.warnings and self.follow_up_days is None and self.deal_days is None:
            raise ValueError("a rule without a figure recycles nothing that it could warn of")
        return self


class Recycling(BaseModel):
    """What is recycled, and who is warned before. Without rules nothing ever is.

    ``warnings`` hold for every rule that has none of its own.
    ``days`` says which days all figures count: calendar days of the organisation, or its working
    days (ledger/working_days.py). A hold is dated, so that its longest time is in calendar days.

    Open CRMs recycle after 5 days without a follow-up and 31 without a deal (others 31 and 3), and
    remind 2 days before or afterwards only; sales teams ask for steps, the owner first and then the
    head. So the warnings have defaults, and the figures have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # The first rule that matches counts.
    rules: Annotated[tuple[RecycleRule, ...], Field(max_length=RULES_MAX)] = ()
    warnings: Annotated[tuple[RecycleWarning, ...], Field(max_length=WARNINGS_MAX)] = (
        RecycleWarning(days_before=3, to=("owner",)),
        RecycleWarning(days_before=1, to=("owner", "head")),
    )
    days: Literal["calendar", "working"] = "calendar"
    # A follow-up within so many minutes of the last one by the same person resets nothing, no more
    # than the same note again. Asked for since version 2 of the decider.
    token_follow_up_minutes: Annotated[int, Field(ge=0, le=TOKEN_MINUTES_MAX, strict=True)] = 10
    # A head's hold lasts at most so many days: a quarter.
    hold_days_max: Days = 92

    @model_validator(mode="after")
    def _warns_in_steps(self) -> Recycling:
        _must_come_in_steps(self.warnings)
        for rule in self.rules:
            warnings = self.warnings_of(rule)
            _must_come_in_steps(warnings)
            figures = [days for days in (rule.follow_up_days, rule.deal_days) if days is not None]
            if warnings and figures and min(figures) <= warnings[0].days_before:
                raise ValueError("every figure must be more than the days of the first warning")
        return self

    def warnings_of(self, rule: RecycleRule) -> tuple[RecycleWarning, ...]:
        """Return who is warned of what a rule recycles: as it says itself, else as all are."""
        return self.warnings if rule.warnings is None else rule.warnings

    def rule_for(
        self,
        territory: str | None,
        attributes: Mapping[str, Attribute],
        won_deals: int,
        is_within: Callable[[str | None, str], bool],
    ) -> RecycleRule | None:
        """Return the rule for a customer with so many won deals; None where none matches."""
        for rule in self.rules:
            is_there = not rule.territories or any(
                is_within(territory, each) for each in rule.territories
            )
            has_won = rule.won_deals_min is None or won_deals >= rule.won_deals_min
            if not (is_there and has_won):
                continue
            if all(condition.matches(attributes) for condition in rule.conditions):
                return rule
        return None


def _must_come_in_steps(warnings: tuple[RecycleWarning, ...]) -> None:
    if any(later.days_before >= earlier.days_before for earlier, later in pairwise(warnings)):
        raise ValueError("each warning must come later than the one before it")
