"""Which of the waiting appends may share a transaction, and in which order they go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from ledger.store.appending import BYTES_PER_TRANSACTION_MAX, Append, Appended

# How many appends may be passed over, so that one much-used stream cannot make every look long.
PASSED_OVER_MAX = 1_000


@dataclass(slots=True, eq=False)
class Waiting:
    """An append that somebody waits for."""

    append: Append
    # The bytes of its streams, names and bodies.
    size: int
    answer: asyncio.Future[Appended]
    # Sent at least once over a connection that was then lost: it may have been committed.
    in_doubt: bool = field(default=False)

    def succeed(self, appended: Appended) -> None:
        if not self.answer.done():
            self.answer.set_result(appended)

    def fail(self, error: BaseException) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Claims:
    """The streams and request ids of a group: what else of them would need to know its outcome."""

    def __init__(self, under_way: Iterable[Waiting]) -> None:
        self.streams: set[str] = set()
        self.closed: set[str] = set()
        self.requests: set[tuple[str, str]] = set()
        for waiting in under_way:
            self.close(waiting.append)

    def admits(self, append: Append) -> bool:
        """Say whether ``append`` may join; its streams and request id are then claimed."""
        key = None
        if append.request is not None:
            key = (append.request.caller, append.request.request_id)
            if key in self.requests:
                return False
        streams, closed = self.streams, self.closed
        for event in append.events:
            stream = event.stream
            if stream in closed or (event.version is not None and stream in streams):
                return False
        for event in append.events:
            streams.add(event.stream)
            if event.version is not None:
                closed.add(event.stream)
        if key is not None:
            self.requests.add(key)
        return True

    def close(self, append: Append) -> None:
        """Let nothing of the streams and the request id of ``append`` join from now on."""
        if append.request is not None:
            self.requests.add((append.request.caller, append.request.request_id))
        self.closed.update([event.stream for event in append.events])


class AppendQueue:
    """The appends that wait for a transaction, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Waiting] = deque()
        self.events = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, waiting: Waiting) -> None:
        """Let an append wait behind all others."""
        self._waiting.append(waiting)
        self.events += len(waiting.append.events)

    def take(
        self, events_max: int, under_way: Iterable[Waiting] = ()
    ) -> tuple[list[Waiting], list[Waiting]]:
        """Take from the front what may share the next transaction, in order.

        No two appends of a group share a stream at a stated version, or a request id, and none
        shares a stream or a request id with what is ``under_way``. What is passed over stays in
        front, and nothing of its streams overtakes it, so the log has each stream's events in the
        order in which they came. The first append is taken whatever its size. Beside the group,
        returns the appends that are dropped because nobody waits for them any more.
        """
        claims = _Claims(under_way)
        group: list[Waiting] = []
        dropped: list[Waiting] = []
        passed_over: list[Waiting] = []
        room, bytes_room = events_max, BYTES_PER_TRANSACTION_MAX
        while self._waiting and room > 0 and len(passed_over) < PASSED_OVER_MAX:
            waiting = self._waiting.popleft()
            append = waiting.append
            events = len(append.events)
            if group and (events > room or waiting.size > bytes_room):
                passed_over.append(waiting)
                break
            if waiting.answer.done():
                dropped.append(waiting)
            elif claims.admits(append):
                group.append(waiting)
                room -= events
                bytes_room -= waiting.size
            else:
                claims.close(append)
                passed_over.append(waiting)
                continue
            self.events -= events
        self._waiting.extendleft(reversed(passed_over))
        return group, dropped
