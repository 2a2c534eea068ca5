"""A process that kills itself at a named point of its work; for the tests.

Each point is a place between two effects, of which one is there and the other not yet.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import wraps
from typing import Any

import psycopg

from consumers import enforcer as enforcing
from consumers import rebuilding
from consumers.enforcer import Enforcer
from consumers.kafka.connecting import Cluster
from consumers.kafka.enforcing import enforce_partitions
from consumers.kafka.relay import relay
from consumers.rebuilding import rebuild_guards
from ledger.events.catalogue import catalogue
from tests.consumers.kafka.support import QUICK, QUICK_ENFORCERS


def dies(place: Any, name: str, *, before: bool) -> None:
    """Let the process die before or behind the first call of a function."""
    done = getattr(place, name)

    @wraps(done)
    def failing(*given: Any, **named: Any) -> None:
        if not before:
            done(*given, **named)
        die()

    setattr(place, name, failing)


def die() -> None:
    """End as hard as it goes."""
    os.kill(os.getpid(), signal.SIGKILL)


def main(conninfo: str, bootstrap: str, prefix: str, point: str) -> None:
    """Do what brings the process to the point."""
    cluster = Cluster(bootstrap, prefix)
    stop = threading.Event()

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(conninfo, autocommit=True)

    def enforce() -> None:
        enforce_partitions(connect, cluster, catalogue(), stop, QUICK_ENFORCERS)

    match point:
        case "decisions, before their commit":
            dies(enforcing, "append_and_commit", before=True)
            enforce()
        case "decisions, behind their commit":
            dies(enforcing, "append_and_commit", before=False)
            enforce()
        case "a rebalance, before a partition is taken over":
            dies(Enforcer, "start", before=True)
            enforce()
        case "a rebalance, with some partitions taken over":
            dies(Enforcer, "start", before=False)
            enforce()
        case "the relay, behind Kafka's acknowledgement and before the checkpoint":
            relay(connect, cluster, stop, stop.wait, QUICK, acknowledged=die)
        case "a rebuild of the guards, with the old ones gone":
            dies(rebuilding, "_write_guards", before=True)
            with connect() as connection:
                rebuild_guards(connection, catalogue())
        case "a rebuild of the guards, before its commit":
            dies(rebuilding, "_write_parked", before=False)
            with connect() as connection:
                rebuild_guards(connection, catalogue())


if __name__ == "__main__":
    main(*sys.argv[1:])
