"""What was decided about a conflict, in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.cli.resolve import Names
from ledger import conflicts, reasons
from ledger.events import decisions

PARTIES_TOLD = 6

KINDS = {
    conflicts.COMPETING_CLAIMS: "competing claims",
    conflicts.FOLLOW_UP: "a follow-up by somebody else",
    conflicts.DEAL: "a deal by somebody else",
    conflicts.GROUP: "members of one group under different owners",
    conflicts.IDENTIFIER: "the same identifier entered again",
}


def conflict_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.ConflictOpened():
            people = parties_words(data.parties, names, " and ")
            told = f"a conflict of {people}{_where(data, names)}: {KINDS[data.kind]}"
            return f"{told}{_asking(data.asked, names)}"
        case decisions.ConflictEvidenceAdded():
            joins = f", which {parties_words(data.parties, names)} joins" if data.parties else ""
            return f"one more proof of {data.conflict}{joins}{_asking(data.asked, names)}"
        case decisions.RulingReminded():
            return (
                f"the conflict has no ruling yet, of which is reminded{_asking(data.asked, names)}"
            )
        case decisions.RulingPassedOn():
            return f"the conflict has no ruling and is passed on{_asking(data.asked, names)}"
        case decisions.ConflictClosed(outcome=conflicts.GONE):
            return f"the conflict is gone: {reasons.SENTENCES[data.reason_code]}"
        case decisions.ConflictClosed():
            to = f" to {names.person(data.receiver)}" if data.receiver else ""
            return f"ruled by {names.person(data.ruled_by)}: {data.outcome}{to}"
        case _:
            return None


def parties_words(parties: Sequence[str], names: Names, between: str = ", ") -> str:
    """Return the parties of a conflict by name; of many the first, and how many others."""
    told = [names.person(each) for each in parties]
    if len(told) > PARTIES_TOLD:
        told = [*told[: PARTIES_TOLD - 1], f"{len(told) - PARTIES_TOLD + 1} others"]
    return between.join(told)


def _where(data: decisions.ConflictOpened, names: Names) -> str:
    """Say at which customer it is, where that is not the one that was asked about."""
    match data.kind:
        case conflicts.GROUP:
            return f" in the group of {names.customer(data.customer)}"
        case conflicts.IDENTIFIER:
            return f" at {names.customer(data.customer)}"
        case _:
            return ""


def _asking(asked: tuple[str, ...], names: Names) -> str:
    people = ", ".join(names.person(each) for each in asked)
    return f"; asked to rule: {people}" if people else ""
