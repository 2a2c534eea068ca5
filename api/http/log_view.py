"""The log as callers see it: events as JSON, built from their stored bytes.

A body is canonical JSON and needs no parsing to stand inside another document. Its sealed texts
stay sealed, but for callers who may see personal data everywhere and ask for them in plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from psycopg import Connection

from ledger.canonical import instant
from ledger.envelope import Event, StoredEvent, StoredRow, decode
from ledger.events.catalogue import Catalogue
from ledger.events.values import Sealed
from ledger.store.arrays import text_array

OpenText = Callable[[Event, str, Sealed], str | None]
"""What gives the plain text of a sealed field, such as ``Vault.open_text``."""

_COLUMNS = "position, recorded, stream, version, name, body, causation, ordinal"
_PAGE = f"""
SELECT {_COLUMNS} FROM ledger.events e
WHERE position > %(after)s AND position <= %(upto)s
"""  # noqa: S608  # constants
_NAMED = " AND name = ANY(%(names)b)"
_IN_STREAMS = " AND stream = ANY(%(streams)b)"
# By where the customer lies now: a decision of before may have found it elsewhere.
_IN_TERRITORY = """
 AND (e.stream LIKE 'customer-%%' OR e.stream LIKE 'ownership-%%')
 AND EXISTS (SELECT FROM projections.customers c
             WHERE c.customer = substr(e.stream, strpos(e.stream, '-') + 1)
               AND c.territory = ANY(%(territories)b))
"""
_VALUED = ("TransferRequested.", "DealRecorded.", "DealCorrected.")
_ORDER = " ORDER BY position LIMIT %(limit)s"


@dataclass(frozen=True, slots=True)
class Filter:
    """What of the log somebody wants: of customers, in territories, by names; None: all."""

    customer: str | None = None
    territories: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None

    def takes(self, event: StoredEvent, territories: Mapping[str, str | None]) -> bool:
        """Say whether an event is wanted; ``territories`` says where customers lie now."""
        if self.names is not None and event.name not in self.names:
            return False
        if self.customer is None and self.territories is None:
            return True
        customer = customer_of(event)
        if self.customer is not None and customer != self.customer:
            return False
        return self.territories is None or (
            customer is not None and territories.get(customer) in self.territories
        )


def customer_of(event: StoredEvent) -> str | None:
    """Return the customer in whose stream an event stands, None where it is another stream."""
    kind, _, name = event.stream.partition("-")
    return name if kind in ("customer", "ownership") else None


def read_page(
    connection: Connection[Any], wanted: Filter, after: int, upto: int, limit: int
) -> list[StoredEvent]:
    """Return up to ``limit`` events that are wanted, behind ``after`` and up to ``upto``."""
    given: dict[str, Any] = {"after": after, "upto": upto, "limit": limit}
    statement = _PAGE
    if wanted.customer is not None:
        statement += _IN_STREAMS
        given["streams"] = text_array(
            [f"customer-{wanted.customer}", f"ownership-{wanted.customer}"]
        )
    if wanted.names is not None:
        statement += _NAMED
        given["names"] = text_array(wanted.names)
    if wanted.territories is not None:
        statement += _IN_TERRITORY
        given["territories"] = text_array(wanted.territories)
    rows: list[StoredRow] = connection.execute(
        (statement + _ORDER).encode(), given, binary=True
    ).fetchall()
    return [StoredEvent._make(row) for row in rows]


def without_value(event: StoredEvent) -> StoredEvent:
    """Return an event without the value of a deal, which is not for all who read the log.

    Beside its data stands ``masked`` then: such a body is not that of which the leaf's hash is.
    """
    if not event.name.startswith(_VALUED):
        return event
    body = orjson.loads(event.body)
    if body["data"].pop("value", None) is None:
        return event
    return event._replace(body=orjson.dumps(body | {"masked": ["value"]}))


def as_json(event: StoredEvent) -> bytes:
    """Return an event as JSON: its place in the log, and its body as it stands there."""
    head = (
        f'{{"position":{event.position},"recorded":"{instant(event.recorded)}"'
        f',"stream":"{event.stream}","version":{event.version},"name":"{event.name}","body":'
    )
    return head.encode() + event.body + b"}"


def page_json(events: Sequence[StoredEvent], following: int | None) -> bytes:
    """Return a page of events as JSON, without values; ``following``: where to go on behind."""
    return joined([as_json(without_value(each)) for each in events], following)


def joined(items: Sequence[bytes], following: int | None) -> bytes:
    """Return a page of rendered events."""
    end = b"null" if following is None else str(following).encode()
    return b'{"items":[' + b",".join(items) + b'],"next":' + end + b"}"


def unsealed(
    catalogue: Catalogue, open_text: OpenText, event: StoredEvent
) -> tuple[bytes, frozenset[str]]:
    """Return an event as JSON with its sealed texts in plain beside, and which fields these are.

    ``plain`` holds them by the name of the field under which each was sealed; null where the key
    was destroyed. Raises UnsealingFailedError.
    """
    document = orjson.loads(as_json(event))
    has_value = document["body"]["data"].get("value") and event.name.startswith(_VALUED)
    decoded = decode(catalogue, event)
    plain = {
        name: open_text(decoded, name, sealed)
        for name, sealed in _sealed_in(document["body"]["data"], ())
    }
    if plain:
        document["plain"] = plain
    return orjson.dumps(document), frozenset(plain).union({"value"} if has_value else ())


def _sealed_in(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Sealed]]:
    """Yield the sealed texts of an event's data, by the names under which they were sealed."""
    if isinstance(value, dict):
        if value.keys() == {"key", "text"}:
            # The number of an individual stands in an object of its own.
            yield ".".join(path).removesuffix(".sealed"), Sealed(value["key"], value["text"])
            return
        for key, inner in value.items():
            yield from _sealed_in(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _sealed_in(inner, (*path, _name_of(inner)))


def _name_of(item: Any) -> str:
    """Return by what an item of a list is told apart, as sealing names its fields."""
    names = item if isinstance(item, dict) else {}
    return next((str(names[key]) for key in ("contact", "site", "system") if key in names), "")
