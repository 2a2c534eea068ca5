"""Errors as problems (RFC 9457): ``application/problem+json`` with a stable type for each.

A type is ``urn:guishu:problem:`` and the error's code. Beside the fields of the RFC stand ``code``,
``way_out`` (what to do next, for people), and where several things are wrong ``errors``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import orjson
import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from psycopg_pool import PoolTimeout, TooManyRequests
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from consumers.leading import ENDED_BY_THE_SERVER
from ledger.commands import UnknownIdError
from ledger.errors import LedgerError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:guishu:problem:"
_RETRY_SECONDS = 1
_log = logging.getLogger(__name__)

_INVALID, _CONFLICT, _FORBIDDEN, _UNAVAILABLE = 422, 409, 403, 503
STATUS: Mapping[str, int] = {
    # What was sent is wrong.
    "invalid_request": _INVALID,
    "unknown_id": _INVALID,
    "check_digit": _INVALID,
    "text_refused": _INVALID,
    "not_canonical": _INVALID,
    "request_reused": _INVALID,
    "decider_missing": _INVALID,
    "entry_too_large": 413,
    "mapping": _INVALID,
    "mapping_invalid": _INVALID,
    "token": _INVALID,
    # What was sent does not fit what there is.
    "version_conflict": _CONFLICT,
    "four_eyes": _CONFLICT,
    "proposal_outdated": _CONFLICT,
    "founded_before": _CONFLICT,
    "under_way": _CONFLICT,
    "would_wait": _CONFLICT,
    "not_founded": _CONFLICT,
    "hand_over_under_way": _CONFLICT,
    # Who asks may not.
    "not_permitted": _FORBIDDEN,
    "import_of_another": _FORBIDDEN,
    # Who asks has asked for enough.
    "too_many_jobs": 429,
    # Later it may well work.
    "busy": _UNAVAILABLE,
    "store_unavailable": _UNAVAILABLE,
    "store_full": _UNAVAILABLE,
    "another_timeline": _UNAVAILABLE,
    "outcome_unknown": _UNAVAILABLE,
    "not_reflected": _UNAVAILABLE,
    "not_followed": _UNAVAILABLE,
    "issuer_unavailable": _UNAVAILABLE,
}
"""The HTTP status of the ledger's errors by code; what is not named is a defect, and a 500."""


_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "body_too_slow",
    413: "body_too_large",
}
# Of what the framework itself says, without a way out.
_SAID = {
    404: ("There is no such address.", "GET /v1/openapi.json lists all that there are."),
    405: ("The address does not take this method.", "Use one of those that Allow names."),
}
# What is there stays there: of these unknown means that the path is wrong.
_FOR_EVER = frozenset({"customer", "person", "territory"})
# Where a field may stand.
_PLACES = frozenset({"body", "query", "header", "path", "cookie"})
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
JSON = "application/json"


