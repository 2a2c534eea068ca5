"""Group commit: the concurrent appends of a process become one transaction after another.

Two groups are under way at once: while PostgreSQL writes one, this process packs the next and
hands out the results of the one before. More would not help, for the append lock lets only one
transaction of the database append at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self, TypeVar

import psycopg
from psycopg import errors

from ledger.errors import (
    AnotherTimelineError,
    BusyError,
    LedgerError,
    OutcomeUnknownError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
    VersionConflictError,
)
from ledger.store.appending import Append, Appended, Outcome, check_append
from ledger.store.grouping import AppendQueue, Waiting
from ledger.store.writer import (
    RETRY_PAUSE_SECONDS,
    CommitterLimits,
    ConnectionLostError,
    NotConnectedError,
    Writer,
)

__all__ = ["Committer", "CommitterLimits", "CommitterThread", "translated"]

T = TypeVar("T")

# Nothing was committed, and the same again may well succeed.
_RETRYABLE = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    errors.QueryCanceled,
)
# The fault of some append in the group, and not of the database's state.
_ONES_OWN_FAULT = (errors.DataError, errors.IntegrityError)

_RETRIES_MAX = 20
_GROUPS_UNDER_WAY_MAX = 2

# Each transaction costs about as much as so many events; splitting a smaller group does not pay.
_WORTH_SPLITTING_EVENTS = 48


class Committer:
    """Appends, for the coroutines of the event loop on which it was entered.

    Use as an async context manager. Each ``append`` gets its own result. ``committed`` is called
    after each commit (see ledger/store/hints.py); it must return at once and not fail.
    """

    def __init__(
        self,
        conninfo: str,
        limits: CommitterLimits | None = None,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits or CommitterLimits()
        self._committed = committed
        self._queue = AppendQueue()
        self._under_way: dict[asyncio.Task[None], list[Waiting]] = {}
        self._writer = Writer(conninfo, self._limits)
        # What waits, and what is being committed.
        self._held_events = 0
        self._held_bytes = 0
        self._dispatch_is_due = False
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what was accepted, then stop."""
        self._closing = True
        while self._queue or self._under_way:
            self._dispatch()
            if self._under_way:
                await asyncio.wait(self._under_way)
        await self._writer.disconnect()

    @property
    def queued_events(self) -> int:
        """How many events wait now, those being committed included."""
        return self._held_events

    def append(self, append: Append) -> asyncio.Future[Appended]:
        """Record the events of ``append`` together, or none of them.

        To be awaited, which raises VersionConflictError, RequestReusedError, EntryTooLargeError,
        BusyError, StoreUnavailableError, StoreFullError, StoreRefusedError, or
        OutcomeUnknownError: after the last one, send the same again, with its request id. A
        ValueError says that it is no append. Cancelling withdraws an append that still waits; one
        that is being committed is recorded nonetheless.
        """
        if self._loop is None:
            raise RuntimeError("Committer is used outside its async with block.")
        answer: asyncio.Future[Appended] = self._loop.create_future()
        try:
            size = check_append(append)
            events = self._held_events + len(append.events)
            self._check_room(events, self._held_bytes + size)
        except (LedgerError, ValueError) as error:
            answer.set_exception(error)
            return answer
        self._held_events = events
        self._held_bytes += size
        self._queue.put(Waiting(append, size, answer))
        if not self._dispatch_is_due:
            self._dispatch_soon()
        return answer

    def _check_room(self, events: int, size: int) -> None:
        if events > self._limits.queued_events_max or size > self._limits.queued_bytes_max:
            raise BusyError(retry_after_seconds=1)
        if self._closing:
            raise StoreUnavailableError(
                "The ledger is being stopped.", way_out="Try again when it runs again."
            )

    def _dispatch_soon(self) -> None:
        # Not at once: whoever runs in this turn of the loop gets into the same group.
        self._dispatch_is_due = True
        asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Send groups while one more may be under way, and there is enough to send."""
        self._dispatch_is_due = False
        # A group behind another one may as well grow until it is as large as that one.
        while self._queue and len(self._under_way) < _GROUPS_UNDER_WAY_MAX:
            under_way = self._held_events - self._queue.events
            if self._queue.events < under_way:
                return
            half = (self._held_events + 1) // 2
            share = min(max(half, _WORTH_SPLITTING_EVENTS), self._limits.group_events_max)
            others = [waiting for group in self._under_way.values() for waiting in group]
            group, dropped = self._queue.take(share, others)
            self._let_go(dropped)
            if not group:
                return
            task = asyncio.create_task(self._run(group))
            self._under_way[task] = group

    async def _run(self, group: list[Waiting]) -> None:
        try:
            await self._settle(group)
        except BaseException as error:
            # A defect, or the loop is being torn down: nobody may be left waiting.
            for waiting in group:
                waiting.fail(error)
            if not isinstance(error, Exception):
                raise
        finally:
            task = asyncio.current_task()
            if task is not None:
                del self._under_way[task]
            self._let_go(group)
            self._dispatch_soon()

    def _let_go(self, group: Sequence[Waiting]) -> None:
        self._held_events -= sum([len(each.append.events) for each in group])
        self._held_bytes -= sum([each.size for each in group])

    async def _settle(self, group: Sequence[Waiting]) -> None:
        """Send the group, and again what of it has no result yet, until everybody has one."""
        while group:
            try:
                sent, outcomes = await self._send(group)
            except _ONES_OWN_FAULT as error:
                # Without those that have failed meanwhile: they must not be sent again.
                group = [waiting for waiting in group if not waiting.answer.done()]
                if len(group) == 1:
                    group[0].fail(translated(error))
                    return
                # One append is bad for all: halving finds it, and the others get through.
                middle = len(group) // 2
                await self._settle(group[:middle])
                group = group[middle:]
            except psycopg.Error as error:
                for waiting in group:
                    waiting.fail(_unknown(error) if waiting.in_doubt else translated(error))
                return
            else:
                group = []
                for waiting, outcome in zip(sent, outcomes, strict=True):
                    if isinstance(outcome, Appended):
                        waiting.succeed(outcome)
                    elif outcome is None:
                        group.append(waiting)
                    elif isinstance(outcome, VersionConflictError) and waiting.in_doubt:
                        await self._tell_after_doubt(waiting, outcome)
                    else:
                        waiting.fail(outcome)

    async def _send(
        self, group: Sequence[Waiting]
    ) -> tuple[Sequence[Waiting], Sequence[Outcome | None]]:
        """Send the group until the database has answered; bounded by time and by retries.

        Returns those that have not failed meanwhile, and what came of each.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.unavailable_after_seconds
        retries = 0
        while group:
            try:
                outcomes = await self._writer.append([each.append for each in group], deadline)
            except _RETRYABLE:
                retries += 1
                if retries > _RETRIES_MAX or loop.time() > deadline:
                    raise
                await asyncio.sleep(RETRY_PAUSE_SECONDS)
            except ConnectionLostError as error:
                group = [each for each in group if _can_be_sent_again(each)]
                if loop.time() > deadline:
                    _fail_unconnected(group, error)
                    group = []
            except NotConnectedError as error:
                _fail_unconnected(group, error)
                group = []
            else:
                if any(isinstance(outcome, Appended) for outcome in outcomes):
                    self._committed()
                return group, outcomes
        return (), ()

    async def _tell_after_doubt(self, waiting: Waiting, conflict: VersionConflictError) -> None:
        """After a lost reply a conflict may be our own success: compare what is stored there."""
        deadline = asyncio.get_running_loop().time() + self._limits.unavailable_after_seconds
        try:
            first = await self._writer.stored_position(waiting.append, deadline)
        except (psycopg.Error, NotConnectedError) as error:
            _fail_unconnected([waiting], error)
            return
        if first is None:
            waiting.fail(conflict)
        else:
            waiting.succeed(Appended(first, len(waiting.append.events)))


