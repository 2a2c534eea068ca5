"""The eventsourcing library's own suites for recorders, on our store."""

from __future__ import annotations

from typing import Any
from unittest import TestCase
from uuid import uuid4

import pytest
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    TrackingRecorder,
)
from eventsourcing.tests import persistence as suites

from ledger.store.recorder import (
    LedgerAggregateRecorder,
    LedgerApplicationRecorder,
    LedgerFactory,
    LedgerProcessRecorder,
    LedgerSnapshotRecorder,
    LedgerTrackingRecorder,
)
from tests.support.database import DatabaseUrls


class OnOurStore(TestCase):
    """A factory on a fresh database; streams are named by text here, not by UUIDs."""

    factory: LedgerFactory

    @pytest.fixture(autouse=True)
    def _open_factory(self, database: DatabaseUrls) -> Any:
        with LedgerFactory({"LEDGER_CONNINFO": database.service_url}) as self.factory:
            yield

    def new_originator_id(self) -> str:
        return f"customer-{uuid4()}"


class TestAggregateRecorder(OnOurStore, suites.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        recorder = self.factory.aggregate_recorder()
        assert type(recorder) is LedgerAggregateRecorder
        return recorder


class TestSnapshotRecorder(OnOurStore, suites.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        recorder = self.factory.aggregate_recorder(purpose="snapshots")
        assert type(recorder) is LedgerSnapshotRecorder
        return recorder


class TestApplicationRecorder(OnOurStore, suites.ApplicationRecorderTestCase[ApplicationRecorder]):
    def create_recorder(self) -> ApplicationRecorder:
        recorder = self.factory.application_recorder()
        assert type(recorder) is LedgerApplicationRecorder
        return recorder

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OnOurStore, suites.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        recorder = self.factory.tracking_recorder()
        assert type(recorder) is LedgerTrackingRecorder
        return recorder


class TestProcessRecorder(OnOurStore, suites.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        recorder = self.factory.process_recorder()
        assert type(recorder) is LedgerProcessRecorder
        return recorder


class TestNonInterleavingNotificationIds(OnOurStore, suites.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory.application_recorder()
