"""The connection that appends groups: made when it is needed, and dropped when it is lost.

It is in libpq's pipeline mode, so that a group can be sent while the one before it is being
written: PostgreSQL goes from one to the next without waiting for this process, and each is still
a transaction of its own. psycopg's own pipeline would do, but costs this process more time for
each group than all the rest of an append.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.pq.abc import PGresult

from ledger.store.appending import (
    EVENTS_PER_TRANSACTION_MAX,
    PREPARE_APPEND,
    PREPARE_REFUSALS,
    Append,
    Outcome,
    Refusal,
    appended,
    parameters,
    refused,
)

RETRY_PAUSE_SECONDS = 0.05

# The values of a row, as text.
Row = list[bytes | None]

_ALL_BINARY = [Format.BINARY] * 12
_STORED = """
SELECT position FROM ledger.events
WHERE stream = %s AND version = %s AND name = %s AND body = %s
"""


@dataclass(frozen=True, slots=True)
class CommitterLimits:
    """Bounds of the committer; events are counted, not appends."""

    # What waits or is being committed; one append more is Busy.
    queued_events_max: int = 50_000
    queued_bytes_max: int = 256 * 1024 * 1024
    group_events_max: int = EVENTS_PER_TRANSACTION_MAX
    # How long appends wait for a database that does not answer before they fail.
    unavailable_after_seconds: float = 15.0
    connect_timeout_seconds: int = 5
    statement_timeout_ms: int = 10_000
    # A server that has not even said "timed out" this long after it should have is lost.
    silence_seconds_max: float = 5.0


class NotConnectedError(Exception):
    """There is no connection, and none could be made in time; nothing was sent."""


class ConnectionLostError(Exception):
    """The connection was lost while the answer was under way: nobody knows what was committed."""


class Writer:
    """Appends groups, in the order in which they are sent."""

    def __init__(self, conninfo: str, limits: CommitterLimits) -> None:
        self._conninfo = conninfo
        self._limits = limits
        self._pipeline: _Pipeline | None = None
        self._one_connects = asyncio.Lock()

    async def append(self, appends: Sequence[Append], deadline: float) -> Sequence[Outcome | None]:
        """Append a group in one transaction of its own.

        Returns a result per append, in their order. Where some do not hold nothing is appended:
        those have their results, the others None, and are to be sent again without them.

        ``deadline`` is the event loop's time until which to try to connect. Raises
        NotConnectedError, ConnectionLostError, or psycopg's error for what the database refused;
        only after ConnectionLostError something may have been committed.
        """
        arrays = [array.data for array in parameters(appends)]
        pipeline = self._pipeline
        if pipeline is None or pipeline.is_lost:
            async with self._one_connects:
                pipeline = await self._connected(deadline)
        silence = self._limits.statement_timeout_ms / 1000 + self._limits.silence_seconds_max
        timer = asyncio.get_running_loop().call_later(silence, pipeline.cut)
        try:
            ((first_position,),) = await pipeline.send(b"guishu_append", arrays)
            if first_position is not None:
                return appended(appends, int(first_position))
            rows = await pipeline.send(b"guishu_refusals", arrays)
            return refused(appends, [_refusal(*row) for row in rows])
        finally:
            timer.cancel()

    async def stored_position(self, append: Append, deadline: float) -> int | None:
        """Return where exactly these events stand at exactly these versions, if they do."""
        connection = await self._connection(deadline)
        try:
            first: int | None = None
            for offset, event in enumerate(append.events):
                values = (event.stream, event.version, event.name, event.body)
                row = await (await connection.execute(_STORED, values)).fetchone()
                if row is None or (first is not None and row[0] != first + offset):
                    return None
                first = row[0] if first is None else first
            return first
        finally:
            await connection.close()

    async def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self._pipeline is not None:
            await self._pipeline.close()
            self._pipeline = None

    async def _connected(self, deadline: float) -> _Pipeline:
        if self._pipeline is None or self._pipeline.is_lost:
            await self.disconnect()
            self._pipeline = _Pipeline(await self._connection(deadline))
        return self._pipeline

    async def _connection(self, deadline: float) -> AsyncConnection[Any]:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._new_connection()
            except psycopg.OperationalError as error:
                if loop.time() > deadline:
                    raise NotConnectedError from error
                await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def _new_connection(self) -> AsyncConnection[Any]:
        connection = await AsyncConnection.connect(
            self._conninfo,
            autocommit=True,
            connect_timeout=self._limits.connect_timeout_seconds,
            application_name="guishu-committer",
        )
        try:
            await connection.execute(
                "SELECT set_config('default_transaction_isolation', 'read committed', false),"
                " set_config('statement_timeout', %s, false)",
                (str(self._limits.statement_timeout_ms),),
            )
            await connection.execute(PREPARE_APPEND)
            await connection.execute(PREPARE_REFUSALS)
        except BaseException:
            await connection.close()
            raise
        return connection


class _Pipeline:
    """A connection in pipeline mode: sends groups, and gives each its answer when it comes."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._descriptor = connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._awaited: deque[asyncio.Future[list[Row]]] = deque()
        self._results: list[PGresult] = []
        self.is_lost = False
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._descriptor, self._read)

    async def send(self, statement: bytes, arrays: Sequence[bytes]) -> list[Row]:
        """Run a prepared statement; raises ConnectionLostError or what the database refused."""
        answer: asyncio.Future[list[Row]] = self._loop.create_future()
        try:
            self._pgconn.send_query_prepared(
                statement, arrays, _ALL_BINARY, result_format=Format.TEXT
            )
            self._pgconn.pipeline_sync()
            self._awaited.append(answer)
            self._write()
        except psycopg.OperationalError as error:
            self._lose(error)
            raise ConnectionLostError from error
        return await answer

    def cut(self) -> None:
        """End the connection under whoever waits: a frozen server never answers a cancel."""
        # A connection that is closed has given its number to another one.
        if self.is_lost:
            return
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._descriptor)) as end,
        ):
            end.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        """Close the connection; what is still awaited is lost."""
        self._lose(None)
        with contextlib.suppress(psycopg.Error):
            await self._connection.close()

    def _write(self) -> None:
        if self._pgconn.flush() == 0:
            self._loop.remove_writer(self._descriptor)
        else:
            self._loop.add_writer(self._descriptor, self._write_more)

    def _write_more(self) -> None:
        try:
            self._write()
        except psycopg.OperationalError as error:
            self._lose(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    # The end of one statement's results; twice means that there is nothing more.
                    if not self._results or self._pgconn.status != ConnStatus.OK:
                        break
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    self._answer()
                else:
                    self._results.append(result)
            if self._pgconn.status != ConnStatus.OK:
                self._lose(None)
        except Exception as error:
            # Whatever it is, nobody may be left waiting for an answer that nobody reads.
            self._lose(error)

    def _answer(self) -> None:
        answer, (result,) = self._awaited.popleft(), self._results
        self._results = []
        if answer.done():
            return
        if result.status == ExecStatus.TUPLES_OK:
            columns = range(result.nfields)
            rows = range(result.ntuples)
            answer.set_result(
                [[result.get_value(row, column) for column in columns] for row in rows]
            )
        else:
            answer.set_exception(error_from_result(result, "utf-8"))

    def _lose(self, error: Exception | None) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        for answer in self._awaited:
            if not answer.done():
                lost = ConnectionLostError()
                lost.__cause__ = error
                answer.set_exception(lost)
        self._awaited.clear()


def _refusal(
    place: bytes | None, outcome: bytes | None, position: bytes | None, count: bytes | None
) -> Refusal:
    return int(place or 0), (outcome or b"").decode(), int(position or 0), int(count or 0)
