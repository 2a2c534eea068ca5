"""What is kept of a customer to tell of it: as of one position, folded from the log. Pure.

A decision says neither by which ids other systems know the customer nor who owned it before, and
the read models may stand further on. So this is kept beside the checkpoint of the publisher and
moves with it: what is told of a position comes out the same at each sending.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from stdnum.cn import ric

from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.values import ForeignId

ADMITTED = "admitted"
CLAIMED = "claimed"
OPENING_BALANCE = "opening_balance"
ASSIGNED = "assigned"
TRANSFERRED = "transferred"

# What says more than whose record it is: a mobile number, with or without the country.
_MOBILE = re.compile(r"(\+?86|0086)?1[3-9]\d{9}")


@dataclass(frozen=True, slots=True)
class Awaited:
    """What awaits approval, for what, and why it was asked for."""

    approval: str
    purpose: str
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a customer stands; ``version`` and ``position`` are those of what made it so.

    ``reason`` is why the customer is owned or free. ``awaited`` makes nothing so by itself.
    """

    individual: bool
    foreign_ids: tuple[ForeignId, ...]
    since: datetime
    reason: str
    version: int
    position: int
    owner: str | None = None
    former_owner: str | None = None
    protected_until: datetime | None = None
    awaited: tuple[Awaited, ...] = ()

    def awaited_as(self, approval: str) -> Awaited | None:
        """Return what is awaited under an id, None where nothing is."""
        return next((each for each in self.awaited if each.approval == approval), None)


def known_as(given: Iterable[ForeignId], *, of_a_person: bool) -> tuple[ForeignId, ...]:
    """Return the foreign ids that may be told, sorted, each once.

    Of a natural person those are left out that are personal by their form: mobile numbers, e-mail
    addresses, numbers of identity cards.
    """
    kept = {each for each in given if not (of_a_person and _is_personal(each.value))}
    return tuple(sorted(kept, key=lambda each: (each.system, each.value)))


def _is_personal(value: str) -> bool:
    compact = value.translate({ord(each): None for each in " -()"})
    return "@" in value or bool(_MOBILE.fullmatch(compact)) or ric.is_valid(compact)


def after(standing: Standing | None, event: Event, cause: Event) -> Standing | None:
    """Return how the customer of a decision stands after it; None where it was never admitted."""
    data = event.data
    if isinstance(data, decisions.CustomerAdmitted):
        individual = data.kind == "individual"
        return Standing(
            individual,
            known_as(cause.data.foreign_ids, of_a_person=individual),
            event.effective,
            ADMITTED,
            event.version,
            event.position,
        )
    if standing is None:
        return None
    match data:
        case decisions.CustomerChanged():
            more = known_as(
                (*standing.foreign_ids, *cause.data.foreign_ids), of_a_person=standing.individual
            )
            if more == standing.foreign_ids:
                return standing
            return replace(
                standing, foreign_ids=more, version=event.version, position=event.position
            )
        case decisions.OwnershipGranted():
            reason = OPENING_BALANCE if data.opening else CLAIMED
            return _owned(standing, event, data.owner, data.protected_until, reason)
        case decisions.OwnershipAssigned():
            return _owned(standing, event, data.owner, data.protected_until, ASSIGNED)
        case decisions.OwnershipTransferred():
            reason = _why_transferred(standing, data.approval, cause)
            return _owned(standing, event, data.owner, data.protected_until, reason)
        case decisions.OwnershipReleased():
            return _owned(standing, event, None, None, data.reason_code)
        case decisions.CustomerRecycled():
            return _owned(standing, event, None, None, data.because)
        case decisions.ApprovalOpened():
            opened = Awaited(data.approval, data.purpose, data.reason_code)
            return replace(standing, awaited=(*standing.awaited, opened))
        case decisions.ApprovalClosed():
            left = tuple(each for each in standing.awaited if each.approval != data.approval)
            return replace(standing, awaited=left)
        case _:
            return standing


def _owned(
    standing: Standing,
    event: Event,
    owner: str | None,
    protected_until: datetime | None,
    reason: str,
) -> Standing:
    return replace(
        standing,
        owner=owner,
        # Of a customer that was free for a while the last one who owned it.
        former_owner=standing.owner or standing.former_owner,
        since=event.effective,
        protected_until=protected_until,
        reason=reason,
        version=event.version,
        position=event.position,
    )


def _why_transferred(standing: Standing, approval: str, cause: Event) -> str:
    """Return why the transfer was asked for: those who approve it say nothing of that."""
    awaited = standing.awaited_as(approval)
    if awaited is not None:
        return awaited.reason
    return getattr(cause.data, "reason_code", TRANSFERRED)
