"""From the records of all partitions to the tail of the log, in the order of the log. Pure.

Each partition holds its positions in their order: whoever sends begins behind what was acknowledged
before, and sends in order. What is sent again comes behind what is higher, and is known by its
position. So the next position of the log is in front of one of the partitions, or in none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

from consumers.kafka.records import Linked, Mark
from ledger.store.generations import Generations

# So many ranges of missing positions are told of; they are all counted.
RANGES_TOLD_MAX = 10


class Merge:
    """Takes records as they are delivered, and gives those behind ``head`` in the log's order.

    What a generation before that of ``head`` has left behind was given up, and is dropped.
    """

    def __init__(self, partitions: int, head: int, generations: Generations) -> None:
        self._waiting: list[deque[Linked | Mark]] = [deque() for _ in range(partitions)]
        self._head = head
        self._generations = generations
        self._next = head + 1
        # The highest position that any record tells of.
        self.known = 0
        # The highest generation that any record is of, and the lowest position of those that are of
        # one that the store does not know there.
        self.generation = 0
        self.unknown_at: int | None = None
        # What was given before, or stands in the store: it has to be the same.
        self.again: list[Linked] = []
        # The positions that are missing in between: how many, and the first of their ranges.
        self.missing_count = 0
        self.missing: list[range] = []

    def give(self, partition: int, records: Iterable[Linked | Mark]) -> None:
        """Take what was delivered of a partition."""
        self._waiting[partition].extend(records)

    def held(self, partition: int) -> int:
        """Return how many records of a partition wait."""
        return len(self._waiting[partition])

    def take(self, ended: Collection[int]) -> Linked | None:
        """Return the next event of the tail; None where more must be delivered, or all is done.

        ``ended`` are the partitions of which nothing more will come.
        """
        while True:
            fronts = []
            for partition, waiting in enumerate(self._waiting):
                front = self._front(waiting)
                if front is not None:
                    fronts.append((front.event.position, waiting))
                elif partition not in ended:
                    return None
            if not fronts:
                return None
            position, waiting = min(fronts, key=lambda each: each[0])
            if position > self._next:
                self._miss(position)
            self._next = position + 1
            taken = waiting.popleft()
            if isinstance(taken, Mark):
                raise AssertionError("a mark is never in front")
            return taken

    def end(self) -> None:
        """Count as missing what marks tell of behind the last event."""
        if self.known >= self._next:
            self._miss(self.known + 1)

    def _miss(self, upto: int) -> None:
        self.missing_count += upto - self._next
        if len(self.missing) < RANGES_TOLD_MAX:
            self.missing.append(range(self._next, upto))
        self._next = upto

    def _front(self, waiting: deque[Linked | Mark]) -> Linked | None:
        """Return the first event that may be of the tail; what stands in front of it is dropped."""
        while waiting:
            record = waiting[0]
            position = record.upto if isinstance(record, Mark) else record.event.position
            self.generation = max(self.generation, record.generation)
            ours = self._generations.of(position)
            if record.generation >= ours:
                self.known = max(self.known, position)
            if record.generation > ours:
                self.unknown_at = min(position, self.unknown_at or position)
            elif record.generation == ours and isinstance(record, Linked):
                if position >= self._next:
                    return record
                self.again.append(record)
            waiting.popleft()
        return None