def _can_be_sent_again(waiting: Waiting) -> bool:
    """Mark an append whose reply was lost; fail it where nothing could tell what came of it.

    With a request id, asking again tells; what stands at stated versions can be read back.
    """
    append = waiting.append
    if append.request is None and any(event.version is None for event in append.events):
        waiting.fail(
            OutcomeUnknownError(
                "The connection was lost around the commit.",
                way_out="Look whether it was recorded; send a request id with every append.",
            )
        )
        return False
    waiting.in_doubt = True
    return True


def _fail_unconnected(group: Sequence[Waiting], cause: Exception) -> None:
    for waiting in group:
        waiting.fail(_unknown(cause) if waiting.in_doubt else _unavailable(cause))


def _unknown(cause: Exception) -> LedgerError:
    error = OutcomeUnknownError(
        "The connection was lost around the commit, and asking again has failed.",
        way_out="Send the same request again, with the same request id.",
    )
    error.__cause__ = cause
    return error


def _unavailable(cause: Exception) -> LedgerError:
    error = StoreUnavailableError(
        "The database does not answer.",
        way_out="Nothing was recorded; try again when the database is back.",
    )
    error.__cause__ = cause
    return error


def translated(error: psycopg.Error) -> LedgerError:
    """Return the typed error for what the database said; nothing was committed."""
    typed = _translated(error)
    typed.__cause__ = error
    return typed


