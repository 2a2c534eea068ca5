"""Commands that hand over what somebody holds, show the receipts, and answer their lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from api.awaiting import asked_as, deadline_words, next_of
from api.bootstrap import Ledger
from api.cli import resolve, several
from api.cli.context import (
    ID,
    As,
    Ids,
    Json,
    RequestId,
    as_json,
    console,
    notes,
    opened,
    origin,
    print_json,
    print_table,
)
from api.cli.following import follow
from api.cli.hand_over_words import figures
from api.cli.write_commands import Check, words
from consumers.checking import would_decide
from ledger import commands, deadlines, reasons
from ledger.commands import parse
from ledger.errors import LedgerError
from ledger.events import decisions
from ledger.recording import Asked, new_request_id
from projections.approvals import ApprovalRow, approvals_named
from projections.hand_overs import (
    CUSTOMER,
    GIVEN,
    MOVED,
    POSITION_MAX,
    REFUSED,
    WAITING,
    HandOverRow,
    LineRow,
    counts_of,
    hand_over_of,
    hand_overs_named,
    lines_of,
    list_hand_overs,
    waiting_now,
)

SHOWN_MAX = 50
# So many answers are recorded at once: each is a request, and has its own result.
ANSWERED_AT_ONCE = 500


def hand_over(
    giver: Annotated[str, typer.Argument(help="Whose customers go: an id or a name.")],
    to: Annotated[list[str], typer.Option("--to", help="Who gets them; several are spread over.")],
    as_: As = None,
    plan: Annotated[
        str | None, typer.Option(help="all_to_one, or spread by territory and load.")
    ] = None,
    customer: Annotated[list[str], typer.Option(help="Only this customer; may be repeated.")] = [],  # noqa: B006 - typer copies it
    territory: Annotated[list[str], typer.Option(help="Only what lies there; repeatable.")] = [],  # noqa: B006 - typer copies it
    where: Annotated[
        list[str], typer.Option(help="Only customers with ATTRIBUTE=VALUE; repeatable.")
    ] = [],  # noqa: B006 - typer copies it
    collaborators: Annotated[
        str | None, typer.Option(help="Those at these customers: keep (as without it) or end.")
    ] = None,
    collaborations: Annotated[
        str | None, typer.Option(help="The giver's own: end (as without it) or give.")
    ] = None,
    reason_code: Annotated[str | None, typer.Option(help="A word for programs.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why, in your words; sealed.")] = None,
    checking: Check = False,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Hand over what somebody holds to one or several others (交接).

    With --check, only say what would move where. Approvals that it opens are answered with
    guishu approve --hand-over ID, or line by line.
    """
    with opened() as ledger:
        given: dict[str, Any] = {
            "giver": resolve.person(ledger, giver),
            "receivers": [resolve.person(ledger, each) for each in to],
            "plan": plan or ("all_to_one" if len(to) == 1 else "spread"),
            "customers": [resolve.customer(ledger, each) for each in customer],
            "territories": [resolve.territory(ledger, each) for each in territory],
            "conditions": [_condition(each) for each in where],
            "collaborators": collaborators,
            "collaborations": collaborations,
            "reason_code": reason_code,
            "reason": reason,
        }
        fields = {name: value for name, value in given.items() if value not in (None, [])}
        command, actor = parse(commands.HandOver, fields), resolve.actor(ledger, as_)
        if checking:
            _check(ledger, command, actor, json=json)
            return
        recorded = ledger.recording.record(Asked(command, origin(actor, request_id)))
        follow(ledger, recorded.positions[-1])
        name = recorded.made or ""
        again = " (recorded before; this is the first answer)" if recorded.repeated else ""
        (position,) = recorded.positions
        notes().print(f"recorded at {position} as {name}{again}", markup=False)
        with ledger.pool.connection() as connection:
            is_shown = hand_over_of(connection, name) is not None
        if is_shown:
            _print_receipt(ledger, name, None, 0, SHOWN_MAX, ids=False, json=json)


