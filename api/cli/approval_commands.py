"""Commands about what needs approval: ask, answer, withdraw, and see what waits for whom."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any

import typer

from api.awaiting import asked_to_answer, deadline_words, next_of
from api.bootstrap import Ledger
from api.cli import answering, conflict_commands, hand_over_commands, orphan_commands, resolve
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    RequestId,
    notes,
    opened,
    print_json,
    print_table,
    typed,
)
from api.cli.write_commands import Check, check, money, parsed, submit
from ledger import commands
from ledger.commands import InvalidRequestError
from projections.approvals import POSITION_MAX, ApprovalRow, approval_of, list_approvals

Customer = Annotated[str, typer.Argument(help="Id, identifier, foreign id or name.")]
Waiting = Annotated[
    str, typer.Argument(help="The id of what awaits approval, or the customer that it is about.")
]
HandOver = Annotated[
    str | None,
    typer.Option("--hand-over", help="All lines of this hand-over that await you, instead."),
]
Comment = Annotated[str | None, typer.Option(help="In your words; sealed.")]
ReasonCode = Annotated[str | None, typer.Option(help="A word for programs.")]
WaitingList = Annotated[
    list[str] | None,
    typer.Argument(help="Ids of what awaits approval, or the customers that it is about."),
]
All = Annotated[bool, typer.Option("--all", help="All that awaits your approval.")]
Of = Annotated[
    str | None, typer.Option("--of", help="Of --all: transfer, release, claim or collaboration.")
]
From = Annotated[str | None, typer.Option("--from", help="Of --all: what this person asked for.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not show the list and ask before.")]


_ID = re.compile(r"(trf|apr|col)_[!-~]{1,100}")


def transfer(
    customer: Customer,
    receiver: Annotated[str, typer.Argument(help="Who would own it: an id or a name.")],
    as_: As = None,
    reason_code: ReasonCode = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    value: Annotated[
        str | None, typer.Option(help="Of the deal at stake, such as '88000 CNY'.")
    ] = None,
    checking: Check = False,
    collaborators: Annotated[
        str | None, typer.Option(help="What becomes of them: keep (as without it) or end.")
    ] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Ask that somebody else becomes the owner (转移); approvals follow the policy.

    With --check, only say what would come of it.
    """
    with opened() as ledger:
        fields = {
            "customer": resolve.customer(ledger, customer),
            "receiver": resolve.person(ledger, receiver),
            "reason_code": reason_code,
            "reason": reason,
            "value": money(value) if value else None,
            "collaborators": collaborators,
        }
        if checking:
            check(ledger, *parsed(ledger, commands.RequestTransfer, fields, as_), json=json)
            return
        submit(ledger, commands.RequestTransfer, fields, as_, request_id, json=json)


