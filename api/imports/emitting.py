"""From the ordered tables of the temporary file to actions, a page at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import orjson

from api.imports.actions import (
    Action,
    AddPerson,
    Attribute,
    Contact,
    DateAttribute,
    DecimalAttribute,
    DefineTerritory,
    FileClaim,
    FileRelease,
    IntegerAttribute,
    LogFollowUp,
    MoneyAmount,
    MoneyAttribute,
    OpenWithOwner,
    RecordDeal,
    RegisterCustomer,
    SetAttribute,
    TextAttribute,
)
from api.imports.interpreting import key_part
from api.imports.resolving import merge_definition
from api.imports.staging import split_source
from api.imports.values import from_microseconds

PAGE_ROWS = 1_000

# Roles of people whom no row defines.
ROLE_OF_REPS = "rep"

_FACTS = """
SELECT f.ordinal, e.no, e.role, coalesce('ledger:' || e.known, e.ref), e.name, e.source,
       e.opening, coalesce('ledger:' || p.known, p.ref),
       d.source, d.key, coalesce('ledger:' || t.known, t.ref), d.payload
  FROM fact f
  JOIN entity e ON e.no = f.entity
  LEFT JOIN entity p ON p.no = e.parent
  LEFT JOIN definition d ON d.entity = e.no
  LEFT JOIN mention m ON m.no = d.territory
  LEFT JOIN entity t ON t.no = m.entity
 WHERE f.ordinal > ? AND f.ordinal <= ?
 ORDER BY f.ordinal, d.source
"""

_MANAGED = """
SELECT coalesce('ledger:' || t.known, t.ref), g.head
  FROM management g JOIN entity t ON t.no = g.territory
 WHERE g.person = ? ORDER BY t.source, t.no
"""

_TIMELINE = """
SELECT l.ordinal, l.at, l.source, l.kind, l.key, coalesce('ledger:' || p.known, p.ref),
       coalesce('ledger:' || c.known, c.ref), l.payload
  FROM timeline l JOIN entity p ON p.no = l.person JOIN entity c ON c.no = l.customer
 WHERE l.ordinal > ? AND l.ordinal <= ?
 ORDER BY l.ordinal
"""


def read_actions(
    connection: sqlite3.Connection, labels: Sequence[str], start: int
) -> Iterator[Action]:
    """Yield the actions after the first ``start``; ``labels`` are the files by number."""
    (facts,) = connection.execute("SELECT coalesce(max(ordinal), 0) FROM fact").fetchone()
    (acts,) = connection.execute("SELECT coalesce(max(ordinal), 0) FROM timeline").fetchone()
    emitter = _Emitter(connection, labels)
    for page in range(min(start, facts), facts, PAGE_ROWS):
        yield from emitter.facts(page, min(page + PAGE_ROWS, facts))
    for page in range(max(start - facts, 0), acts, PAGE_ROWS):
        yield from emitter.acts(page, min(page + PAGE_ROWS, acts))


class _Emitter:
    def __init__(self, connection: sqlite3.Connection, labels: Sequence[str]) -> None:
        self._connection = connection
        self._labels = labels

    def facts(self, after: int, until: int) -> Iterator[Action]:
        rows = self._connection.execute(_FACTS, (after, until)).fetchall()
        for _, group in groupby(rows, key=lambda row: row[0]):
            yield self._fact(list(group))

    def _fact(self, rows: list[tuple[Any, ...]]) -> Action:
        _, number, role, ref, name, source, opening, parent, *_ = rows[0]
        said: dict[str, Any] = {}
        territory: str | None = None
        key = f"{role}/created/{key_part(ref)}"
        for row in rows:
            own_source, own_key, own_territory, payload = row[8:]
            if payload is not None:
                merge_definition(said, orjson.loads(payload))
            if row is rows[0] and own_key is not None:
                source, key = own_source, own_key
            territory = territory or own_territory
        file, row_number = self._place(source)
        place: dict[str, Any] = {"key": key, "file": file, "row": row_number}
        name = said.get("name", name)
        if role == "territory":
            return DefineTerritory(**place, territory=ref, name=name, parent=parent)
        if role == "person":
            return self._person(place, number, ref, name, territory, said)
        return RegisterCustomer(
            **place,
            customer=ref,
            name=name,
            customer_kind=said.get("kind") or "organisation",
            identifiers=tuple(sorted(said.get("identifiers", {}).items())),
            foreign_id=said.get("id"),
            parent=parent,
            territory=territory,
            attributes=tuple(
                _attribute(each, *stated)
                for each, stated in sorted(said.get("attributes", {}).items())
            ),
            contacts=tuple(Contact(*contact) for contact in said.get("contacts", ())),
            opening_balance=bool(opening),
        )

    def _person(
        self,
        place: dict[str, Any],
        number: int,
        ref: str,
        name: str,
        territory: str | None,
        said: dict[str, Any],
    ) -> AddPerson:
        managed = self._connection.execute(_MANAGED, (number,)).fetchall()
        heads = tuple(each for each, head in managed if head)
        manages = tuple(each for each, head in managed if not head)
        roles = list(said.get("roles", ()))
        if managed:
            roles.append(ROLE_OF_MANAGERS)
        elif not said:
            roles.append(ROLE_OF_REPS)
        return AddPerson(
            **place,
            person=ref,
            name=name,
            # Who only manages is at home where that is.
            territory=territory or next(iter((*heads, *manages)), None),
            roles=tuple(dict.fromkeys(roles)),
            heads=heads,
            manages=manages,
            phone=said.get("phone"),
            email=said.get("email"),
            foreign_id=said.get("id"),
        )

    def acts(self, after: int, until: int) -> Iterator[Action]:
        rows = self._connection.execute(_TIMELINE, (after, until)).fetchall()
        for _, at, source, kind, key, person, customer, payload in rows:
            file, row_number = self._place(source)
            common: dict[str, Any] = {"key": key, "file": file, "row": row_number}
            common |= {"person": person, "customer": customer}
            said = orjson.loads(payload) if payload is not None else {}
            yield _ACTS[kind](common, from_microseconds(at), said)

    def _place(self, source: int) -> tuple[str, int]:
        number, row = split_source(source)
        return self._labels[number], row


# In a list without roles, managers are the people who manage something.
ROLE_OF_MANAGERS = "manager"


def _attribute(name: str, kind: str, value: Any) -> Attribute:
    match kind:
        case "integer":
            return IntegerAttribute(name, int(value))
        case "decimal":
            return DecimalAttribute(name, Decimal(value))
        case "money":
            return MoneyAttribute(name, _money(value))
        case "date":
            return DateAttribute(name, date.fromisoformat(value))
        case "set":
            return SetAttribute(name, tuple(value))
        case _:
            return TextAttribute(name, value)


def _money(stated: list[str]) -> MoneyAmount:
    amount, currency = stated
    return MoneyAmount(Decimal(amount), currency)


def _claim(common: dict[str, Any], at: datetime, _: dict[str, Any]) -> Action:
    return FileClaim(**common, at=at)


def _release(common: dict[str, Any], at: datetime, said: dict[str, Any]) -> Action:
    return FileRelease(**common, at=at, cause=said["cause"])


def _deal(common: dict[str, Any], at: datetime, said: dict[str, Any]) -> Action:
    value = said["value"]
    return RecordDeal(
        **common,
        at=at,
        outcome=said["outcome"],
        value=None if value is None else _money(value),
        product=said["product"],
    )


def _follow_up(common: dict[str, Any], at: datetime, said: dict[str, Any]) -> Action:
    next_date = said["next_date"]
    return LogFollowUp(
        **common,
        at=at,
        method=said["method"],
        agreed=said["agreed"],
        next_date=None if next_date is None else date.fromisoformat(next_date),
    )


def _open(common: dict[str, Any], _: datetime, __: dict[str, Any]) -> Action:
    return OpenWithOwner(**common)


_ACTS: dict[str, Callable[[dict[str, Any], datetime, dict[str, Any]], Action]] = {
    "file_claim": _claim,
    "file_release": _release,
    "record_deal": _deal,
    "log_follow_up": _follow_up,
    "open_with_owner": _open,
}
