"""What was decided about a transfer or release that needs approval, in one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.cli.resolve import Names
from ledger import reasons
from ledger.events import decisions
from projections.telling import why_recycled


def approval_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.ApprovalOpened():
            return _opened(data, names)
        case decisions.StepAnswered():
            answer = "agrees" if data.agreed else "does not agree"
            return f"step {data.step + 1}: {names.person(data.person)} {answer}"
        case decisions.StepOpened():
            return f"step {data.step + 1} is next{_asking(data.asked, names)}"
        case decisions.StepReminded():
            return f"step {data.step + 1} is reminded{_asking(data.asked, names)}"
        case decisions.StepPassedOn():
            return f"step {data.step + 1} is passed on{_asking(data.asked, names)}"
        case decisions.OwnershipTransferred():
            customer, owner = names.customer(data.customer), names.person(data.owner)
            former = names.person(data.former_owner)
            return f"transferred: {customer} belongs to {owner}, and no longer to {former}"
        case decisions.RecycleWarned():
            told = ", ".join(names.person(each) for each in data.told)
            because = data.because.replace("_", " ")
            return f"goes back to the pool on {names.moment(data.goes)} ({because}); told: {told}"
        case decisions.CustomerRecycled():
            customer, owner = names.customer(data.customer), names.person(data.owner)
            because = why_recycled(data.because, data.days)
            return f"recycled: {customer} is free, and no longer {owner}'s ({because})"
        case decisions.RecycleHeld():
            return f"held: {names.customer(data.customer)} until {names.moment(data.until)}"
        case decisions.ApprovalClosed():
            reason = f": {reasons.SENTENCES[data.reason]}" if data.reason else ""
            return f"what awaited approval is {data.outcome}{reason}"
        case _:
            return None


def _opened(data: decisions.ApprovalOpened, names: Names) -> str:
    if not data.steps:
        return f"the {data.purpose} needs no approval"
    count = "one step" if len(data.steps) == 1 else f"{len(data.steps)} steps"
    return f"the {data.purpose} awaits approval in {count}{_asking(data.asked, names)}"


def _asking(asked: Sequence[str], names: Names) -> str:
    return f"; asked: {', '.join(names.person(each) for each in asked)}" if asked else ""
