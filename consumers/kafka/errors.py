"""The errors of Kafka: of the programs of a local broker, of topics, and of a lost tail."""

from __future__ import annotations

from collections.abc import Sequence

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


class TopicMissingError(LedgerError):
    """The topic that is to be filled or read does not exist."""

    code = "topic_missing"

    def __init__(self, topic: str) -> None:
        super().__init__(
            f"The topic {topic} does not exist.", way_out="Make it with guishu topics apply."
        )


class RelayInterruptedError(LedgerError):
    """Kafka did not acknowledge what was sent; the relay begins again from its checkpoint."""

    code = "relay_interrupted"

    def __init__(self, topic: str, failure: Exception) -> None:
        super().__init__(
            f"Not all that was sent to {topic} is acknowledged:"
            f" {type(failure).__name__}: {failure}".rstrip(": "),
            way_out="See that Kafka runs. Events wait in the log, and are sent when it is back.",
        )


class TailLostError(LedgerError):
    """The topic holds more than the store, on a server that has written already."""

    code = "tail_lost"

    def __init__(self, topic: str, known: int, head: int) -> None:
        super().__init__(
            f"The topic {topic} holds positions up to {known}, and the log ends at {head}: the"
            " database has lost what was recorded last, or is not the one that filled the topic.",
            way_out="Let no more be written here. Bring back the server or the backup that has all"
            f" of it; or give up what is missing with guishu generations give-up {head}.",
        )


class TailIncompleteError(LedgerError):
    """The store has lost its tail, and the topic does not hold all of it; nothing was changed.

    ``keep`` is the position up to which everything is there, or can be put back.
    """

    code = "tail_incomplete"

    def __init__(self, topic: str, head: int, keep: int, reasons: Sequence[str]) -> None:
        self.keep = keep
        can = f"positions {head + 1} to {keep} can be put back" if keep > head else ""
        super().__init__(
            f"The log ends at {head}, and what was recorded behind that cannot all be put back from"
            f" {topic}: {'; '.join([*reasons, *([can] if can else [])])}.",
            way_out="Bring back the server or the backup that has all of it. Or give up, for ever,"
            f" all that was recorded behind position {keep}, which others may have been told of:"
            f" guishu generations give-up {keep}",
        )


class TopicForeignError(LedgerError):
    """The topic contradicts what the log has: another ledger has filled it. Nothing was changed."""

    code = "topic_foreign"

    def __init__(self, topic: str, position: int) -> None:
        super().__init__(
            f"The topic {topic} holds something else at position {position} than the log.",
            way_out="Another ledger has filled it, or this one went another way since. See that"
            " KAFKA_BOOTSTRAP, GUISHU_KAFKA_TOPIC_PREFIX and DATABASE_URL belong together; if they"
            " do, name new topics with another prefix, which are filled from the log.",
        )


class GiveUpRefusedError(LedgerError):
    """What was to be given up is not what is missing; nothing was changed."""

    code = "give_up_refused"


class TailBusyError(LedgerError):
    """Another process has been putting back the tail for longer than we wait."""

    code = "tail_busy"

    def __init__(self) -> None:
        super().__init__(
            "Another process looks for a lost tail of the log, and puts it back.",
            way_out="Wait until it is done, and start again; it begins anew if it was killed.",
        )
