"""How relay and publisher send."""

from __future__ import annotations

import threading

from consumers.kafka.filling import Sender
from consumers.kafka.local import LocalKafka
from consumers.kafka.records import Mark, encode_mark
from consumers.kafka.topics import LOG
from tests.consumers.kafka.support import cluster_for_a_test, with_topics
from tests.support.ledgers import TestLedger


def test_what_is_not_acknowledged_keeps_no_sender_alive(
    ledger: TestLedger, kafka: LocalKafka
) -> None:
    """It was closed in vain then: each time that a relay began anew a thread went on sending."""
    cluster = cluster_for_a_test(kafka)
    with_topics(cluster)
    before = set(threading.enumerate())
    sender = Sender(ledger.connection, cluster, delivery_seconds_max=60)
    sender.send(LOG.name(cluster.topic_prefix), 0, encode_mark(Mark(1, 1, 0)))
    sender.close()
    assert set(threading.enumerate()) <= before
