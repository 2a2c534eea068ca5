"""Imports through the whole ledger: what the decisions are, once, again, and after a cut."""

from __future__ import annotations

import csv
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from api.imports.filing import BUSY_TRIES_MAX, Filed, Filing, Importer
from api.imports.mapping import load_mapping, parse_mapping
from api.imports.naming import RowNames
from api.imports.planning import Plan, plan
from api.imports.report import Report, report
from ledger import ids
from ledger import organisation_commands as facts
from ledger.errors import BusyError, LedgerError, StoreFullError
from ledger.events import decisions, requests
from ledger.four_eyes import ProposedError
from ledger.recording import Recording
from ledger.sealing import Vault
from ledger.store.appending import Append, Appended
from ledger.store.reading import head
from ledger.verification import verify_log
from tests.api.imports.crm_files import write_crm_files
from tests.api.imports.test_planning import EXAMPLES, KNOWN_ANSWERS, SHAPE
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, MASTER_KEY, TestLedger, open_test_ledger

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

    filing = Filing(ledger.recording, connect, made, IMPORTER, ledger.vault)
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


def test_the_report_remembers_a_page_at_a_time(
    ledger: TestLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembered every request until its decision, and all requests stand before the first."""
    write_crm_files(tmp_path, SHAPE, seed=1)
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "work") as made:
        filed, brought = file(ledger, made)
    organisation = ledger.recording.organisation()

    def peak_bytes(page: int) -> int:
        monkeypatch.setattr("api.imports.report.PAGE_EVENTS", page)
        tracemalloc.start()
        try:
            again = report(ledger.connection, ledger.catalogue, organisation, filed.import_ids)
            assert again == brought
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes(20) < 0.05 * peak_bytes(head(ledger.connection))


class CutError(Exception):
    """The import is cut off."""


def test_a_cut_off_import_goes_on_where_it_stopped(ledger: TestLedger, tmp_path: Path) -> None:
    write_crm_files(tmp_path, SHAPE, seed=1)

    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    def cut(done: int, total: int) -> None:
        if done >= 1_000:
            raise CutError

    with planned("crm-sales-opportunities", tmp_path, tmp_path / "one") as made:
        filing = Filing(ledger.recording, connect, made, IMPORTER, ledger.vault, progress=cut)
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
    # The list speaks of the row as the file does, and the log does not.
    assert "customer/" in listed
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


# --- what stands in the log --------------------------------------------------------------------

PRIVATE = """
name = "private"
[constants]
time_zone = "Asia/Shanghai"
currency = "CNY"
cut_over = 2024-01-01
[unknown]
people = "create"
customers = "create"
[[files]]
file = "people.csv"
key = "name"
[files.person]
name = "name"
territory = "area"
manager = "manager"
phone = "phone"
email = "email"
[[files]]
file = "customers.csv"
key = "phone"
[files.customer]
name = "name"
kind = "individual"
identifiers = { id_card = "card" }
[[files.customer.contacts]]
name = "contact"
phone = "phone"
[files.owner]
customer = "name"
owner = "owner"
[[files]]
file = "visits.csv"
[files.follow_up]
agent = "agent"
customer = "customer"
at = "at"
method = "method"
agreed = "agreed"
[files.deal]
agent = "agent"
customer = "customer"
at = "at"
outcome = "won"
"""
PRIVATE_FILES = {
    "people.csv": (
        "name,area,manager,phone,email\n张小伟,华东,陈建国,13800000001,zhang@example.org\n"
    ),
    "customers.csv": (
        "name,phone,card,contact,owner\n王富贵杂货铺,13912345678,11010519491231002X,王富贵,李娜娜\n"
    ),
    "visits.csv": (
        "agent,customer,at,method,agreed\n"
        "赵铁柱,王富贵杂货铺,2024-02-01,和王富贵喝茶,周五打13912345678\n"
        "赵铁柱,钱多多小店,2024-02-02,电话,等\n"
    ),
}
PERSONAL = (
    *("张小伟", "陈建国", "李娜娜", "赵铁柱", "王富贵", "13800000001", "13912345678"),
    *("zhang@example.org", "11010519491231002X", "喝茶"),
)


@contextmanager
def planned_text(mapping: str, files: dict[str, str], folder: Path) -> Iterator[Plan]:
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    with plan(parse_mapping(mapping), folder, folder / "work", now=NOW) as made:
        yield made


def rejected(made: Plan) -> list[list[str]]:
    """Return (file, row, column, reason) of the list of rejects, without its header."""
    with made.rejects_path.open(encoding="utf-8-sig", newline="") as listed:
        return [line[:4] for line in list(csv.reader(listed))[1:]]


def everything_written(ledger: TestLedger) -> str:
    """Return every text of the log and of its index of requests."""
    log = ledger.connection.execute(
        "SELECT stream, name, convert_from(body, 'UTF8') FROM ledger.events"
    ).fetchall()
    asked = ledger.connection.execute("SELECT caller, request_id FROM ledger.request_ids")
    return "\n".join(text for row in [*log, *asked] for text in row)


def test_no_personal_data_of_a_file_stand_in_the_log_in_plain(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """Request ids held what identifies a row: ``person/created/name:张小伟``, or a phone number.

    A customer that the mapping creates is an organisation, whose name may stand in the log.
    """
    with planned_text(PRIVATE, PRIVATE_FILES, tmp_path) as made:
        filed, _ = file(ledger, made)
        assert rejected(made) == []
    assert sum(filed.recorded.values()) == 12
    written = everything_written(ledger)
    assert "钱多多小店" in written
    assert [text for text in PERSONAL if text in written] == []


def test_ids_of_people_cannot_be_found_by_trying_names(ledger: TestLedger, tmp_path: Path) -> None:
    """The ids of imported people were a plain SHA-256 of mapping and name: whoever reads the log
    could try the names of a telephone book, even for people who were erased.
    """
    with planned_text(PRIVATE, PRIVATE_FILES, tmp_path) as made:
        file(ledger, made)
    written = everything_written(ledger)
    for name in ("name:张小伟", "张小伟", "name:王富贵杂货铺"):
        for prefix in (ids.PERSON, ids.CUSTOMER):
            assert ids.derived_id(prefix, "private", name) not in written
    assert RowNames("private", ledger.vault.request_digest).person("name:张小伟") in written


def test_ids_follow_from_the_row_the_mapping_and_the_ledger(ledger: TestLedger) -> None:
    names = RowNames("one", ledger.vault.request_digest)
    again = RowNames("one", ledger.vault.request_digest)
    other = RowNames("two", ledger.vault.request_digest)
    for kind in ("request_id", "act_seed", "person", "customer", "territory"):
        one = getattr(names, kind)("deal/7")
        assert one == getattr(again, kind)("deal/7")
        assert one not in (getattr(other, kind)("deal/7"), getattr(names, kind)("deal/8"))
    assert names.request_id("deal/7").startswith("deal/")


# --- rows that the door refuses ----------------------------------------------------------------

STRICT = """
name = "strict"
[constants]
time_zone = "Asia/Shanghai"
currency = "CNY"
[unknown]
people = "reject"
[[files]]
file = "people.csv"
key = "name"
[files.person]
name = "name"
email = "email"
[[files]]
file = "customers.csv"
key = "name"
[files.customer]
name = "name"
parent = "group"
identifiers = { tax = "tax", duns = "duns" }
attributes = { remark = "remark", tags = { column = "tags", type = "set" } }
[[files.customer.contacts]]
name = "contact"
phone = "phone"
[[files]]
file = "visits.csv"
key = "id"
[files.follow_up]
agent = "agent"
customer = "customer"
at = "at"
agreed = "agreed"
[files.deal]
agent = "agent"
customer = "customer"
at = "at"
outcome = "won"
product = "product"
"""
PEOPLE = "name,email\n张伟,\n"
CUSTOMERS = "name,group,tax,duns,remark,tags,contact,phone\n"
GOOD_CUSTOMER = "恒信,,,,,,,\n"
VISITS = "id,agent,customer,at,agreed,product\n"
LONG = "长" * 101
LONGER = "长" * 301
LONGEST = "长" * 4_001


@pytest.mark.parametrize(
    ("people", "customer", "visit", "column"),
    [
        (f"李娜,{'x' * 101}@example.org\n", "", "", "email"),
        ("", f"锐思,,{LONG},,,,,\n", "", "tax"),
        ("", f"锐思,,1,{LONG},,,,\n", "", "duns"),
        ("", f"锐思,,,,{LONGER},,,\n", "", "remark"),
        ("", f"锐思,,,,,a;{LONG},,\n", "", "tags"),
        ("", f"锐思,,,,,,{LONGER},\n", "", "contact"),
        ("", f"锐思,,,,,,,{LONG}\n", "", "phone"),
        ("", "", f"v2,张伟,恒信,2024-02-01,{LONGEST},\n", "agreed"),
        ("", "", f"v2,张伟,恒信,2024-02-01,,{LONGER}\n", "product"),
    ],
)
def test_a_row_that_only_the_door_refuses_is_listed_and_the_others_are_filed(
    ledger: TestLedger, tmp_path: Path, people: str, customer: str, visit: str, column: str
) -> None:
    """The list named no column for what the door refused."""
    files = {
        "people.csv": PEOPLE + people,
        "customers.csv": CUSTOMERS + GOOD_CUSTOMER + customer,
        "visits.csv": VISITS + "v1,张伟,恒信,2024-02-01,,\n" + visit,
    }
    with planned_text(STRICT, files, tmp_path) as made:
        file(ledger, made)
        listed = rejected(made)
    which = "people.csv" if people else "customers.csv" if customer else "visits.csv"
    assert listed == [[which, "3", column, "invalid_request"]]
    heard = [event.data for event in ledger.log()]
    assert sum(isinstance(data, requests.FollowUpLogged) for data in heard) == (
        2 if visit else 1
    ) - (column == "agreed")
    assert any(isinstance(data, requests.DealRecorded) for data in heard)


def test_what_refers_to_a_refused_row_is_listed_with_it(ledger: TestLedger, tmp_path: Path) -> None:
    files = {
        "people.csv": PEOPLE + f"李娜,{'x' * 101}@example.org\n",
        "customers.csv": CUSTOMERS + f"锐思,,,,{LONGER},,,\n锐思科技,锐思,,,,,,\n" + GOOD_CUSTOMER,
        "visits.csv": VISITS
        + "v1,张伟,锐思,2024-02-01,,\nv2,李娜,恒信,2024-02-01,,\nv3,张伟,恒信,2024-02-01,,\n",
    }
    with planned_text(STRICT, files, tmp_path) as made:
        filed, _ = file(ledger, made)
        listed = rejected(made)
        text = made.rejects_path.read_text(encoding="utf-8-sig")
    # Both the follow-up and the deal of a visit were refused.
    assert listed == [
        ["people.csv", "3", "email", "invalid_request"],
        ["customers.csv", "2", "remark", "invalid_request"],
        ["customers.csv", "3", "group", "unknown_id"],
        ["visits.csv", "2", "customer", "unknown_id"],
        ["visits.csv", "3", "agent", "unknown_id"],
    ]
    assert filed.refused == {"invalid_request": 2, "unknown_id": 3}
    assert "The row that names this customer first could not be used." in text
    assert filed.recorded["log_follow_up"] == filed.recorded["record_deal"] == 1


LIST = """
name = "list"
[constants]
time_zone = "Asia/Shanghai"
cut_over = 2024-01-01
[unknown]
people = "create"
[[files]]
file = "list.csv"
key = "name"
[files.customer]
name = "name"
attributes = { remark = "remark" }
[files.owner]
customer = "name"
owner = "owner"
"""


def test_a_row_stands_among_the_rejects_once_with_the_first_reason(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """A refused registration also refused the claim of its row, which then stood there twice."""
    files = {"list.csv": f"name,remark,owner\n恒信,,张伟\n锐思,{LONGER},张伟\n"}
    with planned_text(LIST, files, tmp_path) as made:
        filed, _ = file(ledger, made)
        assert rejected(made) == [["list.csv", "3", "remark", "invalid_request"]]
    assert filed.refused == {"invalid_request": 1}


def test_importing_again_changes_nothing_where_the_door_refuses_rows(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """Each time an empty import was opened and closed for the rows that were refused again."""
    files = {"list.csv": f"name,remark,owner\n恒信,,张伟\n锐思,{LONGER},张伟\n"}
    with planned_text(LIST, files, tmp_path) as made:
        file(ledger, made)
    before = head(ledger.connection)
    with planned_text(LIST, files, tmp_path) as made:
        filed, brought = file(ledger, made)
        assert rejected(made) == [["list.csv", "3", "remark", "invalid_request"]]
    assert head(ledger.connection) == before
    assert len(filed.import_ids) == 1
    assert brought.total.granted == 1


def test_nothing_is_opened_for_an_entry_that_would_be_too_large(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """The size was seen by the committer only, when the import was open."""
    contacts = "".join(
        f"恒信,{number},{number:03}{'名' * 297},{'邮' * 100}\n" for number in range(45)
    )
    mapping = (
        LIST.split("[[files]]", maxsplit=1)[0]
        + """
[[files]]
file = "contacts.csv"
key = "id"
[files.customer]
name = "name"
[[files.customer.contacts]]
name = "contact"
email = "email"
"""
    )
    with planned_text(
        mapping, {"contacts.csv": f"name,id,contact,email\n{contacts}"}, tmp_path
    ) as made:
        before = head(ledger.connection)
        filed, _ = file(ledger, made)
    assert filed.refused == {"entry_too_large": 1}
    assert head(ledger.connection) == before


def test_a_territory_that_the_door_refuses_does_not_end_the_import(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """More managers than a territory may have were an error of pydantic, and ended the import."""
    mapping = """
name = "areas"
[constants]
time_zone = "Asia/Shanghai"
[[files]]
file = "areas.csv"
key = "area"
[files.territory]
name = "area"
managers = "managers"
"""
    crowd = ";".join(f"经理{number}" for number in range(102))
    files = {"areas.csv": f"area,managers\n华东,{crowd}\n华北,李娜\n"}
    with planned_text(mapping, files, tmp_path) as made:
        filed, _ = file(ledger, made)
        listed = rejected(made)
    assert listed == [["areas.csv", "2", "managers", "invalid_request"]]
    assert filed.recorded["define_territory"] == 2
    managed = {
        each.name: len(each.managers) for each in ledger.recording.organisation().territories()
    }
    assert managed["华北"] == 1
    assert managed["华东"] == 0


CODES = """
name = "codes"
[constants]
time_zone = "Asia/Shanghai"
[unknown]
people = "create"
[[files]]
file = "customers.csv"
key = "name"
[files.customer]
name = "name"
identifiers = { uscc = "code" }
[[files]]
file = "claims.csv"
key = "id"
[files.claim]
agent = "agent"
customer = "customer"
at = "at"
"""
CODE_FILES = {
    "customers.csv": "name,code\n恒信,91350100M000100Y4Z\n",
    "claims.csv": "id,agent,customer,at\n1,张伟,恒信,2024-02-01\n",
}


def test_claims_at_a_customer_whose_code_looks_wrong_are_filed(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """The registration was recorded only after the claims of its batch, which were refused."""
    with planned_text(CODES, CODE_FILES, tmp_path) as made:
        filed, brought = file(ledger, made)
        assert rejected(made) == []
    assert filed.check_digit_warnings == 1
    assert brought.total.granted == 1


def test_a_code_that_looks_wrong_is_no_change_when_it_is_imported_again(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """What was recorded with the override looked like another request at the second import."""
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with planned_text(CODES, CODE_FILES, folder) as made:
            filed, _ = file(ledger, made)
            assert rejected(made) == []
    assert sum(filed.recorded.values()) == 0
    assert filed.known["register_customer"] == 1


# --- a ledger that is busy or fails ------------------------------------------------------------


class Failing:
    """Appends like the committer, but for some calls, which it answers with an error."""

    def __init__(self, ledger: TestLedger, error: LedgerError, calls: set[int]) -> None:
        self._ledger = ledger
        self._error = error
        self._calls = calls
        self.made = 0

    def append_many(self, appends: Sequence[Append]) -> list[Appended | LedgerError]:
        self.made += 1
        if self.made in self._calls:
            return [self._error for _ in appends]
        return self._ledger.committer.append_many(appends)


def failing(ledger: TestLedger, error: LedgerError, calls: set[int]) -> TestLedger:
    """Return the ledger with an appender that fails at those calls."""

    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    appender = Failing(ledger, error, calls)
    recording = Recording(appender, connect, Vault(connect, MASTER_KEY), ledger.catalogue)
    return replace(ledger, recording=recording)


def file_with(ledger: TestLedger, made: Plan, waits: list[float]) -> Filed:
    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    filing = Filing(ledger.recording, connect, made, IMPORTER, ledger.vault, wait=waits.append)
    return filing.run()


def test_a_busy_ledger_is_waited_for(ledger: TestLedger, tmp_path: Path) -> None:
    """A full queue was asked again at once, ever deeper, until the stack was full."""
    waits: list[float] = []
    with planned_text(CODES, CODE_FILES, tmp_path) as made:
        # The first is the person, then the opening; then the registration.
        filed = file_with(failing(ledger, BusyError(0.5), {1, 4, 5}), made, waits)
    assert waits == [0.5, 0.5, 0.5]
    assert filed.recorded["register_customer"] == filed.recorded["file_claim"] == 1


def test_a_ledger_that_stays_busy_ends_the_import_with_its_own_error(
    ledger: TestLedger, tmp_path: Path
) -> None:
    waits: list[float] = []
    busy = failing(ledger, BusyError(0.5), set(range(3, 1_000)))
    with planned_text(CODES, CODE_FILES, tmp_path) as made, pytest.raises(BusyError):
        file_with(busy, made, waits)
    assert len(waits) == BUSY_TRIES_MAX


def test_what_is_no_fault_of_a_row_ends_the_import(ledger: TestLedger, tmp_path: Path) -> None:
    full = failing(ledger, StoreFullError("No room.", way_out="Make some."), {3})
    with planned_text(CODES, CODE_FILES, tmp_path) as made:
        with pytest.raises(StoreFullError):
            file_with(full, made, [])
        assert rejected(made) == []


def test_with_four_eyes_an_import_is_opened_by_another_and_names_no_head_alone(
    ledger: TestLedger, tmp_path: Path
) -> None:
    added: list[facts.FactCommand] = [
        facts.AddPerson(person="per_boss", name="李总", roles=("admin",)),
        facts.RequireFourEyes(required=True),
    ]
    ledger.recording.record_facts(added, ledger.origin())
    write_crm_files(tmp_path, SHAPE, seed=1)
    with (
        planned("crm-sales-opportunities", tmp_path, tmp_path / "one") as made,
        pytest.raises(ProposedError) as raised,
    ):
        file(ledger, made)
    adopting = facts.AdoptProposal(proposal=raised.value.proposal)
    ledger.recording.record_fact(adopting, ledger.origin("per_boss"))
    with planned("crm-sales-opportunities", tmp_path, tmp_path / "two") as made:
        filed, brought = file(ledger, made)
        rejects = made.rejects_path.read_text(encoding="utf-8-sig")
    assert len(filed.import_ids) == 1
    assert brought.total.claims > 0
    # Managers, and territories that name them, are listed: somebody proposes these by themselves.
    assert filed.refused == {"four_eyes": 6}
    assert rejects.count(",four_eyes,") == 6
    organisation = ledger.recording.organisation()
    assert not any(each.managers for each in organisation.territories())
    assert not any("manager" in each.roles for each in organisation.people())