class HttpError(LedgerError):
    """An error of the HTTP interface itself, with its status and headers."""

    status = 400

    def __init__(
        self, sentence: str, *, way_out: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(sentence, way_out=way_out)
        self.headers = dict(headers or {})


class NotFoundError(HttpError):
    """What the path names does not exist."""

    code, status = "not_found", 404

    def __init__(self, what: str, named: object) -> None:
        super().__init__(f"There is no {what} {named}.", way_out=f"Look the {what} up.")


class UnauthorizedError(HttpError):
    """The caller gave no credentials, or some that do not hold."""

    code, status = "unauthorized", 401

    def __init__(self, sentence: str, *, given: bool = True) -> None:
        error = ', error="invalid_token"' if given else ""
        super().__init__(
            sentence,
            way_out="Send Authorization: Bearer and a token that is in force.",
            headers={"WWW-Authenticate": f'Bearer realm="guishu"{error}'},
        )


class ForbiddenError(HttpError):
    """The caller lacks a permission, which is named."""

    code, status = "forbidden", 403

    def __init__(
        self, permission: str, sentence: str | None = None, *, way_out: str | None = None
    ) -> None:
        super().__init__(
            sentence or f"The permission {permission} is needed.",
            way_out=way_out or "Ask an administrator for a token or role that has it.",
        )
        self.permission = permission


class PreconditionFailedError(HttpError):
    """What If-Match names is not how it stands any more; nothing was recorded."""

    code, status = "precondition_failed", 412


class NotModified(Exception):  # noqa: N818 - it is none
    """The caller has already what would be answered; ``headers`` say which it is."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__("not modified")
        self.headers = dict(headers)


class MalformedHeaderError(HttpError):
    """A header cannot be understood."""

    code, status = "malformed_header", 400

    def __init__(self, header: str, sentence: str) -> None:
        super().__init__(f"{header}: {sentence}", way_out="Correct the header, or leave it out.")


class TooManyRequestsError(HttpError):
    """The caller asks more often than callers may."""

    code, status = "too_many_requests", 429

    def __init__(self, retry_after_seconds: float) -> None:
        seconds = max(1, round(retry_after_seconds + 0.5))
        super().__init__(
            "This caller asks more often than callers may.",
            way_out=f"Go on in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )


def problem(
    status: int,
    code: str,
    sentence: str,
    *,
    way_out: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem as a response."""
    content = orjson.dumps(as_problem(status, code, sentence, way_out=way_out, **more))
    return Response(content, status, dict(headers or {}), MEDIA_TYPE)


def as_problem(
    status: int, code: str, sentence: str, *, way_out: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a problem as JSON has it; also a line of a batch may be one."""
    said: dict[str, Any] = {
        "type": TYPE_PREFIX + code,
        "title": code.replace("_", " "),
        "status": status,
        "detail": sentence,
        "code": code,
    }
    if way_out is not None:
        said["way_out"] = way_out
    return said | more


def of_error(error: LedgerError, *, within: str = "") -> dict[str, Any]:
    """Return the problem that an error of the ledger is.

    ``within`` is where in the request its field stands, where the error does not say so itself.
    """
    more: dict[str, Any] = {}
    field = getattr(error, "field", None)
    if field:
        more["errors"] = [{"pointer": _field_pointer(field, within), "detail": str(error)}]
    permission = getattr(error, "permission", None)
    if permission:
        more["permission"] = permission
    return as_problem(status_of(error), error.code, str(error), way_out=error.way_out, **more)


def status_of(error: LedgerError) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return STATUS.get(error.code, 500)


def register(app: FastAPI) -> None:
    """Have every error of the application answered by a problem."""
    app.add_exception_handler(LedgerError, _ledger_error)
    app.add_exception_handler(NotModified, _not_modified)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(ClientDisconnect, _client_gone)
    for lost in (psycopg.OperationalError, *ENDED_BY_THE_SERVER):
        app.add_exception_handler(lost, _database_lost)
    app.add_exception_handler(psycopg.errors.UndefinedTable, _not_of_this_version)
    app.add_exception_handler(psycopg.errors.UndefinedColumn, _not_of_this_version)
    app.add_exception_handler(PoolTimeout, _busy)
    app.add_exception_handler(TooManyRequests, _busy)
    app.add_exception_handler(Exception, _defect)


async def _ledger_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, LedgerError):
        raise error
    if _is_of_the_path(error, request):
        error = NotFoundError(error.what, error.unknown)
    is_in_path = getattr(error, "field", None) in request.path_params
    said = of_error(error, within="path" if is_in_path else "body")
    headers = dict(getattr(error, "headers", {}))
    if said["status"] in {429, _UNAVAILABLE}:
        seconds = getattr(error, "retry_after_seconds", _RETRY_SECONDS)
        headers.setdefault("Retry-After", str(max(1, round(seconds))))
    if said["status"] >= 500 and error.code not in STATUS and not isinstance(error, HttpError):
        _log.error("%s %s: %s", request.method, request.url.path, error.code, exc_info=error)
    return Response(orjson.dumps(said), said["status"], headers, MEDIA_TYPE)


async def _not_modified(request: Request, error: Exception) -> Response:
    if not isinstance(error, NotModified):
        raise error
    return Response(status_code=304, headers=error.headers)


def _is_of_the_path(error: LedgerError, request: Request) -> TypeGuard[UnknownIdError]:
    """Say whether what is unknown is what the path names."""
    return (
        isinstance(error, UnknownIdError)
        and error.what in _FOR_EVER
        and request.path_params.get(error.what) == error.unknown
    )


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    if _is_of_another_kind(request, error):
        return problem(
            415,
            "unsupported_media_type",
            f"The body must be {JSON}.",
            way_out=f"Send it with Content-Type: {JSON}.",
        )
    errors = [
        {"pointer": _pointer(each["loc"]), "detail": each["msg"].removeprefix("Value error, ")}
        for each in error.errors()
    ]
    return problem(
        _INVALID,
        "invalid_request",
        f"{errors[0]['pointer']}: {errors[0]['detail']}" if errors else "The request is malformed.",
        way_out="Correct what the errors point at, and send it again.",
        errors=errors,
    )


def _is_of_another_kind(request: Request, error: RequestValidationError) -> bool:
    """Say whether a body was not read as JSON, for it was not called so (as by ``curl -d``)."""
    if not any(tuple(each["loc"]) == ("body",) for each in error.errors()):
        return False
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    is_json = kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))
    return bool(kind) and not is_json


def _field_pointer(field: str, within: str) -> str:
    parts = field.split(".")
    return _pointer([within, *parts] if within and parts[0] not in _PLACES else parts)


def _pointer(parts: Sequence[Any]) -> str:
    """Return where in the request something is wrong: ``body/…``, ``query/…``, ``header/…``."""
    # Names that the caller made up may hold what cannot be printed.
    texts = (str(part)[:60].encode("ascii", "backslashreplace").decode() for part in parts)
    return "/".join(text.replace("~", "~0").replace("/", "~1") for text in texts)


async def _http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    code = _CODES.get(error.status_code, f"http_{error.status_code}")
    sentence, way_out = _SAID.get(error.status_code, (str(error.detail), None))
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return problem(error.status_code, code, sentence, way_out=way_out, headers=headers)


def _methods(request: Request) -> list[str]:
    """Return what the address takes, of all its routes; Starlette names those of the first."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


async def _client_gone(request: Request, error: Exception) -> Response:
    # Nobody reads this.
    return problem(400, "client_gone", "The body was cut off.", way_out="Send it again.")


async def _database_lost(request: Request, error: Exception) -> Response:
    _log.warning("%s %s: %s", request.method, request.url.path, str(error).partition("\n")[0])
    return problem(
        _UNAVAILABLE,
        "store_unavailable",
        "The database does not answer.",
        way_out="Try again in a moment.",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


async def _not_of_this_version(request: Request, error: Exception) -> Response:
    return problem(
        _UNAVAILABLE,
        "read_models_outdated",
        "A read model is not there, or not of this version of guishu.",
        way_out="See that the ledger runs; where that does not help, run guishu rebuild.",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


async def _busy(request: Request, error: Exception) -> Response:
    return problem(
        _UNAVAILABLE,
        "busy",
        "More is asked at once than the ledger may queue.",
        way_out="Try again in a moment.",
        headers={"Retry-After": str(_RETRY_SECONDS)},
    )


async def _defect(request: Request, error: Exception) -> Response:
    # Starlette raises it again behind this answer, so that it is logged.
    return problem(
        500,
        "defect",
        "This is a defect of guishu; nothing more was recorded than the log shows.",
        way_out="Tell whoever runs this ledger; its log has the details.",
    )
