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

from ledger import reasons
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Money, Sealed
from ledger.store.arrays import int8_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, put_rows, write
from projections.columns import instants, repeated, texts

PAGE = 200

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
    )
    return _Said(data.receiver, data.reason_code, details=details)


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
        data.owner, data.because, details=_known(territory=data.territory)
    ),
    "RecycleHeld.v1": lambda data: _Said(data.owner, details={"until": data.until}),
    "RecycleHoldRefused.v1": lambda data: _Said(data.owner, data.reason),
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
    "Noted.v1": lambda data: _Said(data.owner, data.remark),
    "CorrectionRefused.v1": lambda data: _Said(code=data.reason, details={"act": data.act}),
    "RequestParked.v1": lambda data: _Said(details={"request": data.request, "error": data.error}),
}

_EVENTS = {name: name.partition(".")[0] for name in _READERS}


@dataclass(frozen=True)
class Timeline:
    """The projection of customers' histories."""

    unsealer: Unsealer
    name: str = "timeline"
    version: int = 1
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
            if cause is None:
                continue
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
            details and orjson.dumps(details).decode(),
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


def history(
    connection: Connection[Any], customer: str, *, after: int = 0, limit: int = PAGE
) -> list[TimelineEntry]:
    """Return a customer's history in order of position, behind position ``after``."""
    return _entries(connection, _ONWARDS, (customer, after, limit))


def latest(
    connection: Connection[Any], customer: str, *, before: int = 2**63 - 1, limit: int = PAGE
) -> list[TimelineEntry]:
    """Return a customer's history from the newest back, before position ``before``."""
    return _entries(connection, _BACKWARDS, (customer, before, limit))


def at_positions(
    connection: Connection[Any], customer: str, positions: Sequence[int]
) -> list[TimelineEntry]:
    """Return those entries of a customer's history that stand at these positions, in order."""
    statement = f"{_COLUMNS} WHERE customer = %s AND position = ANY(%s) ORDER BY position"
    rows = connection.execute(statement.encode(), (customer, list(positions)), binary=True)
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


def ids_named(entries: Sequence[TimelineEntry]) -> set[str]:
    """Return the ids of people, customers and territories that the entries' sentences name."""
    named = {each.actor for each in entries}
    for each in entries:
        named.update(filter(None, [each.person, *(each.details.get(key) for key in _NAMED)]))
        for several in ("asked", "people"):
            named.update(each.details.get(several, ()))
    return named


_NAMED = (
    *("owner", "former_owner", "assigned_by", "requester", "ruled_by"),
    *("parent", "territory", "existing", "duplicate"),
)


# --- sentences ---------------------------------------------------------------------------------

_Names = Mapping[str, str | None]


def sentence(entry: TimelineEntry, names: _Names) -> str:
    """Say an entry in one English sentence.

    ``names`` gives the names of people, customers and territories by id; an id that it does not
    know, or whose name was erased, stands for itself.
    """
    writer = _SENTENCES.get(entry.event)
    said = writer(entry, names) if writer else f"{entry.event}."
    texts = [
        f"{field}: {'(erased)' if text is None else text}"
        for field, text in entry.words.items()
        if field != "name"
    ]
    return f"{said} ({'; '.join(texts)})" if texts else said


def _name(names: _Names, key: str | None) -> str:
    return "nobody" if key is None else names.get(key) or key


def _pool(entry: TimelineEntry, names: _Names) -> str:
    territory = entry.details.get("territory")
    return f" in {_name(names, territory)}" if territory else ""


def _because(code: str | None) -> str:
    return reasons.SENTENCES.get(code or "", f"{(code or 'no reason').replace('_', ' ')}.")


def _plainly(code: str | None) -> str:
    return f" ({code.replace('_', ' ')})" if code else ""


def _worth(value: Money | None) -> str:
    return f" worth {value.amount:f} {value.currency}" if value else ""


def _on(entry: TimelineEntry, names: _Names) -> str:
    """Say for whom it was done, where that is somebody else than who did it."""
    same = entry.person is None or entry.person == entry.actor
    return "" if same else f" for {_name(names, entry.person)}"


def _say_registration(entry: TimelineEntry, names: _Names) -> str:
    name = entry.words.get("name", "") if "name" in entry.words else ""
    called = f" as {name}" if name else " under a name that was erased"
    parent = entry.details.get("parent")
    group = f", in the group of {_name(names, parent)}" if parent else ""
    return f"{_name(names, entry.actor)} registered the customer{called}{group}."


