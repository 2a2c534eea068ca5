"""How every write goes: one key, one request, one outcome; waited for where the caller prefers it.

``Idempotency-Key`` is the request id, kept in the transaction of the event: the same key again
gets the first answer, another body under it is refused, and who comes while the first is still
under way waits for it. ``Prefer: wait=N`` waits up to N seconds for the decision (RFC 7240).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Header, Response
from psycopg import Connection
from pydantic import AwareDatetime

from api.http.callers import Caller
from api.http.problems import MalformedHeaderError, PreconditionFailedError
from api.http.services import Services
from api.http.shapes import Outcome, outcome
from api.outcomes import status_of
from ledger import organisation_commands as facts_in
from ledger.commands import Command, parse
from ledger.envelope import Event, Origin, Source
from ledger.errors import VersionConflictError
from ledger.recording import Asked, Recorded, RecordedFact, Recording, new_request_id

WAIT_SECONDS_MAX = 30
_KEY_CHARACTERS_MAX = 200
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?:$|[,;\s])")

# Requests of a stream have versions from 1 on.
_VERSION = "SELECT version FROM ledger.events WHERE stream = %s ORDER BY version DESC LIMIT 1"

C = TypeVar("C", bound=Command)


class Writes:
    """The headers of a write: its key, how long to wait, when it happened, from where it comes."""

    def __init__(
        self,
        response: Response,
        idempotency_key: Annotated[
            str | None,
            Header(
                description="Makes a repetition safe: the same key again gets the first answer.",
                max_length=_KEY_CHARACTERS_MAX,
                pattern=r"^[!-~]+$",
                examples=["crm-2026-03-01-0001"],
            ),
        ] = None,
        prefer: Annotated[
            str | None,
            Header(
                description="``wait=N``: answer with the decision, if it comes within N seconds"
                f" (at most {WAIT_SECONDS_MAX}).",
                max_length=200,
                examples=["wait=5"],
            ),
        ] = None,
        correlation: Annotated[
            str | None,
            Header(
                alias="Correlation-Id",
                description="Recorded with the request, for finding what belongs together.",
                max_length=200,
                pattern=r"^[!-~]+$",
            ),
        ] = None,
    ) -> None:
        self.response = response
        self.key = idempotency_key
        self.wait_seconds = wait_of(prefer)
        self.correlation = correlation


def wait_of(prefer: str | None) -> int:
    """Return for how many seconds a caller prefers to wait; 0 where nothing is said."""
    found = _WAIT.search(prefer or "")
    return min(int(found[1]), WAIT_SECONDS_MAX) if found else 0


def origin_of(
    caller: Caller,
    writes: Writes,
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
    writes: Writes,
    kind: type[C],
    fields: Mapping[str, Any],
    *,
    occurred: datetime | None = None,
    expected: frozenset[int] | None = None,
) -> tuple[Recorded, list[Event]]:
    """Record what ``fields`` ask for, None left out; return it, and what was decided in time.

    201 where it is decided, else 202; ``Preference-Applied`` says that it was waited for. In place
    of decisions stands the RequestParked where somebody must look first, for which nobody waits.
    ``expected`` are versions of the customer's stream of which one must be the last. Raises what
    the recording raises, ForbiddenError, and PreconditionFailedError.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    command: Any = parse(kind, given)
    asked = Asked(command, origin_of(caller, writes, occurred=occurred))
    if expected is None:
        recorded = await services.intake.record(asked)
    else:
        recorded = await _record_at(services, asked, expected)
    decided: list[Event] = []
    if writes.wait_seconds:
        decided = await services.decisions.of(recorded.positions, writes.wait_seconds)
        writes.response.headers["Preference-Applied"] = f"wait={writes.wait_seconds}"
    answered(writes.response, recorded, decided)
    return recorded, decided


async def _record_at(services: Services, asked: Asked, expected: frozenset[int]) -> Recorded:
    """Record a request about a customer if the last version of its stream is one of these."""
    stream = f"customer-{asked.command.customer}"  # type: ignore[union-attr]  # changes have one

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
            "The customer is not any more as If-Match says.",
            way_out="Read it again, and decide anew.",
        ) from None


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
    writes: Writes,
    kind: type[C],
    fields: Mapping[str, Any],
    *,
    occurred: AwareDatetime | None = None,
    expected: frozenset[int] | None = None,
) -> Outcome:
    """Record what ``fields`` ask for, and return its outcome as most routes answer it."""
    recorded, decided = await submit(
        services, caller, writes, kind, fields, occurred=occurred, expected=expected
    )
    return outcome(services.ledger.catalogue, recorded, decided)


async def stated(
    services: Services,
    caller: Caller,
    writes: Writes,
    facts: Sequence[facts_in.FactCommand],
    check: Callable[[], None] = lambda: None,
) -> list[RecordedFact]:
    """Record facts of the organisation; they are final at once (201).

    ``check`` runs in front of it, where nobody else records: for If-Match.
    """
    origin = origin_of(caller, writes)

    def state(recording: Recording) -> list[RecordedFact]:
        check()
        return recording.record_facts(facts, origin)

    recorded = await services.intake.run(state)
    writes.response.status_code = 201
    writes.response.headers["Ledger-Position"] = str(recorded[-1].position)
    return recorded


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
