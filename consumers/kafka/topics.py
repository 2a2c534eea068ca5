"""The topics: what each is for, with which settings it is made, and how that is put in force.

The number of partitions says in which of them a customer stands. If it changed, a customer's later
events would stand elsewhere than the earlier ones, and their order would be lost: so it is never
changed; there is a new topic instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from consumers.kafka.connecting import Cluster
from consumers.kafka.errors import KafkaUnavailableError, TopicPartitionsError

_DAY_MS = 24 * 60 * 60 * 1_000
_COPIES = 3


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic: its name without the prefix, what it holds, and its settings as Kafka names them."""

    suffix: str
    holds: str
    settings: dict[str, str]

    def name(self, prefix: str) -> str:
        """Return its whole name."""
        return f"{prefix}.{self.suffix}"


LOG = Topic(
    "log.v1",
    "every event, for guishu's own consumers",
    # What has expired is read from the store, so days are enough.
    {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS), "retention.bytes": "-1"},
)
OWNERSHIP = Topic(
    "ownership.v1",
    "public decisions as CloudEvents, for subscribers",
    {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS), "retention.bytes": "-1"},
)
CURRENT = Topic(
    "ownership.current.v1",
    "the present owner of each customer",
    {
        "cleanup.policy": "compact",
        # Of an erased customer: so long a subscriber may be away, and still learn of it.
        "delete.retention.ms": str(30 * _DAY_MS),
        # What is out of date, a person's name for one at a subscriber's, is not kept for months.
        "max.compaction.lag.ms": str(_DAY_MS),
        "min.cleanable.dirty.ratio": "0.1",
    },
)
TOPICS = (LOG, OWNERSHIP, CURRENT)


@dataclass(frozen=True, slots=True)
class Done:
    """What was done about a topic; ``did`` is a sentence of a few words."""

    topic: str
    did: str
    partitions: int
    copies: int


def identity(cluster: Cluster, name: str) -> tuple[UUID, int] | None:
    """Return the id of a topic and the number of its partitions; None where there is none.

    One that was lost and made anew has another id. Raises KafkaError and OSError.
    """
    with cluster.admin() as admin:
        described = _described(admin, [name]).get(name)
    if described is None:
        return None
    return UUID(str(described["topic_id"])), len(described["partitions"])


def apply_topics(cluster: Cluster, partitions: int, copies: int | None = None) -> list[Done]:
    """Make the topics that are missing, and put their settings in force; return what was done.

    A topic that exists keeps its partitions: where their number is another one than asked for,
    TopicPartitionsError is raised before anything is done. ``copies`` is the replication factor of
    what is made, by default 3, or as many as there are brokers. Raises KafkaUnavailableError.
    """
    try:
        with cluster.admin() as admin:
            brokers = len(admin.describe_cluster()["brokers"])
            made_with = copies or min(_COPIES, brokers)
            return list(_apply(admin, cluster.topic_prefix, partitions, made_with))
    except (KafkaError, OSError) as error:
        raise KafkaUnavailableError(cluster.bootstrap, error) from error


def _apply(admin: KafkaAdminClient, prefix: str, partitions: int, copies: int) -> Iterator[Done]:
    names = {topic.name(prefix): topic for topic in TOPICS}
    found = _described(admin, list(names))
    for name, described in found.items():
        if len(described["partitions"]) != partitions:
            raise TopicPartitionsError(name, len(described["partitions"]), partitions)
    missing = {name: topic for name, topic in names.items() if name not in found}
    if missing:
        made = {
            name: {
                "num_partitions": partitions,
                "replication_factor": copies,
                "configs": _settings(topic, copies),
            }
            for name, topic in missing.items()
        }
        admin.create_topics(made, wait_for_metadata=True)
    for name, topic in names.items():
        if name in missing:
            yield Done(name, f"made: {topic.holds}", partitions, copies)
            continue
        kept = len(found[name]["partitions"][0]["replica_nodes"])
        changed = _put_in_force(admin, name, _settings(topic, kept))
        did = f"changed {', '.join(changed)}" if changed else "in place"
        yield Done(name, did, partitions, kept)


def _settings(topic: Topic, copies: int) -> dict[str, str]:
    return {
        **topic.settings,
        # So that what was acknowledged is on two brokers at least, and one of three may be lost.
        "min.insync.replicas": "2" if copies > 2 else "1",
        "unclean.leader.election.enable": "false",
        "message.timestamp.type": "CreateTime",
    }


def _described(admin: KafkaAdminClient, names: Sequence[str]) -> dict[str, Any]:
    """Return what there is of these topics, by name."""
    there = set(admin.list_topics()) & set(names)
    described = admin.describe_topics(sorted(there)) if there else []
    return {each["name"]: each for each in described}


def _put_in_force(admin: KafkaAdminClient, name: str, wanted: dict[str, str]) -> list[str]:
    """Change the settings that differ, others not; return what was changed."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name, list(wanted))
    found = admin.describe_configs([resource], config_filter="all")["topic"][name]
    differing = {key: to for key, to in wanted.items() if found[key]["value"] != to}
    if differing:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, differing)])
    return [f"{key} from {found[key]['value']} to {to}" for key, to in differing.items()]
