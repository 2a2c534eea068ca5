"""Stand-ins: who works which orphaned customer for the owner who has left, and until when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import Connection

from ledger.envelope import Event
from ledger.events import decisions
from projections.base import Change, Table
from projections.batches import write

# Who stands in does so until ``until``, unless it has ``ended`` before, in another way.
_TABLE = Table(
    "stand_ins",
    """
    stand_in         text COLLATE "C" NOT NULL PRIMARY KEY,
    customer         text COLLATE "C" NOT NULL,
    person           text COLLATE "C" NOT NULL,
    owner            text COLLATE "C" NOT NULL,
    named_by         text COLLATE "C" NOT NULL,
    since            timestamptz NOT NULL,
    until            timestamptz NOT NULL,
    ended            timestamptz,
    end_reason       text COLLATE "C",
    opened_position  bigint NOT NULL,
    changed_position bigint NOT NULL
    """,
    (
        "CREATE INDEX stand_ins_open ON stand_ins (customer) WHERE ended IS NULL",
        "CREATE INDEX stand_ins_customer ON stand_ins (customer, opened_position)",
        "CREATE INDEX stand_ins_person ON stand_ins (person, opened_position)",
    ),
)
_NAME = """
INSERT INTO stand_ins (stand_in, customer, person, owner, named_by, since, until, ended, end_reason,
    opened_position, changed_position)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(stand_in text, customer text, person text,
    owner text, named_by text, since timestamptz, until timestamptz, ended timestamptz,
    end_reason text, opened_position bigint, changed_position bigint)
"""
_END = """
UPDATE stand_ins s SET ended = r.ended, end_reason = r.end_reason,
    changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(stand_in text, ended timestamptz, end_reason text,
    changed_position bigint)
WHERE s.stand_in = r.stand_in AND s.ended IS NULL
"""
# The ownership ends, and with it whoever still stood in.
_END_ALL = """
UPDATE stand_ins s SET ended = r.ended, end_reason = r.end_reason,
    changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(customer text, ended timestamptz, end_reason text,
    changed_position bigint)
WHERE s.customer = r.customer AND s.ended IS NULL AND s.until > r.ended
"""
OWNERSHIP_CHANGED = "ownership_changed"


class StandIns:
    """The projection of stand-ins."""

    name = "stand_ins"
    version = 1
    tables: Sequence[Table] = (_TABLE,)
    handles = frozenset(
        {
            "StandInNamed.v1",
            "StandInEnded.v1",
            "OwnershipReleased.v1",
            "OwnershipTransferred.v1",
            "CustomerRecycled.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring: first the ends of older ones, then the new ones."""
        named: dict[str, dict[str, Any]] = {}
        ended: list[dict[str, Any]] = []
        over: dict[str, dict[str, Any]] = {}
        for event, _ in changes:
            data = event.data
            match data:
                case decisions.StandInNamed():
                    named[data.stand_in] = _named(event)
                case decisions.StandInEnded():
                    end = _end(event, data.reason_code)
                    if data.stand_in in named:
                        named[data.stand_in] |= end
                    else:
                        ended.append({"stand_in": data.stand_in, **end})
                case _:
                    end = _end(event, OWNERSHIP_CHANGED)
                    over.setdefault(data.customer, {"customer": data.customer, **end})
                    _end_here(named.values(), data.customer, event, end)
        write(connection, _END, ended)
        write(connection, _END_ALL, list(over.values()))
        write(connection, _NAME, list(named.values()))


def _named(event: Event) -> dict[str, Any]:
    data: decisions.StandInNamed = event.data
    return {
        "stand_in": data.stand_in,
        "customer": data.customer,
        "person": data.person,
        "owner": data.owner,
        "named_by": data.named_by,
        "since": event.effective,
        "until": data.until,
        "ended": None,
        "end_reason": None,
        "opened_position": event.position,
        "changed_position": event.position,
    }


def _end(event: Event, reason: str) -> dict[str, Any]:
    return {"ended": event.effective, "end_reason": reason, "changed_position": event.position}


def _end_here(rows: Any, customer: str, event: Event, end: dict[str, Any]) -> None:
    for row in rows:
        stands = row["ended"] is None and row["until"] > event.effective
        if row["customer"] == customer and stands:
            row |= end


# --- queries -----------------------------------------------------------------------------------

PAGE = 200


@dataclass(frozen=True, slots=True)
class StandInRow:
    """Who stands in at a customer, or did. Times are UTC.

    ``until`` is the end that was said, ``ended`` the moment of another one, for ``end_reason``.
    """

    stand_in: str
    customer: str
    person: str
    owner: str
    named_by: str
    since: datetime
    until: datetime
    ended: datetime | None
    end_reason: str | None
    opened_position: int
    changed_position: int


_SELECT = """
SELECT stand_in, customer, person, owner, named_by, since, until, ended, end_reason,
    opened_position, changed_position
FROM projections.stand_ins
"""
_STANDING = f"""
{_SELECT} WHERE customer = %(customer)s AND ended IS NULL AND until > %(moment)s
    AND NOT EXISTS (SELECT FROM projections.people p
                    WHERE p.person = stand_ins.person AND p.left_on <= %(today)s::date)
"""
_ONE = f"{_SELECT} WHERE stand_in = %s"
_OF_CUSTOMER = f"{_SELECT} WHERE customer = %s ORDER BY opened_position DESC LIMIT %s"


def standing_at(
    connection: Connection[Any], customer: str, moment: datetime, today: date | None = None
) -> StandInRow | None:
    """Return who stands in at a customer now, None where nobody does; ``moment`` is now (UTC).

    With ``today``, the organisation's day, whoever has left by then is nobody.
    """
    given = {"customer": customer, "moment": moment, "today": today}
    rows = connection.execute(_STANDING.encode(), given)
    return next((StandInRow(*row) for row in rows), None)


def stand_in_of(connection: Connection[Any], stand_in: str) -> StandInRow | None:
    """Return one that was named, None where there is none of that id."""
    rows = connection.execute(_ONE.encode(), (stand_in,))
    return next((StandInRow(*row) for row in rows), None)


def of_customer(connection: Connection[Any], customer: str, limit: int = PAGE) -> list[StandInRow]:
    """Return who stood in at a customer, from the newest back."""
    rows = connection.execute(_OF_CUSTOMER.encode(), (customer, limit))
    return [StandInRow(*row) for row in rows]
