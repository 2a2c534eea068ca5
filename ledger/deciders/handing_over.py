"""Hand-overs 交接: who may order one, and part by part what moves, what waits and what stays.

A manager's hand-over counts for the steps that are that manager's own; the others still open, for
each customer as for a transfer, and what awaited approval before is void. A receiver's limit counts
what was promised to the receiver before, too, for else all would be asked for and little moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ledger import approving, handing_over, reasons
from ledger.approval_steps import Cause, left_by, releasing_territory, steps_of
from ledger.approving import Approval
from ledger.collaborating import Collaboration, awaiting, standing
from ledger.customer import Admitted, Customer, Held, Unregistered
from ledger.deciders import collaborating, conflicting, grouping
from ledger.deciders.drafts import Draft
from ledger.deciders.situations import (
    Obstacle,
    Situation,
    has_gone,
    heads_customer,
    held_towards_limit,
    is_admin,
    manages,
    protected_until,
    territory_of,
)
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.requests import HandOverRequested
from ledger.events.values import ApprovalStep
from ledger.handing_over import PART_CUSTOMERS, UnderWay
from ledger.organisation import OrganisationAt, Person
from ledger.settled import Settled

Decisions = tuple[decisions.Decision, ...]


@dataclass(frozen=True, slots=True)
class _Needed:
    """The steps that a line needs, and who is asked first; None where nobody could approve it."""

    steps: tuple[ApprovalStep, ...]
    asked: tuple[str, ...] | None


@dataclass(slots=True)
class _Part:
    """One part of a hand-over; its ``situation`` is that of no customer.

    The figures are of the whole so far. ``taken`` counts, by receiver, what counts towards their
    limit since the part began. ``needed`` is what lines need, by receiver and steps of the rules.
    """

    situation: Situation
    order: HandOverRequested
    giver: Person
    moved: int = 0
    waiting: int = 0
    settled: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    promised: dict[str, int] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    needed: dict[tuple[str, tuple[ApprovalStep, ...]], _Needed] = field(default_factory=dict)

    @property
    def left(self) -> bool:
        """Whether the giver has left."""
        return self.giver.has_left(self.situation.day)


def decide_part(
    version: int,
    settled: Settled,
    request: Event,
    order: HandOverRequested,
    organisation: OrganisationAt,
) -> Draft:
    """Return what the next part of a hand-over brings; the last part brings the outcome."""
    giver, so_far = organisation.person(order.giver), settled.hand_over_of(order.giver)
    if giver is None:
        raise AssertionError("whoever is known at the door is known here")
    if so_far is not None and so_far.request != request.position:
        raise AssertionError(f"another hand-over of {order.giver} is under way")
    page = _page(settled, order, so_far)
    listed = page[:PART_CUSTOMERS]
    meant = _meant(settled, order, listed) if version >= 3 else listed
    customers = {each: settled.customer(each) for each in meant}
    situation = _situation(version, settled, request, organisation, customers)
    problem = None if so_far else _problem(situation, order, giver)
    if problem is not None:
        refused = decisions.HandOverRefused(order.giver, order.hand_over, problem)
        return Draft(refused, situation.effective, organisation.policy.number)
    part = _begun(situation, order, giver, so_far)
    found: list[decisions.Decision] = []
    for name, customer in customers.items():
        found += _at(part, situation._replace(customer_id=name, customer=customer))
    guards = {"held": settled.holdings_of(order.giver).held}
    ordinal, is_last = handing_over.next_ordinal(so_far), len(page) <= PART_CUSTOMERS
    found += _in_groups(situation, tuple(found), guards, ordinal + len(found))
    if is_last:
        found.append(_completed(part))
    else:
        found.append(_advanced(part, listed[-1], ordinal + len(found) + 1))
    return Draft(
        found[0],
        situation.effective,
        organisation.policy.number,
        guards,
        tuple(found[1:]),
        ordinal,
        is_last,
    )


def _page(settled: Settled, order: HandOverRequested, so_far: UnderWay | None) -> tuple[str, ...]:
    """Return the customers of a part, and where there are others one of them."""
    last = handing_over.behind(so_far)
    if order.customers:
        return handing_over.listed_behind(order, last)
    return settled.customers_behind(order.giver, last)


def _meant(settled: Settled, order: HandOverRequested, listed: tuple[str, ...]) -> Iterator[str]:
    """Yield whom a part is about, each once: of one that was entered twice the one that exists."""
    for each in listed:
        existing = settled.existing(each)
        if existing == each:
            yield each
        elif existing not in order.customers and not any(
            settled.existing(other) == existing for other in order.customers if other < each
        ):
            yield existing


def _situation(
    version: int,
    settled: Settled,
    request: Event,
    organisation: OrganisationAt,
    customers: dict[str, Customer],
) -> Situation:
    """Return the situation of a part: it holds at one moment, for all of its customers."""
    roots = (settled.customer(each) for each in _roots(settled, customers))
    concerned = (*customers.values(), *roots)
    moments = (each.effective for each in concerned if each.effective is not None)
    effective = max((request.recorded, *moments))
    return Situation(
        version,
        settled,
        request,
        organisation,
        request.data.giver,
        Unregistered(),
        None,
        organisation.policy.policy,
        effective,
        organisation.day(effective),
        False,
    )


# --- groups ------------------------------------------------------------------------------------


def _roots(settled: Settled, customers: dict[str, Customer]) -> Iterator[str]:
    """Yield the roots of the groups that customers are in, where conflicts of a group stand."""
    for name, customer in customers.items():
        if isinstance(customer, Admitted) and customer.is_in_group:
            *_, root = (name, *settled.above(name))
            yield root


def _in_groups(
    situation: Situation, found: Decisions, guards: dict[str, int], ordinal: int
) -> Decisions:
    """Return what a part brings about at the roots of groups; ``ordinal`` is that of the first.

    A request has several parts. Between two of them a ruling may close what the first has opened at
    a root: so the root is no id for what the second opens there, as it was before version 3.
    """
    if not found:
        return ()
    position = situation.request.position

    def named(number: int, customer: str) -> str:
        return f"cft_{position}_{number if situation.version >= 3 else customer}"

    return tuple(
        replace(each, conflict=named(number, each.customer))
        if isinstance(each, decisions.ConflictOpened)
        else each
        for number, each in enumerate(grouping.consequences(situation, found, guards), ordinal)
    )


# --- the order ---------------------------------------------------------------------------------


def _problem(situation: Situation, order: HandOverRequested, giver: Person) -> str | None:
    """Return why nothing of a hand-over is done: nobody judges a cause of their own."""
    parties = (order.giver, *order.receivers)
    organisation, day = situation.organisation, situation.day
    barred = approving.excluded(parties, frozenset(), organisation, day, situation.version)
    if situation.request.actor in barred:
        return reasons.OWN_CAUSE
    if not (manages(situation, giver.territory) or is_admin(situation)):
        return reasons.NOT_ABOVE_GIVER
    return None if _there(situation, order) else reasons.CLAIMANT_LEFT


def _there(situation: Situation, order: HandOverRequested) -> list[Person]:
    """Return the receivers who have not left, in the order in which they are named."""
    named = (situation.organisation.person(each) for each in order.receivers)
    return [each for each in named if each is not None and not has_gone(situation, each)]


def _begun(
    situation: Situation, order: HandOverRequested, giver: Person, so_far: UnderWay | None
) -> _Part:
    if so_far is None:
        return _Part(situation, order, giver)
    done = so_far.done
    return _Part(
        situation,
        order,
        giver,
        done.moved,
        done.waiting,
        done.settled,
        dict(done.refused),
        dict(done.promised),
    )


def _advanced(part: _Part, last: str, decided: int) -> decisions.HandOverAdvanced:
    order = part.order
    return decisions.HandOverAdvanced(
        order.giver,
        order.hand_over,
        last,
        decided,
        part.moved,
        part.waiting,
        part.settled,
        part.refused,
        part.promised,
        True if part.left else None,
    )


def _completed(part: _Part) -> decisions.HandOverCompleted:
    order = part.order
    return decisions.HandOverCompleted(
        order.giver,
        order.hand_over,
        part.moved,
        part.waiting,
        part.settled,
        part.refused,
        True if part.left else None,
    )


# --- one customer ------------------------------------------------------------------------------


def _at(part: _Part, situation: Situation) -> Decisions:
    """Return what a hand-over brings at one customer, and count it."""
    customer, order = situation.customer, part.order
    if isinstance(customer, Admitted) and customer.owner == order.giver:
        if not _is_meant(situation, customer, order):
            return ()
        if _waits(situation, customer):
            return (_refused(part, situation, Obstacle(reasons.REQUEST_PARKED)),)
        return _line(part, situation, customer)
    if order.customers:
        is_one = isinstance(customer, Admitted)
        reason = reasons.NOT_THE_GIVERS if is_one else reasons.CUSTOMER_NOT_ADMITTED
        return (_refused(part, situation, Obstacle(reason)),)
    if order.is_of_all and isinstance(customer, Admitted):
        if _waits(situation, customer):
            return (_refused(part, situation, Obstacle(reasons.REQUEST_PARKED)),)
        return _others(part, situation, customer)
    return ()


def _waits(situation: Situation, customer: Admitted) -> bool:
    """Say whether a customer waits for a parked request, before which nothing is decided there."""
    return situation.version >= 3 and customer.parked is not None


def _is_meant(situation: Situation, customer: Admitted, order: HandOverRequested) -> bool:
    territory = territory_of(situation, customer)
    return (
        not order.territories
        or any(situation.organisation.is_within(territory, each) for each in order.territories)
    ) and all(condition.matches(customer.attributes) for condition in order.conditions)


def _refused(
    part: _Part, situation: Situation, obstacle: Obstacle, receiver: str | None = None
) -> decisions.HandOverLineRefused:
    part.refused[obstacle.reason] = part.refused.get(obstacle.reason, 0) + 1
    customer = situation.customer
    return decisions.HandOverLineRefused(
        situation.customer_id,
        part.order.hand_over,
        obstacle.reason,
        customer.owner if isinstance(customer, Admitted) else None,
        receiver,
        obstacle.retry_at,
    )


def _line(part: _Part, situation: Situation, customer: Admitted) -> Decisions:
    """Move a customer of the giver's, open the steps that this needs, or say why it stays."""
    obstacle = _obstacle(part, situation, customer)
    if obstacle is not None:
        return (_refused(part, situation, obstacle),)
    receiver = _receiver(part, situation, customer)
    if isinstance(receiver, Obstacle):
        return (_refused(part, situation, receiver),)
    needed = _needed(part, situation, customer, receiver)
    if needed.asked is None:
        return (_refused(part, situation, Obstacle(reasons.NO_APPROVER), receiver.person),)
    before = customer.approval
    void = () if before is None else (_void(situation, before.approval),)
    moved = (
        _opened(part, situation, receiver, needed)
        if needed.steps
        else _transferred(situation, part.order, customer, receiver)
    )
    all_end = part.order.collaborators == "end"
    more = collaborating.left_behind(situation, (moved,), all_end=all_end)
    gone = conflicting.gone(situation, (moved, *more))
    _count(part, customer, receiver, waits=bool(needed.steps))
    if situation.version >= 3:
        part.settled += len(void) + len(more)
    return (*void, moved, *more, *gone)


