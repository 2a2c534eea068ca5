"""The eventsourcing library's interfaces on our store, so that its applications work on the log.

Name this module as the library's PERSISTENCE_MODULE and give LEDGER_CONNINFO, a libpq connection
string of the service's role, on a database with all migrations applied. An aggregate is a stream,
a topic an event's name, a notification id a position. Every event goes through the committer or,
together with tracking, through the same append function as the last statement of a transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from threading import Event
from typing import Any, cast
from uuid import UUID

import psycopg
from eventsourcing import persistence
from eventsourcing.domain import TAggregateID
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    InfrastructureFactoryError,
    Mapper,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
    Transcoder,
)
from eventsourcing.utils import Environment, EnvType, resolve_topic
from psycopg import Connection
from psycopg_pool import ConnectionPool

from ledger.errors import (
    EntryTooLargeError,
    LedgerError,
    RequestReusedError,
    StoreRefusedError,
    VersionConflictError,
)
from ledger.store import arrays
from ledger.store.appending import Append, NewEvent, RequestKey, append_and_commit
from ledger.store.committer import CommitterThread, translated
from ledger.store.hints import Notifier, wait_for_news
from ledger.store.mapping import CatalogueMapper

CONNINFO = "LEDGER_CONNINFO"

POOL_CONNECTIONS_MAX = 8
POOL_WAIT_SECONDS_MAX = 10

_VERSION_MAX = 2**31 - 1
_POSITION_MAX = 2**63 - 1

# SQLSTATE of a refused tracking (migrations/0004_tracking.sql).
_ALREADY_PROCESSED = "GS002"

_STREAM = """
SELECT version, name, body FROM ledger.events
WHERE stream = %s AND version > %s AND version <= %s
ORDER BY version LIMIT %s::bigint
"""
_STREAM_BACKWARDS = """
SELECT version, name, body FROM ledger.events
WHERE stream = %s AND version > %s AND version <= %s
ORDER BY version DESC LIMIT %s::bigint
"""
_SNAPSHOTS = """
SELECT version, name, body FROM ledger.snapshots
WHERE stream = %s AND version > %s AND version <= %s
ORDER BY version LIMIT %s::bigint
"""
_SNAPSHOTS_BACKWARDS = """
SELECT version, name, body FROM ledger.snapshots
WHERE stream = %s AND version > %s AND version <= %s
ORDER BY version DESC LIMIT %s::bigint
"""
_TAKE_SNAPSHOT = """
INSERT INTO ledger.snapshots (stream, version, name, body) VALUES (%s, %s, %s, %s)
"""
_NOTIFICATIONS = """
SELECT stream, version, name, body, position FROM ledger.events
WHERE position >= %s AND position <= %s ORDER BY position LIMIT %s
"""
_NOTIFICATIONS_NAMED = """
SELECT stream, version, name, body, position FROM ledger.events
WHERE position >= %s AND position <= %s AND name = ANY(%s) ORDER BY position LIMIT %s
"""
_HEAD = "SELECT max(position) FROM ledger.events"
_TRACK = "SELECT ledger.record_tracking(%s, %s)"
_TRACKED = "SELECT notification_id FROM ledger.tracking WHERE application_name = %s"


class Datastore:
    """The connections of one application: a pool to read, a committer to append, a notifier."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self.notifier = Notifier(conninfo)
        self.committer = CommitterThread(conninfo, committed=self.notifier.hint)
        self.pool: ConnectionPool[Connection[Any]] = ConnectionPool(
            conninfo,
            min_size=1,
            max_size=POOL_CONNECTIONS_MAX,
            timeout=POOL_WAIT_SECONDS_MAX,
            open=False,
            kwargs={"autocommit": True},
            configure=arrays.register,
            name="guishu-recorder",
        )
        self._open = ExitStack()

    def open(self) -> None:
        """Start the threads; connections are made when they are needed."""
        with ExitStack() as stack:
            stack.enter_context(self.notifier)
            stack.enter_context(self.committer)
            stack.enter_context(self.pool)
            self._open = stack.pop_all()

    def close(self) -> None:
        """Finish what was accepted, and close everything; closing twice is harmless."""
        self._open.close()

    @contextmanager
    def connection(self) -> Iterator[Connection[Any]]:
        """Lend a connection in autocommit mode; errors become the library's."""
        with _library_errors(), self.pool.connection() as connection:
            yield connection

    def append(
        self,
        stored_events: Sequence[StoredEvent],
        tracking: Tracking | None = None,
        request: RequestKey | None = None,
    ) -> Sequence[int] | None:
        """Append events, each at its own version, and with them what was tracked; all or nothing.

        Returns their positions; nothing for no events. Raises the library's errors.
        """
        if tracking is not None:
            return self._append_tracking(tracking, _append_of(stored_events, request))
        if not stored_events:
            return None
        with _library_errors():
            return list(self.committer.append(_append_of(stored_events, request)).positions)

    def _append_tracking(self, tracking: Tracking, append: Append) -> Sequence[int] | None:
        with self.connection() as connection:
            try:
                connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
                connection.execute(
                    _TRACK, (tracking.application_name, tracking.notification_id), prepare=True
                )
                if not append.events:
                    connection.execute("COMMIT")
                    return None
                appended = append_and_commit(connection, append)
            except BaseException:
                if not connection.closed:
                    connection.rollback()
                raise
        self.notifier.hint()
        return list(appended.positions)


