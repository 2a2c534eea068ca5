"""Imports: files with the mapping that says what they mean, filed by a job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.responses import StreamingResponse

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.jobs import Job, ask, asked_of, own_job
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InServices, Services
from api.http.shapes import Page, Shape
from api.http.sight import note_access
from api.http.writing import (
    InKeyed,
    Keyed,
    etag,
)
from api.imports.errors import MappingInvalidError, MappingProblem
from api.imports.mapping import Mapping as ImportMapping
from api.imports.mapping import parse_mapping
from api.jobs import table
from api.jobs.importing import files_of, must_be_own
from ledger.commands import Id, InvalidRequestError

router = APIRouter(prefix="/v1/imports", tags=["imports"])

BODY_BYTES_MAX = 104_857_600
_MAPPING_BYTES_MAX = 262_144
_FILES_MAX = 20
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["mapping", "file"],
                    "properties": {
                        "mapping": {
                            "type": "string",
                            "description": "The mapping, as TOML (see examples/).",
                            "maxLength": _MAPPING_BYTES_MAX,
                        },
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": _FILES_MAX,
                            "description": "The files that the mapping names, by their names;"
                            " where it names just one, that one may have any name.",
                        },
                    },
                },
            }
        },
    }
}


@router.post("", status_code=202, openapi_extra=_BODY, max_body_size=BODY_BYTES_MAX)
async def ask_import(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.IMPORT)],
    writes: InKeyed,
    check: Annotated[bool, Query(description="Only say what would be filed.")] = False,
) -> Job:
    """Import CSV files or workbooks of up to 100 MB by a mapping, with historical actors and times.

    The answer is a job; its result is the report. What was filed before is left alone, so that an
    import that was cut off, or cancelled, goes on where it stopped when it is asked for again. A
    name under which somebody else has imported is refused (403). Where four eyes are required, the
    job fails with the code ``proposed``: once the proposal is adopted, ask for it again.
    """
    caller.must_be_unbound()
    # Not by FastAPI, which would take in what is uploaded before it knows who calls.
    async with request.form(
        max_files=_FILES_MAX + 1, max_fields=8, max_part_size=_MAPPING_BYTES_MAX
    ) as form:
        text = await _mapping_text(form.getlist("mapping"))
        mapping = parse_mapping(text)
        files = _files(mapping, form.getlist("file"))
        return await run_in_threadpool(
            _ask, services, caller, writes, mapping, text, files, check=check
        )


async def _mapping_text(given: Sequence[UploadFile | str]) -> str:
    if len(given) != 1:
        raise InvalidRequestError("body.mapping", "one mapping is needed")
    (mapping,) = given
    if isinstance(mapping, str):
        return mapping
    data = await mapping.read(_MAPPING_BYTES_MAX + 1)
    if len(data) > _MAPPING_BYTES_MAX:
        raise InvalidRequestError("body.mapping", f"is longer than {_MAPPING_BYTES_MAX:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        problem = MappingProblem("the file", "", "It is not UTF-8; save the file as UTF-8.")
        raise MappingInvalidError([problem]) from None


def _files(mapping: ImportMapping, given: Sequence[UploadFile | str]) -> dict[str, BinaryIO]:
    """Return what was uploaded by the names that the mapping has; raises InvalidRequestError."""
    wanted = files_of(mapping)
    for name in wanted:
        # They are written into a folder of the job's own.
        if name in {"", ".", ".."} or "\\" in name or PurePosixPath(name).name != name:
            raise InvalidRequestError("body.mapping", f"{name!r} is no plain name of a file")
    uploaded = [each for each in given if isinstance(each, UploadFile)]
    if len(wanted) == 1 and len(uploaded) == len(given) == 1:
        return {wanted[0]: uploaded[0].file}
    found = {each.filename or "": each.file for each in uploaded}
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InvalidRequestError(
            "body.file", f"{missing[0]!r} is missing, which the mapping reads"
        )
    if len(given) != len(wanted):
        raise InvalidRequestError("body.file", "there are files that the mapping does not read")
    return {name: found[name] for name in wanted}


def _ask(
    services: Services,
    caller: Caller,
    writes: Keyed,
    mapping: ImportMapping,
    text: str,
    files: Mapping[str, BinaryIO],
    *,
    check: bool,
) -> Job:
    organisation = services.directory.organisation(now=True)
    mine = [each for each in organisation.imports() if each.name == mapping.name]
    must_be_own(services.ledger, caller.name)(organisation, mine)
    parameters = {
        "name": mapping.name,
        "files": list(files),
        "check": check,
        "mapping": text,
        "digests": [_digest(file) for file in files.values()],
    }
    asked = asked_of(services, caller, writes, "import", parameters)
    named = ((table.UPLOADED + name, _pieces(file)) for name, file in files.items())
    return ask(services, writes.response, asked, named)


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(file):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    while piece := file.read(table.PIECE_BYTES):
        yield piece


class Import(Shape):
    """An import, as the organisation has it: until it is closed, its rows are filed by their times.

    ``cut_over`` is when rows without a date take effect, as an opening balance.
    """

    import_id: str
    name: str
    time_zone: str
    cut_over: datetime | None
    opened_position: int
    closed: bool
    closed_at: datetime | None


@router.get("")
def list_imports(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    response: Response,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Import]:
    """List the imports that were ever opened, in that order, whoever ran them."""
    after = read_cursor(cursor, "imports", int)
    organisation, version = services.directory.now()
    response.headers["ETag"] = etag(version)
    response.headers["Ledger-Position"] = str(organisation.position - 1)
    wanted = [
        each for each in organisation.imports() if not after or each.opened_position > after[0]
    ]
    shown, following = page_of(
        wanted[: limit + 1], limit, lambda each: make_cursor("imports", each.opened_position)
    )
    return Page(items=[Import.model_validate(each) for each in shown], next=following)


@router.get(
    "/{job}/rejects",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def get_rejects(
    job: Annotated[Id, Path(description="The id of the import's job.")],
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.IMPORT)],
) -> StreamingResponse:
    """Return the rows that could not be used, and why, as CSV; kept for 30 days.

    404 until all files are read, and for a job without them.
    """
    found = own_job(services, caller, job)
    pieces = _stored(services, found.job)
    first = next(pieces, None)
    if found.kind != "import" or first is None:
        raise NotFoundError("list of rejects of the job", job)
    with services.ledger.pool.connection() as connection:
        # The values of rejected rows are as the files have them.
        note_access(connection, caller, request.scope["route"].path, [found.job], ["rejects"])

    def whole() -> Iterator[bytes]:
        yield first
        yield from pieces

    return StreamingResponse(
        whole(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{found.job}-rejects.csv"'},
    )


def _stored(services: Services, job: str) -> Iterator[bytes]:
    """Yield the list of rejects; whoever reads slowly holds no connection meanwhile."""
    number = 0
    while True:
        with services.ledger.pool.connection() as connection:
            piece = table.piece_of(connection, job, table.REJECTS, number)
        if piece is None:
            return
        yield piece
        number += 1
