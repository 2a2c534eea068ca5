"""How many won deals of each customer stand: what rules of recycling may ask for.

A part of the projection of deadlines: the settled state counts a deal once, by its id, and takes
it back where it is voided, or was lost after all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import Connection

from ledger.events import decisions, requests
from ledger.reasons import CUSTOMER_NOT_ADMITTED
from ledger.store.arrays import int4_array, text_array
from projections.base import Change, Table
from projections.columns import texts

TABLE = Table(
    "deadline_deals",
    """
    deal   text COLLATE "C" NOT NULL PRIMARY KEY,
    won    boolean NOT NULL,
    stands boolean NOT NULL
    """,
)
_LOAD = "SELECT deal, won, stands FROM deadline_deals WHERE deal = ANY(%b)"
_PUT = """
INSERT INTO deadline_deals (deal, won, stands)
SELECT r.deal, r.won = 1, r.stands = 1
FROM unnest(%b::text[], %b::integer[], %b::integer[]) AS r(deal, won, stands)
ON CONFLICT (deal) DO UPDATE SET won = excluded.won, stands = excluded.stands
"""
_ABOUT_DEALS = (requests.DealRecorded, requests.DealCorrected, requests.DealVoided)


@dataclass(frozen=True, slots=True)
class _Deal:
    won: bool
    stands: bool = True

    @property
    def counts(self) -> int:
        return int(self.won and self.stands)


def drop_all(connection: Connection[Any]) -> None:
    """Forget all deals, in front of folding them from the beginning."""
    connection.execute("DELETE FROM deadline_deals")


def differences(connection: Connection[Any], changes: Sequence[Change]) -> dict[int, int]:
    """Fold the deals of ``changes``; return by position how many won deals each decision adds.

    Positions that change nothing are absent. Raises LookupError where a deal was corrected that
    was never recorded.
    """
    about = [
        (event, cause.data)
        for event, cause in changes
        if cause is not None
        and isinstance(event.data, decisions.Noted)
        and isinstance(cause.data, _ABOUT_DEALS)
    ]
    if not about:
        return {}
    named = sorted({data.deal for _, data in about})
    rows = connection.execute(_LOAD, (text_array(named),), binary=True)
    deals = {deal: _Deal(won, stands) for deal, won, stands in rows}
    found: dict[int, int] = {}
    touched: dict[str, None] = {}
    for event, data in about:
        before = deals.get(data.deal)
        after = _after(before, event.data, data)
        if after is None or after == before:
            continue
        deals[data.deal] = after
        touched[data.deal] = None
        difference = after.counts - (before.counts if before is not None else 0)
        if difference:
            found[event.position] = difference
    _put(connection, {deal: deals[deal] for deal in touched})
    return found


def _after(before: _Deal | None, decision: decisions.Noted, data: Any) -> _Deal | None:
    """Return the deal as a request leaves it; None where it is about no customer of ours."""
    if isinstance(data, requests.DealRecorded):
        if decision.remark == CUSTOMER_NOT_ADMITTED:
            return None
        return before or _Deal(data.outcome == "won")  # of one recorded twice the first counts
    if before is None:
        raise LookupError(f"{data.deal} was corrected before it was recorded")
    if isinstance(data, requests.DealVoided):
        return replace(before, stands=False)
    return before if data.outcome is None else replace(before, won=data.outcome == "won")


def _put(connection: Connection[Any], deals: dict[str, _Deal]) -> None:
    if deals:
        values = deals.values()
        won, stand = [int(each.won) for each in values], [int(each.stands) for each in values]
        packed = (texts(list(deals)), int4_array(won), int4_array(stand))
        connection.execute(_PUT, packed, binary=True)
