"""Follow-ups: each as corrected, voided ones marked, by the owner or by somebody else.

A correction or voiding waits until its decision; it holds where that is Noted, and is dropped
where that is CorrectionRefused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection

from ledger import reasons
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import ForeignId, Sealed
from ledger.store.arrays import int8_array, text_array
from projections.base import Change, Table, Unsealer
from projections.batches import load_keys, write

PAGE = 200

_TABLES = (
    Table(
        "follow_ups",
        """
        follow_up   text COLLATE "C" NOT NULL PRIMARY KEY,
        position    bigint NOT NULL UNIQUE,
        customer    text COLLATE "C" NOT NULL,
        person      text COLLATE "C" NOT NULL,
        actor       text COLLATE "C" NOT NULL,
        at          timestamptz NOT NULL,
        recorded    timestamptz NOT NULL,
        channel     text NOT NULL,
        note        text,
        agreed      text,
        next_on     date,
        contact     text COLLATE "C",
        site        text COLLATE "C",
        foreign_ids jsonb NOT NULL,
        decided     bigint,
        remark      text,
        corrections integer NOT NULL,
        voided      bigint,
        void_code   text
        """,
        (
            "CREATE INDEX follow_ups_customer ON follow_ups (customer, at DESC, position DESC)",
            "CREATE INDEX follow_ups_person ON follow_ups (person, position)",
            "CREATE INDEX follow_ups_next ON follow_ups (next_on)"
            " WHERE next_on IS NOT NULL AND voided IS NULL",
        ),
    ),
    # Corrections and voidings that are not decided yet.
    Table(
        "follow_up_corrections",
        """
        position  bigint NOT NULL PRIMARY KEY,
        follow_up text COLLATE "C" NOT NULL,
        code      text NOT NULL,
        voids     boolean NOT NULL,
        says      jsonb NOT NULL
        """,
    ),
)
# An id that comes a second time changes nothing, as in the settled state.
_LOG = """
INSERT INTO follow_ups (
    follow_up, position, customer, person, actor, at, recorded, channel, note, agreed, next_on,
    contact, site, foreign_ids, decided, remark, corrections)
SELECT r.*, 0 FROM jsonb_to_recordset(%s::jsonb) AS r(
    follow_up text, position bigint, customer text, person text, actor text, at timestamptz,
    recorded timestamptz, channel text, note text, agreed text, next_on date, contact text,
    site text, foreign_ids jsonb, decided bigint, remark text)
ON CONFLICT DO NOTHING
"""
_NOTE = """
UPDATE follow_ups f SET customer = r.customer, decided = r.decided, remark = r.remark
FROM jsonb_to_recordset(%s::jsonb)
    AS r(position bigint, customer text, decided bigint, remark text)
WHERE f.position = r.position
"""
_WAIT = """
INSERT INTO follow_up_corrections (position, follow_up, code, voids, says)
SELECT * FROM jsonb_to_recordset(%s::jsonb)
    AS r(position bigint, follow_up text, code text, voids boolean, says jsonb)
"""
_TAKE = """
DELETE FROM follow_up_corrections WHERE position = ANY(%b)
RETURNING position, follow_up, code, voids, says
"""
_CORRECT = """
UPDATE follow_ups f SET
    channel = coalesce(r.channel, f.channel), note = coalesce(r.note, f.note),
    agreed = coalesce(r.agreed, f.agreed), next_on = coalesce(r.next_on, f.next_on),
    at = coalesce(r.at, f.at), corrections = f.corrections + r.corrections,
    voided = coalesce(f.voided, r.voided), void_code = coalesce(f.void_code, r.void_code)
FROM jsonb_to_recordset(%s::jsonb) AS r(
    follow_up text, channel text, note text, agreed text, next_on date, at timestamptz,
    corrections integer, voided bigint, void_code text)
