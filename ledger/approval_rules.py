"""Approval rules: which steps a transfer, release or share needs, as data of a policy."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ledger.conditions import Condition
from ledger.events.values import Money

APPROVERS_MAX = 20
STEPS_MAX = 10
DEADLINE_DAYS_MAX = 365

Purpose = Literal["transfer", "release", "collaboration", "claim"]


class ApproverRule(BaseModel):
    """One who has to answer.

    ``head`` is the head of the ``releasing`` territory (the owner's, else the customer's), of the
    ``receiving`` one (the receiver's or claimant's) or of the ``customer``'s; ``common_head`` that
    of the nearest territory above the first two. ``role`` means anybody who has it, ``person`` a
    named one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["owner", "receiver", "head", "common_head", "role", "person"]
    of: Literal["releasing", "receiving", "customer"] = "releasing"
    role: str | None = None
    person: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> ApproverRule:
        if (self.kind == "role") != (self.role is not None):
            raise ValueError("role is named for the kind role, and for no other")
        if (self.kind == "person") != (self.person is not None):
            raise ValueError("person is named for the kind person, and for no other")
        return self


class StepRule(BaseModel):
    """A step: ``needed`` of its approvers must agree (``all``, ``any``, or a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: Annotated[tuple[ApproverRule, ...], Field(min_length=1, max_length=APPROVERS_MAX)]
    needed: Literal["all", "any"] | Annotated[int, Field(ge=1, strict=True)] = "all"

    @model_validator(mode="after")
    def _can_be_met(self) -> StepRule:
        if isinstance(self.needed, int) and self.needed > len(self.approvers):
            raise ValueError("more approvers are needed than there are")
        return self


class AmountAtLeast(BaseModel):
    """A bound of the deal value; another currency never reaches it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[Decimal, Field(max_digits=20, decimal_places=6, allow_inf_nan=False)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]

    def is_reached(self, value: Money | None) -> bool:
        """Say whether ``value`` is of this currency, and as much."""
        return value is not None and value.currency == self.currency and value.amount >= self.amount


class ApprovalRule(BaseModel):
    """Adds its steps where all that it names holds.

    The purpose ``collaboration`` is a share of the credit above the policy's; its receiver is who
    collaborates. That of ``claim`` is a claim from outside the customer's territory, or in a group
    that others own, where the policy lets such a one await approval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    purposes: Annotated[tuple[Purpose, ...], Field(min_length=1)] = ("transfer",)
    territories: Literal["same", "different", "any"] = "any"
    conditions: tuple[Condition, ...] = ()
    value_at_least: AmountAtLeast | None = None
    steps: Annotated[tuple[StepRule, ...], Field(min_length=1, max_length=STEPS_MAX)]


class ApprovalDeadlines(BaseModel):
    """What becomes of a step that nobody answers; None: never.

    Calendar days of the organisation, as reminders are counted in the CRMs that have them. A step
    is reminded ``remind_days`` after it was opened. From then on the rest up to ``pass_on_days``
    must go by before it is passed on upwards, where it all begins anew. ``expire_days`` after the
    opening of the whole it expires, but no reminder and no passing on is cut short by that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Two days before a deadline is when open CRMs remind.
    remind_days: int | None = Field(default=2, ge=1, le=DEADLINE_DAYS_MAX, strict=True)
    pass_on_days: int | None = Field(default=4, ge=1, le=DEADLINE_DAYS_MAX, strict=True)
    # A step that was passed on twice in vain: the owner shall know within a fortnight.
    expire_days: int | None = Field(default=14, ge=1, le=DEADLINE_DAYS_MAX, strict=True)

    @model_validator(mode="after")
    def _reminds_first(self) -> ApprovalDeadlines:
        if self.pass_on_days is not None and self.pass_on_days <= (self.remind_days or 0):
            raise ValueError("pass_on_days must be more than remind_days")
        return self

    @property
    def patience_days(self) -> int:
        """How long a reminder runs before anything else happens."""
        if self.pass_on_days is None:
            return self.remind_days or 0
        return self.pass_on_days - (self.remind_days or 0)


def default_rules() -> tuple[ApprovalRule, ...]:
    """Return what a policy asks for that says nothing else.

    Inside one territory its head, across two the releasing head and then the receiving one; for
    key customers (of the grade ``key``) also the head above both, and the head before they are
    released; and the receiver accepts. A collaborator gets more of the credit than the policy
    allows by the head of the owner's territory. A claim from outside the customer's territory
    needs its head, and then the head of the claimant's.
    """
    key = (Condition(attribute="grade", operator="is", value="key"),)
    head = ApproverRule(kind="head")
    return (
        ApprovalRule(territories="same", steps=(_of(head),)),
        ApprovalRule(
            territories="different",
            steps=(_of(head), _of(ApproverRule(kind="head", of="receiving"))),
        ),
        ApprovalRule(conditions=key, steps=(_of(ApproverRule(kind="common_head")),)),
        ApprovalRule(steps=(_of(ApproverRule(kind="receiver")),)),
        ApprovalRule(purposes=("release",), conditions=key, steps=(_of(head),)),
        ApprovalRule(purposes=("collaboration",), steps=(_of(head),)),
        ApprovalRule(purposes=("claim",), steps=(_of(ApproverRule(kind="head", of="customer")),)),
        ApprovalRule(
            purposes=("claim",),
            territories="different",
            steps=(_of(ApproverRule(kind="head", of="receiving")),),
        ),
    )


def _of(approver: ApproverRule) -> StepRule:
    return StepRule(approvers=(approver,))
