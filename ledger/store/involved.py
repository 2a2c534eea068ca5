"""Who holds something at which customer: what a hand-over goes through, found by the person.

The rows are written with the guards, and read under the guard of the person's holdings, which
everybody locks who changes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import Connection

from ledger.handing_over import PART_CUSTOMERS, people_at
from ledger.settled import Settled
from ledger.store.arrays import text_array

Pair = tuple[str, str]
"""A person and a customer."""

_BEHIND = """
SELECT customer FROM ledger.involved WHERE person = %s AND customer > %s
ORDER BY customer LIMIT %s
"""
_REMOVE = """
DELETE FROM ledger.involved i USING unnest(%b::text[], %b::text[]) AS a(person, customer)
WHERE i.person = a.person AND i.customer = a.customer
"""
_ADD = """
INSERT INTO ledger.involved (person, customer)
SELECT a.person, a.customer FROM unnest(%b::text[], %b::text[]) AS a(person, customer)
"""
_COPY = "COPY ledger.involved (person, customer) FROM STDIN (FORMAT BINARY)"
_PAGE = """
SELECT person, customer FROM ledger.involved WHERE (person, customer) > (%s, %s)
ORDER BY person, customer LIMIT %s
"""
_AMONG = """
SELECT a.person, a.customer FROM unnest(%b::text[], %b::text[]) AS a(person, customer)
WHERE EXISTS (SELECT FROM ledger.involved i
              WHERE i.person = a.person AND i.customer = a.customer)
"""


def customers_behind(connection: Connection[Any], person: str, last: str) -> tuple[str, ...]:
    """Return where a person holds something behind a customer, one more than a part."""
    limit = PART_CUSTOMERS + 1
    rows = connection.execute(_BEHIND, (person, last, limit), prepare=True).fetchall()
    return tuple(customer for (customer,) in rows)


def write(connection: Connection[Any], settled: Settled) -> None:
    """Write what decisions changed."""
    removed: list[Pair] = []
    added: list[Pair] = []
    for customer, before in settled.involved_before.items():
        after = people_at(settled.customers[customer])
        removed += ((person, customer) for person in before - after)
        added += ((person, customer) for person in after - before)
    if removed:
        connection.execute(_REMOVE, _columns(removed), prepare=True, binary=True)
    if added:
        connection.execute(_ADD, _columns(added), prepare=True, binary=True)


def _columns(pairs: list[Pair]) -> tuple[Any, Any]:
    pairs.sort()
    return text_array([person for person, _ in pairs]), text_array([name for _, name in pairs])


def pairs_of(settled: Settled) -> list[Pair]:
    """Return all that there should be, in order; the state is complete."""
    return sorted(
        (person, customer)
        for person, customers in settled.involved.items()
        for customer in customers
    )


def rewrite(connection: Connection[Any], settled: Settled) -> None:
    """Write all again, from a state that is complete."""
    connection.execute("DELETE FROM ledger.involved")
    with connection.cursor().copy(_COPY) as copy:
        copy.set_types(["text", "text"])
        for pair in pairs_of(settled):
            copy.write_row(pair)


def pages(connection: Connection[Any], size: int) -> Iterator[list[Pair]]:
    """Yield all that there is, in order; each page is read by a statement of its own."""
    behind: Pair = ("", "")
    while page := connection.execute(_PAGE, (*behind, size), prepare=True).fetchall():
        yield page
        behind = page[-1]


def among(connection: Connection[Any], pairs: list[Pair]) -> set[Pair]:
    """Return those of the pairs that there are."""
    if not pairs:
        return set()
    return set(connection.execute(_AMONG, _columns(list(pairs)), binary=True).fetchall())
