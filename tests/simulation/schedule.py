"""A schedule: steps that are drawn without a look at what they will meet.

So any of them can be left out, and the others still mean the same. A step that finds nothing to do
does nothing.
"""

from __future__ import annotations

import random
from typing import NamedTuple

# How often each step is drawn, beside the others.
WEIGHTS = {
    # Clients.
    "claim": 12,
    "release": 6,
    "transfer": 8,
    "answer": 14,
    "assign": 2,
    "follow_up": 3,
    "deadline": 2,
    "fact": 2,
    "time": 3,
    "unpark": 2,
    # The relay: a whole round of it, and its parts.
    "relay": 30,
    "send": 8,
    "settle": 10,
    "mark": 4,
    "stop_relay": 3,
    # Who follows: all that there is for one of them, and a batch in parts.
    "follow": 40,
    "read": 10,
    "commit": 20,
    "take_over": 6,
    "kill": 2,
    # The network and the broker.
    "late": 5,
    "lose_unsent": 2,
    "expire": 3,
    "lose_topic": 1,
    # The database.
    "crash": 1,
    "lose_tail": 2,
    "start_server": 3,
}
STEPS = (30, 80)
# How often a kind of step is drawn in one schedule beside how often by default: schedules that are
# all alike find less.
_MOODS = (0, 0.5, 1, 1, 1, 3)
NUMBERS = 1_000


class Step(NamedTuple):
    """What happens next, and three numbers that say to whom and how."""

    kind: str
    a: int
    b: int
    c: int

    def chance(self) -> random.Random:
        """Return what decides where the numbers are not enough; the same each time."""
        return random.Random(f"{self.a} {self.b} {self.c}")  # noqa: S311 - it must come out the same


def draw(seed: int) -> list[Step]:
    """Return the schedule of a seed."""
    chance = random.Random(seed)  # noqa: S311 - it must come out the same
    weights = [weight * chance.choice(_MOODS) for weight in WEIGHTS.values()]
    weights[0] += 5  # without claims nothing happens
    kinds = chance.choices(list(WEIGHTS), weights, k=chance.randint(*STEPS))
    return [Step(kind, *(chance.randrange(NUMBERS) for _ in range(3))) for kind in kinds]
