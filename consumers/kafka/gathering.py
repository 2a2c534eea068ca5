"""From what Kafka delivers of a partition to what a consumer takes. Pure.

Kafka delivers late, twice, in another order after a relay was replaced, or not at all what has
expired. A consumer that stands at a position takes what links to it, drops what it has seen, and
where something is missing in between says up to where, so that it is read from the store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumers.feed import is_request
from consumers.kafka.records import Linked, Mark
from ledger.envelope import StoredEvent
from ledger.errors import LedgerError
from ledger.store.generations import Generations


class GenerationContradictsError(LedgerError):
    """Kafka holds what the store does not know; nothing of it was taken."""

    code = "generation_contradicts"

    def __init__(self, position: int, theirs: int, ours: int) -> None:
        super().__init__(
            f"Kafka holds position {position} of generation {theirs} of the log, where the store"
            f" knows generation {ours}.",
            way_out="The database has lost its tail, or is not the one that filled the topic. See"
            " which it is before anything more is written to it.",
        )


@dataclass(frozen=True, slots=True)
class Gathered:
    """Events of the partition in order, and the position that a consumer of them has reached.

    ``missing_upto``, where it is there, says that something stands behind ``reached`` up to that
    position which was not delivered.
    """

    events: Sequence[StoredEvent]
    reached: int
    missing_upto: int | None = None


def gather(
    delivered: deque[Linked | Mark],
    after: int,
    limit: int,
    *,
    head: int,
    generations: Generations,
    wanted: Callable[[StoredEvent], bool] = is_request,
) -> Gathered:
    """Take from the front of ``delivered`` what links to position ``after``.

    At most ``limit`` of the events that are ``wanted``; what else is between them is gone over.

    ``head`` and ``generations`` are the store's, read after the records were delivered. What was
    seen before is dropped, and so is what an older generation has left behind where the store has a
    newer one: that was given up. Raises GenerationContradictsError for what the store cannot know.
    """
    events: list[StoredEvent] = []
    reached = after
    while delivered and len(events) < limit:
        record = delivered[0]
        position = record.upto if isinstance(record, Mark) else record.event.position
        if _is_given_up(position, record.generation, head, generations) or position <= reached:
            delivered.popleft()
            continue
        if record.previous > reached:
            return Gathered(events, reached, record.previous)
        if isinstance(record, Linked) and wanted(record.event):
            events.append(record.event)
        reached = position
        delivered.popleft()
    return Gathered(events, reached)


def _is_given_up(position: int, theirs: int, head: int, generations: Generations) -> bool:
    """Say whether a record is of a tail that the log has no more; raises where it may not be so."""
    if theirs == generations.newest and generations.begins_at <= position <= head:
        return False  # as nearly every record: this is asked of each
    ours = generations.of(position)
    if theirs > ours or (theirs == ours and position > head):
        raise GenerationContradictsError(position, theirs, ours)
    return theirs < ours