def _count(part: _Part, customer: Admitted, receiver: Person, *, waits: bool) -> None:
    name, policy = receiver.person, part.situation.policy
    counts = policy.won_customers_count or not customer.won_deals
    if waits:
        part.waiting += 1
        part.promised[name] = part.promised.get(name, 0) + counts
    else:
        part.moved += 1
        part.taken[name] = part.taken.get(name, 0) + counts


def _obstacle(part: _Part, situation: Situation, customer: Admitted) -> Obstacle | None:
    if customer.closed:
        return Obstacle(reasons.CUSTOMER_CLOSED)
    if situation.version >= 3 and conflicting.is_own_cause(situation, customer):
        return Obstacle(reasons.OWN_CAUSE)
    # Protection is the owner's, against others: not against the head, nor for somebody who left.
    tenure = customer.tenure
    until = tenure.protected_until if isinstance(tenure, Held) else None
    if until is None or situation.effective >= until or part.left:
        return None
    return None if heads_customer(situation, customer) else Obstacle(reasons.PROTECTED, until)


def _receiver(part: _Part, situation: Situation, customer: Admitted) -> Person | Obstacle:
    """Return who gets a customer: whoever works in its territory and has the least, in order."""
    there = _there(situation, part.order)
    limit = situation.policy.holding_limit
    free = [each for each in there if limit is None or _held(part, each) < limit]
    if not free:
        return Obstacle(reasons.HOLDING_LIMIT if there else reasons.CLAIMANT_LEFT)
    organisation, territory = situation.organisation, territory_of(situation, customer)
    near = [each for each in free if organisation.is_within(territory, each.territory)]
    return min(near or free, key=lambda each: _held(part, each))


