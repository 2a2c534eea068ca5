"""Finding many people or customers at once, by whole names or numbers: a page of them a query.

Names and numbers come folded as ``projections.wording`` folds them. A refused registration is found
by none of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ledger.store.arrays import text_array

# Of one name or number so many are looked at: whoever has more namesakes is not told apart.
NAMESAKES_MAX = 100

# Right after a large import the server knows next to nothing of the tables, and would rather read
# the whole of them for each name.
_LOOK_UP = """
SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
       set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)
"""

_PEOPLE = """
SELECT w.folded, p.person, p.name
FROM unnest(%(folded)b::text[]) AS w(folded)
CROSS JOIN LATERAL (
    SELECT person, name FROM projections.people WHERE name_folded = w.folded
    ORDER BY person LIMIT %(limit)s
) p
"""
_CUSTOMERS = """
SELECT w.folded, f.customer, f.kind, f.name
FROM unnest(%(folded)b::text[]) AS w(folded)
CROSS JOIN LATERAL (
    SELECT c.customer, c.kind, n.name
    FROM projections.customer_names n JOIN projections.customers c ON c.customer = n.customer
    WHERE n.folded = w.folded AND c.state <> 'refused'
    ORDER BY c.customer LIMIT %(limit)s
) f
"""
_BY_IDENTIFIER = """
SELECT w.folded, f.system, f.customer
FROM unnest(%(folded)b::text[]) AS w(folded)
CROSS JOIN LATERAL (
    SELECT i.system, c.customer
    FROM projections.customer_identifiers i JOIN projections.customers c ON c.customer = i.customer
    WHERE i.folded = w.folded AND c.state <> 'refused'
    ORDER BY c.customer LIMIT %(limit)s
) f
"""
_BY_FOREIGN_ID = """
SELECT f.value, f.customer
FROM unnest(%(folded)b::text[]) AS w(folded)
CROSS JOIN LATERAL (
    SELECT i.value, c.customer
    FROM projections.customer_foreign_ids i JOIN projections.customers c ON c.customer = i.customer
    WHERE i.folded = w.folded AND i.system = %(system)s AND c.state <> 'refused'
    ORDER BY c.customer LIMIT %(limit)s
) f
"""
_BY_ID = """
SELECT customer FROM projections.customers WHERE customer = ANY(%b) AND state <> 'refused'
"""
_IDENTIFIERS = """
SELECT customer, system, folded FROM projections.customer_identifiers
WHERE customer = ANY(%b) AND folded IS NOT NULL
"""
_FOREIGN_IDS = """
SELECT customer, value FROM projections.customer_foreign_ids
WHERE customer = ANY(%b) AND system = %s
"""


@dataclass(frozen=True, slots=True)
class Namesake:
    """Somebody of the name ``folded``; ``kind`` is ``organisation``, ``individual`` or "person"."""

    folded: str
    id: str
    kind: str
    name: str


@contextmanager
def looking_up(connection: Connection[Any]) -> Iterator[None]:
    """Have every statement of the block planned as look-ups of its few rows, in one transaction."""
    with connection.transaction():
        connection.execute(_LOOK_UP)
        yield


def people_named(connection: Connection[Any], folded: Sequence[str]) -> list[Namesake]:
    """Return the people of these names, those who left among them."""
    parameters = {"folded": text_array(folded), "limit": NAMESAKES_MAX}
    rows = connection.execute(_PEOPLE, parameters, binary=True)
    return [Namesake(name, person, "person", whole) for name, person, whole in rows]


def customers_named(connection: Connection[Any], folded: Sequence[str]) -> list[Namesake]:
    """Return the customers of these names."""
    parameters = {"folded": text_array(folded), "limit": NAMESAKES_MAX}
    return [Namesake(*row) for row in connection.execute(_CUSTOMERS, parameters, binary=True)]


def customers_identified(
    connection: Connection[Any], folded: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return (folded value, system, customer) of these identifiers, whatever their system."""
    parameters = {"folded": text_array(folded), "limit": NAMESAKES_MAX}
    return connection.execute(_BY_IDENTIFIER, parameters, binary=True).fetchall()


def customers_known_as(
    connection: Connection[Any], system: str, folded: Sequence[str]
) -> list[tuple[str, str]]:
    """Return (value as it stands, customer) of these foreign ids of one system."""
    parameters = {"folded": text_array(folded), "system": system, "limit": NAMESAKES_MAX}
    return connection.execute(_BY_FOREIGN_ID, parameters, binary=True).fetchall()


def customers_that_stand(connection: Connection[Any], customers: Sequence[str]) -> set[str]:
    """Return those of these ids that are ids of customers."""
    rows = connection.execute(_BY_ID, (text_array(customers),), binary=True)
    return {customer for (customer,) in rows}


def identifiers_of(
    connection: Connection[Any], customers: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Return (customer, system, folded value) of all identifiers of these customers."""
    return connection.execute(_IDENTIFIERS, (text_array(customers),), binary=True).fetchall()


def foreign_ids_of(
    connection: Connection[Any], customers: Sequence[str], system: str
) -> list[tuple[str, str]]:
    """Return (customer, value) of all foreign ids of one system of these customers."""
    found = connection.execute(_FOREIGN_IDS, (text_array(customers), system), binary=True)
    return found.fetchall()
