"""Whose every customer is, or was at any moment: the whole organisation, streamed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.places import below
from api.http.problems import MalformedHeaderError
from api.http.routes.customers import Ownership, owned_at
from api.http.services import InReads, InServices, Services
from consumers.clock import database_now
from ledger.canonical import instant
from ledger.commands import Id
from projections import intervals
from projections.whois import places_of

router = APIRouter(prefix="/v1/ownership", tags=["ownership"])

PAGE = 1_000
COLUMNS = ("customer", "state", "owner", "since", "until")
CSV, NDJSON = "text/csv", "application/x-ndjson"
_SUFFIXES = {CSV: "csv", NDJSON: "ndjson"}
_CONTENT = {CSV: {"schema": {"type": "string"}}, NDJSON: {"schema": {"type": "string"}}}


@router.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": _CONTENT}},
    operation_id="export_ownership",
)
def export(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.EXPORT)],
    reads: InReads,
    as_of: Annotated[
        AwareDatetime | None, Query(description="Whose they were at a moment; by default now.")
    ] = None,
    known_at: Annotated[
        AwareDatetime | None, Query(description="… as the ledger knew it at another.")
    ] = None,
    territory: Annotated[
        Id | None, Query(description="Only customers that lie in it now, or below.")
    ] = None,
    format: Annotated[
        Literal["csv", "ndjson"] | None, Query(description="Instead of the header Accept.")
    ] = None,
    accept: Annotated[str | None, Header(max_length=500)] = None,
) -> StreamingResponse:
    """Stream whose every customer is, by id, a line each; as CSV with a head, or NDJSON.

    It is one moment's truth, however long it takes: what is decided meanwhile is not in it.
    """
    kind = _kind(format, accept)
    with services.reading(reads) as connection:
        # What is decided while this is read holds from later on, or is known later only.
        now = database_now(connection)
    moment, known = as_of or known_at or now, known_at or now
    wanted = _territories(caller, territory)
    line = _csv_line if kind == CSV else _ndjson_line
    lines = _lines(services, moment, known, wanted, line)
    head = _csv_row(COLUMNS) if kind == CSV else b""
    return StreamingResponse(
        _with_head(head, lines),
        media_type=kind,
        headers={
            "Ledger-Position": reads.response.headers["Ledger-Position"],
            "Content-Disposition": f'attachment; filename="ownership.{_SUFFIXES[kind]}"',
        },
    )


def _kind(format_: str | None, accept: str | None) -> str:
    if format_ is not None:
        return CSV if format_ == "csv" else NDJSON
    if accept is None or "*/*" in accept or NDJSON in accept:
        return CSV if accept is not None and CSV in accept else NDJSON
    if CSV in accept:
        return CSV
    raise MalformedHeaderError("Accept", f"asks for neither {CSV} nor {NDJSON}.")


def _territories(caller: Caller, territory: str | None) -> frozenset[str] | None:
    """Return the territories that are wanted, within those of the caller's token; None: all."""
    wanted = None if territory is None else below(caller.organisation, [territory])
    if caller.territories is None:
        return wanted
    bound = below(caller.organisation, caller.territories)
    return bound if wanted is None else wanted & bound


def _lines(
    services: Services,
    moment: datetime,
    known: datetime,
    wanted: frozenset[str] | None,
    line: Callable[[Ownership], bytes],
) -> Iterator[bytes]:
    """Yield pages of lines; each page is a transaction of its own, and keeps no snapshot open."""
    after = ""
    while True:
        with services.ledger.pool.connection() as connection:
            page = intervals.owners_at(connection, moment, known, after=after, limit=PAGE)
            names = [each.customer for each in page]
            places = places_of(connection, names) if wanted is not None else {}
        yield b"".join(
            line(owned_at(each.customer, each.state))
            for each in page
            if wanted is None or places.get(each.customer) in wanted
        )
        if len(page) < PAGE:
            return
        after = page[-1].customer


def _with_head(head: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from lines


def _ndjson_line(each: Ownership) -> bytes:
    told = {name: getattr(each, name) for name in COLUMNS}
    return orjson.dumps(told, option=orjson.OPT_UTC_Z) + b"\n"


def _csv_line(each: Ownership) -> bytes:
    moments = [instant(at) if at else "" for at in (each.since, each.until)]
    return _csv_row((each.customer, each.state, each.owner or "", *moments))


def _csv_row(cells: tuple[str, ...]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow([_safe(cell) for cell in cells])
    return out.getvalue().encode()


def _safe(cell: str) -> str:
    # A spreadsheet would run it as a formula; ids of an importer's may begin like that.
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
