"""Conflicts 撞单: opened, proved further, ruled on, gone.

A conflict is opened beside what is decided anyway: that a claim is refused, or a follow-up noted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ledger import conflicts, deadlines, reasons
from ledger.collaborating import Collaboration, standing
from ledger.conflicts import Conflict, Evidence
from ledger.customer import Admitted, Held, changed
from ledger.deciders import collaborating, transferring
from ledger.deciders.opening import rulers
from ledger.deciders.situations import Situation, opens_conflicts, territory_of
from ledger.events import decisions, requests

Decisions = tuple[decisions.Decision, ...]


# --- arising -----------------------------------------------------------------------------------


def arising(situation: Situation, found: Decisions) -> Decisions:
    """Return the conflict that a request opens or proves further, by what was decided on it."""
    customer = situation.customer
    if not isinstance(customer, Admitted) or not isinstance(customer.tenure, Held):
        return ()
    kind = _kind(situation, customer, customer.tenure, found[0])
    if kind is None or not opens_conflicts(situation, kind):
        return ()
    person = conflicts.evidence_of(situation.request, customer.identifiers).person
    return between(situation, situation.customer_id, customer, kind, person)


def between(
    situation: Situation, customer_id: str, customer: Admitted, kind: str, person: str
) -> Decisions:
    """Return that a conflict of somebody with a customer's owner is open, if not all is settled."""
    owner = customer.owner or ""
    if conflicts.is_allowed(customer.allowed, kind, owner, person) or _is_to_own(customer, person):
        return ()
    known = conflicts.of_kind(customer.conflicts, kind)
    if known is not None:
        return _proved_further(situation, customer_id, known, person)
    position, parties = situation.request.position, (owner, person)
    opened = decisions.ConflictOpened(
        customer_id,
        # Of one request there is one conflict at most.
        f"cft_{position}",
        kind,
        parties,
        (position,),
        rulers(situation, parties, 0),
    )
    return (opened,)


def _is_to_own(customer: Admitted, person: str) -> bool:
    """Say whether somebody else has asked that this person becomes the owner."""
    approval = customer.approval
    return approval is not None and approval.receiver == person != approval.requester


def _kind(
    situation: Situation, customer: Admitted, tenure: Held, decided: decisions.Decision
) -> str | None:
    """Return what kind of conflict a decision shows, None where it shows none."""
    match decided, situation.request.data:
        case (
            decisions.ClaimRefused(
                reason=reasons.OWNED_BY_ANOTHER | reasons.HISTORY_OUT_OF_ORDER, claimant=claimant
            ),
            _,
        ) if _is_of_another(situation, claimant):
            rivals = sells_against(situation, customer, claimant) and claimant != tenure.owner
            return conflicts.IDENTIFIER if rivals else None
        case decisions.ClaimRefused(reason=reasons.OWNED_BY_ANOTHER, claimant=claimant), _:
            rivals = _competes(situation, customer, tenure)
            rivals = rivals and not _is_above(situation, customer, claimant)
            return conflicts.COMPETING_CLAIMS if rivals else None
        case (
            decisions.Noted(remark=reasons.FOLLOW_UP_BY_NON_OWNER, owner=owner),
            requests.FollowUpLogged() as follow_up,
        ):
            # One entered late, at a customer that has another owner by now, is about what is over.
            is_theirs = owner == tenure.owner
            rivals = is_theirs and sells_against(situation, customer, follow_up.person)
            return conflicts.FOLLOW_UP if rivals else None
        case (
            decisions.Noted(remark=reasons.DEAL_BY_NON_OWNER),
            requests.DealRecorded() as deal,
        ):
            return None if _shares(situation, customer, deal.person) else conflicts.DEAL
        case _:
            return None


def _is_of_another(situation: Situation, claimant: str) -> bool:
    """Say whether an import brings the customer a second time, as that of somebody who is there.

    It claims a customer that was refused, because the one that is meant has its identifier. It does
    so at whatever moment, which may lie far back; what counts is that somebody else has it today.
    """
    if situation.version < 3 or situation.opened_import is None:
        return False
    person = situation.organisation.person(claimant)
    today = situation.organisation.day(situation.request.recorded)
    is_twice = situation.request.data.customer != situation.customer_id
    return is_twice and person is not None and not person.has_left(today)


