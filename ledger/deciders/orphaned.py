"""Orphaned customers: who acts as their owner, and the stand-ins that they name."""

from __future__ import annotations

from collections.abc import Sequence

from ledger import orphans, reasons, standing_in
from ledger.approval_steps import left_by
from ledger.customer import Admitted
from ledger.deciders.situations import (
    Situation,
    acts_as_owner,
    is_admin,
    late_moment,
    may_take_part,
    territory_of,
)
from ledger.events import decisions, requests
from ledger.events.values import ApprovalStep

Decisions = tuple[decisions.Decision, ...]
REPLACED = "replaced"


def left_open(
    situation: Situation,
    customer: Admitted,
    steps: Sequence[ApprovalStep],
    receiver: str | None = None,
) -> tuple[ApprovalStep, ...]:
    """Return the steps that are still open where the actor asks as the owner who has left would.

    The actor's own count as given; not where the actor is to receive the customer.
    """
    if not acts_as_owner(situation, customer):
        return tuple(steps)
    parties = [each for each in (customer.owner, receiver) if each is not None]
    actor, organisation = situation.request.actor, situation.organisation
    return left_by(steps, actor, parties, organisation, situation.day, situation.version)


def acted_for_owner(situation: Situation, person: str, owner: str | None) -> bool:
    """Say whether ``person`` did something for ``owner``, who then owned the customer.

    As a stand-in, or, where the owner had left, as the head who acts as the owner.
    """
    customer = situation.customer
    if not isinstance(customer, Admitted):
        raise AssertionError("whose it is was noted of a customer that is in the ledger")
    moment = late_moment(situation) or situation.effective
    if standing_in.stands_in(customer.stand_ins, person, moment):
        return True
    territory, organisation = territory_of(situation, customer), situation.organisation
    return situation.version >= 2 and orphans.acts_as_owner(
        person, owner, territory, organisation, organisation.day(moment)
    )


# --- stand-ins ---------------------------------------------------------------------------------


def decide_stand_in(situation: Situation, request: requests.StandInRequested) -> Decisions:
    """Name a stand-in at an orphaned customer, in place of the one that there may be."""
    customer = situation.customer
    if not isinstance(customer, Admitted):
        return _refused(situation, request, reasons.CUSTOMER_NOT_ADMITTED)
    if customer.owner is None:
        return _refused(situation, request, reasons.NOT_OWNED)
    problem = _problem(situation, customer, request)
    if problem is not None:
        return _refused(situation, request, problem, customer.owner)
    named = decisions.StandInNamed(
        situation.customer_id,
        request.stand_in,
        request.person,
        customer.owner,
        situation.request.actor,
        situation.organisation.start_of(request.until),
    )
    before = standing_in.standing(customer.stand_ins, situation.effective)
    over = () if before is None else (_ended(situation, before, REPLACED),)
    return (*over, named)


def _refused(
    situation: Situation,
    request: requests.StandInRequested,
    reason: str,
    owner: str | None = None,
) -> Decisions:
    customer, person = situation.customer_id, request.person
    return (decisions.StandInRefused(customer, request.stand_in, reason, person, owner),)


def _problem(
    situation: Situation, customer: Admitted, request: requests.StandInRequested
) -> str | None:
    """Return what stands in the way at a customer that somebody owns."""
    organisation, day = situation.organisation, situation.day
    person, until = organisation.person(request.person), organisation.start_of(request.until)
    longest = organisation.days_after(situation.effective, situation.policy.stand_in_days_max)
    if situation.out_of_order:
        return reasons.HISTORY_OUT_OF_ORDER
    if customer.closed:
        return reasons.CUSTOMER_CLOSED
    if not orphans.is_orphaned(customer.owner, organisation, day):
        return reasons.NOT_ORPHANED
    if not (acts_as_owner(situation, customer) or is_admin(situation)):
        return reasons.NOT_OWNER_OR_HEAD
    if person is None:
        return reasons.CLAIMANT_UNKNOWN
    if not may_take_part(situation, person):
        return reasons.CLAIMANT_LEFT
    if until <= situation.effective:
        return reasons.DAY_NOT_AHEAD
    return reasons.STAND_IN_TOO_LONG if until > longest else None


def decide_end(situation: Situation, request: requests.StandInEndRequested) -> Decisions:
    """End a stand-in before the day, for the head, an owner who is back, or who stands in."""
    customer = situation.customer
    known = (
        standing_in.standing(customer.stand_ins, situation.effective)
        if isinstance(customer, Admitted)
        else None
    )
    if not isinstance(customer, Admitted) or known is None or known.stand_in != request.stand_in:
        reason = reasons.UNKNOWN_STAND_IN
    elif situation.out_of_order:
        reason = reasons.HISTORY_OUT_OF_ORDER
    elif not (
        situation.request.actor in (known.person, customer.owner)
        or acts_as_owner(situation, customer)
        or is_admin(situation)
    ):
        reason = reasons.NOT_OWNER_OR_HEAD
    else:
        return (_ended(situation, known, request.reason_code),)
    refused = decisions.StandInRefused(
        situation.customer_id,
        request.stand_in,
        reason,
        known.person if known is not None else None,
        customer.owner if isinstance(customer, Admitted) else None,
    )
    return (refused,)


def _ended(
    situation: Situation, over: standing_in.StandIn, reason_code: str
) -> decisions.StandInEnded:
    return decisions.StandInEnded(situation.customer_id, over.stand_in, over.person, reason_code)
