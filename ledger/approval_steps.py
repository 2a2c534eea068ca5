"""From the approval rules in force to the steps of one cause. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ledger.approval_rules import ApprovalRule, ApproverRule, Purpose, StepRule
from ledger.approving import entitled, excluded
from ledger.events.values import ApprovalStep, Approver, Attribute, Money
from ledger.organisation import OrganisationAt, Person


@dataclass(frozen=True, slots=True)
class Cause:
    """What is to be approved, as far as the rules ask."""

    purpose: Purpose
    attributes: Mapping[str, Attribute]
    customer_territory: str | None
    owner: str | None
    releasing: str | None
    receiver: str | None = None
    receiving: str | None = None
    value: Money | None = None


def steps_of(
    rules: Sequence[ApprovalRule],
    cause: Cause,
    requester: str,
    organisation: OrganisationAt,
    version: int,
) -> tuple[ApprovalStep, ...]:
    """Return the steps of all rules that match, in their order.

    Whoever asks has agreed by asking: an owner's or receiver's own step is left out. So is that of
    an owner or receiver of whom there is none, such as the owner where a customer is claimed.
    """
    steps: list[ApprovalStep] = []
    for rule in rules:
        if not _matches(rule, cause):
            continue
        for step in rule.steps:
            approvers = tuple(_approvers(step.approvers, cause, requester, organisation))
            if not approvers:
                continue
            left_out = len(step.approvers) - len(approvers)
            absent = sum(_is_absent(each, cause) for each in step.approvers)
            needed = _still_needed(
                _needed(step), left_out - absent, absent, len(approvers), version
            )
            if needed > 0:
                steps.append(ApprovalStep(approvers, needed))
    return tuple(steps)


def _is_absent(rule: ApproverRule, cause: Cause) -> bool:
    """Say whether it is about an owner or receiver, and there is none."""
    absent = {"owner": cause.owner is None, "receiver": cause.receiver is None}
    return absent.get(rule.kind, False)


def _still_needed(needed: int, agreed: int, not_asked: int, left: int, version: int) -> int:
    """Return how many of the approvers ``left`` must agree, where ``agreed`` have already.

    Since version 3 of the decider whoever is not asked has not agreed, and is only not waited for.
    """
    if version < 3:
        return needed - agreed - not_asked
    return min(needed - agreed, left)


def _needed(step: StepRule) -> int:
    if step.needed == "all":
        return len(step.approvers)
    return 1 if step.needed == "any" else step.needed


def _matches(rule: ApprovalRule, cause: Cause) -> bool:
    same = cause.releasing == cause.receiving
    return (
        cause.purpose in rule.purposes
        and (rule.territories == "any" or (rule.territories == "same") == same)
        and all(condition.matches(cause.attributes) for condition in rule.conditions)
        and (rule.value_at_least is None or rule.value_at_least.is_reached(cause.value))
    )


def _approvers(
    rules: Sequence[ApproverRule], cause: Cause, requester: str, organisation: OrganisationAt
) -> Iterator[Approver]:
    for rule in rules:
        match rule.kind:
            case "owner":
                if cause.owner not in (None, requester):
                    yield Approver("owner", person=cause.owner)
            case "receiver":
                if cause.receiver not in (None, requester):
                    yield Approver("receiver", person=cause.receiver)
            case "head":
                yield Approver("head", territory=_territory(rule, cause))
            case "common_head":
                common = organisation.common(cause.releasing, cause.receiving)
                yield Approver("head", territory=common)
            case "role":
                yield Approver("role", role=rule.role)
            case _:
                yield Approver("person", person=rule.person)


def _territory(rule: ApproverRule, cause: Cause) -> str | None:
    if rule.of == "receiving":
        return cause.receiving
    return cause.releasing if rule.of == "releasing" else cause.customer_territory


def releasing_territory(owner: Person | None, customer_territory: str | None) -> str | None:
    """Return the territory that gives a customer up: the owner's, else the customer's."""
    return owner.territory if owner and owner.territory else customer_territory


def left_by(
    steps: Sequence[ApprovalStep],
    ruler: str,
    parties: Sequence[str],
    organisation: OrganisationAt,
    day: date,
    version: int,
) -> tuple[ApprovalStep, ...]:
    """Return the steps that a ruling leaves open: it counts for those that are the ruler's own.

    The owner is a party of what was ruled on, and is not asked.
    """
    barred = excluded(parties, frozenset(), organisation, day, version)
    left: list[ApprovalStep] = []
    for step in steps:
        asked = tuple(each for each in step.approvers if each.kind != "owner")
        others = tuple(
            each
            for each in asked
            if each.kind == "receiver" or ruler not in entitled(each, 0, barred, organisation, day)
        )
        agreed, owners = len(asked) - len(others), len(step.approvers) - len(asked)
        needed = _still_needed(step.needed, agreed, owners, len(others), version)
        if needed > 0:
            left.append(ApprovalStep(others, needed))
    return tuple(left)
