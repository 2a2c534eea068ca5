"""Running the consumers of one machine: each is a thread that is looked after.

A consumer that fails (a database that restarts, another process that took over) is started again
after a pause that grows; nothing is lost, for each batch is one transaction.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import Connection

from api.alive import AskedStop
from api.bootstrap import Ledger
from consumers import clock, enforcing, progress
from consumers.enforcer import CONSUMER, EnforcerLimits
from consumers.feed import StoreFeed
from consumers.leading import ENDED_BY_THE_SERVER, LeadingLimits, while_leading
from ledger.errors import LedgerError
from ledger.recording import Recording
from ledger.store.hints import LINGER_SECONDS, Waiter
from ledger.store.reading import head
from projections.runner import Runner, positions

if TYPE_CHECKING:
    from consumers.kafka.connecting import Cluster

_PAUSE_SECONDS_MIN = 0.2
_PAUSE_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.02
# Another process took over, or the database could not take it now: it is tried again.
_PASSING = frozenset(
    {"fenced", "projector_fenced", "store_unavailable", "store_full", "outcome_unknown", "busy"}
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Service:
    """The running consumers; ``failure`` is what stopped one for good."""

    stop: AskedStop = field(default_factory=AskedStop)
    threads: list[threading.Thread] = field(default_factory=list)
    failure: Exception | None = None

    def wait(self, seconds: float) -> bool:
        """Wait, but not past the end; says whether it has come."""
        return self.stop.wait(seconds)

    def start(self, name: str, work: Callable[[Service], None]) -> None:
        """Run ``work`` in a thread, again and again until the end."""
        thread = threading.Thread(target=self._look_after, args=(name, work), name=name)
        self.threads.append(thread)
        thread.start()

    def _look_after(self, name: str, work: Callable[[Service], None]) -> None:
        pause = _PAUSE_SECONDS_MIN
        while not self.stop.is_set():
            try:
                work(self)
                pause = _PAUSE_SECONDS_MIN
            except (psycopg.OperationalError, *ENDED_BY_THE_SERVER) as error:
                _log.warning("%s lost the database: %s", name, str(error).partition("\n")[0])
            except LedgerError as error:
                if error.code not in _PASSING:
                    self.failure = error
                    self.stop.set()
                    return
                _log.info("%s: %s", name, error)
            except Exception as error:
                # A defect: whoever runs the service must see it end, and not wait for ever.
                self.failure = error
                self.stop.set()
                return
            self.wait(pause)
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)

    def end(self) -> None:
        """Let every consumer finish its batch and stop."""
        self.stop.set()
        for thread in self.threads:
            thread.join()


def enforce(ledger: Ledger) -> Callable[[Service], None]:
    """Return the work of an enforcer that follows the store: it decides while it leads."""

    def work(service: Service) -> None:
        with Waiter(ledger.database.service_url, service.stop, near=ledger.notifier) as waiter:
            enforcing.enforce(
                lambda: ledger.dedicated("enforcer"),
                StoreFeed(),
                ledger.catalogue,
                service.stop,
                waiter.wait,
                committed=ledger.notifier.hint_decided,
            )

    return work


def enforce_partitions(ledger: Ledger, cluster: Cluster) -> Callable[[Service], None]:
    """Return the work of an enforcer that follows Kafka, and shares the partitions with others."""
    from consumers.kafka import enforcing as partitions  # takes a while, and few need it

    def work(service: Service) -> None:
        # What Kafka has given to this process nobody else decides while this one waits.
        silence_seconds_max = EnforcerLimits().silence_seconds_max
        partitions.enforce_partitions(
            lambda: ledger.dedicated("enforcer", silence_seconds_max),
            cluster,
            ledger.catalogue,
            service.stop,
            committed=ledger.notifier.hint_decided,
        )

    return work


def project(ledger: Ledger, limits: LeadingLimits | None = None) -> Callable[[Service], None]:
    """Return the work of a projector: it keeps the read models while it leads."""

    def keep(connection: Connection[Any], service: Service, waiter: Waiter) -> None:
        runner = Runner(connection, ledger.projections, ledger.catalogue)
        for projection in runner.start():
            _log.warning("%s is of another version: run guishu rebuild", projection.name)
        runner.run(service.stop, waiter.wait)

    def work(service: Service) -> None:
        with Waiter(
            ledger.database.service_url,
            service.stop,
            near=ledger.notifier,
            linger_seconds=LINGER_SECONDS,
        ) as waiter:
            while_leading(
                "projector",
                "projecting",
                lambda: ledger.dedicated("projector"),
                lambda connection: keep(connection, service, waiter),
                service.stop,
                limits or LeadingLimits(),
            )

    return work


def keep_time(ledger: Ledger) -> Callable[[Service], None]:
    """Return the work of a clock: it raises what falls due while it leads."""

    def work(service: Service) -> None:
        # A recording is used by one thread at a time, and this is one more.
        recording = Recording(
            ledger.committer, ledger.pool.connection, ledger.vault, ledger.catalogue
        )
        with ledger.dedicated("clock") as connection:
            clock.keep_time(connection, recording, service.stop, service.wait)

    return work


def relay(ledger: Ledger, cluster: Cluster) -> Callable[[Service], None]:
    """Return the work of a relay: it sends the log to Kafka while it leads."""
    from consumers.kafka import relay as relaying  # takes a while, and few need it

    def work(service: Service) -> None:
        with Waiter(ledger.database.service_url, service.stop, near=ledger.notifier) as waiter:
            relaying.relay(lambda: ledger.dedicated("relay"), cluster, service.stop, waiter.wait)

    return work


def publish(ledger: Ledger, cluster: Cluster) -> Callable[[Service], None]:
    """Return the work of a publisher: it tells subscribers what was decided, while it leads."""
    from consumers.kafka.publishing import publisher  # takes a while, and few need it

    def work(service: Service) -> None:
        with Waiter(ledger.database.service_url, service.stop, near=ledger.notifier) as waiter:
            publisher.publish(
                lambda: ledger.dedicated("publisher"),
                cluster,
                ledger.catalogue,
                service.stop,
                waiter.wait,
            )

    return work


@contextmanager
def running(ledger: Ledger, *, clock_too: bool = False) -> Iterator[Service]:
    """Run enforcer and projector beside the block, and stop them with it.

    The clock runs only where it is asked for: one command must not raise what others wait for.
    """
    service = Service()
    service.start("enforcer", enforce(ledger))
    service.start("projector", project(ledger))
    if clock_too:
        service.start("clock", keep_time(ledger))
    try:
        yield service
    finally:
        service.end()
    if service.failure is not None:
        raise service.failure


class NotFollowedError(LedgerError):
    """Nobody decided or projected in time what was recorded."""

    code = "not_followed"


def reflected(connection: Connection[Any]) -> tuple[int, int, int]:
    """Return the head of the log, the position decided up to, and the one projected up to.

    The last one is -1 before the read models are made, which then nobody can ask.
    """
    projected = min(positions(connection).values(), default=-1)
    decided = progress.reached(connection, CONSUMER)
    # The head last: it is behind all that was decided up to there.
    return head(connection), decided, projected


def settle(
    ledger: Ledger,
    *,
    timeout_seconds: float | None = None,
    told: Callable[[int, int, int], None] = lambda head, decided, projected: None,
) -> int:
    """Wait until all that is recorded now is decided and projected; return that position.

    Where nobody runs the consumers they run here meanwhile; where somebody does, these stand by.
    Raises NotFollowedError after ``timeout_seconds``.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    with running(ledger) as service, ledger.pool.connection() as connection:
        target, requested = head(connection), True
        while True:
            at_head, decided, projected = reflected(connection)
            told(at_head, decided, projected)
            if requested and decided >= target:
                # What was decided stands behind the requests; that is to be projected as well.
                target, requested = at_head, False
            if not requested and projected >= target:
                return target
            if service.wait(_LOOK_SECONDS):
                return target
            if deadline is not None and time.monotonic() > deadline:
                raise NotFollowedError(
                    f"Position {target} is not decided and projected yet.",
                    way_out="It is recorded; look again later, and at guishu doctor.",
                )