WHERE f.follow_up = r.follow_up
"""
_TEXTS = ("note", "agreed")


@dataclass(frozen=True)
class FollowUps:
    """The projection of follow-ups."""

    unsealer: Unsealer
    name: str = "follow_ups"
    version: int = 1
    tables: Sequence[Table] = _TABLES
    handles: frozenset[str] = frozenset(
        {
            "FollowUpLogged.v1",
            "FollowUpCorrected.v1",
            "FollowUpVoided.v1",
            "Noted.v1",
            "CorrectionRefused.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        events = [change.event for change in changes]
        load_keys(self.unsealer, _keys(events))
        logged: dict[int, dict[str, Any]] = {}
        noted: list[dict[str, Any]] = []
        waiting: list[dict[str, Any]] = []
        decided: dict[int, Event] = {}
        for event in events:
            match event.data:
                case requests.FollowUpLogged():
                    logged[event.position] = self._logged(event, event.data)
                case requests.FollowUpCorrected() | requests.FollowUpVoided():
                    waiting.append(self._waiting(event, event.data))
                case decisions.Noted(customer=customer, remark=remark):
                    ruling = {"customer": customer, "decided": event.position, "remark": remark}
                    cause = event.causation or 0
                    if cause in logged:
                        logged[cause].update(ruling)
                    else:
                        noted.append({"position": cause, **ruling})
                        decided[cause] = event
                case _:
                    decided[event.causation or 0] = event
        write(connection, _LOG, list(logged.values()))
        write(connection, _NOTE, noted)
        write(connection, _WAIT, waiting)
        if decided:
            positions = int8_array(list(decided))
            taken = connection.execute(_TAKE, (positions,), binary=True)
            write(connection, _CORRECT, _corrections(taken.fetchall(), decided))

    def _logged(self, event: Event, data: requests.FollowUpLogged) -> dict[str, Any]:
        return {
            "follow_up": data.follow_up,
            "position": event.position,
            "customer": data.customer,
            "person": data.person,
            "actor": event.actor,
            "at": event.envelope.get("occurred") or event.recorded,
            "recorded": event.recorded,
            "channel": data.channel,
            **self._opened(event, data),
            "next_on": data.next_on,
            "contact": data.contact,
            "site": data.site,
            "foreign_ids": [
                {"system": each.system, "value": each.value} for each in data.foreign_ids
            ],
        }

    def _waiting(
        self, event: Event, data: requests.FollowUpCorrected | requests.FollowUpVoided
    ) -> dict[str, Any]:
        says: dict[str, Any] = {}
        if isinstance(data, requests.FollowUpCorrected):
            says = {"channel": data.channel, "next_on": data.next_on, "at": data.at}
            says |= self._opened(event, data)
        return {
            "position": event.position,
            "follow_up": data.follow_up,
            "code": data.reason_code,
            "voids": isinstance(data, requests.FollowUpVoided),
            "says": {name: value for name, value in says.items() if value is not None},
        }

    def _opened(
        self, event: Event, data: requests.FollowUpLogged | requests.FollowUpCorrected
    ) -> dict[str, str | None]:
        opened = self.unsealer.open_text
        return {name: opened(event, name, getattr(data, name)) for name in _TEXTS}


def _corrections(
    taken: Sequence[tuple[int, str, str, bool, dict[str, Any]]], decided: dict[int, Event]
) -> list[dict[str, Any]]:
    """Return one row a follow-up of what holds, folded in the order of the decisions."""
    rows: dict[str, dict[str, Any]] = {}
    for position, follow_up, code, voids, says in sorted(
        taken, key=lambda each: decided[each[0]].position
    ):
        decision = decided[position]
        if not isinstance(decision.data, decisions.Noted):
            continue
        row = rows.setdefault(follow_up, {"follow_up": follow_up, "corrections": 0})
        row.update(says)
        if voids:
            row.update(voided=decision.position, void_code=code)
        else:
            row["corrections"] += 1
    return list(rows.values())


def _keys(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        for name in _TEXTS:
            text = getattr(event.data, name, None)
            if isinstance(text, Sealed):
                yield text.key


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A follow-up as it stands after its corrections. Times are UTC, ``next_on`` a day.

    ``note`` and ``agreed`` are None where they were not given or were erased. ``remark`` is the
    decision's (see ledger/reasons.py), ``decided_position`` None while it is undecided.
    ``voided_position`` is that of the decision that voided it, for ``void_code``.
    """

    follow_up: str
    position: int
    customer: str
    person: str
    actor: str
    at: datetime
    recorded: datetime
    channel: str
    note: str | None
    agreed: str | None
    next_on: date | None
    contact: str | None
    site: str | None
    foreign_ids: tuple[ForeignId, ...]
    decided_position: int | None
    remark: str | None
    corrections: int
    voided_position: int | None
    void_code: str | None

    @property
    def stands(self) -> bool:
        """Whether it counts: it was not voided."""
        return self.voided_position is None

    @property
    def by_owner(self) -> bool | None:
        """Whether the customer's owner did it; None while undecided, or where nobody knows."""
        return by_owner(self.decided_position, self.remark, reasons.FOLLOW_UP_BY_NON_OWNER)


