"""The guards of the groups around customers, read without a lock: a guess, as in guessing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Connection

from ledger.customer import Admitted
from ledger.settled import Key, Settled
from ledger.store import guards


def with_groups(connection: Connection[Any], keys: Iterable[Key]) -> set[Key]:
    """Return ``keys`` with the guards of all that stand above the customers among them.

    So a chain of group parents costs no round of deciding each. Reads once for each step upwards,
    and not at all where no customer is among the keys.
    """
    found = set(keys)
    level = {key for key in found if key[0] == "customer"}
    while level:
        settled = Settled()
        guards.read(connection, level, settled)
        level = set()
        for name, customer in settled.customers.items():
            if not isinstance(customer, Admitted):
                continue
            if customer.children:
                found.add(("group", name))
            if customer.parent is not None and ("customer", customer.parent) not in found:
                level.add(("customer", customer.parent))
        found |= level
    return found
