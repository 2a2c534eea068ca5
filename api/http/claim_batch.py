"""Claims in a batch: lines are recorded in slices as they come, and answered in their order.

The answer begins when the last line has come, so that a client may send all before it reads. What
is kept until then is a line's outcome, and no more than a slice of what was sent.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import psycopg
from psycopg_pool import PoolTimeout
from pydantic import TypeAdapter, ValidationError

from api.http import problems
from api.http.bounds import outside
from api.http.callers import Caller
from api.http.claiming import Claim, told
from api.http.problems import HttpError
from api.http.services import Services
from api.http.shapes import Problem, Shape
from api.http.writing import Keyed, origin_of
from ledger import commands
from ledger.commands import InvalidRequestError, Moment
from ledger.envelope import Event
from ledger.errors import LedgerError, StoreUnavailableError
from ledger.recording import Asked, Recorded, new_request_id

LINES_MAX = 10_000
SLICE_MAX = 1_000
# What is decided already is told even where the time to wait is over.
_LOOK_SECONDS = 0.25
_KEY = re.compile("[!-~]{1,200}")
_OCCURRED: TypeAdapter[datetime] = TypeAdapter(Moment)


class ClaimLine(Claim):
    """The answer to a line that was recorded: its number, its key, and the claim."""

    line: int
    key: str | None = None


class ProblemLine(Shape):
    """The answer to a line that was not recorded, and why."""

    line: int
    key: str | None = None
    problem: Problem


class BatchTooLargeError(HttpError):
    """A batch has more lines than one may have; those behind were not looked at."""

    code, status = "batch_too_large", 413

    def __init__(self) -> None:
        super().__init__(
            f"A batch has at most {LINES_MAX:,} lines; this one and those behind it were left.",
            way_out="Send the rest as another batch.",
        )


@dataclass(slots=True)
class _Line:
    """A line, and what came of it."""

    number: int
    key: str | None = None
    claimant: str = ""
    outcome: Asked | Recorded | LedgerError | None = None


class ClaimBatch:
    """One batch of one caller. ``last`` is the last position that it recorded, 0 for none."""

    def __init__(self, services: Services, caller: Caller, writes: Keyed) -> None:
        self._services = services
        self._caller = caller
        self._writes = writes
        self._actor = caller.actor
        self._prefix = writes.key or new_request_id()
        self._lines: list[_Line] = []
        self.last = 0

    async def take(self, lines: AsyncIterator[bytes | None]) -> None:
        """Record what the lines ask for; there is at most one more than LINES_MAX.

        Raises InvalidRequestError where there is none; and where the very first slice cannot be
        recorded at all, why: then nothing was.
        """
        number, begun = 0, 0
        async for line in lines:
            number += 1
            if number > LINES_MAX:
                self._lines.append(_Line(number, outcome=BatchTooLargeError()))
            elif line is None or (not line.isspace() and line):
                self._lines.append(self._read(number, line))
            if len(self._lines) - begun == SLICE_MAX:
                await self._record(self._lines[begun:])
                begun = len(self._lines)
        await self._record(self._lines[begun:])
        if not self._lines:
            raise InvalidRequestError("body", "the batch has no line")

    async def answers(self) -> AsyncIterator[bytes]:
        """Yield the lines of the answer, with the decisions where they are waited for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._writes.wait_seconds
        for begin in range(0, len(self._lines), SLICE_MAX):
            lines = self._lines[begin : begin + SLICE_MAX]
            decided: Mapping[int, Sequence[Event]] = {}
            if self._writes.wait_seconds:
                positions = [
                    each.outcome.positions[-1]
                    for each in lines
                    if isinstance(each.outcome, Recorded)
                ]
                left = max(until - loop.time(), _LOOK_SECONDS)
                decided = await self._services.decisions.of_each(positions, left)
            yield b"".join(_answer(each, decided) for each in lines)

    def _read(self, number: int, line: bytes | None) -> _Line:
        """Return a line with what it asks for, or why it cannot be."""
        read = _Line(number)
        try:
            said = _object(line)
            read.key = _key(said.pop("key", None))
            occurred = _occurred(said.pop("occurred", None))
            given = {name: value for name, value in said.items() if value is not None}
            read.claimant = given.setdefault("claimant", self._actor)
            command = commands.parse(commands.FileClaim, given)
            request_id = f"{self._prefix}/{read.key or number}"
            origin = origin_of(self._caller, self._writes, occurred=occurred, key=request_id)
            read.outcome = Asked(command, origin)
        except LedgerError as error:
            read.outcome = error
        return read

    async def _record(self, lines: Sequence[_Line]) -> None:
        wanted = [each for each in lines if isinstance(each.outcome, Asked)]
        if self._caller.territories is not None:
            await self._keep_within(wanted)
            wanted = [each for each in wanted if isinstance(each.outcome, Asked)]
        asked = [each.outcome for each in wanted if isinstance(each.outcome, Asked)]
        if not asked:
            return
        results: Sequence[Recorded | LedgerError]
        try:
            results = await self._services.intake.record_many(asked)
        except (LedgerError, psycopg.OperationalError, PoolTimeout) as error:
            if not self.last:
                raise
            results = [_whole(error)] * len(asked)
        for each, result in zip(wanted, results, strict=True):
            each.outcome = result
            if isinstance(result, Recorded):
                self.last = max(self.last, result.positions[-1])

    async def _keep_within(self, lines: Sequence[_Line]) -> None:
        """Have those lines refused for which the caller's token is not."""
        claims = [each.outcome.command for each in lines if isinstance(each.outcome, Asked)]
        refusals = await outside(self._services, self._caller, claims)
        for line, refusal in zip(lines, refusals, strict=True):
            line.outcome = refusal or line.outcome


def _object(line: bytes | None) -> dict[str, Any]:
    if line is None:
        raise InvalidRequestError("", "the line is too long")
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise InvalidRequestError("", "the line is no JSON") from None
    if not isinstance(said, dict):
        raise InvalidRequestError("", "the line is no JSON object")
    return said


def _key(key: Any) -> str | None:
    if key is None or (isinstance(key, str) and _KEY.fullmatch(key)):
        return key
    raise InvalidRequestError("key", "must be 1 to 200 printable ASCII characters, without spaces")


def _occurred(occurred: Any) -> datetime | None:
    if occurred is None:
        return None
    try:
        return _OCCURRED.validate_python(occurred)
    except ValidationError as error:
        raise InvalidRequestError("occurred", error.errors()[0]["msg"]) from None


def _whole(error: Exception) -> LedgerError:
    """Return why a slice could not be recorded at all."""
    if isinstance(error, LedgerError):
        return error
    return StoreUnavailableError(
        "The database does not answer.", way_out="Send the line again, with its key."
    )


def _answer(line: _Line, decided: Mapping[int, Sequence[Event]]) -> bytes:
    outcome = line.outcome
    if isinstance(outcome, Recorded):
        events = decided.get(outcome.positions[-1], ())
        said = told(line.claimant, outcome, events)
        claim = ClaimLine(line=line.number, key=line.key, **said)
        return claim.model_dump_json().encode() + b"\n"
    if not isinstance(outcome, LedgerError):
        raise AssertionError(f"line {line.number} was neither recorded nor refused")
    failed = {"line": line.number, "key": line.key, "problem": problems.of_error(outcome)}
    return orjson.dumps(failed) + b"\n"
