"""What falls due next: what the clock is going to raise, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from api.cli import conflict_commands, resolve
from api.cli.approval_words import deadline_words
from api.cli.context import ID, Ids, Json, notes, opened, print_json, print_table
from consumers.clock import database_now
from ledger import approving
from projections import deadlines
from projections.approvals import ApprovalRow, approvals_named
from projections.conflicts import ConflictRow, conflicts_named
from projections.deadlines import DueRow


def due(
    days: Annotated[int, typer.Option(min=0, max=3_650, help="Within so many days.")] = 7,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    ids: Ids = False,
    json: Json = False,
) -> None:
    """List what falls due soon, and what then happens unless somebody acts (到期)."""
    with opened() as ledger:
        names = resolve.Names(ledger)
        with ledger.pool.connection() as connection:
            now = database_now(connection)
            rows = deadlines.due(connection, now + timedelta(days=days), limit=limit)
            approvals = approvals_named(connection, [row.subject for row in rows])
            disputes = conflicts_named(connection, [row.subject for row in rows])
        if json:
            print_json([{**_as_json(row), "overdue": row.due <= now} for row in rows])
            return
        columns = ("due", "customer", "then", "of", "awaits")
        told = [
            (
                row.subject,
                names.moment(row.due),
                names.customer(row.customer),
                deadline_words(row.kind),
                names.person(row.owner),
                _awaited(approvals.get(row.subject) or disputes.get(row.subject), names, now),
            )
            for row in rows
        ]
        print_table(
            f"due within {days} days",
            (ID, *columns) if ids else columns,
            told if ids else [row[1:] for row in told],
        )
        if len(rows) == limit:
            notes().print(f"there may be more: --limit {2 * limit}", markup=False)


def _as_json(row: DueRow) -> dict[str, object]:
    return {
        "due": row.due.astimezone(UTC),
        "customer": row.customer,
        "kind": row.kind,
        "subject": row.subject,
        "owner": row.owner,
    }


def _awaited(subject: ApprovalRow | ConflictRow | None, names: resolve.Names, now: datetime) -> str:
    day = names.organisation.day(now)
    if isinstance(subject, ConflictRow):
        asked = conflict_commands.asked_to_rule(subject, names, day)
    elif subject is None or subject.state is None:
        return ""
    else:
        asked = approving.asked(subject.state, names.organisation, day)
    return " or ".join(names.person(each) for each in asked)
