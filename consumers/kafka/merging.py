"""From the records of all partitions to the tail of the log, in the order of the log. Pure.

Each partition holds its positions in their order: whoever sends begins behind what was acknowledged
before, and sends in order. What is sent again comes behind what is higher, and is known by its
position. So the next position of the log is in front of one of the partitions, or in none of them.

Where the beginning of a partition has expired, that holds from the first record on that links to
what is there: what was sent before it may come again further on, together with what it links to. So
may what it links to alone, where that was not acknowledged and was sent once more: the record that
came too early is kept for that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable

from consumers.kafka.records import Linked, Mark
from ledger.store.generations import Generations

# So many ranges of missing positions are told of; they are all counted.
RANGES_TOLD_MAX = 10
# Beyond so many, a hole is told with what lies between it and the next.
_RANGES_MAX = 10_000
_STRANDED_MAX = 1_000_000
# So many records are kept of those that came in front of what they link to.
_EARLY_MAX = 50_000


class Merge:
    """Takes records as they are delivered, and gives those behind ``head`` in the log's order.

    What a generation before that of ``head`` has left behind was given up, and is dropped.
    """

    def __init__(self, partitions: int, head: int, generations: Generations) -> None:
        self._waiting: list[deque[Linked | Mark]] = [deque() for _ in range(partitions)]
        self._generations = generations
        self._next = head + 1
        # Up to where each partition is whole, and what links to something that is not there.
        self._whole = [head] * partitions
        self._stranded: set[int] = set()
        # By partition, and by what they link to.
        self._early: dict[tuple[int, int], Linked] = {}
        self._holes: list[range] = []
        # The highest position that any record tells of.
        self.known = 0
        # The highest generation that any record is of, and the lowest position of those that are of
        # one that the store does not know there.
        self.generation = 0
        self.unknown_at: int | None = None
        # What was given before, or stands in the store: it has to be the same.
        self.again: list[Linked] = []
        # After the end: how many positions are missing in between, and the first of their ranges.
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
        fronts = []
        for partition in range(len(self._waiting)):
            front = self._front(partition)
            if front is not None:
                fronts.append((front.event.position, partition, front))
            elif partition not in ended:
                return None
        if not fronts:
            return None
        position, partition, taken = min(fronts)
        if position > self._next:
            self._miss(position)
        self._next = position + 1
        self._whole[partition] = position
        self._waiting[partition].popleft()
        early = self._early.pop((partition, position), None)
        if early is not None:
            self._stranded.discard(early.event.position)
            self._waiting[partition].appendleft(early)
        return taken

    def end(self) -> None:
        """Count what is missing, also what only marks tell of behind the last event."""
        if self.known >= self._next:
            self._miss(self.known + 1)
        stranded = sorted(self._stranded)
        for hole in self._holes:
            there = stranded[bisect_left(stranded, hole.start) : bisect_left(stranded, hole.stop)]
            begin = hole.start
            for each in [*there, hole.stop]:
                if each > begin:
                    self.missing_count += each - begin
                    if len(self.missing) < RANGES_TOLD_MAX:
                        self.missing.append(range(begin, each))
                begin = each + 1

    def _miss(self, upto: int) -> None:
        if len(self._holes) < _RANGES_MAX:
            self._holes.append(range(self._next, upto))
        else:
            self._holes[-1] = range(self._holes[-1].start, upto)
        self._next = upto

    def _front(self, partition: int) -> Linked | None:
        """Return the first event that may be of the tail; what stands in front of it is dropped."""
        waiting = self._waiting[partition]
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
                if position < self._next:
                    self.again.append(record)
                elif record.previous <= self._whole[partition]:
                    return record
                else:
                    self._keep_early(partition, record)
            waiting.popleft()
        return None

    def _keep_early(self, partition: int, record: Linked) -> None:
        if len(self._stranded) < _STRANDED_MAX:
            self._stranded.add(record.event.position)
        if len(self._early) < _EARLY_MAX:
            self._early.setdefault((partition, record.previous), record)
