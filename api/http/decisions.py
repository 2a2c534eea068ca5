"""Waiting for decisions: one thread looks for all who wait, woken by the log's hints."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from consumers import parking
from ledger.envelope import Event, decode
from ledger.events.catalogue import Catalogue
from ledger.store.hints import LINGER_SECONDS, Notifier, Stop, Waiter
from ledger.store.reading import read_decisions

Found = dict[int, list[Event]]
"""What came of requests, by their position: decisions by ordinal, or a RequestParked in place."""

# A hint may be lost; of what is parked there is none.
_LOOK_SECONDS = 0.2
_IDLE_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Found]
    left: set[int]
    found: Found = field(default_factory=dict)


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
        self._parked_next = 0.0
        self._is_ending = False
        self._thread = threading.Thread(target=self._work, name="guishu-decisions", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._asked.set()
        self._thread.join()

    def end_waits(self) -> None:
        """Have nobody wait any more: who does is told what is decided by now."""
        with self._lock:
            self._is_ending = True
            ending = {id(each): each for waiting in self._waiting.values() for each in waiting}
            self._waiting.clear()
        for each in ending.values():
            self._tell(each)

    @property
    def awaited(self) -> int:
        """How many requests somebody waits for."""
        return len(self._waiting)

    def now(self, positions: Sequence[int]) -> list[Event]:
        """Return what came of requests by now, by position of the request and ordinal.

        Of one that is parked, or waits for one of its customer that is, the RequestParked.
        """
        with self._connect() as connection:
            found = self._decided(connection, positions)
            found |= self._parked(connection, [each for each in positions if each not in found])
        return [event for position in sorted(found) for event in found[position]]

    async def of(self, positions: Sequence[int], seconds: float) -> list[Event]:
        """Return what is decided on requests, and wait up to ``seconds`` for all of them.

        By position of the request and ordinal; what is not decided by then is missing. A request
        has all of its decisions at once, but for a hand-over, which has them part by part. One that
        is parked is not waited for: its RequestParked stands in place of decisions.
        """
        found = await self.of_each(positions, seconds)
        return [event for position in sorted(found) for event in found[position]]

    async def of_each(self, positions: Sequence[int], seconds: float) -> Found:
        """Return the same by position of the request."""
        if not positions:
            return {}
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future(), set(positions))
        with self._lock:
            if self._is_ending:
                return {}
            for position in positions:
                self._waiting.setdefault(position, []).append(waiting)
        self._asked.set()
        try:
            async with asyncio.timeout(seconds):
                return await waiting.answer
        except TimeoutError:
            return dict(waiting.found)
        finally:
            self._forget(waiting)

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
                found = self._decided(connection, positions)
                # Seldom anything is parked: not at every look.
                if time.monotonic() >= self._parked_next:
                    left = [each for each in positions if each not in found]
                    found |= self._parked(connection, left)
                    self._parked_next = time.monotonic() + _LOOK_SECONDS
        except (psycopg.OperationalError, PoolTimeout):
            # The database restarts: whoever waits goes on waiting.
            return False
        except Exception as error:
            # What cannot be read is told to those who wait for it; the others must go on.
            if len(positions) > 1:
                looked = [self._look([each]) for each in positions]
                return any(looked)
            self._fail(positions[0], error)
            return True
        told: dict[int, _Waiting] = {}
        for cause, events in found.items():
            with self._lock:
                for waiting in self._waiting.pop(cause, ()):
                    waiting.found[cause] = events
                    waiting.left.discard(cause)
                    told[id(waiting)] = waiting
        for waiting in told.values():
            if not waiting.left:
                self._tell(waiting)
        return bool(found)

    def _decided(self, connection: Connection[Any], positions: Sequence[int]) -> Found:
        found: Found = {}
        for each in read_decisions(connection, positions):
            found.setdefault(each.causation or 0, []).append(decode(self._catalogue, each))
        return found

    def _parked(self, connection: Connection[Any], positions: Sequence[int]) -> Found:
        if not positions:
            return {}
        stored = parking.parked_among(connection, positions)
        return {position: [decode(self._catalogue, each)] for position, each in stored.items()}

    def _fail(self, position: int, error: Exception) -> None:
        with self._lock:
            found = self._waiting.pop(position, [])
        for waiting in found:
            self._tell(waiting, error)

    def _tell(self, waiting: _Waiting, error: Exception | None = None) -> None:
        def tell() -> None:
            if waiting.answer.done():
                return
            if error is None:
                waiting.answer.set_result(waiting.found)
            else:
                waiting.answer.set_exception(error)

        try:
            waiting.loop.call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop has been closed: nobody waits any more.
            return
