"""A process that enforces partitions as a member of the group, and can be killed; for the tests.

``how`` is ``live``; or what it does between reading its first batch of requests and the transaction
that decides them: ``freeze``: it stops itself (SIGSTOP); ``wait``: it says so on its standard
output, and goes on when its standard input is closed.

``proxy_url`` is the way to Kafka, if it is no direct one, and ``silence`` how many seconds its
database may say nothing; without them it is as ``live`` as any.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from psycopg import Connection

from consumers.feed import Batch
from consumers.kafka import enforcing
from consumers.kafka.connecting import Cluster
from consumers.kafka.enforcing import enforce_partitions
from consumers.kafka.feed import KafkaFeed
from ledger.events.catalogue import catalogue
from ledger.store.silence import connect_impatient
from tests.consumers.kafka.support import QUICK_ENFORCERS


class _PausingFeed(KafkaFeed):
    """A feed behind whose first requests the process pauses."""

    pause: Callable[[], object] | None = None

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        batch = super().read(connection, after, limit)
        pause = _PausingFeed.pause
        if batch.requests and pause is not None:
            _PausingFeed.pause = None
            pause()
        return batch


def _freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _wait() -> None:
    print("waiting", flush=True)
    sys.stdin.read()


_PAUSES = {"live": None, "freeze": _freeze, "wait": _wait}


def main(
    conninfo: str,
    bootstrap: str,
    prefix: str,
    name: str,
    how: str,
    proxy_url: str = "",
    silence: str = "",
) -> None:
    """Enforce until killed."""
    _PausingFeed.pause = _PAUSES[how]
    # In place of the one that it imports: nothing but a test wants another feed.
    enforcing.KafkaFeed = _PausingFeed  # type: ignore[attr-defined]
    stop = threading.Event()
    enforce_partitions(
        lambda: connect_impatient(
            conninfo, float(silence) if silence else None, autocommit=True, application_name=name
        ),
        Cluster(bootstrap, prefix, {"proxy_url": proxy_url} if proxy_url else {}),
        catalogue(),
        stop,
        QUICK_ENFORCERS,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
