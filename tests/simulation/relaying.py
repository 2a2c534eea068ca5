"""The relay in memory: as ``consumers/kafka/relay.py``, around the real chain and checkpoint."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from consumers.kafka.chain import Placed
from consumers.kafka.records import Encoded, Mark, encode, encode_mark
from consumers.progress import FencedError
from tests.simulation.rules import Rules
from tests.simulation.store import PARTITIONS, Store
from tests.simulation.topic import Session, Topic


class TailLostError(Exception):
    """The topic holds more than the log."""


def known(topic: Topic, store: Store) -> int:
    """Return the highest position that the topic tells of, as ``consumers/kafka/tail.py`` does."""
    newest = store.generations.newest
    told = (each for each in topic.all_told() if each.generation >= newest)
    return max(
        (each.upto if isinstance(each, Mark) else each.event.position for each in told), default=0
    )


def check_tail(topic: Topic, store: Store) -> None:
    """Return where the log has all that the topic tells of; raises TailLostError."""
    if known(topic, store) > store.state.head:
        raise TailLostError


class Relay:
    """One relay from its start to its first error; another one may lead at the same time."""

    def __init__(self, rules: Rules, store: Store, topic: Topic, name: str) -> None:
        """Take over from whoever relayed before; raises TailLostError."""
        self._rules = rules
        self._store = store
        self._topic = topic
        self.session = Session(name)
        if rules.asks_the_topic:
            check_tail(topic, store)
        rules.open_generation(store)
        with store.transaction() as state:
            row = state.checkpoint
            row.epoch += 1
            if row.topic_id != topic.topic_id:
                row.topic_id = topic.topic_id
                if rules.knows_its_topic:
                    row.position, row.lasts = 0, {}
            self._epoch, self.position = row.epoch, row.position
            lasts = dict(row.lasts)
        self._chain = rules.chain(PARTITIONS, lasts)
        self._lasts = [lasts.get(number, 0) for number in range(PARTITIONS)]
        self._told = [0] * PARTITIONS
        self._placed: Sequence[Placed] = ()

    @property
    def waits(self) -> bool:
        """Whether it waits for acknowledgements."""
        return bool(self._placed)

    def send(self, limit: int) -> str:
        """Send the next events; return which."""
        stored = self._store.read_after(self.position, limit)
        generations = self._store.generations
        self._placed = [self._chain.place(each) for each in stored]
        for placed in self._placed:
            encoded = encode(placed, generations.of(placed.event.position))
            self.session.queues[placed.partition].append(encoded)
        return _span([each.event.position for each in self._placed])

    def settle(self, chance: random.Random | None) -> tuple[str, bool]:
        """Let the broker take and acknowledge what was sent, and move the checkpoint.

        All of it, or what ``chance`` says. Returns what was acknowledged, and whether the relay
        goes on. Raises FencedError.
        """
        acknowledged = self._delivered(chance)
        flags = [each.event.position in acknowledged for each in self._placed]
        placed, self._placed = self._placed, ()
        reached = self._rules.checkpoint(placed, flags)
        if reached is not None:
            self._move(reached.position, reached.lasts)
        goes_on = all(flags) or not self._rules.begins_again
        return f"{_span(sorted(acknowledged))} acknowledged, checkpoint {self.position}", goes_on

    def _delivered(self, chance: random.Random | None) -> set[int]:
        """Return the positions that are acknowledged, after the broker has taken what it takes."""
        acknowledged: set[int] = set()
        for number in range(PARTITIONS):
            sent = [each.event.position for each in self._placed if each.partition == number]
            takes = len(sent) if chance is None else _some(chance, len(sent))
            taken = self._topic.take(self.session, number, takes)
            says = taken if chance is None else _some(chance, taken)
            acknowledged.update(sent[:says])
        return acknowledged

    def mark(self, *, taken: bool) -> str:
        """Tell every partition that it has nothing more up to the checkpoint."""
        behind = [number for number in range(PARTITIONS) if self._told[number] < self.position]
        generation = self._store.generations.of(self.position)
        for number in behind:
            mark = self._rules.mark(self.position, generation, self._lasts[number])
            self.session.queues[number].append(encode_mark(mark))
            if taken:
                self._topic.take(self.session, number, 1)
                self._told[number] = self.position
        return f"marks {self.position} in {behind}"

    def _move(self, position: int, lasts: dict[int, int]) -> None:
        with self._store.transaction(durable=False) as state:
            row = state.checkpoint
            if (row.epoch, row.position) != (self._epoch, self.position):
                raise FencedError("relay")
            state.checkpoint = replace(row, position=position, lasts={**row.lasts, **lasts})
        self.position = position
        for partition, last in lasts.items():
            self._lasts[partition] = self._told[partition] = last


def _some(chance: random.Random, count: int) -> int:
    """Return how many of so many: mostly all."""
    return count if chance.random() < 0.7 else chance.randint(0, count)


def _span(positions: Sequence[int]) -> str:
    return f"{positions[0]}-{positions[-1]}" if positions else "nothing"


def drop(session: Session, number: int, count: int) -> int:
    """Lose so many of the records that a session has in front of a partition."""
    queue: list[Encoded] = []
    while session.queues[number] and len(queue) < count:
        queue.append(session.queues[number].popleft())
    return len(queue)