def _append_of(stored_events: Sequence[StoredEvent], request: RequestKey | None) -> Append:
    return Append(
        tuple(
            NewEvent(str(each.originator_id), each.topic, each.state, each.originator_version)
            for each in stored_events
        ),
        request,
    )


@contextmanager
def _library_errors() -> Iterator[None]:
    """Turn our errors and psycopg's into those of the library's persistence module."""
    try:
        yield
    except (LedgerError, psycopg.Error) as error:
        raise _library_error(error) from error
    except ValueError as error:
        raise persistence.ProgrammingError(str(error)) from error


def _library_error(error: LedgerError | psycopg.Error) -> persistence.PersistenceError:
    if isinstance(error, psycopg.Error):
        if error.sqlstate == _ALREADY_PROCESSED or isinstance(error, psycopg.IntegrityError):
            return persistence.IntegrityError(str(error))
        error = translated(error)
    sentence = f"{error} {error.way_out}"
    if isinstance(error, VersionConflictError | RequestReusedError):
        return persistence.IntegrityError(sentence)
    if isinstance(error, EntryTooLargeError):
        return persistence.DataError(sentence)
    if isinstance(error, StoreRefusedError):
        return persistence.DatabaseError(sentence)
    return persistence.OperationalError(sentence)


class _Recorder:
    """What all recorders have: a datastore, which the factory opens and closes."""

    def __init__(self, datastore: Datastore) -> None:
        self.datastore = datastore

    def _select(
        self,
        statement: str,
        originator_id: UUID | str,
        gt: int | None,
        lte: int | None,
        limit: int | None,
    ) -> Sequence[StoredEvent]:
        after = -1 if gt is None else gt
        upto = _VERSION_MAX if lte is None else lte
        with self.datastore.connection() as connection:
            rows = connection.execute(
                statement, (str(originator_id), after, upto, limit), prepare=True, binary=True
            ).fetchall()
        return [StoredEvent(originator_id, *row) for row in rows]


