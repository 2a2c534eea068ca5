"""What was decided about a stand-in, in one sentence each."""

from __future__ import annotations

from typing import Any

from api.cli.resolve import Names
from ledger.events import decisions


def orphan_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.StandInNamed():
            return (
                f"{names.person(data.person)} stands in at {names.customer(data.customer)} for"
                f" {names.person(data.owner)} until {names.moment(data.until)}"
            )
        case decisions.StandInEnded():
            customer = names.customer(data.customer)
            return f"{names.person(data.person)} no longer stands in at {customer}"
        case _:
            return None
