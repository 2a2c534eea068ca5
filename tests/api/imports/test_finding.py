"""Imports into a ledger that holds something: whom the files mean that is there already."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from api.imports import resolving
from api.imports.filing import Filed, Filing, Importer
from api.imports.finding import LedgerDirectory
from api.imports.mapping import parse_mapping
from api.imports.planning import Plan, plan
from api.imports.report import Report, report
from ledger import commands
from ledger import organisation_commands as facts
from ledger.events import decisions, requests
from ledger.store import arrays
from ledger.store.reading import head
from ledger.verification import verify_log
from projections.registry import all_projections
from projections.runner import Runner
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger

NOW = datetime(2026, 3, 1, tzinfo=UTC)
IMPORTER = Importer(ADMINISTRATOR, "cli:test", "asserted")
CODE = "91350100M000100Y43"
OTHER_CODE = "91310000MA1FL0L06N"


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    with open_test_ledger(database) as opened:
        opened.found([])
        yield opened


def project(ledger: TestLedger) -> None:
    """Decide all that was recorded, and bring the read models up to date."""
    ledger.decide()
    with psycopg.connect(ledger.urls.service_url, autocommit=True) as connection:
        arrays.register(connection)
        runner = Runner(connection, all_projections(ledger.vault), ledger.catalogue)
        runner.start()
        runner.catch_up()


@contextmanager
def planned(
    ledger: TestLedger, mapping: str, files: dict[str, str], folder: Path
) -> Iterator[Plan]:
    """Plan an import into the ledger as it is now."""
    project(ledger)
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    read = parse_mapping(mapping)
    directory = LedgerDirectory(
        ledger.recording.organisation(),
        connecting(ledger),
        read,
        ledger.catalogue,
        ledger.vault,
        NOW,
    )
    with plan(read, folder, folder / "work", now=NOW, directory=directory) as made:
        yield made


def connecting(ledger: TestLedger) -> Any:
    @contextmanager
    def connect() -> Iterator[Connection[Any]]:
        yield ledger.connection

    return connect


def file(ledger: TestLedger, made: Plan) -> tuple[Filed, Report]:
    filing = Filing(ledger.recording, connecting(ledger), made, IMPORTER, ledger.vault)
    filed = filing.run()
    ledger.decide()
    filing.close()
    organisation = ledger.recording.organisation()
    return filed, report(ledger.connection, ledger.catalogue, organisation, filed.import_ids)


def rejects(made: Plan) -> list[list[str]]:
    """Return (row, column, reason, value) of the list of rejects."""
    with made.rejects_path.open(encoding="utf-8-sig", newline="") as listed:
        return [line[1:] for line in list(csv.reader(listed))[1:]]


def heard(ledger: TestLedger, kind: type[Any]) -> list[Any]:
    """Return the data of all events of a kind."""
    return [event.data for event in ledger.log() if isinstance(event.data, kind)]


def add_person(ledger: TestLedger, name: str, **fields: Any) -> str:
    adding = facts.AddPerson(name=name, territory="ter_1", **fields)
    return ledger.recording.record_fact(adding, ledger.origin()).about or ""


HEAD = """
name = "{name}"
[constants]
time_zone = "Asia/Shanghai"
currency = "CNY"
cut_over = 2024-01-01
[unknown]
people = "{unknown}"
customers = "{unknown}"
"""
LIST = """
[[files]]
file = "list.csv"
key = "name"
[files.customer]
name = "name"
identifiers = { uscc = "code" }
territory = "area"
[files.owner]
customer = "name"
owner = "owner"
"""
CLAIMS = """
[[files]]
file = "claims.csv"
key = "no"
[files.claim]
agent = "agent"
customer = "customer"
at = "at"
"""


def claims_of(name: str, unknown: str = "reject") -> str:
    return HEAD.format(name=name, unknown=unknown) + CLAIMS


def list_of(name: str, unknown: str = "create") -> str:
    return HEAD.format(name=name, unknown=unknown) + LIST


FIRST = {"list.csv": f"name,code,area,owner\n恒信,{CODE},华东区,张伟\n锐思,,华东区,\n"}


def test_a_second_mapping_means_the_people_customers_and_territories_of_the_first(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """Planning saw the files only: each mapping made a person of its own of the same name, and a
    row that referred to somebody of another import was rejected as unknown.
    """
    with planned(ledger, list_of("first"), FIRST, tmp_path / "one") as made:
        assert made.found == {}
        file(ledger, made)
    second = {
        "list.csv": "name,code,area,owner\n恒信,,华东区,张伟\n飞跃,,华东区,李娜\n",
        "claims.csv": "no,agent,customer,at\n1,张伟,锐思,2024-02-01\n",
    }
    mapping = list_of("second") + CLAIMS
    with planned(ledger, mapping, second, tmp_path / "two") as made:
        assert rejects(made) == []
        assert made.found == {"add_person": 1, "register_customer": 2, "define_territory": 1}
        assert made.counts["add_person"] == made.counts["register_customer"] == 1
        assert made.counts["define_territory"] == 0
        filed, brought = file(ledger, made)
        assert rejects(made) == []
    assert filed.recorded["file_claim"] == 1
    assert brought.total.granted == 2
    assert brought.total.refused == {"already_yours": 1}
    organisation = ledger.recording.organisation()
    assert [each.name for each in organisation.territories()].count("华东区") == 1
    assert len(heard(ledger, requests.RegistrationRequested)) == 3
    # The administrator, 张伟 and 李娜.
    assert len(list(organisation.people())) == 3
    assert verify_log(ledger.connection, ledger.catalogue).good


def test_importing_again_into_a_ledger_that_others_filled_changes_nothing(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """Both mappings name the same customer and person; each keeps to whom it meant at first."""
    with planned(ledger, list_of("first"), FIRST, tmp_path / "one") as made:
        file(ledger, made)
    second = {"list.csv": f"name,code,area,owner\n恒信,{CODE},华东区,张伟\n飞跃,,西北区,李娜\n"}
    with planned(ledger, list_of("second"), second, tmp_path / "two") as made:
        file(ledger, made)
    project(ledger)
    before = head(ledger.connection)
    for name, files in (("first", FIRST), ("second", second)):
        with planned(ledger, list_of(name), files, tmp_path / "again") as made:
            filed, _ = file(ledger, made)
            assert rejects(made) == []
        assert sum(filed.recorded.values()) == 0
        # What the first had made is its own; of the second's, half is.
        assert filed.known["register_customer"] == (2 if name == "first" else 1)
        assert made.found.get("register_customer", 0) == (0 if name == "first" else 1)
    assert head(ledger.connection) == before


def test_its_own_ids_win_over_namesakes_that_came_later(ledger: TestLedger, tmp_path: Path) -> None:
    with planned(ledger, list_of("first"), FIRST, tmp_path / "one") as made:
        file(ledger, made)
    ledger.register("恒信")
    ledger.register("锐思")
    add_person(ledger, "张伟")
    project(ledger)
    before = head(ledger.connection)
    with planned(ledger, list_of("first"), FIRST, tmp_path / "two") as made:
        filed, _ = file(ledger, made)
        assert rejects(made) == []
        assert made.found == {}
    assert head(ledger.connection) == before
    assert filed.known["file_claim"] + filed.known["open_with_owner"] == 1


def test_who_was_meant_before_is_meant_again(ledger: TestLedger, tmp_path: Path) -> None:
    """Whom the first import found had left, got a namesake or another name before the second, which
    then made somebody else of the old name, or rejected the rows.
    """
    leaver, renamed = add_person(ledger, "张伟"), add_person(ledger, "李娜")
    one, two = ledger.register("恒信"), ledger.register("锐思")
    rows = "1,张伟,恒信,2024-02-01\n2,李娜,锐思,2024-02-01\n"
    files = {"claims.csv": "no,agent,customer,at\n" + rows}
    mapping = claims_of("second", "create")
    with planned(ledger, mapping, files, tmp_path / "one") as made:
        assert made.found == {"add_person": 2, "register_customer": 2}
        file(ledger, made)
    for fact in (
        facts.MarkLeft(person=leaver, left_on=date(2026, 1, 1)),
        facts.ChangePerson(person=renamed, territory="ter_1", roles=("rep",), name="李娜娜"),
    ):
        ledger.recording.record_fact(fact, ledger.origin())
    ledger.register("恒信")
    ledger.ask(commands.ChangeCustomer(customer=two, name="锐思科技"))
    project(ledger)
    before = head(ledger.connection)
    with planned(ledger, mapping, files, tmp_path / "two") as made:
        assert made.found == {"add_person": 2, "register_customer": 2}
        filed, _ = file(ledger, made)
        assert rejects(made) == []
    assert head(ledger.connection) == before
    assert filed.known["file_claim"] == 2
    more = files | {"claims.csv": files["claims.csv"] + "3,李娜,恒信,2024-02-02\n"}
    with planned(ledger, mapping, more, tmp_path / "three") as made:
        file(ledger, made)
    asked = [(each.claimant, each.customer) for each in heard(ledger, requests.ClaimFiled)]
    assert asked == [(leaver, one), (renamed, two), (renamed, one)]


def test_a_row_that_names_somebody_else_by_now_does_not_mean_whom_it_meant(
    ledger: TestLedger, tmp_path: Path
) -> None:
    add_person(ledger, "张伟")
    other = add_person(ledger, "李娜")
    one = ledger.register("恒信")
    head_line = "no,agent,customer,at\n"
    mapping = claims_of("second", "create")
    files = {"claims.csv": head_line + "1,张伟,恒信,2024-02-01\n"}
    with planned(ledger, mapping, files, tmp_path / "one") as made:
        file(ledger, made)
    files = {"claims.csv": head_line + "1,李娜,恒信,2024-02-01\n2,李娜,恒信,2024-02-02\n"}
    with planned(ledger, mapping, files, tmp_path / "two") as made:
        filed, _ = file(ledger, made)
    assert filed.refused == {"row_changed": 1}
    last = heard(ledger, requests.ClaimFiled)[-1]
    assert (last.claimant, last.customer) == (other, one)


def test_rows_that_may_mean_several_of_the_ledger_are_rejected_with_a_way_out(
    ledger: TestLedger, tmp_path: Path
) -> None:
    add_person(ledger, "张伟")
    add_person(ledger, "张伟")
    add_person(ledger, "李娜")
    for _ in range(2):
        ledger.register("恒信")
    ledger.register("锐思")
    files = {
        "claims.csv": "no,agent,customer,at\n"
        "1,张伟,锐思,2024-02-01\n2,李娜,恒信,2024-02-01\n3,李娜,锐思,2024-02-01\n",
        "list.csv": "name,code,area,owner\n恒信,,,李娜\n",
    }
    mapping = list_of("second", "create") + CLAIMS
    with planned(ledger, mapping, files, tmp_path / "one") as made:
        listed = rejects(made)
        assert made.found == {"add_person": 1, "register_customer": 1}
        assert made.counts["file_claim"] == 1
    assert [line[:3] for line in listed] == [
        ["2", "agent", "person_ambiguous"],
        ["3", "customer", "customer_ambiguous"],
        ["2", "name", "customer_ambiguous"],
    ]
    assert listed[0][3].startswith("张伟 (in the ledger it may mean more than one; name the person")


BY_ID = """
name = "second"
system = "crm"
[constants]
time_zone = "Asia/Shanghai"
[[files]]
file = "people.csv"
key = "id"
[files.person]
name = "name"
id = "id"
[[files]]
file = "customers.csv"
key = "id"
[files.customer]
name = "name"
id = "id"
kind = { column = "kind", organisation = "公司", individual = "个体" }
identifiers = { uscc = "code" }
[[files]]
file = "claims.csv"
key = "no"
[files.claim]
agent = { column = "agent", by = "id" }
customer = { column = "customer", by = "id" }
at = "at"
"""
NOBODY = {
    "people.csv": "id,name\n",
    "customers.csv": "id,name,kind,code\n",
    "claims.csv": "no,agent,customer,at\n",
}


def test_ids_of_the_same_system_and_those_of_the_ledger_tell_namesakes_apart(
    ledger: TestLedger, tmp_path: Path
) -> None:
    crm = {"foreign_ids": ({"system": "crm", "value": "E-7"},)}
    other = {"foreign_ids": ({"system": "erp", "value": "E-8"},)}
    seven, eight = add_person(ledger, "张伟", **crm), add_person(ledger, "张伟", **other)
    c1 = ledger.register("恒信", foreign_ids=({"system": "crm", "value": "K-1"},))
    c2 = ledger.register("恒信", foreign_ids=({"system": "erp", "value": "K-1"},))
    claims = f"1,E-7,K-1,2024-02-01\n2,{eight},{c2},2024-02-01\n3,E-8,K-1,2024-02-01\n"
    files = NOBODY | {"claims.csv": NOBODY["claims.csv"] + claims}
    with planned(ledger, BY_ID, files, tmp_path / "one") as made:
        assert [line[:3] for line in rejects(made)] == [["4", "agent", "person_unknown"]]
        assert made.found == {"add_person": 2, "register_customer": 2}
        file(ledger, made)
    asked = [(each.claimant, each.customer) for each in heard(ledger, requests.ClaimFiled)]
    assert asked == [(seven, c1), (eight, c2)]


def test_a_namesake_with_another_number_is_somebody_else(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """Two firms of one name with two credit codes are two firms, and so it is with people."""
    add_person(ledger, "张伟", foreign_ids=({"system": "crm", "value": "E-7"},))
    ledger.register("恒信", identifiers=({"system": "uscc", "value": CODE},))
    ledger.register("小店", kind="individual")
    files = NOBODY | {
        "people.csv": "id,name\nE-9,张伟\n",
        "customers.csv": f"id,name,kind,code\nK-1,恒信,公司,{OTHER_CODE}\nK-2,小店,公司,\n",
    }
    with planned(ledger, BY_ID, files, tmp_path / "one") as made:
        assert made.found == {}
        filed, _ = file(ledger, made)
        assert rejects(made) == []
    assert filed.recorded["add_person"] == 1
    assert filed.recorded["register_customer"] == 2


def test_a_credit_code_finds_a_customer_whatever_its_name(
    ledger: TestLedger, tmp_path: Path
) -> None:
    found = ledger.register("恒信电子", identifiers=({"system": "uscc", "value": CODE},))
    ledger.register("恒信")
    ledger.register("小店", kind="individual", identifiers=({"system": "id_card", "value": "110"},))
    files = NOBODY | {
        "people.csv": "id,name\nE-9,张伟\n",
        "customers.csv": f"id,name,kind,code\nK-1,恒信,公司,{CODE.lower()}\n",
        "claims.csv": NOBODY["claims.csv"] + "1,E-9,K-1,2024-02-01\n",
    }
    with planned(ledger, BY_ID, files, tmp_path / "one") as made:
        assert made.found == {"register_customer": 1}
        file(ledger, made)
        assert rejects(made) == []
    assert [each.customer for each in heard(ledger, requests.ClaimFiled)] == [found]


def test_two_ids_of_the_files_are_not_one_namesake_of_the_ledger(
    ledger: TestLedger, tmp_path: Path
) -> None:
    add_person(ledger, "张伟")
    files = NOBODY | {"people.csv": "id,name\nE-7,张伟\nE-8,张伟\nE-9,李娜\n"}
    with planned(ledger, BY_ID, files, tmp_path / "one") as made:
        listed = rejects(made)
        assert made.counts["add_person"] == 1
    assert [line[:3] for line in listed] == [
        ["2", "name", "person_ambiguous"],
        ["3", "name", "person_ambiguous"],
    ]


def test_numbers_that_mean_two_customers_reject_the_row(ledger: TestLedger, tmp_path: Path) -> None:
    ledger.register("恒信", identifiers=({"system": "uscc", "value": CODE},))
    ledger.register("锐思", foreign_ids=({"system": "crm", "value": "K-1"},))
    files = NOBODY | {"customers.csv": f"id,name,kind,code\nK-1,恒信,公司,{CODE}\n"}
    with planned(ledger, BY_ID, files, tmp_path / "one") as made:
        (listed,) = rejects(made)
    assert listed[:3] == ["2", "code", "customer_ambiguous"]
    assert listed[3].startswith(f"{CODE} (in the ledger it may mean more than one; name the cust")


def test_who_left_is_not_meant_by_a_name(ledger: TestLedger, tmp_path: Path) -> None:
    left = add_person(ledger, "张伟")
    stays = add_person(ledger, "张伟")
    leaving = facts.MarkLeft(person=left, left_on=date(2026, 1, 1))
    ledger.recording.record_fact(leaving, ledger.origin())
    ledger.register("锐思")
    files = {"claims.csv": "no,agent,customer,at\n1,张伟,锐思,2024-02-01\n"}
    with planned(ledger, claims_of("second"), files, tmp_path / "one") as made:
        file(ledger, made)
        assert rejects(made) == []
    assert [each.claimant for each in heard(ledger, requests.ClaimFiled)] == [stays]


def test_a_refused_registration_is_not_meant_by_its_name(
    ledger: TestLedger, tmp_path: Path
) -> None:
    number = ({"system": "uscc", "value": CODE},)
    found = ledger.register("恒信", identifiers=number)
    ledger.register("恒信", identifiers=number)
    add_person(ledger, "张伟")
    files = {"claims.csv": "no,agent,customer,at\n1,张伟,恒信,2024-02-01\n"}
    with planned(ledger, claims_of("second"), files, tmp_path / "one") as made:
        file(ledger, made)
        assert rejects(made) == []
    assert [each.customer for each in heard(ledger, requests.ClaimFiled)] == [found]


VISITS = """
[[files]]
file = "groups.csv"
key = "name"
[files.customer]
name = "name"
parent = "group"
[[files]]
file = "visits.csv"
key = "no"
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
"""


def test_acts_at_an_individual_of_the_ledger_and_below_it_stay_sealed(
    ledger: TestLedger, tmp_path: Path
) -> None:
    """What is sealed depends on what the customer is, which the files need not say."""
    shop = ledger.register("王富贵杂货铺", kind="individual")
    add_person(ledger, "赵铁柱")
    files = {
        "groups.csv": "name,group\n钱多多商贸有限公司,王富贵杂货铺\n",
        "visits.csv": "no,agent,customer,at,agreed\n1,赵铁柱,王富贵杂货铺,2024-02-01,喝茶\n",
    }
    mapping = HEAD.format(name="second", unknown="reject") + VISITS
    with planned(ledger, mapping, files, tmp_path / "one") as made:
        filed, _ = file(ledger, made)
        assert rejects(made) == []
    assert filed.recorded["log_follow_up"] == filed.recorded["record_deal"] == 1
    admitted = heard(ledger, decisions.CustomerAdmitted)
    assert [each.parent for each in admitted] == [None, shop]
    written = "\n".join(
        text
        for row in ledger.connection.execute(
            "SELECT stream, name, convert_from(body, 'UTF8') FROM ledger.events"
        )
        for text in row
    )
    assert [text for text in ("王富贵", "赵铁柱", "喝茶") if text in written] == []


def test_a_person_of_the_ledger_may_manage_what_an_import_makes(
    ledger: TestLedger, tmp_path: Path
) -> None:
    manager = add_person(ledger, "陈建国")
    mapping = """
