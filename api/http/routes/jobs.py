"""Jobs: what was asked for that takes longer than a request, how far it is, and cancelling it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.jobs import Job, own_job, sees_all, shape
from api.http.permissions import Permission
from api.http.services import InServices
from api.http.shapes import Page
from api.jobs import table
from ledger.commands import Id

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
JobId = Annotated[Id, Path(description="The job's id.")]


@router.get("")
def list_jobs(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    kind: Annotated[table.Kind | None, Query(description="Only jobs of this kind.")] = None,
    state: Annotated[table.State | None, Query(description="Only jobs in this state.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Job]:
    """List one's own jobs, the newest first; administrators see everybody's."""
    before = read_cursor(cursor, "jobs", str)
    with services.ledger.pool.connection() as connection:
        found = table.list_jobs(
            connection,
            caller=None if sees_all(caller) else caller.name,
            kind=kind,
            state=state,
            before=before[0] if before else None,
            limit=limit + 1,
        )
    shown, following = page_of(found, limit, lambda each: make_cursor("jobs", each.job))
    return Page(items=[shape(each) for each in shown], next=following)


@router.get("/{job}")
def get_job(
    job: JobId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
) -> Job:
    """Return a job: how far it is, or what came of it."""
    return shape(own_job(services, caller, job))


@router.post("/{job}/cancel", status_code=202)
def cancel_job(
    job: JobId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
) -> Job:
    """Have a job end: one that waits at once, one that runs within seconds; one that is over stays.

    What an import has filed by then stays filed; the same import asked for again goes on there.
    """
    own_job(services, caller, job)
    with services.ledger.pool.connection() as connection:
        table.cancel(connection, job)
    return shape(own_job(services, caller, job))
