"""Conflicts 撞单: between whom, what proves them, and how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from ledger.envelope import Event
from ledger.events import decisions
from ledger.store.arrays import text_array
from projections.base import Change, Table
from projections.batches import write
from projections.groups import ABOVE

_TABLE = Table(
    "conflicts",
    """
    conflict         text COLLATE "C" NOT NULL PRIMARY KEY,
    customer         text COLLATE "C" NOT NULL,
    kind             text COLLATE "C" NOT NULL,
    owner            text COLLATE "C" NOT NULL,
    parties          text[] COLLATE "C" NOT NULL,
    evidence         bigint[] NOT NULL,
    passed_on        integer NOT NULL,
    opened           timestamptz NOT NULL,
    outcome          text COLLATE "C",
    reason_code      text COLLATE "C",
    ruled_by         text COLLATE "C",
    receiver         text COLLATE "C",
    closed           timestamptz,
    opened_position  bigint NOT NULL,
    changed_position bigint NOT NULL
    """,
    (
        "CREATE INDEX conflicts_open ON conflicts (opened_position) WHERE outcome IS NULL",
        "CREATE INDEX conflicts_customer ON conflicts (customer, opened_position)",
        "CREATE INDEX conflicts_parties ON conflicts USING gin (parties)",
    ),
)
_OPEN = """
INSERT INTO conflicts (conflict, customer, kind, owner, parties, evidence, passed_on, opened,
    outcome, reason_code, ruled_by, receiver, closed, opened_position, changed_position)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(conflict text, customer text, kind text,
    owner text, parties text[], evidence bigint[], passed_on integer, opened timestamptz,
    outcome text,
    reason_code text, ruled_by text, receiver text, closed timestamptz, opened_position bigint,
    changed_position bigint)
"""
_CHANGE = """
UPDATE conflicts c SET parties = c.parties || r.parties, evidence = c.evidence || r.evidence,
    passed_on = c.passed_on + r.passed_on, outcome = r.outcome, reason_code = r.reason_code,
    ruled_by = r.ruled_by, receiver = r.receiver, closed = r.closed,
    changed_position = r.changed_position
FROM jsonb_to_recordset(%s::jsonb) AS r(conflict text, parties text[], evidence bigint[],
    passed_on integer, outcome text, reason_code text, ruled_by text, receiver text,
    closed timestamptz, changed_position bigint)
WHERE c.conflict = r.conflict AND c.outcome IS NULL
"""


class Conflicts:
    """The projection of conflicts: what a batch adds to each, in one row."""

    name = "conflicts"
    version = 1
    tables: Sequence[Table] = (_TABLE,)
    handles = frozenset(
        {
            "ConflictOpened.v1",
            "ConflictEvidenceAdded.v1",
            "RulingPassedOn.v1",
            "ConflictClosed.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        opened: dict[str, dict[str, Any]] = {}
        changed: dict[str, dict[str, Any]] = {}
        for event, _ in changes:
            data = event.data
            if isinstance(data, decisions.ConflictOpened):
                row = opened[data.conflict] = _opened(event, data)
            else:
                known = opened.get(data.conflict)
                row = known or changed.setdefault(data.conflict, _nothing_new(data.conflict))
                if isinstance(data, decisions.ConflictClosed):
                    row |= _closed(event, data)
                elif isinstance(data, decisions.RulingPassedOn):
                    row["passed_on"] += 1
                else:
                    row["parties"].extend(data.parties)
                    row["evidence"].extend(data.evidence)
            row["changed_position"] = event.position
        write(connection, _OPEN, list(opened.values()))
        write(connection, _CHANGE, list(changed.values()))


def _nothing_new(conflict: str) -> dict[str, Any]:
    return {"conflict": conflict, "parties": [], "evidence": [], "passed_on": 0}


def _opened(event: Event, data: decisions.ConflictOpened) -> dict[str, Any]:
    return {
        "conflict": data.conflict,
        "customer": data.customer,
        "kind": data.kind,
        "owner": data.parties[0],
        "parties": list(data.parties),
        "evidence": list(data.evidence),
        "passed_on": 0,
        "opened": event.effective,
        "opened_position": event.position,
    }


def _closed(event: Event, data: decisions.ConflictClosed) -> dict[str, Any]:
    return {
        "outcome": data.outcome,
        "reason_code": data.reason_code,
        "ruled_by": data.ruled_by,
        "receiver": data.receiver,
        "closed": event.effective,
    }


# --- queries -----------------------------------------------------------------------------------

PAGE = 200
POSITION_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A conflict. Times are UTC.

    ``parties`` begin with the owner; ``evidence`` are positions of requests; ``passed_on`` counts
    how often the ruling was passed on upwards. ``outcome`` is None while it is open, then the
    ruling (by ``ruled_by``, for ``reason_code``), or ``gone``.
    """

    conflict: str
    customer: str
    kind: str
    owner: str
    parties: tuple[str, ...]
    evidence: tuple[int, ...]
    passed_on: int
    opened: datetime
    outcome: str | None
    reason_code: str | None
    ruled_by: str | None
    receiver: str | None
    closed: datetime | None
    opened_position: int
    changed_position: int


