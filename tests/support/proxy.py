"""Proxies between a client and its servers that lose what a test wants to be lost."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Loss = Literal["nothing", "request", "reply"]


class _Between(ABC):
    """Passes on what comes, a thread for each direction of each connection; a context manager."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._closed = False

    def __enter__(self) -> Self:
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Break all connections, and accept no more."""
        self._closed = True
        for each in [self._listener, *self._sockets]:
            _end(each)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self._serve(client)

    @abstractmethod
    def _serve(self, client: socket.socket) -> None:
        """Begin to pass on what a new client says, and what it is answered."""


class _Database:
    """Where the database of a connection string is."""

    def __init__(self, conninfo: str) -> None:
        target = conninfo_to_dict(conninfo)
        self._host = str(target.get("host") or "localhost")
        self._port = int(target.get("port") or 5432)

    def connect(self) -> socket.socket:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        return socket.create_connection((self._host, self._port))


class Proxy(_Between):
    """Passes everything on to PostgreSQL, until ``lose`` is called; a context manager.

    ``conninfo`` leads to the same database as the given one, through the proxy.
    """

    def __init__(self, conninfo: str, folder: Path) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(folder / ".s.PGSQL.5432"))
        super().__init__(listener)
        self._database = _Database(conninfo)
        self.conninfo = make_conninfo(conninfo, host=str(folder), port=5432, sslmode="disable")
        self._loss: Loss = "nothing"
        self._mark = b""
        self._meanwhile: Callable[[], object] = lambda: None
        self.losses = 0

    def lose(self, what: Loss, mark: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Lose the next request that holds ``mark``, or its reply, and the connection with it.

        ``meanwhile`` runs before the client notices.
        """
        self._mark, self._meanwhile, self._loss = mark, meanwhile, what

    def _serve(self, client: socket.socket) -> None:
        server = self._database.connect()
        self._sockets.append(server)
        asked = threading.Event()
        self._start(self._pass_requests, client, server, asked)
        self._start(self._pass_replies, server, client, asked)

    def _pass_requests(
        self, client: socket.socket, server: socket.socket, asked: threading.Event
    ) -> None:
        for data in _received(client):
            if self._loss != "nothing" and self._mark in data:
                if self._loss == "request":
                    self._lost(client, server)
                    return
                asked.set()
            with suppress(OSError):
                server.sendall(data)
        _end(server)

    def _pass_replies(
        self, server: socket.socket, client: socket.socket, asked: threading.Event
    ) -> None:
        for data in _received(server):
            if asked.is_set():
                # The server answers once the transaction is over, so it has been committed.
                self._lost(client, server)
                return
            with suppress(OSError):
                client.sendall(data)
        _end(client)

    def _lost(self, client: socket.socket, server: socket.socket) -> None:
        self._loss = "nothing"
        self.losses += 1
        self._meanwhile()
        _end(server)
        _end(client)


class Route(_Between):
    """The way of one process to its servers, which can be cut; a context manager.

    A route that is cut is one whose packets are dropped: connections stay open and nothing passes,
    nor does the end of one; new ones get no answer. What was under way arrives when it is healed.
    """

    def __init__(self) -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        super().__init__(listener)
        self._whole = threading.Event()
        self._whole.set()

    @property
    def port(self) -> int:
        """Where it begins, on loopback."""
        return int(self._listener.getsockname()[1])

    def cut(self) -> None:
        """Let nothing pass from now on."""
        self._whole.clear()

    def break_off(self) -> None:
        """Cut it, and let both ends of each connection know at once."""
        self.cut()
        for each in list(self._sockets):
            _end(each)

    def heal(self) -> None:
        """Let everything pass again."""
        self._whole.set()

    def close(self) -> None:
        super().close()
        self.heal()

    @abstractmethod
    def _connect(self, client: socket.socket) -> socket.socket:
        """Return a connection to the server that a new client wants; raises OSError."""

    def _serve(self, client: socket.socket) -> None:
        self._start(self._open, client)

    def _open(self, client: socket.socket) -> None:
        self._whole.wait()
        try:
            server = self._connect(client)
        except OSError:
            _end(client)
            return
        self._sockets.append(server)
        if self._closed:
            _end(server)
        self._start(self._pass, client, server)
        self._pass(server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        for data in _received(source):
            self._whole.wait()
            with suppress(OSError):
                target.sendall(data)
        self._whole.wait()
        _end(target)


class RouteToDatabase(Route):
    """The way to PostgreSQL; ``conninfo`` leads along it to the same database as the given one."""

    def __init__(self, conninfo: str) -> None:
        super().__init__()
        self._database = _Database(conninfo)
        self.conninfo = make_conninfo(
            conninfo, host="127.0.0.1", port=self.port, sslmode="disable", connect_timeout=2
        )

    def _connect(self, client: socket.socket) -> socket.socket:
        return self._database.connect()


class RouteToBrokers(Route):
    """The way to whichever broker a client of Kafka wants.

    To the client it is the proxy of ``url``, for HTTP's CONNECT. So it leads to the addresses, too,
    that the cluster tells of itself.
    """

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _connect(self, client: socket.socket) -> socket.socket:
        asked = b""
        while not asked.endswith(b"\r\n\r\n"):
            more = client.recv(4_096)
            if not more:
                raise ConnectionAbortedError
            asked += more
        host, _, port = asked.split()[1].decode().rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        return server


def _received(connection: socket.socket) -> Iterator[bytes]:
    with suppress(OSError):
        while data := connection.recv(65_536):
            yield data


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def proxy(conninfo: str, folder: Path) -> Iterator[Proxy]:
    """Open a proxy to the database of ``conninfo``; its socket stands in ``folder``."""
    with Proxy(conninfo, folder) as opened:
        yield opened
