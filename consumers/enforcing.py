"""The process around the enforcer: it leads or stands by, and survives whatever the database does.

How, ``consumers/leading.py`` says.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from consumers.enforcer import CONSUMER, Enforcer, EnforcerLimits
from consumers.feed import Feed
from consumers.leading import Connect, LeadingLimits, while_leading
from consumers.uniting import unite
from ledger.deciders import Decider
from ledger.events.catalogue import Catalogue

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EnforcingLimits(LeadingLimits):
    """Bounds of the process around the enforcer."""

    enforcer: EnforcerLimits = field(default_factory=EnforcerLimits)


def enforce(
    connect: Connect,
    feed: Feed,
    catalogue: Catalogue,
    stop: threading.Event,
    wait: Callable[[float], object],
    limits: EnforcingLimits | None = None,
    *,
    versions: Mapping[int, Decider] | None = None,
    committed: Callable[[], None] = lambda: None,
) -> None:
    """Decide while this process leads, and stand by while another does, until ``stop`` is set.

    Stands by, too, while any process decides partitions from Kafka. What those have left behind is
    brought together first (``consumers/uniting.py``).

    ``wait(seconds)`` is called when there is nothing to decide; it may return early, at a hint or
    at the stop. A lost database is tried again, with pauses that grow; so is a lock that others
    hold. Raises what no retry mends: GuardsStaleError, DeciderMissingError, UnknownEventError, and
    what the database refuses.
    """
    bounds = limits or EnforcingLimits()

    def work(connection: Connection[Any]) -> None:
        if not unite(connection, catalogue, stop, bounds.enforcer, versions):
            return
        enforcer = Enforcer(
            connection, feed, catalogue, bounds.enforcer, versions, committed=committed
        )
        enforcer.start()
        _log.info("this process enforces from position %d on", enforcer.position)
        enforcer.run(stop, wait)

    while_leading(CONSUMER, "enforcing", connect, work, stop, bounds)
