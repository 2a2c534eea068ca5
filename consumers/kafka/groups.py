"""How far groups of consumers have told Kafka that they are, for whoever watches them.

For guishu's own consumers that is a courtesy to such tools: what counts is the position in the
database. For subscribers outside it is all that anybody here knows of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError

# A cluster may serve many others. So many of its groups are asked about, the first by name.
GROUPS_MAX = 200


@dataclass(frozen=True, slots=True)
class GroupLag:
    """Up to which offset a group has told that it read a partition of ours, and where that ends."""

    group: str
    topic: str
    partition: int
    committed: int
    end: int
    left: int


def group_lags(cluster: Cluster) -> list[GroupLag]:
    """Return what groups have committed of the topics of this ledger; raises KafkaUnavailableError.

    Groups of the cluster that this client may not see are missing, and say nothing about it.
    """
    try:
        with cluster.admin() as admin:
            groups = sorted(each["group_id"] for each in admin.list_groups())[:GROUPS_MAX]
            told = admin.list_group_offsets(groups) if groups else {}
        committed = {
            (group, at): each.offset
            for group, offsets in told.items()
            for at, each in offsets.items()
            if at.topic.startswith(f"{cluster.topic_prefix}.") and each.offset >= 0
        }
        ends = _ends(cluster, {at for _, at in committed}) if committed else {}
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(cluster.bootstrap, error) from error
    return sorted(_lags(committed, ends), key=lambda each: (each.group, each.topic, each.partition))


def _ends(cluster: Cluster, at: set[TopicPartition]) -> dict[TopicPartition, int]:
    with cluster.consumer() as consumer:
        # What a group has read may be of a topic that is no more.
        there: dict[str, Any] = {
            name: consumer.partitions_for_topic(name) or () for name in {each.topic for each in at}
        }
        known = [each for each in at if each.partition in there[each.topic]]
        ends: dict[TopicPartition, int] = consumer.end_offsets(known)
    return ends


def _lags(
    committed: dict[tuple[str, TopicPartition], int], ends: dict[TopicPartition, int]
) -> Iterator[GroupLag]:
    for (group, at), offset in committed.items():
        if at in ends:
            end = ends[at]
            yield GroupLag(group, at.topic, at.partition, offset, end, max(0, end - offset))
