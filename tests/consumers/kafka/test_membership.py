"""What a member of the group says of itself when it joins."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.protocol.consumer.metadata import ConsumerProtocolAssignment

from consumers.kafka.local import LocalKafka
from consumers.kafka.membership import Assignor, Forgetting, Member
from consumers.kafka.topics import LOG
from tests.consumers.kafka.support import (
    PARTITIONS,
    QUICK_ENFORCERS,
    cluster_for_a_test,
    with_topics,
)
from tests.support.processes import wait_until


def claimed(assignor: Assignor) -> list[Any]:
    return [(each.topic, each.partitions) for each in assignor.metadata({"log"}).owned_partitions]


def test_what_it_lost_it_claims_no_longer() -> None:
    """Frozen or cut off, it had missed that the group went on without it.

    It claimed its partitions when it came back, they were held back from the others for its sake,
    and one that it was not given again in the end belonged to nobody.
    """
    assignor = Assignor()
    listener = Forgetting(assignor)
    assignor.on_assignment(ConsumerProtocolAssignment(1, [("log", [0, 1])], b""), 7)
    listener.on_partitions_assigned({TopicPartition("log", 0), TopicPartition("log", 1)})
    assert claimed(assignor) == [("log", [0, 1])]
    listener.on_partitions_revoked({TopicPartition("log", 1)})
    assert claimed(assignor) == [("log", [0, 1])]
    listener.on_partitions_lost({TopicPartition("log", 0), TopicPartition("log", 1)})
    assert claimed(assignor) == []


def test_what_one_that_was_killed_was_to_let_go_of_is_given_to_another(
    kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group had been shared out anew, and it had not heard of it yet.

    Started anew under its name it was given its new share, and nobody heard of it, for so it is
    with static members; what it should have let go of belonged to nobody, until by chance somebody
    came or went. A soak of 90 seconds met it.
    """
    cluster = with_topics(cluster_for_a_test(kafka))
    name, group = LOG.name(cluster.topic_prefix), f"{cluster.topic_prefix}-enforcer"

    def member(number: int) -> Member:
        return Member(cluster, name, group, f"{group}-{number}", QUICK_ENFORCERS.member)

    def share(*members: Member) -> list[int]:
        for each in members:
            each.poll(0.05, 1)
        return sorted(len(each.assigned()) for each in members)

    with ExitStack() as stack:
        with member(0) as killed:
            wait_until(lambda: share(killed) == [PARTITIONS])
            other = stack.enter_context(member(1))
            coordinator = killed._consumer._coordinator
            joins_again = coordinator.request_rejoin

            def unless_it_is_to_let_go() -> None:
                if len(killed.assigned()) == PARTITIONS:
                    joins_again()

            monkeypatch.setattr(coordinator, "request_rejoin", unless_it_is_to_let_go)
            wait_until(lambda: share(killed, other) != [0, PARTITIONS])
            assert sum(share(killed, other)) < PARTITIONS
        anew = stack.enter_context(member(0))
        wait_until(lambda: share(anew, other) == [1, 2])
