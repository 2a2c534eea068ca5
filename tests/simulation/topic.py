"""The log's topic in memory, and the network in front of it.

A producer's session keeps the order of what it sends to a partition. What it has sent may be taken
at once, or late, when its relay is long gone and another one leads; it may be lost; and it may be
taken without its sender ever learning of it. What was taken stays, until retention cuts it off in
front, or the topic is lost.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from consumers.kafka.records import Encoded, Linked, Mark, decode
from tests.simulation.store import PARTITIONS
from tests.simulation.violations import Violation


@dataclass(slots=True)
class Session:
    """What a producer has sent and the broker has not taken, by partition."""

    name: str
    queues: list[deque[Encoded]] = field(
        default_factory=lambda: [deque() for _ in range(PARTITIONS)]
    )

    @property
    def waiting(self) -> int:
        """How many records have not been taken."""
        return sum(map(len, self.queues))


@dataclass(slots=True)
class Partition:
    """The records of a partition; those in front of ``begin`` are cut off."""

    records: list[Encoded] = field(default_factory=list)
    begin: int = 0


class Topic:
    """The partitions, with what each event said in them at its first sending."""

    def __init__(self) -> None:
        self.topic_id = 1
        self.partitions = [Partition() for _ in range(PARTITIONS)]
        # By generation and position; this outlives a lost topic.
        self._said: dict[tuple[int, int], Linked] = {}

    def take(self, session: Session, number: int, count: int) -> int:
        """Take so many records of a session, in their order; return how many there were."""
        queue, taken = session.queues[number], 0
        while queue and taken < count:
            record = queue.popleft()
            self._check(record)
            self.partitions[number].records.append(record)
            taken += 1
        return taken

    def _check(self, record: Encoded) -> None:
        said = decode(record.value, record.headers)
        if isinstance(said, Mark):
            return
        before = self._said.setdefault((said.generation, said.event.position), said)
        if before != said:
            raise Violation("same words", f"{said} was sent before as {before}")

    def cut(self, number: int, count: int) -> int:
        """Let retention cut off the front of a partition; return where it begins now."""
        partition = self.partitions[number]
        partition.begin = min(len(partition.records), partition.begin + count)
        return partition.begin

    def lose(self) -> None:
        """Lose the topic, and make it anew."""
        self.topic_id += 1
        self.partitions = [Partition() for _ in range(PARTITIONS)]

    def told(self, number: int, *, cut_off: bool = False) -> list[Linked | Mark]:
        """Return what a partition tells from its beginning on; also what is cut off, if asked."""
        partition = self.partitions[number]
        begin = 0 if cut_off else partition.begin
        return [decode(each.value, each.headers) for each in partition.records[begin:]]

    def all_told(self) -> list[Linked | Mark]:
        """Return what all partitions tell."""
        return [each for number in range(PARTITIONS) for each in self.told(number)]


class Reader:
    """A consumer's place in a partition: it reads on from an offset, from the front where that is
    cut off or the topic was made anew and is shorter."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._offset = 0

    def poll(self, topic: Topic, limit: int, again: int = 0) -> list[Linked | Mark]:
        """Return what comes next; ``again`` so many records were brought before."""
        partition = topic.partitions[self._partition]
        self._offset -= again
        if not partition.begin <= self._offset <= len(partition.records):
            self._offset = partition.begin
        brought = partition.records[self._offset : self._offset + limit]
        self._offset += len(brought)
        return [decode(each.value, each.headers) for each in brought]
