"""The process around a consumer: it leads or stands by, and survives whatever becomes of others.

Leading is an advisory lock of the connection on which the consumer works, so that whatever ends the
connection ends both, and another process takes over within seconds. It is no fence: that a process
which was stopped and wakes up cannot write is what the epoch of the progress row is for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection, errors

from consumers import progress

_log = logging.getLogger(__name__)

Connect = Callable[[], AbstractContextManager[Connection[Any]]]
"""Opens a connection in autocommit mode as the service's role, and closes it with the block."""

# A leader looks at the log several times a second. One that has said nothing for so long has been
# stopped or cut off, and the server ends its session, so that its lock comes free.
_IDLE = """
SELECT set_config('idle_session_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false)
"""

# Whoever stands by looks once in ``standby_seconds``, and then has to hear from the database.
_TURN = 2

# That the server has ended a session for its idle transaction is no OperationalError to psycopg.
ENDED_BY_THE_SERVER = (errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout)


@dataclass(frozen=True, slots=True)
class LeadingLimits:
    """Bounds of the process around a consumer; pauses grow from the least to the greatest."""

    pause_seconds_min: float = 0.1
    pause_seconds_max: float = 5.0
    standby_seconds: float = 1.0
    idle_seconds_max: float = 10.0


def while_leading(
    consumer: str,
    doing: str,
    connect: Connect,
    work: Callable[[Connection[Any]], None],
    stop: threading.Event,
    limits: LeadingLimits,
    *,
    others: tuple[type[Exception], ...] = (),
    lead: Callable[[Connection[Any], str], bool] = progress.become_leader,
) -> None:
    """Do ``work`` while this process leads, and stand by while another does, until ``stop``.

    ``lead(connection, consumer)`` tries to, alone or as one of several.

    A lost database is tried again, with pauses that grow; so is a lock that others hold, and what
    raises one of ``others``, which are errors of something else that comes and goes. Then another
    process gets its turn, for that may be away for this one alone. ``doing`` is for the messages.
    Raises whatever else ``work`` raises.
    """
    pause = limits.pause_seconds_min
    while not stop.is_set():
        began, turn_of_others = time.monotonic(), 0.0
        try:
            with connect() as connection:
                _lead(connection, consumer, limits, stop, lead)
                if not stop.is_set():
                    work(connection)
        except progress.FencedError as error:
            _log.warning("this process stands by: %s", error)
        except (psycopg.OperationalError, *ENDED_BY_THE_SERVER) as error:
            _log.warning("%s goes on when the database does: %s", doing, _first_line(error))
        except others as error:
            _log.warning("%s is tried again: %s", doing, _first_line(error))
            if lead is progress.become_leader:
                turn_of_others = _TURN * limits.standby_seconds
        else:
            continue
        if time.monotonic() - began > limits.pause_seconds_max:
            pause = limits.pause_seconds_min
        stop.wait(max(pause, turn_of_others))
        pause = min(pause * 2, limits.pause_seconds_max)


def _lead(
    connection: Connection[Any],
    consumer: str,
    limits: LeadingLimits,
    stop: threading.Event,
    lead: Callable[[Connection[Any], str], bool],
) -> None:
    """Return when this connection leads, or at the stop."""
    idle = f"{round(limits.idle_seconds_max * 1_000)}ms"
    connection.execute(_IDLE, (idle, idle))
    while not lead(connection, consumer):
        if stop.wait(limits.standby_seconds):
            return


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
