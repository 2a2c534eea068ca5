"""Deals won and lost: each as corrected, voided ones marked, by the owner or by somebody else.

A correction or voiding waits until its decision; it holds where that is Noted, and is dropped
where that is CorrectionRefused. What counts is a deal that was decided to be one at a customer of
ours, and that stands: a deal at what was never admitted is shown with its remark, and is nobody's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg import Connection

from ledger import reasons
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import ForeignId, Money
from ledger.store.arrays import int8_array
from projections.base import Change, Table
from projections.batches import write
from projections.follow_ups import by_owner

PAGE = 200

_TABLES = (
    Table(
        "deals",
        """
        deal        text COLLATE "C" NOT NULL PRIMARY KEY,
        position    bigint NOT NULL UNIQUE,
        customer    text COLLATE "C" NOT NULL,
        person      text COLLATE "C" NOT NULL,
        actor       text COLLATE "C" NOT NULL,
        at          timestamptz NOT NULL,
        recorded    timestamptz NOT NULL,
        outcome     text NOT NULL,
        amount      numeric,
        currency    text,
        product     text,
        foreign_ids jsonb NOT NULL,
        decided     bigint,
        remark      text,
        corrections integer NOT NULL,
        voided      bigint,
        void_code   text
        """,
        (
            "CREATE INDEX deals_customer ON deals (customer, position)",
            "CREATE INDEX deals_person ON deals (person, position)",
        ),
    ),
    # Corrections and voidings that are not decided yet.
    Table(
        "deal_corrections",
        """
        position bigint NOT NULL PRIMARY KEY,
        deal     text COLLATE "C" NOT NULL,
        code     text NOT NULL,
        voids    boolean NOT NULL,
        outcome  text,
        amount   numeric,
        currency text,
        product  text
        """,
    ),
)
# An id that comes a second time changes nothing, as in the settled state.
_RECORD = """
INSERT INTO deals (
    deal, position, customer, person, actor, at, recorded, outcome, amount, currency, product,
    foreign_ids, decided, remark, corrections)
SELECT r.*, 0 FROM jsonb_to_recordset(%s::jsonb) AS r(
    deal text, position bigint, customer text, person text, actor text, at timestamptz,
    recorded timestamptz, outcome text, amount numeric, currency text, product text,
    foreign_ids jsonb, decided bigint, remark text)
ON CONFLICT DO NOTHING
"""
_NOTE = """
UPDATE deals d SET customer = r.customer, decided = r.decided, remark = r.remark
FROM jsonb_to_recordset(%s::jsonb)
    AS r(position bigint, customer text, decided bigint, remark text)
WHERE d.position = r.position
"""
_WAIT = """
INSERT INTO deal_corrections (position, deal, code, voids, outcome, amount, currency, product)
SELECT * FROM jsonb_to_recordset(%s::jsonb) AS r(
    position bigint, deal text, code text, voids boolean, outcome text, amount numeric,
    currency text, product text)
"""
_TAKE = """
DELETE FROM deal_corrections WHERE position = ANY(%b)
RETURNING position, deal, code, voids, outcome, amount::text, currency, product
"""
# An amount and its currency are one value: either both stay, or both are new.
_CORRECT = """
UPDATE deals d SET
    outcome = coalesce(r.outcome, d.outcome), amount = coalesce(r.amount, d.amount),
    currency = coalesce(r.currency, d.currency), product = coalesce(r.product, d.product),
    corrections = d.corrections + r.corrections,
    voided = coalesce(d.voided, r.voided), void_code = coalesce(d.void_code, r.void_code)
FROM jsonb_to_recordset(%s::jsonb) AS r(
    deal text, outcome text, amount numeric, currency text, product text, corrections integer,
    voided bigint, void_code text)
