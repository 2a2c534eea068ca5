"""Every claim: pending, granted or refused, with its reason.

Pending claims stand in a table of their own, which stays small: so a claim with all its indexes is
written once, when it is decided, and need not be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal

from psycopg import Connection

from ledger.events import decisions, requests
from ledger.store.arrays import BinaryArray, int8_array
from projections.base import Change, Table
from projections.columns import instants, texts

_PENDING = Table(
    "pending_claims",
    """
    position bigint NOT NULL PRIMARY KEY,
    customer text COLLATE "C" NOT NULL,
    claimant text COLLATE "C" NOT NULL,
    filed    timestamptz NOT NULL
    """,
    (
        "CREATE INDEX pending_claims_customer ON pending_claims (customer, position)",
        "CREATE INDEX pending_claims_claimant ON pending_claims (claimant, position)",
    ),
)
# Without a reason the claim was granted. filed_for is the duplicate that the claim named.
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
    filed_for          text COLLATE "C"
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
INSERT INTO pending_claims (position, customer, claimant, filed)
SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::timestamptz[])
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
# Filed in this very batch: it was never pending here.
_WRITE = """
INSERT INTO decided_claims (position, customer, reason, owner, claimant_territory, retry_at,
    effective, decided, decided_position, claimant, filed, filed_for)
SELECT * FROM unnest(%b::bigint[], %b::text[], %b::text[], %b::text[], %b::text[],
                     %b::timestamptz[], %b::timestamptz[], %b::timestamptz[], %b::bigint[],
                     %b::text[], %b::timestamptz[], %b::text[])
"""


class Claims:
    """The projection of claims."""

    name = "claims"
    version = 1
    tables: Sequence[Table] = (_PENDING, _DECIDED)
    handles = frozenset({"ClaimFiled.v1", "OwnershipGranted.v1", "ClaimRefused.v1"})
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        filed: dict[int, tuple[int, str, str, datetime]] = {}
        decided: list[tuple[Any, ...]] = []
        written: list[tuple[Any, ...]] = []
        for event, _ in changes:
            data = event.data
            if isinstance(data, requests.ClaimFiled):
                position = event.position
                filed[position] = (position, data.customer, data.claimant, event.occurred)
                continue
            outcome = _outcome(event.envelope["causation"], data, event)
            claim = filed.pop(outcome[0], None)
            if claim is None:
                decided.append(outcome)
            else:
                _, named, claimant, at = claim
                other = None if named == data.customer else named
                written.append((*outcome, claimant, at, other))
        if filed:
            numbers, customers, claimants, times = zip(*filed.values(), strict=True)
            columns = int8_array(numbers), texts(customers), texts(claimants), instants(times)
            connection.execute(_FILE, columns, binary=True)
        if decided:
            connection.execute(_DECIDE, (*_arrays(decided), len(decided)), binary=True)
        if written:
            connection.execute(_WRITE, _arrays(written), binary=True)


def _outcome(request: int, data: Any, event: Any) -> tuple[Any, ...]:
    if isinstance(data, decisions.OwnershipGranted):
        said = (None, data.owner, data.owner_territory, None)
    else:
        said = (data.reason, data.owner, None, data.retry_at)
    return (request, data.customer, *said, event.effective, event.recorded, event.position)


_PACKERS: tuple[Callable[[Sequence[Any]], BinaryArray], ...] = (
    *(int8_array, texts, texts, texts, texts, instants, instants, instants, int8_array),
    *(texts, instants, texts),
)


def _arrays(rows: Sequence[tuple[Any, ...]]) -> tuple[BinaryArray, ...]:
    columns = zip(*rows, strict=True)
    return tuple(pack(column) for pack, column in zip(_PACKERS, columns, strict=False))


# --- queries -----------------------------------------------------------------------------------

Status = Literal["pending", "granted", "refused"]
PAGE = 100


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim; times are UTC.

    ``position`` is that of its request, ``filed`` when it was filed (as stated). ``customer`` is
    the one that it was decided on, ``filed_for`` the duplicate that it named instead. ``reason``
    (see ledger/reasons.py) says why it was refused, ``owner`` who owned the customer then, or owns
    it by this grant; ``retry_at`` when the reason no longer holds. ``effective`` is when the
    decision holds, ``decided`` when it was recorded. The claimant's territory is known of grants.
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


@dataclass(frozen=True, slots=True)
class DayCount:
    """How many claims of a local day had an outcome."""

    day: date
    status: Status
    reason: str | None
    claims: int


_SELECT_PENDING = """
SELECT position, customer, claimant, filed, 'pending' AS status, NULL AS reason, NULL AS owner,
       NULL AS claimant_territory, NULL::timestamptz AS retry_at, NULL::timestamptz AS effective,
       NULL::timestamptz AS decided, NULL::bigint AS decided_position, NULL AS filed_for
