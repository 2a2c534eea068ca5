"""One role a process: what ``guishu run`` does all at once, apart, on any number of machines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from api import running
from api.alive import AliveFile
from api.bootstrap import Ledger
from api.cli.context import notes, opened
from api.running import Service
from api.settings import load_settings


def enforce() -> None:
    """Decide what is asked. With KAFKA_BOOTSTRAP several such processes share the customers among
    them; without, one decides and the others stand by."""
    settings = load_settings()
    if settings.kafka_bootstrap is None:
        _run("enforcer", enforcer=running.enforce)
        return
    from api.kafka import cluster_of, quiet_client

    cluster = cluster_of(settings)
    with quiet_client():
        _run("enforcer", enforcer=lambda ledger: running.enforce_partitions(ledger, cluster))


def project() -> None:
    """Keep the read models, alone; of several such processes one works, the others stand by."""
    _run("projector", projector=running.project)


def clock() -> None:
    """Raise what falls due, alone; of several such processes one works, the others stand by."""
    _run("clock", clock=running.keep_time)


def relay() -> None:
    """Send the log to Kafka, and tell subscribers what was decided.

    Of several such processes one sends and one tells, the others stand by.
    """
    from api.kafka import cluster_of, quiet_client

    cluster = cluster_of(load_settings())
    with quiet_client():
        _run(
            "relay",
            relay=lambda ledger: running.relay(ledger, cluster),
            publisher=lambda ledger: running.publish(ledger, cluster),
        )


def _run(role: str, **works: Callable[[Ledger], Callable[[Service], None]]) -> None:
    """Do the named works until SIGINT or SIGTERM; raises what ended one for good."""
    service = Service()
    for each in (signal.SIGINT, signal.SIGTERM):
        # In a thread: the one that a signal interrupts may hold what the stop waits for.
        signal.signal(each, lambda *_: threading.Thread(target=service.stop.set).start())
    with opened() as ledger, AliveFile(load_settings().alive_file) as alive:
        for name, work in works.items():
            service.start(name, work(ledger))
        notes().print(f"{role}: running")
        alive.keep(service.stop, service.threads)
        service.end()
    if service.failure is not None:
        raise service.failure
    notes().print("stopped: everything that was recorded is kept")
