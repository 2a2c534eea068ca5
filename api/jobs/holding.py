"""How a job's work and its worker speak: what is done by now, and whether it is to go on."""

from __future__ import annotations

import threading


class Cancelled(Exception):  # noqa: N818 - it is no error
    """The job is to end here."""


class Stopped(Exception):  # noqa: N818
    """The process ends; another goes on with the job."""


class Lost(Exception):  # noqa: N818
    """The lease has ended, and another worker has the job."""


class Holding:
    """A job that ``worker`` holds. ``cancelling`` and ``lost`` are set by another thread."""

    def __init__(self, worker: str, cancelling: bool, stop: threading.Event) -> None:
        self.worker = worker
        self.cancelling = cancelling
        self.lost = False
        self.progress: tuple[str, int, int] = ("waiting", 0, 0)
        self._stop = stop

    def tell(self, words: str, done: int, total: int) -> None:
        """Say how far the work is; raises Lost, Cancelled or Stopped where it is not to go on."""
        self.progress = (words, done, max(done, total))
        self.check()

    def check(self) -> None:
        """Raise Lost, Cancelled or Stopped where the work is not to go on."""
        if self.lost:
            raise Lost
        if self.cancelling:
            raise Cancelled
        if self._stop.is_set():
            raise Stopped