FROM projections.pending_claims
"""
_SELECT_DECIDED = """
SELECT position, customer, claimant, filed,
       CASE WHEN reason IS NULL THEN 'granted' ELSE 'refused' END AS status, reason, owner,
       claimant_territory, retry_at, effective, decided, decided_position, filed_for
FROM projections.decided_claims
"""
_PER_DAY = """
SELECT (effective AT TIME ZONE %(zone)s)::date,
       CASE WHEN reason IS NULL THEN 'granted' ELSE 'refused' END, reason, count(*)
FROM projections.decided_claims
WHERE effective >= %(since)s GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""
# Of which statuses a query reads which table, and with which condition.
_STATUS = {"granted": "reason IS NULL", "refused": "reason IS NOT NULL"}
POSITION_MAX = 2**63 - 1


def of_customer(
    connection: Connection[Any], customer: str, limit: int = PAGE, *, before: int = POSITION_MAX
) -> list[Claim]:
    """Return a customer's claims from the newest back, before position ``before``.

    Those that named the customer and were decided on another are among them.
    """
    return _listed(
        connection, ("customer = %(key)s", "filed_for = %(key)s"), customer, before, limit
    )


def of_claimant(
    connection: Connection[Any], claimant: str, limit: int = PAGE, *, before: int = POSITION_MAX
) -> list[Claim]:
    """Return somebody's claims from the newest back, before position ``before``."""
    return _listed(connection, ("claimant = %(key)s",), claimant, before, limit)


def of_status(
    connection: Connection[Any],
    status: Status,
    limit: int = PAGE,
    *,
    reason: str | None = None,
    before: int = POSITION_MAX,
) -> list[Claim]:
    """Return the claims of a status (refused for ``reason``, where it is given), newest first."""
    if status == "pending":
        select, condition = _SELECT_PENDING, "true"
    else:
        select, condition = _SELECT_DECIDED, "reason = %(key)s" if reason else _STATUS[status]
    statement = (
        f"{select} WHERE {condition} AND position < %(before)s ORDER BY position DESC"
        " LIMIT %(limit)s"
    )
    rows = connection.execute(
        statement.encode(), {"key": reason, "before": before, "limit": limit}, binary=True
    )
    return [Claim(*row) for row in rows]


def claim_at(connection: Connection[Any], position: int) -> Claim | None:
    """Return the claim whose request stands at a position, None where there is none."""
    found = _listed(connection, ("position = %(key)s",), position, POSITION_MAX, 1)
    return found[0] if found else None


def _listed(
    connection: Connection[Any], conditions: Sequence[str], key: str | int, before: int, limit: int
) -> list[Claim]:
    """Merge what each condition finds, each by an index of its own."""
    parts = [f"{_SELECT_PENDING} WHERE {conditions[0]}"]
    parts += [f"{_SELECT_DECIDED} WHERE {condition}" for condition in conditions]
    page = " AND position < %(before)s ORDER BY position DESC LIMIT %(limit)s"
    statement = (
        " UNION ALL ".join(f"({part}{page})" for part in parts)
        + " ORDER BY position DESC LIMIT %(limit)s"
    )
    rows = connection.execute(
        statement.encode(), {"key": key, "before": before, "limit": limit}, binary=True
    )
    return [Claim(*row) for row in rows]


def per_day(connection: Connection[Any], since: datetime, time_zone: str) -> list[DayCount]:
    """Return how many claims decided since a moment had which outcome.

    They are counted by the day of ``time_zone`` (IANA) on which the decision took effect.
    """
    rows = connection.execute(_PER_DAY, {"zone": time_zone, "since": since})
    return [DayCount(*row) for row in rows]
