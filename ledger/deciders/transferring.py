"""Transfers, and what else needs approval: opened, answered, closed.

An approval keeps the steps with which it was opened. Its last answer brings what it was for, or,
where that is no longer possible, closes it as void.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import approving, reasons
from ledger.approval_steps import Cause, left_by, releasing_territory, steps_of
from ledger.approving import Answer, Approval
from ledger.customer import Admitted, Held, open_approval
from ledger.deciders import claiming, collaborating, orphaned
from ledger.deciders.opening import lacks_an_approver, opening
from ledger.deciders.situations import (
    Obstacle,
    Situation,
    acts_as_owner,
    has_actor_gone,
    has_gone,
    heads_customer,
    held_towards_limit,
    protected_until,
    territory_of,
)
from ledger.events import decisions, requests
from ledger.organisation import Person

Decisions = tuple[decisions.Decision, ...]


# --- opening -----------------------------------------------------------------------------------


def decide_transfer(
    situation: Situation, request: requests.TransferRequested, guards: dict[str, int]
) -> Decisions:
    """Open a transfer with its steps, or refuse it at the door for the first reason."""
    customer = situation.customer
    receiver = situation.organisation.person(request.receiver)
    if not isinstance(customer, Admitted):
        obstacle = Obstacle(reasons.CUSTOMER_NOT_ADMITTED)
    elif receiver is None:
        obstacle = Obstacle(reasons.CLAIMANT_UNKNOWN)
    elif not isinstance(customer.tenure, Held):
        obstacle = Obstacle(reasons.NOT_OWNED)
    else:
        found = _transfer_obstacle(situation, customer, customer.tenure, receiver, guards)
        if found is None:
            approval = _transfer(situation, customer, customer.tenure.owner, receiver, request)
            if not lacks_an_approver(situation, approval):
                return _opened(situation, customer, approval, guards)
            found = Obstacle(reasons.NO_APPROVER)
        obstacle = found
    refused = decisions.TransferRefused(
        situation.customer_id,
        request.transfer,
        request.receiver,
        obstacle.reason,
        customer.owner if isinstance(customer, Admitted) else None,
        obstacle.retry_at,
    )
    return (refused,)


def _transfer_obstacle(
    situation: Situation,
    customer: Admitted,
    tenure: Held,
    receiver: Person,
    guards: dict[str, int],
) -> Obstacle | None:
    if situation.out_of_order:
        return Obstacle(reasons.HISTORY_OUT_OF_ORDER)
    if has_actor_gone(situation):
        return Obstacle(reasons.REQUESTER_LEFT)
    if customer.closed:
        return Obstacle(reasons.CUSTOMER_CLOSED)
    if tenure.owner == receiver.person:
        return Obstacle(reasons.ALREADY_YOURS)
    if customer.approval is not None:
        return Obstacle(reasons.APPROVAL_OPEN)
    # Protection is against others: neither the owner nor the head asks against it.
    is_theirs = situation.request.actor == tenure.owner or heads_customer(situation, customer)
    until = tenure.protected_until
    if (
        until is not None
        and situation.effective < until
        and not (is_theirs or acts_as_owner(situation, customer))
    ):
        return Obstacle(reasons.PROTECTED, until)
    return _receiver_obstacle(situation, receiver, guards)


def _receiver_obstacle(
    situation: Situation, receiver: Person, guards: dict[str, int]
) -> Obstacle | None:
    """Return what keeps a person from receiving: asked at the door, and again at the end."""
    if has_gone(situation, receiver):
        return Obstacle(reasons.CLAIMANT_LEFT)
    limit = situation.policy.holding_limit
    held = held_towards_limit(situation.settled, situation.policy, receiver.person, guards)
    if limit is not None and held >= limit:
        return Obstacle(reasons.HOLDING_LIMIT)
    return None


def _transfer(
    situation: Situation,
    customer: Admitted,
    owner: str,
    receiver: Person,
    request: requests.TransferRequested,
) -> Approval:
    organisation, territory = situation.organisation, territory_of(situation, customer)
    cause = Cause(
        "transfer",
        customer.attributes,
        territory,
        owner,
        releasing_territory(organisation.person(owner), territory),
        receiver.person,
        receiver.territory,
        request.value,
    )
    approval = _approval(situation, cause, request.transfer, request.reason_code)
    return replace(approval, collaborators=request.collaborators)


def _approval(situation: Situation, cause: Cause, approval: str, reason_code: str) -> Approval:
    requester, customer = situation.request.actor, situation.customer
    steps = steps_of(
        situation.policy.approval_rules,
        cause,
        requester,
        situation.organisation,
        situation.version,
    )
    if not isinstance(customer, Admitted):
        raise AssertionError("only the ownership of a customer in the ledger awaits approval")
    steps = orphaned.left_open(situation, customer, steps, cause.receiver)
    return Approval(
        approval,
        cause.purpose,
        requester,
        cause.owner,
        cause.receiver,
        situation.effective,
        situation.effective,
        approving.begun(steps),
        reason_code,
    )


def _opened(
    situation: Situation, customer: Admitted, approval: Approval, guards: dict[str, int]
) -> Decisions:
    """Return the opening; and where no step is needed, at once what the approval is for."""
    opened = opening(situation, approval)
    is_done = not approval.steps
    return (opened, *(_completed(situation, customer, approval, guards) if is_done else ()))


def release_that_waits(
    situation: Situation, customer: Admitted, owner: str, reason_code: str
) -> Decisions | None:
    """Return the opening or refusal of a release that needs approval; None where it needs none."""
    territory = territory_of(situation, customer)
    releasing = releasing_territory(situation.organisation.person(owner), territory)
    cause = Cause("release", customer.attributes, territory, owner, releasing)
    # A release has no id of its own; of one request there is one approval at most.
    name = f"apr_{situation.request.position}"
    approval = _approval(situation, cause, name, reason_code)
    if not approval.steps:
        return None
    if customer.approval is not None:
        reason = reasons.APPROVAL_OPEN
    elif lacks_an_approver(situation, approval):
        reason = reasons.NO_APPROVER
    else:
        return _opened(situation, customer, approval, {})
    return (decisions.ReleaseRefused(situation.customer_id, reason, owner),)


# --- answers -----------------------------------------------------------------------------------


def decide_answer(
    situation: Situation, approval_id: str, guards: dict[str, int], *, agreed: bool
) -> Decisions:
    """Count an answer, or say why it does not count; the last one brings what was asked for."""
    customer, person = situation.customer, situation.request.actor
    approval = _open_approval(situation, approval_id)
    if approval is None or not isinstance(customer, Admitted):
        return _not_counted(situation, approval_id, _why_none(situation))
    if _is_out_of_order(situation):
        return _not_counted(situation, approval_id, reasons.HISTORY_OUT_OF_ORDER)
    place = approving.place_of(
        approval, person, situation.organisation, situation.day, situation.version
    )
    if isinstance(place, str):
        return _not_counted(situation, approval_id, place)
    answered = decisions.StepAnswered(
        situation.customer_id, approval_id, approval.current, place, person, agreed
    )
    after = approval.answered_by(Answer(place, person, agreed))
    return (answered, *_following(situation, customer, after, guards))


def _following(
    situation: Situation, customer: Admitted, approval: Approval, guards: dict[str, int]
) -> Decisions:
    """Return what an answer that counts brings besides."""
    step = approval.step
    if step.refused:
        closed = _closed(situation, approval, "refused", reasons.STEP_REFUSED)
        if situation.version >= 3 and approval.purpose == approving.CLAIM:
            # As the receiver of a refused transfer waits, of whom the state knows without.
            closed = replace(closed, turned_down=approval.receiver)
        return (closed,)
    if not step.agreed:
        return ()
    if approval.current + 1 < len(approval.steps):
        following = approval.advanced(situation.effective)
        asked = approving.asked(following, situation.organisation, situation.day, situation.version)
        return (
            decisions.StepOpened(
                situation.customer_id, approval.approval, following.current, asked
            ),
        )
    return _completed(situation, customer, approval, guards)


def decide_withdrawal(situation: Situation, request: requests.TransferWithdrawn) -> Decisions:
    """Close what awaits approval, for whoever asked for it."""
    approval = _open_approval(situation, request.approval)
    if approval is None:
        return _not_counted(situation, request.approval, _why_none(situation))
    if _is_out_of_order(situation):
        return _not_counted(situation, request.approval, reasons.HISTORY_OUT_OF_ORDER)
    if not _may_withdraw(situation, approval):
        return _not_counted(situation, request.approval, reasons.NOT_REQUESTER)
    return (_closed(situation, approval, "withdrawn"),)


def _may_withdraw(situation: Situation, approval: Approval) -> bool:
    """Say whether the actor asked for it, or acts for the owner who did and has left."""
    customer = situation.customer
    if situation.request.actor in claiming.who_asked(approval):
        return True
    return (
        isinstance(customer, Admitted)
        and approval.requester == customer.owner
        and acts_as_owner(situation, customer)
    )


def _open_approval(situation: Situation, approval_id: str) -> Approval | None:
    customer = situation.customer
    return open_approval(customer, approval_id) if isinstance(customer, Admitted) else None


def _why_none(situation: Situation) -> str:
    """Return why nothing of the id that was named awaits approval."""
    is_one = isinstance(situation.customer, Admitted)
    if situation.version >= 3 and not is_one:
        return reasons.CUSTOMER_NOT_ADMITTED
    return reasons.APPROVAL_CLOSED


def _is_out_of_order(situation: Situation) -> bool:
    """Say whether an imported answer is older than what was decided last (since version 3)."""
    return situation.version >= 3 and situation.out_of_order


def _not_counted(situation: Situation, approval_id: str, reason: str) -> Decisions:
    actor = situation.request.actor
    return (decisions.AnswerNotCounted(situation.customer_id, approval_id, actor, reason),)


# --- closing -----------------------------------------------------------------------------------


def _completed(
    situation: Situation, customer: Admitted, approval: Approval, guards: dict[str, int]
) -> Decisions:
    if approval.purpose == approving.COLLABORATION:
        return collaborating.completed(situation, customer, approval)
    if approval.purpose == approving.CLAIM:
        return claiming.completed(situation, customer, approval, guards)
    owner, territory = approval.owner, territory_of(situation, customer)
    if owner is None:
        raise AssertionError("what nobody owns can only be claimed")
    if approval.receiver is None:
        done: decisions.Decision = decisions.OwnershipReleased(
            situation.customer_id, owner, approval.reason_code, territory
        )
        return (done, _closed(situation, approval, "completed"))
    receiver = situation.organisation.person(approval.receiver)
    if receiver is None:
        raise AssertionError("a receiver was known when the transfer was opened")
    obstacle = (
        Obstacle(reasons.CUSTOMER_CLOSED)
        if customer.closed
        else _receiver_obstacle(situation, receiver, guards)
    )
    if obstacle is not None:
        return (_closed(situation, approval, "void", obstacle.reason),)
    done = decisions.OwnershipTransferred(
        situation.customer_id,
        receiver.person,
        owner,
        approval.approval,
        receiver.territory,
        territory,
        protected_until(situation),
        approval.hand_over,
    )
    return (done, _closed(situation, approval, "completed"))


def _closed(
    situation: Situation, approval: Approval, outcome: str, reason: str | None = None
) -> decisions.ApprovalClosed:
    return decisions.ApprovalClosed(situation.customer_id, approval.approval, outcome, reason)


def overtaken(situation: Situation, found: Decisions) -> Decisions:
    """Return the closing of an approval whose ownership ``found`` ends in another way.

    So it closes a claim that awaits approval, where somebody else comes to own the customer.
    """
    customer = situation.customer
    approval = customer.approval if isinstance(customer, Admitted) else None
    if approval is None or any(isinstance(each, decisions.ApprovalClosed) for each in found):
        return ()
    if any(isinstance(each, decisions.OwnershipReleased) for each in found):
        return (_closed(situation, approval, "void", reasons.OWNERSHIP_CHANGED),)
    begins = decisions.OwnershipGranted | decisions.OwnershipAssigned
    owner = next((each.owner for each in found if isinstance(each, begins)), None)
    if approval.purpose != approving.CLAIM or owner is None:
        return ()
    is_theirs = owner == approval.receiver
    reason = reasons.ALREADY_YOURS if is_theirs else reasons.OWNED_BY_ANOTHER
    return (_closed(situation, approval, "void", reason),)


# --- by a ruling -------------------------------------------------------------------------------


def by_ruling(
    situation: Situation,
    customer: Admitted,
    receiver_id: str,
    parties: tuple[str, ...],
    reason_code: str,
    guards: dict[str, int],
) -> Decisions | str:
    """Return what gives the customer to one of the ``parties`` of a conflict, or why it cannot be.

    The ruling counts for the ruler's own steps; the others still open, and no party judges there
    (since version 3 not those either who neither own nor receive). What awaited approval before is
    void.
    """
    receiver = situation.organisation.person(receiver_id)
    owner = customer.owner
    if receiver is None or owner is None:
        raise AssertionError("parties of a conflict are known, and one of them is the owner")
    if customer.closed:
        return reasons.CUSTOMER_CLOSED
    obstacle = _receiver_obstacle(situation, receiver, guards)
    if obstacle is not None:
        return obstacle.reason
    territory = territory_of(situation, customer)
    releasing = releasing_territory(situation.organisation.person(owner), territory)
    cause = Cause(
        "transfer",
        customer.attributes,
        territory,
        owner,
        releasing,
        receiver.person,
        receiver.territory,
    )
    # A ruling has no id of its own; of one request there is one approval at most.
    approval = _approval(situation, cause, f"apr_{situation.request.position}", reason_code)
    steps = left_by(
        [each.step for each in approval.steps],
        situation.request.actor,
        parties if situation.version >= 3 else (owner, receiver.person),
        situation.organisation,
        situation.day,
        situation.version,
    )
    among = parties if situation.version >= 3 else ()
    approval = replace(approval, steps=approving.begun(steps), ruled_among=among)
    if lacks_an_approver(situation, approval):
        return reasons.NO_APPROVER
    before = customer.approval
    void = () if before is None else (_closed(situation, before, "void", reasons.RULED_ON),)
    return (*void, *_opened(situation, customer, approval, guards))
