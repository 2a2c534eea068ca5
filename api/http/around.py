"""What goes around every request: bodies come in time, and what was answered is measured and told.

Plain ASGI, for a middleware of Starlette's would put each answer through a queue of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.problems import MEDIA_TYPE, problem

BODY_SECONDS_MAX = 30.0
# For the rest of a body that was refused.
REFUSED_SECONDS_MAX = 15.0
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_access = logging.getLogger("guishu.access")


class BodyTooSlowError(HTTPException):
    """A body did not come in time; nothing was recorded. FastAPI lets no other errors through."""

    def __init__(self) -> None:
        super().__init__(408, "The body did not come in time.", {"Connection": "close"})


class BodiesInTime:
    """Ends a request whose body takes too long, however often a little of it comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; BodyTooSlowError is raised where the body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BODY_SECONDS_MAX
        is_whole = False

        async def receive_in_time() -> Message:
            nonlocal is_whole
            if is_whole:
                # What comes behind the body is that the client goes.
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise BodyTooSlowError from None
            is_whole = not message.get("more_body", False)
            return message

        await self._app(scope, receive_in_time, send)


class ProblemsOfLimits:
    """Says of a body that is too large what is wrong as a problem; Starlette does so in plain."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        replaced = is_whole = False

        async def receive_and_see() -> Message:
            nonlocal is_whole
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message

        async def rest() -> None:
            while not is_whole:
                await receive_and_see()

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and _is_plain_limit(message):
                replaced = True
                await _refuse(scope, receive, send, rest)
            elif not replaced:
                await send(message)

        await self._app(scope, receive_and_see, send_problem)


_TOO_LARGE = problem(
    413,
    "body_too_large",
    "The body is larger than this route takes.",
    way_out="Send less at once.",
    headers={"Connection": "close"},
)


_STOPPING = problem(
    503,
    "stopping",
    "The ledger is being stopped, and did not finish this in time.",
    way_out="Send it again when it runs again, with the same Idempotency-Key.",
    headers={"Connection": "close", "Retry-After": "5"},
)


async def _refuse(
    scope: Scope, receive: Receive, send: Send, rest: Callable[[], Awaitable[None]]
) -> None:
    """Answer, and take in the rest of the body, for a while, before the connection is closed.

    A client that sends all before it reads would find its connection reset, and no answer.
    """

    async def send_part(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "more_body": True}
        await send(message)

    await _TOO_LARGE(scope, receive, send_part)
    with suppress(TimeoutError):
        await asyncio.wait_for(rest(), REFUSED_SECONDS_MAX)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_plain_limit(message: Message) -> bool:
    kinds = [value for name, value in message.get("headers", ()) if name == b"content-type"]
    return message["status"] == 413 and kinds != [MEDIA_TYPE.encode()]


class Measured:
    """Measures and tells of every answer: route, method, status, time, and who asked."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._seconds = Histogram(
            "guishu_http_request_seconds",
            "How long answers took, from the request's head to the answer's end.",
            ("method", "route", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, has_begun, began = 500, False, time.perf_counter()

        async def send_and_see(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
            await send(message)

        try:
            await self._app(scope, receive, send_and_see)
        except asyncio.CancelledError:
            # The server stops, and the time for finishing is over.
            if has_begun:
                raise
            await _STOPPING(scope, receive, send_and_see)
        finally:
            self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        # Paths hold ids, and would be labels without end.
        route = getattr(scope.get("route"), "path", "unknown")
        self._seconds.labels(scope["method"], route, str(status)).observe(seconds)
        caller = scope.get("state", {}).get("caller", "-")
        _access.info("%s %s %d %.1f ms %s", scope["method"], route, status, seconds * 1e3, caller)
