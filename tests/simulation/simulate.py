"""Schedules by their seeds, and of one that fails the least that fails still."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

from ledger.collecting import uncollected
from ledger.events.catalogue import Catalogue, catalogue
from tests.simulation.prologue import Prologue, begin
from tests.simulation.rules import Rules
from tests.simulation.schedule import Step, draw
from tests.simulation.violations import Violation
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Failure:
    """How a schedule has failed, and what had happened."""

    rule: str
    sentence: str
    steps: Sequence[Step]
    history: Sequence[str]


class Simulation:
    """Runs any number of schedules by the same rules."""

    def __init__(self, rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._catalogue: Catalogue = catalogue()

    @cached_property
    def _prologue(self) -> Prologue:
        return begin(self._catalogue)

    def run(self, steps: Sequence[Step]) -> Failure | None:
        """Run a schedule; return how it has failed, if it has."""
        world = World(self._catalogue, self._prologue, self._rules)
        with _quiet(), uncollected():
            try:
                for step in steps:
                    world.do(step)
                world.finish()
            except Violation as violation:
                return Failure(violation.rule, str(violation), steps, world.history)
            except Exception as error:  # whatever goes wrong is to be shown with its history
                sentence = f"{type(error).__name__}: {error}"
                return Failure(type(error).__name__, sentence, steps, world.history)
        return None

    def run_seed(self, seed: int) -> Failure | None:
        """Run the schedule of a seed."""
        return self.run(draw(seed))

    def shrunk(self, failure: Failure) -> Failure:
        """Return the failure of the same rule with as few steps as can be found by leaving out."""
        size = len(failure.steps) // 2
        while size:
            at = 0
            while at < len(failure.steps):
                fewer = [*failure.steps[:at], *failure.steps[at + size :]]
                found = self.run(fewer)
                if found is not None and found.rule == failure.rule:
                    failure = found
                else:
                    at += size
            size //= 2
        return failure


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing be logged of requests that cannot be decided on purpose."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
