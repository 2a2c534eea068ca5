"""The table of jobs: asking for one, looking at it, and how a worker holds it.

A worker holds a job by a lease that it renews; when it dies the lease ends and another worker goes
on with the job. Everything that a worker writes is fenced by its own name: whoever has lost the
lease writes nothing any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson
from psycopg import Connection
from psycopg.rows import class_row

from ledger import ids
from ledger.errors import BusyError, LedgerError, RequestReusedError

JOB = "job"
Kind = Literal["import", "what_if"]
State = Literal["waiting", "running", "done", "failed", "cancelled"]
OVER: tuple[State, ...] = ("done", "failed", "cancelled")

LEASE_SECONDS = 20
OPEN_MAX = 100
OPEN_OF_CALLER_MAX = 5
# A job that has ended the process of so many workers is given up.
ATTEMPTS_MAX = 5
PIECE_BYTES = 1_048_576
KEPT_DAYS = 30
UPLOADED, REJECTS = "uploaded:", "rejects"
"""In front of an uploaded file's name; and the name of the list of rejects."""

_COLUMNS = """
job, kind, caller, actor, on_behalf, request_id, digest, parameters, state, cancelling, progress,
done, total, result, error, asked, began, ended, attempts
"""
# Two who ask at once are counted one after the other. Nobody else uses this number.
_ALONE = "SELECT pg_advisory_xact_lock(7020210100)"
_OPEN = """
SELECT count(*) FILTER (WHERE caller = %s), count(*) FROM api.jobs
WHERE state IN ('waiting', 'running')
"""
_ASK = """
INSERT INTO api.jobs (job, kind, caller, actor, on_behalf, request_id, digest, parameters)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
_ASKED = f"SELECT {_COLUMNS} FROM api.jobs WHERE caller = %s AND request_id = %s"  # noqa: S608
_FIND = f"SELECT {_COLUMNS} FROM api.jobs WHERE job = %s"  # noqa: S608  # constants, as below
_LIST = f"""
SELECT {_COLUMNS} FROM api.jobs
WHERE (%(caller)s::text IS NULL OR caller = %(caller)s)
  AND (%(kind)s::text IS NULL OR kind = %(kind)s)
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(before)s::text IS NULL OR job < %(before)s)
ORDER BY job DESC LIMIT %(limit)s
"""  # noqa: S608
_CANCEL = """
UPDATE api.jobs SET cancelling = true,
    state = CASE WHEN state = 'waiting' THEN 'cancelled' ELSE state END,
    ended = CASE WHEN state = 'waiting' THEN clock_timestamp() ELSE ended END
WHERE job = %s AND state IN ('waiting', 'running')
"""
_TAKE = f"""
UPDATE api.jobs SET state = 'running', worker = %(worker)s, attempts = attempts + 1,
    began = coalesce(began, clock_timestamp()),
    lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE job = (SELECT job FROM api.jobs
             WHERE state = 'waiting' OR (state = 'running' AND lease_until < clock_timestamp())
             ORDER BY job LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_COLUMNS}
"""  # noqa: S608
_RENEW = """
UPDATE api.jobs SET lease_until = clock_timestamp() + make_interval(secs => %s),
    progress = %s, done = %s, total = %s
WHERE job = %s AND worker = %s AND state = 'running' RETURNING cancelling
"""
_END = """
UPDATE api.jobs SET state = %s, result = %s, error = %s, ended = clock_timestamp(),
    worker = NULL, lease_until = NULL, progress = %s, done = %s, total = %s
