"""Answering what awaits approval as a list: whole, or those of a kind, each with its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, get_args

from api.awaiting import approver_words, asked_as, every_approval
from api.bootstrap import Ledger
from api.cli import resolve, several
from ledger import approving, commands
from ledger.approval_rules import Purpose
from ledger.commands import InvalidRequestError, parse
from projections.approvals import ApprovalRow

# So many open approvals are looked through for what awaits somebody, at most.
OPEN_MAX = 100_000
ANSWERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Which:
    """Which of what awaits somebody is meant; None does not filter.

    ``purpose`` is what it is for, such as ``transfer``; ``requester`` who has asked for it.
    """

    purpose: str | None = None
    requester: str | None = None

    def __post_init__(self) -> None:
        if self.purpose is not None and self.purpose not in get_args(Purpose):
            known = ", ".join(get_args(Purpose))
            raise InvalidRequestError("of", f"{self.purpose!r} is none of {known}")

    def holds(self, row: ApprovalRow) -> bool:
        """Say whether an approval is among those that are meant."""
        return self.purpose in (None, row.purpose) and self.requester in (None, row.requester)


def awaiting(
    ledger: Ledger, person: str, names: resolve.Names, which: Which | None = None
) -> list[tuple[ApprovalRow, list[str]]]:
    """Return what somebody may answer now, the oldest first, each with as what they are asked."""
    wanted, organisation = which or Which(), names.organisation
    day = organisation.day(datetime.now(UTC))
    found: list[tuple[ApprovalRow, list[str]]] = []
    with ledger.pool.connection() as connection:
        for row in islice(every_approval(connection), OPEN_MAX):
            asked = asked_as(row, person, organisation, day) if wanted.holds(row) else ()
            if asked:
                found.append((row, [approver_words(each, organisation) for each in asked]))
    return found


def subject_words(row: ApprovalRow, names: resolve.Names) -> str:
    """Return what an approval is about."""
    owner = names.person(row.owner)
    if row.purpose == approving.CLAIM:
        return f"claim by {names.person(row.receiver)}"
    if row.receiver is None:
        return f"{row.purpose} by {owner}"
    if row.purpose == approving.COLLABORATION:
        return f"{names.person(row.receiver)} beside {owner}"
    value = f", {row.value.amount:f} {row.value.currency}" if row.value else ""
    return f"{owner} → {names.person(row.receiver)}{value}"


def answer_list(
    ledger: Ledger,
    rows: Sequence[ApprovalRow],
    kind: type[commands.Approve] | type[commands.Refuse],
    fields: dict[str, Any],
    actor: str,
    request_id: str | None,
    *,
    yes: bool,
    json: bool,
) -> None:
    """Give one and the same answer to each of ``rows``, once somebody has agreed to the list.

    Each is recorded by itself and has its own outcome: where one does not count, the others do.
    ``fields`` are those of the answer besides, None left out. A line that does not count ends the
    command with exit status 3. Raises InvalidRequestError.
    """
    if len(rows) > ANSWERED_MAX:
        raise InvalidRequestError("all", f"{len(rows)} are more than {ANSWERED_MAX} at once")
    names = resolve.Names(ledger)
    given = {name: value for name, value in fields.items() if value is not None}
    wanted = [
        several.Wanted(
            parse(kind, {"customer": row.customer, "approval": row.approval, **given}),
            row.customer,
            row.approval,
            subject_words(row, names),
        )
        for row in rows
    ]
    verb = "approved" if kind is commands.Approve else "refused"
    if wanted:
        several.confirm(
            f"to be {verb}",
            ("customer", "what", "asked by"),
            [
                (
                    names.customer(row.customer),
                    subject_words(row, names),
                    names.person(row.requester),
                )
                for row in rows
            ],
            f"Are these {len(rows)} to be {verb}?",
            yes=yes,
            json=json,
        )
    outcomes = several.record_each(ledger, wanted, actor, request_id)
    several.tell(ledger, f"to be {verb}", "approval", outcomes, json=json)
