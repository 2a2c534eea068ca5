"""Conflicts: between whom, what proves them, and ruling on them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from psycopg import Connection
from pydantic import Field

from api.awaiting import asked_to_rule
from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.finding import find_soon
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Money, Outcome, Page, Shape
from api.http.sight import note_access, sight_of
from api.http.waiting import Conflict, conflict
from api.http.writing import (
    InWrites,
    asked_for,
    show_version,
)
from api.orphaned import territories_below
from ledger import commands, conflicts
from ledger.commands import Id
from projections import timeline
from projections.conflicts import POSITION_MAX, ConflictRow, conflict_of, list_conflicts
from projections.groups import owned_members, split_unseen
from projections.timeline import TimelineEntry

router = APIRouter(prefix="/v1/conflicts", tags=["conflicts"])
ConflictId = Annotated[Id, Path(description="The conflict's id.")]
Kind = Literal["competing_claims", "follow_up", "deal", "identifier", "group"]
Status = Literal["open", "ended", "keep", "award", "split", "allow", "dismiss", "gone"]


class Proof(Shape):
    """A request that proves a conflict: who asked for what, and when.

    ``event`` is what was recorded, ``person`` whom it is about, such as the claimant or who
    followed up. ``words`` (such as a note), ``value`` and ``details`` are seen within one's scope,
    of what one has done oneself, and by whoever is to rule; else they are left out, and ``masked``
    says so.
    """

    position: int
    customer: str
    event: str
    actor: str
    person: str | None
    effective: datetime
    recorded: datetime
    details: dict[str, Any] | None
    words: dict[str, str | None] | None
    value: Money | None
    masked: bool


class Member(Shape):
    """A customer of a group that somebody owns, since when."""

    customer: str
    owner: str
    since: datetime


class ConflictDetails(Conflict):
    """A conflict with what proves it; of a group whose its members are now (at most 1,000)."""

    proofs: list[Proof]
    members: list[Member]


class SplitGroup(Shape):
    """A group, by its root, that came under several owners unseen: so many of it are owned."""

    customer: str = Field(validation_alias="root")
    owned: int
    owners: int


class ReviewIn(commands.Command):
    """A customer of the group that is to be reviewed."""

    customer: Id


class RulingIn(commands.Command):
    """A ruling: ``keep`` the owner, ``award`` it to a party (``receiver``), ``split`` the credit
    among ``parts``, ``allow`` both to go on, or ``dismiss`` the conflict.
    """

    ruling: Literal["keep", "award", "split", "allow", "dismiss"]
    receiver: Id | None = None
    parts: Annotated[tuple[commands.PartIn, ...], Field(max_length=20)] = ()
    reason_code: commands.Code = "ruled"
    reason: commands.Note | None = None


@router.get("", summary="List conflicts", operation_id="list_conflicts")
def list_all(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    status: Annotated[
        Status | None, Query(description="``open``, ``ended``, or how it ended.")
    ] = None,
    kind: Kind | None = None,
    customer: Id | None = None,
    party: Annotated[Id | None, Query(description="Only those with this person.")] = None,
    territory: Annotated[
        Id | None, Query(description="Only at customers of this territory, or of one below it.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Conflict]:
    """List conflicts, the newest first."""
    after = read_cursor(cursor, "conflicts", int)
    is_open = {"open": True, "ended": False}.get(status or "")
    with services.reading(reads) as connection:
        found = list_conflicts(
            connection,
            is_open=is_open,
            outcome=status if is_open is None else None,
            kind=kind,
            customer=customer,
            party=party,
            territories=territories_below(caller.organisation, territory),
            before=after[0] if after else POSITION_MAX,
            limit=limit + 1,
        )
    rows, following = page_of(
        found, limit, lambda row: make_cursor("conflicts", row.opened_position)
    )
    return Page(items=[conflict(caller, row) for row in rows], next=following)


@router.get("/unseen")
def list_unseen(
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    limit: Limit = 500,
) -> Page[SplitGroup]:
    """List groups under different owners about which no conflict is open; at most so many.

    Those too that a ruling has left as they are, or allowed. Once reviewed they are listed no more.
    """
    with services.reading(reads) as connection:
        found = split_unseen(connection, limit=limit)
    return Page(items=[SplitGroup.model_validate(each) for each in found])


@router.post("/reviews", status_code=202, responses={201: {"model": Outcome}})
async def review(
    group: ReviewIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.RULE)],
    writes: InWrites,
) -> Outcome:
    """Have the conflict opened of a group that came under several owners unseen (核查).

    As a head over it, or an administrator.
    """
    return await asked_for(services, caller, writes, commands.ReviewGroup, group.model_dump())


@router.get("/{conflict}", responses=MISSING)
def get_conflict(
    conflict: ConflictId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> ConflictDetails:
    """Return a conflict with what proves it."""
    with services.reading(reads) as connection:
        found = conflict_of(connection, conflict)
        if found is None:
            raise NotFoundError("conflict", conflict)
        show_version(connection, reads, found.customer)
        return _details(connection, caller, request.scope["route"].path, found)


def _details(
    connection: Connection[Any], caller: Caller, route: str, row: ConflictRow
) -> ConflictDetails:
    entries = timeline.at_positions(connection, row.evidence)
    is_of_group = row.kind == conflicts.GROUP
    members = owned_members(connection, row.customer) if is_of_group else []
    return ConflictDetails(
        **dict(conflict(caller, row)),
        proofs=_proofs(connection, caller, route, entries, judges=_judges(caller, row)),
        members=[Member.model_validate(each) for each in members],
    )


def _judges(caller: Caller, row: ConflictRow) -> bool:
    """Say whether a ruling is the caller's today, who has to know then what proves the conflict."""
    return caller.person in asked_to_rule(row, caller.organisation, caller.day)


