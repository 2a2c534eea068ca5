"""The enforcer's guards made again from the log, and compared with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from psycopg import Connection

from consumers import parking, progress
from consumers.enforcer import CONSUMER
from ledger.customer import Unregistered
from ledger.envelope import StoredEvent
from ledger.events.catalogue import Catalogue
from ledger.folding import Folding, fold_log
from ledger.settled import Key, Settled, subject
from ledger.store import arrays, guards, involved
from ledger.store.reading import head, read_at

PAGE_GUARDS = 5_000
# So many differences say enough; to find all of a lost table would need all of it in memory.
DIFFERENCES_MAX = 1_000

# The enforcer's every transaction begins with one of these rows: there is one for each partition.
_LOCK = """
SELECT position FROM ledger.consumer_progress WHERE consumer = %s ORDER BY partition FOR UPDATE
"""
_PROGRESS = """
UPDATE ledger.consumer_progress SET position = %s, epoch = epoch + 1 WHERE consumer = %s
"""
_COPY = "COPY ledger.guards (key, version, state) FROM STDIN (FORMAT BINARY)"
_PAGE = """
SELECT key, version, state FROM ledger.guards WHERE key > %s ORDER BY key LIMIT %s
"""
_SOME = "SELECT key, version, state FROM ledger.guards WHERE key = ANY(%b)"
_PARKED = "SELECT position, error IS NOT NULL FROM ledger.parked_requests"
_UNHURRIED = """
SELECT set_config('statement_timeout', '0', true),
       set_config('idle_in_transaction_session_timeout', '0', true)
