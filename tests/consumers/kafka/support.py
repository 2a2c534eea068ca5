"""What the tests of Kafka share: a cluster's topics for one test, and what stands in them."""

from __future__ import annotations

import secrets

from consumers.kafka.connecting import Cluster
from consumers.kafka.local import LocalKafka

PARTITIONS = 3


def cluster_for_a_test(kafka: LocalKafka) -> Cluster:
    """Return the session's cluster, with names of topics that no other test has."""
    return Cluster(kafka.bootstrap, f"test-{secrets.token_hex(6)}")
