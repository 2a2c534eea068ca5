"""The organisation's facts for projections that judge by them, followed in the log itself."""

from __future__ import annotations

import threading
from typing import Any

from psycopg import Connection

from ledger.envelope import decode
from ledger.events.catalogue import catalogue
from ledger.organisation import Organisation
from ledger.store.reading import read_stream

ORGANISATION = "organisation"
_FACTS_AT_ONCE = 5_000


class Facts:
    """The organisation as the log has it; may be shared by threads.

    What was read stays true: ``upto`` reads only what is new, and ``Organisation.at`` answers for
    any position below.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._organisation = Organisation()

    def upto(self, connection: Connection[Any], position: int) -> Organisation:
        """Return the organisation with at least all facts up to ``position``."""
        with self._lock:
            organisation = self._organisation
            try:
                while True:
                    stored = read_stream(
                        connection, ORGANISATION, organisation.version, position, _FACTS_AT_ONCE
                    )
                    organisation.apply_all(decode(catalogue(), each) for each in stored)
                    if len(stored) < _FACTS_AT_ONCE:
                        return organisation
            except BaseException:
                # A fact that was folded half must not count as folded.
                self._organisation = Organisation()
                raise
