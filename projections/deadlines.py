"""What falls due next at each customer, and when: what the clock follows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson
from psycopg import Connection
from pydantic import TypeAdapter

from ledger import deadlines
from ledger.approving import Approval, after
from ledger.conflicts import Waiting, waiting_after
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events import organisation as facts
from ledger.organisation import OrganisationAt
from ledger.store.arrays import text_array
from projections.base import Change, Table
from projections.batches import write
from projections.facts import Facts

T = TypeVar("T")

# ``state`` is what the decider counts from: all that awaits an approval or ruling at the customer.
# A row without ``due`` waits for something else.
_TABLE = Table(
    "deadlines",
    """
    customer  text COLLATE "C" NOT NULL PRIMARY KEY,
    kind      text COLLATE "C",
    subject   text COLLATE "C",
    due       timestamptz,
    owner     text COLLATE "C",
    import_id text COLLATE "C",
    state     jsonb NOT NULL
    """,
    (
        "CREATE INDEX deadlines_due ON deadlines (due, customer) WHERE due IS NOT NULL",
        "CREATE INDEX deadlines_import ON deadlines (import_id) WHERE import_id IS NOT NULL",
    ),
)
_LOAD = "SELECT customer, state FROM deadlines WHERE customer = ANY(%b)"
_OF_IMPORT = "SELECT customer, state FROM deadlines WHERE import_id = %b"
_PUT = """
INSERT INTO deadlines (customer, kind, subject, due, owner, import_id, state)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(customer text, kind text, subject text,
    due timestamptz, owner text, import_id text, state jsonb)
ON CONFLICT (customer) DO UPDATE SET kind = excluded.kind, subject = excluded.subject,
    due = excluded.due, owner = excluded.owner, import_id = excluded.import_id,
    state = excluded.state
