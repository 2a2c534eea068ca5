"""What an enforcer knows of the organisation, folded from the store as far as it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from consumers.batch import BatchDecider
from ledger.deciders import Decider
from ledger.envelope import decode
from ledger.events.catalogue import Catalogue
from ledger.organisation import Organisation
from ledger.store.reading import read_stream

_FACTS_AT_ONCE = 5_000


class Facts:
    """The organisation, and what decides by it; for the parts that one process follows in turn.

    Whatever part a request belongs to, facts are read from the store up to the request's position,
    and never from a partition: so every enforcer sees the same.
    """

    def __init__(self, catalogue: Catalogue, versions: Mapping[int, Decider]) -> None:
        self._catalogue = catalogue
        self._versions = versions
        self._begin()

    def follow(self, connection: Connection[Any], upto: int) -> None:
        """Fold what was stated up to a position; raises as reading does, UnknownEventError."""
        organisation = self.organisation
        try:
            while True:
                version = organisation.version
                stored = read_stream(
                    connection, "organisation", version, upto, limit=_FACTS_AT_ONCE
                )
                organisation.apply_all(decode(self._catalogue, each) for each in stored)
                if len(stored) < _FACTS_AT_ONCE:
                    return
        except BaseException:
            # A fact that was folded half must not count as folded.
            self._begin()
            raise

    def _begin(self) -> None:
        self.organisation = Organisation()
        self.batches = BatchDecider(self._catalogue, self._versions, self.organisation)
