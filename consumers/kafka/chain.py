"""Where an event stands in a topic, and which event of its partition stands before it. Pure.

All about a customer stands in one partition, in the order of the log. Each record names the
previous position of its partition, by which a reader sees that nothing is missing in between:
positions themselves have gaps there, for other partitions have the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from typing import NamedTuple

from kafka.partitioner.default import murmur2

from ledger.envelope import StoredEvent

_KEYS_KEPT = 100_000
_PREFIXES = ("customer-", "ownership-", "person-")


def key_of(stream: str) -> str:
    """Return the key of a stream's records: the id of the customer, or else of the person.

    Any other stream (``organisation``) is its own key.
    """
    for prefix in _PREFIXES:
        if stream.startswith(prefix):
            return stream[len(prefix) :]
    return stream


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key: the one that Kafka's own clients choose in any language."""
    hashed: int = murmur2(key.encode())
    return (hashed & 0x7FFF_FFFF) % partitions


class Placed(NamedTuple):
    """An event in its partition, and the position of the one before it there, 0 for the first."""

    event: StoredEvent
    partition: int
    previous: int


class Chain:
    """Places events in the order of the log.

    ``lasts`` are the highest positions of each partition among those placed before. Placed again
    from the same place on, events come out the same.
    """

    def __init__(self, partitions: int, lasts: Mapping[int, int]) -> None:
        # Kafka's hash is slow in Python, and customers come again.
        self._partition_of = lru_cache(_KEYS_KEPT)(partial(partition_of, partitions=partitions))
        self._lasts = {number: lasts.get(number, 0) for number in range(partitions)}

    def place(self, event: StoredEvent) -> Placed:
        """Return where the next event of the log stands."""
        partition = self._partition_of(key_of(event.stream))
        placed = Placed(event, partition, self._lasts[partition])
        self._lasts[partition] = event.position
        return placed


class Checkpoint(NamedTuple):
    """Up to where all is acknowledged, and the last positions of the partitions up to there."""

    position: int
    lasts: dict[int, int]


def checkpoint(sent: Iterable[Placed], acknowledged: Iterable[bool]) -> Checkpoint | None:
    """Return how far the acknowledgements reach without a gap; None where the first is missing.

    Only partitions that have moved are among ``lasts``. What is acknowledged behind a gap counts as
    not sent: it will be sent again, and whoever reads it knows it by its position.
    """
    position, lasts = 0, {}
    for placed, is_there in zip(sent, acknowledged, strict=True):
        if not is_there:
            break
        position = placed.event.position
        lasts[placed.partition] = position
    return Checkpoint(position, lasts) if position else None