"""
_DROP = "DELETE FROM deadlines WHERE customer = ANY(%b)"


@dataclass(frozen=True, slots=True)
class _Dispute:
    owner: str
    waiting: Waiting


@dataclass(frozen=True, slots=True)
class _Open:
    """What is open at a customer, by id: approvals, and conflicts that await a ruling."""

    approvals: dict[str, Approval] = field(default_factory=dict)
    disputes: dict[str, _Dispute] = field(default_factory=dict)

    @property
    def owner(self) -> str | None:
        """Who owns the customer; None where nothing is open."""
        owners = [each.owner for each in self.approvals.values()]
        owners += [each.owner for each in self.disputes.values()]
        return owners[0] if owners else None

    @property
    def imports(self) -> set[str]:
        """The imports that something of it belongs to."""
        found = {each.import_id for each in self.approvals.values()}
        found |= {each.waiting.import_id for each in self.disputes.values()}
        return {each for each in found if each is not None}


_OPEN: TypeAdapter[_Open] = TypeAdapter(_Open)
_FACTS = frozenset(f"{each.__name__}.v1" for each in (facts.ImportClosed,))


class Deadlines:
    """The projection of deadlines: folds what the decider counts from, and asks it when."""

    name = "deadlines"
    version = 1
    tables: Sequence[Table] = (_TABLE,)
    handles = _FACTS | {
        "ApprovalOpened.v1",
        "StepAnswered.v1",
        "StepOpened.v1",
        "StepReminded.v1",
        "StepPassedOn.v1",
        "ApprovalClosed.v1",
        "ConflictOpened.v1",
        "RulingReminded.v1",
        "RulingPassedOn.v1",
        "ConflictClosed.v1",
    }
    needs_cause: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._facts = Facts()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        last = changes[-1].event.position
        organisation = self._facts.upto(connection, last).at(last + 1)
        states = _load(connection, changes)
        for event, _ in changes:
            if event.name not in _FACTS:
                customer = event.data.customer
                states[customer] = _after(states.get(customer, _Open()), event)
        rows = [_row(key, each, organisation) for key, each in states.items() if each.owner]
        gone = [customer for customer, each in states.items() if not each.owner]
        write(connection, _PUT, rows)
        if gone:
            connection.execute(_DROP, (text_array(gone),), binary=True)


def _load(connection: Connection[Any], changes: Iterable[Change]) -> dict[str, _Open]:
    """Load what a batch touches: by its decisions, or by the imports that it closes."""
    named: set[str] = set()
    closed: set[str] = set()
    for event, _ in changes:
        if isinstance(event.data, facts.ImportClosed):
            closed.add(event.data.import_id)
        else:
            named.add(event.data.customer)
    rows: list[tuple[str, Any]] = []
    if named:
        rows += connection.execute(_LOAD, (text_array(sorted(named)),), binary=True).fetchall()
    for import_id in sorted(closed):
        rows += connection.execute(_OF_IMPORT, (import_id,), binary=True).fetchall()
    return {customer: _OPEN.validate_python(state) for customer, state in rows}


def _after(before: _Open, event: Event) -> _Open:
    data = event.data
    match data:
        case decisions.ConflictOpened():
            waiting = Waiting(event.effective, event.envelope["policy"], event.import_id)
            new = {data.conflict: _Dispute(data.parties[0], waiting)}
            return replace(before, disputes={**before.disputes, **new})
        case decisions.RulingReminded() | decisions.RulingPassedOn():
            known = before.disputes[data.conflict]
            waiting = waiting_after(known.waiting, data, event.effective)
            new = {data.conflict: replace(known, waiting=waiting)}
            return replace(before, disputes={**before.disputes, **new})
        case decisions.ConflictClosed():
            return replace(before, disputes=_without(before.disputes, data.conflict))
        case decisions.ApprovalClosed():
            return replace(before, approvals=_without(before.approvals, data.approval))
        case _:
            approval = after(
                before.approvals.get(data.approval),
                data,
                event.effective,
                policy=event.envelope["policy"],
                import_id=event.import_id,
            )
            return replace(before, approvals={**before.approvals, data.approval: approval})


def _without(given: dict[str, T], name: str) -> dict[str, T]:
    return {key: each for key, each in given.items() if key != name}


def _row(customer: str, state: _Open, organisation: OrganisationAt) -> dict[str, Any]:
    rulings = {name: each.waiting for name, each in state.disputes.items()}
    found = deadlines.next_of(state.approvals.values(), rulings, organisation)
    imports = (organisation.import_(each) for each in state.imports)
    # While one that was opened by an import waits for its closing.
    waits_for = min((each.import_id for each in imports if each and not each.closed), default=None)
    return {
        "customer": customer,
        "kind": found and found.kind,
        "subject": found and found.subject,
        "due": found and found.due,
        "owner": state.owner,
        "import_id": waits_for,
        "state": orjson.loads(orjson.dumps(state)),
    }


# --- queries -----------------------------------------------------------------------------------

PAGE = 500


@dataclass(frozen=True, slots=True)
class DueRow:
    """A deadline at a customer: ``kind`` and ``subject`` as of ledger/deadlines.py, ``due`` UTC.

    ``owner`` is who owns the customer.
    """

    customer: str
    kind: str
    subject: str
    due: datetime
    owner: str


_DUE = """
SELECT customer, kind, subject, due, owner FROM projections.deadlines
WHERE due <= %s AND (due, customer) > (%s, %s) ORDER BY due, customer LIMIT %s
"""
_REACHED = "SELECT position FROM projections.tracking WHERE name = 'deadlines'"
BEGINNING = (datetime.min.replace(tzinfo=UTC), "")
"""Where paging begins: in front of every deadline."""


def due(
    connection: Connection[Any],
    until: datetime,
    *,
    after: tuple[datetime, str] = BEGINNING,
    limit: int = PAGE,
) -> list[DueRow]:
    """Return what falls due up to ``until`` (UTC) in order, behind (due, customer)."""
    rows = connection.execute(_DUE, (until, *after, limit))
    return [DueRow(*row) for row in rows]


def reached(connection: Connection[Any]) -> int:
    """Return the position that the read model reflects; 0 before it was made."""
    if connection.execute("SELECT to_regclass('projections.tracking')").fetchone() == (None,):
        return 0
    row = connection.execute(_REACHED).fetchone()
    return int(row[0]) if row else 0