def _held(part: _Part, person: Person) -> int:
    """Return what counts towards somebody's limit, with what this hand-over brings so far."""
    situation, name = part.situation, person.person
    held = held_towards_limit(situation.settled, situation.policy, name, {})
    return held + part.taken.get(name, 0) + part.promised.get(name, 0)


def _needed(part: _Part, situation: Situation, customer: Admitted, receiver: Person) -> _Needed:
    """Return what a customer's line needs: the steps that are not the orderer's own.

    Most lines need the same, which is found once a part.
    """
    territory = territory_of(situation, customer)
    cause = Cause(
        "transfer",
        customer.attributes,
        territory,
        part.giver.person,
        releasing_territory(part.giver, territory),
        receiver.person,
        receiver.territory,
    )
    orderer, rules = situation.request.actor, situation.policy.approval_rules
    steps = steps_of(rules, cause, orderer, situation.organisation, situation.version)
    key = (receiver.person, steps)
    if key not in part.needed:
        part.needed[key] = _found_out(part, situation, receiver, steps)
    return part.needed[key]


def _found_out(
    part: _Part, situation: Situation, receiver: Person, steps: tuple[ApprovalStep, ...]
) -> _Needed:
    organisation, day, orderer = situation.organisation, situation.day, situation.request.actor
    parties, version = (part.giver.person, receiver.person), situation.version
    left = left_by(steps, orderer, parties, organisation, day, version)
    approval = Approval(
        "",
        approving.TRANSFER,
        orderer,
        part.giver.person,
        receiver.person,
        situation.effective,
        situation.effective,
        approving.begun(left),
        part.order.reason_code,
    )
    if approving.lacks_an_approver(approval, organisation, day, version):
        return _Needed(left, None)
    return _Needed(left, approving.asked(approval, organisation, day, version) if left else ())