"""


def _nobody(position: int) -> None:
    """Tell nobody how far it has come."""


def rebuild_guards(
    connection: Connection[Any],
    catalogue: Catalogue,
    told: Callable[[int], None] = _nobody,
    folded: Folding | None = None,
) -> None:
    """Make guards, parked requests and progress again; an enforcer at work is fenced meanwhile.

    Keeps the progress locked for as long as the log takes to fold: deciding waits, recording goes
    on. Every partition goes on behind the request that was dealt with last; what one of them had
    not reached is parked without an error, and so decided first. ``told`` hears of the position
    reached. ``folded`` has folded the beginning of the log, and is used up. Raises what reading the
    log raises; then everything is as before.
    """
    arrays.register(connection)
    progress.fence_all(connection, CONSUMER)
    with connection.transaction():
        connection.execute(_UNHURRIED)
        connection.execute(_LOCK, (CONSUMER,))
        folding = Folding(catalogue) if folded is None else folded
        fold_log(connection, folding, head(connection), told)
        connection.execute("DELETE FROM ledger.guards")
        _write_guards(connection, folding.settled)
        involved.rewrite(connection, folding.settled)
        connection.execute("DELETE FROM ledger.parked_requests")
        _write_parked(connection, folding)
        # What is undecided behind this the enforcer reads again.
        connection.execute(_PROGRESS, (folding.dealt_with, CONSUMER))


def _write_guards(connection: Connection[Any], settled: Settled) -> None:
    with connection.cursor().copy(_COPY) as copy:
        copy.set_types(["text", "int4", "bytea"])
        # In the order of the keys, for rows that are locked together lie together.
        for text, key in sorted((guards.text_of(key), key) for key in _keys(settled)):
            _complete(settled, key)
            version, state = guards.version_of(settled, key), guards.state_of(settled, key)
            copy.write_row((text, version, state))


def _keys(settled: Settled) -> Iterator[Key]:
    """Yield the keys of everything that is settled."""
    for customer in chain(settled.customers, settled.versions.keys() - settled.customers.keys()):
        yield ("customer", customer)
    for person in settled.holdings:
        yield ("holdings", person)
    for person, day in settled.grants:
        yield ("grants", person, day)
    for system, identifier in settled.identifiers:
        yield ("identifier", system, identifier)
    for act in settled.acts:
        yield ("act", act)
    for customer in settled.groups:
        yield ("group", customer)
    for person in settled.hand_overs:
        yield ("person", person)


def _complete(settled: Settled, key: Key) -> None:
    """Give a customer of whom there is only a parking the state of one that never came to be."""
    if key[0] == "customer":
        settled.customers.setdefault(key[1], Unregistered())


def _write_parked(connection: Connection[Any], folding: Folding) -> None:
    """Park what is undecided in front of what the enforcer has dealt with.

    Where nothing of a customer is parked with an error, the next enforcer decides it at once.
    """
    passed = [position for position in folding.open if position <= folding.dealt_with]
    for start in range(0, len(passed), PAGE_GUARDS):
        stored = read_at(connection, passed[start : start + PAGE_GUARDS])
        rows = [_row_of(folding, each) for each in stored]
        parking.write(connection, (), rows)


def _row_of(folding: Folding, stored: StoredEvent) -> parking.Row:
    parked = folding.parked.get(stored.position)
    if parked is not None:
        return parking.Row(stored.position, parked.customer, parked.error)
    request = folding.read(stored)
    named = folding.open[stored.position]
    customer = named if request is None else subject(folding.settled, request)
    return parking.Row(stored.position, customer)


def compare_guards(
    connection: Connection[Any], catalogue: Catalogue, told: Callable[[int], None] = _nobody
) -> list[str]:
    """Return what of the guards and parked requests is not what the log makes of it; at most 1,000.

    Such as ``customer cus_1``, ``grants per_1 2026-03-01`` or ``parked 17``. A guard that holds
    nothing counts as absent. The log is folded and the guards are read while the enforcer goes on;
    only for what it has decided meanwhile is its progress locked.
    """
    arrays.register(connection)
    folding = Folding(catalogue)
    fold_log(connection, folding, head(connection), told)
    folding.changed = set()
    suspects = _suspects(connection, folding.settled)
    doubtful = _doubtful(connection, folding.settled)
    fold_log(connection, folding, head(connection), told)
    with connection.transaction():
        connection.execute(_UNHURRIED)
        reached = [position for (position,) in connection.execute(_LOCK, (CONSUMER,))]
        fold_log(connection, folding, head(connection), told)
        wanted = sorted(suspects | {guards.text_of(key) for key in folding.changed})
        rows = connection.execute(_SOME, (arrays.text_array(wanted),), binary=True).fetchall()
        there = involved.among(connection, doubtful)
        parked: dict[int, bool] = dict(connection.execute(_PARKED).fetchall())
    found = Settled()
    guards.load(found, wanted, rows)
    keys = [guards.key_of(text) for text in wanted]
    differ = [" ".join(key) for key in keys if not _same(folding.settled, found, key)]
    holds = folding.settled.involved
    differ += [
        f"involved {person} {customer}"
        for person, customer in doubtful
        if ((person, customer) in there) != (customer in holds.get(person, ()))
    ]
    differ += [f"parked {position}" for position in _parked_otherwise(folding, reached, parked)]
    return differ[:DIFFERENCES_MAX]


def _parked_otherwise(
    folding: Folding, reached: Sequence[int], parked: dict[int, bool]
) -> list[int]:
    """Return the positions at which the parked requests are not what the log makes of them.

    ``reached`` is how far each partition has come: what lies between them may wait, or be one that
    its partition has not reached. ``parked`` says of each request whether it is parked with an
    error.
    """
    all_reached, some_reached = min(reached, default=0), max(reached, default=0)
    expected = {
        position: position in folding.parked
        for position in folding.open
        if position <= all_reached
        or (position <= some_reached and (position in folding.parked or position in parked))
    }
    return [
        position
        for position in sorted(expected.keys() | parked.keys())
        if expected.get(position) != parked.get(position)
    ]


def _doubtful(connection: Connection[Any], settled: Settled) -> list[involved.Pair]:
    """Return who seems to hold something, or nothing, where the log says otherwise, in order."""
    expected = set(involved.pairs_of(settled))
    doubtful: set[involved.Pair] = set()
    for page in involved.pages(connection, PAGE_GUARDS):
        doubtful.update(pair for pair in page if pair not in expected)
        expected.difference_update(page)
        if len(doubtful) >= DIFFERENCES_MAX:
            break
    return sorted(chain(doubtful, islice(sorted(expected), DIFFERENCES_MAX)))


def _suspects(connection: Connection[Any], settled: Settled) -> set[str]:
    """Return keys of guards that differ, or that an enforcer has changed since the log was read."""
    suspects: set[str] = set()
    expected = iter(sorted(guards.text_of(key) for key in _keys(settled)))
    next_expected = next(expected, None)
    behind = ""
    while len(suspects) < DIFFERENCES_MAX:
        rows = connection.execute(_PAGE, (behind, PAGE_GUARDS), prepare=True, binary=True)
        page = rows.fetchall()
        behind = page[-1][0] if page else ""
        wanted = {row[0] for row in page}
        while next_expected is not None and (not page or next_expected <= behind):
            wanted.add(next_expected)
            next_expected = next(expected, None)
        found = Settled()
        guards.load(found, wanted, page)
        suspects |= {text for text in wanted if not _same(settled, found, guards.key_of(text))}
        if not page:
            break
    return suspects


def _same(settled: Settled, found: Settled, key: Key) -> bool:
    """Say whether two settled states agree on a key; ``settled`` is complete."""
    match key:
        case ("customer", customer):
            return (settled.customer(customer), settled.version(customer)) == (
                found.customer(customer),
                found.version(customer),
            )
        case ("holdings", person):
            return settled.holdings_of(person) == found.holdings_of(person)
        case ("grants", person, day):
            return settled.grants_of(person, day) == found.grants_of(person, day)
        case ("identifier", system, identifier):
            return settled.holder_of(system, identifier) == found.holder_of(system, identifier)
        case ("group", customer):
            return settled.group(customer) == found.group(customer)
        case ("person", person):
            return settled.hand_over_of(person) == found.hand_over_of(person)
        case _:
            return settled.act(key[1]) == found.act(key[1])
