"""Every claim: pending, awaiting approval, granted or refused, with its reason.

Claims that are not decided yet stand in a table of their own, which stays small: so a claim with
all its indexes is written once, when it is decided, and need not be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from psycopg import Connection

from ledger.approving import CLAIM
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.store.arrays import BinaryArray, int8_array
from projections.base import Change, Table
from projections.columns import instants, texts

# One with an approval awaits it, and its customer is the one that it will be decided on.
_PENDING = Table(
    "pending_claims",
    """
    position bigint NOT NULL PRIMARY KEY,
    customer text COLLATE "C" NOT NULL,
    claimant text COLLATE "C" NOT NULL,
    filed    timestamptz NOT NULL,
    approval text COLLATE "C",
    named    text COLLATE "C"
    """,
    (
        "CREATE INDEX pending_claims_approval ON pending_claims (approval)"
        " WHERE approval IS NOT NULL",
        "CREATE INDEX pending_claims_customer ON pending_claims (customer, position)",
        "CREATE INDEX pending_claims_claimant ON pending_claims (claimant, position)",
    ),
)
# Without a reason the claim was granted. One that awaited approval and was withdrawn, or expired,
# has that for its reason. filed_for is the duplicate that the claim named.
_DECIDED = Table(
    "decided_claims",
    """
    position           bigint NOT NULL,
    customer           text COLLATE "C" NOT NULL,
    claimant           text COLLATE "C" NOT NULL,
    filed              timestamptz NOT NULL,
    reason             text COLLATE "C",
    owner              text COLLATE "C",
    claimant_territory text COLLATE "C",
    retry_at           timestamptz,
    effective          timestamptz NOT NULL,
    decided            timestamptz NOT NULL,
    decided_position   bigint NOT NULL,
    filed_for          text COLLATE "C",
    approval           text COLLATE "C"
    """,
    (
        "CREATE UNIQUE INDEX decided_claims_position ON decided_claims (position)",
        "CREATE INDEX decided_claims_customer ON decided_claims (customer, position)",
        "CREATE INDEX decided_claims_claimant ON decided_claims (claimant, position)",
        "CREATE INDEX decided_claims_effective ON decided_claims (effective)",
        "CREATE INDEX decided_claims_filed_for ON decided_claims (filed_for, position)"
        " WHERE filed_for IS NOT NULL",
    ),
)
_FILE = """
INSERT INTO pending_claims (position, customer, claimant, filed, approval, named)
SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::timestamptz[], %b::text[],
                     %b::text[])
"""
_AWAIT = """
WITH awaiting AS (
    UPDATE pending_claims p SET customer = r.customer, approval = r.approval,
        named = nullif(p.customer, r.customer)
    FROM unnest(%b::bigint[], %b::text[], %b::text[]) AS r(position, customer, approval)
    WHERE p.position = r.position RETURNING 1)
SELECT projections.require_rows(count(*), %b) FROM awaiting
"""
# Filed in an earlier batch: what was pending moves over.
_DECIDE = """
WITH decided AS MATERIALIZED (
    SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[],
                         %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[])
        AS r(position, customer, reason, owner, territory, retry_at, effective, decided, at)
), filed AS (
    DELETE FROM pending_claims p USING decided d WHERE p.position = d.position
    RETURNING d.position, d.customer, p.claimant, p.filed, d.reason, d.owner, d.territory,
              d.retry_at, d.effective, d.decided, d.at, nullif(p.customer, d.customer)
), written AS (
    INSERT INTO decided_claims (position, customer, claimant, filed, reason, owner,
        claimant_territory, retry_at, effective, decided, decided_position, filed_for)
    SELECT * FROM filed RETURNING 1
)
SELECT projections.require_rows(count(*), %b) FROM written
"""
# Most approvals that are closed are of no claim; those that grant one must be.
_ANSWER = """
WITH decided AS MATERIALIZED (
    SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
                         %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[])
        AS r(approval, customer, reason, owner, territory, retry_at, effective, decided, at)
), filed AS (
    DELETE FROM pending_claims p USING decided d WHERE p.approval = d.approval
    RETURNING p.position, d.customer, p.claimant, p.filed, d.reason, d.owner, d.territory,
              d.retry_at, d.effective, d.decided, d.at, p.named, p.approval
), written AS (
    INSERT INTO decided_claims (position, customer, claimant, filed, reason, owner,
        claimant_territory, retry_at, effective, decided, decided_position, filed_for, approval)
    SELECT * FROM filed RETURNING reason
)
SELECT projections.require_rows(count(*) FILTER (WHERE reason IS NULL), %b) FROM written
"""
# Filed in this very batch: it was never pending here.
_WRITE = """
INSERT INTO decided_claims (position, customer, reason, owner, claimant_territory, retry_at,
    effective, decided, decided_position, claimant, filed, filed_for, approval)
SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[],
                     %b::text[], %b::timestamptz[], %b::text[], %b::text[])
"""


@dataclass(slots=True)
class _Filed:
    """A claim that was filed in the batch; ``named`` is the duplicate that it named."""

    position: int
    customer: str
    claimant: str
    filed: datetime
    approval: str | None = None
    named: str | None = None


class Claims:
    """The projection of claims."""

    name = "claims"
    version = 2
    tables: Sequence[Table] = (_PENDING, _DECIDED)
    handles = frozenset(
        {
            "ClaimFiled.v1",
            "OwnershipGranted.v1",
            "ClaimRefused.v1",
            "ApprovalOpened.v1",
            "ApprovalClosed.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        batch = _Batch()
        for event, _ in changes:
            batch.fold(event)
        batch.write(connection)


@dataclass(slots=True)
class _Batch:
    """What a batch brings, folded in order; ``granted`` counts claims that awaited approval."""

    filed: dict[int, _Filed] = field(default_factory=dict)
    by_approval: dict[str, _Filed] = field(default_factory=dict)
    awaiting: list[tuple[int, str, str]] = field(default_factory=list)
    decided: list[tuple[Any, ...]] = field(default_factory=list)
    answered: list[tuple[Any, ...]] = field(default_factory=list)
    granted: int = 0
    written: list[tuple[Any, ...]] = field(default_factory=list)

    def fold(self, event: Event) -> None:
        """Take in one event."""
        data = event.data
        match data:
            case requests.ClaimFiled():
                position = event.position
                self.filed[position] = _Filed(
                    position, data.customer, data.claimant, event.occurred
                )
            case decisions.ApprovalOpened():
                if data.purpose == CLAIM:
                    self._await(event.envelope["causation"], data.customer, data.approval)
            case decisions.ApprovalClosed():
                if data.outcome != "completed":
                    self._answer(data.approval, event)
            case decisions.OwnershipGranted(approval=str() as approval):
                self._answer(approval, event)
            case _:
                self._decide(event.envelope["causation"], event)

    def _await(self, request: int, customer: str, approval: str) -> None:
        claim = self.filed.get(request)
        if claim is None:
            self.awaiting.append((request, customer, approval))
            return
        claim.named = None if claim.customer == customer else claim.customer
        claim.customer, claim.approval = customer, approval
        self.by_approval[approval] = claim

    def _answer(self, approval: str, event: Event) -> None:
        claim = self.by_approval.pop(approval, None)
        if claim is None:
            self.answered.append((approval, *_outcome(event)))
            self.granted += isinstance(event.data, decisions.OwnershipGranted)
        else:
            self._write(self.filed.pop(claim.position), claim.named, event)

    def _decide(self, request: int, event: Event) -> None:
        claim = self.filed.pop(request, None)
        if claim is None:
            self.decided.append((request, *_outcome(event)))
        else:
            named = None if claim.customer == event.data.customer else claim.customer
            self._write(claim, named, event)

    def _write(self, claim: _Filed, named: str | None, event: Event) -> None:
        outcome = _outcome(event)
        row = (claim.position, *outcome, claim.claimant, claim.filed, named, claim.approval)
        self.written.append(row)

    def write(self, connection: Connection[Any]) -> None:
        """Write it."""
        if self.filed:
            claims = list(self.filed.values())
            columns = (
                int8_array([each.position for each in claims]),
                texts([each.customer for each in claims]),
                texts([each.claimant for each in claims]),
                instants([each.filed for each in claims]),
                texts([each.approval for each in claims]),
                texts([each.named for each in claims]),
            )
            connection.execute(_FILE, columns, binary=True)
        if self.awaiting:
            positions, customers, approvals = zip(*self.awaiting, strict=True)
            arrays = int8_array(positions), texts(customers), texts(approvals)
            connection.execute(_AWAIT, (*arrays, len(self.awaiting)), binary=True)
        if self.decided:
            rows = _arrays(self.decided, (int8_array, *_PACKERS))
            connection.execute(_DECIDE, (*rows, len(self.decided)), binary=True)
        if self.answered:
            rows = _arrays(self.answered, (texts, *_PACKERS))
            connection.execute(_ANSWER, (*rows, self.granted), binary=True)
        if self.written:
            rows = _arrays(self.written, (int8_array, *_PACKERS, texts, instants, texts, texts))
            connection.execute(_WRITE, rows, binary=True)


def _outcome(event: Event) -> tuple[Any, ...]:
    """Return what was decided: on which customer, why not, whose it is, when, and where."""
    data = event.data
    said: tuple[str | None, str | None, str | None, datetime | None]
    match data:
        case decisions.OwnershipGranted():
            said = (None, data.owner, data.owner_territory, None)
        case decisions.ApprovalClosed():
            said = (data.reason or data.outcome, None, None, None)
        case _:
            said = (data.reason, data.owner, None, data.retry_at)
    return (data.customer, *said, event.effective, event.recorded, event.position)


_Packer = Callable[[Sequence[Any]], BinaryArray]
_PACKERS: tuple[_Packer, ...] = (
    *(texts, texts, texts, texts, instants, instants, instants, int8_array),
)


def _arrays(rows: Sequence[tuple[Any, ...]], packers: Sequence[_Packer]) -> tuple[BinaryArray, ...]:
    columns = zip(*rows, strict=True)
    return tuple(pack(column) for pack, column in zip(packers, columns, strict=True))


# --- queries -----------------------------------------------------------------------------------

Status = Literal["pending", "parked", "awaiting", "granted", "refused", "withdrawn", "expired"]
PAGE = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim; times are UTC.

    ``position`` is that of its request, ``filed`` when it was filed (as stated). ``customer`` is
    the one that it was decided on, ``filed_for`` the duplicate that it named instead. ``reason``
    (see ledger/reasons.py) says why it was refused, ``owner`` who owned the customer then, or owns
    it by this grant; ``retry_at`` when the reason no longer holds. ``effective`` is when the
    decision holds, ``decided`` when it was recorded. The claimant's territory is known of grants.
    ``approval`` is what it awaits, or has awaited; a claim that then was neither granted nor
    refused is ``withdrawn`` or ``expired``. One that could not be decided, or waits for such a
    request of its customer, is ``parked`` and not ``pending``.
    """

    position: int
    customer: str
    claimant: str
    filed: datetime
    status: Status
    reason: str | None
    owner: str | None
    claimant_territory: str | None
    retry_at: datetime | None
    effective: datetime | None
    decided: datetime | None
    decided_position: int | None
    filed_for: str | None
    approval: str | None


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many claims of a local day had an outcome."""

    day: date
    status: Status
    reason: str | None
    claims: int


# What is parked is known beside the log, and by the enforcer alone. A customer none of whose rows
# has an error waits no longer: they are about to be decided.
_IS_PARKED = """
EXISTS (SELECT FROM ledger.parked_requests r
        JOIN ledger.parked_requests f ON f.customer = r.customer AND f.error IS NOT NULL
        WHERE r.position = pending_claims.position)
