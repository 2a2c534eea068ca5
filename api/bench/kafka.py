"""The speed of the ledger through Kafka, with everything on this one machine.

Roles are processes of their own, as in production, beside a real broker that is started for the
measurements; everything is durable. Each figure stands beside the same through the store's own
feed, or beside what kafka-python's own benchmarks do with records of the same size.
"""

from __future__ import annotations

import os
import re
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from kafka import TopicPartition
from psycopg import Connection

from api.bench.enforcer import Scale as Claims
from api.bench.enforcer import claims_of, facts_of, new_event, record, registrations
from api.bench.harness import BenchDatabase, BenchServer, Measure, compare, interleaved
from api.bench.load import LoadFailedError, percentile
from api.bench.synthetic import SyntheticLog
from consumers import progress
from consumers.enforcer import CONSUMER, Enforcer
from consumers.feed import StoreFeed
from consumers.kafka.connecting import Cluster
from consumers.kafka.feed import KafkaFeed, Known
from consumers.kafka.local import local_kafka
from consumers.kafka.relay import relaying
from consumers.kafka.topics import LOG, apply_topics
from ledger.collecting import uncollected
from ledger.events.catalogue import Catalogue, Data, catalogue
from ledger.sealing import Vault
from ledger.store import arrays
from ledger.store.appending import Append
from ledger.store.committer import CommitterThread
from ledger.store.generations import open_generation
from ledger.store.hints import Notifier

PARTITIONS = 12
DECIDED_AT_LEAST, CLIENT_AT_LEAST = 0.5, 0.7
TAKEN_OVER_SECONDS_MAX = 15.0
_MASTER_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
_GUISHU = [sys.executable, "-c", "from api.cli.main import run; run()"]
_LOOK_SECONDS = 0.005
_SECONDS_MAX = 600.0
_TIME = re.compile(r"Execution time: ([0-9.]+) secs")
_WAITED = """
SELECT extract(epoch FROM d.recorded - r.recorded)::float8 * 1e3
FROM ledger.events r JOIN ledger.events d ON d.causation = r.position AND d.ordinal = 0
WHERE r.position > %s AND r.position <= %s
"""
_HEAD = "SELECT coalesce(max(position), 0) FROM ledger.events"
_SENT = "SELECT coalesce(max(position), 0) FROM ledger.relay WHERE topic = %s"
_RELAYS = """
SELECT count(DISTINCT pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'guishu-relay'
"""
_SIZE = "SELECT avg(length(body))::int FROM ledger.events"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the defaults are for figures, smaller ones for a look."""

    claims: Claims = field(default_factory=lambda: Claims(claims=20_000, customers=20_000))
    rounds: int = 3
    paced_seconds: float = 15.0
    claims_per_second: int = 50
    # How often a process is killed; each time takes as long as it takes to be missed.
    kills: int = 3
    events: int = 1_000_000
    records: int = 100_000


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Take all measures through Kafka; about twenty minutes at the default scale.

    Raises JavaMissingError, MavenMissingError.
    """
    with TemporaryDirectory() as folder, local_kafka(Path(folder)) as kafka:
        return [*_decided(server, scale, kafka.bootstrap), *_sent(server, scale, kafka.bootstrap)]


