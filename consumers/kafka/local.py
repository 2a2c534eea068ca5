"""A real Apache Kafka on this machine: one broker or several, in a folder, on loopback alone.

For whoever has no Docker, and for the tests. Brokers end with the process that started them, also
if that is killed (see ``keeper``); what was acknowledged is still in the folder at the next start.
"""

from __future__ import annotations

import base64
import fcntl
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from consumers.kafka import fetching
from consumers.kafka.errors import KafkaBusyError, KafkaServerError

START_SECONDS_MAX = 120.0
STOP_SECONDS = 15.0
_POLL_SECONDS = 0.05
_TRIES_OF_PORTS = 3
# Below the ports that systems give to outgoing connections: else a client that tries again and
# again to reach a broker that is away may be given the broker's own port, and keep it.
_PORTS = range(20_000, 30_000)

_SERVER_JAVA = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ssX",
)
# Short programs: they end before a better compiler is of any use.
_TOOL_JAVA = ("-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

_CONFIGURATION = """\
# Written by guishu at each start; changes made here are lost.
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
# So that members may ask for a session that is missed soon.
group.min.session.timeout.ms=500
# A broker that was killed may come back only when its old session has ended, after 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=16777216
"""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Broker:
    """One broker, which is a controller as well; ``pid`` is there while it runs."""

    number: int
    folder: Path
    port: int = 0
    controller_port: int = 0
    pid: int | None = None
    _keeper: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"


class LocalKafka:
    """A running cluster; made by ``local_kafka`` only, and valid inside its ``with``."""

    def __init__(
        self, folder: Path, brokers: int, in_sync: int, grace_seconds: float, lock: int
    ) -> None:
        self.brokers = [Broker(number, folder / f"{number}") for number in range(1, brokers + 1)]
        self._folder = folder
        self._in_sync = in_sync
        self._grace_seconds = grace_seconds
        self._lock = lock
        self._java = fetching.java()
        self._classes = f"{fetching.libraries()}/*"

    @property
    def bootstrap(self) -> str:
        """The addresses of all brokers, as KAFKA_BOOTSTRAP takes them."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self, broker: Broker) -> None:
        """Start a broker that was stopped, killed or has ended, on its old port, until it answers.

        Raises KafkaServerError.
        """
        self._forget(broker)
        self._launch(broker)
        self._wait_until_ready([broker])

    def kill(self, broker: Broker) -> None:
        """End a broker as a crash does; harmless when it does not run."""
        if broker.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(broker.pid, signal.SIGKILL)
        self._forget(broker)

    def stop(self, broker: Broker) -> None:
        """Let a broker end in good order, within some seconds."""
        self._forget(broker)

    def ended(self) -> list[Broker]:
        """Return the brokers that have ended by themselves; ``start`` brings one back."""
        return [
            each
            for each in self.brokers
            if each._keeper is not None and each._keeper.poll() is not None
        ]

    def start_all(self) -> None:
        """Start all brokers on free ports; raises KafkaServerError."""
        cluster = self._cluster_id()
        for tries_left in reversed(range(_TRIES_OF_PORTS)):
            self._choose_ports()
            try:
                for broker in self.brokers:
                    self._format(broker, cluster)
                    self._launch(broker)
                self._wait_until_ready(self.brokers)
            except KafkaServerError as error:
                self.end()
                # Somebody took a port between our looking at it and the start.
                if "Address already in use" not in str(error) or not tries_left:
                    raise
            except BaseException:
                self.end()
                raise
            else:
                return

    def end(self) -> None:
        """End all brokers: at once, for the last ones have no quorum left to take leave of."""
        for broker in self.brokers:
            if len(self.brokers) > 1 or not self._grace_seconds:
                self.kill(broker)
            else:
                self.stop(broker)

    # --- starting ------------------------------------------------------------------------------

    def _cluster_id(self) -> str:
        path = self._folder / "cluster.id"
        if not path.exists():
            text = "-"
            while text.startswith("-"):  # the tool would take it for an option
                text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            draft = path.with_suffix(".new")
            draft.write_text(text, encoding="ascii")
            draft.rename(path)
        return path.read_text(encoding="ascii")

    def _choose_ports(self) -> None:
        with ExitStack() as held:
            for broker in self.brokers:
                broker.port, broker.controller_port = _free_port(held), _free_port(held)

    def _format(self, broker: Broker, cluster: str) -> None:
        broker.folder.mkdir(exist_ok=True)
        voters = ",".join(
            f"{each.number}@127.0.0.1:{each.controller_port}" for each in self.brokers
        )
        text = _CONFIGURATION.format(
            number=broker.number,
            voters=voters,
            port=broker.port,
            controller_port=broker.controller_port,
            data=broker.folder / "data",
            copies=len(self.brokers),
            in_sync=self._in_sync,
        )
        path = broker.folder / "node.properties"
        path.write_text(text, encoding="utf-8")
        if (broker.folder / "data" / "meta.properties").exists():
            return
        tool = ("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster, "-c")
        try:
            subprocess.run(  # noqa: S603 - java, with arguments made here
                [self._java, *_TOOL_JAVA, "-cp", self._classes, *tool, path],
                check=True,
                capture_output=True,
                text=True,
                timeout=START_SECONDS_MAX,
                stdin=subprocess.DEVNULL,
                env=fetching.environment_of_others(),
            )
        except subprocess.SubprocessError as error:
            said = " / ".join(str(getattr(error, "stderr", None) or error).splitlines()[:3])
            raise KafkaServerError(
                f"The folder of a local Kafka, {broker.folder}, cannot be set up: {said}",
                way_out=f"Mend the cause, often a full disk; or remove {self._folder}, and what the"
                " topics held is put there again from the log.",
            ) from error

    def _launch(self, broker: Broker) -> None:
        server = [self._java, *_SERVER_JAVA, "-cp", self._classes, "kafka.Kafka"]
        keeper = [sys.executable, "-m", "consumers.kafka.keeper", str(self._grace_seconds)]
        with (broker.folder / "server.log").open("wb") as said:
            process = subprocess.Popen(  # noqa: S603 - java, with arguments made here
                [*keeper, *server, broker.folder / "node.properties"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=fetching.environment_of_others(),
                pass_fds=(self._lock,),
                # Ctrl-C in the terminal is for us; we then end the brokers ourselves.
                start_new_session=True,
            )
        broker._keeper = process
        if process.stdout is None:
            raise AssertionError("its output is a pipe")
        first = process.stdout.readline().strip()
        broker.pid = int(first) if first.isdigit() else None

    def _wait_until_ready(self, started: Sequence[Broker]) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        waiting = list(started)
        while waiting:
            for broker in started:
                if broker._keeper is not None and broker._keeper.poll() is not None:
                    raise KafkaServerError(
                        f"The local Kafka broker {broker.number} has ended: {_last_words(broker)}",
                        way_out=f"Its words stand in {broker.folder / 'server.log'}.",
                    )
            if time.monotonic() > deadline:
                raise KafkaServerError(
                    f"The local Kafka broker {waiting[0].number} does not answer within"
                    f" {START_SECONDS_MAX:.0f} seconds: {_last_words(waiting[0])}",
                    way_out="Try again when the machine is less busy.",
                )
            waiting = [each for each in waiting if not self._is_ready(each)]
            if waiting:
                time.sleep(_POLL_SECONDS)

    def _is_ready(self, broker: Broker) -> bool:
        """Say whether the broker answers, and is one of the cluster's to itself."""
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", broker.port)):
                return False
        try:
            with _admin(broker.address) as admin:
                found = admin.describe_cluster()["brokers"]
        except (KafkaError, OSError):
            return False
        return any(
            each["broker_id"] == broker.number and not each.get("is_fenced") for each in found
        )

    def _forget(self, broker: Broker) -> None:
        process, broker._keeper, broker.pid = broker._keeper, None, None
        if process is None or process.stdin is None or process.stdout is None:
            return
        process.stdin.close()
        process.stdout.close()
        process.wait()


@contextmanager
def local_kafka(
    folder: Path | str, *, brokers: int = 1, in_sync: int = 1, grace_seconds: float = STOP_SECONDS
) -> Iterator[LocalKafka]:
    """Run brokers beside the block, with their data in ``folder``, on free ports of loopback.

    ``in_sync`` is the cluster's min.insync.replicas. ``grace_seconds`` is what a single broker gets
    to end in good order; with 0 it is killed, which costs nothing but a slower next start.

    Raises:
        JavaMissingError, MavenMissingError: a program is missing on the PATH, or too old.
        KafkaFetchError: Apache Kafka is not in the cache, and cannot be fetched.
        KafkaBusyError: another process runs the brokers of this folder.
        KafkaServerError: a broker cannot be set up or started.
    """
    path = Path(folder).expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path / "users.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KafkaServerError(
            f"The folder of a local Kafka, {path}, cannot be used: {error.strerror}.",
            way_out="Name a folder that you may write.",
        ) from error
    try:
        _lock_alone(lock, path)
        kafka = LocalKafka(path, brokers, in_sync, grace_seconds, lock)
        kafka.start_all()
        try:
            yield kafka
        finally:
            kafka.end()
    finally:
        os.close(lock)


def _lock_alone(lock: int, folder: Path) -> None:
    """Wait for brokers that are just ending with whoever started them; raises KafkaBusyError."""
    deadline = time.monotonic() + STOP_SECONDS + 5
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise KafkaBusyError(
                    f"Another process runs the Kafka brokers of {folder}.",
                    way_out="End it, name its address in KAFKA_BOOTSTRAP, or name another folder.",
                ) from None
            time.sleep(_POLL_SECONDS)
        else:
            return


def _free_port(held: ExitStack) -> int:
    """Return a port that nobody has; it is kept from our own next choice until ``held`` closes."""
    for port in random.sample(_PORTS, 200):
        probe = held.enter_context(socket.socket())
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port
    raise KafkaServerError(
        "No port is free for a local Kafka broker.", way_out="See what holds all those ports."
    )


def _admin(bootstrap: str) -> KafkaAdminClient:
    return KafkaAdminClient(
        bootstrap_servers=bootstrap, bootstrap_timeout_ms=5_000, request_timeout_ms=5_000
    )


def _last_words(broker: Broker) -> str:
    text = (broker.folder / "server.log").read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "Exception" in line or " ERROR " in line] or lines
    return " / ".join(telling[:3]) or "it has said nothing"