def withdraw(
    waiting: Waiting,
    as_: As = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Withdraw what you asked for and what still awaits approval (撤回)."""
    with opened() as ledger:
        found = _named(ledger, waiting)
        fields = {"customer": found.customer, "approval": found.approval, "reason": reason}
        submit(ledger, commands.WithdrawTransfer, fields, as_, request_id, json=json)


def approve(
    waiting: WaitingList = None,
    as_: As = None,
    all_: All = False,
    of: Of = None,
    from_: From = None,
    comment: Comment = None,
    hand_over: HandOver = None,
    yes: Yes = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Agree to what awaits your approval (同意): one thing, several, or all of the inbox."""
    fields = {"comment": comment}
    named = _Named(waiting or (), of, from_, hand_over, everything=all_)
    _settle(commands.Approve, fields, named, as_, request_id, yes=yes, json=json)


def refuse(
    waiting: WaitingList = None,
    as_: As = None,
    all_: All = False,
    of: Of = None,
    from_: From = None,
    reason_code: ReasonCode = None,
    comment: Comment = None,
    hand_over: HandOver = None,
    yes: Yes = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Do not agree to what awaits your approval (驳回): one thing, several, or all of the inbox."""
    fields = {"reason_code": reason_code, "comment": comment}
    named = _Named(waiting or (), of, from_, hand_over, everything=all_)
    _settle(commands.Refuse, fields, named, as_, request_id, yes=yes, json=json)


@dataclass(frozen=True, slots=True)
class _Named:
    """What is to be answered: some, all of a kind or of somebody, or the lines of a hand-over."""

    waiting: Sequence[str]
    of: str | None
    from_: str | None
    hand_over: str | None
    everything: bool


def _settle(
    kind: type[commands.Approve] | type[commands.Refuse],
    fields: dict[str, Any],
    named: _Named,
    as_: str | None,
    request_id: str | None,
    *,
    yes: bool,
    json: bool,
) -> None:
    """Answer what is named; raises NotFoundError, InvalidRequestError."""
    with opened() as ledger:
        if named.hand_over is not None:
            if named.waiting or named.of or named.from_ or named.everything:
                raise InvalidRequestError(
                    "hand-over", "its lines are answered by themselves: name nothing besides"
                )
            actor = resolve.actor(ledger, as_)
            hand_over_commands.answer_lines(
                ledger, named.hand_over, kind, fields, actor, request_id, yes=yes, json=json
            )
            return
        which = _which(ledger, named.of, named.from_) if named.of or named.from_ else None
        rows = _rows(ledger, named.waiting, as_, which, everything=named.everything)
        _answer(ledger, kind, fields, rows, (as_, request_id), yes=yes, json=json)


def _which(ledger: Ledger, of: str | None, from_: str | None) -> answering.Which:
    return answering.Which(of, resolve.person(ledger, from_) if from_ else None)


def _rows(
    ledger: Ledger,
    waiting: Sequence[str],
    as_: str | None,
    which: answering.Which | None,
    *,
    everything: bool,
) -> list[ApprovalRow] | ApprovalRow:
    """Return what is to be answered: one thing that was named, or a list of them.

    Raises NotFoundError, InvalidRequestError.
    """
    if everything and waiting:
        raise InvalidRequestError("all", "it is said, and something is named as well")
    if everything:
        names, person = resolve.Names(ledger), resolve.actor(ledger, as_)
        return [row for row, _ in answering.awaiting(ledger, person, names, which)]
    if which is not None:
        raise InvalidRequestError("all", "--of and --from choose among --all, which is not said")
    if not waiting:
        raise InvalidRequestError("waiting", "name what you answer, or say --all")
    named = [_named(ledger, each) for each in waiting]
    return named[0] if len(named) == 1 else list({row.approval: row for row in named}.values())


def _answer(
    ledger: Ledger,
    kind: type[commands.Approve] | type[commands.Refuse],
    fields: dict[str, Any],
    rows: list[ApprovalRow] | ApprovalRow,
    origin: tuple[str | None, str | None],
    *,
    yes: bool,
    json: bool,
) -> None:
    """Answer one thing at once, or a list once somebody has agreed to it.

    ``origin`` says who answers, and the request's own id.
    """
    as_, request_id = origin
    if isinstance(rows, ApprovalRow):
        about = {"customer": rows.customer, "approval": rows.approval}
        submit(ledger, kind, {**about, **fields}, as_, request_id, json=json)
        return
    actor = resolve.actor(ledger, as_)
    answering.answer_list(ledger, rows, kind, fields, actor, request_id, yes=yes, json=json)


def _named(ledger: Ledger, text: str) -> ApprovalRow:
    """Return what somebody named; raises NotFoundError."""
    with ledger.pool.connection() as connection:
        found = approval_of(connection, typed(text, "waiting"))
        if found is None:
            customer = _customer_named(ledger, text)
            waiting = list_approvals(connection, customer=customer, is_open=True)
            if not waiting:
                raise resolve.NotFoundError(
                    f"Nothing at {text} awaits approval.",
                    way_out="guishu transfers lists what does.",
                )
            if len(waiting) > 1:
                several = ", ".join(f"{each.approval} ({each.purpose})" for each in waiting)
                raise resolve.NotFoundError(
                    f"Several things at {text} await approval.", way_out=f"Name one of: {several}"
                )
            (found,) = waiting
    return found


def _customer_named(ledger: Ledger, text: str) -> str:
    """Return the customer that somebody named; raises NotFoundError."""
    try:
        return resolve.customer(ledger, text)
    except resolve.NotFoundError:
        if _ID.fullmatch(text) is None:
            raise
        # To whoever typed an id it is no answer that there is no such customer.
        raise resolve.NotFoundError(
            f"Nothing of the id {text} awaits approval, or ever did.",
            way_out="guishu transfers --ids lists what does.",
        ) from None


def inbox(as_: As = None, ids: Ids = False, json: Json = False) -> None:
    """List what awaits your approval or ruling, and as what you are asked (待办)."""
    with opened() as ledger:
        person = resolve.actor(ledger, as_)
        names = resolve.Names(ledger)
        day = names.organisation.day(datetime.now(UTC))
        found = answering.awaiting(ledger, person, names)
        disputes = conflict_commands.awaiting_ruling(ledger, person, names, day)
        found, lines = hand_over_commands.apart(ledger, found)
        if json:
            approvals = [
                {"approval": row, "asked_as": reasons, "next": next_of(row, names.organisation)}
                for row, reasons in found
            ]
            hand_overs = [each.as_json(names) for each in lines]
            print_json([*approvals, *hand_overs, *({"conflict": each} for each in disputes)])
            return
        _print(
            f"awaits the approval of {names.person(person)}",
            ("customer", "what", "asked by", "step", "as", "until"),
            [
                (
                    row.approval,
                    names.customer(row.customer),
                    answering.subject_words(row, names),
                    names.person(row.requester),
                    _step(row),
                    ", ".join(reasons),
                    _until(row, names),
                )
                for row, reasons in found
            ],
            ids=ids,
        )
        if lines:
            hand_over_commands.print_lines(lines, names)
        if disputes:
            conflict_commands.print_conflicts(
                f"awaits the ruling of {names.person(person)}", disputes, names, day, ids=ids
            )
        count = orphan_commands.count_in_care(ledger, person, names)
        if count:
            notes().print(
                f"orphaned, and in your care: {count}; guishu orphans --as lists them", markup=False
            )


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, ids: bool) -> None:
    """Print a table of approvals, each row with its id in front, which takes half a line."""
    print_table(title, (ID, *columns) if ids else columns, rows if ids else (r[1:] for r in rows))


def _until(row: ApprovalRow, names: resolve.Names) -> str:
    """Return until when nothing happens without an answer, and what happens then."""
    found = next_of(row, names.organisation)
    return f"{names.moment(found.due)}: {deadline_words(found.kind)}" if found else ""


def _step(row: ApprovalRow) -> str:
    return "" if row.state is None else f"{row.state.current + 1} of {len(row.state.steps)}"


def transfers(
    customer: Annotated[str | None, typer.Option(help="Only those of this customer.")] = None,
    open_: Annotated[
        bool | None, typer.Option("--open/--ended", help="Those that await approval, or not.")
    ] = None,
    before: Annotated[int | None, typer.Option(help="Only what was opened before it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The last so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List transfers, and what else needs approval: what awaits whom, and how others ended."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        customer_id = resolve.customer(ledger, customer) if customer else None
        with ledger.pool.connection() as connection:
            rows = list_approvals(
                connection,
                customer=customer_id,
                is_open=open_,
                before=before or POSITION_MAX,
                limit=limit,
            )
        if json:
            print_json(rows)
            return
        day = names.organisation.day(datetime.now(UTC))
        _print(
            "transfers",
            ("customer", "what", "opened", "outcome"),
            [
                (
                    row.approval,
                    names.customer(row.customer),
                    answering.subject_words(row, names),
                    names.moment(row.opened),
                    _outcome(row, names, day),
                )
                for row in rows
            ],
            ids=ids,
        )
        if len(rows) == limit:
            notes().print(f"older ones: --before {rows[-1].opened_position}", markup=False)


def _outcome(row: ApprovalRow, names: resolve.Names, day: date) -> str:
    if row.outcome is not None:
        reason = f" ({row.outcome_reason})" if row.outcome_reason else ""
        return f"{row.outcome}{reason}"
    asked = asked_to_answer(row, names.organisation, day)
    waits = " or ".join(names.person(each) for each in asked) or "nobody"
    return f"step {_step(row)} awaits {waits}"