@dataclass(slots=True)
class _Stack:
    """A ledger, its topics, and the roles that run as processes."""

    database: BenchDatabase
    cluster: Cluster
    folder: Path
    connection: Connection[Any]
    events: Catalogue

    @contextmanager
    def roles(self, *names: str, kafka: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Run roles beside the block, which begins when some claims have been decided by them."""
        given = {
            "DATABASE_URL": self.database.service_url,
            "GUISHU_MASTER_KEY": _MASTER_KEY,
            "GUISHU_DATA_DIRECTORY": str(self.folder),
            "GUISHU_KAFKA_TOPIC_PREFIX": self.cluster.topic_prefix,
            "GUISHU_KAFKA_PARTITIONS": str(PARTITIONS),
        }
        if kafka:
            given["KAFKA_BOOTSTRAP"] = self.cluster.bootstrap
        processes: list[subprocess.Popen[bytes]] = []
        with (self.folder / "roles.log").open("ab") as log:
            try:
                for name in names:
                    command = [*_GUISHU, name]
                    processes.append(
                        subprocess.Popen(  # noqa: S603 - arguments made here
                            command, env={**os.environ, **given}, stdout=log, stderr=log
                        )
                    )
                if kafka and names.count("enforce") > 1:
                    _wait_until(lambda: _shared(self.cluster))
                if "enforce" in names:
                    self.record(claims_of(Claims(claims=100, customers=100)))
                    self.wait_until_decided()
                yield processes
            finally:
                for process in processes:
                    process.terminate()
                for process in processes:
                    process.wait(60)

    def record(self, claims: Sequence[Data]) -> None:
        """Record claims, or other requests about customers."""
        record(self.database, self.events, "customer", claims)

    def wait_until_decided(self) -> None:
        """Wait until all that is recorded now is decided."""
        head = self.head()
        _wait_until(lambda: progress.reached(self.connection, CONSUMER) >= head)

    def wait_until_sent(self) -> None:
        """Wait until all that is recorded now is sent to Kafka."""
        head = self.head()
        _wait_until(lambda: self.sent() >= head)

    def has_a_standby(self) -> bool:
        """Say whether a second relay is there."""
        return self.connection.execute(_RELAYS).fetchone() == (2,)

    def head(self) -> int:
        row = self.connection.execute(_HEAD, prepare=True).fetchone()
        return int(row[0]) if row else 0

    def sent(self) -> int:
        """Return the position up to which the relay has sent everything."""
        topic = LOG.name(self.cluster.topic_prefix)
        row = self.connection.execute(_SENT, (topic,), prepare=True).fetchone()
        return int(row[0]) if row else 0


@contextmanager
def _stack(server: BenchServer, bootstrap: str) -> Iterator[_Stack]:
    cluster = Cluster(bootstrap, f"bench-{secrets.token_hex(4)}")
    apply_topics(cluster, PARTITIONS)
    with (
        server.database() as database,
        TemporaryDirectory() as folder,
        psycopg.connect(database.service_url, autocommit=True) as connection,
    ):
        open_generation(connection)
        yield _Stack(database, cluster, Path(folder), connection, catalogue())


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {_SECONDS_MAX:.0f} seconds")
        time.sleep(_LOOK_SECONDS)


# --- from a claim to its decision --------------------------------------------------------------


def _decided(server: BenchServer, scale: Scale, bootstrap: str) -> list[Measure]:
    with _stack(server, bootstrap) as stack:
        record(stack.database, stack.events, "organisation", facts_of(scale.claims))
        stack.record(registrations(scale.claims))
        with psycopg.connect(stack.database.service_url, autocommit=True) as connection:
            enforcer = Enforcer(connection, StoreFeed(), stack.events)
            enforcer.start()
            enforcer.catch_up()
        return [
            *_backlogs(stack, scale),
            *_latencies(stack, scale),
            *_taken_over(stack, scale),
        ]


def _backlogs(stack: _Stack, scale: Scale) -> list[Measure]:
    def rate(*roles: str, kafka: bool) -> float:
        with stack.roles(*roles, kafka=kafka):
            claims = claims_of(scale.claims)
            before = time.perf_counter()
            stack.record(claims)
            stack.wait_until_decided()
            return len(claims) / (time.perf_counter() - before)

    samples = {
        "store": lambda: rate("enforce", kafka=False),
        "one": lambda: rate("relay", "enforce", kafka=True),
        "two": lambda: rate("relay", "enforce", "enforce", kafka=True),
    }
    samples["store"]()  # most customers are owned from here on, in every sample alike
    taken = interleaved(samples, scale.rounds)
    return [
        compare(
            f"claims recorded and decided through Kafka, {how}, beside the store's feed",
            taken[name],
            taken["store"],
            unit="claims/s",
            at_least=DECIDED_AT_LEAST,
        )
        for name, how in (("one", "one enforcer"), ("two", "two enforcers"))
    ]


def _latencies(stack: _Stack, scale: Scale) -> list[Measure]:
    """From the moment that a claim bears to that of its decision, at a steady pace."""

    def waited(*roles: str, kafka: bool) -> list[float]:
        with stack.roles(*roles, kafka=kafka):
            # What was just started has connections to make and, in Java, code to compile.
            _pace(stack, replace(scale, paced_seconds=scale.paced_seconds / 4))
            stack.wait_until_decided()
            before = stack.head()
            _pace(stack, scale)
            stack.wait_until_decided()
            return [each for (each,) in stack.connection.execute(_WAITED, (before, stack.head()))]

    taken: dict[str, list[list[float]]] = {"store": [], "kafka": []}
    for _ in range(scale.rounds):
        taken["store"].append(waited("enforce", kafka=False))
        taken["kafka"].append(waited("relay", "enforce", kafka=True))
    return [
        compare(
            f"from a claim's append to its decision through Kafka at {scale.claims_per_second}"
            f" claims/s, p{share}, beside the store's feed",
            [percentile(each, share) for each in taken["kafka"]],
            [percentile(each, share) for each in taken["store"]],
            unit="ms",
            at_least=0,
            less_is_better=True,
        )
        for share in (50, 99)
    ]


def _pace(stack: _Stack, scale: Scale) -> None:
    claims = claims_of(replace(scale.claims, claims=_paced(scale)))
    with (
        Notifier(stack.database.service_url) as notifier,
        CommitterThread(stack.database.service_url, committed=notifier.hint) as committer,
    ):
        begin = time.perf_counter()
        for number, claim in enumerate(claims, 1):
            committer.append(Append((new_event(stack.events, claim, "customer"),)))
            pause = begin + number / scale.claims_per_second - time.perf_counter()
            time.sleep(max(0.0, pause))


def _paced(scale: Scale) -> int:
    return max(1, round(scale.paced_seconds * scale.claims_per_second))


def _taken_over(stack: _Stack, scale: Scale) -> list[Measure]:
    """From the kill of a process until another one has done what was recorded behind it."""
    claims = claims_of(replace(scale.claims, claims=100))
    seconds: dict[str, list[float]] = {"relay": [], "enforcer": []}
    for name, taken in seconds.items():
        for _ in range(scale.kills):
            first = ("relay", "enforce") if name == "relay" else ("enforce", "relay")
            with (
                stack.roles(*first, kafka=True) as processes,
                stack.roles("relay" if name == "relay" else "enforce", kafka=True),
            ):
                if name == "enforcer":
                    _wait_until(lambda: _shared(stack.cluster))
                else:
                    _wait_until(stack.has_a_standby)
                before = time.perf_counter()
                processes[0].kill()
                stack.record(claims)
                stack.wait_until_sent() if name == "relay" else stack.wait_until_decided()
                taken.append(time.perf_counter() - before)
    return [
        Measure(
            f"taking over from a killed {name}, within {TAKEN_OVER_SECONDS_MAX:.0f} s",
            statistics.median(taken),
            TAKEN_OVER_SECONDS_MAX,
            "s",
            TAKEN_OVER_SECONDS_MAX / statistics.median(taken),
            1,
        )
        for name, taken in seconds.items()
        if taken
    ]


def _shared(cluster: Cluster) -> bool:
    """Say whether two members of the enforcers' group have partitions."""
    group = f"{cluster.topic_prefix}-{CONSUMER}"
    with cluster.admin() as admin:
        members = admin.describe_groups([group])[group]["members"]
    given = [each["member_assignment"] for each in members]
    return sum(1 for each in given if each and each["assigned_partitions"]) == 2


# --- the clients -------------------------------------------------------------------------------


def _sent(server: BenchServer, scale: Scale, bootstrap: str) -> list[Measure]:
    """What relay and feed make of kafka-python, beside its own benchmarks."""
    with _stack(server, bootstrap) as stack:
        vault = Vault(lambda: nullcontext(stack.connection), bytes(32))
        arrays.register(stack.connection)
        log = SyntheticLog(stack.connection, vault)
        log.found()
        log.grow(scale.events)
        row = stack.connection.execute(_SIZE).fetchone()
        size = int(row[0]) if row else 0
        return [
            *_throughput(stack, scale, size),
            _refilled(stack, log.position),
        ]


def _refilled(stack: _Stack, events: int) -> Measure:
    seconds = events / _relayed(stack, upto=events)
    return Measure(
        f"filling a lost topic again with {events:,} events", seconds, seconds, "s", 1, 0
    )


def _throughput(stack: _Stack, scale: Scale, size: int) -> list[Measure]:
    bare = Cluster(stack.cluster.bootstrap, f"bare-{secrets.token_hex(4)}")
    apply_topics(bare, PARTITIONS)
    filled = Cluster(stack.cluster.bootstrap, f"filled-{secrets.token_hex(4)}")
    apply_topics(filled, PARTITIONS)
    _relay(stack, filled, scale.records)
    taken = interleaved(
        {
            "relay": lambda: _relayed(stack, upto=scale.records),
            "producer": lambda: _benchmark(
                *("producer", bare, scale.records, "--record-size", str(size)),
                *("--producer-config", "acks=all"),
            ),
            "feed": lambda: _read(stack, filled, scale.records),
            "consumer": lambda: _benchmark("consumer", bare, scale.records),
        },
        scale.rounds,
    )
    return [
        compare(
            f"events relayed, beside kafka-python's own benchmark of {size} bytes a record",
            taken["relay"],
            taken["producer"],
            unit="events/s",
            at_least=CLIENT_AT_LEAST,
        ),
        compare(
            "records read by the feeds of all partitions, beside kafka-python's own benchmark",
            taken["feed"],
            taken["consumer"],
            unit="records/s",
            at_least=CLIENT_AT_LEAST,
        ),
    ]


def _relayed(stack: _Stack, *, upto: int) -> float:
    """Fill a topic that was just made; return events a second."""
    cluster = Cluster(stack.cluster.bootstrap, f"relayed-{secrets.token_hex(4)}")
    apply_topics(cluster, PARTITIONS)
    return _relay(stack, cluster, upto)


def _relay(stack: _Stack, cluster: Cluster, upto: int) -> float:
    with (
        psycopg.connect(stack.database.service_url, autocommit=True) as connection,
        relaying(connection, cluster) as relay,
    ):
        before = time.perf_counter()
        while relay.position < upto:
            relay.run_once()
        return relay.position / (time.perf_counter() - before)


def _read(stack: _Stack, cluster: Cluster, records: int) -> float:
    """Read what a topic has as an enforcer of all partitions does; return records a second."""
    known = Known()
    feeds = [KafkaFeed(number, PARTITIONS, known) for number in range(PARTITIONS)]
    reached = [0] * PARTITIONS
    topic = LOG.name(cluster.topic_prefix)
    at = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    read = 0
    with cluster.consumer(auto_offset_reset="earliest") as consumer:
        consumer.assign(at)
        consumer.seek_to_beginning()
        before = time.perf_counter()
        while read < records:
            with uncollected():
                for where, delivered in consumer.poll(timeout_ms=200, max_records=1_200).items():
                    number = where.partition
                    read += len(delivered)
                    feeds[number].deliver(delivered)
                    while feeds[number].waiting:
                        batch = feeds[number].read(stack.connection, reached[number], 300)
                        reached[number] = batch.reached
        return read / (time.perf_counter() - before)


def _benchmark(which: str, cluster: Cluster, records: int, *options: str) -> float:
    """Run kafka-python's own benchmark; return records a second."""
    command = [
        *(sys.executable, "-m", f"kafka.benchmarks.{which}_performance"),
        *("--bootstrap-servers", cluster.bootstrap, "--topic", LOG.name(cluster.topic_prefix)),
        *("--num-records", str(records), *options),
    ]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    found = _TIME.search(ran.stdout)
    if found is None:
        raise LoadFailedError(
            f"kafka-python's benchmark said: {ran.stdout[-300:]}{ran.stderr[-300:]}"
        )
    return records / float(found[1])
