"""Versions of the decider: which one decides since when, and putting another in force."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Response
from psycopg import Connection
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.permissions import Permission
from api.http.services import InServices
from api.http.shapes import Page, Shape
from api.http.unchanged import (
    UNCHANGED,
    InUnless,
)
from api.http.writing import (
    InWrites,
    Stated,
    etag,
    fact,
)
from ledger import commands, deciders
from ledger import organisation_commands as facts
from ledger.commands import parse
from ledger.recording import ORGANISATION

router = APIRouter(prefix="/v1/deciders", tags=["policies"])
_ADOPTED = """
SELECT position, recorded, body FROM ledger.events
WHERE stream = %s AND version <= %s AND name = 'DeciderAdopted.v1' ORDER BY version DESC
"""


class DeciderVersion(Shape):
    """A version of the decider that was put in force; 1 was, when the organisation was founded.

    It decides what was recorded behind ``position``, until the next one.
    """

    version: int
    position: int | None
    recorded: datetime | None
    in_force: bool


class Deciders(Page[DeciderVersion]):
    """The versions that ever were in force, the newest first; ``known`` are those that could be."""

    known: list[int]


class AdoptIn(commands.Command):
    """The version that is to decide from now on; it never goes back."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1)]


@router.get("", responses=UNCHANGED)
def list_deciders(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    unless: InUnless,
    response: Response,
) -> Deciders:
    """List the versions that were in force, the newest first; the ETag is for adopting another."""
    organisation, version = services.directory.now()
    response.headers["ETag"] = etag(version)
    response.headers["Ledger-Position"] = str(organisation.position - 1)
    unless.check(response)
    with services.ledger.pool.connection() as connection:
        adopted = _adopted(connection, version)
    first = DeciderVersion(version=1, position=None, recorded=None, in_force=not adopted)
    return Deciders(items=[*adopted, first], known=sorted(deciders.deciders()))


def _adopted(connection: Connection[Any], version: int) -> list[DeciderVersion]:
    rows = connection.execute(_ADOPTED, (ORGANISATION, version)).fetchall()
    return [
        DeciderVersion(
            version=orjson.loads(body)["data"]["version"],
            position=position,
            recorded=recorded,
            in_force=number == 0,
        )
        for number, (position, recorded, body) in enumerate(rows)
    ]


@router.post("", status_code=201)
async def adopt_decider(
    adopt: AdoptIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Have the requests from now on decided by a version of the decider.

    Every enforcer must have it: one that lacks the version in force stops.
    """
    caller.must_be_unbound()
    return await fact(services, caller, writes, parse(facts.AdoptDecider, adopt.model_dump()))
