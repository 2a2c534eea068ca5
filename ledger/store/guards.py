"""The guard rows: locking them in one order, and their settled state as JSON bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar

import orjson
from psycopg import Connection, sql
from pydantic import TypeAdapter

from ledger.approving import Approval
from ledger.collaborating import Collaboration
from ledger.conflicts import Allowed, Conflict
from ledger.counting import CountedAct, Counting
from ledger.customer import (
    Admitted,
    ClaimRefusal,
    Customer,
    FormerOwner,
    Free,
    Held,
    Refused,
    Unregistered,
)
from ledger.groups import Group
from ledger.handing_over import UnderWay
from ledger.settled import Act, Holdings, Key, Settled
from ledger.standing_in import StandIns
from ledger.store import involved
from ledger.store.arrays import bytea_array, int4_array, text_array
from ledger.store.beside import running

T = TypeVar("T")

_SEPARATOR = "\x1f"
_APPROVAL = TypeAdapter(Approval)
_COLLABORATIONS = TypeAdapter(tuple[Collaboration, ...])
_CONFLICTS = TypeAdapter(tuple[Conflict, ...])
_ALLOWED = TypeAdapter(tuple[Allowed, ...])
_COUNTING = TypeAdapter(Counting)
_COUNTED = tuple(each.name for each in fields(Counting))
_COUNTED_OF = attrgetter(*_COUNTED)
_UNDER_WAY = TypeAdapter(UnderWay)
_STAND_INS = TypeAdapter(StandIns)
_CLAIM_REFUSALS = TypeAdapter(tuple[ClaimRefusal, ...])

_READ = "SELECT key, version, state FROM ledger.guards WHERE key = ANY(%b)"
# The keys come sorted, and each statement takes its rows in that order: no two transactions can
# each hold what the other waits for.
_MAKE = """
INSERT INTO ledger.guards (key) SELECT key FROM unnest(%b::text[]) WITH ORDINALITY AS a(key, n)
WHERE NOT EXISTS (SELECT FROM ledger.guards g WHERE g.key = a.key)
ORDER BY n ON CONFLICT (key) DO NOTHING
"""
_LOCK = """
SELECT key, version, state FROM ledger.guards WHERE key = ANY(%b)
ORDER BY key COLLATE "C" FOR UPDATE
"""
_WRITE = sql.SQL("""
UPDATE ledger.guards g SET version = a.version, state = a.state
FROM unnest({}::text[], {}::integer[], {}::bytea[]) AS a(key, version, state)
WHERE g.key = a.key
""")
_WRITE_FEW = _WRITE.format(*map(sql.SQL, ("%b", "%b", "%b"))).as_string()
_WRITE_MANY = _WRITE.format(*map(sql.SQL, ("$1", "$2", "$3")))
# What the guards bring into the write-ahead log is by far the most of a batch, above all behind a
# checkpoint. It is brought to the disk before the append lock is taken, for else the COMMIT does
# it, and everybody who appends waits. PostgreSQL before 17 has no way to ask for that.
_WRITE_MANY_AND_FLUSH = sql.SQL("""
WITH written AS ({} RETURNING 1)
SELECT pg_logical_emit_message(false, 'guishu', '', true) FROM (SELECT count(*) FROM written) AS w
""").format(_WRITE_MANY)
_FLUSHES_FROM = 170_000
# From so many on it is worth it to work beside the server, and to ask for the flush.
_MANY = 50


def text_of(key: Key) -> str:
    """Return the key of a guard row; the parts hold no control characters."""
    return _SEPARATOR.join(key)


def key_of(text: str) -> Key:
    """Return what the guard row of a key is about."""
    return tuple(text.split(_SEPARATOR))


def read(connection: Connection[Any], keys: Iterable[Key], settled: Settled) -> None:
    """Read guards without locking them, as a guess; missing ones count as empty."""
    wanted = sorted({text_of(key) for key in keys})
    rows = connection.execute(_READ, (text_array(wanted),), prepare=True, binary=True).fetchall()
    load(settled, wanted, rows)


def make(connection: Connection[Any], keys: Iterable[Key]) -> int:
    """Make the rows that are missing, in key order, before any is locked; return how many."""
    wanted = text_array(sorted({text_of(key) for key in keys}))
    return connection.execute(_MAKE, (wanted,), prepare=True, binary=True).rowcount


def lock(connection: Connection[Any], keys: Iterable[Key], settled: Settled) -> bool:
    """Lock all rows in key order, and only then read their settled state.

    Returns False where a row is missing. The transaction then has to begin anew and make it first:
    whoever made rows with others locked could wait for somebody who waits for those.
    """
    wanted = sorted({text_of(key) for key in keys})
    rows = connection.execute(_LOCK, (text_array(wanted),), prepare=True, binary=True).fetchall()
    load(settled, (), rows)
    return len(rows) == len(wanted)


def load(settled: Settled, wanted: Iterable[str], rows: Iterable[tuple[str, int, bytes]]) -> None:
    """Put rows of guards (key, version, state) into ``settled``; what is missing is empty."""
    for key in wanted:
        _put(settled, key_of(key), 0, None)
    for key, version, state in rows:
        _put(settled, key_of(key), version, state)


def _put(settled: Settled, key: Key, version: int, state: bytes | None) -> None:
    parsed = orjson.loads(state) if state is not None else None
    match key:
        case ("customer", customer):
            settled.customers[customer] = customer_of(parsed)
            settled.versions[customer] = version
        case ("holdings", person):
            settled.holdings[person] = Holdings(*parsed) if parsed else Holdings()
        case ("grants", person, day):
            settled.grants[person, day] = parsed or 0
        case ("identifier", system, identifier):
            settled.identifiers[system, identifier] = parsed
        case ("act", act):
            settled.acts[act] = _act(parsed) if parsed else None
        case ("group", customer):
            settled.groups[customer] = _group(parsed) if parsed else Group()
        case ("person", person):
            under_way = _UNDER_WAY.validate_python(parsed) if parsed else None
            settled.hand_overs[person] = under_way
        case _:
            raise AssertionError(f"{key} is no guard")


@contextmanager
def writing(connection: Connection[Any], settled: Settled) -> Iterator[None]:
    """Write the state that decisions changed, where it is much while the block does something else.

    Every row was locked before. Raises as ``running``.
    """
    keys = sorted((text_of(key), key) for key in settled.touched)
    if settled.involved_before:
        involved.write(connection, settled)
    values = (
        text_array([text for text, _ in keys]),
        int4_array([version_of(settled, key) for _, key in keys]),
        bytea_array([state_of(settled, key) for _, key in keys]),
    )
    if len(keys) >= _MANY:
        can_flush = connection.info.server_version >= _FLUSHES_FROM
        with running(connection, _WRITE_MANY_AND_FLUSH if can_flush else _WRITE_MANY, values):
            yield
        return
    if keys:
        connection.execute(_WRITE_FEW, values, prepare=True, binary=True)
    yield


def version_of(settled: Settled, key: Key) -> int:
    """Return the version of a customer's ownership stream, 0 for every other guard."""
    return settled.version(key[1]) if key[0] == "customer" else 0


