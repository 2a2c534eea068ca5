"""Approvals: what awaits somebody, answering it, and withdrawing what one asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, model_validator

from api.http import problems
from api.http.admission import requires
from api.http.bounds import outside
from api.http.callers import Caller
from api.http.cursors import Cursor, Limit
from api.http.finding import find_soon
from api.http.permissions import Permission
from api.http.problems import NotFoundError
from api.http.routes.transfers import InStatus, listed, one
from api.http.services import InReads, InServices, Services
from api.http.shapes import MISSING, Outcome, Page, Problem, Shape, outcome
from api.http.waiting import Approval
from api.http.writing import (
    InKeyed,
    InWrites,
    Keyed,
    Writes,
    asked_for,
    origin_of,
)
from api.outcomes import Status
from ledger import commands
from ledger.approval_rules import Purpose
from ledger.commands import Code, Id, Note, parse
from ledger.envelope import Event
from ledger.errors import LedgerError
from ledger.recording import Asked, Recorded, new_request_id
from projections.approvals import approval_of, approvals_named

router = APIRouter(prefix="/v1/approvals", tags=["approvals"])
ApprovalId = Annotated[
    Id, Path(description="The id of the transfer, release, claim or collaboration that awaits it.")
]
ANSWERS_MAX = 500


class AgreementIn(commands.Command):
    """What is said with an agreement."""

    comment: Note | None = None


class RefusalIn(commands.Command):
    """What is said with a refusal."""

    reason_code: Code = "refused"
    comment: Note | None = None


class WithdrawalIn(commands.Command):
    """What is said with a withdrawal."""

    reason_code: Code = "withdrawn"
    reason: Note | None = None


class AnswerIn(commands.Command):
    """One of several answers; a ``reason_code`` is for refusals."""

    approval: Id
    answer: Literal["approve", "refuse"]
    reason_code: Code | None = None
    comment: Note | None = None

    @model_validator(mode="after")
    def _fits(self) -> AnswerIn:
        if self.answer == "approve" and self.reason_code is not None:
            raise ValueError("a reason_code is for refusals")
        return self


class AnswersIn(commands.Command):
    """Answers that are recorded one by one: where one does not count, the others do."""

    answers: Annotated[tuple[AnswerIn, ...], Field(min_length=1, max_length=ANSWERS_MAX)]

    @model_validator(mode="after")
    def _is_one_each(self) -> AnswersIn:
        if len({each.approval for each in self.answers}) != len(self.answers):
            raise ValueError("something is answered twice")
        return self


class Answered(Shape):
    """What came of one of the answers: its outcome, or the problem for which it was not recorded.

    ``status`` is that of the outcome, or ``not_recorded``.
    """

    approval: str
    status: Status | Literal["not_recorded"]
    outcome: Outcome | None = None
    problem: Problem | None = None


class AllAnswered(Shape):
    """What came of each of the answers, in their order."""

    items: list[Answered]


@router.get("", summary="List approvals", operation_id="list_approvals")
def list_all(
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
    status: InStatus = None,
    purpose: Purpose | None = None,
    customer: Id | None = None,
    requester: Annotated[Id | None, Query(description="Who asked for it.")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[Approval]:
    """List what needs, or needed, approval, the newest first."""
    filters = {"purpose": purpose, "customer": customer, "requester": requester}
    return listed(services, caller, reads, request, filters, status, limit, cursor, "approvals")


@router.get("/{approval}", responses=MISSING)
def get_approval(
    approval: ApprovalId,
    request: Request,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.READ_HISTORY)],
    reads: InReads,
) -> Approval:
    """Return what needs, or needed, approval, with its steps and what was answered."""
    return one(services, caller, reads, request, approval, "approval")


@router.post("/{approval}/approve", status_code=202, responses={201: {"model": Outcome}, **MISSING})
async def approve(
    approval: ApprovalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.APPROVE)],
    writes: InWrites,
    said: AgreementIn | None = None,
) -> Outcome:
    """Agree to what awaits approval; an answer that does not count is a refused outcome."""
    return await _settle(services, caller, writes, commands.Approve, approval, said)


@router.post("/{approval}/refuse", status_code=202, responses={201: {"model": Outcome}, **MISSING})
async def refuse(
    approval: ApprovalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.APPROVE)],
    writes: InWrites,
    said: RefusalIn | None = None,
) -> Outcome:
    """Do not agree to what awaits approval."""
    return await _settle(services, caller, writes, commands.Refuse, approval, said)


@router.post(
    "/{approval}/withdraw", status_code=202, responses={201: {"model": Outcome}, **MISSING}
)
async def withdraw(
    approval: ApprovalId,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.TRANSFER)],
    writes: InWrites,
    said: WithdrawalIn | None = None,
) -> Outcome:
    """Withdraw what one asked for, and what still awaits approval."""
    return await _settle(services, caller, writes, commands.WithdrawTransfer, approval, said)


async def _settle(
    services: Services,
    caller: Caller,
    writes: Writes,
    kind: type[commands.Command],
    approval: str,
    said: commands.Command | None,
) -> Outcome:
    found = await find_soon(services, lambda connection: approval_of(connection, approval))
    if found is None:
        raise NotFoundError("approval", approval)
    given = said.model_dump(exclude_unset=True) if said else {}
    about = {"customer": found.customer, "approval": approval}
    return await asked_for(services, caller, writes, kind, given | about)


# --- many at once --------------------------------------------------------------------------------


@router.post(
    "/answers",
    status_code=202,
    responses={201: {"model": AllAnswered}},
    operation_id="answer_approvals",
)
async def answer_many(
    answers: AnswersIn,
    services: InServices,
    caller: Annotated[Caller, requires(Permission.APPROVE)],
    writes: InKeyed,
) -> AllAnswered:
    """Answer up to 500 things that await approval, each with its own outcome.

    201: none of them is undecided any more. With the same ``Idempotency-Key`` again each gets its
    first answer.
    """
    customers = await _customers(services, [each.approval for each in answers.answers])
    own = writes.key or new_request_id()
    asked: dict[str, Asked] = {}
    for number, each in enumerate(answers.answers):
        customer = customers.get(each.approval)
        if customer is not None:
            origin = origin_of(caller, writes, key=f"{own}:{number}")
            asked[each.approval] = Asked(_command(each, customer), origin)
    results = await _recorded(services, caller, asked)
    decided = await _decided(services, writes, list(results.values()))
    items = [
        _answered(services, each.approval, results.get(each.approval) or _missing(each), decided)
        for each in answers.answers
    ]
    _tell(writes, list(results.values()), items, decided)
    return AllAnswered(items=items)


async def _recorded(
    services: Services, caller: Caller, asked: Mapping[str, Asked]
) -> dict[str, Recorded | LedgerError]:
    """Record the answers, but those for which the caller's token is not."""
    refusals = await outside(services, caller, [each.command for each in asked.values()])
    found: dict[str, Recorded | LedgerError] = {
        name: refusal for name, refusal in zip(asked, refusals, strict=True) if refusal
    }
    left = [name for name in asked if name not in found]
    recorded = await services.intake.record_many([asked[name] for name in left])
    return found | dict(zip(left, recorded, strict=True))


