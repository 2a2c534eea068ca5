"""Admission, assignments, releases, follow-ups and deals: small functions, one a request.

Each gets the situation (settled state, request, facts) and returns what follows: one decision, or
several.
"""

from __future__ import annotations

from dataclasses import replace

from ledger import reasons
from ledger.collaborating import collaborates
from ledger.customer import Admitted, Refused
from ledger.deciders import orphaned, recycling, transferring
from ledger.deciders.situations import (
    Situation,
    has_actor_gone,
    has_gone,
    held_towards_limit,
    is_admin,
    is_owner_or_manager,
    is_there,
    late_moment,
    manages,
    protected_until,
    territory_of,
)
from ledger.events import decisions, requests
from ledger.events.values import Identifier
from ledger.organisation import Person
from ledger.policy import Policy
from ledger.settled import Act

# A chain of group parents longer than this is a mistake of whoever entered it.
GROUP_DEPTH_MAX = 32


# --- registration and change -------------------------------------------------------------------


def decide_registration(
    situation: Situation, request: requests.RegistrationRequested
) -> decisions.CustomerAdmitted | decisions.RegistrationRefused:
    """Admit a customer unless an identifier is taken or its parent is none of ours."""
    customer = request.customer
    if isinstance(situation.settled.customer(customer), Admitted | Refused):
        return decisions.RegistrationRefused(customer, reasons.ALREADY_REGISTERED)
    for identifier in request.identifiers:
        holder = situation.settled.holder_of(identifier.system, identifier.key)
        if holder is not None:
            return decisions.RegistrationRefused(
                customer, reasons.IDENTIFIER_TAKEN, holder, identifier.system
            )
    parent = None if request.parent is None else situation.settled.existing(request.parent)
    if parent is not None and not isinstance(situation.settled.customer(parent), Admitted):
        return decisions.RegistrationRefused(customer, reasons.PARENT_UNKNOWN)
    if parent is not None and situation.version >= 3:
        problem = _parent_problem(situation, parent)
        if problem is not None:
            return decisions.RegistrationRefused(customer, problem)
    return decisions.CustomerAdmitted(
        customer,
        request.kind,
        situation.effective,
        situation.policy.territory_of(request.territory, request.attributes),
        parent,
        # The sealed value stays with the request, under whose id it was sealed.
        tuple(Identifier(each.system, each.key) for each in request.identifiers),
    )


def decide_change(
    situation: Situation, request: requests.CustomerChangeRequested
) -> decisions.CustomerChanged | decisions.ChangeRefused:
    """Let a change hold as a whole, or refuse it as a whole."""
    customer = situation.customer
    customer_id = situation.customer_id
    if not isinstance(customer, Admitted):
        return decisions.ChangeRefused(customer_id, reasons.CUSTOMER_NOT_ADMITTED)
    if situation.out_of_order:
        return decisions.ChangeRefused(customer_id, reasons.HISTORY_OUT_OF_ORDER)
    guarded = guarded_fields(situation.policy, customer, request)
    if guarded and not _may_change_guarded(situation, customer):
        return decisions.ChangeRefused(customer_id, reasons.NOT_HEAD, guarded)
    if request.closed is not None and not is_owner_or_manager(situation, customer):
        return decisions.ChangeRefused(customer_id, reasons.NOT_OWNER, ("closed",))
    if request.closed and _was_ruled_on(situation, customer):
        return decisions.ChangeRefused(customer_id, reasons.APPROVAL_OPEN, ("closed",))
    for identifier in request.identifiers:
        holder = situation.settled.holder_of(identifier.system, identifier.key)
        if holder is not None and holder != customer_id:
            field = f"identifier:{identifier.system}"
            return decisions.ChangeRefused(customer_id, reasons.IDENTIFIER_TAKEN, (field,), holder)
    parent = customer.parent
    if request.parent is not None:
        parent = situation.settled.existing(request.parent)
        problem = _parent_problem(situation, parent)
        if problem is not None:
            return decisions.ChangeRefused(customer_id, problem, ("parent",))
    removed = frozenset(request.removed)
    attributes = {
        name: value
        for name, value in (customer.attributes | request.attributes).items()
        if f"attribute:{name}" not in removed
    }
    explicit = None if "territory" in removed else request.territory or customer.territory
    return decisions.CustomerChanged(
        customer_id,
        situation.policy.territory_of(explicit, attributes),
        None if "parent" in removed else parent,
    )


