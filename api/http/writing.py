"""How every write goes: one key, one request, one outcome; waited for where the caller prefers it.

``Idempotency-Key`` is the request id, kept in the transaction of the event: the same key again
gets the first answer, another body under it is refused, and who comes while the first is still
under way waits for it. ``Prefer: wait=N`` waits up to N seconds for the decision (RFC 7240).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Response
from psycopg import Connection
from pydantic import AwareDatetime, Field

from api.http.bounds import must_lie_within
from api.http.callers import Caller
from api.http.problems import MalformedHeaderError, PreconditionFailedError
from api.http.services import Reads, Services, made_of
from api.http.shapes import Outcome, Shape, outcome
from api.outcomes import status_of
from ledger import organisation_commands as facts_in
from ledger.commands import Command, HandOver, parse
from ledger.deciding import person_stream, request_stream
from ledger.envelope import Event, Origin, Source
from ledger.errors import RequestReusedError, VersionConflictError
from ledger.four_eyes import FourEyesError
from ledger.recording import (
    ORGANISATION,
    Asked,
    Recorded,
    RecordedFact,
    Recording,
    new_request_id,
)

WAIT_SECONDS_MAX = 30
_KEY_CHARACTERS_MAX = 200
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")

# Requests of a stream have versions from 1 on.
_VERSION = "SELECT version FROM ledger.events WHERE stream = %s ORDER BY version DESC LIMIT 1"
_REFLECTED = """
SELECT version FROM ledger.events WHERE stream = %s AND position <= %s
ORDER BY version DESC LIMIT 1
"""

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Makes a repetition safe: the same key again gets the first answer.",
        max_length=_KEY_CHARACTERS_MAX,
        pattern=r"^[!-~]+$",
        examples=["crm-2026-03-01-0001"],
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        description="``wait=N``: answer with the decision, if it comes within N seconds"
        f" (at most {WAIT_SECONDS_MAX}).",
        max_length=200,
        examples=["wait=5"],
    ),
]
Correlation = Annotated[
    str | None,
    Header(
        alias="Correlation-Id",
        description="Recorded with the request, for finding what belongs together.",
        max_length=200,
        pattern=r"^[!-~]+$",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        max_length=200,
        description="The ETag that the change is based on; where it has moved on, 412.",
        examples=['"17"'],
    ),
]

C = TypeVar("C", bound=Command)


class Keyed:
    """The headers of every write: its key, how long to wait, what it belongs to."""

    def __init__(
        self,
        response: Response,
        key: Key = None,
        prefer: Prefer = None,
        correlation: Correlation = None,
    ) -> None:
        self.response = response
        self.key = key
        self.wait_seconds = wait_of(prefer)
        self.correlation = correlation


class Writes(Keyed):
    """The headers of a write that changes one thing: on what it is based, too.

    ``expected`` are the versions of the thing's stream of which one must be the last, as If-Match
    says; None: any will do.
    """

    def __init__(
        self,
        response: Response,
        key: Key = None,
        prefer: Prefer = None,
        correlation: Correlation = None,
        if_match: IfMatch = None,
    ) -> None:
        super().__init__(response, key, prefer, correlation)
        self.expected = versions_of(if_match)


InKeyed = Annotated[Keyed, Depends(made_of(Keyed))]
InWrites = Annotated[Writes, Depends(made_of(Writes))]


def wait_of(prefer: str | None) -> int:
    """Return for how many seconds a caller prefers to wait; 0 where nothing is said."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), WAIT_SECONDS_MAX) if found else 0


def origin_of(
    caller: Caller,
    writes: Keyed,
    *,
    occurred: datetime | None = None,
    key: str | None = None,
    reference: str | None = None,
) -> Origin:
    """Return where a write comes from; raises ForbiddenError where it is nobody's act."""
    return Origin(
        caller=caller.name,
        request_id=key or writes.key or new_request_id(),
        actor=caller.actor,
        on_behalf_of=caller.actor if caller.on_behalf else None,
        occurred=occurred,
        source=Source("http", reference),
        correlation=writes.correlation,
    )


