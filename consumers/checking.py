"""What would be decided now on a request that nobody has recorded: asked before acting.

The same decider decides on the same settled state as the enforcer would, read without locks in one
short snapshot. Nothing is recorded, and no promise is made: whoever acts first still comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from consumers import guessing, handing_over, parking, progress
from consumers.enforcer import CONSUMER
from consumers.feed import StoreFeed
from consumers.grouping import with_groups
from ledger.deciders import decider
from ledger.deciders.drafts import Draft
from ledger.deciding import is_hand_over, stream_of
from ledger.envelope import Event, decode, request_body
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue
from ledger.organisation import OrganisationAt
from ledger.recording import Asked, Recording
from ledger.settled import Key, NotLoadedError, Settled, subject
from ledger.store import guards

# Each round reads what the one before found missing; a chain of group parents is the longest.
_ROUNDS_MAX = 50
_LOOKED_AT = 500
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
# As an append would number and date the request: behind the last one, and never before it.
_NEXT = """
SELECT coalesce(max(position), 0) + 1,
       greatest(clock_timestamp(), (SELECT recorded FROM ledger.events
                                    ORDER BY position DESC LIMIT 1))
FROM ledger.events
"""


class WouldWaitError(LedgerError):
    """The request would not be decided: its customer waits for one that could not be."""

    code = "would_wait"

    def __init__(self, customer: str) -> None:
        super().__init__(
            f"An earlier request of the customer {customer} could not be decided, and what comes"
            " later waits for it.",
            way_out="guishu doctor lists what is parked; an administrator has it decided with"
            " guishu unpark.",
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """What would be decided, with the log as it is up to ``head``.

    ``is_behind`` says that recorded requests still wait for their decision: it may change this.
    """

    draft: Draft
    head: int
    is_behind: bool


def would_decide(
    connection: Connection[Any], catalogue: Catalogue, recording: Recording, asked: Asked
) -> Checked:
    """Return what would be decided if a command were recorded now; nothing is.

    The command stands for one request (not for a registration that claims at once). Raises as
    ``Recording.rehearse``; WouldWaitError; UnderWayError; DeciderMissingError. The connection is in
    autocommit mode, and knows BinaryArray.
    """
    built = recording.rehearse(asked)
    (data,) = built.data
    organisation = recording.organisation()
    with connection.transaction():
        connection.execute(_SNAPSHOT)
        position, recorded = _next(connection)
        body = request_body(catalogue, asked.origin, 0, data)
        stream, name = stream_of("request", data), catalogue.name_of(data)
        request = decode(catalogue, (position, recorded, stream, 0, name, body, None, None))
        draft = _decide(connection, request, organisation)
        is_behind = _is_behind(connection, position - 1)
    return Checked(draft, position - 1, is_behind)


def _is_behind(connection: Connection[Any], head: int) -> bool:
    """Say whether some request is neither decided nor parked; where many may be, it says so too."""
    decided = progress.reached(connection, CONSUMER)
    batch = StoreFeed().read(connection, decided, _LOOKED_AT)
    return bool(batch.requests) or batch.reached < head


def _next(connection: Connection[Any]) -> tuple[int, datetime]:
    row = connection.execute(_NEXT).fetchone()
    if row is None:
        raise AssertionError("an aggregate always has a row")
    return row[0], row[1]


def _decide(connection: Connection[Any], request: Event, organisation: OrganisationAt) -> Draft:
    if is_hand_over(request):
        if parking.waiting_among(connection, [request.data.giver]):
            raise WouldWaitError(request.data.giver)
        return handing_over.foretell(connection, request, organisation)
    decide, settled = decider(organisation.decider), Settled()
    keys: set[Key] = set(guessing.keys_named(request, organisation))
    for _ in range(_ROUNDS_MAX):
        guards.read(connection, keys, settled)
        try:
            customer = subject(settled, request)
            draft = decide(settled, request, organisation)
        except NotLoadedError as lacking:
            keys = with_groups(connection, {lacking.key})
            continue
        if parking.waiting_among(connection, [customer]):
            raise WouldWaitError(customer)
        return draft
    raise AssertionError("a request touches more and more guards without end")
