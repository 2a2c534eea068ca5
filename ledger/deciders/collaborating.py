"""Collaborations: added, asked for, answered, ended.

What the owner or a head asks for holds at once; what others ask for awaits the answer of either,
and a larger share than the policy allows the steps of its rules besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from ledger import approving, reasons
from ledger.approval_steps import Cause, left_by, releasing_territory, steps_of
from ledger.approving import Approval
from ledger.collaborating import (
    Collaboration,
    Collaborations,
    awaiting,
    largest_sum,
    of,
    standing,
    wanted,
)
from ledger.customer import Admitted
from ledger.deciders import orphaned
from ledger.deciders.opening import lacks_an_approver, opening
from ledger.deciders.situations import (
    Situation,
    acts_as_owner,
    heads_customer,
    is_admin,
    may_take_part,
    territory_of,
)
from ledger.events import decisions, requests
from ledger.events.values import ApprovalStep, Approver, Part
from ledger.organisation import Person

Decisions = tuple[decisions.Decision, ...]
WHOLE = Decimal(100)


# --- beginning ---------------------------------------------------------------------------------


def decide_collaboration(
    situation: Situation, request: requests.CollaborationRequested
) -> Decisions:
    """Let somebody collaborate, open what has to be answered first, or refuse it."""
    customer = situation.customer
    person = situation.organisation.person(request.person)
    if not isinstance(customer, Admitted):
        return _refused(situation, request, reasons.CUSTOMER_NOT_ADMITTED)
    if person is None:
        return _refused(situation, request, reasons.CLAIMANT_UNKNOWN)
    new = wanted(request, situation.effective, situation.organisation)
    problem = _door_problem(situation, customer, person, new)
    if problem is not None:
        return _refused(situation, request, problem)
    needs_more = _needs_approval(situation, customer, new)
    more = _rule_steps(situation, customer, person) if needs_more else ()
    if needs_more and not more:
        return _refused(situation, request, reasons.SHARE_NEEDS_APPROVAL)
    more = orphaned.left_open(situation, customer, more, person.person)
    steps = (*_own_steps(situation, customer, new, alone=not more), *more)
    if not steps:
        return (_added(situation, new),)
    approval = _approval(situation, customer, new, steps, request.reason_code)
    if lacks_an_approver(situation, approval):
        return _refused(situation, request, reasons.NO_APPROVER)
    return (opening(situation, approval),)


def _refused(
    situation: Situation, request: requests.CollaborationRequested, reason: str
) -> Decisions:
    customer = situation.customer
    return (
        decisions.CollaborationRefused(
            situation.customer_id,
            request.collaboration,
            reason,
            request.person,
            customer.owner if isinstance(customer, Admitted) else None,
        ),
    )


def _door_problem(
    situation: Situation, customer: Admitted, person: Person, new: Collaboration
) -> str | None:
    if situation.out_of_order:
        return reasons.HISTORY_OUT_OF_ORDER
    if customer.owner is None:
        return reasons.NOT_OWNED
    if customer.owner == person.person:
        return reasons.ALREADY_YOURS
    if new.site is not None and new.site not in customer.sites:
        return reasons.SITE_UNKNOWN
    there = (
        *standing(customer.collaborations, situation.effective),
        *awaiting(customer.collaborations),
    )
    if any((each.person, each.site) == (new.person, new.site) for each in there):
        return reasons.ALREADY_COLLABORATES
    if len(there) >= situation.policy.collaborators_max:
        return reasons.COLLABORATORS_LIMIT
    return _problem(situation, customer, person, new)


def _problem(
    situation: Situation, customer: Admitted, person: Person, new: Collaboration
) -> str | None:
    """Return what keeps a collaboration from beginning: asked at the door, and at the end."""
    if customer.closed:
        return reasons.CUSTOMER_CLOSED
    if not may_take_part(situation, person):
        return reasons.CLAIMANT_LEFT
    if new.until is not None and new.until <= new.since:
        return reasons.PERIOD_OVER
    if new.share is not None:
        beside = standing(customer.collaborations, situation.effective)
        if largest_sum(beside, new) > WHOLE:
            return reasons.SHARES_EXCEEDED
    return None


def _needs_approval(situation: Situation, customer: Admitted, new: Collaboration) -> bool:
    """Say whether somebody would have more of the credit than the policy allows by itself.

    All counts that a person has, or has asked for, at the customer: else a large share would be had
    in pieces.
    """
    limit = situation.policy.collaborator_share_max
    if new.share is None or limit is None:
        return False
    theirs = (
        replace(each, approval=None)
        for each in customer.collaborations
        if each.person == new.person
    )
    return largest_sum(theirs, new) > limit


def _own_steps(
    situation: Situation, customer: Admitted, new: Collaboration, *, alone: bool
) -> tuple[ApprovalStep, ...]:
    """Return the step of the owner or the head; none where one of them asks for somebody else."""
    actor = situation.request.actor
    if new.person != actor and may_settle(situation, customer):
        return ()
    approvers = [Approver("owner", person=customer.owner)]
    if alone:  # else the head is asked by the policy's own steps, and nobody fills two
        approvers.append(Approver("head", territory=_releasing(situation, customer)))
    return (ApprovalStep(tuple(approvers), 1),)


def _rule_steps(
    situation: Situation, customer: Admitted, person: Person
) -> tuple[ApprovalStep, ...]:
    cause = Cause(
        "collaboration",
        customer.attributes,
        territory_of(situation, customer),
        customer.owner or "",
        _releasing(situation, customer),
        person.person,
        person.territory,
    )
    rules = situation.policy.approval_rules
    return steps_of(
        rules, cause, situation.request.actor, situation.organisation, situation.version
    )


def _releasing(situation: Situation, customer: Admitted) -> str | None:
    owner = situation.organisation.person(customer.owner) if customer.owner else None
    return releasing_territory(owner, territory_of(situation, customer))


def may_settle(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor is or acts as the owner, is a head over either, or an administrator."""
    is_owner = situation.request.actor == customer.owner
    if is_owner or heads_customer(situation, customer) or is_admin(situation):
        return True
    return acts_as_owner(situation, customer)


