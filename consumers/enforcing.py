"""The process around the enforcer: it leads or stands by, and survives whatever the database does.

Leading is an advisory lock of the connection on which the enforcer works, so that whatever ends the
connection ends both, and another process takes over within seconds. It is no fence: that a process
which was stopped and wakes up cannot write is what the epoch of the progress row is for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import Connection, errors

from consumers import progress
from consumers.enforcer import CONSUMER, Enforcer, EnforcerLimits
from consumers.feed import Feed
from ledger.deciders import Decider
from ledger.events.catalogue import Catalogue

_log = logging.getLogger(__name__)

Connect = Callable[[], AbstractContextManager[Connection[Any]]]
"""Opens a connection in autocommit mode as the service's role, and closes it with the block."""

# A leader looks at the log several times a second. One that has said nothing for so long has been
# stopped or cut off, and the server ends its session, so that its lock comes free.
_IDLE = """
SELECT set_config('idle_session_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false)
"""

# That the server has ended a session for its idle transaction is no OperationalError to psycopg.
ENDED_BY_THE_SERVER = (errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)


@dataclass(frozen=True, slots=True)
class EnforcingLimits:
    """Bounds of the process around the enforcer; pauses grow from the least to the greatest."""

    pause_seconds_min: float = 0.1
    pause_seconds_max: float = 5.0
    standby_seconds: float = 1.0
    idle_seconds_max: float = 10.0
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

    ``wait(seconds)`` is called when there is nothing to decide; it may return early, at a hint or
    at the stop. A lost database is tried again, with pauses that grow; so is a lock that others
    hold. Raises what no retry mends: GuardsStaleError, DeciderMissingError, UnknownEventError, and
    what the database refuses.
    """
    bounds = limits or EnforcingLimits()
    pause = bounds.pause_seconds_min
    while not stop.is_set():
        began = time.monotonic()
        try:
            with connect() as connection:
                _lead(connection, bounds, stop)
                enforcer = Enforcer(
                    connection, feed, catalogue, bounds.enforcer, versions, committed=committed
                )
                if not stop.is_set():
                    enforcer.start()
                    _log.info("this process enforces from position %d on", enforcer.position)
                    enforcer.run(stop, wait)
        except progress.FencedError as error:
            _log.warning("this process stands by: %s", error)
        except (psycopg.OperationalError, *ENDED_BY_THE_SERVER) as error:
            _log.warning("enforcing goes on when the database does: %s", _first_line(error))
        else:
            continue
        if time.monotonic() - began > bounds.pause_seconds_max:
            pause = bounds.pause_seconds_min
        stop.wait(pause)
        pause = min(pause * 2, bounds.pause_seconds_max)


def _lead(connection: Connection[Any], limits: EnforcingLimits, stop: threading.Event) -> None:
    """Return when this connection leads, or at the stop."""
    idle = f"{round(limits.idle_seconds_max * 1_000)}ms"
    connection.execute(_IDLE, (idle, idle))
    while not progress.become_leader(connection, CONSUMER):
        if stop.wait(limits.standby_seconds):
            return


def _first_line(error: psycopg.Error) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
