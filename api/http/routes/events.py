"""The log: a page of it by position, and its tail as Server-Sent Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from psycopg_pool import PoolTimeout
from starlette.types import Receive, Scope, Send

from api.http import log_view
from api.http.admission import OnBehalfOf, requires
from api.http.callers import Caller
from api.http.log_view import Filter
from api.http.permissions import Permission, Reach
from api.http.places import below
from api.http.problems import ForbiddenError, MalformedHeaderError
from api.http.services import InServices, Services
from api.http.shapes import Shape
from api.http.sight import note_access
from api.http.tail import PAGE, SUBSCRIBERS_MAX, Subscriber, as_sse
from ledger.commands import Id
from ledger.envelope import StoredEvent
from ledger.errors import BusyError, LedgerError, StoreUnavailableError
from ledger.store.reading import head

router = APIRouter(prefix="/v1/events", tags=["the log"])

POSITION_MAX = 2**63 - 1
LIMIT_MAX = 1_000
HEARTBEAT_SECONDS = 15.0
# How soon a stream ends whose token has been revoked.
_ADMITTED_SECONDS = 5.0
_AGAIN_SECONDS = 0.5

After = Annotated[int, Query(ge=0, le=POSITION_MAX, description="Begin behind this position.")]
Customer = Annotated[Id | None, Query(description="Only what is about this customer.")]
Territory = Annotated[
    Id | None,
    Query(description="Only what is about customers that lie in this territory now, or below."),
]
Names = Annotated[
    list[Annotated[str, Query(max_length=80, pattern=r"^[A-Za-z]+\.v\d+$")]] | None,
    Query(max_length=100, description="Only events of these names, such as OwnershipGranted.v1."),
]


class LogEvent(Shape):
    """An event: its place in the log, and its body as it stands there.

    ``body`` holds who acts and records, the data, and of a decision the position of its request
    (``causation``). Sealed texts are ``{"key", "text"}``; ``plain`` has them in plain, by field,
    where that was asked for and the caller may see personal data. Else the value of a deal is left
    out, which ``masked`` names in the body.
    """

    position: int
    recorded: str
    stream: str
    version: int
    name: str
    body: dict[str, Any]
    plain: dict[str, str | None] | None = None


class LogPage(Shape):
    """A page of the log. ``next`` is the position to go on behind; null: this was the end."""

    items: list[LogEvent]
    next: int | None


@router.get("", response_model=LogPage)
def read_log(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_LOG)],
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
    customer: Customer = None,
    territory: Territory = None,
    name: Names = None,
    unseal: Annotated[
        bool,
        Query(
            description="Sealed texts in plain as well, and values; needs personal:read everywhere."
        ),
    ] = False,
) -> Response:
    """Return events in the order of the log; every position is there, once, and never changes."""
    wanted = _filter(caller, customer, territory, name)
    if unseal and caller.rights.get(Permission.READ_PERSONAL, Reach.NOWHERE) < Reach.EVERYWHERE:
        raise ForbiddenError(Permission.READ_PERSONAL)
    with services.ledger.pool.connection() as connection:
        reached = head(connection)
        events = log_view.read_page(connection, wanted, after, reached, limit)
        following = events[-1].position if len(events) == limit else None
        if unseal:
            content = _unsealed(services, caller, request, connection, events, following)
        else:
            content = log_view.page_json(events, following)
    return Response(
        content, media_type="application/json", headers={"Ledger-Position": str(reached)}
    )


def _unsealed(
    services: Services,
    caller: Caller,
    request: Request,
    connection: Any,
    events: Sequence[StoredEvent],
    following: int | None,
) -> bytes:
    """Return a page with plain texts; who sees them is noted first."""
    vault, rendered, fields, streams = services.ledger.vault, [], set[str](), set[str]()
    for event in events:
        content, shown = log_view.unsealed(services.ledger.catalogue, vault.open_text, event)
        rendered.append(content)
        if shown:
            fields |= shown
            streams.add(event.stream)
    note_access(connection, caller, request.scope["route"].path, streams, fields)
    return log_view.joined(rendered, following)


def _filter(
    caller: Caller, customer: str | None, territory: str | None, names: list[str] | None
) -> Filter:
    """Return what is wanted, within the territories to which the caller's token is bound."""
    roots = [each for each in (territory,) if each is not None]
    places: frozenset[str] | None = below(caller.organisation, roots) if roots else None
    if caller.territories is not None:
        bound = below(caller.organisation, caller.territories)
        places = bound if places is None else places & bound
    return Filter(
        customer,
        None if places is None else tuple(sorted(places)),
        None if names is None else tuple(sorted(set(names))),
    )


# --- the stream --------------------------------------------------------------------------------


