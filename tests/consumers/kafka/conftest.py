"""The cluster that the tests of Kafka begin with."""

from __future__ import annotations

import pytest

from consumers.kafka.connecting import Cluster
from consumers.kafka.local import LocalKafka
from tests.consumers.kafka.support import cluster_for_a_test


@pytest.fixture
def cluster(kafka: LocalKafka) -> Cluster:
    """A real cluster without any of our topics."""
    return cluster_for_a_test(kafka)