def state_of(settled: Settled, key: Key) -> bytes:
    """Return the JSON bytes of one guard's state."""
    value: Any
    match key:
        case ("customer", customer):
            value = customer_json(settled.customers[customer])
        case ("holdings", person):
            holdings = settled.holdings[person]
            value = [holdings.held, holdings.held_won]
            value += [] if holdings.closed is None else [holdings.closed]
        case ("grants", person, day):
            value = settled.grants[person, day]
        case ("identifier", system, identifier):
            value = settled.identifiers[system, identifier]
        case ("act", act):
            value = _act_json(settled.acts[act])
        case ("group", customer):
            value = _group_json(settled.groups[customer])
        case ("person", person):
            value = settled.hand_overs[person]
        case _:
            raise AssertionError(f"{key} is no guard")
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def customer_json(customer: Customer) -> dict[str, Any]:
    """Return a customer's state as JSON; times stand as they are, for orjson to write."""
    match customer:
        case Unregistered():
            return {"status": "unregistered", "effective": customer.effective}
        case Refused():
            return {
                "status": "refused",
                "existing": customer.existing,
                "effective": customer.effective,
            }
        case Admitted():
            tenure = customer.tenure
            held = isinstance(tenure, Held) and [
                tenure.owner,
                tenure.since,
                tenure.protected_until,
            ]
            return {
                "status": "admitted",
                "effective": customer.effective,
                "known_from": customer.known_from,
                "kind": customer.kind,
                "territory": customer.territory,
                "attributes": customer.attributes,
                "identifiers": customer.identifiers,
                "parent": customer.parent,
                "closed": customer.closed,
                "held": held or None,
                "former": [[each.person, each.began, each.ended] for each in customer.former],
                "won_deals": customer.won_deals,
                **_rare_json(customer),
                **_counting_json(customer),
                "contacts": sorted(customer.contacts),
            }


