"""What Prometheus is told, collected when it asks: the log, the consumers, the queues.

Decisions are counted by reading what the log has got since the last time, a bounded part of it; a
counter begins at nought with its process, as counters of Prometheus do.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg import Connection

from api import dead_letters
from api.lag import Lag, lags
from ledger.store.reading import head

EVENTS_MAX = 100_000

_COUNT = """
SELECT name, causation IS NOT NULL, convert_from(body, 'UTF8')::jsonb #>> '{data,reason}', count(*)
FROM ledger.events WHERE position > %s AND position <= %s GROUP BY 1, 2, 3
"""

Connect = Callable[[], AbstractContextManager[Connection[Any]]]


class LedgerCollector(Collector):
    """Collects from the database; ``queues`` gives what waits in this process, by name."""

    def __init__(
        self,
        connect: Connect,
        queues: Mapping[str, Callable[[], int]],
        topic_prefix: Callable[[], str],
    ) -> None:
        self._connect = connect
        self._topic_prefix = topic_prefix
        self._queues = dict(queues)
        self._lock = threading.Lock()
        self._counted_to: int | None = None
        self._appended = 0
        self._decided: Counter[tuple[str, str]] = Counter()

    def describe(self) -> Iterator[Metric]:
        """Name no metric in front: the database is asked when Prometheus asks."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield what there is."""
        with self._lock, self._connect() as connection:
            self._count(connection)
            found = lags(connection, self._topic_prefix())
            dead = dead_letters.counts(connection)
        yield CounterMetricFamily(
            "guishu_appended_events", "Events appended to the log.", value=self._appended
        )
        decided = CounterMetricFamily(
            "guishu_decisions", "Decisions, by what and why.", labels=("name", "reason")
        )
        for (name, reason), count in sorted(self._decided.items()):
            decided.add_metric((name, reason), count)
        yield decided
        yield GaugeMetricFamily("guishu_log_position", "The end of the log.", value=found.head)
        yield from _consumers(found.consumers)
        left_aside = GaugeMetricFamily(
            "guishu_dead_letters",
            f"What a consumer could not handle, counted up to {dead_letters.COUNTED_MAX}.",
            labels=("kind",),
        )
        for kind, count in dead.items():
            left_aside.add_metric((kind,), count)
        yield left_aside
        yield self._queue_depths()

    def _queue_depths(self) -> Metric:
        depths = GaugeMetricFamily(
            "guishu_queue_depth", "How much waits in this process.", labels=("queue",)
        )
        for name, depth in sorted(self._queues.items()):
            depths.add_metric((name,), depth())
        return depths

    def _count(self, connection: Connection[Any]) -> None:
        """Count what the log has got since the last time."""
        top = head(connection)
        if self._counted_to is None:
            self._counted_to = top
        upto = min(top, self._counted_to + EVENTS_MAX)
        for name, is_decision, reason, count in connection.execute(
            _COUNT, (self._counted_to, upto)
        ):
            self._appended += count
            if is_decision:
                self._decided[name, reason or ""] += count
        self._counted_to = upto


def _consumers(consumers: Sequence[Lag]) -> Iterator[Metric]:
    """Yield how far each consumer has come; the partition is empty where it has none."""
    labels = ("consumer", "partition")
    position = GaugeMetricFamily(
        "guishu_consumer_position", "The position that a consumer has reached.", labels=labels
    )
    behind = GaugeMetricFamily(
        "guishu_consumer_lag_positions", "How far a consumer is behind.", labels=labels
    )
    seconds = GaugeMetricFamily(
        "guishu_consumer_lag_seconds",
        "For how long the oldest event that a consumer has not handled has waited.",
        labels=labels,
    )
    for each in consumers:
        named = (each.consumer, "" if each.partition is None else str(each.partition))
        if each.reached is not None and each.left is not None:
            position.add_metric(named, each.reached)
            behind.add_metric(named, each.left)
        seconds.add_metric(named, each.seconds)
    yield from (position, behind, seconds)


def registry_of(
    connect: Connect,
    queues: Mapping[str, Callable[[], int]],
    topic_prefix: Callable[[], str],
) -> CollectorRegistry:
    """Return a registry with what the ledger tells; none is shared between applications."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(connect, queues, topic_prefix))
    return registry
