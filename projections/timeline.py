"""A customer's history: every request and decision that concerns it, in the order of the log.

What was asked of a duplicate stands at the customer that it was decided on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import orjson
from psycopg import Connection

from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Money, Sealed
from ledger.store.arrays import int8_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, put_rows, write
from projections.columns import instants, repeated, texts
from projections.groups import ABOVE

PAGE = 200
POSITION_MAX = 2**63 - 1

_TABLE = Table(
    "timeline",
    """
    position  bigint NOT NULL,
    customer  text COLLATE "C" NOT NULL,
    event     text NOT NULL,
    actor     text COLLATE "C" NOT NULL,
    effective timestamptz NOT NULL,
    recorded  timestamptz NOT NULL,
    request   bigint,
    person    text COLLATE "C",
    code      text,
    amount    numeric,
    currency  text,
    details   jsonb,
    words     jsonb,
    PRIMARY KEY (position, customer)
    """,
    ("CREATE INDEX timeline_customer ON timeline (customer, position)",),
)
_ADD = """
INSERT INTO timeline (
    position, customer, event, actor, effective, recorded, request, person, code, amount,
    currency, details, words)
SELECT r.position, r.customer, r.event, r.actor, r.effective, r.recorded, r.request, r.person,
    r.code, r.amount::numeric, r.currency, r.details::jsonb, r.words::jsonb
