"""Waiting for decisions: one thread looks for all who wait, woken by the log's hints."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from ledger.envelope import Event, StoredEvent, decode
from ledger.events.catalogue import Catalogue
from ledger.store.hints import LINGER_SECONDS, Notifier, Stop, Waiter
from ledger.store.reading import read_decisions

# A hint may be lost.
_LOOK_SECONDS = 0.2
_IDLE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[Event]]
    left: set[int]
    found: list[Event] = field(default_factory=list)


class Decisions:
    """Tells coroutines what was decided; a context manager.

    ``near`` is the notifier of this process: whoever decides here wakes it directly.
    """

    def __init__(
        self,
        conninfo: str,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        catalogue: Catalogue,
        near: Notifier,
    ) -> None:
        self._conninfo = conninfo
        self._connect = connect
        self._catalogue = catalogue
        self._near = near
        self._stop = Stop()
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._waiting: dict[int, list[_Waiting]] = {}
        self._thread = threading.Thread(target=self._work, name="guishu-decisions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._asked.set()
        self._thread.join()

    @property
    def awaited(self) -> int:
        """How many requests somebody waits for."""
        return len(self._waiting)

    def now(self, positions: Sequence[int]) -> list[Event]:
        """Return what is decided by now on requests, by position of the request and ordinal."""
        with self._connect() as connection:
            stored = read_decisions(connection, positions)
        return [decode(self._catalogue, each) for each in stored]

    async def of(self, positions: Sequence[int], seconds: float) -> list[Event]:
        """Return what is decided on requests, and wait up to ``seconds`` for all of them.

        By position of the request and ordinal; what is not decided by then is missing. A request
        has all of its decisions at once, but for a hand-over, which has them part by part.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future(), set(positions))
        with self._lock:
            for position in positions:
                self._waiting.setdefault(position, []).append(waiting)
        self._asked.set()
        try:
            found = await asyncio.wait_for(asyncio.shield(waiting.answer), seconds)
        except TimeoutError:
            found = list(waiting.found)
        finally:
            self._forget(waiting)
        return sorted(found, key=lambda event: (event.causation or 0, event.ordinal or 0))

    def _forget(self, waiting: _Waiting) -> None:
        with self._lock:
            for position in waiting.left:
                others = [each for each in self._waiting.get(position, ()) if each is not waiting]
                if others:
                    self._waiting[position] = others
                else:
                    self._waiting.pop(position, None)

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        with Waiter(
            self._conninfo, self._stop, near=self._near, linger_seconds=LINGER_SECONDS
        ) as waiter:
            while not self._stop.is_set():
                with self._lock:
                    positions = sorted(self._waiting)
                    self._asked.clear()
                if not positions:
                    self._asked.wait(_IDLE_SECONDS)
                    continue
                if not self._look(positions):
                    waiter.wait(_LOOK_SECONDS)

    def _look(self, positions: Sequence[int]) -> bool:
        """Hand out what is there; says whether there was anything."""
        try:
            with self._connect() as connection:
                stored = read_decisions(connection, positions)
        except (psycopg.OperationalError, PoolTimeout):
            # The database restarts: whoever waits goes on waiting.
            return False
        told: dict[int, _Waiting] = {}
        for cause, decisions in groupby(stored, key=_cause):
            events = [decode(self._catalogue, each) for each in decisions]
            with self._lock:
                for waiting in self._waiting.pop(cause, ()):
                    waiting.found += events
                    waiting.left.discard(cause)
                    told[id(waiting)] = waiting
        for waiting in told.values():
            if not waiting.left:
                self._tell(waiting)
        return bool(stored)

    def _tell(self, waiting: _Waiting) -> None:
        def tell() -> None:
            if not waiting.answer.done():
                waiting.answer.set_result(waiting.found)

        try:
            waiting.loop.call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop has been closed: nobody waits any more.
            return


def _cause(event: StoredEvent) -> int:
    return event.causation or 0