"""
_SELECT_PENDING = f"""
SELECT position, customer, claimant, filed,
       CASE WHEN approval IS NOT NULL THEN 'awaiting' WHEN {_IS_PARKED} THEN 'parked'
            ELSE 'pending' END AS status, NULL AS reason,
       NULL AS owner, NULL AS claimant_territory, NULL::timestamptz AS retry_at,
       NULL::timestamptz AS effective, NULL::timestamptz AS decided,
       NULL::bigint AS decided_position, named AS filed_for, approval
FROM projections.pending_claims
"""  # noqa: S608  # constants
_SELECT_DECIDED = """
SELECT position, customer, claimant, filed,
       CASE WHEN reason IS NULL THEN 'granted' WHEN reason IN ('withdrawn', 'expired') THEN reason
            ELSE 'refused' END AS status, reason, owner,
       claimant_territory, retry_at, effective, decided, decided_position, filed_for, approval
FROM projections.decided_claims
"""
_PER_DAY = """
SELECT (effective AT TIME ZONE %(zone)s)::date,
       CASE WHEN reason IS NULL THEN 'granted' WHEN reason IN ('withdrawn', 'expired') THEN reason
            ELSE 'refused' END, reason, count(*)
FROM projections.decided_claims
WHERE effective >= %(since)s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
# Of which statuses a query reads which table, and with which condition.
_UNDECIDED = {
    "pending": f"approval IS NULL AND NOT {_IS_PARKED}",
    "parked": f"approval IS NULL AND {_IS_PARKED}",
    "awaiting": "approval IS NOT NULL",
}
_STATUS = {
    "granted": "reason IS NULL",
    "refused": "reason NOT IN ('withdrawn', 'expired')",
    "withdrawn": "reason = 'withdrawn'",
    "expired": "reason = 'expired'",
}
POSITION_MAX = 2**63 - 1