async def _customers(services: Services, ids: Sequence[str]) -> dict[str, str]:
    """Return the customers of the approvals that there are; waits a moment for what is missing."""
    rows = await find_soon(
        services,
        lambda connection: approvals_named(connection, ids),
        lambda found: len(found) == len(ids),
    )
    return {name: row.customer for name, row in rows.items()}


def _command(each: AnswerIn, customer: str) -> Any:
    said = {"reason_code": each.reason_code, "comment": each.comment}
    given = {name: value for name, value in said.items() if value is not None}
    kind = commands.Approve if each.answer == "approve" else commands.Refuse
    return parse(kind, {"customer": customer, "approval": each.approval, **given})


def _missing(each: AnswerIn) -> NotFoundError:
    return NotFoundError("approval", each.approval)


async def _decided(
    services: Services, writes: Keyed, results: Sequence[Recorded | LedgerError]
) -> dict[int, list[Event]]:
    """Return what is decided by the position of each request, as long as the caller waits."""
    positions = [each.positions[-1] for each in results if isinstance(each, Recorded)]
    found: dict[int, list[Event]] = {}
    if positions and writes.wait_seconds:
        for event in await services.decisions.of(positions, writes.wait_seconds):
            found.setdefault(event.causation or 0, []).append(event)
        writes.response.headers["Preference-Applied"] = f"wait={writes.wait_seconds}"
    return found


def _answered(
    services: Services,
    approval: str,
    result: Recorded | LedgerError,
    decided: dict[int, list[Event]],
) -> Answered:
    if isinstance(result, LedgerError):
        problem = Problem(**problems.of_error(result))
        return Answered(approval=approval, status="not_recorded", problem=problem)
    told = outcome(services.ledger.catalogue, result, decided.get(result.positions[-1], ()))
    return Answered(approval=approval, status=told.status, outcome=told)


def _tell(
    writes: Keyed,
    results: Sequence[Recorded | LedgerError],
    items: Sequence[Answered],
    decided: dict[int, list[Event]],
) -> None:
    """Say in status and headers whether all is decided, and which position has it."""
    recorded = [each for each in results if isinstance(each, Recorded)]
    positions = [position for each in recorded for position in each.positions]
    positions += [event.position for events in decided.values() for event in events]
    if positions:
        writes.response.headers["Ledger-Position"] = str(max(positions))
    if recorded and all(each.repeated for each in recorded):
        writes.response.headers["Idempotency-Replayed"] = "true"
    is_open = any(each.status == "pending" for each in items)
    writes.response.status_code = 202 if is_open else 201
