"""Collaborations: who works on a customer beside its owner, when and with what share. Pure.

A customer's state holds those that stand or will, those that await an answer, and, since a late
follow-up may ask for them, those that ended lately.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import islice

from ledger import approving
from ledger.approving import Approval, Step
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.requests import CollaborationRequested
from ledger.organisation import OrganisationAt
from ledger.policy import LATE_FOLLOW_UP_DAYS_MAX

# Of those that ended lately so many are remembered, the last ones; more is no business.
ENDED_MAX = 32
# A day more than any policy looks back, for days of the organisation are not all of 24 hours.
_LATELY = timedelta(days=LATE_FOLLOW_UP_DAYS_MAX + 1)


@dataclass(frozen=True, slots=True)
class Collaboration:
    """``person`` collaborates in ``[since, until)`` (UTC), with ``site`` at that place only.

    ``share`` is the agreed percentage of the credit. While ``approval`` is there, it awaits an
    answer, and does not stand.
    """

    collaboration: str
    person: str
    role: str
    since: datetime
    until: datetime | None = None
    share: Decimal | None = None
    site: str | None = None
    approval: Approval | None = None

    def stands_at(self, moment: datetime) -> bool:
        """Say whether the person collaborates at a moment."""
        return self.approval is None and self.since <= moment and not self.is_over(moment)

    def is_over(self, moment: datetime) -> bool:
        """Say whether the period is over at a moment."""
        return self.until is not None and self.until <= moment


Collaborations = tuple[Collaboration, ...]


def collaborates(
    collaborations: Collaborations, person: str, moment: datetime, site: str | None
) -> bool:
    """Say whether somebody collaborates at a moment, at the customer as a whole or at ``site``."""
    return any(
        each.person == person and each.site in (None, site) and each.stands_at(moment)
        for each in collaborations
    )


def standing(collaborations: Collaborations, moment: datetime) -> Collaborations:
    """Return those that stand, or are to stand later."""
    return tuple(
        each for each in collaborations if each.approval is None and not each.is_over(moment)
    )


def awaiting(collaborations: Collaborations) -> Collaborations:
    """Return those that await an answer."""
    return tuple(each for each in collaborations if each.approval is not None)


def of(collaborations: Collaborations, collaboration: str) -> Collaboration | None:
    """Return a collaboration that is remembered."""
    return next((each for each in collaborations if each.collaboration == collaboration), None)


def largest_sum(collaborations: Iterable[Collaboration], new: Collaboration) -> Decimal:
    """Return the largest sum of the shares of ``new`` and those that stand beside it."""
    beside = [
        each
        for each in collaborations
        if each.share is not None
        and (each.until is None or new.since < each.until)
        and (new.until is None or each.since < new.until)
    ]
    # A sum grows only where one of them begins.
    begins = [new.since, *(each.since for each in beside if each.since > new.since)]
    own = new.share or Decimal(0)
    return own + max(
        sum((each.share or Decimal(0) for each in beside if each.stands_at(moment)), Decimal(0))
        for moment in begins
    )


def wanted(
    request: CollaborationRequested, effective: datetime, organisation: OrganisationAt
) -> Collaboration:
    """Return what a request asks for: from now on, or from a later day."""
    begins, ends = (
        None if day is None else organisation.start_of(day)
        for day in (request.from_day, request.until_day)
    )
    return Collaboration(
        request.collaboration,
        request.person,
        request.role,
        effective if begins is None else max(effective, begins),
        ends,
        request.share,
        request.site,
    )


# --- folding -----------------------------------------------------------------------------------


def is_about_one(before: Collaborations, decision: Step | decisions.ApprovalClosed) -> bool:
    """Say whether a decision about what awaits approval is about a collaboration."""
    if isinstance(decision, decisions.ApprovalOpened):
        return decision.purpose == approving.COLLABORATION
    return of(before, decision.approval) is not None


def answered(
    before: Collaborations,
    decision: Step | decisions.ApprovalClosed,
    cause: Event,
    effective: datetime,
    organisation: OrganisationAt,
) -> Collaborations:
    """Fold what becomes of one that awaits an answer; one that stands stays as it is."""
    if isinstance(decision, decisions.ApprovalClosed):
        return tuple(
            each
            for each in before
            if each.collaboration != decision.approval or each.approval is None
        )

    def folded(each: Collaboration) -> Collaboration:
        approval = approving.after(
            each.approval,
            decision,
            effective,
            policy=organisation.policy.number,
            import_id=cause.import_id,
        )
        return replace(each, approval=approval)

    if isinstance(decision, decisions.ApprovalOpened):
        return (*before, folded(wanted(cause.data, effective, organisation)))
    return tuple(
        folded(each) if each.collaboration == decision.approval else each for each in before
    )


def after(
    before: Collaborations,
    decision: decisions.CollaboratorAdded | decisions.CollaborationsEnded,
    effective: datetime,
    recorded: datetime,
) -> Collaborations:
    """Fold a beginning or end; ``recorded`` is when the request was that brings it."""
    if isinstance(decision, decisions.CollaborationsEnded):
        ended = decision.collaborations
        changed = tuple(
            replace(each, until=effective) if each.collaboration in ended else each
            for each in before
        )
    else:
        new = Collaboration(
            decision.collaboration,
            decision.person,
            decision.role,
            decision.since,
            decision.until,
            decision.share,
            decision.site,
        )
        others = (each for each in before if each.collaboration != decision.collaboration)
        changed = (*others, new)
    return _remembered(changed, recorded)


def _remembered(collaborations: Collaborations, recorded: datetime) -> Collaborations:
    """Return those that a request recorded from now on can still ask for."""
    over = [each for each in collaborations if each.approval is None and each.is_over(recorded)]
    lately = [each for each in over if each.until is None or each.until > recorded - _LATELY]
    latest = islice(
        sorted(lately, key=lambda each: each.until or recorded, reverse=True), ENDED_MAX
    )
    forgotten = {each.collaboration for each in over} - {each.collaboration for each in latest}
    return tuple(each for each in collaborations if each.collaboration not in forgotten)
