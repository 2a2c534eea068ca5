"""The tail of the log for many subscribers: read once, rendered once, handed to all.

One thread reads while anybody subscribes. A subscriber has a bounded buffer; one that does not keep
up is told so, reads pages from where it stands, and comes back: never a gap, never a queue without
end. What comes within a moment is handed over together, the longer the more subscribers there are.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from api.http.log_view import Filter, as_json, customer_of, without_value
from ledger.envelope import StoredEvent
from ledger.store.hints import Notifier, Stop, Waiter
from ledger.store.reading import head, read_after
from projections.whois import places_of

PAGE = 500
BUFFER_BYTES_MAX = 262_144
SUBSCRIBERS_MAX = 5_000
_LOOK_SECONDS = 0.5
_GATHER_SECONDS_MIN, _GATHER_SECONDS_MAX = 0.01, 0.25
# About what handing over to one subscriber takes.
_GATHER_SECONDS_EACH = 0.0002

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Subscriber:
    """One who follows the log. ``position``: up to there everything was handed over or read.

    ``behind`` says that the buffer was full, and that pages are to be read from ``position`` on.
    Once it is ``gone`` nothing is handed over any more.
    """

    wanted: Filter
    loop: asyncio.AbstractEventLoop
    position: int = 0
    behind: bool = False
    gone: bool = False
    buffered: list[bytes] = field(default_factory=list)
    size: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, chunks: Sequence[bytes], position: int) -> None:
        """Take what came up to ``position``, or fall behind; on the subscriber's loop."""
        if self.behind:
            return
        size = sum(map(len, chunks))
        if self.size + size > BUFFER_BYTES_MAX:
            self.behind = True
        else:
            self.buffered += chunks
            self.size += size
            self.position = position
        if chunks or self.behind:
            self.ready.set()

    def fall_behind(self) -> None:
        """Take nothing more: pages are to be read."""
        self.behind = True
        self.ready.set()

    def take(self) -> bytes:
        """Return what is buffered."""
        taken = b"".join(self.buffered)
        self.buffered.clear()
        self.size = 0
        self.ready.clear()
        return taken


class Tail:
    """Hands the log's tail to subscribers; a context manager."""

    def __init__(
        self,
        conninfo: str,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        near: Notifier,
    ) -> None:
        self._conninfo = conninfo
        self._connect = connect
        self._near = near
        self._stop = Stop()
        self._wanted = threading.Event()
        self._lock = threading.Lock()
        self._subscribers: dict[int, Subscriber] = {}
        self._position = 0
        self._thread = threading.Thread(target=self._work, name="guishu-tail", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._wanted.set()
        self._thread.join()
        self.end_all()

    @property
    def subscribers(self) -> int:
        """How many follow the log now."""
        return len(self._subscribers)

    @property
    def is_ending(self) -> bool:
        """Whether nobody is served any more."""
        return self._stop.is_set()

    def end_all(self) -> None:
        """Wake all subscribers: the streams end."""
        self._stop.set()
        with self._lock:
            found = list(self._subscribers.values())
        for each in found:
            _on_loop(each, each.ready.set)

    def attach(self, subscriber: Subscriber) -> int:
        """Hand over to a subscriber from a position on, which is returned; pages lead up to it."""
        end: int | None = None
        while True:
            with self._lock:
                if self._subscribers or end is not None:
                    if not self._subscribers and end is not None:
                        # Nobody has read for a while: begin at the end.
                        self._position = end
                    if not subscriber.gone:
                        self._subscribers[id(subscriber)] = subscriber
                        self._wanted.set()
                    return self._position
            # Not under the lock, for which the event loop may wait.
            with self._connect() as connection:
                end = head(connection)

    def detach(self, subscriber: Subscriber) -> None:
        """Hand nothing more over, not even where ``attach`` is still under way."""
        with self._lock:
            subscriber.gone = True
            self._subscribers.pop(id(subscriber), None)
            if not self._subscribers:
                self._wanted.clear()

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        with Waiter(self._conninfo, self._stop, near=self._near) as waiter:
            while not self._stop.is_set():
                if not self._wanted.wait(1.0):
                    continue
                try:
                    is_more = self._hand_over()
                except Exception:
                    # Without this thread all would wait for ever, and seem to be served.
                    _log.exception("the log's tail: a defect")
                    self._send_to_pages()
                    is_more = False
                if not is_more:
                    waiter.wait(_LOOK_SECONDS)
                gather = self.subscribers * _GATHER_SECONDS_EACH
                self._stop.wait(min(max(gather, _GATHER_SECONDS_MIN), _GATHER_SECONDS_MAX))

    def _send_to_pages(self) -> None:
        """Have all read pages, who come back then."""
        with self._lock:
            found = list(self._subscribers.values())
            self._subscribers.clear()
            self._wanted.clear()
        for each in found:
            _on_loop(each, each.fall_behind)

    def _hand_over(self) -> bool:
        """Read a page and hand it over; says whether there is more."""
        with self._lock:
            found = list(self._subscribers.values())
            after = self._position
        try:
            with self._connect() as connection:
                events = read_after(connection, after, PAGE)
                places: dict[str, str | None] = {}
                if any(each.wanted.territories is not None for each in found):
                    named = (customer_of(event) for event in events)
                    places = places_of(connection, [each for each in named if each])
        except (psycopg.Error, PoolTimeout):
            # The database restarts, or a read model is not made yet; who follows waits.
            return False
        if not events:
            return False
        last, rendered = events[-1].position, [(event, as_sse(event)) for event in events]
        taken: dict[Filter, list[bytes]] = {}
        with self._lock:
            if self._position != after:
                return True  # everybody went and somebody came meanwhile: begin where they do
            # Under the lock, so that who attaches now is handed all that is behind this.
            self._position = last
            present = list(self._subscribers.values())
        for each in present:
            if each.wanted not in taken:
                taken[each.wanted] = [
                    chunk for event, chunk in rendered if each.wanted.takes(event, places)
                ]
            _on_loop(each, each.put, taken[each.wanted], last)
        return len(events) == PAGE


def as_sse(event: StoredEvent) -> bytes:
    """Return an event as Server-Sent Events have it, without values; its id is the position."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (
        event.position,
        event.name.encode(),
        as_json(without_value(event)),
    )


def _on_loop(subscriber: Subscriber, work: Callable[..., None], *given: Any) -> None:
    try:
        subscriber.loop.call_soon_threadsafe(work, *given)
    except RuntimeError:
        # The loop has been closed; its subscribers are gone.
        return