def by_owner(decided_position: int | None, remark: str | None, by_non_owner: str) -> bool | None:
    """Say what a decision's remark tells about who did it; None where it does not tell.

    Only the owner's follow-ups are told that a contact is unknown, or that they repeat another.
    """
    of_owners = (None, reasons.CONTACT_UNKNOWN, reasons.TOKEN_FOLLOW_UP)
    if decided_position is None or remark not in (*of_owners, by_non_owner):
        return None
    return remark != by_non_owner


_COLUMNS = """
SELECT f.follow_up, f.position, f.customer, f.person, f.actor, f.at, f.recorded, f.channel,
    f.note, f.agreed, f.next_on, f.contact, f.site, f.foreign_ids, f.decided, f.remark,
    f.corrections, f.voided, f.void_code
FROM projections.follow_ups f
"""
_ONE = f"{_COLUMNS} WHERE f.follow_up = %s"
_OF_CUSTOMER = f"{_COLUMNS} WHERE f.customer = %s AND f.position > %s ORDER BY f.position LIMIT %s"
_OF_PERSON = f"{_COLUMNS} WHERE f.person = %s AND f.position > %s ORDER BY f.position LIMIT %s"
_LAST = f"""
SELECT l.* FROM unnest(%b::text[]) AS c(customer)
CROSS JOIN LATERAL (
    {_COLUMNS} WHERE f.customer = c.customer AND f.voided IS NULL
    ORDER BY f.at DESC, f.position DESC LIMIT 1
) l
"""  # noqa: S608  # constants
# A later follow-up settles the date that an earlier one set.
_DUE = f"""
{_COLUMNS}
WHERE f.next_on <= %(until)s AND f.voided IS NULL
  AND (f.next_on, f.position) > (%(day)s, %(position)s)
  AND (%(person)s::text IS NULL OR f.person = %(person)s)
  AND NOT EXISTS (
      SELECT FROM projections.follow_ups n
      WHERE n.customer = f.customer AND n.voided IS NULL
        AND (n.at, n.position) > (f.at, f.position))
ORDER BY f.next_on, f.position LIMIT %(limit)s
"""


def follow_up(connection: Connection[Any], follow_up_id: str) -> FollowUp | None:
    """Return a follow-up, None where there is none of that id."""
    found = _found(connection, _ONE, (follow_up_id,))
    return found[0] if found else None


def of_customer(
    connection: Connection[Any], customer: str, *, after: int = 0, limit: int = PAGE
) -> list[FollowUp]:
    """Return a customer's follow-ups, voided ones too, in the order of entry behind ``after``."""
    return _found(connection, _OF_CUSTOMER, (customer, after, limit))


def of_person(
    connection: Connection[Any], person: str, *, after: int = 0, limit: int = PAGE
) -> list[FollowUp]:
    """Return a person's follow-ups, voided ones too, in the order of entry behind ``after``."""
    return _found(connection, _OF_PERSON, (person, after, limit))


def last_standing(connection: Connection[Any], customers: Sequence[str]) -> dict[str, FollowUp]:
    """Return each customer's last follow-up that stands; customers without one are absent."""
    found = _found(connection, _LAST, (text_array(customers),))
    return {each.customer: each for each in found}


def due(
    connection: Connection[Any],
    until: date,
    *,
    person: str | None = None,
    after: tuple[date, int] = (date.min, 0),
    limit: int = PAGE,
) -> list[FollowUp]:
    """Return the follow-ups whose next date is ``until`` or earlier, the most overdue first.

    ``until`` is a day of the organisation. Only the last standing follow-up of a customer counts.
    ``after`` pages behind (next_on, position).
    """
    day, position = after
    values = {"until": until, "person": person, "limit": limit}
    return _found(connection, _DUE, {**values, "day": day, "position": position})


def _found(connection: Connection[Any], statement: str, parameters: Any) -> list[FollowUp]:
    rows = connection.execute(statement.encode(), parameters, binary=True)
    return [
        FollowUp(
            *[
                *row[:13],
                tuple(ForeignId(each["system"], each["value"]) for each in row[13]),
                *row[14:],
            ]
        )
        for row in rows
    ]
