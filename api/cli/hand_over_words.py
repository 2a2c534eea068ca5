"""What was decided about a hand-over, in one sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.cli.resolve import Names
from ledger import reasons
from ledger.events import decisions


def hand_over_words(data: Any, names: Names) -> str | None:
    """Return the sentence; None where the decision is about something else, or a refusal."""
    match data:
        case decisions.HandOverLineRefused():
            return f"stays: {names.customer(data.customer)}. {reasons.SENTENCES[data.reason]}"
        case decisions.HandOverAdvanced():
            return f"so far {figures(data.moved, data.waiting, data.settled, data.refused)}"
        case decisions.HandOverCompleted():
            told = figures(data.moved, data.waiting, data.settled, data.refused)
            return f"handed over from {names.person(data.giver)}: {told}"
        case _:
            return None


def figures(moved: int, waiting: int, settled: int, refused: Mapping[str, int]) -> str:
    """Return how many customers moved, wait and stay, and how much else was settled."""
    words = [f"{moved:,} moved"]
    if waiting:
        words.append(f"{waiting:,} await approval")
    if refused:
        why = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items()))
        words.append(f"{sum(refused.values()):,} stay ({why})")
    if settled:
        words.append(f"{settled:,} other things settled")
    return ", ".join(words)
