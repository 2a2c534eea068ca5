"""A library application on our log: aggregate, repository, snapshots, tracking, subscription."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.compressor import ZlibCompressor
from eventsourcing.persistence import (
    DataError,
    InfrastructureFactoryError,
    IntegrityError,
    JSONTranscoder,
    MapperDeserialisationError,
    ProcessRecorder,
    StoredEvent,
    Tracking,
)

from ledger.canonical import canonical_bytes
from ledger.events.catalogue import UnknownEventError
from ledger.events.requests import ClaimFiled, ReleaseRequested
from ledger.store.appending import RequestKey
from ledger.store.mapping import CatalogueEvent, CatalogueMapper, StateSnapshot
from ledger.store.recorder import LedgerApplicationRecorder, LedgerFactory, LedgerSubscription
from tests.ledger.store.support import bodies, log, rows
from tests.support.database import DatabaseUrls

ENVELOPE = {"actor": "per_1", "caller": "tests", "index": 0, "request_id": "req_1"}


@dataclass
class CustomerFile:
    """Who has claimed a customer, as an aggregate of the library."""

    id: str
    version: int = 0
    claimants: list[str] = field(default_factory=list)
    pending: list[CatalogueEvent] = field(default_factory=list)

    snapshot_name: ClassVar[str] = "CustomerFile.v1"

    def claim(self, claimant: str) -> None:
        self._trigger(ClaimFiled(self.id.removeprefix("customer-"), claimant))

    def release(self) -> None:
        self._trigger(ReleaseRequested(self.id.removeprefix("customer-"), "no_need"))

    def _trigger(self, data: ClaimFiled | ReleaseRequested) -> None:
        self.pending.append(CatalogueEvent(self.id, self.version + 1, ENVELOPE, data))
        self.apply(self.pending[-1])

    def apply(self, event: CatalogueEvent) -> None:
        if isinstance(event.data, ClaimFiled):
            self.claimants.append(event.data.claimant)
        self.version = event.originator_version

    def collect_events(self) -> Sequence[CatalogueEvent]:
        collected, self.pending = self.pending, []
        return collected

    def snapshot_state(self) -> Mapping[str, Any]:
        return {"claimants": self.claimants}


def project(file: CustomerFile | None, events: Iterable[Any]) -> CustomerFile | None:
    for event in events:
        if isinstance(event, StateSnapshot):
            file = CustomerFile(event.originator_id, event.originator_version)
            file.claimants = list(event.state["claimants"])
        else:
            file = file or CustomerFile(event.originator_id)
            file.apply(event)
    return file


class CustomerFiles(Application[str]):
    env: ClassVar[dict[str, str]] = {"PERSISTENCE_MODULE": "ledger.store.recorder"}
    snapshotting_intervals: ClassVar[dict[Any, int]] = {CustomerFile: 2}
    snapshotting_projectors: ClassVar[dict[Any, Any]] = {CustomerFile: project}
    snapshot_class = StateSnapshot

    def file(self, customer: str, version: int | None = None) -> CustomerFile:
        return self.repository.get(f"customer-{customer}", version=version, projector_func=project)


@pytest.fixture
def application(database: DatabaseUrls) -> Iterator[CustomerFiles]:
    with CustomerFiles({"LEDGER_CONNINFO": database.service_url}) as application:
        yield application


@pytest.fixture
def factory(database: DatabaseUrls) -> Iterator[LedgerFactory]:
    with LedgerFactory({"LEDGER_CONNINFO": database.service_url}) as factory:
        yield factory


def stored(stream: str, version: int, topic: str = "ClaimFiled.v1") -> StoredEvent:
    return StoredEvent(stream, version, topic, b"{}")


def test_an_aggregate_is_saved_and_found_again_as_it_was_at_any_version(
    application: CustomerFiles,
) -> None:
    file = CustomerFile("customer-1")
    file.claim("per_1")
    file.release()
    file.claim("per_2")
    recordings = application.save(file)
    assert [each.notification.id for each in recordings] == [1, 2, 3]
    assert application.file("1") == file
    assert application.file("1", version=1).claimants == ["per_1"]
    with pytest.raises(AggregateNotFoundError):
        application.file("2")


def test_the_log_holds_the_catalogues_names_and_canonical_bytes(
    application: CustomerFiles, database: DatabaseUrls
) -> None:
    file = CustomerFile("customer-1")
    file.claim("per_1")
    file.claim("per_2")
    application.save(file)
    assert bodies(database) == [
        canonical_bytes({**ENVELOPE, "data": {"customer": "1", "claimant": claimant}})
        for claimant in ("per_1", "per_2")
    ]
    names = "SELECT name FROM ledger.events UNION SELECT name FROM ledger.snapshots ORDER BY name"
    assert rows(database, names) == [("ClaimFiled.v1",), ("snapshot:CustomerFile.v1",)]


def test_a_snapshot_stands_for_the_events_before_it(
    application: CustomerFiles, database: DatabaseUrls
) -> None:
    file = CustomerFile("customer-1")
    for number in range(5):
        file.claim(f"per_{number}")
    application.save(file)
    assert rows(database, "SELECT version FROM ledger.snapshots ORDER BY version") == [(2,), (4,)]
    # A mark in the snapshot shows that it is what is read.
    rows(
        database,
        "UPDATE ledger.snapshots SET body = %s WHERE version = 4 RETURNING version",
        b'{"claimants":["from the snapshot"]}',
    )
    assert application.file("1").claimants == ["from the snapshot", "per_4"]


def test_of_two_that_change_one_aggregate_the_later_is_refused(
    application: CustomerFiles, database: DatabaseUrls
) -> None:
    first, second = CustomerFile("customer-1"), CustomerFile("customer-1")
    first.claim("per_1")
    second.claim("per_2")
    application.save(first)
    with pytest.raises(IntegrityError):
        application.save(second)
    assert log(database) == [(1, "customer-1", 1)]


def test_saving_again_with_the_same_request_id_changes_nothing(
    application: CustomerFiles, database: DatabaseUrls
) -> None:
    for _ in range(2):
        file = CustomerFile("customer-1")
        file.claim("per_1")
        (recording,) = application.save(file, request=RequestKey("tests", "req_1", b"digest"))
        assert recording.notification.id == 1
    assert len(log(database)) == 1


def test_an_event_that_is_too_large_is_refused(factory: LedgerFactory) -> None:
    recorder = factory.application_recorder()
    with pytest.raises(DataError, match="65535"):
        recorder.insert_events([StoredEvent("customer-1", 1, "ClaimFiled.v1", bytes(65_536))])


class TestTrackingWithEvents:
    @pytest.fixture
    def recorder(self, factory: LedgerFactory) -> ProcessRecorder:
        return factory.process_recorder()

    def test_both_are_recorded_and_positions_returned(self, recorder: ProcessRecorder) -> None:
        recorder.insert_events([stored("a", 1)])
        ids = recorder.insert_events(
            [stored("a", 2), stored("b", 1)], tracking=Tracking("upstream", 7)
        )
        assert ids == [2, 3]
        assert recorder.max_tracking_id("upstream") == 7

    def test_a_version_conflict_leaves_the_tracking_where_it_was(
        self, recorder: ProcessRecorder
    ) -> None:
        recorder.insert_events([stored("a", 1)], tracking=Tracking("upstream", 7))
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored("a", 1)], tracking=Tracking("upstream", 8))
        assert recorder.max_tracking_id("upstream") == 7
        assert recorder.max_notification_id() == 1

    def test_what_was_processed_before_brings_no_events(self, recorder: ProcessRecorder) -> None:
        recorder.insert_events([stored("a", 1)], tracking=Tracking("upstream", 7))
        with pytest.raises(IntegrityError):
            recorder.insert_events([stored("a", 2)], tracking=Tracking("upstream", 7))
        assert recorder.max_notification_id() == 1

    def test_of_two_followers_under_one_name_one_gets_through(
        self, recorder: ProcessRecorder
    ) -> None:
        refused = []
        begin = threading.Barrier(8)

        def follow(number: int) -> None:
            begin.wait()
            try:
                recorder.insert_events([stored(f"s{number}", 1)], tracking=Tracking("upstream", 1))
            except IntegrityError as error:
                refused.append(error)

        threads = [threading.Thread(target=follow, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 7
        assert recorder.max_notification_id() == 1


class TestSubscription:
    @pytest.fixture
    def recorder(self, factory: LedgerFactory) -> LedgerApplicationRecorder:
        recorder = factory.application_recorder()
        assert isinstance(recorder, LedgerApplicationRecorder)
        return recorder

    def test_it_delivers_what_another_process_appends_later(
        self, recorder: LedgerApplicationRecorder, database: DatabaseUrls
    ) -> None:
        recorder.insert_events([stored("a", 1)])
        with recorder.subscribe() as subscription:
            assert next(subscription).id == 1

            def append() -> None:
                with LedgerFactory({"LEDGER_CONNINFO": database.service_url}) as other:
                    other.application_recorder().insert_events([stored("a", 2)])

            thread = threading.Thread(target=append)
            thread.start()
            assert next(subscription).id == 2
            thread.join()

    def test_it_delivers_without_any_hint(
        self, recorder: LedgerApplicationRecorder, database: DatabaseUrls
    ) -> None:
        """Polling is the truth: an append by a process without a notifier is found as well."""
        with LedgerSubscription(recorder, poll_seconds=0.05) as subscription:
            thread = threading.Thread(
                target=rows,
                args=(
                    database,
                    "SELECT ledger.append_events("
                    "'{a}', '{}', '{}', '{N.v1}', '{x}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
                ),
            )
            thread.start()
            assert next(subscription).topic == "N.v1"
            thread.join()

    def test_stopping_from_another_thread_ends_the_wait(
        self, recorder: LedgerApplicationRecorder
    ) -> None:
        subscription = LedgerSubscription(recorder, poll_seconds=3600)
        with subscription:
            threading.Timer(0.05, subscription.stop).start()
            assert list(subscription) == []

    def test_it_ends_when_nothing_comes_in_time_and_goes_on_when_asked_again(
        self, recorder: LedgerApplicationRecorder
    ) -> None:
        with LedgerSubscription(recorder, timeout_seconds=0.05) as subscription:
            assert list(subscription) == []
            recorder.insert_events([stored("a", 1)])
            assert [each.id for each in subscription] == [1]

    def test_topics_far_apart_are_found_across_pages(
        self, recorder: LedgerApplicationRecorder
    ) -> None:
        recorder.insert_events([stored("a", version) for version in range(1, 1_200)])
        recorder.insert_events([stored("a", 1_200, "Rare.v1")])
        with LedgerSubscription(recorder, 0, ["Rare.v1"], timeout_seconds=0.05) as subscription:
            assert [each.id for each in subscription] == [1_200]
        with LedgerSubscription(recorder, timeout_seconds=0.05) as subscription:
            assert [each.id for each in subscription] == list(range(1, 1_201))


class TestMapper:
    mapper = CatalogueMapper(JSONTranscoder())

    def test_it_gives_back_what_it_was_given(self) -> None:
        event = CatalogueEvent("customer-1", 3, ENVELOPE, ClaimFiled("1", "per_1"))
        assert self.mapper.to_domain_event(self.mapper.to_stored_event(event)) == event
        snapshot = StateSnapshot("customer-1", 3, "CustomerFile.v1", {"claimants": ["per_1"]})
        assert self.mapper.to_domain_event(self.mapper.to_stored_event(snapshot)) == snapshot

    def test_it_refuses_events_that_are_none_of_the_catalogue(self) -> None:
        with pytest.raises(TypeError, match="no event of the catalogue"):
            self.mapper.to_stored_event(stored("a", 1))  # type: ignore[arg-type]  # that is it

    @pytest.mark.parametrize(
        ("topic", "state", "error"),
        [
            ("Unheard.v1", b'{"data":{}}', UnknownEventError),
            ("ClaimFiled.v1", b"no JSON", MapperDeserialisationError),
            ("ClaimFiled.v1", b'{"data":{"customer":"1"}}', MapperDeserialisationError),
            ("ClaimFiled.v1", b"{}", MapperDeserialisationError),
            ("ClaimFiled.v1", b"[]", MapperDeserialisationError),
        ],
    )
    def test_it_says_what_it_cannot_read(
        self, topic: str, state: bytes, error: type[Exception]
    ) -> None:
        with pytest.raises(error):
            self.mapper.to_domain_event(StoredEvent("customer-1", 1, topic, state))

    def test_the_log_is_not_compressed(self) -> None:
        with pytest.raises(InfrastructureFactoryError):
            CatalogueMapper(JSONTranscoder(), compressor=ZlibCompressor())


def test_a_factory_without_a_database_says_so() -> None:
    with pytest.raises(InfrastructureFactoryError, match="LEDGER_CONNINFO"):
        LedgerFactory({})