WHERE job = %s AND worker = %s AND state = 'running'
"""
_GIVE_BACK = """
UPDATE api.jobs SET state = 'waiting', worker = NULL, lease_until = NULL, attempts = attempts - 1
WHERE job = %s AND worker = %s AND state = 'running'
"""
_HELD = "SELECT FROM api.jobs WHERE job = %s AND worker = %s AND state = 'running' FOR UPDATE"
_PUT = "INSERT INTO api.job_files (job, file, number, content) VALUES (%s, %s, %s, %s)"
_PIECE = "SELECT content FROM api.job_files WHERE job = %s AND file = %s AND number = %s"
_FILES = "SELECT DISTINCT file FROM api.job_files WHERE job = %s ORDER BY file"
_DROP = "DELETE FROM api.job_files WHERE job = %s AND file = %s"
_DROP_UPLOADED = "DELETE FROM api.job_files WHERE job = %s AND file LIKE 'uploaded:%%'"
_DROP_CANCELLED = """
DELETE FROM api.job_files f USING api.jobs j
WHERE j.job = f.job AND j.job = %s AND j.state = 'cancelled' AND f.file LIKE 'uploaded:%%'
"""
_DROP_OLD = """
DELETE FROM api.job_files f USING api.jobs j
WHERE j.job = f.job AND j.ended IS NOT NULL AND (f.file LIKE 'uploaded:%%'
    OR j.ended < clock_timestamp() - make_interval(days => %s))
