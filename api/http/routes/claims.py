"""Claims: filing one or many, asking what would come of one, and what came of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from psycopg import Connection
from pydantic import TypeAdapter

from api.http.admission import requires
from api.http.callers import Caller
from api.http.claim_batch import LINES_MAX, ClaimBatch, ClaimLine, ProblemLine
from api.http.claiming import Claim, said_by, shown, told
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.ndjson import MEDIA_TYPE, NdjsonResponse, lines_of
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices, Services
from api.http.shapes import MISSING, Page, Shape
from api.http.writing import (
    InKeyed,
    InWrites,
    show_version,
    submit,
)
from consumers.checking import would_decide
from ledger import commands
from ledger.commands import Id, Moment, Note
from ledger.envelope import Origin
from ledger.recording import Asked, new_request_id
from projections import claims

router = APIRouter(prefix="/v1/claims", tags=["claims"])
BATCH_BYTES_MAX = 16 * 1_048_576


class ClaimIn(commands.Command):
    """A claim to file. Without ``claimant`` the caller claims for themselves."""

    customer: Id
    claimant: Id | None = None
    note: Note | None = None
    occurred: Moment | None = None


class ClaimCheck(Shape):
    """What would be decided on a claim now, with the log as it is up to ``position``.

    Nothing was recorded, and nothing is promised. ``is_behind`` says that recorded requests still
    wait for their decision, which may change this. The other fields are those of a claim.
    """

    customer: str
    claimant: str
    status: Literal["granted", "refused", "awaiting"]
    reason: str | None = None
    sentence: str | None = None
    owner: str | None = None
    protected_until: datetime | None = None
    retry_at: datetime | None = None
    filed_for: str | None = None
    effective: datetime
    position: int
    is_behind: bool


# --- writing -----------------------------------------------------------------------------------


@router.post("", status_code=202, responses={201: {"model": Claim}})
async def file_claim(
    claim: ClaimIn,
    response: Response,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.CLAIM)],
    writes: InWrites,
) -> Claim:
    """File a claim; with ``Prefer: wait=N`` the answer has its decision.

    A refused claim is a recorded outcome (201, status ``refused``) and no error. Without the
    decision the answer is 202, and ``Location`` names the claim.
    """
    fields: dict[str, Any] = {
        "customer": claim.customer,
        "claimant": claim.claimant or caller.actor,
        "note": claim.note,
    }
    recorded, decided = await submit(
        services, caller, writes, commands.FileClaim, fields, occurred=claim.occurred
    )
    response.headers["Location"] = f"/v1/claims/{recorded.positions[-1]}"
    return Claim(**told(fields["claimant"], recorded, decided))


_BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "string",
                    "description": "A line each: a claim as of `POST /v1/claims`, and a `key`.",
                },
                "example": '{"customer": "cus_1", "key": "row-1"}\n'
                '{"customer": "cus_2", "claimant": "per_2", "key": "row-2"}\n',
            }
        },
    }
}


_BATCH_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A line for each line: the claim, or a problem.",
        "content": {
            MEDIA_TYPE: {
                "example": '{"line": 1, "key": "row-1", "claim": 17, "customer": "cus_1",'
                ' "claimant": "per_1", "status": "granted", "owner": "per_1"}\n'
                '{"line": 2, "key": "row-2", "problem": {"type": "urn:guishu:problem:unknown_id",'
                ' "title": "unknown id", "status": 422, "detail": "There is no customer cus_2.",'
                ' "code": "unknown_id"}}\n',
                # Of the whole a schema can only say that it is text.
                "x-lines": TypeAdapter(ClaimLine | ProblemLine).json_schema(),
            }
        },
    },
    413: {"description": "The body is longer than 16 MiB."},
    415: {"description": f"The body is not {MEDIA_TYPE}."},
}


@router.post(
    "/batch",
    response_class=NdjsonResponse,
    max_body_size=BATCH_BYTES_MAX,
    openapi_extra=_BATCH_BODY,
    responses=_BATCH_ANSWERS,
)
async def file_claims(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.CLAIM)],
    writes: InKeyed,
) -> NdjsonResponse:
    """File up to 10,000 claims, a line each (`application/x-ndjson`), answered in their order.

    A line is what `POST /v1/claims` takes, and may have a `key`. Its request id is the
    `Idempotency-Key` of the batch, a slash, and its key, or else its number: so a batch that was
    cut off can be sent again, and what was recorded gets its first answer. An answer has `line`
    (its number, from 1 on), `key`, and either the claim or a `problem`; a bad line does not stop
    the others. With `Prefer: wait=N` the decisions are waited for up to N seconds altogether.

    Lines are recorded in slices as they come; a client that goes away leaves what was recorded.
    """
    batch = ClaimBatch(services, caller, writes)
    await batch.take(lines_of(request, LINES_MAX))
    headers = {"Ledger-Position": str(batch.last)}
    if writes.wait_seconds:
        headers["Preference-Applied"] = f"wait={writes.wait_seconds}"
    return NdjsonResponse(batch.answers(), headers=headers)


@router.post(
    "/check",
    responses={409: {"description": "The customer waits for what is parked."}},
)
def check_claim(
    claim: ClaimIn,
    response: Response,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.CLAIM)],
) -> ClaimCheck:
    """Say what would be decided on a claim now; nothing is recorded, and nothing promised.

    Where the customer waits for a request that could not be decided, the answer is a problem (409).
    """
    command = commands.FileClaim(
        customer=claim.customer, claimant=claim.claimant or caller.actor, note=claim.note
    )
    origin = Origin(
        caller=caller.name,
        request_id=new_request_id(),
        actor=caller.actor,
        on_behalf_of=caller.actor if caller.on_behalf else None,
        occurred=claim.occurred,
    )
    ledger = services.ledger
    with ledger.pool.connection() as connection:
        checked = would_decide(
            connection, ledger.catalogue, services.rehearsing, Asked(command, origin)
        )
    response.headers["Ledger-Position"] = str(checked.head)
    draft = checked.draft
    customer = draft.data.customer
    said = next(said for data in draft.all if (said := said_by(data)) is not None)
    return ClaimCheck(
        customer=customer,
        claimant=command.claimant,
        filed_for=None if customer == command.customer else command.customer,
        effective=draft.effective,
        position=checked.head,
        is_behind=checked.is_behind,
        **{name: value for name, value in said.items() if name != "approval"},
    )


# --- reading -----------------------------------------------------------------------------------


@router.get("")
def list_claims(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
    customer: Annotated[
        Id | None, Query(description="Those of a customer, and those filed for it as a duplicate.")
    ] = None,
    claimant: Annotated[Id | None, Query(description="Those of a person.")] = None,
    status: claims.Status | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Claim]:
    """List claims from the newest back: those that are as all of the filters say."""
    with services.reading(reads) as connection:
        return page_of_claims(services, connection, customer, claimant, status, limit, cursor)


def page_of_claims(
    services: Services,
    connection: Connection[Any],
    customer: str | None,
    claimant: str | None,
    status: claims.Status | None,
    limit: int,
    cursor: str | None,
) -> Page[Claim]:
    """Return a page of claims."""
    after = read_cursor(cursor, "claims", int)
    found = claims.find(
        connection,
        limit + 1,
        customer=customer,
        claimant=claimant,
        status=status,
        before=after[0] if after else claims.POSITION_MAX,
    )
    page, following = page_of(found, limit, lambda each: make_cursor("claims", each.position))
    return Page(items=shown(connection, services.ledger.catalogue, page), next=following)


@router.get("/{claim}", responses=MISSING)
def get_claim(
    claim: Annotated[int, Path(ge=1, le=2**63 - 1)],
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_OWNERSHIP)],
    reads: InReads,
) -> Claim:
    """Return a claim and what came of it."""
    with services.reading(reads) as connection:
        found = claims.claim_at(connection, claim)
        if found is None:
            raise NotFoundError("claim", claim)
        show_version(connection, reads, found.customer)
        (told,) = shown(connection, services.ledger.catalogue, [found])
    return told
