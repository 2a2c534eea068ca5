"""The inbox: what awaits the caller, as what they are asked, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from heapq import merge
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from psycopg import Connection

from api.awaiting import asked_as, asked_to_rule, every_approval, every_conflict
from api.http.admission import requires
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit, make_cursor, read_cursor
from api.http.permissions import Permission
from api.http.services import InReads, InServices
from api.http.shapes import Page, Shape
from api.http.waiting import Approval, Approver, Conflict, Due, approvals, approver, conflict, due
from ledger import deadlines
from ledger.approval_rules import Purpose
from ledger.commands import Id
from ledger.conflicts import Waiting, common_territory
from ledger.events.values import Approver as Named
from projections.approvals import ApprovalRow
from projections.conflicts import ConflictRow
from projections.deadlines import rulings_awaited

router = APIRouter(prefix="/v1/inbox", tags=["approvals"])
# So much of what is open is looked through for a page at most.
LOOKED_AT_MAX = 5_000
RULING: Literal["ruling"] = "ruling"


class Task(Shape):
    """Something that awaits the caller: an approval to give or refuse, or a conflict to rule on.

    ``asked_as`` says why it is the caller who is asked, or whoever the caller stands in for, and
    ``next`` what happens where nobody answers. One of ``approval`` and ``conflict`` is given.
    """

    kind: Purpose | Literal["ruling"]
    customer: str
    opened: datetime
    asked_as: list[Approver]
    next: Due | None
    approval: Approval | None = None
    conflict: Conflict | None = None


@router.get("")
def list_inbox(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    kind: Annotated[
        Purpose | Literal["ruling"] | None, Query(description="Only what is of this kind.")
    ] = None,
    requester: Annotated[Id | None, Query(description="Only what this person asked for.")] = None,
    hand_over: Annotated[Id | None, Query(description="Only lines of this hand-over.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Task]:
    """List what awaits the caller, the oldest first.

    A page may hold less than its limit, and even nothing, while ``next`` names a further one.
    """
    person = caller.actor
    # That of the caller may be a second old, and not know yet who acts for whom.
    caller = replace(caller, organisation=services.directory.organisation(now=True))
    after = read_cursor(cursor, "inbox", int)
    with services.reading(reads) as connection:
        found: list[ApprovalRow | ConflictRow] = []
        following = None
        last = after[0] if after else 0
        for number, row in enumerate(_open(connection, last, kind)):
            if len(found) == limit or number == LOOKED_AT_MAX:
                following = make_cursor("inbox", last)
                break
            last = row.opened_position
            if _is_meant(row, kind, requester, hand_over) and _is_asked(row, person, caller):
                found.append(row)
        items = _tasks(connection, caller, person, request.scope["route"].path, found)
    return Page(items=items, next=following)


def _open(
    connection: Connection[Any], after: int, kind: str | None
) -> Iterator[ApprovalRow | ConflictRow]:
    """Yield what is open and may be of the kind, the oldest first."""
    streams: list[Iterator[ApprovalRow | ConflictRow]] = []
    if kind != RULING:
        streams.append(every_approval(connection, after=after))
    if kind in (None, RULING):
        streams.append(every_conflict(connection, after=after))
    return merge(*streams, key=lambda row: row.opened_position)


def _is_meant(
    row: ApprovalRow | ConflictRow, kind: str | None, requester: str | None, hand_over: str | None
) -> bool:
    if isinstance(row, ConflictRow):
        return requester is None and hand_over is None
    theirs = row.state.hand_over if row.state else None
    return (
        kind in (None, row.purpose)
        and requester in (None, row.requester)
        and hand_over in (None, theirs)
    )


def _is_asked(row: ApprovalRow | ConflictRow, person: str, caller: Caller) -> bool:
    if isinstance(row, ConflictRow):
        return person in asked_to_rule(row, caller.organisation, caller.day)
    return bool(asked_as(row, person, caller.organisation, caller.day))


def _tasks(
    connection: Connection[Any],
    caller: Caller,
    person: str,
    route: str,
    rows: list[ApprovalRow | ConflictRow],
) -> list[Task]:
    waiting = [row for row in rows if isinstance(row, ApprovalRow)]
    shown = {each.approval: each for each in approvals(connection, caller, route, waiting)}
    disputes = [row for row in rows if isinstance(row, ConflictRow)]
    awaited = rulings_awaited(connection, [row.customer for row in disputes])
    tasks: list[Task] = []
    for row in rows:
        if isinstance(row, ConflictRow):
            tasks.append(_ruling(caller, row, awaited.get(row.conflict)))
        else:
            tasks.append(_approval(caller, person, row, shown[row.approval]))
    return tasks


def _approval(caller: Caller, person: str, row: ApprovalRow, shown: Approval) -> Task:
    organisation = caller.organisation
    named = asked_as(row, person, organisation, caller.day)
    return Task(
        kind=cast(Purpose, row.purpose),
        customer=row.customer,
        opened=row.opened,
        asked_as=[approver(each, organisation) for each in named],
        next=shown.next,
        approval=shown,
    )


def _ruling(caller: Caller, row: ConflictRow, awaited: Waiting | None) -> Task:
    organisation = caller.organisation
    head = Named("head", territory=common_territory(row.parties, organisation))
    falls = deadlines.of_ruling(row.conflict, awaited, organisation) if awaited else None
    return Task(
        kind=RULING,
        customer=row.customer,
        opened=row.opened,
        asked_as=[approver(head, organisation)],
        next=due(falls),
        conflict=conflict(caller, row),
    )
