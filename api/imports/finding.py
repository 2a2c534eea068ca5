"""Whom of a plan the ledger holds already: by own ids, else by numbers, else by whole names.

What an import made before is found by the ids that follow from its rows, and whom it found before
by the requests of its rows; these come first, so that a second import stays what the first was.
Everything else is looked up in the read models, a page at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from psycopg import Connection

from api.imports.mapping import Mapping
from api.imports.naming import RowNames
from api.imports.remembering import Meant, Memory
from api.imports.staging import Role
from api.imports.values import id_key, match_key
from ledger.events.catalogue import Catalogue
from ledger.organisation import OrganisationAt
from ledger.sealing import Vault
from ledger.store.arrays import text_array
from projections import finding
from projections.wording import folded, number_folded

_REGISTERED = """
SELECT s.stream FROM unnest(%b::text[]) AS s(stream)
WHERE EXISTS (SELECT FROM ledger.events e WHERE e.stream = s.stream)
"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom to look for.

    ``ref`` is the identity within the plan. ``name`` is None where only an id is known,
    ``foreign_id`` where none is. ``identifiers`` are (system, value), ``kind`` is what the files
    say of a customer's, None where they say nothing. ``meant`` is whom an earlier import of the
    same mapping meant; that holds where it has or had the name or number that is wanted.
    """

    ref: str
    name: str | None
    foreign_id: str | None = None
    identifiers: tuple[tuple[str, str], ...] = ()
    kind: str | None = None
    meant: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """Who was found.

    ``own`` is the id where an earlier import of the same mapping made it. Else ``matches`` are the
    ids of all who may be meant, found by ``field``: ``name``, ``id``, or one such as
    ``identifiers.uscc``.
    """

    own: str | None = None
    matches: tuple[str, ...] = ()
    field: str = "name"


class Directory(Protocol):
    """Knows whom the ledger holds."""

    def find(self, role: Role, wanted: Sequence[Wanted]) -> list[Found]:
        """Return for each wanted who was found; a page at a time."""
        ...

    @property
    def has_memory(self) -> bool:
        """Say whether there was an import under this mapping's name before."""
        ...

    def meant_before(self, keys: Sequence[str]) -> dict[str, Meant]:
        """Return whom the actions of these keys meant when they were recorded."""
        ...


@dataclass(slots=True)
class _Candidates:
    """Ids by what they are looked up by."""

    by: dict[Any, list[str]] = field(default_factory=dict)

    def put(self, key: Any, found: str) -> None:
        known = self.by.setdefault(key, [])
        if found not in known:
            known.append(found)

    def of(self, keys: Iterable[Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(each for key in keys for each in self.by.get(key, ())))


class LedgerDirectory:
    """Looks people up in the organisation and customers in the read models, as they are now.

    ``now`` (UTC) is when somebody may have left.
    """

    def __init__(
        self,
        organisation: OrganisationAt,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        mapping: Mapping,
        catalogue: Catalogue,
        vault: Vault,
        now: datetime,
    ) -> None:
        self._organisation = organisation
        self._connect = connect
        self._names = RowNames(mapping.name, vault.request_digest)
        self._memory = Memory(self._names, catalogue, vault)
        self._has_memory = any(each.name == mapping.name for each in organisation.imports())
        self._system = system = mapping.id_system
        self._today = organisation.day(now)
        self._territories = _Candidates()
        for territory in organisation.territories():
            self._territories.put(match_key(territory.name), territory.territory)
        self._people = _Candidates()
        for person in organisation.people():
            for each in person.foreign_ids:
                if each.system == system:
                    self._people.put(id_key(each.value), person.person)

    @property
    def has_memory(self) -> bool:
        """Say whether there was an import under this mapping's name before."""
        return self._has_memory

    def meant_before(self, keys: Sequence[str]) -> dict[str, Meant]:
        """Return whom the actions of these keys meant when they were recorded."""
        with self._connect() as connection, finding.looking_up(connection):
            return self._memory.meant(connection, keys)

    def find(self, role: Role, wanted: Sequence[Wanted]) -> list[Found]:
        """Return for each wanted who was found."""
        make = {
            "person": self._names.person,
            "territory": self._names.territory,
            "customer": self._names.customer,
        }[role]
        ids = [make(each.ref) for each in wanted]
        with self._connect() as connection, finding.looking_up(connection):
            own = self._own(connection, role, ids)
            others = [each for each, its_id in zip(wanted, ids, strict=True) if its_id not in own]
            if role == "person":
                found = self._find_people(connection, others)
            elif role == "territory":
                found = [self._find_territory(each) for each in others]
            else:
                found = _CustomerSearch(connection, self._system, others, self._memory).find()
        left = iter(found)
        return [Found(own=each) if each in own else next(left) for each in ids]

    def _own(self, connection: Connection[Any], role: Role, ids: Sequence[str]) -> set[str]:
        if role == "person":
            return {each for each in ids if self._organisation.person(each) is not None}
        if role == "territory":
            return {each for each in ids if self._organisation.territory(each) is not None}
        # The log, not a read model: what was recorded just now counts as well.
        streams = text_array([f"customer-{each}" for each in ids])
        rows = connection.execute(_REGISTERED, (streams,), binary=True)
        return {stream.removeprefix("customer-") for (stream,) in rows}

    def _find_territory(self, wanted: Wanted) -> Found:
        namesakes = self._territories.of([match_key(wanted.name or "")])
        meant = _meant(wanted, namesakes, {})
        return Found(matches=namesakes if meant is None else (meant,))

    def _find_people(self, connection: Connection[Any], wanted: Sequence[Wanted]) -> list[Found]:
        named = _Candidates()
        for each in finding.people_named(connection, _folded_names(wanted)):
            named.put(match_key(each.name), each.id)
        meant = sorted({each.meant for each in wanted if each.meant is not None})
        first_names = self._memory.first_names_of_people(connection, meant) if meant else {}
        return [self._find_person(each, named, first_names) for each in wanted]

    def _find_person(
        self, wanted: Wanted, named: _Candidates, first_names: dict[str, str]
    ) -> Found:
        by_id = self._people_known_as(wanted.foreign_id)
        namesakes = named.of([match_key(wanted.name)]) if wanted.name is not None else ()
        meant = _meant(wanted, (*by_id, *namesakes), first_names)
        if meant is not None:
            return Found(matches=(meant,))
        by_id = tuple(each for each in by_id if self._is_there(each))
        if by_id:
            return Found(matches=by_id, field="id")
        # Whoever has another id in that system is somebody else of the same name.
        return Found(
            matches=tuple(
                each
                for each in namesakes
                if self._is_there(each)
                and (wanted.foreign_id is None or not self._has_foreign_id(each))
            )
        )

    def _people_known_as(self, foreign_id: str | None) -> tuple[str, ...]:
        if foreign_id is None:
            return ()
        # The ledger's own id serves where no other tells two people apart.
        return tuple(dict.fromkeys((*self._people.of([foreign_id]), foreign_id)))

    def _is_there(self, person_id: str) -> bool:
        person = self._organisation.person(person_id)
        return person is not None and not person.has_left(self._today)

    def _has_foreign_id(self, person_id: str) -> bool:
        person = self._organisation.person(person_id)
        return person is not None and any(
            each.system == self._system for each in person.foreign_ids
        )


class _CustomerSearch:
    """Looks for one page of customers."""

    def __init__(
        self,
        connection: Connection[Any],
        system: str,
        wanted: Sequence[Wanted],
        memory: Memory,
    ) -> None:
        self._connection = connection
        self._system = system
        self._wanted = wanted
        self._memory = memory
        self._first_names: dict[str, str] = {}
        self._identified = _Candidates()
        self._known_as = _Candidates()
        self._named = _Candidates()
        self._kinds: dict[str, str] = {}
        self._identifiers: dict[tuple[str, str], str] = {}
        self._with_foreign_id: set[str] = set()

    def find(self) -> list[Found]:
        self._load_numbers()
        self._load_names()
        meant = sorted({each.meant for each in self._wanted if each.meant is not None})
        if meant:
            self._first_names = self._memory.first_names_of_customers(self._connection, meant)
        return [self._find(each) for each in self._wanted]

    def _load_numbers(self) -> None:
        values = {number_folded(value) for each in self._wanted for _, value in each.identifiers}
        if values:
            rows = finding.customers_identified(self._connection, sorted(values))
            for value, system, customer in rows:
                self._identified.put((system, value), customer)
        ids = {each.foreign_id for each in self._wanted if each.foreign_id is not None}
        if ids:
            values = {number_folded(each) for each in ids}
            rows_of_ids = finding.customers_known_as(self._connection, self._system, sorted(values))
            for value, customer in rows_of_ids:
                self._known_as.put(id_key(value), customer)
            # The ledger's own id serves where no other tells two customers apart.
            for customer in finding.customers_that_stand(self._connection, sorted(ids)):
                self._known_as.put(customer, customer)

    def _load_names(self) -> None:
        namesakes = finding.customers_named(self._connection, _folded_names(self._wanted))
        for each in namesakes:
            self._named.put(match_key(each.name), each.id)
            self._kinds[each.id] = each.kind
        ids = sorted(self._kinds)
        if not ids:
            return
        for customer, system, value in finding.identifiers_of(self._connection, ids):
            self._identifiers[customer, system] = value
        foreign = finding.foreign_ids_of(self._connection, ids, self._system)
        self._with_foreign_id = {customer for customer, _ in foreign}

    def _find(self, wanted: Wanted) -> Found:
        by_number: dict[str, str] = {}
        for system, value in wanted.identifiers:
            for customer in self._identified.of([(system, number_folded(value))]):
                by_number.setdefault(customer, f"identifiers.{system}")
        for customer in self._known_as.of([wanted.foreign_id]):
            by_number.setdefault(customer, "id")
        namesakes = self._named.of([match_key(wanted.name)]) if wanted.name is not None else ()
        meant = _meant(wanted, (*by_number, *namesakes), self._first_names)
        if meant is not None:
            return Found(matches=(meant,))
        if by_number:
            return Found(matches=tuple(by_number), field=next(iter(by_number.values())))
        return Found(matches=tuple(each for each in namesakes if self._may_be(each, wanted)))

    def _may_be(self, customer: str, wanted: Wanted) -> bool:
        """Say whether nothing but the name tells a namesake and the wanted customer apart."""
        if wanted.kind is not None and wanted.kind != self._kinds[customer]:
            return False
        if wanted.foreign_id is not None and customer in self._with_foreign_id:
            return False
        return all(
            self._identifiers.get((customer, system), number_folded(value)) == number_folded(value)
            for system, value in wanted.identifiers
        )


def _meant(wanted: Wanted, candidates: Sequence[str], first_names: dict[str, str]) -> str | None:
    """Return whom an earlier import meant, unless the row says somebody else by now."""
    if wanted.meant is None:
        return None
    first = first_names.get(wanted.meant)
    renamed = first is not None and match_key(first) == match_key(wanted.name or "")
    return wanted.meant if renamed or wanted.meant in candidates else None


def _folded_names(wanted: Sequence[Wanted]) -> list[str]:
    """Return the names as the read models fold them, with and without what cannot be seen."""
    names = (each.name for each in wanted if each.name is not None)
    return sorted({form for name in names for form in (folded(name), match_key(name))})
