"""The body of an event: who, when, from where and why, around the data; and events as read.

A body is one JSON object with the keys

- ``request_id``, ``caller`` (the authenticated principal that recorded it) and ``index`` (of the
  event within the request), ``actor`` (whose act it is), ``on_behalf_of``, ``authority``
  (``asserted`` where the actor was only named, as on the command line);
- ``occurred`` (as stated, where it differs from the recorded time), ``source`` (system, reference,
  row), ``import`` (the import it belongs to), ``correlation``;
- of a decision ``causation`` (the request's position) and ``ordinal``, ``effective``, ``decider``
  (version), ``policy`` (number) and ``guards`` (the guard values seen);
- ``data``, as ledger/events says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from ledger.canonical import canonical_bytes, instant
from ledger.events.catalogue import Catalogue, Data


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request came from, for the eyes of an auditor: system, reference in it, row."""

    system: str
    reference: str | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What the envelope of a request says besides its data. Times are UTC with zone."""

    caller: str
    request_id: str
    actor: str
    on_behalf_of: str | None = None
    authority: str | None = None
    occurred: datetime | None = None
    source: Source | None = None
    import_id: str | None = None
    correlation: str | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the envelope of a decision says besides its data. ``effective`` is UTC."""

    causation: int
    ordinal: int
    effective: datetime
    decider: int
    policy: int
    guards: dict[str, int]
    import_id: str | None = None


def request_body(catalogue: Catalogue, origin: Origin, index: int, data: Data) -> bytes:
    """Return the canonical bytes of a request's (or fact's) body."""
    body: dict[str, Any] = {
        "actor": origin.actor,
        "caller": origin.caller,
        "data": catalogue.dump(data),
        "index": index,
        "request_id": origin.request_id,
    }
    if origin.on_behalf_of is not None:
        body["on_behalf_of"] = origin.on_behalf_of
    if origin.authority is not None:
        body["authority"] = origin.authority
    if origin.occurred is not None:
        body["occurred"] = instant(origin.occurred)
    if origin.source is not None:
        source = origin.source
        named = {"system": source.system, "reference": source.reference, "row": source.row}
        body["source"] = {key: value for key, value in named.items() if value is not None}
    if origin.import_id is not None:
        body["import"] = origin.import_id
    if origin.correlation is not None:
        body["correlation"] = origin.correlation
    return canonical_bytes(body)


def decision_body(catalogue: Catalogue, ruling: Ruling, data: Data) -> bytes:
    """Return the canonical bytes of a decision's body."""
    return decision_bodies(catalogue, ruling, (data,))[0]


def decision_bodies(catalogue: Catalogue, ruling: Ruling, several: Iterable[Data]) -> list[bytes]:
    """Return the canonical bytes of decisions made together; the ordinal is that of the first."""
    shared: dict[str, Any] = {
        "causation": ruling.causation,
        "decider": ruling.decider,
        "effective": instant(ruling.effective),
        "guards": ruling.guards,
        "policy": ruling.policy,
    }
    if ruling.import_id is not None:
        shared["import"] = ruling.import_id
    return [
        canonical_bytes({**shared, "data": catalogue.dump(data), "ordinal": ordinal})
        for ordinal, data in enumerate(several, ruling.ordinal)
    ]


class StoredEvent(NamedTuple):
    """An event as it stands in the log: ``body`` is its exact bytes."""

    position: int
    recorded: datetime
    stream: str
    version: int
    name: str
    body: bytes
    causation: int | None = None
    ordinal: int | None = None


class Event(NamedTuple):
    """An event as read: its place in the log, its envelope (parsed JSON), its typed data."""

    position: int
    recorded: datetime
    stream: str
    version: int
    name: str
    envelope: dict[str, Any]
    data: Any

    @property
    def actor(self) -> str:
        """Whose act it is; the enforcer's own decisions have none and say ``enforcer``."""
        actor: str = self.envelope.get("actor", "enforcer")
        return actor

    @property
    def caller(self) -> str:
        """The authenticated principal that recorded it."""
        caller: str = self.envelope.get("caller", "enforcer")
        return caller

    @property
    def causation(self) -> int | None:
        """Of a decision: the position of its request."""
        return self.envelope.get("causation")

    @property
    def ordinal(self) -> int | None:
        """Of a decision: its number among the decisions of its request, from 0."""
        return self.envelope.get("ordinal")

    @property
    def import_id(self) -> str | None:
        """The import that the event belongs to."""
        return self.envelope.get("import")

    @property
    def occurred(self) -> datetime:
        """When it happened as stated, else when it was recorded; UTC."""
        stated = self.envelope.get("occurred")
        return self.recorded if stated is None else datetime.fromisoformat(stated)

    @property
    def effective(self) -> datetime:
        """When it held: of a decision its effective time, of anything else ``occurred``; UTC."""
        effective = self.envelope.get("effective")
        return self.occurred if effective is None else datetime.fromisoformat(effective)


StoredRow = tuple[int, datetime, str, int, str, bytes, int | None, int | None]
"""The columns of a StoredEvent, which is one too."""


def decode(catalogue: Catalogue, stored: StoredRow) -> Event:
    """Return the event that ``stored`` holds.

    Raises UnknownEventError, orjson.JSONDecodeError or pydantic's ValidationError for what this
    version of guishu cannot read.
    """
    position, recorded, stream, version, name, body, _, _ = stored
    envelope: dict[str, Any] = orjson.loads(body)
    data = catalogue.load(name, envelope.pop("data"))
    # As Event(...) does, without a call of its generated constructor around it.
    return tuple.__new__(Event, (position, recorded, stream, version, name, envelope, data))
