"""The parts of the enforcer's progress become one again, for whoever follows the store alone.

With Kafka the progress is divided, a part for each partition. Where nobody follows the parts any
more, each is brought to one position from the store; only then can they be one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from consumers import progress
from consumers.enforcer import CONSUMER, Enforcer, EnforcerLimits
from consumers.facts import Facts
from consumers.feed import StoreFeed
from consumers.progress import Part
from ledger.deciders import Decider, deciders
from ledger.events.catalogue import Catalogue
from ledger.store.reading import head

_log = logging.getLogger(__name__)


def unite(
    connection: Connection[Any],
    catalogue: Catalogue,
    stop: threading.Event,
    limits: EnforcerLimits | None = None,
    versions: Mapping[int, Decider] | None = None,
) -> bool:
    """Decide what the parts have left up to one position, and make one of them.

    For whoever leads alone; nothing is done where the progress is whole. Returns False where
    ``stop`` was set before it was done. Raises as ``Enforcer.run_once``.
    """
    parts = progress.parts(connection, CONSUMER)
    if parts <= 1:
        return True
    upto = head(connection)
    _log.info("%d parts are brought together at position %d", parts, upto)
    known = deciders() if versions is None else versions
    facts = Facts(catalogue, known)
    for number in range(parts):
        enforcer = Enforcer(
            *(connection, _feed(Part(number, parts), upto), catalogue, limits, known),
            part=Part(number, parts),
            facts=facts,
        )
        enforcer.start()
        while enforcer.run_once():
            if stop.is_set():
                return False
    progress.unite(connection, CONSUMER)
    return True


def _feed(part: Part, upto: int) -> StoreFeed:
    # kafka-python takes a while to import, and what is not divided does not need it.
    from consumers.kafka.chain import key_of, partition_of

    return StoreFeed(lambda stream: partition_of(key_of(stream), part.of) == part.number, upto)
