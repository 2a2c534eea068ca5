"""How a cluster is reached: the one place where kafka-python's clients are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

CONNECT_SECONDS_MAX = 10


@dataclass(frozen=True, slots=True)
class Cluster:
    """An Apache Kafka: its addresses, and by which names the topics of one ledger go there.

    ``options`` are what every client of kafka-python takes for TLS and SASL, with its secrets.
    """

    bootstrap: str
    topic_prefix: str = "guishu"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def admin(self) -> KafkaAdminClient:
        """Open a client that makes and describes topics; raises KafkaError."""
        return KafkaAdminClient(**self._common())

    def producer(self, **options: Any) -> KafkaProducer:
        """Open a client that sends; raises KafkaError."""
        return KafkaProducer(**self._common(), allow_auto_create_topics=False, **options)

    def consumer(self, **options: Any) -> KafkaConsumer:
        """Open a client that reads, and commits nothing by itself; raises KafkaError."""
        ours = {"allow_auto_create_topics": False, "enable_auto_commit": False}
        return KafkaConsumer(**self._common(), **ours, **options)

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.bootstrap.split(","),
            "client_id": "guishu",
            "bootstrap_timeout_ms": CONNECT_SECONDS_MAX * 1_000,
            # A broker that comes back is to be found within seconds.
            "reconnect_backoff_max_ms": 1_000,
            **self.options,
        }
