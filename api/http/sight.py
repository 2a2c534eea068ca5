"""What a caller may see of a customer: personal fields only within what is the caller's.

Whose a customer is, everybody sees: that is what is looked up before a call. Contacts, notes,
deal values and an individual's names are seen as far as ``personal:read`` reaches: at customers
that the caller owns, collaborates or stands in at, or that lie in the caller's territories. What is
not seen is None, or left out. Whoever sees personal fields is noted before they are sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from psycopg import Connection

from api.http.callers import Caller
from api.http.permissions import Permission, Reach
from ledger.store.arrays import text_array
from projections.customers import ALL
from projections.whois import whose

# At which of a page's customers the caller works now, beside the owner or for one who has left.
_WORKS = """
SELECT customer FROM projections.collaborations
WHERE customer = ANY(%(customers)b) AND person = %(person)s AND status = 'standing'
  AND (since IS NULL OR since <= now()) AND (until IS NULL OR until > now())
UNION
SELECT customer FROM projections.stand_ins
WHERE customer = ANY(%(customers)b) AND person = %(person)s AND ended IS NULL
  AND since <= now() AND until > now()
"""
_NOTE = """
INSERT INTO api.personal_access (caller, person, route, subjects, fields)
VALUES (%s, %s, %s, %s, %s)
"""


class Placed(Protocol):
    """A customer, with whose it is and where it lies."""

    @property
    def customer(self) -> str: ...
    @property
    def owner(self) -> str | None: ...
    @property
    def territory(self) -> str | None: ...


def seen(
    connection: Connection[Any], caller: Caller, customers: Sequence[Placed]
) -> frozenset[str]:
    """Return those of the customers whose personal fields the caller may see."""
    reach = caller.rights.get(Permission.READ_PERSONAL, Reach.NOWHERE)
    bound = [each for each in customers if caller.within(each.territory)]
    if reach is Reach.EVERYWHERE:
        return frozenset(each.customer for each in bound)
    if reach is Reach.NOWHERE or caller.person is None:
        return frozenset()
    found = {each.customer for each in bound if _is_near(caller, each, reach)}
    left = [each.customer for each in bound if each.customer not in found]
    return frozenset(found | _works_at(connection, caller.person, left))


def searchable(caller: Caller) -> str | None:
    """Return by whose customers' personal fields the caller may feel about: ALL, own, nobody's."""
    reach = caller.rights.get(Permission.READ_PERSONAL, Reach.NOWHERE)
    if reach is Reach.NOWHERE or caller.territories is not None:
        return None
    return ALL if reach is Reach.EVERYWHERE else caller.person


@dataclass(frozen=True, slots=True)
class Sight:
    """What a caller may see of acts at some customers: of ``whole`` of them all, else own acts.

    ``bound`` are those where own acts are seen: within the territories of the token.
    """

    whole: frozenset[str]
    bound: frozenset[str]
    person: str | None

    def shows(self, customer: str, *people: str | None) -> bool:
        """Say whether personal fields of an act of ``people`` at a customer are shown."""
        if customer in self.whole:
            return True
        return customer in self.bound and self.person is not None and self.person in people


@dataclass(frozen=True, slots=True)
class _Nowhere:
    """A customer that was never admitted: nobody's, and in no territory."""

    customer: str
    owner: str | None = None
    territory: str | None = None


def sight_of(connection: Connection[Any], caller: Caller, customers: Iterable[str]) -> Sight:
    """Return what the caller may see of acts at these customers."""
    named = sorted(set(customers))
    owned = whose(connection, named)
    placed: list[Placed] = [owned.get(each) or _Nowhere(each) for each in named]
    bound: frozenset[str] = frozenset()
    if caller.may(Permission.READ_PERSONAL):
        bound = frozenset(each.customer for each in placed if caller.within(each.territory))
    return Sight(seen(connection, caller, placed), bound, caller.person)


class Employed(Protocol):
    """A person, with where they are at home."""

    @property
    def person(self) -> str: ...
    @property
    def territory(self) -> str | None: ...


def seen_people(caller: Caller, people: Iterable[Employed]) -> frozenset[str]:
    """Return those of the people whose phone and e-mail the caller may see: always their own."""
    reach = caller.rights.get(Permission.READ_PERSONAL, Reach.NOWHERE)
    return frozenset(
        each.person for each in people if _is_seen(caller, each.person, each.territory, reach)
    )


def _is_seen(caller: Caller, person: str, territory: str | None, reach: Reach) -> bool:
    if person == caller.person:
        return not caller.on_behalf or reach > Reach.NOWHERE
    if not caller.within(territory):
        return False
    if reach is Reach.MANAGED and caller.person is not None:
        return caller.organisation.manages(caller.person, territory)
    return reach is Reach.EVERYWHERE


def _is_near(caller: Caller, each: Placed, reach: Reach) -> bool:
    person, organisation = caller.person, caller.organisation
    if person is None:
        return False
    if each.owner == person:
        return True
    if reach < Reach.MANAGED:
        return False
    owner = organisation.person(each.owner) if each.owner else None
    places = (each.territory, owner.territory if owner else None)
    return any(organisation.manages(person, place) for place in places)


def _works_at(connection: Connection[Any], person: str, customers: Sequence[str]) -> set[str]:
    if not customers:
        return set()
    given = {"customers": text_array(customers), "person": person}
    rows = connection.execute(_WORKS, given)
    return {customer for (customer,) in rows}


def note_access(
    connection: Connection[Any],
    caller: Caller,
    route: str,
    subjects: Iterable[str],
    fields: Iterable[str],
) -> None:
    """Note that the caller sees personal fields of these subjects; nothing where there are none."""
    named, shown = sorted(set(subjects)), sorted(set(fields))
    if named and shown:
        connection.execute(_NOTE, (caller.name, caller.person, route, named, shown))
