"""Hints that the log has grown, by NOTIFY. A hint may come late or be lost: polling is the truth.

NOTIFY takes a lock of the whole instance when its transaction commits, so it is never sent by a
transaction that appends, but from a connection of its own, and at most every few milliseconds.
Whoever waits in the same process is woken directly, and need not wait for that.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

INTERVAL_SECONDS = 0.005
# About as long as a request waits for its decision where there is little to do.
LINGER_SECONDS = 0.01

_CONNECT_SECONDS_MAX = 5
_RECONNECT_PAUSE_SECONDS = 1.0
# How soon ``wait_for_news`` sees that it is to stop.
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


class _Hint(Enum):
    NONE = auto()
    MORE_TO_COME = auto()
    ALL = auto()


class Waker:
    """Wakes one thread that polls, from any thread: a file becomes readable. A context manager.

    ``at_once`` says of what it was woken for last that nothing more is to be expected behind it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._woken = self._closed = False
        self.at_once = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            os.close(self._reading)
            os.close(self._writing)

    def fileno(self) -> int:
        return self._reading

    def wake(self, *, at_once: bool) -> None:
        """Wake the thread, or let its next wait end at once."""
        with self._lock:
            self.at_once = self.at_once or at_once
            if not (self._woken or self._closed):
                self._woken = True
                os.write(self._writing, b".")

    def clear(self) -> bool:
        """Begin anew; says whether it was woken ``at_once``."""
        with self._lock:
            self._woken, at_once, self.at_once = False, self.at_once, False
            with suppress(BlockingIOError):
                os.read(self._reading, 1)
            return at_once


class _Wakers:
    """Those who are to be woken; whoever wakes them waits for nobody."""

    def __init__(self) -> None:
        self._all: tuple[Waker, ...] = ()
        self._changing = threading.Lock()

    def attach(self, waker: Waker) -> None:
        """Wake this one too from now on."""
        with self._changing:
            self._all = (*self._all, waker)

    def detach(self, waker: Waker) -> None:
        """Wake this one no more."""
        with self._changing:
            self._all = tuple(each for each in self._all if each is not waker)

    def wake(self, *, at_once: bool) -> None:
        """Wake all that are attached now."""
        for waker in self._all:
            waker.wake(at_once=at_once)


class Stop(threading.Event):
    """An event that also ends the wait of every ``Waiter`` it was given to, as soon as it is set.

    Who waits at a file does not see an event, and would have to look at it again and again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wakers = _Wakers()

    def set(self) -> None:
        """Set it, and wake whoever waits."""
        # In this order: who was woken looks whether it is set.
        super().set()
        self._wakers.wake(at_once=True)

    def attach(self, waker: Waker) -> None:
        """Wake somebody who waits at a file, too."""
        self._wakers.attach(waker)

    def detach(self, waker: Waker) -> None:
        """Wake them no more."""
        self._wakers.detach(waker)


class Waiter:
    """Waits for hints on a connection of its own, and for the time alone while there is none.

    For one thread; a context manager. ``stop`` ends a wait at once. The hints of ``near``, a
    notifier of this process, come to it directly. With ``linger_seconds`` a wait that a request's
    hint has ended goes on for as long, or up to the next hint: the decision comes right behind the
    request, and both together cost hardly more than one of them.
    """

    def __init__(
        self,
        conninfo: str,
        stop: Stop,
        *,
        near: Notifier | None = None,
        linger_seconds: float = 0.0,
    ) -> None:
        self._conninfo = conninfo
        self._stop = stop
        self._near = near
        self._linger_seconds = linger_seconds
        self._waker = Waker()
        self._connection: Connection[Any] | None = None

    def __enter__(self) -> Self:
        self._stop.attach(self._waker)
        if self._near is not None:
            self._near.attach(self._waker)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.detach(self._waker)
        if self._near is not None:
            self._near.detach(self._waker)
        self._waker.__exit__()
        self._close()

    def wait(self, seconds: float) -> None:
        """Return after ``seconds``, at a hint or at the stop, whichever comes first."""
        try:
            if self._connection is None:
                self._listen()
            else:
                self._wait(self._connection, seconds)
        except psycopg.Error as error:
            _logger.info("no hints for a while: %s", str(error).partition("\n")[0])
            self._close()
            self._stop.wait(seconds)

    def _listen(self) -> None:
        """Begin to listen; what was appended until then has given no hint to this connection."""
        self._connection = psycopg.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS_MAX,
            application_name="guishu-waiter",
        )
        self._connection.execute(_LISTEN)

    def _wait(self, connection: Connection[Any], seconds: float) -> None:
        hint = self._next(connection, seconds)
        if self._linger_seconds and hint is _Hint.MORE_TO_COME:
            self._next(connection, self._linger_seconds)

    def _next(self, connection: Connection[Any], seconds: float) -> _Hint:
        deadline = time.monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
            hint = self._look(connection, left)
            if hint is not _Hint.NONE:
                return hint
        return _Hint.NONE

    def _look(self, connection: Connection[Any], seconds: float) -> _Hint:
        """Wait for a file; a notification of what came directly before is no hint."""
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        poll.register(self._waker.fileno(), select.POLLIN)
        ready = {file for file, _ in poll.poll(seconds * 1_000)}
        hint = _Hint.NONE
        if connection.fileno() in ready:
            connection.pgconn.consume_input()
            own = self._near.backend_pid if self._near is not None else None
            while (notification := connection.pgconn.notifies()) is not None:
                if notification.be_pid != own:
                    hint = _Hint.MORE_TO_COME
        if self._waker.fileno() in ready:
            hint = _Hint.ALL if self._waker.clear() else _Hint.MORE_TO_COME
        return hint

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Notifier:
    """Sends hints from a thread of its own, and a connection of its own; a context manager.

    It connects at the first hint: a command that records nothing has no use for it. Waiters of the
    same process are woken by ``hint`` itself.
    """

    def __init__(self, conninfo: str, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._conninfo = conninfo
        self._interval_seconds = interval_seconds
        self._hinted = threading.Event()
        # Set by whatever the thread has to wake up for.
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._wakers = _Wakers()
        # By which waiters know what came to them directly.
        self.backend_pid: int | None = None
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
        self._hint(at_once=False)

    def hint_decided(self) -> None:
        """Say that decisions were committed, behind which nothing more is to be expected."""
        self._hint(at_once=True)

    def attach(self, waker: Waker) -> None:
        """Wake somebody of this process directly from now on."""
        self._wakers.attach(waker)

    def detach(self, waker: Waker) -> None:
        """Wake them no more."""
        self._wakers.detach(waker)

    def _hint(self, *, at_once: bool) -> None:
        self._wakers.wake(at_once=at_once)
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
                _logger.info("no hints for a while: %s", str(error).partition("\n")[0])
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
            self.backend_pid = connection.info.backend_pid
            # A hint need not survive a crash of the server, so its commit need not wait.
            connection.execute("SELECT set_config('synchronous_commit', 'off', false)")
            while True:
                self._wanted.wait()
                self._wanted.clear()
                connection.execute(_NOTIFY)
                if self._stopping.wait(self._interval_seconds):
                    connection.execute(_NOTIFY)
                    return
