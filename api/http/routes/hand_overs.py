"""Hand-overs: ordering one, and the receipt of what moved, waits or stayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from psycopg import Connection
from pydantic import Field

from api.http.admission import requires
from api.http.callers import Caller
from api.http.checks import Foretold, foretell
from api.http.cursors import Cursor, Limit, make_cursor, page_of, read_cursor
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.services import InReads, InServices
from api.http.shapes import MISSING, Outcome, Page, Shape
from api.http.sight import note_access, seen
from api.http.writing import (
    InWrites,
    asked_for,
    reflected_etag,
)
from ledger import commands, reasons
from ledger.commands import Id
from ledger.deciding import person_stream
from projections.hand_overs import (
    POSITION_MAX,
    HandOverRow,
    LineRow,
    counts_of,
    hand_over_of,
    lines_of,
    list_hand_overs,
    waiting_now,
)

router = APIRouter(prefix="/v1/hand-overs", tags=["hand-overs"])
HandOverId = Annotated[Id, Path(description="The hand-over's id.")]
LineOutcome = Literal[
    "moved",
    "waiting",
    "refused",
    "withdrawn",
    "expired",
    "void",
    "ended",
    "given",
]


class HandOver(Shape):
    """A hand-over: whose customers go to whom, and what came of it.

    ``state`` is ``ordered``, ``under_way``, ``done``, or ``refused`` for ``refused_because``.
    ``moved``, ``waiting``, ``settled`` and ``refused`` (by reason) are as it was decided;
    ``waiting_now`` counts the lines that still await approval. ``chosen`` says which customers are
    meant, where not all are. ``reason`` is seen by the giver, by whoever ordered it, and by those
    who manage the giver's territory.
    """

    hand_over: str
    giver: str
    receivers: list[str]
    plan: str
    orderer: str
    reason_code: str
    reason: str | None
    chosen: dict[str, Any]
    ordered: datetime
    state: str
    refused_because: str | None
    sentence: str | None
    moved: int
    waiting: int
    settled: int
    refused: dict[str, int]
    waiting_now: int
    masked: bool = Field(False, description="Whether a reason is left out for this caller.")
    position: int


class HandOverDetails(HandOver):
    """A hand-over, with how many lines its receipt has, such as ``customer moved``."""

    counts: dict[str, int] = Field(examples=[{"customer moved": 12, "customer waiting": 1}])


class Line(Shape):
    """A line of a receipt. ``what`` is ``customer``, or what else was settled there (``approval``,
    ``collaboration``).

    Of a customer ``outcome`` is ``moved``, ``waiting`` (for ``approval``), ``refused`` (for
    ``reason``), or how that approval ended; of other things ``ended`` or ``given``.
    """

    position: int
    customer: str
    what: str
    outcome: str
    receiver: str | None
    reason: str | None
    sentence: str | None
    approval: str | None


@router.post(
    "",
    summary="Order a hand-over",
    status_code=202,
    responses={201: {"model": Outcome}},
    operation_id="order_hand_over",
)
async def order(
    hand_over: commands.HandOver,
    response: Response,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.HAND_OVER)],
    writes: InWrites,
) -> Outcome:
    """Order that what somebody holds goes to others; ``made`` is the hand-over's id.

    It is decided part by part: ``Location`` names it, and its receipt says how far it is.
    """
    fields = hand_over.model_dump(exclude_unset=True)
    outcome = await asked_for(services, caller, writes, commands.HandOver, fields)
    response.headers["Location"] = f"/v1/hand-overs/{outcome.made}"
    return outcome


@router.post("/check", summary="Check a hand-over", operation_id="check_hand_over")
def check(
    hand_over: commands.HandOver,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.HAND_OVER)],
) -> Foretold:
    """Say what would move where; nothing is recorded. The last decision is the outcome.

    Of more than 500 decisions only so many are told.
    """
    fields = hand_over.model_dump(exclude_unset=True)
    return foretell(services, caller, commands.HandOver, fields)


@router.get("", summary="List hand-overs", operation_id="list_hand_overs")
def list_all(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    giver: Annotated[Id | None, Query(description="Only those of this person.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[HandOver]:
    """List hand-overs, the newest first."""
    after = read_cursor(cursor, "hand_overs", int)
    with services.reading(reads) as connection:
        found = list_hand_overs(
            connection,
            giver=giver,
            before=after[0] if after else POSITION_MAX,
            limit=limit + 1,
        )
        rows, following = page_of(found, limit, lambda row: make_cursor("hand_overs", row.position))
        shown = _shown(connection, caller, request, rows)
    return Page(items=[HandOver(**each) for each in shown], next=following)


@router.get("/{hand_over}", responses=MISSING)
def get_hand_over(
    hand_over: HandOverId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> HandOverDetails:
    """Return a hand-over, and how many lines of which outcome its receipt has by now.

    The ETag is for ordering the next one of the same giver.
    """
    with services.reading(reads) as connection:
        row = _found(connection, hand_over)
        (shown,) = _shown(connection, caller, request, [row])
        stream = person_stream(row.giver)
        reads.response.headers["ETag"] = reflected_etag(connection, reads, stream)
        return HandOverDetails(**shown, counts=counts_of(connection, hand_over))


@router.get("/{hand_over}/receipt", responses=MISSING)
def get_receipt(
    hand_over: HandOverId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    outcome: Annotated[
        LineOutcome | None, Query(description="Only lines with this outcome.")
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Line]:
    """Return what moved, waits or stayed, and why, in the order in which it was decided."""
    after = read_cursor(cursor, "receipt", str, int)
    with services.reading(reads) as connection:
        _found(connection, hand_over)
        found = lines_of(
            connection,
            hand_over,
            outcome=outcome,
            after=after[1] if after and after[0] == hand_over else 0,
            limit=limit + 1,
        )
    rows, following = page_of(
        found, limit, lambda row: make_cursor("receipt", hand_over, row.position)
    )
    return Page(items=[_line(row) for row in rows], next=following)


def _found(connection: Connection[Any], hand_over: str) -> HandOverRow:
    row = hand_over_of(connection, hand_over)
    if row is None:
        raise NotFoundError("hand-over", hand_over)
    return row


@dataclass(frozen=True, slots=True)
class _Held:
    """What a giver holds, for who may see what was said of it: the giver stands for a customer."""

    customer: str
    owner: str
    territory: str | None


def _shown(
    connection: Connection[Any], caller: Caller, request: Request, rows: Sequence[HandOverRow]
) -> list[dict[str, Any]]:
    """Return the fields of hand-overs as the caller may see them; that reasons are is noted."""
    held = {row.giver: _held(caller, row.giver) for row in rows}
    near = seen(connection, caller, list(held.values()))
    personal = caller.may(Permission.READ_PERSONAL)

    def may_see(row: HandOverRow) -> bool:
        is_own = personal and caller.person is not None and caller.person == row.orderer
        return row.giver in near or (is_own and caller.within(held[row.giver].territory))

    visible = {row.hand_over for row in rows if row.reason is not None and may_see(row)}
    subjects = {row.giver for row in rows if row.hand_over in visible}
    note_access(connection, caller, request.scope["route"].path, subjects, ("reason",))
    waiting = waiting_now(connection, [row.hand_over for row in rows])
    return [_fields(row, row.hand_over in visible, waiting.get(row.hand_over, 0)) for row in rows]


def _held(caller: Caller, giver: str) -> _Held:
    person = caller.organisation.person(giver)
    return _Held(giver, giver, person.territory if person else None)


def _fields(row: HandOverRow, is_seen: bool, waiting_by_now: int) -> dict[str, Any]:
    named = {
        name: getattr(row, name)
        for name in HandOver.model_fields
        if name not in ("reason", "sentence", "waiting_now", "masked")
    }
    because = row.refused_because
    return named | {
        "reason": row.reason if is_seen else None,
        "sentence": reasons.SENTENCES.get(because) if because else None,
        "waiting_now": waiting_by_now,
        "masked": row.reason is not None and not is_seen,
    }


def _line(row: LineRow) -> Line:
    return Line(
        position=row.position,
        customer=row.customer,
        what=row.what,
        outcome=row.outcome,
        receiver=row.receiver,
        reason=row.reason,
        sentence=reasons.SENTENCES.get(row.reason) if row.reason else None,
        approval=row.approval,
    )
