"""What groups of consumers have told Kafka of how far they are."""

from __future__ import annotations

from kafka import OffsetAndMetadata, TopicPartition

from consumers.kafka.connecting import Cluster
from consumers.kafka.groups import GroupLag, group_lags
from consumers.kafka.topics import OWNERSHIP
from tests.consumers.kafka.support import with_topics


def test_a_group_is_behind_by_what_it_has_not_committed(cluster: Cluster) -> None:
    with_topics(cluster)
    at = TopicPartition(OWNERSHIP.name(cluster.topic_prefix), 1)
    group = f"{cluster.topic_prefix}-crm"
    with cluster.producer() as producer:
        for _ in range(3):
            producer.send(at.topic, value=b"", partition=at.partition)
    with cluster.consumer(group_id=group) as consumer:
        consumer.assign([at])
        consumer.commit({at: OffsetAndMetadata(1, "", -1)})
    assert group_lags(cluster) == [GroupLag(group, at.topic, 1, 1, 3, 2)]
