"""The organisation as the log has it, at hand for every request: roles, territories, who has left.

It is read again after a second at most, so that who was given a role, or has left, is treated so
everywhere soon; what is recorded is judged by the log itself all the same.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from typing import Any, Self

import psycopg
from psycopg import Connection
from psycopg_pool import PoolTimeout

from ledger.envelope import decode
from ledger.errors import StoreUnavailableError
from ledger.events.catalogue import Catalogue
from ledger.organisation import Organisation, OrganisationAt
from ledger.recording import ORGANISATION
from ledger.store.reading import read_stream

FRESH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Directory:
    """Answers from memory; for any number of threads. A context manager.

    What is about to grow old is read again beside the questions, so that they seldom wait for it.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        catalogue: Catalogue,
        *,
        fresh_seconds: float = FRESH_SECONDS,
    ) -> None:
        self._connect = connect
        self._catalogue = catalogue
        self._fresh_seconds = fresh_seconds
        self._lock = threading.Lock()
        self._organisation = Organisation()
        self._latest: OrganisationAt | None = None
        self._read_at: float | None = None
        self._failed_at = -math.inf
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="guishu-directory")
        self._is_reading_beside = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._beside.shutdown()

    def organisation(self, *, now: bool = False) -> OrganisationAt:
        """Return the organisation, at most a second old, or read ``now``.

        One that is at hand is not waited for, which the event loop relies on.
        """
        latest = self._latest
        if latest is not None and not now and self.is_fresh:
            self._read_beside()
            return latest
        asked = time.monotonic()
        with self._lock:
            if now or not self.is_fresh:
                self._read(asked)
            return self._organisation.latest

    def now(self) -> tuple[OrganisationAt, int]:
        """Return the organisation as the log has it now, and the version of its stream."""
        asked = time.monotonic()
        with self._lock:
            self._read(asked)
            return self._organisation.latest, self._organisation.version

    def outdate(self) -> None:
        """Have it read again at the next question: something was just recorded here."""
        self._read_at = None

    def _read(self, asked: float) -> None:
        if asked <= self._failed_at:
            # Who waited meanwhile need not wait for the database all over again.
            raise StoreUnavailableError(
                "The database does not answer.", way_out="Try again in a moment."
            )
        try:
            with self._connect() as connection:
                stored = read_stream(connection, ORGANISATION, self._organisation.version)
        except (psycopg.OperationalError, PoolTimeout):
            self._failed_at = time.monotonic()
            raise
        self._organisation.apply_all(decode(self._catalogue, each) for each in stored)
        self._latest = self._organisation.latest
        self._read_at = time.monotonic()

    def _read_beside(self) -> None:
        read_at = self._read_at
        if (
            read_at is not None
            and not self._is_reading_beside
            and time.monotonic() - read_at >= self._fresh_seconds / 2
        ):
            self._is_reading_beside = True
            with suppress(RuntimeError):  # it is being ended
                self._beside.submit(self._refresh)

    def _refresh(self) -> None:
        asked = time.monotonic()
        try:
            with self._lock:
                self._read(asked)
        except (psycopg.Error, PoolTimeout, StoreUnavailableError) as error:
            # Whoever asks when it is old is told.
            _log.info("the organisation could not be read again: %s", type(error).__name__)
        finally:
            self._is_reading_beside = False

    @property
    def is_fresh(self) -> bool:
        """Whether it need not be read again."""
        read_at = self._read_at
        return read_at is not None and time.monotonic() - read_at < self._fresh_seconds

    @property
    def version(self) -> int:
        """The version of the organisation's stream up to which it was read."""
        return self._organisation.version
