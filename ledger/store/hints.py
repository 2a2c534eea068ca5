"""Hints that the log has grown, by NOTIFY. A hint may come late or be lost: polling is the truth.

NOTIFY takes a lock of the whole instance when its transaction commits, so it is never sent by a
transaction that appends, but from a connection of its own, and at most every few milliseconds.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

INTERVAL_SECONDS = 0.005

_CONNECT_SECONDS_MAX = 5
_RECONNECT_PAUSE_SECONDS = 1.0
# How soon a waiter sees that it is to stop.
_STOP_SECONDS = 0.1

_LISTENS = "SELECT EXISTS (SELECT FROM pg_listening_channels() AS c WHERE c = 'guishu_news')"
_LISTEN = "LISTEN guishu_news"
_NOTIFY = "NOTIFY guishu_news"

_logger = logging.getLogger(__name__)


def wait_for_news(
    connection: Connection[Any], timeout_seconds: float, stop: threading.Event | None = None
) -> bool:
    """Wait until the log may have grown: True at a hint, False when the time is over or ``stop``.

    Look at the log again in either case. The first call on a connection begins to listen, and
    returns True at once: what was appended until then has given no hint to this connection.
    ``connection`` must be in autocommit mode and in no transaction, and belong to the caller
    alone. Raises psycopg.OperationalError where it is lost.
    """
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise ValueError("Waiting inside a transaction would keep its snapshot and its locks.")
    row = connection.execute(_LISTENS, prepare=True).fetchone()
    if row is None or not row[0]:
        connection.execute(_LISTEN)
        return True
    if stop is None:
        return _hint_within(connection, timeout_seconds)
    left = timeout_seconds
    while not stop.is_set():
        if _hint_within(connection, min(left, _STOP_SECONDS)):
            return True
        left -= _STOP_SECONDS
        if left <= 0:
            return False
    return False


def _hint_within(connection: Connection[Any], seconds: float) -> bool:
    return any(True for _ in connection.notifies(timeout=seconds, stop_after=1))


class Waiter:
    """Waits for hints on a connection of its own, and for the time alone while there is none.

    For one thread; a context manager. ``stop`` ends a wait early.
    """

    def __init__(self, conninfo: str, stop: threading.Event) -> None:
        self._conninfo = conninfo
        self._stop = stop
        self._connection: Connection[Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``, at a hint or at the stop, whichever comes first."""
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    self._conninfo,
                    autocommit=True,
                    connect_timeout=_CONNECT_SECONDS_MAX,
                    application_name="guishu-waiter",
                )
            wait_for_news(self._connection, seconds, self._stop)
        except psycopg.Error as error:
            _logger.info("no hints for a while: %s", str(error).splitlines()[0])
            self._close()
            self._stop.wait(seconds)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Notifier:
    """Sends hints from a thread of its own, and a connection of its own; a context manager.

    It connects at the first hint: a command that records nothing has no use for it.
    """

    def __init__(self, conninfo: str, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._conninfo = conninfo
        self._interval_seconds = interval_seconds
        self._hinted = threading.Event()
        # Set by whatever the thread has to wake up for.
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        # A daemon, so that a program that forgot to leave can end.
        self._thread = threading.Thread(target=self._work, name="guishu-notifier", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Send a last hint, if there was one and the database is there, and stop."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join()

    def hint(self) -> None:
        """Say that something was committed; from any thread, returns at once and never fails."""
        self._hinted.set()
        self._wanted.set()

    def _work(self) -> None:
        self._wanted.wait()
        if not self._hinted.is_set():
            return
        while True:
            try:
                self._notify_while_connected()
            except psycopg.Error as error:
                # Nothing is lost: whoever waits looks at the log after its own time-out.
                _logger.info("no hints for a while: %s", str(error).splitlines()[0])
                self._wanted.set()
                self._stopping.wait(_RECONNECT_PAUSE_SECONDS)
            if self._stopping.is_set():
                return

    def _notify_while_connected(self) -> None:
        with psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS_MAX,
            application_name="guishu-notifier",
        ) as connection:
            # A hint need not survive a crash of the server, so its commit need not wait.
            connection.execute("SELECT set_config('synchronous_commit', 'off', false)")
            while True:
                self._wanted.wait()
                self._wanted.clear()
                connection.execute(_NOTIFY)
                if self._stopping.wait(self._interval_seconds):
                    connection.execute(_NOTIFY)
                    return
