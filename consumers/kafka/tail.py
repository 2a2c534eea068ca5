"""Whether the topic knows more of the log than the store does: then the store has lost its tail.

A standby that was promoted, or a backup that was restored, may lack what was recorded last, and
what consumers have acted on. So the topic is asked before a generation is opened, and before
anything is sent.
"""

from __future__ import annotations

import time
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from psycopg import Connection

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, TailLostError
from consumers.kafka.records import Mark, decode
from consumers.kafka.topics import LOG
from ledger.store.generations import read_generations
from ledger.store.reading import head

# What a relay that began anew has repeated may stand behind what is highest: so many of the last
# records of each partition are looked at, as many as it sends before it waits for acknowledgement.
RECORDS_LOOKED_AT = 2_000
_SECONDS_MAX = 60.0


def check_tail(connection: Connection[Any], cluster: Cluster) -> None:
    """Return where the store knows all that the topic does, or the topic does not exist.

    What an older generation has left behind in the topic was given up when the newer one was
    opened. Raises TailLostError, KafkaUnavailableError, UnreadableRecordError.
    """
    newest = read_generations(connection).newest
    try:
        with cluster.consumer() as consumer:
            known = _highest(consumer, LOG.name(cluster.topic_prefix), newest)
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(cluster.bootstrap, error) from error
    # Behind the look at the topic, which is filled from the store and never before it.
    ends_at = head(connection)
    if known > ends_at:
        raise TailLostError(LOG.name(cluster.topic_prefix), known, ends_at)


def _highest(consumer: Any, topic: str, generation: int) -> int:
    """Return the highest position that the topic tells of, in this generation or a later one."""
    at = [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic) or ()]
    if not at:
        return 0
    consumer.assign(at)
    begins, ends = consumer.beginning_offsets(at), consumer.end_offsets(at)
    for each in at:
        consumer.seek(each, max(begins[each], ends[each] - RECORDS_LOOKED_AT))
    highest = 0
    deadline = time.monotonic() + _SECONDS_MAX
    while any(consumer.position(each) < ends[each] for each in at):
        if time.monotonic() > deadline:
            raise KafkaError(f"the end of {topic} was not reached in {_SECONDS_MAX:.0f} seconds")
        for records in consumer.poll(timeout_ms=200).values():
            for record in records:
                told = decode(record.value, record.headers)
                position = told.upto if isinstance(told, Mark) else told.event.position
                if told.generation >= generation:
                    highest = max(highest, position)
    return highest
