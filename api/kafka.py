"""The Apache Kafka that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from api.settings import Settings
from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaNotNamedError


def cluster_of(settings: Settings) -> Cluster:
    """Return how to reach the cluster; raises KafkaNotNamedError. Nothing is connected yet."""
    if settings.kafka_bootstrap is None:
        raise KafkaNotNamedError
    return Cluster(settings.kafka_bootstrap, settings.kafka_topic_prefix, _options(settings))


@contextmanager
def quiet_client() -> Iterator[None]:
    """Keep to itself what kafka-python says of each try to connect; its errors tell of all."""
    logger = logging.getLogger("kafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _options(settings: Settings) -> dict[str, Any]:
    """Return what the settings say of TLS and SASL, by kafka-python's names."""
    named: dict[str, Any] = {
        "security_protocol": settings.kafka_security_protocol,
        "ssl_cafile": settings.kafka_ssl_cafile,
        "ssl_certfile": settings.kafka_ssl_certfile,
        "ssl_keyfile": settings.kafka_ssl_keyfile,
        "ssl_password": settings.kafka_ssl_password,
        "sasl_mechanism": settings.kafka_sasl_mechanism,
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": settings.kafka_sasl_password,
    }
    return {name: _plain(value) for name, value in named.items() if value is not None}


def _plain(value: Any) -> str:
    plain: str = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
    return plain
