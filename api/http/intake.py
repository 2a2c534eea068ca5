"""The intake: requests of many callers become groups of the recording, which one thread uses.

Whoever asks while a group is being committed gets into the next one; so the more is asked at once,
the less each costs. The queue is bounded: what does not fit is refused at once, as busy.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from ledger.errors import BusyError, LedgerError, StoreUnavailableError
from ledger.recording import Asked, Recorded, Recording

T = TypeVar("T")
WAITING_MAX = 20_000
GROUP_MAX = 500


@dataclass(slots=True)
class _Waiting:
    """Several requests of one caller, or some other work with the recording."""

    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    asked: Sequence[Asked] = ()
    work: Callable[[Recording], Any] | None = None

    @property
    def size(self) -> int:
        return len(self.asked) or 1


class Intake:
    """Records for coroutines; a context manager. ``recording`` belongs to it alone."""

    def __init__(self, recording: Recording, *, waiting_max: int = WAITING_MAX) -> None:
        self._recording = recording
        self._waiting_max = waiting_max
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="guishu-intake", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what was taken in, then stop."""
        with self._lock:
            self._closing = True
        self._queue.put(None)
        self._thread.join()

    @property
    def waiting(self) -> int:
        """How many requests wait now, those being recorded included."""
        return self._held

    async def record(self, asked: Asked) -> Recorded:
        """Record one request; raises what the recording raises, and BusyError."""
        (result,) = await self.record_many([asked])
        if isinstance(result, LedgerError):
            raise result
        return result

    async def record_many(self, asked: Sequence[Asked]) -> list[Recorded | LedgerError]:
        """Record several requests of one caller, each with its own result, in their order."""
        answer = await self._put(asked=asked)
        return cast("list[Recorded | LedgerError]", answer)

    async def run(self, work: Callable[[Recording], T]) -> T:
        """Do something else with the recording, such as stating facts."""
        return cast(T, await self._put(work=work))

    async def _put(self, **what: Any) -> Any:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(loop, loop.create_future(), **what)
        with self._lock:
            if self._closing:
                raise StoreUnavailableError(
                    "The ledger is being stopped.", way_out="Try again when it runs again."
                )
            if self._held + waiting.size > self._waiting_max:
                raise BusyError(retry_after_seconds=1)
            self._held += waiting.size
            self._queue.put(waiting)
        # What was taken in is recorded, whether or not the caller still listens.
        return await asyncio.shield(waiting.answer)

    # --- the thread ----------------------------------------------------------------------------

    def _work(self) -> None:
        is_last = False
        while not is_last:
            group, is_last = self._next_group()
            requests = [each for each in group if each.work is None]
            if requests:
                self._record(requests)
            for each in group:
                if each.work is not None:
                    self._settle(each, *_outcome_of(each.work, self._recording))
            with self._lock:
                self._held -= sum(each.size for each in group)

    def _next_group(self) -> tuple[list[_Waiting], bool]:
        """Return what waits, up to the next other work, and whether it is the last."""
        group: list[_Waiting] = []
        size = 0
        while size < GROUP_MAX:
            try:
                waiting = self._queue.get(block=not group)
            except queue.Empty:
                break
            if waiting is None:
                return group, True
            group.append(waiting)
            size += waiting.size
            if waiting.work is not None:
                break
        return group, False

    def _record(self, group: Sequence[_Waiting]) -> None:
        asked = [each for waiting in group for each in waiting.asked]
        results, error = _outcome_of(
            lambda recording: recording.record_many(asked), self._recording
        )
        start = 0
        for waiting in group:
            end = start + len(waiting.asked)
            self._settle(waiting, results and results[start:end], error)
            start = end

    def _settle(self, waiting: _Waiting, result: Any, error: BaseException | None) -> None:
        def tell() -> None:
            if waiting.answer.done():
                return
            if error is None:
                waiting.answer.set_result(result)
            else:
                waiting.answer.set_exception(error)

        try:
            waiting.loop.call_soon_threadsafe(tell)
        except RuntimeError:
            # The loop has been closed: nobody is there any more to be told.
            return


def _outcome_of(
    work: Callable[[Recording], T], recording: Recording
) -> tuple[T | None, BaseException | None]:
    try:
        return work(recording), None
    except Exception as error:
        # Whoever asked is told; the others must go on.
        return None, error
