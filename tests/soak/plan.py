"""What a seed plans: the operations of each client, one after the other, and what is killed when.

The same seed gives the same plans, whatever comes of them. It does not say how the processes of the
machine are interleaved, nor what the answers are, on which some of the operations depend (whose a
customer was when it was read last, or what awaits approval).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from tests.soak.history import Kind

CLIENTS = 8
CUSTOMERS = 6
KILLS_PER_SECOND = 45 / 60
# Past the end of a session that says nothing: 10 s in PostgreSQL and in Kafka's group.
FROZEN_SECONDS = 11.0

T = TypeVar("T")
Target = Literal["enforcer-1", "enforcer-2", "relay", "projector", "serve", "kafka", "postgres"]
# The servers take longest to come back, and everything waits for PostgreSQL.
_WEIGHTS: dict[Target, int] = {
    "enforcer-1": 10,
    "enforcer-2": 10,
    "relay": 9,
    "projector": 3,
    "serve": 2,
    "kafka": 3,
    "postgres": 4,
}
_KINDS: dict[Kind, int] = {
    "claim": 26,
    "release": 12,
    "transfer": 12,
    "approve": 26,
    "refuse": 2,
    "read": 22,
}


@dataclass(frozen=True, slots=True)
class Step:
    """What a client does next.

    ``person`` and ``receiver`` are numbers of people; ``as_owner`` has whoever was read as the
    owner last act instead. ``by_version`` names the version that was read last with If-Match.
    ``is_fresh`` asks a read for all that was acknowledged to anybody. Where no answer came it is
    sent again so often as ``repeated`` says.
    """

    kind: Kind
    customer: int
    person: int
    receiver: int
    as_owner: bool
    by_version: bool
    is_fresh: bool
    wait_seconds: int
    repeated: int
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that is killed ``at`` so many seconds, and started again after a pause."""

    at: float
    target: Target
    pause_seconds: float


@dataclass(frozen=True, slots=True)
class Freeze:
    """An enforcer that is stopped, past the end of its sessions, and woken."""

    at: float
    target: Target
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What one seed plans for so many seconds."""

    seed: int
    seconds: float
    kills: tuple[Kill, ...]
    freezes: tuple[Freeze, ...]

    def steps(self, client: int) -> Iterator[Step]:
        """Yield what a client does, without an end."""
        chance = _chance(self.seed, f"client {client}")
        while True:
            yield Step(
                kind=_weighed(chance, _KINDS),
                customer=chance.randrange(CUSTOMERS),
                person=chance.randrange(CLIENTS),
                receiver=chance.randrange(CLIENTS),
                as_owner=chance.random() < 0.8,
                by_version=chance.random() < 0.15,
                is_fresh=chance.random() < 0.7,
                wait_seconds=chance.choice((0, 1, 2, 2)),
                repeated=chance.choice((0, 1, 3)),
                pause_seconds=chance.uniform(0, 0.06),
            )


def plan(seed: int, seconds: float) -> Plan:
    """Return the plan of a seed for so many seconds."""
    chance = _chance(seed, "kills")
    count = round(seconds * KILLS_PER_SECOND)
    kills = tuple(
        Kill(at, _weighed(chance, _WEIGHTS), chance.uniform(0, 0.5))
        for at in sorted(chance.uniform(0, seconds) for _ in range(count))
    )
    return Plan(seed, seconds, kills, tuple(_freezes(_chance(seed, "freezes"), seconds)))


def _freezes(chance: random.Random, seconds: float) -> Iterator[Freeze]:
    """Yield a freeze from early on, and then one after the other with some time between."""
    at = chance.uniform(0, 2)
    while at < seconds:
        target: Target = chance.choice(("enforcer-1", "enforcer-2"))
        yield Freeze(at, target, FROZEN_SECONDS)
        at += FROZEN_SECONDS + chance.uniform(2, 10)


def _weighed(chance: random.Random, weights: Mapping[T, int]) -> T:
    return chance.choices(list(weights), list(weights.values()))[0]


def _chance(seed: int, what: str) -> random.Random:
    return random.Random(f"{seed} {what}")  # noqa: S311 - to be repeated, no secret