def _opened(
    part: _Part, situation: Situation, receiver: Person, needed: _Needed
) -> decisions.ApprovalOpened:
    order = part.order
    return decisions.ApprovalOpened(
        situation.customer_id,
        # Of one customer there is one line at most.
        f"apr_{situation.request.position}_{situation.customer_id}",
        approving.TRANSFER,
        situation.request.actor,
        order.giver,
        order.reason_code,
        receiver.person,
        needed.steps,
        needed.asked or (),
        order.collaborators,
        order.hand_over,
    )


def _transferred(
    situation: Situation, order: HandOverRequested, customer: Admitted, receiver: Person
) -> decisions.OwnershipTransferred:
    return decisions.OwnershipTransferred(
        situation.customer_id,
        receiver.person,
        order.giver,
        order.hand_over,
        receiver.territory,
        territory_of(situation, customer),
        protected_until(situation),
        order.hand_over,
    )


def _void(situation: Situation, approval: str) -> decisions.ApprovalClosed:
    return decisions.ApprovalClosed(situation.customer_id, approval, "void", reasons.HANDED_OVER)


# --- what else the giver holds -----------------------------------------------------------------


def _others(part: _Part, situation: Situation, customer: Admitted) -> Decisions:
    """Settle what the giver holds at somebody else's customer.

    What the giver has asked for, or would receive, is void. Collaborations end, or are the
    receiver's; an agreed share of the credit is nobody else's.
    """
    giver, there = part.order.giver, customer.collaborations
    found: list[decisions.Decision] = []
    waiting = [customer.approval, *(each.approval for each in awaiting(there))]
    for approval in waiting:
        if approval is not None and _is_theirs(approval, giver):
            found.append(_void(situation, approval.approval))
    ended = [each for each in standing(there, situation.effective) if each.person == giver]
    if ended:
        names = tuple(each.collaboration for each in ended)
        people = (giver,) * len(ended)
        found.append(
            decisions.CollaborationsEnded(situation.customer_id, names, people, reasons.HANDED_OVER)
        )
    settled = len(found)
    if part.order.collaborations == "give":
        found += _given_on(part, situation, customer, ended)
    # What is counted is what the receipt lists, line by line.
    part.settled += len(found) if situation.version >= 3 else settled
    return tuple(found)


def _is_theirs(approval: Approval, giver: str) -> bool:
    is_a_cause_of_others = approval.hand_over is not None or bool(approval.ruled_among)
    asked = approval.requester == giver and not is_a_cause_of_others
    return asked or approval.receiver == giver


def _given_on(
    part: _Part, situation: Situation, customer: Admitted, ended: list[Collaboration]
) -> Decisions:
    """Return what lets the first receiver who is there collaborate instead, where that can be."""
    receivers = _there(situation, part.order)
    if not receivers or customer.closed:
        return ()
    person = receivers[0].person
    beside = (
        *standing(customer.collaborations, situation.effective),
        *awaiting(customer.collaborations),
    )
    taken = {each.site for each in beside if each.person == person}
    return tuple(
        decisions.CollaboratorAdded(
            situation.customer_id,
            f"col_{situation.request.position}_{situation.customer_id}_{number}",
            person,
            each.role,
            max(each.since, situation.effective),
            each.until,
            None,
            each.site,
        )
        for number, each in enumerate(ended)
        if customer.owner != person and each.site not in taken
    )
