"""Making topics on a real broker, and putting their settings in force again."""

from __future__ import annotations

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, TopicPartitionsError
from consumers.kafka.topics import CURRENT, LOG, OWNERSHIP, TOPICS, apply_topics
from tests.consumers.kafka.support import PARTITIONS
from tests.support.processes import wait_until


def settings_of(cluster: Cluster, name: str) -> dict[str, str]:
    """Return all settings of a topic as the broker has them."""
    with cluster.admin() as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, name)
        found = admin.describe_configs([resource], config_filter="all")["topic"][name]
    return {key: each["value"] for key, each in found.items()}


def partitions_of(cluster: Cluster) -> dict[str, int]:
    with cluster.admin() as admin:
        names = [name for name in admin.list_topics() if name.startswith(cluster.topic_prefix)]
        described = admin.describe_topics(names) if names else []
    return {each["name"]: len(each["partitions"]) for each in described}


def test_they_are_made_with_their_settings_and_a_second_time_nothing_is_done(
    cluster: Cluster,
) -> None:
    names = [topic.name(cluster.topic_prefix) for topic in (LOG, OWNERSHIP, CURRENT)]
    assert names[2] == f"{cluster.topic_prefix}.ownership.current.v1"
    made = apply_topics(cluster, PARTITIONS)
    assert [(each.topic, each.partitions, each.copies) for each in made] == [
        (name, PARTITIONS, 1) for name in names
    ]
    assert all(each.did.startswith("made: ") for each in made)
    for topic, name in zip(TOPICS, names, strict=True):
        assert settings_of(cluster, name).items() >= topic.settings.items()
        assert settings_of(cluster, name)["min.insync.replicas"] == "1"
    assert [each.did for each in apply_topics(cluster, PARTITIONS)] == ["in place"] * 3


def test_a_setting_that_somebody_changed_is_put_right_and_others_stay(cluster: Cluster) -> None:
    apply_topics(cluster, PARTITIONS)
    name = LOG.name(cluster.topic_prefix)
    with cluster.admin() as admin:
        theirs = {"retention.ms": "1000", "segment.ms": "3600000"}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, theirs)])
    # The broker that is asked hears of it from the controller.
    wait_until(lambda: settings_of(cluster, name)["retention.ms"] == "1000")
    log, *others = apply_topics(cluster, PARTITIONS)
    assert log.did == "changed retention.ms from 1000 to 604800000"
    assert [each.did for each in others] == ["in place"] * 2
    assert settings_of(cluster, name)["segment.ms"] == "3600000"


def test_a_partition_count_is_never_changed_and_nothing_else_is_done_then(
    cluster: Cluster,
) -> None:
    name = OWNERSHIP.name(cluster.topic_prefix)
    with cluster.admin() as admin:
        admin.create_topics({name: {"num_partitions": 2}}, wait_for_metadata=True)
    with pytest.raises(TopicPartitionsError, match="has 2 partitions, not 3") as raised:
        apply_topics(cluster, 3)
    assert "GUISHU_KAFKA_PARTITIONS to 2" in raised.value.way_out
    assert partitions_of(cluster) == {name: 2}


def test_a_cluster_that_is_not_there_is_an_error_with_a_way_out() -> None:
    nowhere = Cluster("127.0.0.1:1", options={"bootstrap_timeout_ms": 200})
    with pytest.raises(KafkaUnavailableError, match=r"127\.0\.0\.1:1") as raised:
        apply_topics(nowhere, PARTITIONS)
    assert "KAFKA_BOOTSTRAP" in raised.value.way_out