class LedgerAggregateRecorder(_Recorder, AggregateRecorder):
    """Records events in the log and reads them by stream."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events; ``request`` may be a RequestKey. Returns nothing."""
        self.datastore.append(stored_events, request=kwargs.get("request"))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the events of a stream behind version ``gt`` and up to ``lte``."""
        statement = _STREAM_BACKWARDS if desc else _STREAM
        return self._select(statement, originator_id, gt, lte, limit)


class LedgerSnapshotRecorder(_Recorder, AggregateRecorder):
    """Records snapshots beside the log: they follow from it and may be thrown away."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Keep snapshots; IntegrityError where there is one of that version already."""
        with self.datastore.connection() as connection, connection.transaction():
            connection.cursor().executemany(
                _TAKE_SNAPSHOT,
                [
                    (str(each.originator_id), each.originator_version, each.topic, each.state)
                    for each in stored_events
                ],
            )
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """Return the snapshots of a stream behind version ``gt`` and up to ``lte``."""
        statement = _SNAPSHOTS_BACKWARDS if desc else _SNAPSHOTS
        return self._select(statement, originator_id, gt, lte, limit)


class LedgerApplicationRecorder(LedgerAggregateRecorder, ApplicationRecorder):
    """Reads the log by position as well, and follows it."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events; ``request`` may be a RequestKey. Returns their positions."""
        return self.datastore.append(stored_events, request=kwargs.get("request"))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """Return up to ``limit`` events from position ``start`` on, up to ``stop``, in order."""
        first = (start or 0) + (not inclusive_of_start)
        last = _POSITION_MAX if stop is None else stop
        with self.datastore.connection() as connection:
            if topics:
                cursor = connection.execute(
                    _NOTIFICATIONS_NAMED, (first, last, list(topics), limit), binary=True
                )
            else:
                cursor = connection.execute(
                    _NOTIFICATIONS, (first, last, limit), prepare=True, binary=True
                )
            rows = cursor.fetchall()
        return [Notification(*row) for row in rows]

    def max_notification_id(self) -> int | None:
        """Return the highest position, None for an empty log."""
        with self.datastore.connection() as connection:
            row = connection.execute(_HEAD, prepare=True).fetchone()
        return row[0] if row else None

    def subscribe(
        self, gt: int | None = None, topics: Sequence[str] = ()
    ) -> Subscription[ApplicationRecorder]:
        """Return an iterator over the events behind ``gt`` that waits for those to come."""
        return LedgerSubscription(self, gt, topics)


class LedgerSubscription(Subscription[LedgerApplicationRecorder]):
    """Events in order, those to come included; ends when it is stopped, from any thread.

    It looks at the log at a hint, and in any case every ``poll_seconds``. The library's own waits
    for a hint without end. With ``timeout_seconds`` it also ends when nothing has come for so
    long; iterating again goes on.
    """

    def __init__(
        self,
        recorder: LedgerApplicationRecorder,
        gt: int | None = None,
        topics: Sequence[str] = (),
        *,
        poll_seconds: float = 1.0,
        timeout_seconds: float | None = None,
    ) -> None:
        super().__init__(recorder, gt, topics)
        self._poll_seconds = poll_seconds
        self._timeout_seconds = timeout_seconds
        self._page_events = 500
        self._page: deque[Notification] = deque()
        self._reached = gt or 0
        self._stopping = Event()
        self._connection: Connection[Any] | None = None

    def __exit__(self, *args: object, **kwargs: Any) -> None:
        super().__exit__(*args, **kwargs)
        if self._connection is not None:
            self._connection.close()

    def stop(self) -> None:
        """End the iteration, within a tenth of a second where it is waiting."""
        super().stop()
        self._stopping.set()

    def __next__(self) -> Notification:
        waited = 0.0
        while not self._stopping.is_set():
            if not self._page:
                self._read()
            if self._page:
                return self._page.popleft()
            left = self._poll_seconds
            if self._timeout_seconds is not None:
                left = min(left, self._timeout_seconds - waited)
            if left <= 0:
                break
            if not self._wait(left):
                waited += left
        raise StopIteration

    def _read(self) -> None:
        """Read the next page; without a match, at least remember that there was none."""
        head = self._recorder.max_notification_id() or 0
        page = self._recorder.select_notifications(
            self._reached,
            self._page_events,
            stop=head,
            topics=self._topics,
            inclusive_of_start=False,
        )
        self._page.extend(page)
        self._reached = page[-1].id if len(page) == self._page_events else max(head, self._reached)

    def _wait(self, seconds: float) -> bool:
        with _library_errors():
            if self._connection is None or self._connection.closed:
                conninfo = self._recorder.datastore.conninfo
                self._connection = psycopg.connect(conninfo, autocommit=True)
            return wait_for_news(self._connection, seconds, self._stopping)


