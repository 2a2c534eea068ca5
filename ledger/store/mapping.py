"""The catalogue's events as domain events of the eventsourcing library, and back.

The library's own mapper names an event by its Python path and writes whatever its class holds. Here
the name is the catalogue's, and the state is the canonical body that stands in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import orjson
from eventsourcing.domain import DomainEventProtocol
from eventsourcing.persistence import (
    Cipher,
    Compressor,
    InfrastructureFactoryError,
    Mapper,
    MapperDeserialisationError,
    StoredEvent,
    Transcoder,
)
from pydantic import ValidationError

from ledger.canonical import canonical_bytes
from ledger.events.catalogue import Catalogue, Data, catalogue

_SNAPSHOT = "snapshot:"


@dataclass(frozen=True, slots=True)
class CatalogueEvent:
    """A domain event of an application: its place, its envelope (JSON-ready), its typed data.

    ``originator_id`` is the stream. What an envelope says stands in ledger/envelope.py.
    """

    originator_id: str
    originator_version: int
    envelope: Mapping[str, Any]
    data: Data


class Snapshotted(Protocol):
    """An aggregate of which snapshots can be taken; the name changes with the state's shape."""

    snapshot_name: ClassVar[str]

    @property
    def id(self) -> str: ...

    @property
    def version(self) -> int: ...

    def snapshot_state(self) -> Mapping[str, Any]:
        """Return the state as a JSON-ready mapping."""
        ...


@dataclass(frozen=True, slots=True)
class StateSnapshot:
    """The state of an aggregate at a version; the first thing that a projector function gets."""

    originator_id: str
    originator_version: int
    name: str
    state: Mapping[str, Any]

    @classmethod
    def take(cls, aggregate: Snapshotted) -> Self:
        """Return a snapshot of ``aggregate``."""
        return cls(
            aggregate.id, aggregate.version, aggregate.snapshot_name, aggregate.snapshot_state()
        )


class CatalogueMapper(Mapper[str]):
    """Maps CatalogueEvent and StateSnapshot to stored events, and back.

    Takes no compressor and no cipher: the log's bytes are fixed for ever, and what is personal in
    them is sealed field by field before (see ledger/sealing.py).
    """

    def __init__(
        self,
        transcoder: Transcoder,
        compressor: Compressor | None = None,
        cipher: Cipher | None = None,
        known: Catalogue | None = None,
    ) -> None:
        if compressor is not None or cipher is not None:
            raise InfrastructureFactoryError("The log is neither compressed nor encrypted whole.")
        super().__init__(transcoder)
        self._catalogue = known or catalogue()

    def to_stored_event(self, domain_event: DomainEventProtocol[str]) -> StoredEvent:
        """Return name and canonical bytes.

        Raises TypeError for an event that is none of the catalogue's, NotCanonicalError or
        TextRefusedError for content that no event may have.
        """
        if isinstance(domain_event, CatalogueEvent):
            topic = self._catalogue.name_of(domain_event.data)
            body = {**domain_event.envelope, "data": self._catalogue.dump(domain_event.data)}
        elif isinstance(domain_event, StateSnapshot):
            topic = _SNAPSHOT + domain_event.name
            body = dict(domain_event.state)
        else:
            raise TypeError(f"{type(domain_event).__qualname__} is no event of the catalogue.")
        return StoredEvent(
            domain_event.originator_id,
            domain_event.originator_version,
            topic,
            canonical_bytes(body),
        )

    def to_domain_event(self, stored_event: StoredEvent) -> DomainEventProtocol[str]:
        """Return what was stored.

        Raises UnknownEventError for a name that is not the catalogue's, and
        MapperDeserialisationError for bytes that are not of that event's shape.
        """
        stream, version = str(stored_event.originator_id), stored_event.originator_version
        try:
            body = orjson.loads(stored_event.state)
            if not isinstance(body, dict):
                raise TypeError("the body is no JSON object")
            if stored_event.topic.startswith(_SNAPSHOT):
                name = stored_event.topic.removeprefix(_SNAPSHOT)
                return StateSnapshot(stream, version, name, body)
            data = self._catalogue.load(stored_event.topic, body.pop("data"))
        except (orjson.JSONDecodeError, ValidationError, KeyError, TypeError) as error:
            raise MapperDeserialisationError(
                f"{stored_event.topic} in {stream} at version {version} cannot be read: {error}"
            ) from error
        return CatalogueEvent(stream, version, body, data)
