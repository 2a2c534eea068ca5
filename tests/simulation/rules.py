"""The rules by which enforcers, relay and feed go, so that a test can break one of them.

By default they are the real code, and where that has SQL inside, the simulation's own words for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from consumers.batch import BatchDecider
from consumers.kafka.chain import Chain, Checkpoint, Placed, checkpoint
from consumers.kafka.gathering import Gathered, gather
from consumers.kafka.records import Linked, Mark
from consumers.progress import Progress
from ledger.deciders import Decider, deciders
from ledger.envelope import StoredEvent
from ledger.store.generations import Generations
from tests.simulation.store import State, Store, move


class Gather(Protocol):
    """As ``gather`` is."""

    def __call__(
        self,
        delivered: deque[Linked | Mark],
        after: int,
        limit: int,
        *,
        head: int,
        generations: Generations,
        wanted: Callable[[StoredEvent], bool],
    ) -> Gathered: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be broken one by one."""

    gather: Gather = gather
    chain: Callable[[int, Mapping[int, int]], Chain] = Chain
    mark: Callable[[int, int, int], Mark] = Mark
    checkpoint: Callable[[Iterable[Placed], Iterable[bool]], Checkpoint | None] = checkpoint
    move: Callable[[State, Progress, int], None] = move
    open_generation: Callable[[Store], None] = Store.open_generation
    decider: Callable[..., BatchDecider] = BatchDecider
    versions: Mapping[int, Decider] = field(default_factory=deciders)
    # A relay whose records were not all acknowledged begins again, from its checkpoint.
    begins_again: bool = True
    # The topic is asked before a generation is opened.
    asks_the_topic: bool = True
    # Of what was recorded together all is put back, or nothing.
    puts_back_whole_decisions: bool = True
    # A topic that was made anew is filled from the beginning.
    knows_its_topic: bool = True
    # Effects and progress are one transaction.
    one_transaction: bool = True
    # What is missing in the topic is read from the store.
    reads_what_is_missing: bool = True
    # Guards are read when they are locked, and not when the batch is read.
    reads_guards_when_locked: bool = True