def _condition(text: str) -> dict[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise commands.InvalidRequestError("where", f"{text!r} is not ATTRIBUTE=VALUE")
    return {"attribute": name, "operator": "is", "value": value}


def _check(ledger: Ledger, command: commands.HandOver, actor: str, *, json: bool) -> None:
    """Print what would move where, and record nothing; a refusal ends with exit status 3."""
    with ledger.pool.connection() as connection:
        asked = Asked(command, origin(actor))
        checked = would_decide(connection, ledger.catalogue, ledger.recording, asked)
    decided = checked.draft.all
    outcome, lines = (
        decided[-1],
        [each for each in decided[:-1] if not isinstance(each, decisions.HandOverAdvanced)],
    )
    if json:
        dump = ledger.catalogue.dump
        print_json(
            {
                "recorded": False,
                "head": checked.head,
                "is_behind": checked.is_behind,
                "outcome": {"name": ledger.catalogue.name_of(outcome), **dump(outcome)},
                "decisions": [
                    {"name": ledger.catalogue.name_of(each), **dump(each)} for each in lines
                ],
            }
        )
    else:
        names = resolve.Names(ledger)
        console().print("nothing was recorded; now it would bring", markup=False)
        if lines:
            told = [
                (names.customer(each.customer), words(each, names)) for each in lines[:SHOWN_MAX]
            ]
            print_table("", ("customer", "what"), told)
        if len(lines) > SHOWN_MAX:
            console().print(f"and {len(lines) - SHOWN_MAX:,} more (--json has all)", markup=False)
        console().print(words(outcome, names), markup=False)
        if checked.is_behind:
            notes().print("Recorded requests still wait for their decision: it may change this.")
    if isinstance(outcome, decisions.HandOverRefused):
        raise typer.Exit(3)


# --- receipts ----------------------------------------------------------------------------------


class OutOfPlaceError(LedgerError):
    """An option is of receipts and no receipt was named, or the other way round."""

    code = "option_out_of_place"

    def __init__(self, option: str, *, of_receipts: bool) -> None:
        where = "receipt and none is named" if of_receipts else "list and a receipt is named"
        way_out = "Say --receipt and an id; guishu hand-overs lists them."
        super().__init__(
            f"--{option} is of a {where}.",
            way_out=way_out if of_receipts else f"Leave --{option} or --receipt out.",
        )


def hand_overs(
    receipt: Annotated[
        str | None, typer.Option(help="The lines of one: what moved, waits or stays, and why.")
    ] = None,
    giver: Annotated[str | None, typer.Option(help="Only those of this person.")] = None,
    outcome: Annotated[
        str | None, typer.Option(help="Of a receipt only moved, waiting, refused, …")
    ] = None,
    after: Annotated[int | None, typer.Option(help="Of a receipt only lines behind this.")] = None,
    before: Annotated[int | None, typer.Option(help="Only what was ordered before it.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="So many.")] = SHOWN_MAX,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List hand-overs, or show the receipt of one (交接单)."""
    of_receipts, of_lists = {"outcome": outcome, "after": after}, {"giver": giver, "before": before}
    out_of_place = of_receipts if receipt is None else of_lists
    for name, value in out_of_place.items():
        if value is not None:
            raise OutOfPlaceError(name, of_receipts=receipt is None)
    with opened() as ledger:
        if receipt is not None:
            _print_receipt(ledger, receipt, outcome, after or 0, limit, ids=ids, json=json)
            return
        person = resolve.person(ledger, giver) if giver else None
        with ledger.pool.connection() as connection:
            rows = list_hand_overs(
                connection, giver=person, before=before or POSITION_MAX, limit=limit
            )
            waiting = waiting_now(connection, [row.hand_over for row in rows])
        if json:
            print_json(
                [{**as_json(row), "waiting_now": waiting.get(row.hand_over, 0)} for row in rows]
            )
            return
        names = resolve.Names(ledger)
        print_table(
            "hand-overs",
            (ID, "what was ordered, and what came of it"),
            [(row.hand_over, _told(row, waiting.get(row.hand_over, 0), names)) for row in rows],
        )
        if len(rows) == limit:
            notes().print(f"older ones: --before {rows[-1].position}", markup=False)


def _told(row: HandOverRow, waiting: int, names: resolve.Names) -> str:
    """Return a hand-over in a few short lines: beside an id there is no room for columns."""
    receivers = ", ".join(names.person(each) for each in row.receivers)
    lines = [
        f"{names.person(row.giver)} → {receivers}",
        f"by {names.person(row.orderer)} on {names.moment(row.ordered)}",
        _state(row),
    ]
    if row.waiting:
        lines.append(f"{waiting:,} wait by now")
    return "\n".join(lines)


def _state(row: HandOverRow) -> str:
    if row.state == "ordered":
        return "not decided yet"
    if row.refused_because is not None:
        return f"refused: {row.refused_because}"
    told = figures(row.moved, row.waiting, row.settled, row.refused)
    return told if row.state == "done" else f"under way: {told}"


def _print_receipt(
    ledger: Ledger,
    hand_over: str,
    outcome: str | None,
    after: int,
    limit: int,
    *,
    ids: bool,
    json: bool,
) -> None:
    """Print a receipt, a page of its lines; one that was refused ends with exit status 3."""
    with ledger.pool.connection() as connection:
        row = hand_over_of(connection, hand_over)
        if row is None:
            raise resolve.NotFoundError(
                f"There is no hand-over {hand_over}, or it is not shown yet.",
                way_out="guishu hand-overs lists what there is.",
            )
        lines = lines_of(connection, hand_over, outcome=outcome, after=after, limit=limit)
        counts = counts_of(connection, hand_over)
    if json:
        print_json({"hand_over": row, "counts": counts, "lines": lines})
    else:
        _show(resolve.Names(ledger), row, counts, lines, limit, ids=ids)
    if row.state == REFUSED:
        raise typer.Exit(3)


def _show(
    names: resolve.Names,
    row: HandOverRow,
    counts: dict[str, int],
    lines: Sequence[LineRow],
    limit: int,
    *,
    ids: bool,
) -> None:
    out = console()
    out.print(_parties(names, row), markup=False)
    out.print(
        f"ordered by {names.person(row.orderer)} on {names.moment(row.ordered)}"
        f" ({row.reason_code}{f': {row.reason}' if row.reason else ''})",
        markup=False,
    )
    out.print(_state(row), markup=False)
    if row.refused_because is not None:
        out.print(reasons.SENTENCES[row.refused_because], markup=False)
        return
    if counts:
        told = ", ".join(f"{name} {count:,}" for name, count in counts.items())
        out.print(f"by now: {told}", markup=False)
    shown = [
        (line.approval or "", names.customer(line.customer), _line(line, names)) for line in lines
    ]
    if ids:  # an id takes two thirds of a line of 80 characters
        cells = [(f"{approval}\n{customer}".strip(), what) for approval, customer, what in shown]
        print_table("lines", (ID, "what became of it"), cells)
    else:
        print_table("lines", ("customer", "what became of it"), [each[1:] for each in shown])
    if not _CHOOSES & row.chosen.keys():
        out.print(_besides(names.person(row.giver)), markup=False)
    if len(lines) == limit:
        notes().print(f"more: --after {lines[-1].position}", markup=False)


def _line(line: LineRow, names: resolve.Names) -> str:
    """Return what became of a line, of whom it is, and why."""
    what = "" if line.what == CUSTOMER else f"{line.what} "
    has_it = line.outcome in (MOVED, GIVEN)
    to = ""
    if line.receiver:
        to = f"{'' if has_it else ', is to go'} to {names.person(line.receiver)}"
    why = f": {reasons.SENTENCES[line.reason]}" if line.reason else ""
    return f"{what}{line.outcome}{to}{why}"


# With one of these a hand-over is of customers alone, and of no other things.
_CHOOSES = {"customers", "territories", "conditions"}


def _besides(giver: str) -> str:
    """Return what becomes of approvals that the giver takes part in, in words for the receipt."""
    return (
        f"What {giver} had asked for, or would have received, and awaited approval is void: whoever"
        f" still wants it asks again. Steps that await {giver} are not moved; of one who has left"
        " they pass to a delegate, else to the next head up."
    )


# --- answers -----------------------------------------------------------------------------------


def answer_lines(
    ledger: Ledger,
    hand_over: str,
    kind: type[commands.Approve] | type[commands.Refuse],
    fields: Mapping[str, Any],
    actor: str,
    request_id: str | None,
    *,
    yes: bool,
    json: bool,
) -> None:
    """Answer every open line of a hand-over that awaits this person, once that is agreed to.

    Each is a request, in bounded appends, and any number may be. With a request id of the caller's
    own, the same again answers nothing twice. Raises NotFoundError where no line awaits the person,
    and InvalidRequestError.
    """
    with ledger.pool.connection() as connection:
        row = hand_over_of(connection, hand_over)
    if row is None:
        raise resolve.NotFoundError(
            f"There is no hand-over {hand_over}.", way_out="guishu hand-overs lists what there is."
        )
    pages = list(_awaiting(ledger, hand_over, actor))
    count = sum(map(len, pages))
    if not count:
        raise resolve.NotFoundError(
            f"No line of {hand_over} awaits this person.", way_out="guishu inbox lists what does."
        )
    names, verb = resolve.Names(ledger), "approved" if kind is commands.Approve else "refused"
    several.agree(
        lambda: console().print(_parties(names, row), markup=False),
        f"Are these {count:,} lines to be {verb}?",
        yes=yes,
        json=json,
    )
    given = {name: value for name, value in fields.items() if value is not None}
    own = request_id or new_request_id()
    last = 0
    for page in pages:
        asked = [
            Asked(
                parse(kind, {**given, "customer": each.customer, "approval": each.approval}),
                origin(actor, f"{own}:{each.approval}"),
            )
            for each in page
        ]
        for result in ledger.recording.record_many(asked):
            if isinstance(result, LedgerError):
                raise result
            last = result.positions[-1]
    follow(ledger, last)
    with ledger.pool.connection() as connection:
        counts = counts_of(connection, hand_over)
    if json:
        answered = {"request_id": own, "hand_over": hand_over, "answered": count}
        print_json({**answered, "counts": counts})
        return
    told = ", ".join(f"{name} {number:,}" for name, number in counts.items())
    console().print(f"{count:,} lines answered; by now: {told}", markup=False)


def _parties(names: resolve.Names, row: HandOverRow) -> str:
    receivers = ", ".join(names.person(each) for each in row.receivers)
    return f"{row.hand_over}: {names.person(row.giver)} → {receivers}"


def _awaiting(ledger: Ledger, hand_over: str, person: str) -> Iterator[list[ApprovalRow]]:
    """Yield, in bounded pages, the approvals of a hand-over that await somebody now."""
    organisation = ledger.recording.organisation()
    day = organisation.day(datetime.now(UTC))
    after = 0
    while True:
        with ledger.pool.connection() as connection:
            lines = lines_of(
                connection, hand_over, outcome=WAITING, after=after, limit=ANSWERED_AT_ONCE
            )
            named = [each.approval for each in lines if each.approval is not None]
            rows = approvals_named(connection, named)
        if not lines:
            return
        after = lines[-1].position
        yield [
            row
            for row in (rows[each] for each in named if each in rows)
            if asked_as(row, person, organisation, day)
        ]


# --- inbox -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Awaiting:
    """What of a hand-over awaits somebody: so many lines, as what, and the first that falls due."""

    hand_over: HandOverRow
    lines: int
    asked_as: tuple[str, ...]
    first: ApprovalRow

    def next(self, names: resolve.Names) -> deadlines.Deadline | None:
        """Return what falls due where nobody answers."""
        return next_of(self.first, names.organisation)

    def as_json(self, names: resolve.Names) -> dict[str, Any]:
        """Return it as the inbox prints it."""
        return {
            "hand_over": self.hand_over,
            "lines": self.lines,
            "asked_as": self.asked_as,
            "next": self.next(names),
        }


Found = Sequence[tuple[ApprovalRow, list[str]]]
"""What awaits somebody, and as what they are asked."""


def apart(
    ledger: Ledger, found: Found
) -> tuple[list[tuple[ApprovalRow, list[str]]], list[Awaiting]]:
    """Return what awaits somebody by itself, and what of each hand-over does, as one entry."""
    alone: list[tuple[ApprovalRow, list[str]]] = []
    grouped: dict[str, list[tuple[ApprovalRow, list[str]]]] = {}
    for row, named in found:
        hand_over = row.state.hand_over if row.state is not None else None
        group = alone if hand_over is None else grouped.setdefault(hand_over, [])
        group.append((row, named))
    if not grouped:
        return alone, []
    with ledger.pool.connection() as connection:
        rows = hand_overs_named(connection, list(grouped))
    return alone, [
        Awaiting(
            rows[name],
            len(lines),
            tuple(dict.fromkeys(word for _, words_ in lines for word in words_)),
            min((row for row, _ in lines), key=lambda row: row.opened),
        )
        for name, lines in grouped.items()
        if name in rows
    ]


def print_lines(awaiting: Sequence[Awaiting], names: resolve.Names) -> None:
    """Print a table of hand-overs of which lines await somebody."""
    cells = []
    for each in awaiting:
        row, due = each.hand_over, each.next(names)
        receivers = ", ".join(names.person(person) for person in row.receivers)
        until = f"{names.moment(due.due)}: {deadline_words(due.kind)}" if due else ""
        what = f"{names.person(row.giver)} → {receivers}"
        cells.append(
            (row.hand_over, what, f"{each.lines:,} customers", ", ".join(each.asked_as), until)
        )
    print_table(
        "hand-overs, to be answered line by line or with --hand-over",
        ("id", "what", "lines", "as", "until"),
        cells,
    )
