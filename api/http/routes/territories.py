"""Territories: the tree of them, who manages them, and the figures of what was settled there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, CursorError, Limit, make_cursor, page_of, read_cursor
from api.http.inputs import Day, TerritoryId
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import ForeignId, Page, Shape
from api.http.writing import (
    STATED,
    InWrites,
    Stated,
    fact,
    reflected_etag,
)
from api.periods import period
from ledger import commands
from ledger import organisation_commands as facts
from ledger.commands import Id, parse
from projections import case_figures, orphans
from projections import people as views

router = APIRouter(prefix="/v1/territories", tags=["territories"])


class Territory(Shape):
    """A territory in the tree of them.

    ``depth`` is how many stand above it; ``managers`` include the ``head``. ``orphaned`` is how
    many customers its head looks after because their owners have left.
    """

    territory: str
    name: str
    parent: str | None
    head: str | None
    managers: list[str]
    foreign_ids: list[ForeignId]
    depth: int
    orphaned: int


class TerritoryAsIs(commands.Command):
    """A territory as a whole, as it is from now on: what is not given, it has not."""

    name: commands.Name
    parent: Id | None = None
    head: Id | None = None
    managers: Annotated[tuple[Id, ...], Field(max_length=100)] = ()
    foreign_ids: commands.Numbers = ()


class ApprovalTimes(Shape):
    """How long approvals of one outcome took, from the opening to the end."""

    outcome: str
    approvals: int
    median_seconds: int
    longest_seconds: int


class TerritoryFigures(Shape):
    """What was settled in a territory in the period; ``territory`` None is what lay in none.

    A customer's territory is that in which it was when the approval or conflict was opened.
    ``approvals`` ended in the period, ``conflicts_opened`` were opened in it, ``ruled`` (by how it
    was ruled) and ``gone`` ended in it; ``approvals_open`` and ``conflicts_open`` were still open
    at its end. Approvals that needed no step are not counted.
    """

    territory: str | None
    name: str | None
    approvals: list[ApprovalTimes]
    approvals_open: int
    conflicts_opened: int
    conflicts_open: int
    ruled: dict[str, int]
    gone: int


class Figures(Shape):
    """The figures of a period: from ``since`` until the day before ``until``."""

    since: date
    until: date
    territories: list[TerritoryFigures]


# --- reading -----------------------------------------------------------------------------------


@router.get("")
def list_territories(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    reads: InReads,
    limit: Limit = 500,
    cursor: Cursor = None,
) -> Page[Territory]:
    """List territories as a tree is read: each before those below it, these by name."""
    after = read_cursor(cursor, "territories", str)
    with services.reading(reads) as connection:
        reads.response.headers["ETag"] = reflected_etag(connection, reads)
        tree = _tree(connection, caller)
    start = _behind(tree, after[0]) if after else 0
    shown, following = page_of(
        tree[start : start + limit + 1],
        limit,
        lambda each: make_cursor("territories", each.territory),
    )
    return Page(items=list(shown), next=following)


def _tree(connection: Any, caller: Caller) -> list[Territory]:
    orphaned = orphans.counts(connection, caller.day)
    return [
        Territory(
            territory=each.territory.territory,
            name=each.territory.name,
            parent=each.territory.parent,
            head=each.territory.head,
            managers=sorted(each.territory.managers),
            foreign_ids=[ForeignId.model_validate(one) for one in each.territory.foreign_ids],
            depth=each.depth,
            orphaned=orphaned.get(each.territory.territory, 0),
        )
        for each in views.territory_tree(connection)
    ]


def _behind(tree: Sequence[Territory], territory: str) -> int:
    for number, each in enumerate(tree, 1):
        if each.territory == territory:
            return number
    raise CursorError


@router.get("/figures")
def get_figures(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_FIGURES)],
    reads: InReads,
    since: Annotated[Day | None, Query(description="The first day; else 30 days earlier.")] = None,
    until: Annotated[
        Day | None, Query(description="The first day behind the period; else tomorrow.")
    ] = None,
) -> Figures:
    """Tell how long approvals took (审批时长), and how conflicts (撞单) ended, by territory."""
    organisation = caller.organisation
    begin, end = period(since, until, organisation)
    with services.reading(reads) as connection:
        found = case_figures.case_figures(
            connection, organisation.start_of(begin), organisation.start_of(end)
        )
    return Figures(
        since=begin,
        until=end,
        territories=[
            TerritoryFigures.model_validate(each) for each in found if caller.within(each.territory)
        ],
    )


@router.get("/{territory}")
def get_territory(
    territory: TerritoryId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_ORGANISATION)],
    reads: InReads,
) -> Territory:
    """Return a territory; the ETag is for a change of it."""
    with services.reading(reads) as connection:
        reads.response.headers["ETag"] = reflected_etag(connection, reads)
        found = [each for each in _tree(connection, caller) if each.territory == territory]
    if not found:
        raise NotFoundError("territory", territory)
    return found[0]


# --- writing -----------------------------------------------------------------------------------


@router.post("", status_code=201, responses=STATED)
async def define_territory(
    as_is: TerritoryAsIs,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Make a territory. Where four eyes are required, one with managers is proposed (202)."""
    caller.must_be_within(as_is.parent)
    command = parse(facts.DefineTerritory, as_is.model_dump(exclude_unset=True))
    answer = await fact(services, caller, writes, command)
    if answer.about is not None:
        writes.response.headers["Location"] = f"/v1/territories/{answer.about}"
    return answer


@router.put("/{territory}", status_code=201, responses=STATED)
async def change_territory(
    territory: TerritoryId,
    as_is: TerritoryAsIs,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.WRITE_ORGANISATION)],
    writes: InWrites,
) -> Stated:
    """Say how a territory is from now on, as a whole.

    Where four eyes are required, another head, other managers or another place are proposed (202).
    """
    known = caller.organisation.territory(territory)
    if known is None:
        # What the caller knows may be a second older than the territory.
        now = await run_in_threadpool(services.directory.organisation, now=True)
        known = now.territory(territory)
    if known is None:
        raise NotFoundError("territory", territory)
    caller.must_be_within(territory)
    if as_is.parent != known.parent:
        caller.must_be_within(as_is.parent)
    fields = as_is.model_dump(exclude_unset=True) | {"territory": territory}
    command = parse(facts.DefineTerritory, fields)
    return await fact(services, caller, writes, command)