def _competes(situation: Situation, customer: Admitted, tenure: Held) -> bool:
    """Say whether a refused claim came so soon after the owner's that the two were rivals."""
    if customer.former and customer.former[0].ended == tenure.since:
        return False  # it was transferred: nobody claimed it
    window = timedelta(hours=situation.policy.conflict_window_hours)
    return situation.effective < tenure.since + window


def sells_against(situation: Situation, customer: Admitted, person: str) -> bool:
    """Say whether somebody sells, and is no head above the owner or the customer.

    Who sells has the role ``rep``, whatever other roles besides.
    """
    seller = situation.organisation.person(person)
    sells = seller is not None and "rep" in seller.roles
    return sells and not _is_above(situation, customer, person)


def _is_above(situation: Situation, customer: Admitted, person: str) -> bool:
    """Say whether somebody is a head above the owner or the customer, and so no rival."""
    organisation = situation.organisation
    owner = organisation.person(customer.owner or "")
    homes = {owner.territory if owner else None, territory_of(situation, customer)}
    return any(organisation.heads(person, each) for each in homes)


def _shares(situation: Situation, customer: Admitted, person: str) -> bool:
    """Say whether a share of the credit was agreed on with somebody, who may well make deals."""
    return any(
        each.person == person and each.share is not None and each.stands_at(situation.effective)
        for each in customer.collaborations
    )


def _proved_further(
    situation: Situation, customer_id: str, known: Conflict, person: str
) -> Decisions:
    joining = () if person in known.parties else (person,)
    if situation.version >= 3 and joining:
        # Whoever is another rival is ruled on as well, however much was proved before.
        if len(known.parties) >= conflicts.PARTIES_MAX:
            return ()
    elif len(known.evidence) >= conflicts.EVIDENCE_MAX:
        return ()  # whoever rules has seen enough; what was decided besides is in the history
    parties = (*known.parties, *joining)
    added = decisions.ConflictEvidenceAdded(
        customer_id,
        known.conflict,
        (situation.request.position,),
        joining,
        rulers(situation, parties, known.waiting.passed_on),
    )
    return (added,)


# --- waiting -----------------------------------------------------------------------------------


def waited_in_vain(situation: Situation, known: Conflict, kind: str) -> decisions.Decision:
    """Return what follows where nobody has ruled in time: a reminder, or that others are asked."""
    passed_on = known.waiting.passed_on
    asked = rulers(situation, known.parties, passed_on)
    if kind == deadlines.RULING_PASSING_ON:
        further = rulers(situation, known.parties, passed_on + 1)
        if further not in ((), asked):
            return decisions.RulingPassedOn(situation.customer_id, known.conflict, further)
        # Nobody is further up: those who are asked hear of it once more.
    return decisions.RulingReminded(situation.customer_id, known.conflict, asked)


# --- ruling ------------------------------------------------------------------------------------


def decide_ruling(
    situation: Situation, request: requests.RulingGiven, guards: dict[str, int]
) -> Decisions:
    """Close a conflict by a ruling and bring what it says, or refuse the ruling as a whole."""
    customer, actor = situation.customer, situation.request.actor
    known = (
        conflicts.of(customer.conflicts, request.conflict)
        if isinstance(customer, Admitted)
        else None
    )
    if not isinstance(customer, Admitted) or known is None:
        return _refused(situation, request, reasons.CONFLICT_CLOSED)
    if situation.out_of_order:
        return _refused(situation, request, reasons.HISTORY_OUT_OF_ORDER)
    if actor not in rulers(situation, known.parties, known.waiting.passed_on):
        organisation, day, version = situation.organisation, situation.day, situation.version
        barred = conflicts.barred(known.parties, organisation, day, version)
        reason = reasons.OWN_CAUSE if actor in barred else reasons.NOT_ASKED
        return _refused(situation, request, reason)
    brought = _brought(situation, customer, known, request, guards)
    if isinstance(brought, str):
        return _refused(situation, request, brought)
    ruled = decisions.ConflictClosed(
        situation.customer_id,
        known.conflict,
        request.ruling,
        request.reason_code,
        actor,
        request.receiver,
    )
    return (ruled, *brought)


