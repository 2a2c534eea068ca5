"""Whether the consumers of a process go round: each asks again and again whether it shall stop.

A process with a consumer that hangs is still there, and does nothing. So whoever looks after
processes (a health check of docker-compose.yml, Kubernetes) looks at the age of a file, which is
touched while all consumers ask. A consumer that stands by, or waits for a database or Kafka that
are away, goes round as well: starting it again would mend nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from ledger.errors import LedgerError
from ledger.store.hints import Stop

# One batch, one part of a hand-over or one wait for a database that says nothing takes less. To put
# back what the log has lost, or to wait until another process has, may take more.
SILENT_SECONDS_MAX = 180.0
TOUCH_SECONDS = 5.0

_log = logging.getLogger(__name__)


class AliveFileError(LedgerError):
    """The file that shows that a process goes round cannot be made."""

    code = "alive_file"


class AskedStop(Stop):
    """A stop that knows when each thread asked for it last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._asked: dict[int | None, float] = {}

    def is_set(self) -> bool:
        """Say whether it is set."""
        self._note()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, ``timeout`` seconds at most; says whether it is set."""
        self._note()
        ended = super().wait(timeout)
        self._note()
        return ended

    def silent_seconds(self, thread: threading.Thread) -> float:
        """Return how long a thread has not asked; without end where it never has."""
        asked = self._asked.get(thread.ident)
        return float("inf") if asked is None else self._clock() - asked

    def _note(self) -> None:
        self._asked[threading.get_ident()] = self._clock()


class AliveFile:
    """The file, which is there as long as the block; ``None`` for no file at all.

    Raises AliveFileError where it cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._hanging: set[str] = set()

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._path.touch()
            except OSError as error:
                raise AliveFileError(
                    f"GUISHU_ALIVE_FILE cannot be written: {error}.",
                    way_out="Name a file in a folder that this process may write to.",
                ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def keep(self, stop: AskedStop, threads: Iterable[threading.Thread]) -> None:
        """Look at the threads every few seconds until the stop."""
        watched = tuple(threads)
        while not stop.wait(TOUCH_SECONDS):
            self.look(stop, watched)

    def look(self, stop: AskedStop, threads: Iterable[threading.Thread]) -> None:
        """Touch the file, if all threads have asked for the stop not long ago."""
        silent = {each.name for each in threads if stop.silent_seconds(each) > SILENT_SECONDS_MAX}
        for name in sorted(silent - self._hanging):
            _log.error("%s has not gone round for %.0f seconds", name, SILENT_SECONDS_MAX)
        self._hanging = silent
        if not silent:
            self._touch()

    def _touch(self) -> None:
        if self._path is None:
            return
        try:
            self._path.touch()
        except OSError as error:
            _log.error("GUISHU_ALIVE_FILE cannot be written: %s", error)