def _approval(
    situation: Situation,
    customer: Admitted,
    new: Collaboration,
    steps: tuple[ApprovalStep, ...],
    reason_code: str,
) -> Approval:
    return Approval(
        new.collaboration,
        approving.COLLABORATION,
        situation.request.actor,
        customer.owner or "",
        new.person,
        situation.effective,
        situation.effective,
        approving.begun(steps),
        reason_code,
    )


def _added(situation: Situation, new: Collaboration) -> decisions.CollaboratorAdded:
    return decisions.CollaboratorAdded(
        situation.customer_id,
        new.collaboration,
        new.person,
        new.role,
        max(new.since, situation.effective),
        new.until,
        new.share,
        new.site,
    )


def completed(situation: Situation, customer: Admitted, approval: Approval) -> Decisions:
    """Return the beginning that was approved, or why it is void by now."""
    asked = of(customer.collaborations, approval.approval)
    person = situation.organisation.person(approval.receiver or "")
    if asked is None or person is None:
        raise AssertionError("what awaits an answer is remembered")
    new = replace(asked, since=max(asked.since, situation.effective), approval=None)
    problem = _problem(situation, customer, person, new)
    if problem is not None:
        return (_closed(situation, new.collaboration, "void", problem),)
    return (_added(situation, new), _closed(situation, new.collaboration, "completed"))


def _closed(
    situation: Situation, collaboration: str, outcome: str, reason: str | None = None
) -> decisions.ApprovalClosed:
    return decisions.ApprovalClosed(situation.customer_id, collaboration, outcome, reason)


# --- by a ruling -------------------------------------------------------------------------------


def by_ruling(
    situation: Situation, customer: Admitted, parts: Sequence[Part], parties: tuple[str, ...]
) -> Decisions | str:
    """Return what lets some of the ``parties`` of a conflict collaborate, or why one cannot.

    Whoever did before does so by the ruling's terms from now on. The ruling counts for the ruler's
    own steps; a share that takes more than these is not had by it.
    """
    there = customer
    brought: list[decisions.Decision] = []
    for number, part in enumerate(parts):
        person = situation.organisation.person(part.person)
        if person is None:
            raise AssertionError("parties of a conflict are known")
        over = tuple(
            each
            for each in _of(part.person, standing(there.collaborations, situation.effective))
            if each.site is None
        )
        left = tuple(each for each in there.collaborations if each not in over)
        there = there._replace(collaborations=left)
        name = f"col_{situation.request.position}_{number}"
        new = Collaboration(name, part.person, "split", situation.effective, share=part.share)
        problem = _door_problem(situation, there, person, new)
        if problem is None and _takes_more(situation, there, person, new, parties):
            problem = reasons.SHARE_NEEDS_APPROVAL
        if problem is not None:
            return problem
        brought += [_ended(situation, over, reasons.RULED_ON)] if over else []
        brought.append(_added(situation, new))
        there = there._replace(collaborations=(*there.collaborations, new))
    return tuple(brought)


