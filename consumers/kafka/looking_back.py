"""Reads the end of the log's topic: what was sent last, or all that may be behind the log's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from kafka import TopicPartition
from kafka.errors import KafkaError

from consumers.kafka.connecting import Cluster
from consumers.kafka.merging import Merge
from consumers.kafka.records import ForeignRecordError, Linked, Mark, decode

# What a relay that began anew has repeated may stand behind what is highest: so many of the last
# records of each partition are looked at, as many as it sends before it waits for acknowledgement.
RECORDS_LOOKED_AT = 2_000
# A record was sent after its event was recorded, by the clocks of two machines that may differ.
CLOCKS_DIFFER_SECONDS_MAX = 24 * 60 * 60
# So many records of a partition wait at most until those of the others have come.
_HELD_MAX = 2_000
_POLL_MS = 200
_SILENCE_SECONDS_MAX = 60.0


class TopicEnd:
    """The end of a topic, as it is when this is opened; a context manager, for one thread.

    A topic that does not exist has no partitions. All raises KafkaError and OSError.
    """

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self._cluster = cluster
        self._topic = topic
        self._consumer: Any = None
        self._at: list[TopicPartition] = []
        self._begins: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._heard_at = 0.0

    def __enter__(self) -> Self:
        self._consumer = self._cluster.consumer()
        try:
            there = self._consumer.partitions_for_topic(self._topic) or ()
            self._at = [TopicPartition(self._topic, each) for each in sorted(there)]
            if self._at:
                self._consumer.assign(self._at)
                self._begins = self._consumer.beginning_offsets(self._at)
                self._ends = self._consumer.end_offsets(self._at)
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._consumer.close()

    @property
    def partitions(self) -> int:
        """How many partitions the topic has."""
        return len(self._at)

    @property
    def emptied(self) -> list[int]:
        """The partitions that held something and hold nothing any more."""
        return [each.partition for each in self._at if 0 < self._ends[each] == self._begins[each]]

    def highest(self, generation: int) -> int:
        """Return the highest position that the last records tell of, 0 where there is none.

        Those count that are of ``generation`` or a later one.
        """
        self._begin(None)
        highest = 0
        while self._left():
            for records in self._poll().values():
                for told in records:
                    position = told.upto if isinstance(told, Mark) else told.event.position
                    if told.generation >= generation:
                        highest = max(highest, position)
        return highest

    def merged(self, merge: Merge, recorded: datetime | None) -> Iterator[Linked]:
        """Yield in the order of the log, through ``merge``, what was sent since ``recorded``.

        That is when the log's last event was recorded; None where it has none.
        """
        self._begin(recorded or datetime.min.replace(tzinfo=UTC))
        while True:
            left = self._left()
            ended = {each.partition for each in self._at if each not in left}
            while (linked := merge.take(ended)) is not None:
                yield linked
            if not left:
                break
            self._hold({each for each in left if merge.held(each.partition) >= _HELD_MAX})
            for at, records in self._poll().items():
                merge.give(at.partition, records)
        merge.end()

    def _begin(self, recorded: datetime | None) -> None:
        """Seek to the last records, or to the first that was sent after ``recorded``."""
        begins = {each: self._ends[each] - RECORDS_LOOKED_AT for each in self._at}
        if recorded is not None and self._at:
            # A clock that was ahead for a while has left it to later events.
            since = min(recorded, datetime.now(UTC)).timestamp() - CLOCKS_DIFFER_SECONDS_MAX
            milliseconds = max(0, int(since * 1_000))
            found = self._consumer.offsets_for_times(dict.fromkeys(self._at, milliseconds))
            for each, sent in found.items():
                if sent is not None:
                    begins[each] = min(begins[each], sent.offset)
        for each in self._at:
            self._consumer.seek(each, max(begins[each], self._begins[each]))
        self._heard_at = time.monotonic()

    def _left(self) -> set[TopicPartition]:
        """Return the partitions of which not everything was delivered."""
        return {each for each in self._at if self._consumer.position(each) < self._ends[each]}

    def _hold(self, full: set[TopicPartition]) -> None:
        """Let those that are full wait for the others."""
        paused = self._consumer.paused()
        self._consumer.pause(*(full - paused))
        self._consumer.resume(*(paused - full))

    def _poll(self) -> dict[TopicPartition, list[Linked | Mark]]:
        delivered = self._consumer.poll(timeout_ms=_POLL_MS, max_records=_HELD_MAX)
        now = time.monotonic()
        if delivered:
            self._heard_at = now
        elif now - self._heard_at > _SILENCE_SECONDS_MAX:
            raise KafkaError(
                f"the end of {self._topic} was not reached: nothing came for"
                f" {_SILENCE_SECONDS_MAX:.0f} seconds"
            )
        return {at: list(_told(records)) for at, records in delivered.items()}


def _told(records: Iterable[Any]) -> Iterator[Linked | Mark]:
    """Yield what records say; what somebody else has written there tells of no position.

    A record that may be of another version of guishu tells of one that we cannot read. Raises
    UnreadableRecordError.
    """
    for each in records:
        try:
            yield decode(each.value, each.headers)
        except ForeignRecordError:
            continue