name = "areas"
[constants]
time_zone = "Asia/Shanghai"
[[files]]
file = "areas.csv"
key = "area"
[files.territory]
name = "area"
parent = "parent"
head = "head"
"""
    files = {"areas.csv": "area,parent,head\n苏南,华东,陈建国\n"}
    with planned(ledger, mapping, files, tmp_path / "one") as made:
        assert made.found == {"add_person": 1, "define_territory": 1}
        filed, _ = file(ledger, made)
        assert rejects(made) == []
    assert filed.recorded["add_person"] == 0
    made_by_file = {each.name: each for each in ledger.recording.organisation().territories()}
    assert made_by_file["苏南"].parent == "ter_1"
    assert made_by_file["苏南"].head == manager


def test_the_ledger_is_asked_a_page_at_a_time(
    ledger: TestLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        ledger.register(f"客户{number}")
    add_person(ledger, "张伟")
    rows = "".join(f"客户{number},,,张伟\n" for number in range(40))
    files = {"list.csv": "name,code,area,owner\n" + rows}
    asked: list[int] = []
    find = LedgerDirectory.find

    def counting(self: LedgerDirectory, role: Any, wanted: Any) -> Any:
        asked.append(len(wanted))
        return find(self, role, wanted)

    monkeypatch.setattr(LedgerDirectory, "find", counting)
    monkeypatch.setattr(resolving, "PAGE_ROWS", 7)
    with planned(ledger, list_of("second"), files, tmp_path / "one") as made:
        assert made.found == {"register_customer": 30, "add_person": 1}
        assert made.counts["register_customer"] == 10
    assert max(asked) == 7