def of_customer(
    connection: Connection[Any], customer: str, limit: int = PAGE, *, before: int = POSITION_MAX
) -> list[Claim]:
    """Return a customer's claims from the newest back, before position ``before``.

    Those that named the customer and were decided on another are among them.
    """
    return find(connection, limit, customer=customer, before=before)


def of_claimant(
    connection: Connection[Any], claimant: str, limit: int = PAGE, *, before: int = POSITION_MAX
) -> list[Claim]:
    """Return somebody's claims from the newest back, before position ``before``."""
    return find(connection, limit, claimant=claimant, before=before)


def of_status(
    connection: Connection[Any],
    status: Status,
    limit: int = PAGE,
    *,
    reason: str | None = None,
    before: int = POSITION_MAX,
) -> list[Claim]:
    """Return the claims of a status (refused for ``reason``, where it is given), newest first."""
    return find(connection, limit, status=status, reason=reason, before=before)


def find(
    connection: Connection[Any],
    limit: int = PAGE,
    *,
    customer: str | None = None,
    claimant: str | None = None,
    status: Status | None = None,
    reason: str | None = None,
    before: int = POSITION_MAX,
) -> list[Claim]:
    """Return the claims that are as all of these say, newest first, before position ``before``."""
    both = ["claimant = %(claimant)s"] if claimant is not None else []
    undecided, decided = list(both), list(both)
    if reason is not None:
        decided.append("reason = %(reason)s")
    elif status in _STATUS:
        decided.append(_STATUS[status])
    if status in _UNDECIDED:
        undecided.append(_UNDECIDED[status])
    parts: list[tuple[str, list[str]]] = []
    if status not in _STATUS and reason is None:
        named = ["customer = %(customer)s"] if customer is not None else []
        parts.append((_SELECT_PENDING, named + undecided))
    if status not in _UNDECIDED:
        # Each by an index of its own.
        names = ("customer", "filed_for") if customer is not None else ()
        found = [[f"{name} = %(customer)s", *decided] for name in names] or [decided]
        parts += [(_SELECT_DECIDED, each) for each in found]
    given = {"customer": customer, "claimant": claimant, "reason": reason}
    return _listed(connection, parts, given, before, limit)


def claim_at(connection: Connection[Any], position: int) -> Claim | None:
    """Return the claim whose request stands at a position, None where there is none."""
    there = ["position = %(position)s"]
    parts = [(_SELECT_PENDING, there), (_SELECT_DECIDED, there)]
    found = _listed(connection, parts, {"position": position}, POSITION_MAX, 1)
    return found[0] if found else None


def _listed(
    connection: Connection[Any],
    parts: Sequence[tuple[str, Sequence[str]]],
    given: Mapping[str, Any],
    before: int,
    limit: int,
) -> list[Claim]:
    """Merge what each part finds, the newest first."""
    page = "position < %(before)s ORDER BY position DESC LIMIT %(limit)s"
    selects = [f"({select} WHERE {' AND '.join((*those, page))})" for select, those in parts]
    statement = " UNION ALL ".join(selects)
    if len(parts) > 1:
        statement += " ORDER BY position DESC LIMIT %(limit)s"
    rows = connection.execute(
        statement.encode(), {**given, "before": before, "limit": limit}, binary=True
    )
    return [Claim(*row) for row in rows]


def per_day(connection: Connection[Any], since: datetime, time_zone: str) -> list[DayCount]:
    """Return how many claims decided since a moment had which outcome.

    They are counted by the day of ``time_zone`` (IANA) on which the decision took effect.
    """
    rows = connection.execute(_PER_DAY, {"zone": time_zone, "since": since})
    return [DayCount(*row) for row in rows]
