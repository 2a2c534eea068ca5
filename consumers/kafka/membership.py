"""A member of a consumer group: which partitions Kafka gives to this process, and their records.

The group shares the work out, and no more: who may write is a matter of epochs in the database
(``consumers/progress.py``), for a process that was stopped does not know that it is a member no
longer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError, UnknownTopicOrPartitionError
from kafka.structs import OffsetAndMetadata
from psycopg import Connection

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError

# So many processes can be members by a name of their own; whoever comes later has none.
_NAMES = 64
_CLOSE_MS = 5_000
_METADATA_MS = 10_000
_CLAIM = "SELECT pg_try_advisory_lock(hashtext(%s), hashtext(current_database()))"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MembershipLimits:
    """Bounds of a member; Kafka takes a session of less than 6 seconds only if told to."""

    # After so long without a heartbeat its partitions go to others.
    session_seconds_max: float = 10.0
    heartbeat_seconds: float = 3.0
    # So long a member may work without asking for records: as long as a large hand-over takes.
    work_seconds_max: float = 300.0


def claim_name(connection: Connection[Any], group: str) -> str | None:
    """Return a name that no other living process of the group has, None where all are taken.

    The name is the process's for as long as the connection lasts. A process that is started anew
    takes the one that has come free, and with it what was assigned to it: that is Kafka's static
    membership, and nobody has to think of names.
    """
    for number in range(_NAMES):
        name = f"{group}-{number}"
        row = connection.execute(_CLAIM, (f"guishu member {name}",)).fetchone()
        if row and row[0]:
            return name
    return None


class Assignor(CooperativeStickyAssignor):  # type: ignore[misc]  # it has no types
    """Shares out as kafka-python does, and knows when its member has joined.

    Where a member joins once more and says the same of itself as before, it is told what it has
    already, and nothing is shared out anew. That is right where the client merely asks twice, as it
    does at times; where a new sharing out is wanted, another ``turn`` makes the difference.
    """

    has_joined = False
    turn = 0

    def metadata(self, topics: object) -> Any:
        """Return what the member says of itself."""
        said = super().metadata(topics)
        said.user_data = b"%d" % self.turn
        return said

    def on_assignment(self, assignment: object, generation: object) -> None:
        """Keep what is given to the member."""
        super().on_assignment(assignment, generation)
        self.has_joined = True


class Forgetting(ConsumerRebalanceListener):  # type: ignore[misc]  # it has no types
    """Lets an assignor forget what was its member's before the group did without the member.

    kafka-python would claim it when it joins again. Whoever leads the group gives nobody what
    another one has, and waits until that one lets go of it; but this one has nothing to let go of,
    so that a partition could be left to nobody, for as long as all members live.
    """

    def __init__(self, assignor: Assignor) -> None:
        self._assignor = assignor

    def on_partitions_lost(self, lost: object) -> None:
        """Forget them."""
        self._assignor.member_assignment = None

    def on_partitions_revoked(self, revoked: object) -> None:
        """Keep what is kept by the assignor itself."""

    def on_partitions_assigned(self, assigned: object) -> None:
        """Keep what is kept by the assignor itself."""


class Member:
    """A member of the group ``group`` that follows one topic; a context manager, for one thread.

    ``name`` is what ``claim_name`` has given.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        group: str,
        name: str | None = None,
        limits: MembershipLimits | None = None,
    ) -> None:
        self._cluster = cluster
        self._topic = topic
        self._group = group
        self._name = name
        self._limits = limits or MembershipLimits()
        self._consumer: Any = None
        self._assignor = Assignor()

    def __enter__(self) -> Self:
        limits = self._limits
        try:
            self._open(limits)
        except (KafkaError, OSError) as error:
            self._close()
            raise KafkaUnavailableError(self._cluster.bootstrap, error) from error
        return self

    def _open(self, limits: MembershipLimits) -> None:
        self._consumer = self._cluster.consumer(
            group_id=self._group,
            group_instance_id=self._name,
            partition_assignment_strategy=[self._assignor],
            # What has no offset committed begins at the front; what is seen is dropped quickly.
            auto_offset_reset="earliest",
            session_timeout_ms=round(limits.session_seconds_max * 1_000),
            heartbeat_interval_ms=round(limits.heartbeat_seconds * 1_000),
            max_poll_interval_ms=round(limits.work_seconds_max * 1_000),
            # Who leads the group shares out the partitions that it knows of. One that joined
            # without would leave all of them to nobody until it looks again.
            metadata_max_age_ms=_METADATA_MS,
        )
        self._consumer.subscribe([self._topic], listener=Forgetting(self._assignor))
        if not self._consumer.partitions_for_topic(self._topic):
            raise UnknownTopicOrPartitionError(self._topic)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)

    def poll(self, seconds: float, records: int) -> dict[int, list[Any]]:
        """Return at most so many records, by partition; waits at most so long for the first.

        What is assigned may have changed meanwhile. Raises KafkaError: the member is one no longer.
        """
        found = self._consumer.poll(timeout_ms=round(seconds * 1_000), max_records=records)
        if self._assignor.has_joined and self._assignor.turn == 0:
            self._join_again()
        return {at.partition: delivered for at, delivered in found.items()}

    def _join_again(self) -> None:
        """Let the group be shared out once more, behind the first joining.

        Whoever has a name is given what the one before it under that name had been told to keep,
        and nobody else hears of it. Was that one killed before it had let go of the rest, the
        others are not given it until the group is shared out again.
        """
        self._assignor.turn += 1
        # There is no public way to ask for it, as Java's clients have in enforceRebalance.
        self._consumer._coordinator.request_rejoin()

    def assigned(self) -> set[int]:
        """Return the partitions that Kafka has given to this member."""
        return {at.partition for at in self._consumer.assignment()}

    def hold(self, partitions: Iterable[int]) -> None:
        """Fetch nothing of these partitions for the time being, and of all others again."""
        wanted = {TopicPartition(self._topic, each) for each in partitions}
        held = self._consumer.paused()
        there = self._consumer.assignment()
        if starting := (held - wanted) & there:
            self._consumer.resume(*starting)
        if ending := (wanted - held) & there:
            self._consumer.pause(*ending)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Tell Kafka where to begin when the partitions go to another member.

        For speed, and for those who look at the group: what is reached stands in the database. So
        nothing waits for it, and where it fails, the next one says the same and more.
        """
        at = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        self._consumer.commit_async(at, callback=_committed)


def _committed(offsets: object, answer: object) -> None:
    if isinstance(answer, Exception):
        _log.info("the group's offsets were not committed: %r", answer)