WHERE d.deal = r.deal
"""


class Deals:
    """The projection of deals."""

    name = "deals"
    version = 1
    tables = _TABLES
    handles = frozenset(
        {
            "DealRecorded.v1",
            "DealCorrected.v1",
            "DealVoided.v1",
            "Noted.v1",
            "CorrectionRefused.v1",
        }
    )
    needs_cause: frozenset[str] = frozenset()

    def apply(self, connection: Connection[Any], changes: Sequence[Change]) -> None:
        """Write what ``changes`` bring."""
        recorded: dict[int, dict[str, Any]] = {}
        noted: list[dict[str, Any]] = []
        waiting: list[dict[str, Any]] = []
        decided: dict[int, Event] = {}
        for event, _ in changes:
            match event.data:
                case requests.DealRecorded():
                    recorded[event.position] = _recorded(event, event.data)
                case requests.DealCorrected() | requests.DealVoided():
                    waiting.append(_waiting(event, event.data))
                case decisions.Noted(customer=customer, remark=remark):
                    ruling = {"customer": customer, "decided": event.position, "remark": remark}
                    cause = event.causation or 0
                    if cause in recorded:
                        recorded[cause].update(ruling)
                    else:
                        noted.append({"position": cause, **ruling})
                        decided[cause] = event
                case _:
                    decided[event.causation or 0] = event
        write(connection, _RECORD, list(recorded.values()))
        write(connection, _NOTE, noted)
        write(connection, _WAIT, waiting)
        if decided:
            positions = int8_array(list(decided))
            taken = connection.execute(_TAKE, (positions,), binary=True)
            write(connection, _CORRECT, _corrections(taken.fetchall(), decided))


def _recorded(event: Event, data: requests.DealRecorded) -> dict[str, Any]:
    return {
        "deal": data.deal,
        "position": event.position,
        "customer": data.customer,
        "person": data.person,
        "actor": event.actor,
        "at": event.envelope.get("occurred") or event.recorded,
        "recorded": event.recorded,
        "outcome": data.outcome,
        **_value(data.value),
        "product": data.product,
        "foreign_ids": [{"system": each.system, "value": each.value} for each in data.foreign_ids],
    }


def _waiting(event: Event, data: requests.DealCorrected | requests.DealVoided) -> dict[str, Any]:
    row = {"position": event.position, "deal": data.deal, "code": data.reason_code}
    if isinstance(data, requests.DealVoided):
        return {**row, "voids": True}
    said = {"outcome": data.outcome, "product": data.product, **_value(data.value)}
    return {**row, "voids": False, **said}


def _value(value: Money | None) -> dict[str, str]:
    return {} if value is None else {"amount": f"{value.amount:f}", "currency": value.currency}


def _corrections(
    taken: Sequence[tuple[Any, ...]], decided: dict[int, Event]
) -> list[dict[str, Any]]:
    """Return one row a deal of what holds, folded in the order of the decisions."""
    rows: dict[str, dict[str, Any]] = {}
    for position, deal, code, voids, *said in sorted(
        taken, key=lambda each: decided[each[0]].position
    ):
        decision = decided[position]
        if not isinstance(decision.data, decisions.Noted):
            continue
        row = rows.setdefault(deal, {"deal": deal, "corrections": 0})
        names = ("outcome", "amount", "currency", "product")
        row.update(
            (name, value) for name, value in zip(names, said, strict=True) if value is not None
        )
        if voids:
            row.update(voided=decision.position, void_code=code)
        else:
            row["corrections"] += 1
    return list(rows.values())


# --- queries -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Deal:
    """A deal as it stands after its corrections. Times are UTC; ``outcome`` is won or lost.

    ``remark`` is the decision's (see ledger/reasons.py), ``decided_position`` None while it is
    undecided. ``voided_position`` is that of the decision that voided it, for ``void_code``.
    """

    deal: str
    position: int
    customer: str
    person: str
    actor: str
    at: datetime
    recorded: datetime
    outcome: str
    value: Money | None
    product: str | None
    foreign_ids: tuple[ForeignId, ...]
    decided_position: int | None
    remark: str | None
    corrections: int
    voided_position: int | None
    void_code: str | None

    @property
    def stands(self) -> bool:
        """Whether it was not voided."""
        return self.voided_position is None

    @property
    def counts(self) -> bool:
        """Whether it counts: it stands, and was decided to be at a customer that was admitted."""
        is_decided = self.decided_position is not None
        return self.stands and is_decided and self.remark != reasons.CUSTOMER_NOT_ADMITTED

    @property
    def by_owner(self) -> bool | None:
        """Whether the customer's owner made it; None while undecided, or where nobody knows."""
        return by_owner(self.decided_position, self.remark, reasons.DEAL_BY_NON_OWNER)


@dataclass(frozen=True, slots=True)
class DealTotal:
    """How many deals that count had an outcome, and their value in one currency.

    ``currency`` and ``amount`` are None for the deals without a value.
    """

    outcome: str
    currency: str | None
    deals: int
    amount: Decimal | None


_COLUMNS = """
SELECT d.deal, d.position, d.customer, d.person, d.actor, d.at, d.recorded, d.outcome, d.amount,
    d.currency, d.product, d.foreign_ids, d.decided, d.remark, d.corrections, d.voided,
    d.void_code
FROM projections.deals d
"""
_ONE = f"{_COLUMNS} WHERE d.deal = %s"
_OF_CUSTOMER = f"{_COLUMNS} WHERE d.customer = %s AND d.position > %s ORDER BY d.position LIMIT %s"
_OF_PERSON = f"{_COLUMNS} WHERE d.person = %s AND d.position > %s ORDER BY d.position LIMIT %s"
_TOTALS = """
SELECT outcome, currency, count(*), sum(amount) FROM projections.deals
WHERE voided IS NULL AND decided IS NOT NULL AND remark IS DISTINCT FROM %(not_admitted)s
  AND (%(customer)s::text IS NULL OR customer = %(customer)s)
  AND (%(person)s::text IS NULL OR person = %(person)s)
GROUP BY outcome, currency ORDER BY outcome DESC, currency
"""


def deal(connection: Connection[Any], deal_id: str) -> Deal | None:
    """Return a deal, None where there is none of that id."""
    found = _found(connection, _ONE, (deal_id,))
    return found[0] if found else None


def of_customer(
    connection: Connection[Any], customer: str, *, after: int = 0, limit: int = PAGE
) -> list[Deal]:
    """Return a customer's deals, voided ones too, in the order of entry behind ``after``."""
    return _found(connection, _OF_CUSTOMER, (customer, after, limit))


def of_person(
    connection: Connection[Any], person: str, *, after: int = 0, limit: int = PAGE
) -> list[Deal]:
    """Return a person's deals, voided ones too, in the order of entry behind ``after``."""
    return _found(connection, _OF_PERSON, (person, after, limit))


def totals(
    connection: Connection[Any], *, customer: str | None = None, person: str | None = None
) -> list[DealTotal]:
    """Return what counts, won before lost, by currency: of all, a customer or a person."""
    asked = {
        "customer": customer,
        "person": person,
        "not_admitted": reasons.CUSTOMER_NOT_ADMITTED,
    }
    rows = connection.execute(_TOTALS, asked)
    return [DealTotal(*row) for row in rows]


def _found(connection: Connection[Any], statement: str, parameters: Any) -> list[Deal]:
    rows = connection.execute(statement.encode(), parameters, binary=True)
    return [
        Deal(
            *[
                *row[:8],
                None if row[8] is None or row[9] is None else Money(row[8], row[9]),
                row[10],
                tuple(ForeignId(each["system"], each["value"]) for each in row[11]),
                *row[12:],
            ]
        )
        for row in rows
    ]
