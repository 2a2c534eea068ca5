"""A proxy between a client and PostgreSQL that loses what a test wants to be lost."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Loss = Literal["nothing", "request", "reply"]


class Proxy:
    """Passes everything on, until ``lose`` is called; a context manager.

    ``conninfo`` leads to the same database as the given one, through the proxy.
    """

    def __init__(self, conninfo: str, folder: Path) -> None:
        target = conninfo_to_dict(conninfo)
        self._host = str(target.get("host") or "localhost")
        self._port = int(target.get("port") or 5432)
        self.conninfo = make_conninfo(conninfo, host=str(folder), port=5432, sslmode="disable")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._loss: Loss = "nothing"
        self._mark = b""
        self._meanwhile: Callable[[], object] = lambda: None
        self._closed = False
        self.losses = 0

    def __enter__(self) -> Self:
        self._listener.listen()
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        for thread in self._threads:
            thread.join()

    def lose(self, what: Loss, mark: bytes, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Lose the next request that holds ``mark``, or its reply, and the connection with it.

        ``meanwhile`` runs before the client notices.
        """
        self._mark, self._meanwhile, self._loss = mark, meanwhile, what

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
            server = self._connect()
            self._sockets += [client, server]
            asked = threading.Event()
            self._start(self._pass_requests, client, server, asked)
            self._start(self._pass_replies, server, client, asked)

    def _connect(self) -> socket.socket:
        if self._host.startswith("/"):
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.connect(f"{self._host}/.s.PGSQL.{self._port}")
            return server
        return socket.create_connection((self._host, self._port))

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
