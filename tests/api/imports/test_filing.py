"""Imports through the whole ledger: what the decisions are, once, again, and after a cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from api.imports.filing import Filed, Filing, Importer
from api.imports.mapping import load_mapping
from api.imports.planning import Plan, plan
from api.imports.report import Report, report
from ledger.events import decisions
from ledger.store.reading import head
from ledger.verification import verify_log
from tests.api.imports.crm_files import write_crm_files
from tests.api.imports.test_planning import EXAMPLES, KNOWN_ANSWERS, SHAPE
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IMPORTER = Importer(ADMINISTRATOR, "cli:test", "asserted")


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        opened.found([])
        yield opened


@contextmanager
def planned(mapping: str, folder: Path, workspace: Path) -> Iterator[Plan]:
    read = load_mapping(EXAMPLES / mapping / "mapping.toml")
    with plan(read, folder, workspace, now=NOW) as made:
        yield made


def file(ledger: TestLedger, made: Plan) -> tuple[Filed, Report]:
    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    filing = Filing(ledger.recording, connect, made, IMPORTER)
    filed = filing.run()
    ledger.decide()
    filing.close()
    organisation = ledger.recording.organisation()
    return filed, report(ledger.connection, ledger.catalogue, organisation, filed.import_ids)


def answers(brought: Report) -> dict[str, int]:
    total = brought.total
    return {
        "granted": total.granted,
        "already": total.refused["already_yours"],
        "refused": total.refused["owned_by_another"],
        "ended": total.ended,
        "deals": total.deals,
        "deals by others": total.deals_by_non_owners,
    }


def test_the_known_answers_come_out_of_the_decisions(ledger: TestLedger, tmp_path: Path) -> None:
    write_crm_files(tmp_path, SHAPE, seed=1)
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "work") as made:
        _, brought = file(ledger, made)
    assert answers(brought) == KNOWN_ANSWERS
    assert brought.total.claims == sum(
        KNOWN_ANSWERS[each] for each in ("granted", "already", "refused")
    )
    assert len(brought.by_territory) == 3
    assert brought.customers == 20
    assert verify_log(ledger.connection, ledger.catalogue).good


def test_importing_again_changes_nothing(ledger: TestLedger, tmp_path: Path) -> None:
    write_crm_files(tmp_path, SHAPE, seed=1)
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "one") as made:
        file(ledger, made)
    before = head(ledger.connection)
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "two") as made:
        filed, brought = file(ledger, made)
    assert head(ledger.connection) == before
    assert sum(filed.recorded.values()) == 0
    assert answers(brought) == KNOWN_ANSWERS


class CutError(Exception):
    """The import is cut off."""


def test_a_cut_off_import_goes_on_where_it_stopped(ledger: TestLedger, tmp_path: Path) -> None:
    write_crm_files(tmp_path, SHAPE, seed=1)

    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    def cut(done: int, total: int) -> None:
        raise CutError

    with planned("crm-sales-opportunities", tmp_path, tmp_path / "one") as made:
        filing = Filing(ledger.recording, connect, made, IMPORTER, progress=cut)
        with pytest.raises(CutError):
            filing.run()
    ledger.decide()
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "two") as made:
        filed, brought = file(ledger, made)
    assert sum(filed.known.values()) >= 1_000
    assert sum(filed.recorded.values()) > 0
    assert len(filed.import_ids) == 1
    assert answers(brought) == KNOWN_ANSWERS


def test_a_row_that_changed_since_is_listed_and_not_taken(
    ledger: TestLedger, tmp_path: Path
) -> None:
    write_crm_files(tmp_path, SHAPE, seed=1)
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "one") as made:
        file(ledger, made)
    before = head(ledger.connection)
    accounts = tmp_path / "accounts.csv"
    lines = accounts.read_text(encoding="utf-8").splitlines()
    fields = lines[1].split(",")
    fields[1] = "mining"
    accounts.write_text("\n".join([lines[0], ",".join(fields), *lines[2:]]), encoding="utf-8")
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "two") as made:
        filed, _ = file(ledger, made)
        listed = made.rejects_path.read_text(encoding="utf-8-sig")
    assert filed.refused["row_changed"] == 1
    assert "accounts.csv,2,,row_changed" in listed
    assert head(ledger.connection) == before


def test_an_opening_balance_is_unknown_before_its_cut_over(
    ledger: TestLedger, tmp_path: Path
) -> None:
    (tmp_path / "customers.csv").write_text(
        "客户名称,负责人,省份,电话\n"
        "苏州恒信电子有限公司,张伟,江苏,051212345678\n"
        "杭州锐思软件有限公司,,浙江,\n"
        "苏州恒信电子有限公司,李娜,江苏,\n",
        encoding="utf-8",
    )
    with planned("customer-list", tmp_path, tmp_path / "work") as made:
        assert made.rejects == {"second_owner": 1}
        file(ledger, made)
        cut_over = made.cut_over
    admitted = [
        event for event in ledger.log() if isinstance(event.data, decisions.CustomerAdmitted)
    ]
    granted = [
        event for event in ledger.log() if isinstance(event.data, decisions.OwnershipGranted)
    ]
    assert len(admitted) == 2
    assert {event.data.known_from for event in admitted} == {cut_over}
    assert [event.effective for event in granted] == [cut_over]
    assert b"051212345678" not in b"".join(
        bytes(body)
        for (body,) in ledger.connection.execute("SELECT body FROM ledger.events", binary=True)
    )