def _takes_more(
    situation: Situation,
    customer: Admitted,
    person: Person,
    new: Collaboration,
    parties: tuple[str, ...],
) -> bool:
    """Say whether a share takes steps that are not the ruler's."""
    if not _needs_approval(situation, customer, new):
        return False
    steps = _rule_steps(situation, customer, person)
    if situation.version < 3:
        parties = (customer.owner or "", person.person)
    ruler, organisation = situation.request.actor, situation.organisation
    left = left_by(steps, ruler, parties, organisation, situation.day, situation.version)
    return not steps or bool(left)


# --- ending ------------------------------------------------------------------------------------


def decide_end(situation: Situation, request: requests.CollaborationEndRequested) -> Decisions:
    """End a collaboration, for the owner, a head, or whoever collaborates."""
    customer = situation.customer
    known = (
        of(customer.collaborations, request.collaboration)
        if isinstance(customer, Admitted)
        else None
    )
    if not isinstance(customer, Admitted) or known is None or known.approval is not None:
        reason = reasons.UNKNOWN_COLLABORATION
    elif situation.out_of_order:
        reason = reasons.HISTORY_OUT_OF_ORDER
    elif known.is_over(situation.effective):
        reason = reasons.COLLABORATION_ENDED
    elif known.person != situation.request.actor and not may_settle(situation, customer):
        reason = reasons.NOT_OWNER_OR_HEAD
    else:
        return (_ended(situation, (known,), request.reason_code),)
    refused = decisions.CollaborationRefused(
        situation.customer_id,
        request.collaboration,
        reason,
        known.person if known is not None else None,
        customer.owner if isinstance(customer, Admitted) else None,
    )
    return (refused,)


def _ended(
    situation: Situation, over: Collaborations, reason_code: str
) -> decisions.CollaborationsEnded:
    return decisions.CollaborationsEnded(
        situation.customer_id,
        tuple(each.collaboration for each in over),
        tuple(each.person for each in over),
        reason_code,
    )


def left_behind(situation: Situation, found: Decisions, *, all_end: bool = False) -> Decisions:
    """Return what becomes of the collaborations where ``found`` ends an ownership.

    With a release they end, and since version 3 where the customer is recycled: it was the owner
    whom they helped. With a transfer they stay, unless it says that they end, or ``all_end`` does;
    but the new owner's own ends, and what the former was asked is void.
    """
    customer = situation.customer
    if not isinstance(customer, Admitted) or not customer.collaborations:
        return ()
    there = standing(customer.collaborations, situation.effective)
    ending: Collaborations | None = None
    for each in found:
        is_recycled = isinstance(each, decisions.CustomerRecycled) and situation.version >= 3
        if isinstance(each, decisions.OwnershipReleased) or is_recycled:
            ending = there
        elif isinstance(each, decisions.OwnershipTransferred):
            all_go = all_end or _all_end(customer, each.approval, found)
            ending = there if all_go else _of(each.owner, there)
    if ending is None:
        return ()
    void = (
        _closed(situation, each.collaboration, "void", reasons.OWNERSHIP_CHANGED)
        for each in awaiting(customer.collaborations)
    )
    ended = (_ended(situation, ending, reasons.OWNERSHIP_CHANGED),) if ending else ()
    return (*ended, *void)


def _all_end(customer: Admitted, approval: str, found: Decisions) -> bool:
    """Say whether the transfer said so: one that was open, or needs no step and is just opened."""
    opened = [
        each
        for each in (customer.approval, *found)
        if isinstance(each, Approval | decisions.ApprovalOpened) and each.approval == approval
    ]
    return any(each.collaborators == "end" for each in opened)


def _of(person: str, collaborations: Collaborations) -> Collaborations:
    return tuple(each for each in collaborations if each.person == person)
