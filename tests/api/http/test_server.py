"""The server itself: what the network sees of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

import httpx
from fastapi import APIRouter, FastAPI, routing

from api.http.serving import listen, serving


def test_answers_do_not_wait_for_acknowledgements() -> None:
    """The end of each answer waited 40 ms for the client to acknowledge its beginning: asyncio
    turned Nagle's algorithm off only for sockets that say that they speak TCP.
    """

    async def option() -> int:
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accepted(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepting = writer.get_extra_info("socket")
            seen.set_result(accepting.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        listening = listen("127.0.0.1", 0)
        async with await asyncio.start_server(accepted, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            found = await seen
            writer.close()
        return found

    assert asyncio.run(option()) != 0


def test_the_first_request_finds_its_route_made(monkeypatch: Any) -> None:
    """FastAPI made a router's routes at its first request, on the event loop: a second for all."""
    on_the_loop: list[bool] = []
    make = cast("Callable[..., Any]", routing.get_request_handler)

    def making(*given: Any, **named: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            on_the_loop.append(False)
        else:
            on_the_loop.append(True)
        return make(*given, **named)

    router = APIRouter()
    router.add_api_route("/here", lambda: "here")
    app = FastAPI()
    app.include_router(router)
    on_the_loop.clear()
    monkeypatch.setattr(routing, "get_request_handler", making)
    with serving(app, listen("127.0.0.1", 0)) as address:
        assert httpx.get(f"{address}/here").json() == "here"
    assert on_the_loop == [False]