async def submit(
    services: Services,
    caller: Caller,
    writes: Keyed,
    kind: type[C],
    fields: Mapping[str, Any],
    *,
    occurred: datetime | None = None,
) -> tuple[Recorded, list[Event]]:
    """Record what ``fields`` ask for, None left out; return it, and what was decided in time.

    201 where it is decided, else 202; ``Preference-Applied`` says that it was waited for. In place
    of decisions stands the RequestParked where somebody must look first, for which nobody waits.
    Where the write is based on a version, that of the stream of the customer, or of the person
    whose customers are handed over, is meant. Raises what the recording raises, ForbiddenError,
    and PreconditionFailedError.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    command: Any = parse(kind, given)
    asked = Asked(command, origin_of(caller, writes, occurred=occurred))
    if caller.territories is not None:
        await must_lie_within(services, caller, command)
    if isinstance(writes, Writes) and writes.expected is not None:
        recorded = await _record_at(services, asked, writes.expected)
    else:
        recorded = await services.intake.record(asked)
    decided: list[Event] = []
    if writes.wait_seconds:
        decided = await services.decisions.of(recorded.positions, writes.wait_seconds)
        writes.response.headers["Preference-Applied"] = f"wait={writes.wait_seconds}"
    answered(writes.response, recorded, decided)
    return recorded, decided


async def _record_at(services: Services, asked: Asked, expected: frozenset[int]) -> Recorded:
    """Record a request if the last version of its stream is one of these."""
    stream = _stream_of(asked.command)

    def record(recording: Recording) -> Recorded:
        with services.ledger.pool.connection() as connection:
            last = stream_version(connection, stream)
        # One that is not expected is asked for all the same: a repetition gets its first answer.
        version = last if last in expected else min(expected, default=0)
        return recording.record(replace(asked, expected=version))

    try:
        return await services.intake.run(record)
    except VersionConflictError:
        raise PreconditionFailedError(
            "What this is about is not any more as If-Match says.",
            way_out="Read it again, and decide anew.",
        ) from None


def _stream_of(command: Any) -> str:
    if isinstance(command, HandOver):
        return person_stream(command.giver)
    return request_stream(command.customer)


def answered(response: Response, recorded: Recorded, decided: Sequence[Event]) -> None:
    """Say in status and headers what was recorded, and whether it is decided."""
    last = max([*recorded.positions, *(each.position for each in decided)])
    response.headers["Ledger-Position"] = str(last)
    response.headers.setdefault("Location", f"/v1/requests/{recorded.positions[-1]}")
    response.status_code = 202 if status_of(decided) in ("pending", "parked") else 201
    if recorded.repeated:
        response.headers["Idempotency-Replayed"] = "true"


async def asked_for(
    services: Services,
    caller: Caller,
    writes: Keyed,
    kind: type[C],
    fields: Mapping[str, Any],
    *,
    occurred: AwareDatetime | None = None,
) -> Outcome:
    """Record what ``fields`` ask for, and return its outcome as most routes answer it."""
    recorded, decided = await submit(services, caller, writes, kind, fields, occurred=occurred)
    return outcome(services.ledger.catalogue, recorded, decided)


class Stated(Shape):
    """A fact of the organisation that was stated, or, where four eyes are required, proposed.

    ``position`` is where it stands in the log, ``about`` the id of whom or what it made or is
    about. A ``proposal`` holds only once somebody else has adopted it.
    """

    position: int
    about: str | None = Field(None, examples=["per_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d6e"])
    proposal: str | None = None
    repeated: bool = False


STATED: dict[int | str, dict[str, Any]] = {
    202: {"model": Stated, "description": "It is proposed, for somebody else to adopt."},
    412: {"description": "The organisation has changed since If-Match."},
}
"""What a route that states a fact answers besides 201, for OpenAPI."""


async def stated(
    services: Services,
    caller: Caller,
    writes: Writes,
    facts: Sequence[facts_in.FactCommand],
) -> list[RecordedFact]:
    """Record facts of the organisation; they are final at once (201).

    Raises PreconditionFailedError where its stream has moved on from what If-Match says. The
    answer has the new version as its ETag.
    """
    origin = origin_of(caller, writes)
    recorded = await services.intake.run(
        lambda recording: _recorded(recording, facts, origin, writes.expected)
    )
    services.directory.outdate()
    _answer_fact(writes, recorded[-1])
    return recorded


async def fact(
    services: Services,
    caller: Caller,
    writes: Writes,
    command: facts_in.FactCommand,
) -> Stated:
    """Record a fact (201); where it takes somebody else to put it in force, propose it (202).

    Errors as of ``stated``; FourEyesError for what cannot be proposed.
    """
    origin = origin_of(caller, writes)

    def state(recording: Recording) -> tuple[RecordedFact, bool]:
        try:
            return _recorded(recording, [command], origin, writes.expected)[-1], False
        except (FourEyesError, RequestReusedError):
            # The second where it was proposed under this key before.
            if not isinstance(command, facts_in.ProposedCommand):
                raise
            proposing = parse(facts_in.ProposeFact, {"fact": command})
            return _recorded(recording, [proposing], origin, writes.expected)[-1], True

    recorded, is_proposed = await services.intake.run(state)
    services.directory.outdate()
    _answer_fact(writes, recorded)
    if is_proposed:
        writes.response.status_code = 202
        writes.response.headers["Location"] = f"/v1/proposals/{recorded.about}"
    return Stated(
        position=recorded.position,
        about=None if is_proposed else recorded.about,
        proposal=recorded.about if is_proposed else None,
        repeated=recorded.repeated,
    )


def _recorded(
    recording: Recording,
    facts: Sequence[facts_in.FactCommand],
    origin: Origin,
    expected: frozenset[int] | None,
) -> list[RecordedFact]:
    try:
        return recording.record_facts(facts, origin, expected=expected)
    except VersionConflictError:
        if expected is None:
            raise
        raise PreconditionFailedError(
            "The organisation is not any more as If-Match says.",
            way_out="Read it again, and decide anew.",
        ) from None


def _answer_fact(writes: Writes, recorded: RecordedFact) -> None:
    headers = writes.response.headers
    writes.response.status_code = 201
    headers["Ledger-Position"] = str(recorded.position)
    headers["ETag"] = etag(recorded.version)
    if recorded.repeated:
        headers["Idempotency-Replayed"] = "true"


def reflected_etag(connection: Connection[Any], reads: Reads, stream: str = ORGANISATION) -> str:
    """Return the ETag of a stream as the read models have it at least.

    Not as the log has it: a change must be based on nothing that was not shown.
    """
    row = connection.execute(_REFLECTED, (stream, reads.reached), prepare=True).fetchone()
    return etag(int(row[0]) if row else 0)


def show_version(connection: Connection[Any], reads: Reads, customer: str) -> None:
    """Say as ETag of what belongs to a customer by which version of the customer it is shown.

    It is for If-Match alone, and no read compares it: decisions, clocks and what a caller may see
    change what is shown without a request about the customer.
    """
    reads.response.headers["ETag"] = reflected_etag(connection, reads, request_stream(customer))


def stream_version(connection: Connection[Any], stream: str) -> int:
    """Return the last version of a stream, 0 where there is none."""
    row = connection.execute(_VERSION, (stream,), prepare=True).fetchone()
    return int(row[0]) if row else 0


def etag(version: int) -> str:
    """Return the ETag of a version of a stream."""
    return f'"{version}"'


def versions_of(if_match: str | None) -> frozenset[int] | None:
    """Return the versions that If-Match names; None: any will do. Raises MalformedHeaderError."""
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [each.strip() for each in if_match.split(",")]
    if not all(re.fullmatch(r'"\d{1,18}"', each) for each in tags):
        raise MalformedHeaderError("If-Match", "names no ETag of this ledger.")
    return frozenset(int(each.strip('"')) for each in tags)