class LedgerTrackingRecorder(_Recorder, TrackingRecorder):
    """Records how far a follower has come."""

    def insert_tracking(self, tracking: Tracking) -> None:
        """Record it; IntegrityError unless it is further than before."""
        with self.datastore.connection() as connection:
            connection.execute(_TRACK, (tracking.application_name, tracking.notification_id))

    def max_tracking_id(self, application_name: str) -> int | None:
        """Return the position that the follower has reached, None where it has not begun."""
        with self.datastore.connection() as connection:
            row = connection.execute(_TRACKED, (application_name,), prepare=True).fetchone()
        return row[0] if row else None


class LedgerProcessRecorder(LedgerTrackingRecorder, LedgerApplicationRecorder, ProcessRecorder):
    """Records events together with the position of what they follow from."""

    def insert_events(
        self, stored_events: Sequence[StoredEvent], **kwargs: Any
    ) -> Sequence[int] | None:
        """Append the events and record ``tracking`` (a Tracking), both or neither."""
        return self.datastore.append(
            stored_events, tracking=kwargs.get("tracking"), request=kwargs.get("request")
        )


class LedgerFactory(InfrastructureFactory[LedgerTrackingRecorder]):
    """Makes the recorders and the mapper of a library application."""

    def __init__(self, env: Environment | EnvType | None) -> None:
        super().__init__(env)
        conninfo = self.env.get(CONNINFO)
        if not conninfo:
            raise InfrastructureFactoryError(f"{CONNINFO} names no database.")
        self.datastore = Datastore(conninfo)
        self.datastore.open()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self.close()

    def close(self) -> None:
        """Finish what was accepted, and close the connections."""
        # The library also closes what could not be constructed.
        if hasattr(self, "datastore"):
            self.datastore.close()

    def mapper(
        self,
        transcoder: Transcoder | None = None,
        mapper_class: type[Mapper[TAggregateID]] | None = None,
    ) -> Mapper[TAggregateID]:
        """Return the catalogue's mapper, unless another one is asked for."""
        if mapper_class is None and not self.env.get(self.MAPPER_TOPIC):
            # Ours knows streams by text only; an application whose ids are UUIDs names its own.
            ours = cast("type[Mapper[TAggregateID]]", CatalogueMapper)
            return super().mapper(transcoder, ours)
        return super().mapper(transcoder, mapper_class)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        """Return a recorder of the log, or of snapshots."""
        if purpose == "snapshots":
            return LedgerSnapshotRecorder(self.datastore)
        return LedgerAggregateRecorder(self.datastore)

    def application_recorder(self) -> ApplicationRecorder:
        """Return a recorder of the log."""
        return LedgerApplicationRecorder(self.datastore)

    def tracking_recorder(
        self, tracking_recorder_class: type[LedgerTrackingRecorder] | None = None
    ) -> LedgerTrackingRecorder:
        """Return a tracking recorder of the given class, or of that of TRACKING_RECORDER_TOPIC."""
        topic = self.env.get(self.TRACKING_RECORDER_TOPIC)
        if tracking_recorder_class is None and topic:
            tracking_recorder_class = resolve_topic(topic)
        return (tracking_recorder_class or LedgerTrackingRecorder)(self.datastore)

    def process_recorder(self) -> ProcessRecorder:
        """Return a recorder of the log and of tracking together."""
        return LedgerProcessRecorder(self.datastore)
