"""Enforcers that follow Kafka: any number of processes, each with a share of the partitions.

Kafka says which partitions a process follows. Each of them is a part of the enforcer's progress
with an epoch of its own: a process that was frozen or cut off, and does not know that another one
has its partitions now, can write nothing. Limits across customers are kept by the guards, which are
locked whichever part a decision belongs to.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaError
from psycopg import Connection

from consumers import progress
from consumers.enforcer import CONSUMER, Enforcer, EnforcerLimits
from consumers.facts import Facts
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, TopicMissingError
from consumers.kafka.feed import KafkaFeed, Known
from consumers.kafka.membership import Member, MembershipLimits, claim_name
from consumers.kafka.topics import LOG
from consumers.leading import Connect, LeadingLimits, while_leading
from consumers.progress import Part
from consumers.uniting import unite
from ledger.collecting import uncollected
from ledger.deciders import Decider, deciders
from ledger.events.catalogue import Catalogue

_log = logging.getLogger(__name__)

_ALIVE = "SELECT 1"
# A partition whose feed holds so many batches of records gets no more of them for the time being.
_BATCHES_HELD = 8
_RECORDS_PER_REQUEST = 4


@dataclass(frozen=True, slots=True)
class PartitionsLimits(LeadingLimits):
    """Bounds of a process that enforces partitions."""

    enforcer: EnforcerLimits = field(default_factory=EnforcerLimits)
    member: MembershipLimits = field(default_factory=MembershipLimits)
    # A part that another process has taken, and that Kafka still says is ours, is tried again.
    fenced_seconds: float = 2.0
    commit_seconds: float = 1.0
    alive_seconds: float = 2.0


@dataclass(slots=True)
class _Followed:
    """A partition that is ours: what it brings, and who decides it; None while it is fenced."""

    feed: KafkaFeed
    enforcer: Enforcer | None = None
    not_before: float = 0.0
    committed: int = -1


class Partitions:
    """Decides the partitions that a member of the group is given, in turn, on one connection."""

    def __init__(
        self,
        connection: Connection[Any],
        member: Member,
        partitions: int,
        catalogue: Catalogue,
        limits: PartitionsLimits | None = None,
        versions: Mapping[int, Decider] | None = None,
        *,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._member = member
        self._partitions = partitions
        self._catalogue = catalogue
        self._limits = limits or PartitionsLimits()
        self._versions = deciders() if versions is None else versions
        self._committed = committed
        self._facts = Facts(catalogue, self._versions)
        self._known = Known()
        self._followed: dict[int, _Followed] = {}
        self._stop = threading.Event()
        self._told_offsets_at = self._was_alive_at = 0.0

    @property
    def followed(self) -> dict[int, int]:
        """The position that each partition has reached that this process decides now."""
        return {
            number: each.enforcer.position
            for number, each in self._followed.items()
            if each.enforcer is not None
        }

    def run(self, stop: threading.Event) -> None:
        """Decide until ``stop`` is set. Raises as ``Enforcer.run_once``, and KafkaError."""
        self._stop = stop
        worked = False
        while not stop.is_set():
            # Records are many objects, too.
            with uncollected():
                worked = self.run_once(0.0 if worked else self._limits.enforcer.poll_seconds)

    def run_once(self, wait_seconds: float) -> bool:
        """Take what Kafka has delivered, and decide a batch of each partition; say if any had one.

        Waits at most so long for something to be delivered.
        """
        requests = self._limits.enforcer.batch_requests_max
        delivered = self._member.poll(wait_seconds, requests * _RECORDS_PER_REQUEST)
        self._follow(self._member.assigned())
        for number, records in delivered.items():
            if number in self._followed:
                self._followed[number].feed.deliver(records)
        self._hold_back(requests * _RECORDS_PER_REQUEST * _BATCHES_HELD)
        worked = False
        for number, each in self._followed.items():
            worked |= self._decide(number, each)
        self._tell_offsets()
        self._stay_alive()
        return worked

    def _follow(self, assigned: set[int]) -> None:
        """Let go of what was given to others, and begin with what was given to us."""
        for number in self._followed.keys() - assigned:
            _log.info("partition %d has gone to another process", number)
            del self._followed[number]
        for number in assigned - self._followed.keys():
            feed = KafkaFeed(number, self._partitions, self._known)
            self._followed[number] = _Followed(feed)

    def _hold_back(self, records_max: int) -> None:
        full = [n for n, each in self._followed.items() if each.feed.waiting > records_max]
        self._member.hold(full)

    def _decide(self, number: int, followed: _Followed) -> bool:
        try:
            if followed.enforcer is None:
                if time.monotonic() < followed.not_before:
                    return False
                self._take_over(number, followed)
            return followed.enforcer is not None and followed.enforcer.run_once() > 0
        except progress.FencedError:
            # Kafka will soon say that it is no longer ours; or the guards were made anew, and
            # everybody is to begin anew.
            _log.info("partition %d was taken by another process", number)
            followed.enforcer = None
            followed.not_before = time.monotonic() + self._limits.fenced_seconds
            return False

    def _take_over(self, number: int, followed: _Followed) -> None:
        enforcer = Enforcer(
            *(self._connection, followed.feed, self._catalogue),
            *(self._limits.enforcer, self._versions),
            part=Part(number, self._partitions),
            facts=self._facts,
            committed=self._committed,
        )
        enforcer.start(self._stop)
        followed.enforcer = enforcer
        _log.info("this process decides partition %d from %d on", number, enforcer.position)

    def _tell_offsets(self) -> None:
        if time.monotonic() - self._told_offsets_at < self._limits.commit_seconds:
            return
        self._told_offsets_at = time.monotonic()
        moved = {
            number: each
            for number, each in self._followed.items()
            if each.feed.done_with > each.committed
        }
        if moved:
            self._member.commit({number: each.feed.done_with for number, each in moved.items()})
        for each in moved.values():
            each.committed = each.feed.done_with

    def _stay_alive(self) -> None:
        """Say something: the server would take a session that says nothing for a frozen one."""
        if time.monotonic() - self._was_alive_at >= self._limits.alive_seconds:
            self._connection.execute(_ALIVE, prepare=True)
            self._was_alive_at = time.monotonic()


def enforce_partitions(
    connect: Connect,
    cluster: Cluster,
    catalogue: Catalogue,
    stop: threading.Event,
    limits: PartitionsLimits | None = None,
    *,
    versions: Mapping[int, Decider] | None = None,
    committed: Callable[[], None] = lambda: None,
) -> None:
    """Decide the partitions that Kafka gives to this process, until ``stop`` is set.

    Stands by while somebody decides all of them from the store. A lost database or cluster is tried
    again, with pauses that grow. Raises what no retry mends: as ``consumers.enforcing.enforce``,
    and TopicMissingError, ProgressDividedError, GenerationContradictsError.
    """
    bounds = limits or PartitionsLimits()

    def work(connection: Connection[Any]) -> None:
        topic, partitions = _topic(cluster)
        if not _divide(connection, partitions, catalogue, stop, bounds.enforcer, versions):
            return
        group = f"{cluster.topic_prefix}-{CONSUMER}"
        name = claim_name(connection, group)
        with Member(cluster, topic, group, name, bounds.member) as member:
            _log.info("this process enforces as a member of %s: %s", group, name)
            Partitions(
                *(connection, member, partitions, catalogue, bounds, versions), committed=committed
            ).run(stop)

    others = (KafkaUnavailableError, KafkaError, OSError)
    while_leading(
        *(CONSUMER, "enforcing", connect, work, stop, bounds), others=others, lead=progress.join
    )


def _topic(cluster: Cluster) -> tuple[str, int]:
    """Return the name of the log's topic, and how many partitions it has."""
    name = LOG.name(cluster.topic_prefix)
    with cluster.admin() as admin:
        if name not in admin.list_topics():
            raise TopicMissingError(name)
        (described,) = admin.describe_topics([name])
    return name, len(described["partitions"])


def _divide(
    connection: Connection[Any],
    partitions: int,
    catalogue: Catalogue,
    stop: threading.Event,
    limits: EnforcerLimits,
    versions: Mapping[int, Decider] | None,
) -> bool:
    """Divide the progress as the topic is; return False where ``stop`` was set meanwhile.

    Where it is divided for another topic, and nobody follows that any more, it is united before.
    """
    if progress.parts(connection, CONSUMER) in (0, 1, partitions):
        progress.divide(connection, CONSUMER, partitions)
        return True
    if not progress.become_leader(connection, CONSUMER):
        progress.divide(connection, CONSUMER, partitions)  # which says what is wrong
        return True
    try:
        if not unite(connection, catalogue, stop, limits, versions):
            return False
        progress.divide(connection, CONSUMER, partitions)
        return True
    finally:
        progress.lead_no_more(connection, CONSUMER)
