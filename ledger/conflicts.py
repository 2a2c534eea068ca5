"""Conflicts 撞单: two parties on one customer, the requests that prove it, and who rules. Pure.

At most one conflict of a kind is open at a customer; what proves it further is added to it. One
about the members of a group stands at its root, whose rulings a group keeps (ledger/groups.py). The
head of the nearest common territory of its parties rules, or whoever stands in for that head:
no party does, nor anybody who acts for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import islice

from ledger.approving import entitled, excluded
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Approver
from ledger.organisation import OrganisationAt

COMPETING_CLAIMS, FOLLOW_UP, DEAL = "competing_claims", "follow_up", "deal"
GROUP, IDENTIFIER = "group", "identifier"
ALLOW, GONE = "allow", "gone"
# So many requests prove a conflict, and besides one for each party that joins later; whoever rules
# looks at no more.
EVIDENCE_MAX = 20
# So many are named as parties of a conflict; of a group there may be more owners.
PARTIES_MAX = 200
# So many rulings that allow something are remembered, the last ones, while one owns the customer.
ALLOWED_MAX = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """A request that proves a conflict: its position, whose it was, the follow-up or deal in it.

    Where it names an identifier that another customer has, ``act`` is that (see ``claimed``).
    """

    request: int
    person: str
    act: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long a ruling has been awaited: ``since`` it was asked for, or passed on (UTC).

    ``policy`` (its number) and ``import_id`` are those of the opening. ``passed_on`` counts how
    often it was passed on upwards; ``reminded`` is when those who may rule now were (UTC).
    """

    since: datetime
    policy: int
    import_id: str | None = None
    passed_on: int = 0
    reminded: datetime | None = None


@dataclass(frozen=True, slots=True)
class Conflict:
    """An open conflict of a ``kind``; ``parties`` begin with the owner."""

    conflict: str
    kind: str
    parties: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class Allowed:
    """A ruling that these parties may go on: of this kind there is no new conflict among them."""

    kind: str
    parties: tuple[str, ...]


Conflicts = tuple[Conflict, ...]


def of(conflicts: Conflicts, conflict: str) -> Conflict | None:
    """Return an open conflict by its id."""
    return next((each for each in conflicts if each.conflict == conflict), None)


def of_kind(conflicts: Conflicts, kind: str) -> Conflict | None:
    """Return the open conflict of a kind."""
    return next((each for each in conflicts if each.kind == kind), None)


def is_allowed(allowed: Iterable[Allowed], kind: str, owner: str, person: str) -> bool:
    """Say whether a ruling lets these two go on."""
    return any(each.kind == kind and {owner, person} <= set(each.parties) for each in allowed)


def claimed(system: str, key: str) -> str:
    """Return how an identifier is named in the evidence of a conflict about it."""
    return f"{system}:{key}"


def evidence_of(cause: Event, identifiers: Mapping[str, str]) -> Evidence:
    """Return what a request proves; ``identifiers`` are those of the customer in conflict."""
    data = cause.data
    match data:
        case requests.ClaimFiled():
            return Evidence(cause.position, data.claimant)
        case requests.FollowUpLogged():
            return Evidence(cause.position, data.person, data.follow_up)
        case requests.DealRecorded():
            return Evidence(cause.position, data.person, data.deal)
        case requests.RegistrationRequested() | requests.CustomerChangeRequested():
            taken = (
                claimed(each.system, each.key)
                for each in data.identifiers
                if identifiers.get(each.system) == each.key
            )
            return Evidence(cause.position, cause.actor, next(taken, None))
        case _:  # whatever gave a member of a group another owner
            return Evidence(cause.position, cause.actor)


# --- who rules ---------------------------------------------------------------------------------


def barred(
    parties: tuple[str, ...], organisation: OrganisationAt, day: date, version: int
) -> frozenset[str]:
    """Return who must not rule: the parties, and whoever acts for them."""
    return excluded(parties, frozenset(), organisation, day, version)


