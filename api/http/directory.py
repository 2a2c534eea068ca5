"""The organisation as the log has it, at hand for every request: roles, territories, who has left.

It is read again after a second at most, so that who was given a role, or has left, is treated so
everywhere soon; what is recorded is judged by the log itself all the same.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

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


class Directory:
    """Answers from memory; for any number of threads."""

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

    def organisation(self, *, now: bool = False) -> OrganisationAt:
        """Return the organisation, at most a second old, or read ``now``.

        One that is at hand is not waited for, which the event loop relies on.
        """
        latest = self._latest
        if latest is not None and not now and self.is_fresh:
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

    @property
    def is_fresh(self) -> bool:
        """Whether it need not be read again."""
        read_at = self._read_at
        return read_at is not None and time.monotonic() - read_at < self._fresh_seconds

    @property
    def version(self) -> int:
        """The version of the organisation's stream up to which it was read."""
        return self._organisation.version
