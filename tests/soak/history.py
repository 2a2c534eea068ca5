"""What is judged after a soak: each operation of the clients, and the log.

Instants are those of one clock of the process in which all clients run, so they can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from ledger.envelope import StoredEvent

Kind = Literal["claim", "release", "transfer", "approve", "refuse", "follow_up", "read"]
Outcome = Literal["acknowledged", "not_recorded", "unknown"]
"""``not_recorded``: the ledger has said so, or the request never left the client. ``unknown``: no
answer came in time, or one that does not say."""

# What is recorded of each kind of operation.
REQUESTS: dict[Kind, str] = {
    "claim": "ClaimFiled",
    "release": "ReleaseRequested",
    "transfer": "TransferRequested",
    "approve": "ApprovalGiven",
    "refuse": "ApprovalDenied",
    "follow_up": "FollowUpLogged",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a client: what was asked, when, and what was answered.

    A repetition with the same ``request_id`` is an operation of its own. Of a write ``position`` is
    that of the request, and ``decisions`` are the positions and names of what was decided, as far
    as the answer says; ``based_on`` is the version that it named with If-Match. Of a read
    ``position`` is what it reflects at least, ``version`` its ETag, and ``owner`` what it showed.
    """

    client: int
    kind: Kind
    customer: str
    person: str
    invoked: float
    returned: float | None
    outcome: Outcome
    request_id: str | None = None
    receiver: str | None = None
    approval: str | None = None
    based_on: int | None = None
    min_position: int = 0
    position: int | None = None
    decisions: tuple[tuple[int, str], ...] = ()
    is_refused: bool | None = None
    owner: str | None = None
    version: int | None = None
    said: str = ""

    @property
    def is_read(self) -> bool:
        """Say whether nothing is recorded of it."""
        return self.kind == "read"


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of the log; ``name`` is without its schema's version."""

    position: int
    stream: str
    version: int
    name: str
    actor: str | None = None
    request_id: str | None = None
    causation: int | None = None
    ordinal: int | None = None
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def customer(self) -> str | None:
        """The customer in whose stream it stands."""
        kind, _, name = self.stream.partition("-")
        return name if kind in ("customer", "ownership") else None


@dataclass(frozen=True, slots=True)
class History:
    """All that the clients did, in the order in which they began it, and the log behind it.

    ``outages`` say from when until when PostgreSQL was away, one after the other.
    """

    operations: tuple[Operation, ...]
    log: tuple[Entry, ...]
    outages: tuple[tuple[float, float], ...] = ()


def history(
    operations: Iterable[Operation],
    log: Iterable[Entry],
    outages: Iterable[tuple[float, float]] = (),
) -> History:
    """Return a history in its order."""
    return History(
        tuple(sorted(operations, key=lambda each: each.invoked)),
        tuple(sorted(log, key=lambda each: each.position)),
        tuple(sorted(outages)),
    )


def entries(stored: Sequence[StoredEvent]) -> list[Entry]:
    """Return events as they are judged, from their stored bytes."""
    return [_entry(each) for each in stored]


def _entry(stored: StoredEvent) -> Entry:
    body = orjson.loads(stored.body)
    return Entry(
        stored.position,
        stored.stream,
        stored.version,
        stored.name.partition(".")[0],
        body.get("actor"),
        body.get("request_id"),
        stored.causation,
        stored.ordinal,
        body["data"],
    )


def told(each: History, customer: str | None, *, lines_max: int = 200) -> str:
    """Return what concerns one customer, as people read it; the last lines, if there are many."""
    operations = [_line_of(one) for one in each.operations if one.customer == customer]
    log = [_line_in(one) for one in each.log if customer is None or one.customer == customer]
    return "\n".join(
        [
            f"history of {customer or 'the whole'}:",
            *operations[-lines_max:],
            "log:",
            *log[-lines_max:],
        ]
    )


def _line_of(one: Operation) -> str:
    until = "…" if one.returned is None else f"{one.returned:.3f}"
    asked = {
        "for": one.receiver,
        "approval": one.approval,
        "based on": one.based_on,
        "from": one.min_position or None,
    }
    answered = {
        "at": one.position,
        "decided": list(one.decisions) or None,
        "owner": one.owner,
        "version": one.version,
        "said": one.said or None,
    }
    words = [f"{name} {value}" for name, value in asked.items() if value is not None]
    words += [f"{one.request_id or ''} -> {one.outcome}"]
    words += [f"{name} {value}" for name, value in answered.items() if value is not None]
    return (
        f"  {one.invoked:8.3f}-{until:>8} client {one.client} {one.kind} by {one.person}"
        f" {', '.join(words)}"
    )


def _line_in(one: Entry) -> str:
    origin = f"because of {one.causation}/{one.ordinal}" if one.causation else one.request_id
    data = {name: value for name, value in one.data.items() if name != "customer"}
    return (
        f"  {one.position:>6} {one.stream.partition('-')[0]} v{one.version} {one.name}"
        f" by {one.actor} {origin} {orjson.dumps(data).decode()[:300]}"
    )
