"""Deadlines: what falls due next at a customer, and when. Pure.

The clock asks for what is due by the database's time and records it as a request; the decider asks
again, by the request's own recorded time, whether it really was. Each deadline is counted from the
recorded time of what was decided before it, so that a clock which has slept goes on in order, and
each warning runs its full time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from ledger.approving import Approval
from ledger.canonical import instant
from ledger.conflicts import Waiting
from ledger.customer import Admitted, open_approvals
from ledger.organisation import OrganisationAt
from ledger.recycling import Fall, fall_of

STEP_REMINDER = "step_reminder"
PASSING_ON = "step_pass_on"
APPROVAL_EXPIRY = "approval_expiry"
RULING_REMINDER = "ruling_reminder"
RULING_PASSING_ON = "ruling_pass_on"
RECYCLE_WARNING = "recycle_warning"
RECYCLE = "recycle"

CLOCK = "clock"
"""The caller and actor of deadlines: nobody else may record them."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """What falls due, about which subject, and when (UTC).

    The subject is an approval, a conflict, or a customer and since when it is owned.
    """

    kind: str
    subject: str
    due: datetime


def request_id(deadline: Deadline, again: int | None = None) -> str:
    """Return the request id of a deadline: two clocks that raise it record one request.

    ``again`` is the position at which it was raised before, where that came to nothing: what was
    put off may well be put back to the very moment of then, and is one more request.
    """
    name = f"deadline:{deadline.kind}:{deadline.subject}:{instant(deadline.due)}"
    return name if again is None else f"{name}:{again}"


def of_approval(approval: Approval, organisation: OrganisationAt) -> Deadline | None:
    """Return what falls due next of something that awaits approval; None where nothing ever does.

    It goes by the policy with which it was opened. What an import brought counts from the import's
    closing on.
    """
    begun = _counting_from(approval.import_id, approval.opened, organisation)
    if begun is None:
        return None
    found = _approval_deadlines(approval, begun, organisation)
    # Of two at one moment the one that is named first, which is the end.
    return min(found, key=lambda each: each.due, default=None)


def of_ruling(conflict: str, waiting: Waiting, organisation: OrganisationAt) -> Deadline | None:
    """Return what falls due next of a conflict that awaits a ruling; None where nothing ever does.

    A ruling is reminded and passed on like a step of an approval, and never expires.
    """
    begun = _counting_from(waiting.import_id, waiting.since, organisation)
    if begun is None:
        return None
    figures = organisation.policy_numbered(waiting.policy).approval_deadlines
    since, reminded = max(waiting.since, begun), waiting.reminded
    if figures.remind_days is not None and reminded is None:
        due = organisation.days_after(since, figures.remind_days)
        return Deadline(RULING_REMINDER, conflict, due)
    if figures.pass_on_days is None:
        return None
    due = organisation.days_after(reminded or since, figures.patience_days)
    return Deadline(RULING_PASSING_ON, conflict, due)


def next_of(
    approvals: Iterable[Approval],
    rulings: Mapping[str, Waiting],
    organisation: OrganisationAt,
) -> Deadline | None:
    """Return what falls due next of all that a customer's approvals and conflicts await."""
    found = [
        *(of_approval(each, organisation) for each in approvals),
        *(of_ruling(name, waiting, organisation) for name, waiting in rulings.items()),
    ]
    dated = (each for each in found if each is not None)
    return min(dated, key=lambda each: (each.due, each.subject), default=None)


def next_at(
    name: str, customer: Admitted, organisation: OrganisationAt, now: datetime
) -> Deadline | None:
    """Return what falls due next of all at the customer ``name``, as things are ``now``."""
    return next_beside(fall_of(name, customer, organisation, now), customer, organisation)


def next_beside(
    fall: Fall | None, customer: Admitted, organisation: OrganisationAt
) -> Deadline | None:
    """Return what falls due next at a customer whose next step towards the pool is known."""
    rulings = {each.conflict: each.waiting for each in customer.conflicts}
    found = [
        next_of(open_approvals(customer), rulings, organisation),
        None if fall is None else of_fall(fall),
    ]
    dated = (each for each in found if each is not None)
    return min(dated, key=lambda each: (each.due, each.subject), default=None)


def of_fall(fall: Fall) -> Deadline:
    """Return the deadline at which a customer's next step towards the pool comes."""
    kind = RECYCLE if fall.step is None else RECYCLE_WARNING
    return Deadline(kind, fall.subject, fall.due)


def _counting_from(
    import_id: str | None, opened: datetime, organisation: OrganisationAt
) -> datetime | None:
    """Return from when on periods are counted; None while an import is open that brought it."""
    if import_id is None:
        return datetime.min.replace(tzinfo=opened.tzinfo)
    found = organisation.import_(import_id)
    return found.closed_at if found is not None else None


def _approval_deadlines(
    approval: Approval, begun: datetime, organisation: OrganisationAt
) -> Iterator[Deadline]:
    figures = organisation.policy_numbered(approval.policy).approval_deadlines
    name, reminded = approval.approval, approval.reminded
    since = max(approval.since, begun)
    if figures.expire_days is not None:
        ends = organisation.days_after(max(approval.opened, begun), figures.expire_days)
        told = reminded or (since if approval.step.passed_on else None)
        if told is not None:
            ends = max(ends, organisation.days_after(told, figures.patience_days))
        yield Deadline(APPROVAL_EXPIRY, name, ends)
    if figures.remind_days is not None and reminded is None:
        yield Deadline(STEP_REMINDER, name, organisation.days_after(since, figures.remind_days))
    elif figures.pass_on_days is not None:
        patience = organisation.days_after(reminded or since, figures.patience_days)
        yield Deadline(PASSING_ON, name, patience)
