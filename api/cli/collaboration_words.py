"""What was decided about a collaboration, in one sentence each."""

from __future__ import annotations

from typing import Any

from api.cli.resolve import Names
from ledger.events import decisions


def collaboration_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.CollaboratorAdded():
            until = f" until {names.moment(data.until)}" if data.until else ""
            share = f", {data.share:f} % of the credit" if data.share else ""
            site = f", at the site {data.site}" if data.site else ""
            return (
                f"{names.person(data.person)} collaborates at {names.customer(data.customer)}"
                f" from {names.moment(data.since)}{until}{share}{site}"
            )
        case decisions.CollaborationsEnded():
            people = " and ".join(names.person(each) for each in data.people)
            verb = "collaborates" if len(data.people) == 1 else "collaborate"
            return f"{people} no longer {verb} at {names.customer(data.customer)}"
        case _:
            return None