def guarded_fields(
    policy: Policy, customer: Admitted, request: requests.CustomerChangeRequested
) -> tuple[str, ...]:
    """Return, sorted, what the request would really change of what the policy reads."""
    removed = frozenset(request.removed)
    fields = {
        f"attribute:{name}"
        for name in policy.guarded_attributes
        if (
            name in request.attributes and request.attributes[name] != customer.attributes.get(name)
        )
        or (f"attribute:{name}" in removed and name in customer.attributes)
    }
    if (request.territory or customer.territory) != customer.territory or (
        "territory" in removed and customer.territory is not None
    ):
        fields.add("territory")
    return tuple(sorted(fields))


def _may_change_guarded(situation: Situation, customer: Admitted) -> bool:
    organisation, actor = situation.organisation, situation.request.actor
    if situation.policy.guarded_changes_by == "anyone" or is_admin(situation):
        return True
    territory = territory_of(situation, customer)
    if territory is None:
        return is_there(situation) and organisation.is_manager(actor)
    if situation.policy.guarded_changes_by == "manager":
        return manages(situation, territory)
    return is_there(situation) and organisation.heads(actor, territory)


def _parent_problem(situation: Situation, parent: str) -> str | None:
    """Return why ``parent`` cannot be the customer's parent, None where it can."""
    above: str | None = parent
    for _ in range(GROUP_DEPTH_MAX):
        if above is None:
            return None
        if above == situation.customer_id:
            return reasons.GROUP_CYCLE
        found = situation.settled.customer(above)
        if not isinstance(found, Admitted):
            return reasons.PARENT_UNKNOWN
        above = found.parent
    return reasons.GROUP_TOO_DEEP if situation.version >= 3 else reasons.GROUP_CYCLE


# --- assignments, releases ---------------------------------------------------------------------


def decide_assignment(
    situation: Situation, request: requests.AssignmentRequested, guards: dict[str, int]
) -> decisions.OwnershipAssigned | decisions.AssignmentRefused:
    """Give a free customer to somebody, by a manager over the customer and the assignee."""
    customer, actor = situation.customer, situation.request.actor
    person = situation.organisation.person(request.assignee)
    if not isinstance(customer, Admitted):
        reason: str | None = reasons.CUSTOMER_NOT_ADMITTED
    elif person is None:
        reason = reasons.CLAIMANT_UNKNOWN
    else:
        reason = _assignment_problem(situation, customer, person, guards)
        if reason is None:
            return decisions.OwnershipAssigned(
                situation.customer_id,
                person.person,
                actor,
                person.territory,
                territory_of(situation, customer),
                protected_until(situation),
            )
    owner = customer.owner if isinstance(customer, Admitted) else None
    return decisions.AssignmentRefused(situation.customer_id, request.assignee, reason or "", owner)


def _assignment_problem(
    situation: Situation, customer: Admitted, person: Person, guards: dict[str, int]
) -> str | None:
    territory = territory_of(situation, customer)
    held = held_towards_limit(situation.settled, situation.policy, person.person, guards)
    limit = situation.policy.holding_limit
    if situation.out_of_order:
        return reasons.HISTORY_OUT_OF_ORDER
    if customer.closed:
        return reasons.CUSTOMER_CLOSED
    if has_gone(situation, person):
        return reasons.CLAIMANT_LEFT
    if customer.owner is not None:
        same = customer.owner == person.person
        return reasons.ALREADY_YOURS if same else reasons.OWNED_BY_ANOTHER
    if not is_admin(situation):
        if not manages(situation, territory or person.territory):
            return reasons.NOT_MANAGER
        if not manages(situation, person.territory):
            return reasons.OUTSIDE_TERRITORY
    if limit is not None and held >= limit:
        return reasons.HOLDING_LIMIT
    return None


def decide_release(
    situation: Situation, request: requests.ReleaseRequested
) -> tuple[decisions.Decision, ...]:
    """Free a customer, by its owner or a manager over the owner or the customer.

    Where the policy has steps for it, it awaits approval first.
    """
    customer, customer_id = situation.customer, situation.customer_id
    if not isinstance(customer, Admitted):
        return (decisions.ReleaseRefused(customer_id, reasons.CUSTOMER_NOT_ADMITTED),)
    owner = customer.owner
    if situation.out_of_order:
        return (decisions.ReleaseRefused(customer_id, reasons.HISTORY_OUT_OF_ORDER, owner),)
    if owner is None or not is_owner_or_manager(situation, customer):
        return (decisions.ReleaseRefused(customer_id, reasons.NOT_OWNER, owner),)
    if has_actor_gone(situation):
        return (decisions.ReleaseRefused(customer_id, reasons.REQUESTER_LEFT, owner),)
    if _was_ruled_on(situation, customer):
        return (decisions.ReleaseRefused(customer_id, reasons.APPROVAL_OPEN, owner),)
    waiting = transferring.release_that_waits(situation, customer, owner, request.reason_code)
    if waiting is not None:
        return waiting
    released = decisions.OwnershipReleased(
        customer_id, owner, request.reason_code, territory_of(situation, customer)
    )
    return (released,)


