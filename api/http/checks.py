"""Checks: what would be decided now, for programs that ask before they act. Nothing is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from api.http.callers import Caller
from api.http.services import Services
from api.http.shapes import Shape
from api.outcomes import Status, status_by
from consumers.checking import Checked, would_decide
from ledger import reasons
from ledger.commands import Command, parse
from ledger.envelope import Origin
from ledger.events import decisions
from ledger.events.catalogue import Catalogue
from ledger.recording import Asked, new_request_id

# Of a hand-over there may be many thousand.
TOLD_MAX = 500


class ForetoldDecision(Shape):
    """A decision that would be made."""

    name: str = Field(examples=["OwnershipTransferred.v1"])
    customer: str
    reason: str | None = Field(None, description="Why something is refused, as a stable code.")
    sentence: str | None = Field(None, description="The reason in words.")
    data: dict[str, Any]


class Foretold(Shape):
    """What would be decided if it were asked for now, with the log as it is up to ``head``.

    ``is_behind``: recorded requests still wait for their decision, which may change this. Of more
    decisions than are told ``left_out`` counts the others. It is no promise: whoever asks first
    comes first.
    """

    recorded: bool = Field(default=False, description="Always false: a check records nothing.")
    status: Status
    head: int
    is_behind: bool
    effective: datetime
    decisions: list[ForetoldDecision]
    left_out: int = 0


def foretell(
    services: Services, caller: Caller, kind: type[Command], fields: Mapping[str, Any]
) -> Foretold:
    """Return what would be decided on what ``fields`` ask for, None left out.

    Raises ForbiddenError, and as consumers.checking.would_decide.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    command: Any = parse(kind, given)
    on_behalf_of = caller.actor if caller.on_behalf else None
    origin = Origin(caller.name, new_request_id(), caller.actor, on_behalf_of=on_behalf_of)
    ledger = services.ledger
    with ledger.pool.connection() as connection:
        checked = would_decide(
            connection, ledger.catalogue, services.rehearsing, Asked(command, origin)
        )
    return _told(ledger.catalogue, checked)


def _told(catalogue: Catalogue, checked: Checked) -> Foretold:
    draft, every = checked.draft, checked.draft.all
    # The last of them is the outcome of a hand-over.
    shown = every if len(every) <= TOLD_MAX else (*every[: TOLD_MAX - 1], every[-1])
    return Foretold(
        status=status_by(every),
        head=checked.head,
        is_behind=checked.is_behind,
        effective=draft.effective,
        decisions=[_foretold(catalogue, each) for each in shown],
        left_out=len(every) - len(shown),
    )


def _foretold(catalogue: Catalogue, decided: decisions.Decision) -> ForetoldDecision:
    data = catalogue.dump(decided)
    reason = data.get("reason") or data.get("remark")
    return ForetoldDecision(
        name=catalogue.name_of(decided),
        customer=decided.customer,
        reason=reason,
        sentence=reasons.SENTENCES.get(reason) if reason else None,
        data=data,
    )