def customer_of(state: dict[str, Any] | None) -> Customer:
    """Return the customer's state that parsed JSON holds; of None one of whom nothing is known."""
    if state is None:
        return Unregistered()
    effective = _moment(state["effective"])
    if state["status"] == "unregistered":
        return Unregistered(effective)
    if state["status"] == "refused":
        return Refused(state["existing"], effective)
    if effective is None:
        raise AssertionError("an admitted customer has an effective time")
    held = state["held"]
    return Admitted(
        effective,
        datetime.fromisoformat(state["known_from"]),
        state["kind"],
        state["territory"],
        state["attributes"],
        state["identifiers"],
        state["parent"],
        state["closed"],
        _held(held[0], held[1], held[2], state.get("counting")) if held else Free(),
        tuple(_former(*each) for each in state["former"]),
        state["won_deals"],
        frozenset(state["contacts"]),
        _APPROVAL.validate_python(state["approval"]) if "approval" in state else None,
        tuple(state.get("turned_down", ())),
        frozenset(state.get("sites", ())),
        _rare(_COLLABORATIONS, state.get("collaborations")),
        _rare(_CONFLICTS, state.get("conflicts")),
        _rare(_ALLOWED, state.get("allowed")),
        state.get("children", 0),
        _rare(_STAND_INS, state.get("stand_ins")),
        _rare(_CLAIM_REFUSALS, state.get("claim_refusals")),
        state.get("parked"),
    )


def _rare(adapter: TypeAdapter[tuple[T, ...]], found: list[Any] | None) -> tuple[T, ...]:
    return adapter.validate_python(found) if found else ()


def _rare_json(customer: Admitted) -> dict[str, Any]:
    """Return what most customers have none of, so that it takes no room in their rows."""
    found: dict[str, Any] = {}
    if customer.approval is not None:
        found["approval"] = customer.approval
    if customer.turned_down:
        found["turned_down"] = customer.turned_down
    if customer.sites:
        found["sites"] = sorted(customer.sites)
    if customer.collaborations:
        found["collaborations"] = _COLLABORATIONS.dump_python(
            customer.collaborations, mode="json", exclude_defaults=True
        )
    if customer.conflicts:
        found["conflicts"] = customer.conflicts
    if customer.allowed:
        found["allowed"] = customer.allowed
    if customer.children:
        found["children"] = customer.children
    if customer.stand_ins:
        found["stand_ins"] = customer.stand_ins
    if customer.claim_refusals:
        found["claim_refusals"] = customer.claim_refusals
    if customer.parked is not None:
        found["parked"] = customer.parked
    return found


def _held(owner: str, since: str, until: str | None, counting: dict[str, Any] | None) -> Held:
    counted = Counting() if counting is None else _COUNTING.validate_python(counting)
    return Held(owner, datetime.fromisoformat(since), _moment(until), counted)


def _counting_json(customer: Admitted) -> dict[str, Any]:
    if not isinstance(customer.tenure, Held):
        return {}
    counting = customer.tenure.counting
    said = zip(_COUNTED, _COUNTED_OF(counting), strict=True)
    found: dict[str, Any] = {name: value for name, value in said if value}
    if counting.follow_ups:
        found["follow_ups"] = [_followed_up_json(each) for each in counting.follow_ups]
    if counting.deals:
        found["deals"] = [{"act": each.act, "at": each.at} for each in counting.deals]
    return {"counting": found} if found else {}


def _followed_up_json(act: CountedAct) -> dict[str, Any]:
    found: dict[str, Any] = {"act": act.act, "at": act.at}
    if act.note is not None:
        found["note"] = act.note
    if act.by is not None:
        found["by"] = act.by
    if act.token_of is not None:
        found["token_of"] = act.token_of
    return found


def _former(person: str, began: str, ended: str) -> FormerOwner:
    return FormerOwner(person, datetime.fromisoformat(began), datetime.fromisoformat(ended))


def _group_json(group: Group) -> dict[str, Any] | None:
    if group == Group():
        return None
    allowed = {"allowed": group.allowed} if group.allowed else {}
    return {"owners": group.owners, **allowed}


def _group(state: dict[str, Any]) -> Group:
    return Group(state["owners"], tuple(state.get("allowed", ())))


def _act_json(act: Act | None) -> list[Any] | None:
    if act is None:
        return None
    return [act.customer, act.kind, act.person, act.actor, act.at, act.outcome, act.stands]


def _act(state: list[Any]) -> Act:
    customer, kind, person, actor, at, outcome, stands = state
    return Act(customer, kind, person, actor, datetime.fromisoformat(at), outcome, stands)
