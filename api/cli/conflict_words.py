"""What was decided about a conflict, in one sentence each."""

from __future__ import annotations

from typing import Any

from api.cli.resolve import Names
from ledger import conflicts, reasons
from ledger.events import decisions

KINDS = {
    conflicts.COMPETING_CLAIMS: "competing claims",
    conflicts.FOLLOW_UP: "a follow-up by somebody else",
    conflicts.DEAL: "a deal by somebody else",
}


def conflict_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.ConflictOpened():
            people = " and ".join(names.person(each) for each in data.parties)
            return f"a conflict of {people}: {KINDS[data.kind]}{_asking(data.asked, names)}"
        case decisions.ConflictEvidenceAdded():
            return f"one more proof of {data.conflict}{_asking(data.asked, names)}"
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


def _asking(asked: tuple[str, ...], names: Names) -> str:
    people = ", ".join(names.person(each) for each in asked)
    return f"; asked to rule: {people}" if people else ""