def _say_change(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    parts = [word.replace(":", " ") for word in details.get("changed", ())]
    if "name" in entry.words:
        parts.insert(0, f"the name to {entry.words['name'] or '(erased)'}")
    parts.extend(f"{word.replace(':', ' ')} (removed)" for word in details.get("removed", ()))
    if "closed" in details:
        parts.append("closed" if details["closed"] else "open again")
    asked = ", ".join(parts) or "nothing"
    return f"{_name(names, entry.actor)} asked to change the customer: {asked}."


def _say_follow_up(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    then = f", next on {details['next_on']}" if "next_on" in details else ""
    channel = details.get("channel", "unknown")
    who = _name(names, entry.person)
    by = "" if entry.person == entry.actor else f", entered by {_name(names, entry.actor)}"
    return f"{who} followed up by {channel}{then}{by}."


def _say_deal(entry: TimelineEntry, names: _Names) -> str:
    details = entry.details
    product = f" for {details['product']}" if "product" in details else ""
    who = _name(names, entry.person)
    by = "" if entry.person == entry.actor else f", entered by {_name(names, entry.actor)}"
    return f"{who} {details.get('outcome')} a deal{product}{_worth(entry.value)}{by}."


def _say_follow_up_correction(entry: TimelineEntry, names: _Names) -> str:
    changed = [f"{key} {entry.details[key]}" for key in ("channel", "next_on", "at")
               if key in entry.details]  # fmt: skip
    to = f": {', '.join(changed)}" if changed else ""
    who = _name(names, entry.actor)
    return f"{who} asked to correct a follow-up{_plainly(entry.code)}{to}."


def _say_deal_correction(entry: TimelineEntry, names: _Names) -> str:
    changed = [f"{key} {entry.details[key]}" for key in ("outcome", "product")
               if key in entry.details]  # fmt: skip
    if entry.value:
        changed.append(_worth(entry.value).strip())
    to = f": {', '.join(changed)}" if changed else ""
    return f"{_name(names, entry.actor)} asked to correct a deal{_plainly(entry.code)}{to}."


def _say_refused_registration(entry: TimelineEntry, names: _Names) -> str:
    duplicate, existing = entry.details.get("duplicate"), entry.details.get("existing")
    if duplicate:
        return f"The customer was entered a second time, as {_name(names, duplicate)}."
    meant = f" {_name(names, existing)} is meant." if existing else ""
    return f"The registration was refused: {_because(entry.code)}{meant}"


def _say_refused_claim(entry: TimelineEntry, names: _Names) -> str:
    owner, retry = entry.details.get("owner"), entry.details.get("retry_at")
    said = f"The claim of {_name(names, entry.person)} was refused: {_because(entry.code)}"
    if owner and owner != entry.person:
        said += f" The owner is {_name(names, owner)}."
    if retry:
        said += f" It may be tried again from {retry} on."
    return said


def _say_noted(entry: TimelineEntry, names: _Names) -> str:
    if entry.code is None:
        return "It was noted."
    owner = f" The owner is {_name(names, entry.person)}." if entry.person else ""
    return f"It was noted: {_because(entry.code)}{owner}"


def _say_transfer(entry: TimelineEntry, names: _Names) -> str:
    receiver = "themselves" if entry.person == entry.actor else _name(names, entry.person)
    at_stake = _worth(entry.value).replace("worth", "with a deal worth", 1)
    return (
        f"{_name(names, entry.actor)} asked to transfer the customer to {receiver}"
        f"{at_stake}{_plainly(entry.code)}."
    )


def _asked(entry: TimelineEntry, names: _Names) -> str:
    asked = _listed(entry, names)
    return f"; asked: {asked}" if asked else ""


def _listed(entry: TimelineEntry, names: _Names) -> str:
    return ", ".join(_name(names, each) for each in entry.details.get("asked", ()))


def _say_opened(entry: TimelineEntry, names: _Names) -> str:
    steps, purpose = entry.details.get("steps", 0), entry.details.get("purpose")
    if not steps:
        return f"The {purpose} needs no approval."
    count = "one step" if steps == 1 else f"{steps} steps"
    return f"The {purpose} awaits approval in {count}{_asked(entry, names)}."


def _say_answer(entry: TimelineEntry, names: _Names) -> str:
    answer = "agreed" if entry.details.get("agreed") else "did not agree"
    return f"{_name(names, entry.person)} {answer} (step {entry.details.get('step', 0) + 1})."


def _say_closed(entry: TimelineEntry, names: _Names) -> str:
    why = f": {_because(entry.code)}" if entry.code else "."
    return f"What awaited approval is {entry.details.get('outcome')}{why}"


def _say_collaboration(entry: TimelineEntry, names: _Names) -> str:
    same = entry.person == entry.actor
    who = "" if same else f" that {_name(names, entry.person)} may"
    days = "".join(
        f" {word} {entry.details[key]}"
        for word, key in (("from", "from_day"), ("until", "until_day"))
        if key in entry.details
    )
    asked = f"{_name(names, entry.actor)} asked{who or ' to'} collaborate"
    return f"{asked}{_terms(entry)}{days}{_plainly(entry.code)}."


def _terms(entry: TimelineEntry) -> str:
    details = entry.details
    share = f" for {details['share']} % of the credit" if "share" in details else ""
    site = f" at the site {details['site']}" if "site" in details else ""
    return f" as {details.get('role', 'collaborator')}{site}{share}"


def _say_collaborator(entry: TimelineEntry, names: _Names) -> str:
    until = entry.details.get("until")
    ends = f" until {until}" if until else ""
    since = f" from {entry.details.get('since')}{ends}"
    return f"{_name(names, entry.person)} collaborates{_terms(entry)}{since}."


def _say_collaborations_ended(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    verb = "collaborates" if len(people) == 1 else "collaborate"
    return f"{' and '.join(people)} no longer {verb}{_plainly(entry.code)}."


_RULINGS = {
    "keep": "the owner keeps the customer",
    "split": "the owner shares the customer",
    "allow": "the parties may go on",
    "dismiss": "there is no conflict",
}
_KINDS = {
    "competing_claims": "another claim so soon after the grant",
    "follow_up": "a follow-up by somebody else",
    "deal": "a deal by somebody else",
}


def _say_ruling(entry: TimelineEntry, names: _Names) -> str:
    ruling = entry.details.get("ruling", "")
    said = _RULINGS.get(ruling) or f"the customer goes to {_name(names, entry.person)}"
    parts = [
        _name(names, person) + (f" for {share} %" if share else "")
        for person, share in entry.details.get("parts", ())
    ]
    whom = f" with {', '.join(parts)}" if parts else ""
    return f"{_name(names, entry.actor)} ruled that {said}{whom}{_plainly(entry.code)}."


def _say_conflict(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    kind = _KINDS.get(entry.details.get("kind", ""), "a conflict")
    return f"A conflict of {' and '.join(people)}: {kind}{_asked(entry, names)}."


def _say_evidence(entry: TimelineEntry, names: _Names) -> str:
    people = [_name(names, each) for each in entry.details.get("people", ())]
    joins = f", which {' and '.join(people)} joins" if people else ""
    return f"One more proof of the conflict{joins}{_asked(entry, names)}."


def _say_conflict_closed(entry: TimelineEntry, names: _Names) -> str:
    if entry.details.get("outcome") == "gone":
        return f"The conflict is gone: {_because(entry.code)}"
    ruled_by = _name(names, entry.details.get("ruled_by"))
    return f"The conflict was ruled on by {ruled_by}: {entry.details.get('outcome')}."


def _say_grant(entry: TimelineEntry, names: _Names) -> str:
    waived = entry.details.get("limits_waived")
    but = f" Today's limits would have refused it: {', '.join(waived)}." if waived else ""
    return f"{_name(names, entry.person)} owns the customer.{but}"


_SENTENCES: dict[str, Callable[[TimelineEntry, _Names], str]] = {
    "RegistrationRequested": _say_registration,
    "CustomerChangeRequested": _say_change,
    "ClaimFiled": lambda e, n: f"{_name(n, e.actor)} claimed the customer{_on(e, n)}.",
    "ReleaseRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to release the customer{_plainly(e.code)}."
    ),
    "AssignmentRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to assign the customer to {_name(n, e.person)}."
    ),
    "TransferRequested": _say_transfer,
    "TransferWithdrawn": lambda e, n: (
        f"{_name(n, e.actor)} asked to withdraw what awaits approval{_plainly(e.code)}."
    ),
    "ApprovalGiven": lambda e, n: f"{_name(n, e.actor)} approved.",
    "ApprovalDenied": lambda e, n: f"{_name(n, e.actor)} did not approve{_plainly(e.code)}.",
    "CollaborationRequested": _say_collaboration,
    "CollaborationEndRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked to end a collaboration{_plainly(e.code)}."
    ),
    "RulingGiven": _say_ruling,
    "FollowUpLogged": _say_follow_up,
    "DealRecorded": _say_deal,
    "FollowUpCorrected": _say_follow_up_correction,
    "FollowUpVoided": lambda e, n: (
        f"{_name(n, e.actor)} asked to void a follow-up{_plainly(e.code)}."
    ),
    "DealCorrected": _say_deal_correction,
    "DealVoided": lambda e, n: f"{_name(n, e.actor)} asked to void a deal{_plainly(e.code)}.",
    "RequestUnparked": lambda e, n: (
        f"{_name(n, e.actor)} had the request at position {e.details['request']} decided"
        f" by version {e.details['decider']} of the decider."
    ),
    "DeadlineReached": lambda e, n: f"A deadline was reached{_plainly(e.code)}.",
    "RecycleHoldRequested": lambda e, n: (
        f"{_name(n, e.actor)} asked not to recycle the customer before"
        f" {e.details.get('until', 'then')}{_plainly(e.code)}."
    ),
    "CustomerAdmitted": lambda e, n: f"The customer was admitted to the pool{_pool(e, n)}.",
    "RegistrationRefused": _say_refused_registration,
    "CustomerChanged": lambda e, n: (
        f"The change holds; the customer is{_pool(e, n) or ' in no territory'}."
    ),
    "ChangeRefused": lambda e, n: f"The change was refused: {_because(e.code)}",
    "OwnershipGranted": _say_grant,
    "ClaimRefused": _say_refused_claim,
    "OwnershipAssigned": lambda e, n: (
        f"{_name(n, e.person)} owns the customer, assigned by"
        f" {_name(n, e.details.get('assigned_by'))}."
    ),
    "AssignmentRefused": lambda e, n: (
        f"The assignment to {_name(n, e.person)} was refused: {_because(e.code)}"
    ),
    "OwnershipReleased": lambda e, n: (
        f"{_name(n, e.person)} no longer owns the customer{_plainly(e.code)};"
        f" it is in the pool{_pool(e, n)}."
    ),
    "ReleaseRefused": lambda e, n: f"The release was refused: {_because(e.code)}",
    "TransferRefused": lambda e, n: (
        f"The transfer to {_name(n, e.person)} was refused: {_because(e.code)}"
    ),
    "ApprovalOpened": _say_opened,
    "StepAnswered": _say_answer,
    "AnswerNotCounted": lambda e, n: (
        f"What {_name(n, e.person)} answered does not count: {_because(e.code)}"
    ),
    "StepOpened": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} is to be answered now{_asked(e, n)}."
    ),
    "StepReminded": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} has no answer yet and is reminded{_asked(e, n)}."
    ),
    "StepPassedOn": lambda e, n: (
        f"Step {e.details.get('step', 0) + 1} still has no answer and is passed on{_asked(e, n)}."
    ),
    "RecycleWarned": lambda e, n: (
        f"The customer goes back to the pool on {e.details.get('goes', 'time')}"
        f" unless {_name(n, e.person)} works it{_plainly(e.code)}; told: {_listed(e, n)}."
    ),
    "CustomerRecycled": lambda e, n: (
        f"{_name(n, e.person)} no longer owns the customer, which nobody worked{_plainly(e.code)};"
        f" it is in the pool{_pool(e, n)}."
    ),
    "RecycleHeld": lambda e, n: f"Recycling is held until {e.details.get('until', 'then')}.",
    "RecycleHoldRefused": lambda e, n: f"The hold was refused: {_because(e.code)}",
    "OwnershipTransferred": lambda e, n: (
        f"{_name(n, e.person)} owns the customer, which was"
        f" {_name(n, e.details.get('former_owner'))}'s."
    ),
    "ApprovalClosed": _say_closed,
    "CollaboratorAdded": _say_collaborator,
    "CollaborationRefused": lambda e, n: (
        f"What was asked about a collaboration was refused: {_because(e.code)}"
    ),
    "CollaborationsEnded": _say_collaborations_ended,
    "ConflictOpened": _say_conflict,
    "ConflictEvidenceAdded": _say_evidence,
    "ConflictClosed": _say_conflict_closed,
    "RulingReminded": lambda e, n: (
        f"The conflict has no ruling yet, of which is reminded{_asked(e, n)}."
    ),
    "RulingPassedOn": lambda e, n: (
        f"The conflict still has no ruling and is passed on{_asked(e, n)}."
    ),
    "RulingRefused": lambda e, n: (
        f"The ruling of {_name(n, e.person)} does not hold: {_because(e.code)}"
    ),
    "Noted": _say_noted,
    "CorrectionRefused": lambda e, n: f"The correction was refused: {_because(e.code)}",
    "RequestParked": lambda e, n: (
        f"The request at position {e.details['request']} could not be decided and waits:"
        f" {e.details['error']}"
    ),
}
