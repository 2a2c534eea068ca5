"""Whom the rows of earlier imports under the same mapping meant, as the log has it.

What an import found in the ledger, rather than made, has no id that follows from its row. Whoever
was meant then may have left since, got a namesake, or another name; the requests that were recorded
of the rows still say who it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from api.imports.naming import RowNames
from ledger.envelope import decode
from ledger.events import requests
from ledger.events.catalogue import Catalogue
from ledger.sealing import Vault
from ledger.store.arrays import text_array
from ledger.store.reading import read_at, read_requests

_RECORDED = """
SELECT request_id, first_position FROM ledger.request_ids
WHERE caller = %s AND request_id = ANY(%b)
"""
_JOINED = "SELECT joined FROM projections.people WHERE person = ANY(%b)"
_REGISTERED = """
SELECT e.position FROM unnest(%b::text[]) AS s(stream)
CROSS JOIN LATERAL (SELECT position FROM ledger.events e WHERE e.stream = s.stream
                    ORDER BY version LIMIT 1) e
"""


@dataclass(frozen=True, slots=True)
class Meant:
    """The ids that a request of a row holds: of an act the first two, of a registration the others.

    The territory is the one named explicitly.
    """

    person: str | None = None
    customer: str | None = None
    parent: str | None = None
    territory: str | None = None


class Memory:
    """Reads what was recorded of a mapping's rows."""

    def __init__(self, names: RowNames, catalogue: Catalogue, vault: Vault) -> None:
        self._names = names
        self._catalogue = catalogue
        self._vault = vault

    def meant(self, connection: Connection[Any], keys: Sequence[str]) -> dict[str, Meant]:
        """Return whom the actions of these keys meant, where they were recorded."""
        ids = {self._names.request_id(key): key for key in keys}
        rows = connection.execute(
            _RECORDED, (self._names.caller, text_array(list(ids))), binary=True
        ).fetchall()
        events = read_requests(connection, self._catalogue, [position for _, position in rows])
        found: dict[str, Meant] = {}
        for request_id, position in rows:
            event = events[position]
            if isinstance(event.data, requests.RegistrationRequested):
                meant = Meant(parent=event.data.parent, territory=event.data.territory)
            else:
                meant = Meant(person=event.actor, customer=event.data.customer)
            found[ids[request_id]] = meant
        return found

    def first_names_of_people(
        self, connection: Connection[Any], people: Sequence[str]
    ) -> dict[str, str]:
        """Return under which names people joined; erased ones are missing."""
        rows = connection.execute(_JOINED, (text_array(people),), binary=True)
        return self._names_at(connection, [position for (position,) in rows], "person")

    def first_names_of_customers(
        self, connection: Connection[Any], customers: Sequence[str]
    ) -> dict[str, str]:
        """Return under which names customers were registered; erased ones are missing."""
        streams = text_array([f"customer-{each}" for each in customers])
        rows = connection.execute(_REGISTERED, (streams,), binary=True)
        return self._names_at(connection, [position for (position,) in rows], "customer")

    def _names_at(
        self, connection: Connection[Any], positions: Sequence[int], whose: str
    ) -> dict[str, str]:
        names: dict[str, str] = {}
        for stored in read_at(connection, positions):
            event = decode(self._catalogue, stored)
            name = self._vault.open_text(event, "name", event.data.name)
            if name is not None:
                names[getattr(event.data, whose)] = name
        return names