def rulers(
    parties: tuple[str, ...],
    passed_on: int,
    organisation: OrganisationAt,
    day: date,
    version: int,
) -> tuple[str, ...]:
    """Return, sorted, who may rule among ``parties`` on ``day``, by ``version`` of the decider."""
    head = Approver("head", territory=common_territory(parties, organisation))
    theirs = barred(parties, organisation, day, version)
    found = entitled(head, passed_on, theirs, organisation, day)
    return tuple(sorted(found))


def common_territory(parties: tuple[str, ...], organisation: OrganisationAt) -> str | None:
    """Return the nearest territory above all parties who are at home in one; else None."""
    people = [organisation.person(each) for each in parties]
    homes = [each.territory for each in people if each and each.territory]
    if not homes:
        return None
    common: str | None = homes[0]
    for home in homes[1:]:
        common = organisation.common(common, home)
    return common


# --- folding -----------------------------------------------------------------------------------

Change = (
    decisions.ConflictOpened
    | decisions.ConflictEvidenceAdded
    | decisions.RulingReminded
    | decisions.RulingPassedOn
    | decisions.ConflictClosed
)
"""The decisions that change what is open."""


def waiting_after(
    before: Waiting, decision: decisions.RulingReminded | decisions.RulingPassedOn, at: datetime
) -> Waiting:
    """Fold a reminder, or a passing on upwards, that holds ``at`` a moment (UTC)."""
    if isinstance(decision, decisions.RulingReminded):
        return replace(before, reminded=at)
    return replace(before, since=at, passed_on=before.passed_on + 1, reminded=None)


def after(
    before: Conflicts,
    decision: Change,
    cause: Event,
    effective: datetime,
    organisation: OrganisationAt,
    identifiers: Mapping[str, str],
) -> Conflicts:
    """Fold a decision about a conflict, made for the request ``cause``.

    ``identifiers`` are those of the customer at which it stands.
    """
    if isinstance(decision, decisions.ConflictOpened):
        waiting = Waiting(effective, organisation.policy.number, cause.import_id)
        proof = (evidence_of(cause, identifiers),)
        new = Conflict(decision.conflict, decision.kind, decision.parties, proof, waiting)
        return (*before, new)
    if isinstance(decision, decisions.ConflictClosed):
        return tuple(each for each in before if each.conflict != decision.conflict)

    def folded(each: Conflict) -> Conflict:
        if not isinstance(decision, decisions.ConflictEvidenceAdded):
            return replace(each, waiting=waiting_after(each.waiting, decision, effective))
        return replace(
            each,
            parties=(*each.parties, *decision.parties),
            evidence=_proved(each, evidence_of(cause, identifiers), decision),
        )

    return tuple(folded(each) if each.conflict == decision.conflict else each for each in before)


def _proved(
    before: Conflict, new: Evidence, decision: decisions.ConflictEvidenceAdded
) -> tuple[Evidence, ...]:
    """Return what proves a conflict from now on; how a new party came to it is always kept.

    Of a group it is not: whose its members are proves that.
    """
    if decision.parties and before.kind != GROUP:
        return (*before.evidence, new)
    return (*before.evidence, new)[:EVIDENCE_MAX]


def allowed_after(
    before: tuple[Allowed, ...], conflicts: Conflicts, decision: decisions.ConflictClosed
) -> tuple[Allowed, ...]:
    """Fold what a ruling allows; ``conflicts`` are those that were open before it."""
    found = of(conflicts, decision.conflict)
    if found is None or decision.outcome != ALLOW or found.kind == GROUP:
        return before
    return tuple(islice((Allowed(found.kind, found.parties), *before), ALLOWED_MAX))


def allowing_group(
    conflicts: Conflicts, decision: decisions.ConflictClosed
) -> tuple[str, ...] | None:
    """Return the parties of a group's conflict that a ruling allows; None where it is not that."""
    found = of(conflicts, decision.conflict)
    if found is None or decision.outcome != ALLOW or found.kind != GROUP:
        return None
    return found.parties


def without(conflicts: Conflicts, act: str) -> Conflicts:
    """Return the conflicts as they are when a follow-up or deal no longer counts."""
    return tuple(
        replace(each, evidence=tuple(e for e in each.evidence if e.act != act))
        for each in conflicts
    )