FROM unnest(
    %b::bigint[], %b::text[], %b::text[], %b::text[], %b::timestamptz[], %b::timestamptz[],
    %b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
    AS r(position, customer, event, actor, effective, recorded, request, person, code, amount,
         currency, details, words)
"""
_PACKERS = (
    *(int8_array, texts, repeated, texts, instants, instants, int8_array, texts),
    *(repeated, repeated, repeated, texts, texts),
)
_MOVE = """
UPDATE timeline t SET customer = r.customer
FROM jsonb_to_recordset(%s::jsonb) AS r(position bigint, customer text)
WHERE t.position = r.position AND t.customer <> r.customer
"""


class _Said(NamedTuple):
    """What an event says: whom it concerns, a code, a value, more of it, its fields of text."""

    person: str | None = None
    code: str | None = None
    value: Money | None = None
    details: dict[str, Any] | None = None
    words: tuple[str, ...] = ()


def _known(**details: Any) -> dict[str, Any] | None:
    """Return those details that are said."""
    return {
        name: value for name, value in details.items() if value is not None and value != ()
    } or None


def _registration(data: requests.RegistrationRequested) -> _Said:
    details = _known(kind=data.kind, parent=data.parent, territory=data.territory)
    return _Said(details=details, words=("name",))


def _change(data: requests.CustomerChangeRequested) -> _Said:
    changed = [
        *(word for word in ("parent", "territory") if getattr(data, word) is not None),
        *(f"attribute:{name}" for name in data.attributes),
        *(f"identifier:{each.system}" for each in data.identifiers),
        *(f"foreign_id:{each.system}" for each in data.foreign_ids),
        *(f"contact:{each.contact}" for each in data.contacts),
        *(f"site:{each.site}" for each in data.sites),
    ]
    details = _known(
        changed=tuple(changed),
        removed=data.removed,
        closed=data.closed,
        parent=data.parent,
        territory=data.territory,
    )
    return _Said(details=details, words=("name",))


def _follow_up(data: requests.FollowUpLogged) -> _Said:
    details = _known(
        follow_up=data.follow_up,
        channel=data.channel,
        next_on=data.next_on,
        contact=data.contact,
        site=data.site,
    )
    return _Said(data.person, details=details, words=("note", "agreed"))


def _follow_up_correction(data: requests.FollowUpCorrected) -> _Said:
    details = _known(
        follow_up=data.follow_up, channel=data.channel, next_on=data.next_on, at=data.at
    )
    texts = ("reason", "note", "agreed")
    return _Said(code=data.reason_code, details=details, words=texts)


def _deal(data: requests.DealRecorded) -> _Said:
    details = _known(deal=data.deal, outcome=data.outcome, product=data.product)
    return _Said(data.person, value=data.value, details=details)


def _deal_correction(data: requests.DealCorrected) -> _Said:
    details = _known(deal=data.deal, outcome=data.outcome, product=data.product)
    return _Said(code=data.reason_code, value=data.value, details=details, words=("reason",))


def _granted(data: decisions.OwnershipGranted) -> _Said:
    details = _known(
        territory=data.customer_territory,
        owner_territory=data.owner_territory,
        protected_until=data.protected_until,
        limits_waived=data.limits_waived,
    )
    return _Said(data.owner, details=details)


def _assigned(data: decisions.OwnershipAssigned) -> _Said:
    details = _known(
        assigned_by=data.assigned_by,
        territory=data.customer_territory,
        owner_territory=data.owner_territory,
        protected_until=data.protected_until,
    )
    return _Said(data.owner, details=details)


def _transferred(data: decisions.OwnershipTransferred) -> _Said:
    details = _known(
        former_owner=data.former_owner,
        approval=data.approval,
        territory=data.customer_territory,
        owner_territory=data.owner_territory,
        protected_until=data.protected_until,
        hand_over=data.hand_over,
    )
    return _Said(data.owner, details=details)


def _approval_opened(data: decisions.ApprovalOpened) -> _Said:
    details = _known(
        approval=data.approval,
        purpose=data.purpose,
        requester=data.requester,
        owner=data.owner,
        steps=len(data.steps),
        asked=data.asked,
        hand_over=data.hand_over,
    )
    return _Said(data.receiver, data.reason_code, details=details)


def _hand_over_line(data: decisions.HandOverLineRefused) -> _Said:
    details = _known(hand_over=data.hand_over, owner=data.owner, retry_at=data.retry_at)
    return _Said(data.receiver, data.reason, details=details)


def _transfer_refused(data: decisions.TransferRefused) -> _Said:
    details = _known(approval=data.transfer, owner=data.owner, retry_at=data.retry_at)
    return _Said(data.receiver, data.reason, details=details)


def _collaboration(data: requests.CollaborationRequested) -> _Said:
    details = _known(
        collaboration=data.collaboration,
        role=data.role,
        share=None if data.share is None else f"{data.share:f}",
        from_day=data.from_day,
        until_day=data.until_day,
        site=data.site,
    )
    return _Said(data.person, data.reason_code, details=details, words=("reason",))


def _collaborator(data: decisions.CollaboratorAdded) -> _Said:
    details = _known(
        collaboration=data.collaboration,
        role=data.role,
        share=None if data.share is None else f"{data.share:f}",
        since=data.since,
        until=data.until,
        site=data.site,
    )
    return _Said(data.person, details=details)


def _ruling(data: requests.RulingGiven) -> _Said:
    details = _known(
        conflict=data.conflict,
        ruling=data.ruling,
        parts=tuple((each.person, each.share and f"{each.share:f}") for each in data.parts),
        people=tuple(each.person for each in data.parts),
    )
    return _Said(data.receiver, data.reason_code, details=details, words=("reason",))


def _conflict(data: decisions.ConflictOpened) -> _Said:
    details = _known(
        conflict=data.conflict,
        kind=data.kind,
        people=data.parties,
        evidence=data.evidence,
        asked=data.asked,
    )
    return _Said(details=details)


def _evidence(data: decisions.ConflictEvidenceAdded) -> _Said:
    details = _known(
        conflict=data.conflict, people=data.parties, evidence=data.evidence, asked=data.asked
    )
    return _Said(details=details)


def _claim_refused(data: decisions.ClaimRefused) -> _Said:
    details = _known(owner=data.owner, retry_at=data.retry_at)
    return _Said(data.claimant, data.reason, details=details)


_READERS: dict[str, Callable[[Any], _Said]] = {
    "RegistrationRequested.v1": _registration,
    "CustomerChangeRequested.v1": _change,
    "ClaimFiled.v1": lambda data: _Said(data.claimant, words=("note",)),
    "ReleaseRequested.v1": lambda data: _Said(code=data.reason_code, words=("reason",)),
    "AssignmentRequested.v1": lambda data: _Said(data.assignee, words=("reason",)),
    "TransferRequested.v1": lambda data: _Said(
        data.receiver,
        data.reason_code,
        data.value,
        {"approval": data.transfer},
        ("reason",),
    ),
    "TransferWithdrawn.v1": lambda data: _Said(
        code=data.reason_code, details={"approval": data.approval}, words=("reason",)
    ),
    "ApprovalGiven.v1": lambda data: _Said(details={"approval": data.approval}, words=("comment",)),
    "ApprovalDenied.v1": lambda data: _Said(
        code=data.reason_code, details={"approval": data.approval}, words=("comment",)
    ),
    "CollaborationRequested.v1": _collaboration,
    "CollaborationEndRequested.v1": lambda data: _Said(
        code=data.reason_code, details={"collaboration": data.collaboration}, words=("reason",)
    ),
    "RulingGiven.v1": _ruling,
    "FollowUpLogged.v1": _follow_up,
    "DealRecorded.v1": _deal,
    "FollowUpCorrected.v1": _follow_up_correction,
    "FollowUpVoided.v1": lambda data: _Said(
        code=data.reason_code, details={"follow_up": data.follow_up}, words=("reason",)
    ),
    "DealCorrected.v1": _deal_correction,
    "DealVoided.v1": lambda data: _Said(
        code=data.reason_code, details={"deal": data.deal}, words=("reason",)
    ),
    "RequestUnparked.v1": lambda data: _Said(
        details={"request": data.request, "decider": data.decider}
    ),
    "DeadlineReached.v1": lambda data: _Said(
        code=data.kind, details={"subject": data.subject, "due": data.due}
    ),
    "RecycleHoldRequested.v1": lambda data: _Said(
        code=data.reason_code, details={"until": data.until}, words=("reason",)
    ),
    "GroupReviewRequested.v1": lambda data: _Said(),
    "StandInRequested.v1": lambda data: _Said(
        data.person,
        data.reason_code,
        details={"stand_in": data.stand_in, "until": data.until},
        words=("reason",),
    ),
    "StandInEndRequested.v1": lambda data: _Said(
        code=data.reason_code, details={"stand_in": data.stand_in}, words=("reason",)
    ),
    "CustomerAdmitted.v1": lambda data: _Said(
        details=_known(territory=data.territory, parent=data.parent)
    ),
    "RegistrationRefused.v1": lambda data: _Said(
        code=data.reason,
        details=_known(existing=data.existing, identifier_system=data.identifier_system),
    ),
    "CustomerChanged.v1": lambda data: _Said(details=_known(territory=data.territory)),
    "ChangeRefused.v1": lambda data: _Said(
        code=data.reason, details=_known(fields=data.fields, existing=data.existing)
    ),
    "OwnershipGranted.v1": _granted,
    "ClaimRefused.v1": _claim_refused,
    "OwnershipAssigned.v1": _assigned,
    "AssignmentRefused.v1": lambda data: _Said(
        data.assignee, data.reason, details=_known(owner=data.owner)
    ),
    "OwnershipReleased.v1": lambda data: _Said(
        data.owner, data.reason_code, details=_known(territory=data.territory)
    ),
    "ReleaseRefused.v1": lambda data: _Said(data.owner, data.reason),
    "TransferRefused.v1": _transfer_refused,
    "ApprovalOpened.v1": _approval_opened,
    "HandOverLineRefused.v1": _hand_over_line,
    "StepAnswered.v1": lambda data: _Said(
        data.person,
        details={"approval": data.approval, "step": data.step, "agreed": data.agreed},
    ),
    "AnswerNotCounted.v1": lambda data: _Said(
        data.person, data.reason, details={"approval": data.approval}
    ),
    "StepOpened.v1": lambda data: _Said(
        details=_known(approval=data.approval, step=data.step, asked=data.asked)
    ),
    "StepReminded.v1": lambda data: _Said(
        details=_known(approval=data.approval, step=data.step, asked=data.asked)
    ),
    "StepPassedOn.v1": lambda data: _Said(
        details=_known(approval=data.approval, step=data.step, asked=data.asked)
    ),
    "RecycleWarned.v1": lambda data: _Said(
        data.owner,
        data.because,
        details=_known(step=data.step, goes=data.goes, asked=data.told),
    ),
    "CustomerRecycled.v1": lambda data: _Said(
        data.owner, data.because, details=_known(territory=data.territory, days=data.days)
    ),
    "RecycleHeld.v1": lambda data: _Said(data.owner, details={"until": data.until}),
    "GroupReviewRefused.v1": lambda data: _Said(code=data.reason),
    "RecycleHoldRefused.v1": lambda data: _Said(data.owner, data.reason),
    "StandInNamed.v1": lambda data: _Said(
        data.person,
        details={"stand_in": data.stand_in, "owner": data.owner, "until": data.until},
    ),
    "StandInEnded.v1": lambda data: _Said(
        data.person, data.reason_code, details={"stand_in": data.stand_in}
    ),
    "StandInRefused.v1": lambda data: _Said(
        data.person, data.reason, details=_known(stand_in=data.stand_in, owner=data.owner)
    ),
    "OwnershipTransferred.v1": _transferred,
    "ApprovalClosed.v1": lambda data: _Said(
        code=data.reason, details={"approval": data.approval, "outcome": data.outcome}
    ),
    "CollaboratorAdded.v1": _collaborator,
    "CollaborationRefused.v1": lambda data: _Said(
        data.person,
        data.reason,
        details=_known(collaboration=data.collaboration, owner=data.owner),
    ),
    "CollaborationsEnded.v1": lambda data: _Said(
        code=data.reason_code,
        details=_known(collaborations=data.collaborations, people=data.people),
    ),
    "ConflictOpened.v1": _conflict,
    "ConflictEvidenceAdded.v1": _evidence,
    "ConflictClosed.v1": lambda data: _Said(
        data.receiver,
        data.reason_code,
        details=_known(conflict=data.conflict, outcome=data.outcome, ruled_by=data.ruled_by),
    ),
    "RulingReminded.v1": lambda data: _Said(
        details=_known(conflict=data.conflict, asked=data.asked)
    ),
    "RulingPassedOn.v1": lambda data: _Said(
        details=_known(conflict=data.conflict, asked=data.asked)
    ),
    "RulingRefused.v1": lambda data: _Said(
        data.person, data.reason, details={"conflict": data.conflict}
    ),
    "Noted.v1": lambda data: _Said(
        data.owner, data.remark, details={"token_of": data.token_of} if data.token_of else None
    ),
    "CorrectionRefused.v1": lambda data: _Said(code=data.reason, details={"act": data.act}),
    "RequestParked.v1": lambda data: _Said(details={"request": data.request, "error": data.error}),
}

_EVENTS = {name: name.partition(".")[0] for name in _READERS}


@dataclass(frozen=True)
class Timeline:
    """The projection of customers' histories."""

    unsealer: Unsealer
    name: str = "timeline"
    version: int = 2
    tables: Sequence[Table] = (_TABLE,)
    handles: frozenset[str] = frozenset(_READERS)
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        said = [_READERS[event.name](event.data) for event, _ in changes]
        load_keys(self.unsealer, _keys(changes, said))
        customers: dict[int, str] = {}
        hits: list[tuple[Any, ...]] = []
        moved: list[dict[str, Any]] = []
        for (event, _), what in zip(changes, said, strict=True):
            customer = customers[event.position] = event.data.customer
            cause = event.envelope.get("causation")
            if cause is None or event.ordinal:
                continue  # what it brings besides may concern others, such as the root of a group
            if cause in customers:
                customers[cause] = customer
            else:
                moved.append({"position": cause, "customer": customer})
            if event.name == "RegistrationRefused.v1" and event.data.existing is not None:
                # That somebody entered it again concerns the customer that exists, too.
                details = {**(what.details or {}), "duplicate": customer}
                about = what._replace(details=details)
                hits.append(self._row(event, about, event.data.existing))
        rows = [
            self._row(event, what, customer)
            for (event, _), what, customer in zip(changes, said, customers.values(), strict=True)
        ]
        put_rows(connection, _ADD, _PACKERS, [*rows, *hits])
        write(connection, _MOVE, moved)

    def _row(self, event: Event, said: _Said, customer: str) -> tuple[Any, ...]:
        get = event.envelope.get
        person, code, value, details, free_texts = said
        return (
            event.position,
            customer,
            _EVENTS[event.name],
            get("actor", "enforcer"),
            event.effective,
            event.recorded,
            get("causation"),
            person,
            code,
            value and f"{value.amount:f}",
            value and value.currency,
            details and orjson.dumps(details, option=orjson.OPT_UTC_Z).decode(),
            self._words(event, free_texts) if free_texts else None,
        )

    def _words(self, event: Event, names: tuple[str, ...]) -> str | None:
        data, words = event.data, {}
        for name in names:
            text = getattr(data, name)
            if text is not None:
                words[name] = self.unsealer.open_text(event, name, text)
        return orjson.dumps(words).decode() if words else None


def _keys(changes: Sequence[Change], said: Sequence[_Said]) -> Iterator[str]:
    for change, what in zip(changes, said, strict=True):
        for name in what.words:
            text = getattr(change.event.data, name)
            if isinstance(text, Sealed):
                yield text.key


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One event of a customer's history. Times are UTC.

    ``event`` is its name without the version. ``actor`` is whose act it was (``enforcer`` for
    decisions), ``request`` the position of a decision's request, ``person`` the person concerned
    (claimant, owner, assignee, who followed up or made the deal), ``code`` a reason or remark as
    ledger/reasons.py lists them. ``words`` holds the free text by its field: None where erased.
    """

    position: int
    customer: str
    event: str
    actor: str
    effective: datetime
    recorded: datetime
    request: int | None
    person: str | None
    code: str | None
    value: Money | None
    details: Mapping[str, Any]
    words: Mapping[str, str | None]


_COLUMNS = """
SELECT position, customer, event, actor, effective, recorded, request, person, code, amount,
    currency, details, words
FROM projections.timeline
"""
_ONWARDS = f"{_COLUMNS} WHERE customer = %s AND position > %s ORDER BY position LIMIT %s"
_BACKWARDS = f"{_COLUMNS} WHERE customer = %s AND position < %s ORDER BY position DESC LIMIT %s"
_OF_GROUPS = f"""{_COLUMNS}
WHERE customer = ANY({ABOVE}) AND position < %(before)s
    AND details->>'conflict' IN (
        SELECT conflict FROM projections.conflicts WHERE kind = 'group' AND customer = ANY({ABOVE})
    )
ORDER BY position DESC LIMIT %(limit)s
"""  # noqa: S608  # constants


def history(
    connection: Connection[Any], customer: str, *, after: int = 0, limit: int = PAGE
) -> list[TimelineEntry]:
    """Return a customer's history in order of position, behind position ``after``."""
    return _entries(connection, _ONWARDS, (customer, after, limit))


def latest(
    connection: Connection[Any], customer: str, *, before: int = POSITION_MAX, limit: int = PAGE
) -> list[TimelineEntry]:
    """Return a customer's history from the newest back, before position ``before``."""
    return _entries(connection, _BACKWARDS, (customer, before, limit))


def latest_of_groups(
    connection: Connection[Any], customer: str, *, before: int = 2**63 - 1, limit: int = PAGE
) -> list[TimelineEntry]:
    """Return, from the newest back, what became of conflicts of the group that a customer is in.

    They stand in the history of the group's root.
    """
    named = {"customer": customer, "before": before, "limit": limit}
    rows = connection.execute(_OF_GROUPS.encode(), named, binary=True)
    return list(map(_entry, rows))


def at_positions(connection: Connection[Any], positions: Sequence[int]) -> list[TimelineEntry]:
    """Return the entries at these positions, at whichever customer, in order."""
    statement = f"{_COLUMNS} WHERE position = ANY(%s) ORDER BY position, customer"
    rows = connection.execute(statement.encode(), (list(positions),), binary=True)
    return list(map(_entry, rows))


def _entries(
    connection: Connection[Any], statement: str, parameters: tuple[str, int, int]
) -> list[TimelineEntry]:
    rows = connection.execute(statement.encode(), parameters, binary=True)
    return list(map(_entry, rows))


def _entry(row: Sequence[Any]) -> TimelineEntry:
    return TimelineEntry(*[*row[:9], _money(row[9], row[10]), row[11] or {}, row[12] or {}])


def _money(amount: Decimal | None, currency: str | None) -> Money | None:
    return None if amount is None or currency is None else Money(amount, currency)