def is_own_cause(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor, or whom the actor acts for, is a party of what is in dispute there.

    Such as what awaits a ruling, or what a ruling brings and awaits approval. A dispute about a
    whole group is not about who has this one customer.
    """
    parties = [
        *(customer.approval.ruled_among if customer.approval is not None else ()),
        *(each for c in customer.conflicts if c.kind != conflicts.GROUP for each in c.parties),
    ]
    return bool(parties) and situation.request.actor in conflicts.barred(
        tuple(parties), situation.organisation, situation.day, situation.version
    )


def _refused(situation: Situation, request: requests.RulingGiven, reason: str) -> Decisions:
    actor = situation.request.actor
    return (decisions.RulingRefused(situation.customer_id, request.conflict, actor, reason),)


def _brought(
    situation: Situation,
    customer: Admitted,
    known: Conflict,
    request: requests.RulingGiven,
    guards: dict[str, int],
) -> Decisions | str:
    """Return what a ruling brings besides the end of the conflict, or why it cannot be."""
    others = set(known.parties) - {customer.owner}
    match request.ruling:
        case "award" | "split" if known.kind == conflicts.GROUP:
            return reasons.GROUP_NOT_AWARDED
        case "award":
            if request.receiver not in others:
                return reasons.NOT_A_PARTY
            return transferring.by_ruling(
                situation,
                customer,
                request.receiver or "",
                known.parties,
                request.reason_code,
                guards,
            )
        case "split":
            if not {each.person for each in request.parts} <= others:
                return reasons.NOT_A_PARTY
            return collaborating.by_ruling(situation, customer, request.parts, known.parties)
        case _:
            return ()


# --- gone --------------------------------------------------------------------------------------

_ENDS = (decisions.OwnershipReleased, decisions.OwnershipTransferred)


def gone(situation: Situation, found: Decisions) -> Decisions:
    """Return the closing of those conflicts whose cause ``found`` takes away."""
    customer = situation.customer
    if not isinstance(customer, Admitted):
        return ()
    ruled = {each.conflict for each in found if isinstance(each, decisions.ConflictClosed)}
    return tuple(
        decisions.ConflictClosed(situation.customer_id, each.conflict, conflicts.GONE, reason)
        for each in customer.conflicts
        if each.conflict not in ruled and each.kind != conflicts.GROUP
        for reason in _why_gone(situation, customer, each, found)
    )


def _why_gone(
    situation: Situation, customer: Admitted, conflict: Conflict, found: Decisions
) -> Iterator[str]:
    """Yield the one reason why the cause of a conflict is gone, or none."""
    data = situation.request.data
    if any(isinstance(each, _ENDS) for each in found):
        yield reasons.OWNERSHIP_CHANGED
    elif isinstance(data, requests.FollowUpVoided | requests.DealVoided):
        act = data.follow_up if isinstance(data, requests.FollowUpVoided) else data.deal
        if isinstance(found[0], decisions.Noted) and all(
            each.act == act for each in conflict.evidence
        ):
            yield reasons.ACT_VOIDED
    elif conflict.kind == conflicts.IDENTIFIER:
        if isinstance(found[0], decisions.CustomerChanged):
            left = changed(customer, data, found[0]).identifiers
            theirs = {conflicts.claimed(system, key) for system, key in left.items()}
            if not any(_still_proves(situation, each, theirs) for each in conflict.evidence):
                yield reasons.IDENTIFIER_GIVEN_UP
    elif _agreed_on(customer, conflict, found):
        yield reasons.COLLABORATES


def _still_proves(situation: Situation, proof: Evidence, theirs: set[str]) -> bool:
    """Say whether a proof of a second customer holds while the first has these identifiers.

    What names none claims that customer, which will for ever be the same as the first.
    """
    if proof.act is None:
        return situation.version >= 3
    return proof.act in theirs


def _agreed_on(customer: Admitted, conflict: Conflict, found: Decisions) -> bool:
    """Say whether all other parties of a conflict collaborate, the last of them by ``found``.

    Who collaborates may follow up; a deal takes an agreed share of the credit. Who claims the
    customer wants more than either.
    """
    new = [each for each in found if isinstance(each, decisions.CollaboratorAdded)]
    if not new or conflict.kind == conflicts.COMPETING_CLAIMS:
        return False
    before = standing(customer.collaborations, new[0].since)
    theirs: list[Collaboration | decisions.CollaboratorAdded] = [*new, *before]
    agreed = {
        each.person
        for each in theirs
        if each.site is None and (each.share is not None or conflict.kind == conflicts.FOLLOW_UP)
    }
    return agreed.issuperset(conflict.parties[1:])