@router.get(
    "/stream",
    response_class=Response,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def follow_log(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_LOG)],
    on_behalf_of: OnBehalfOf = None,
    after: Annotated[
        int | None,
        Query(ge=0, le=POSITION_MAX, description="Begin behind this position; default: now."),
    ] = None,
    customer: Customer = None,
    territory: Territory = None,
    name: Names = None,
    last_event_id: Annotated[
        str | None, Header(max_length=40, description="The last id seen; goes on behind it.")
    ] = None,
) -> Response:
    """Follow the log as Server-Sent Events: each event's id is its position.

    After a break a client sends ``Last-Event-ID``, and gets what it missed, each event once.
    """
    if services.tail.subscribers >= SUBSCRIBERS_MAX:
        raise BusyError(retry_after_seconds=5)
    start = _last_seen(last_event_id)
    if start is None:
        start = after
    if start is None:
        start = await run_in_threadpool(_head, services)
    wanted = _filter(caller, customer, territory, name)
    headers = request.headers.get("Authorization"), on_behalf_of
    return _Stream(_Following(services, wanted, start, headers))


def _last_seen(last_event_id: str | None) -> int | None:
    if last_event_id is None:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit()):
        raise MalformedHeaderError("Last-Event-ID", "is no position.")
    return min(int(last_event_id), POSITION_MAX)


def _head(services: Services) -> int:
    with services.ledger.pool.connection() as connection:
        return head(connection)


@dataclass(slots=True)
class _Following:
    """One stream: pages up to where the tail hands over, then what is handed over."""

    services: Services
    wanted: Filter
    position: int
    headers: tuple[str | None, str | None]

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what the client is sent."""
        yield b": follow\nretry: 1000\n\n"
        while not self.services.tail.is_ending:
            subscriber = Subscriber(self.wanted, asyncio.get_running_loop())
            try:
                reached = await run_in_threadpool(self.services.tail.attach, subscriber)
                subscriber.position = max(subscriber.position, reached)
                async for chunk in self._pages(reached):
                    yield chunk
                async for chunk in self._handed_over(subscriber):
                    yield chunk
                self.position = max(self.position, subscriber.position)
            except (psycopg.OperationalError, PoolTimeout):
                # The database restarts; the stream goes on where it stands.
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            finally:
                self.services.tail.detach(subscriber)
            if not subscriber.behind:
                return

    async def _pages(self, upto: int) -> AsyncIterator[bytes]:
        """Yield what stands between the client's position and ``upto``, a page at a time."""
        while self.position < upto and not self.services.tail.is_ending:
            events = await run_in_threadpool(self._page, upto)
            if events:
                yield b"".join(map(as_sse, events))
            self.position = events[-1].position if len(events) == PAGE else upto

    def _page(self, upto: int) -> list[StoredEvent]:
        with self.services.ledger.pool.connection() as connection:
            return log_view.read_page(connection, self.wanted, self.position, upto, PAGE)

    async def _handed_over(self, subscriber: Subscriber) -> AsyncIterator[bytes]:
        """Yield what the tail hands over, and signs of life, until it ends or falls behind."""
        loop = asyncio.get_running_loop()
        beat = loop.time() + HEARTBEAT_SECONDS
        checked = loop.time()
        while not self.services.tail.is_ending:
            with suppress(TimeoutError):
                await asyncio.wait_for(subscriber.ready.wait(), _ADMITTED_SECONDS)
            if loop.time() - checked >= _ADMITTED_SECONDS:
                if not await self._is_admitted():
                    return
                checked = loop.time()
            taken = subscriber.take()
            if taken:
                yield taken
            if subscriber.behind:
                return
            if loop.time() >= beat:
                # The id alone is no event, but where the client begins next time.
                yield b": \nid: %d\n\n" % subscriber.position
                beat = loop.time() + HEARTBEAT_SECONDS

    async def _is_admitted(self) -> bool:
        """Say whether the caller may still follow: the token may have been revoked."""
        gate = self.services.gate
        try:
            if gate.is_at_hand(self.headers[0]):
                caller = gate.admit(*self.headers)
            else:
                caller = await run_in_threadpool(gate.admit, *self.headers)
        except (psycopg.OperationalError, PoolTimeout, StoreUnavailableError):
            # Without the database nothing is handed over either; it is asked again.
            return True
        except LedgerError:
            return False
        return caller.may(Permission.READ_LOG)


class _Stream(Response):
    """Sends chunks as they come, and stops when the client goes."""

    media_type = "text/event-stream"

    def __init__(self, following: _Following) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._following = following

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sending = asyncio.ensure_future(self._send(send))
        going = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, going}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, going):
                task.cancel()
            await asyncio.gather(sending, going, return_exceptions=True)
        if sending.done() and not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        # Closed in any case: it is handed over to until then.
        async with aclosing(self._following.chunks()) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
