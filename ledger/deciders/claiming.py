"""Claims: granted, refused, or, where only territory or group is in the way, awaiting approval.

A claim that awaits approval holds nothing: whoever may claim the customer meanwhile gets it, and
what waited is void. Its last answer brings the ownership, if nothing else is in the way by then.
"""

from __future__ import annotations

from collections.abc import Iterator

from ledger import approving, reasons
from ledger.approval_steps import Cause, steps_of
from ledger.approving import Approval
from ledger.customer import Admitted, Held
from ledger.deciders.opening import lacks_an_approver, opening
from ledger.deciders.situations import (
    Obstacle,
    Situation,
    has_gone,
    limits,
    protected_until,
    territory_of,
)
from ledger.events import decisions, requests
from ledger.organisation import Person

Decisions = tuple[decisions.Decision, ...]
# What an approval may allow all the same.
_WAIVED = frozenset({reasons.OUTSIDE_TERRITORY, reasons.GROUP_OF_ANOTHER})


def decide_claim(
    situation: Situation, request: requests.ClaimFiled, guards: dict[str, int]
) -> Decisions:
    """Grant a claim, open the approval that it needs, or refuse it for the first reason."""
    customer, claimant = situation.customer, request.claimant
    person = situation.organisation.person(claimant)
    if isinstance(customer, Admitted) and person is not None:
        found = _claimed(situation, customer, person, guards)
        if not isinstance(found, Obstacle):
            return found
        obstacle = found
    elif person is None:
        obstacle = Obstacle(reasons.CLAIMANT_UNKNOWN)
    else:
        obstacle = Obstacle(reasons.CUSTOMER_NOT_ADMITTED)
    owner = customer.owner if isinstance(customer, Admitted) else None
    refused = decisions.ClaimRefused(
        situation.customer_id, claimant, obstacle.reason, owner, obstacle.retry_at
    )
    return (refused,)


def _claimed(
    situation: Situation, customer: Admitted, person: Person, guards: dict[str, int]
) -> Decisions | Obstacle:
    obstacle = _obstacle(situation, customer, person)
    if obstacle is not None:
        return obstacle
    limit = next(limits(situation, situation.policy, customer, person, guards), None)
    if limit is None:
        return (_grant(situation, customer, person, guards),)
    if limit.reason in _may_await(situation):
        return _awaiting(situation, customer, person, limit, guards)
    return limit


def _may_await(situation: Situation) -> frozenset[str]:
    """Return the reasons for which a claim awaits approval, by the policy, and is not refused."""
    policy, found = situation.policy, set[str]()
    if situation.version >= 2 and policy.claims_may_await:
        found.add(reasons.OUTSIDE_TERRITORY)
    if policy.claims_in_others_groups == "await":
        found.add(reasons.GROUP_OF_ANOTHER)
    return frozenset(found)


def _obstacle(situation: Situation, customer: Admitted, person: Person) -> Obstacle | None:
    """Return what no policy waives."""
    if situation.out_of_order:
        return Obstacle(reasons.HISTORY_OUT_OF_ORDER)
    if customer.closed:
        return Obstacle(reasons.CUSTOMER_CLOSED)
    if has_gone(situation, person):
        return Obstacle(reasons.CLAIMANT_LEFT)
    if customer.owner == person.person:
        return Obstacle(reasons.ALREADY_YOURS)
    if isinstance(customer.tenure, Held):
        return Obstacle(reasons.OWNED_BY_ANOTHER)
    return None


def _grant(
    situation: Situation,
    customer: Admitted,
    person: Person,
    guards: dict[str, int],
    approval: str | None = None,
) -> decisions.OwnershipGranted:
    waived: tuple[str, ...] = ()
    if situation.opened_import is not None:
        today = situation.organisation.policy.policy
        waived = tuple(
            dict.fromkeys(
                obstacle.reason for obstacle in limits(situation, today, customer, person, guards)
            )
        )
    return decisions.OwnershipGranted(
        situation.customer_id,
        person.person,
        person.territory,
        territory_of(situation, customer),
        protected_until(situation),
        waived,
        True if situation.is_opening else None,
        approval,
    )


# --- that await approval -----------------------------------------------------------------------


def _awaiting(
    situation: Situation,
    customer: Admitted,
    person: Person,
    outside: Obstacle,
    guards: dict[str, int],
) -> Decisions | Obstacle:
    """Return the opening of a claim in whose way only ``outside`` stands, else what else does.

    What else may await approval by the policy does so with it.
    """
    waived = _may_await(situation)
    other = next(_other_limits(situation, customer, person, guards, waived), None)
    if other is not None:
        return other
    territory = territory_of(situation, customer)
    cause = Cause(
        "claim",
        customer.attributes,
        territory,
        None,
        territory,
        person.person,
        person.territory,
    )
    organisation, requester = situation.organisation, situation.request.actor
    steps = steps_of(
        situation.policy.approval_rules, cause, requester, organisation, situation.version
    )
    if not steps:
        return outside  # what nobody approves is not allowed
    if customer.approval is not None:
        return Obstacle(reasons.APPROVAL_OPEN)
    approval = Approval(
        # A claim has no id of its own; of one request there is one approval at most.
        f"apr_{situation.request.position}",
        approving.CLAIM,
        requester,
        None,
        person.person,
        situation.effective,
        situation.effective,
        approving.begun(steps),
        "claim",
    )
    if lacks_an_approver(situation, approval):
        return Obstacle(reasons.NO_APPROVER)
    return (opening(situation, approval),)


def _other_limits(
    situation: Situation,
    customer: Admitted,
    person: Person,
    guards: dict[str, int],
    waived: frozenset[str] = _WAIVED,
) -> Iterator[Obstacle]:
    found = limits(situation, situation.policy, customer, person, guards)
    return (each for each in found if each.reason not in waived)


def completed(
    situation: Situation, customer: Admitted, approval: Approval, guards: dict[str, int]
) -> Decisions:
    """Return the grant of a claim that was approved, or why it is void by now."""
    person = situation.organisation.person(approval.receiver or "")
    if person is None:
        raise AssertionError("a claimant was known when the claim was opened")
    name = approval.approval
    obstacle = _obstacle(situation, customer, person)
    if obstacle is None:
        obstacle = next(_other_limits(situation, customer, person, guards), None)
    if obstacle is not None:
        closed = decisions.ApprovalClosed(situation.customer_id, name, "void", obstacle.reason)
        return (closed,)
    granted = _grant(situation, customer, person, guards, name)
    return (granted, decisions.ApprovalClosed(situation.customer_id, name, "completed"))


def who_asked(approval: Approval) -> tuple[str | None, ...]:
    """Return who may withdraw it: who asked for it, and whom a claim was filed for."""
    if approval.purpose == approving.CLAIM:
        return (approval.requester, approval.receiver)
    return (approval.requester,)
