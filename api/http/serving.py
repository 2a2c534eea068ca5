"""Serving HTTP: one server in a thread of its own, which ends when the block does.

Requests under way are finished when it is told to stop, as far as their time allows; what was taken
in is recorded in any case.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.http.problems import problem
from ledger.errors import LedgerError

# Of a request's head, from its first byte on, or from the connection's.
HEAD_SECONDS_MAX = 15.0
# Of a client that takes nothing of what is sent to it.
WRITE_SECONDS_MAX = 30.0
KEEP_ALIVE_SECONDS = 30
FINISH_SECONDS = 10
CONNECTIONS_MAX = 4_096
_BACKLOG = 1_024
# Besides connections: the database's, files of uploads, and what the interpreter has open.
_OTHER_FILES = 512


class AddressError(LedgerError):
    """The server cannot listen where it was told to."""

    code = "address"


class _Protocol(HttpToolsProtocol):
    """Ends connections whose request's head does not come, or whose answer is not read, in time.

    uvicorn waits for ever in both cases.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the first request time to come."""
        super().connection_made(transport)
        # Whatever has to wait is noticed, also the end of an answer, behind which nothing comes.
        transport.set_write_buffer_limits(high=0)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take in what came; of a next request the head has its own time."""
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_is_over()
        # uvicorn's own limit would be told in plain, and without when to come again.
        is_full = len(self.connections) > CONNECTIONS_MAX
        self.app = _FULL if is_full else self.config.loaded_app
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come."""
        self._head_is_over()
        self._reader_is_there()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the client time to read."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The client has read all."""
        self._reader_is_there()
        super().resume_writing()

    def _await_reader(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(WRITE_SECONDS_MAX, self._look_at_reader, unsent)

    def _look_at_reader(self, unsent: int) -> None:
        if self.transport.get_write_buffer_size() < unsent:
            self._await_reader()
        else:
            # Not closed, for that would wait until all is read.
            self.transport.abort()

    def _reader_is_there(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self.timeout_keep_alive_handler)

    def _head_is_over(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


_FULL: Any = problem(
    503,
    "busy",
    "The server has as many connections as it may have.",
    way_out="Try again in a moment.",
    headers={"Connection": "close", "Retry-After": "5"},
)


class _Server(uvicorn.Server):
    """A server that leaves the signals to the process around it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises AddressError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, or asyncio does not turn off Nagle's algorithm for what it accepts,
    # and the end of each answer waits some 40 ms for the client's acknowledgement of its beginning.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressError(
            f"Nobody can listen on {host}, port {port}: {error.strerror}.",
            way_out="Set GUISHU_HTTP_HOST and GUISHU_HTTP_PORT to an address that is free.",
        ) from None
    return listening


def is_loopback(host: str) -> bool:
    """Say whether an address is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def serving(
    app: FastAPI, listening: socket.socket, ended: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Serve ``app`` on a socket beside the block; gives the address.

    ``ended`` is called when nothing is served any more. Where that is by a defect, this raises it
    behind the block.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    _allow_files(CONNECTIONS_MAX + _OTHER_FILES)
    server = _Server(config)
    failures: list[Exception] = []

    def serve() -> None:
        try:
            _make_routes(app)
            asyncio.run(server.serve([listening]))
        except Exception as error:
            failures.append(error)
        finally:
            ended()

    thread = threading.Thread(target=serve, name="guishu-http")
    thread.start()
    try:
        yield address_of(listening)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
    if failures:
        raise failures[0]


def _make_routes(app: FastAPI) -> None:
    """Have FastAPI make all routes; it does so a router at a time, at the first request for it.

    Each would then take up to a second on the event loop, in which nobody is answered.
    """
    scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
    for route in app.routes:
        route.matches(scope)


def _allow_files(count: int) -> None:
    """Let this process have so many files open, as far as the system allows.

    Where it begins with the usual 1,024, a quarter of the connections would be all there can be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def address_of(listening: socket.socket) -> str:
    """Return the address of a listening socket."""
    host, port, *_ = listening.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