def _proofs(
    connection: Connection[Any],
    caller: Caller,
    route: str,
    entries: Sequence[TimelineEntry],
    *,
    judges: bool,
) -> list[Proof]:
    """Return requests as the caller may see them; that words or values are seen is noted."""
    sight = sight_of(connection, caller, {each.customer for each in entries})
    visible = [
        each
        for each in entries
        if sight.shows(each.customer, each.actor) or (judges and each.customer in sight.bound)
    ]
    fields = {name for each in visible for name in each.words}
    fields |= {"value" for each in visible if each.value}
    note_access(connection, caller, route, {each.customer for each in visible}, fields)
    return [_proof(each, is_seen=each in visible) for each in entries]


def _proof(each: TimelineEntry, *, is_seen: bool) -> Proof:
    value = each.value if is_seen else None
    return Proof(
        position=each.position,
        customer=each.customer,
        event=each.event,
        actor=each.actor,
        person=each.person,
        effective=each.effective,
        recorded=each.recorded,
        details=dict(each.details) if is_seen else None,
        words=dict(each.words) if is_seen else None,
        value=Money.model_validate(value) if value else None,
        masked=not is_seen,
    )


@router.post(
    "/{conflict}/rulings",
    status_code=202,
    responses={201: {"model": Outcome}, **MISSING},
    operation_id="rule_on_conflict",
)
async def rule(
    conflict: ConflictId,
    ruling: RulingIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.RULE)],
    writes: InWrites,
) -> Outcome:
    """Rule on a conflict, as the head above its parties, or as who stands in for that head.

    A ruling that does not hold is a refused outcome.
    """
    found = await find_soon(services, lambda connection: conflict_of(connection, conflict))
    if found is None:
        raise NotFoundError("conflict", conflict)
    fields = ruling.model_dump(exclude_unset=True)
    about = {"customer": found.customer, "conflict": conflict}
    return await asked_for(services, caller, writes, commands.Rule, fields | about)