def _was_ruled_on(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor is a party of what a ruling has opened, and so does not make it void.

    Since version 3.
    """
    approval = customer.approval
    return (
        situation.version >= 3
        and approval is not None
        and situation.request.actor in approval.ruled_among
    )


# --- follow-ups, deals and their corrections ---------------------------------------------------


def decide_follow_up(situation: Situation, request: requests.FollowUpLogged) -> decisions.Noted:
    """Note a follow-up, whether it was the owner's, and whether its contact is the customer's."""
    customer = situation.customer
    noted = _note(situation, request.person, reasons.FOLLOW_UP_BY_NON_OWNER, owner_then(situation))
    if noted.remark == reasons.FOLLOW_UP_BY_NON_OWNER and (
        _collaborated(situation, request)
        or orphaned.acted_for_owner(situation, request.person, noted.owner)
    ):
        noted = replace(noted, remark=None)
    if noted.remark is None and isinstance(customer, Admitted):
        is_known = request.contact is None or request.contact in customer.contacts
        noted = noted if is_known else replace(noted, remark=reasons.CONTACT_UNKNOWN)
    return recycling.judged(situation, request, noted)


def decide_deal(situation: Situation, request: requests.DealRecorded) -> decisions.Noted:
    """Note a deal, and whether it was the owner's, or of somebody who acts for the owner."""
    owner = owner_now(situation)
    noted = _note(situation, request.person, reasons.DEAL_BY_NON_OWNER, owner)
    if noted.remark == reasons.DEAL_BY_NON_OWNER and orphaned.acted_for_owner(
        situation, request.person, owner
    ):
        noted = replace(noted, remark=None)
    return noted


def _note(
    situation: Situation, person: str, by_non_owner: str, owner: str | None
) -> decisions.Noted:
    customer_id = situation.customer_id
    if not isinstance(situation.customer, Admitted):
        return decisions.Noted(customer_id, reasons.CUSTOMER_NOT_ADMITTED)
    if situation.out_of_order:
        return decisions.Noted(customer_id, reasons.HISTORY_OUT_OF_ORDER, owner)
    return decisions.Noted(customer_id, None if owner == person else by_non_owner, owner)


def owner_now(situation: Situation) -> str | None:
    """Return the customer's owner, None where nobody owns it."""
    customer = situation.customer
    return customer.owner if isinstance(customer, Admitted) else None


def owner_then(situation: Situation) -> str | None:
    """Return whose the customer was when a follow-up happened, where it may be entered so late.

    Else, and where nobody knows whose it was then, the present owner is what counts.
    """
    customer, happened = situation.customer, late_moment(situation)
    if not isinstance(customer, Admitted) or happened is None or not customer.remembers(happened):
        return owner_now(situation)
    return customer.owner_at(happened)


def _collaborated(situation: Situation, request: requests.FollowUpLogged) -> bool:
    """Say whether it was a follow-up by somebody who collaborated when it happened."""
    customer = situation.customer
    return isinstance(customer, Admitted) and collaborates(
        customer.collaborations,
        request.person,
        late_moment(situation) or situation.effective,
        request.site,
    )


def decide_correction(
    situation: Situation, act_id: str, kind: str
) -> decisions.Noted | decisions.CorrectionRefused:
    """Let a correction or voiding hold where it is of a standing act, by somebody entitled."""
    act = situation.settled.act(act_id)
    if act is None or act.kind != kind or act.customer != situation.customer_id:
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.UNKNOWN_ACT)
    if not act.stands:
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.ACT_VOIDED)
    if not _may_correct(situation, act):
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.NOT_YOURS)
    return decisions.Noted(situation.customer_id)


def _may_correct(situation: Situation, act: Act) -> bool:
    if situation.request.actor in (act.person, act.actor) or is_admin(situation):
        return True
    person = situation.organisation.person(act.person)
    if person is not None and manages(situation, person.territory):
        return True
    customer = situation.customer
    return isinstance(customer, Admitted) and manages(situation, territory_of(situation, customer))
