"""A process that enforces partitions as a member of the group, and can be killed; for the tests.

``how`` is ``live``; or ``freeze``: it stops itself (SIGSTOP) between reading its first batch of
requests and the transaction that decides them.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import psycopg
from psycopg import Connection

from consumers.feed import Batch
from consumers.kafka import enforcing
from consumers.kafka.connecting import Cluster
from consumers.kafka.enforcing import enforce_partitions
from consumers.kafka.feed import KafkaFeed
from ledger.events.catalogue import catalogue
from tests.consumers.kafka.support import QUICK_ENFORCERS


class _FreezingFeed(KafkaFeed):
    """A feed behind whose first requests the process is stopped."""

    _frozen = False

    def read(self, connection: Connection[Any], after: int, limit: int) -> Batch:
        batch = super().read(connection, after, limit)
        if batch.requests and not _FreezingFeed._frozen:
            _FreezingFeed._frozen = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return batch


def main(conninfo: str, bootstrap: str, prefix: str, name: str, how: str) -> None:
    """Enforce until killed."""
    if how == "freeze":
        enforcing.KafkaFeed = _FreezingFeed  # type: ignore[attr-defined]
    stop = threading.Event()
    enforce_partitions(
        lambda: psycopg.connect(conninfo, autocommit=True, application_name=name),
        Cluster(bootstrap, prefix),
        catalogue(),
        stop,
        QUICK_ENFORCERS,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
