"""What somebody holds or held: since when, how it began, how and why it ended."""

from __future__ import annotations

from typing import Annotated

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import ID, Ids, Json, moment, notes, opened, print_json, print_table
from api.cli.read_commands import must_have_come
from ledger.commands import InvalidRequestError
from projections import intervals
from projections.intervals import Interval
from projections.telling import why_recycled

_BEGUN = {
    intervals.GRANTED: "claimed",
    intervals.OPENING: "opening balance",
    intervals.ASSIGNED: "assigned",
    intervals.TRANSFERRED: "transferred",
    intervals.HANDED_OVER: "handed over",
    intervals.RULED: "by a ruling",
}
_ENDED = {
    intervals.RELEASED: "released",
    intervals.RECYCLED: "recycled",
    intervals.TRANSFERRED: "transferred",
    intervals.HANDED_OVER: "handed over",
    intervals.RULED: "by a ruling",
}


def holdings(
    person: Annotated[str, typer.Argument(help="An id, a name or a foreign id.")],
    history: Annotated[
        bool, typer.Option("--history", help="All that they ever held, not only what they hold.")
    ] = False,
    as_of: Annotated[str | None, typer.Option(help="What they held then (2026-03-01).")] = None,
    before: Annotated[
        int | None,
        typer.Option(help="Only older ones than what began at this position."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List what somebody holds; with --history all that they held, and why it ended.

    From the newest back. With both --history and --as-of, all that had begun by then.
    """
    with opened() as ledger:
        names = resolve.Names(ledger)
        person_id = resolve.person(ledger, person)
        at = moment(as_of, names.zone, "as-of")
        must_have_come("as-of", at)
        with ledger.pool.connection() as connection:
            rows = intervals.held_by(
                connection,
                person_id,
                every=history,
                as_of=at,
                before=_cursor(ledger, person_id, before),
                limit=limit,
            )
        if json:
            print_json(rows)
            return
        columns = ("customer", "from", "how", "until", "why")
        print_table(
            f"{'held' if history or at else 'holds'}: {names.person(person_id)}",
            (ID, *columns) if ids else columns,
            [
                (
                    *(row.customer,) * ids,
                    names.customer(row.customer),
                    names.moment(row.from_effective),
                    _began(row, names),
                    names.moment(row.to_effective),
                    _ended(row, names),
                )
                for row in rows
            ],
        )
        if len(rows) == limit:
            notes().print(f"older ones: --before {rows[-1].from_position}", markup=False)


def _cursor(ledger: Ledger, person: str, position: int | None) -> Interval | None:
    """Return the interval that began at a position; raises InvalidRequestError for none."""
    if position is None:
        return None
    with ledger.pool.connection() as connection:
        found = intervals.begun_at(connection, person, position)
    if found is None:
        raise InvalidRequestError("before", f"nothing of theirs began at position {position}")
    return found


def _began(row: Interval, names: resolve.Names) -> str:
    how = _BEGUN.get(row.begun_by, row.begun_by)
    return f"{how} by {names.person(row.assigned_by)}" if row.assigned_by else how


def _ended(row: Interval, names: resolve.Names) -> str:
    if row.ended_by is None:
        return ""
    how = _ENDED.get(row.ended_by, row.ended_by)
    if row.next_owner is not None:
        return f"{how} to {names.person(row.next_owner)}"
    if row.ended_by == intervals.RELEASED and row.end_reason:
        return f"{how} ({row.end_reason.replace('_', ' ')})"
    if row.ended_by == intervals.RECYCLED:
        return f"{how} ({why_recycled(row.end_reason, row.end_days)})"
    return how
