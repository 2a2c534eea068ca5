"""What the routes of jobs share: asking for one, who sees it, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from fastapi import Response
from pydantic import Field

from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import Services
from api.http.shapes import Shape
from api.http.writing import Keyed
from api.jobs import table
from ledger.canonical import canonical_bytes
from ledger.recording import new_request_id

# Of what a job was asked for, too long to be shown each time.
_NOT_SHOWN = frozenset({"mapping", "digests"})


class Progress(Shape):
    """What a job does now, and how much of it is done; a ``total`` of 0 is not known yet."""

    words: str = Field(examples=["filing"])
    done: int
    total: int


class JobError(Shape):
    """What ended a job: a stable code, a sentence, and what to do next."""

    code: str = Field(examples=["file_unreadable"])
    sentence: str
    way_out: str


class Job(Shape):
    """Work that takes longer than a request; it survives a restart, and can be cancelled.

    ``state`` is ``waiting``, ``running``, ``done`` (with its ``result``), ``failed`` (with its
    ``error``) or ``cancelled``. ``cancelling``: it was asked to end. ``actor`` is whose act it is,
    ``caller`` as whom it was asked for, with ``parameters``.
    """

    job: str = Field(examples=["job_01997d2e-5ca1-7c3a-9e0b-1f2a3b4c5d6e"])
    kind: table.Kind
    state: table.State
    cancelling: bool
    progress: Progress
    result: dict[str, Any] | None
    error: JobError | None
    parameters: dict[str, Any]
    actor: str
    caller: str
    asked: datetime
    began: datetime | None
    ended: datetime | None
    repeated: bool = False


def shape(job: table.Job, *, repeated: bool = False) -> Job:
    """Return a job as it is shown."""
    return Job(
        job=job.job,
        kind=job.kind,
        state=job.state,
        cancelling=job.cancelling and job.state == "running",
        progress=Progress(words=job.progress, done=job.done, total=job.total),
        result=job.result,
        error=None if job.error is None else JobError(**job.error),
        parameters={key: each for key, each in job.parameters.items() if key not in _NOT_SHOWN},
        actor=job.actor,
        caller=job.caller,
        asked=job.asked,
        began=job.began,
        ended=job.ended,
        repeated=repeated,
    )


def asked_of(
    services: Services,
    caller: Caller,
    writes: Keyed,
    kind: table.Kind,
    parameters: Mapping[str, Any],
) -> table.Asked:
    """Return what somebody asks for; raises ForbiddenError, TextRefusedError, NotCanonicalError."""
    sent = {"job": kind, "parameters": parameters, "actor": caller.actor}
    return table.Asked(
        kind,
        caller.name,
        caller.actor,
        caller.on_behalf,
        writes.key or new_request_id(),
        services.ledger.vault.request_digest(canonical_bytes(sent)),
        parameters,
    )


def ask(
    services: Services,
    response: Response,
    asked: table.Asked,
    files: Iterable[tuple[str, Iterable[bytes]]] = (),
) -> Job:
    """Put a job in the queue, and answer 202 with where it is looked at."""
    with services.ledger.pool.connection() as connection:
        job, repeated = table.ask(connection, asked, files)
    services.jobs.wake()
    response.status_code = 202
    response.headers["Location"] = f"/v1/jobs/{job.job}"
    if repeated:
        response.headers["Idempotency-Replayed"] = "true"
    return shape(job, repeated=repeated)


def sees_all(caller: Caller) -> bool:
    """Say whether a caller sees the jobs of others too."""
    return caller.may(Permission.WRITE_ORGANISATION) and caller.territories is None


def own_job(services: Services, caller: Caller, job: str) -> table.Job:
    """Return a job that the caller may see; raises NotFoundError."""
    with services.ledger.pool.connection() as connection:
        found = table.find(connection, job)
    if found is None or not (found.caller == caller.name or sees_all(caller)):
        raise NotFoundError("job", job)
    return found
