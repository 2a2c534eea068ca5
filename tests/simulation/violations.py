"""What the simulation raises where something that must always hold does not."""

from __future__ import annotations


class Violation(Exception):  # noqa: N818 - what is found is none of ours
    """A rule was broken: its name, and a sentence."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule
