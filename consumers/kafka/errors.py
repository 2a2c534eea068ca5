"""The errors of Kafka: of the programs that a local broker needs, and of topics."""

from __future__ import annotations

from ledger.errors import LedgerError


class JavaMissingError(LedgerError):
    """There is no Java on the PATH, or one that is too old for Apache Kafka 4."""

    code = "java_missing"


class MavenMissingError(LedgerError):
    """There is no mvn on the PATH, by which Apache Kafka is fetched."""

    code = "maven_missing"


class KafkaFetchError(LedgerError):
    """Maven could not fetch Apache Kafka, or the cache cannot be written."""

    code = "kafka_fetch"


class KafkaServerError(LedgerError):
    """A broker of this machine could not be set up or started, or has ended by itself."""

    code = "kafka_server"


class KafkaBusyError(LedgerError):
    """Another process runs the brokers of this folder."""

    code = "kafka_busy"


class KafkaUnavailableError(LedgerError):
    """The cluster cannot be reached, or refuses what we ask of it."""

    code = "kafka_unavailable"

    def __init__(self, bootstrap: str, error: Exception) -> None:
        super().__init__(
            f"Apache Kafka at {bootstrap} does not do what was asked of it:"
            f" {type(error).__name__}: {error}".rstrip(": "),
            way_out="See that it runs, and that KAFKA_BOOTSTRAP and the settings of TLS and SASL"
            " are right (guishu settings).",
        )


class KafkaNotNamedError(LedgerError):
    """KAFKA_BOOTSTRAP is not given."""

    code = "kafka_not_named"

    def __init__(self) -> None:
        super().__init__(
            "No Apache Kafka is named.",
            way_out="Name its brokers in KAFKA_BOOTSTRAP, as host:port,host:port.",
        )


class TopicPartitionsError(LedgerError):
    """A topic has another number of partitions than it should; that number never changes."""

    code = "topic_partitions"

    def __init__(self, topic: str, found: int, wanted: int) -> None:
        super().__init__(
            f"The topic {topic} has {found} partitions, not {wanted}; nothing was changed.",
            way_out="Their number never changes, for the order of a customer's events would be"
            f" lost. Set GUISHU_KAFKA_PARTITIONS to {found}; or name new topics with another"
            " GUISHU_KAFKA_TOPIC_PREFIX, which are filled from the log.",
        )
