"""``guishu run-kafka``: all roles as processes of this machine, beside a real Apache Kafka.

What docker-compose.yml does in containers, for whoever has none. This process starts PostgreSQL and
Kafka where no others are named, makes the topics, and looks after the roles until it is told to
end. It leads nothing itself.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import psycopg

from api.bootstrap import Ledger, open_ledger
from api.cli import summary
from api.cli.context import notes
from api.cli.operations import make_demo_first, reflects
from api.kafka import cluster_of, quiet_client
from api.settings import Settings, load_settings
from api.supervising import Supervisor
from consumers.kafka.local import LocalKafka, local_kafka
from consumers.kafka.topics import apply_topics
from ledger.store.embedded import prepare_directory
from ledger.store.reading import head

ROLES = (
    ("relay", "relay"),
    ("projector", "project"),
    ("enforcer-1", "enforce"),
    ("enforcer-2", "enforce"),
    ("clock", "clock"),
    # The last to begin and the first to end: what it takes in, the others handle.
    ("serve", "serve"),
)
_LOOK_SECONDS = 0.1
_SHOWN_ELSEWHERE = ".venv/bin/guishu events --follow shows what they do. Ctrl-C stops."
_ADDRESS = re.compile(r"serving on (http://\S+)")


def run_roles(*, demo: bool) -> None:
    """Run until SIGINT or SIGTERM; what was started here is ended, the last first.

    Raises what starting PostgreSQL or Kafka does, and what the first command of a role would.
    """
    began = time.monotonic()
    with _until_told(), quiet_client(), ExitStack() as stack:
        settings, kafka = _with_kafka(stack, load_settings())
        apply_topics(
            cluster_of(settings), settings.kafka_partitions, settings.kafka_replication_factor
        )
        ledger = stack.enter_context(open_ledger(settings))
        fresh = demo and make_demo_first(ledger)
        supervisor = Supervisor(
            ROLES,
            settings.data_directory.resolve() / "roles",
            {"KAFKA_BOOTSTRAP": settings.kafka_bootstrap or ""},
            partial(notes().print, markup=False, soft_wrap=True),
        )
        stack.callback(supervisor.end)
        _look_until_all_run(supervisor, ledger, kafka)
        state = "made" if fresh else "in place"
        notes().print(f"ready in {time.monotonic() - began:.1f} s; the ledger's data are {state}")
        _show(supervisor, ledger, demo=demo)
        while True:
            _look_after(supervisor, ledger, kafka)
            time.sleep(_LOOK_SECONDS)
    notes().print("stopped: everything that was recorded is kept")


@contextmanager
def _until_told() -> Iterator[None]:
    """Leave the block at the first signal, wherever it is; the next ones do not disturb its end."""

    def end(*_: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            # Not SIG_IGN, which the programs that end the servers would inherit.
            signal.signal(each, lambda *_: None)
        raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, end)
    try:
        yield
    except KeyboardInterrupt:
        return


def _with_kafka(stack: ExitStack, settings: Settings) -> tuple[Settings, LocalKafka | None]:
    """Return the settings with a cluster in them; where they name none, one is started here."""
    if settings.kafka_bootstrap is not None:
        return settings, None
    notes().print("starting Apache Kafka …")
    folder = prepare_directory(settings.data_directory) / "kafka"
    kafka = stack.enter_context(local_kafka(folder))
    notes().print(f"kafka: running on {kafka.bootstrap}", markup=False)
    return settings.model_copy(update={"kafka_bootstrap": kafka.bootstrap}), kafka


def _look_until_all_run(supervisor: Supervisor, ledger: Ledger, kafka: LocalKafka | None) -> None:
    """Return when each role has said that it runs, and the read models show what there is."""
    while True:
        _look_after(supervisor, ledger, kafka)
        # The database may restart meanwhile.
        with suppress(psycopg.OperationalError):
            if all(each.sign for each in supervisor.children):
                with ledger.pool.connection() as connection:
                    if reflects(ledger, connection, head(connection)):
                        return
        time.sleep(_LOOK_SECONDS)


def _show(supervisor: Supervisor, ledger: Ledger, *, demo: bool) -> None:
    """Show how things stand, what to try, and where to open the browser."""
    # It makes all routes, which takes a while.
    from api.cli.http_commands import show_address

    summary.show(ledger, try_these=True, ending=_SHOWN_ELSEWHERE)
    for each in supervisor.children:
        found = _ADDRESS.search(each.sign or "")
        if found:
            show_address(ledger, found[1], demo=demo)


def _look_after(supervisor: Supervisor, ledger: Ledger, kafka: LocalKafka | None) -> None:
    """Bring back what has ended: a role, the embedded PostgreSQL, the broker started here."""
    supervisor.look()
    server = ledger.database.server
    if server is not None and server.postmaster_pid() is None:
        notes().print("postgres: has ended; it is started again")
        server.ensure_running()
    if kafka is not None:
        for broker in kafka.ended():
            notes().print("kafka: has ended; it is started again")
            kafka.start(broker)