"""


class TooManyJobsError(LedgerError):
    """The caller has more jobs under way than one caller may have."""

    code = "too_many_jobs"
    retry_after_seconds = 30

    def __init__(self) -> None:
        super().__init__(
            f"This caller has {OPEN_OF_CALLER_MAX} jobs that wait or run.",
            way_out="Wait for one of them to end, or cancel it.",
        )


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its row has it; times are UTC.

    ``progress`` says in words what is being done, ``done`` of ``total``. ``error`` is the code,
    sentence and way out of what ended it.
    """

    job: str
    kind: Kind
    caller: str
    actor: str
    on_behalf: bool
    request_id: str
    digest: bytes
    parameters: Mapping[str, Any]
    state: State
    cancelling: bool
    progress: str
    done: int
    total: int
    result: Any
    error: Mapping[str, str] | None
    asked: datetime
    began: datetime | None
    ended: datetime | None
    attempts: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for; ``digest`` is a keyed one of all that they sent."""

    kind: Kind
    caller: str
    actor: str
    on_behalf: bool
    request_id: str
    digest: bytes
    parameters: Mapping[str, Any]


# --- asking ------------------------------------------------------------------------------------


def asked_before(connection: Connection[Any], asked: Asked) -> Job | None:
    """Return the job that was asked for under this key; RequestReusedError for another one."""
    found = _one(connection, _ASKED, (asked.caller, asked.request_id))
    if found is not None and bytes(found.digest) != asked.digest:
        raise RequestReusedError(asked.request_id)
    return found


def ask(
    connection: Connection[Any],
    asked: Asked,
    files: Iterable[tuple[str, Iterable[bytes]]] = (),
) -> tuple[Job, bool]:
    """Put a job in the queue with its files, whole or not at all; say whether it was there before.

    ``files`` are names with their pieces. Raises RequestReusedError, TooManyJobsError and
    BusyError.
    """
    before = asked_before(connection, asked)
    if before is not None:
        return before, True
    job = ids.new_id(JOB)
    with connection.transaction():
        connection.execute(_ALONE)
        before = asked_before(connection, asked)
        if before is not None:
            return before, True
        _must_have_room(connection, asked.caller)
        parameters = orjson.dumps(asked.parameters).decode()
        connection.execute(
            _ASK,
            (
                job,
                asked.kind,
                asked.caller,
                asked.actor,
                asked.on_behalf,
                asked.request_id,
                asked.digest,
                parameters,
            ),
        )
        for name, pieces in files:
            for number, piece in enumerate(pieces):
                connection.execute(_PUT, (job, name, number, piece), binary=True)
    found = find(connection, job)
    if found is None:
        raise AssertionError("nobody deletes jobs")
    return found, False


def _must_have_room(connection: Connection[Any], caller: str) -> None:
    row = connection.execute(_OPEN, (caller,)).fetchone()
    mine, everybodys = row or (0, 0)
    if mine >= OPEN_OF_CALLER_MAX:
        raise TooManyJobsError
    if everybodys >= OPEN_MAX:
        raise BusyError(retry_after_seconds=30)


def find(connection: Connection[Any], job: str) -> Job | None:
    """Return a job, None where there is none of that id."""
    return _one(connection, _FIND, (job,))


def list_jobs(
    connection: Connection[Any],
    *,
    caller: str | None = None,
    kind: Kind | None = None,
    state: State | None = None,
    before: str | None = None,
    limit: int = 100,
) -> list[Job]:
    """Return jobs (of a caller, kind, state) from the newest back, in front of job ``before``."""
    given = {"caller": caller, "kind": kind, "state": state, "before": before, "limit": limit}
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(_LIST, given).fetchall()


def cancel(connection: Connection[Any], job: str) -> None:
    """Have a job end: one that waits at once, one that runs as soon as its worker looks."""
    with connection.transaction():
        connection.execute(_CANCEL, (job,))
        connection.execute(_DROP_CANCELLED.encode(), (job,))


def _one(connection: Connection[Any], statement: str, given: Sequence[Any]) -> Job | None:
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(statement.encode(), given).fetchone()


# --- working -----------------------------------------------------------------------------------


def take(connection: Connection[Any], worker: str, lease_seconds: float) -> Job | None:
    """Take the oldest job that waits, or whose worker is gone; None where there is none."""
    given = {"worker": worker, "lease": lease_seconds}
    with connection.cursor(row_factory=class_row(Job)) as cursor:
        return cursor.execute(_TAKE.encode(), given).fetchone()


def renew(
    connection: Connection[Any],
    job: str,
    worker: str,
    lease_seconds: float,
    progress: tuple[str, int, int],
) -> bool | None:
    """Go on holding a job; say whether it is to be cancelled. None: it is lost to another."""
    row = connection.execute(_RENEW, (lease_seconds, *progress, job, worker)).fetchone()
    return None if row is None else bool(row[0])


def end(
    connection: Connection[Any],
    job: str,
    worker: str,
    state: State,
    progress: tuple[str, int, int],
    *,
    result: Any = None,
    error: Mapping[str, str] | None = None,
) -> bool:
    """End a job, if it is still held; what was uploaded for it goes. Says whether it was held."""
    told = None if result is None else orjson.dumps(result).decode()
    fault = None if error is None else orjson.dumps(error).decode()
    with connection.transaction():
        ended = connection.execute(_END, (state, told, fault, *progress, job, worker)).rowcount
        if ended:
            connection.execute(_DROP_UPLOADED.encode(), (job,))
    return ended == 1


def give_back(connection: Connection[Any], job: str, worker: str) -> None:
    """Let another worker go on with a job, for this one is being stopped."""
    connection.execute(_GIVE_BACK, (job, worker))


# --- files -------------------------------------------------------------------------------------


def put_file(
    connection: Connection[Any], job: str, worker: str, name: str, pieces: Iterable[bytes]
) -> None:
    """Keep what a job has made, in place of what it made before; nothing where it is lost."""
    with connection.transaction():
        if connection.execute(_HELD, (job, worker)).fetchone() is None:
            return
        connection.execute(_DROP, (job, name))
        for number, piece in enumerate(pieces):
            connection.execute(_PUT, (job, name, number, piece), binary=True)


def file_names(connection: Connection[Any], job: str) -> list[str]:
    """Return the names of a job's files."""
    return [name for (name,) in connection.execute(_FILES, (job,))]


def pieces_of(connection: Connection[Any], job: str, name: str) -> Iterator[bytes]:
    """Yield a file's pieces, each read by a statement of its own."""
    number = 0
    while found := piece_of(connection, job, name, number):
        yield found
        number += 1


def piece_of(connection: Connection[Any], job: str, name: str, number: int) -> bytes | None:
    """Return one piece of a file, None behind the last."""
    row = connection.execute(_PIECE, (job, name, number), binary=True).fetchone()
    return bytes(row[0]) if row else None


def drop_old_files(connection: Connection[Any]) -> int:
    """Drop the files of jobs that have long ended; say how many pieces there were."""
    return connection.execute(_DROP_OLD.encode(), (KEPT_DAYS,)).rowcount