def _translated(error: psycopg.Error) -> LedgerError:
    if isinstance(error, errors.DiskFull):
        return StoreFullError(
            "The database has no room left.",
            way_out="Make room on its disk; nothing of this request was recorded.",
        )
    if error.sqlstate == "GS001":
        return VersionConflictError("of the transaction")
    if error.sqlstate == "GS004":
        return AnotherTimelineError(
            "The database has failed over since this process began.",
            way_out="Start guishu anew: it goes on once it has seen that the log lost nothing.",
        )
    if isinstance(error, (*_RETRYABLE, psycopg.OperationalError)):
        return StoreUnavailableError(
            "The database did not finish in time.",
            way_out="Nothing was recorded; try again in a moment.",
        )
    return StoreRefusedError(
        f"The database refused the append ({error.sqlstate}).",
        way_out="This is a defect of the caller or of guishu; see the database's log.",
    )


class CommitterThread:
    """The committer on an event loop of its own, for callers that are no coroutines."""

    def __init__(
        self,
        conninfo: str,
        limits: CommitterLimits | None = None,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self._committer = Committer(conninfo, limits, committed)
        self._loop = asyncio.new_event_loop()
        # A daemon, so that a program that forgot to leave can end; what it waits for has failed.
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="guishu-committer", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._committer.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what was accepted, then stop."""
        self._await(self._committer.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def append(self, append: Append) -> Appended:
        """Record an append and wait for its result; errors as of ``Committer.append``."""
        if not self._thread.is_alive():
            raise RuntimeError("CommitterThread is used outside its with block.")
        return self._await(self._append(append))

    async def _append(self, append: Append) -> Appended:
        return await self._committer.append(append)

    def append_many(self, appends: Sequence[Append]) -> list[Appended | LedgerError]:
        """Record several appends at once, each with its own result, in their order."""
        if not self._thread.is_alive():
            raise RuntimeError("CommitterThread is used outside its with block.")
        return self._await(self._append_many(appends))

    async def _append_many(self, appends: Sequence[Append]) -> list[Appended | LedgerError]:
        answers: list[Appended | LedgerError] = []
        for answer in [self._committer.append(append) for append in appends]:
            try:
                answers.append(await answer)
            except LedgerError as error:
                answers.append(error)
        return answers
