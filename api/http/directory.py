"""The organisation as the log has it, at hand for every request: roles, territories, who has left.

It is read again after a second at most, so that who was given a role, or has left, is treated so
everywhere soon; what is recorded is judged by the log itself all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from psycopg import Connection

from ledger.envelope import decode
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
        self._read_at: float | None = None

    def organisation(self, *, now: bool = False) -> OrganisationAt:
        """Return the organisation, at most a second old, or read ``now``."""
        with self._lock:
            if now or not self.is_fresh:
                self._read()
            return self._organisation.latest

    def now(self) -> tuple[OrganisationAt, int]:
        """Return the organisation as the log has it now, and the version of its stream."""
        with self._lock:
            self._read()
            return self._organisation.latest, self._organisation.version

    def outdate(self) -> None:
        """Have it read again at the next question: something was just recorded here."""
        self._read_at = None

    def _read(self) -> None:
        with self._connect() as connection:
            stored = read_stream(connection, ORGANISATION, self._organisation.version)
        self._organisation.apply_all(decode(self._catalogue, each) for each in stored)
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
