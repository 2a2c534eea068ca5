"""What a member of the group says of itself when it joins."""

from __future__ import annotations

from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from consumers.kafka.membership import Forgetting


def claimed(assignor: CooperativeStickyAssignor) -> list[Any]:
    return [(each.topic, each.partitions) for each in assignor.metadata({"log"}).owned_partitions]


def test_what_it_lost_it_claims_no_longer() -> None:
    """Frozen or cut off, it had missed that the group went on without it.

    It claimed its partitions when it came back, they were held back from the others for its sake,
    and one that it was not given again in the end belonged to nobody.
    """
    assignor = CooperativeStickyAssignor()
    listener = Forgetting(assignor)
    assignor.on_assignment(ConsumerProtocolAssignment(1, [("log", [0, 1])], b""), 7)
    listener.on_partitions_assigned({TopicPartition("log", 0), TopicPartition("log", 1)})
    assert claimed(assignor) == [("log", [0, 1])]
    listener.on_partitions_revoked({TopicPartition("log", 1)})
    assert claimed(assignor) == [("log", [0, 1])]
    listener.on_partitions_lost({TopicPartition("log", 0), TopicPartition("log", 1)})
    assert claimed(assignor) == []