_SELECT = """
SELECT conflict, customer, kind, owner, parties, evidence, passed_on, opened, outcome, reason_code,
    ruled_by, receiver, closed, opened_position, changed_position
FROM projections.conflicts
"""
_CONDITIONS: Mapping[str, str] = {
    # What is about a group as a whole stands at its root.
    "customer": f"(customer = %(customer)s OR (kind = 'group' AND customer = ANY({ABOVE})))",
    "party": "parties @> ARRAY[%(party)s::text]",
    "kind": "kind = %(kind)s",
    "outcome": "outcome = %(outcome)s",
}
_IN_TERRITORIES = """
customer IN (SELECT o.customer FROM projections.ownership o
             WHERE o.customer_territory = ANY(%(territories)b))
"""
_OPEN_ROWS = f"""
{_SELECT} WHERE outcome IS NULL AND opened_position > %s ORDER BY opened_position LIMIT %s
"""


def conflict_of(connection: Connection[Any], conflict: str) -> ConflictRow | None:
    """Return one conflict, None where there is none of that id."""
    rows = connection.execute(f"{_SELECT} WHERE conflict = %s".encode(), (conflict,))
    return next(map(_row, rows), None)


def conflicts_named(connection: Connection[Any], ids: Sequence[str]) -> dict[str, ConflictRow]:
    """Return those of the conflicts ``ids`` that there are, by id."""
    statement = f"{_SELECT} WHERE conflict = ANY(%b)".encode()
    rows = connection.execute(statement, (text_array(sorted(ids)),))
    return {row.conflict: row for row in map(_row, rows)}


def list_conflicts(
    connection: Connection[Any],
    *,
    is_open: bool | None = None,
    territories: Iterable[str] | None = None,
    before: int = POSITION_MAX,
    limit: int = PAGE,
    **filters: str | None,
) -> list[ConflictRow]:
    """Return conflicts from the newest back, opened before position ``before``.

    ``filters`` are customer, party, kind and outcome; None does not filter, nor do ``territories``,
    which are the customers'. To a customer belong those about the group that it is in, too.
    ``is_open`` True lists those that await a ruling, False those that
    ended.
    """
    asked = [_CONDITIONS[name] for name, value in filters.items() if value is not None]
    if is_open is not None:
        asked.append("outcome IS NULL" if is_open else "outcome IS NOT NULL")
    if territories is not None:
        asked.append(_IN_TERRITORIES)
    where = " AND ".join((*asked, "opened_position < %(before)s"))
    statement = f"{_SELECT} WHERE {where} ORDER BY opened_position DESC LIMIT %(limit)s"
    values = {
        "before": before,
        "limit": limit,
        "territories": text_array(sorted(territories or ())),
    }
    rows = connection.execute(statement.encode(), {**filters, **values})
    return list(map(_row, rows))


def open_conflicts(
    connection: Connection[Any], after: int = 0, limit: int = PAGE
) -> list[ConflictRow]:
    """Return what awaits a ruling, from the oldest on, opened behind position ``after``."""
    return list(map(_row, connection.execute(_OPEN_ROWS.encode(), (after, limit))))


def _row(row: Sequence[Any]) -> ConflictRow:
    return ConflictRow(*[*row[:4], tuple(row[4]), tuple(row[5]), *row[6:]])
