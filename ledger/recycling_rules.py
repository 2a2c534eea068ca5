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

Days = Annotated[int, Field(ge=1, le=RECYCLE_DAYS_MAX)]


class RecycleRule(BaseModel):
    """Figures for those customers that all it names holds for; with neither figure an exemption.

    ``won_deals_min`` holds for customers at which at least so many deals were won, by whomever.

    Days without a follow-up by the owner, and without a deal won by the owner, are each counted
    from the beginning of the ownership, or the last one since. An empty list of ``territories``
    means any; a territory stands for those below it as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    territories: Annotated[tuple[str, ...], Field(max_length=200)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=20)] = ()
    won_deals_min: Annotated[int, Field(ge=1, le=WON_DEALS_MAX)] | None = None
    follow_up_days: Days | None = None
    deal_days: Days | None = None


class RecycleWarning(BaseModel):
    """Who is told so many days before the customer goes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days_before: Days
    to: Annotated[tuple[Literal["owner", "head"], ...], Field(min_length=1)]


class Recycling(BaseModel):
    """What is recycled, and who is warned before. Without rules nothing ever is.

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
    token_follow_up_minutes: Annotated[int, Field(ge=0, le=TOKEN_MINUTES_MAX)] = 10
    # A head's hold lasts at most so many days: a quarter.
    hold_days_max: Days = 92

    @model_validator(mode="after")
    def _warns_in_steps(self) -> Recycling:
        before = [each.days_before for each in self.warnings]
        if any(later >= earlier for earlier, later in pairwise(before)):
            raise ValueError("each warning must come later than the one before it")
        figures = [
            days
            for rule in self.rules
            for days in (rule.follow_up_days, rule.deal_days)
            if days is not None
        ]
        if before and figures and min(figures) <= before[0]:
            raise ValueError("every figure must be more than the days of the first warning")
        return self

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
