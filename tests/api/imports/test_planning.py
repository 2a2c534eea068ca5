"""Plans: which actions come out of which rows, in which order, and which rows are rejected."""

from __future__ import annotations

import csv
import stat
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.imports import encodings, staging
from api.imports.actions import (
    Action,
    AddPerson,
    Contact,
    DateAttribute,
    DecimalAttribute,
    DefineTerritory,
    FileClaim,
    FileRelease,
    IntegerAttribute,
    LogFollowUp,
    MoneyAmount,
    MoneyAttribute,
    OpenWithOwner,
    RecordDeal,
    RegisterCustomer,
    SetAttribute,
    TextAttribute,
)
from api.imports.errors import (
    ColumnMissingError,
    FileUnreadableError,
    WorkspaceUnusableError,
)
from api.imports.mapping import load_mapping, parse_mapping
from api.imports.planning import Plan, Progress, plan
from tests.api.imports.crm_files import CrmShape, Opportunity, opportunities, write_crm_files

EXAMPLES = Path(__file__).parents[3] / "examples"
NOW = datetime(2025, 1, 1, tzinfo=UTC)

HEAD = """
name = "test"
claim_ends = "last_open_opportunity"
[constants]
time_zone = "UTC"
currency = "CNY"
cut_over = 2024-01-01
[unknown]
people = "create"
customers = "create"
"""
OPPORTUNITIES = """
[[files]]
file = "opportunities.csv"
key = "id"
[files.opportunity]
agent = "agent"
customer = "customer"
engaged = "engaged"
closed = "closed"
value = "value"
stage = { column = "stage", won = "won", lost = "lost", open = "open" }
"""
OPPORTUNITIES_HEADER = "id,agent,customer,engaged,closed,stage,value\n"


def make(
    folder: Path, mapping: str, files: Mapping[str, str | bytes], *, now: datetime = NOW
) -> Plan:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return plan(parse_mapping(mapping), folder, folder / "work", now=now)


def actions(folder: Path, mapping: str, files: Mapping[str, str | bytes]) -> list[Action]:
    with make(folder, mapping, files) as made:
        return list(made.actions())


def rejects(made: Plan) -> list[tuple[str, int, str, str, str]]:
    with made.rejects_path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["file", "row", "column", "reason", "value"]
    return [
        (name, int(row), column, reason, value) for name, row, column, reason, value in lines[1:]
    ]


def rejected(folder: Path, mapping: str, files: Mapping[str, str | bytes]) -> list[tuple[str, ...]]:
    """Return (row, column, reason, value) of a plan's rejects."""
    with make(folder, mapping, files) as made:
        assert sum(made.rejects.values()) == len(rejects(made))
        return [(str(row), *rest) for _, row, *rest in rejects(made)]


def opportunities_plan(folder: Path, *rows: str) -> list[Action]:
    return actions(
        folder,
        HEAD + OPPORTUNITIES,
        {"opportunities.csv": OPPORTUNITIES_HEADER + "\n".join(rows)},
    )


def acts(found: Iterable[Action]) -> list[str]:
    """Return the keys of the acts, without facts."""
    facts = (DefineTerritory, AddPerson, RegisterCustomer)
    return [each.key for each in found if not isinstance(each, facts)]


# The known answers


class OwnershipModel:
    """Free, granted; claimed by the owner, already yours; by another, refused; given back, free."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def follow(self, found: Iterable[Action]) -> Counter[str]:
        for action in found:
            match action:
                case FileClaim(person=person, customer=customer):
                    self.claim(person, customer)
                case FileRelease(person=person, customer=customer):
                    self.release(person, customer)
                case RecordDeal(person=person, customer=customer):
                    self.deal(person, customer)
        return self.counts

    def claim(self, person: str, customer: str) -> None:
        owner = self.owners.get(customer)
        if owner is None:
            self.owners[customer] = person
        self.counts[{None: "granted", person: "already"}.get(owner, "refused")] += 1

    def release(self, person: str, customer: str) -> None:
        if self.owners.get(customer) == person:
            del self.owners[customer]
            self.counts["ended"] += 1

    def deal(self, person: str, customer: str) -> None:
        self.counts["deals"] += 1
        self.counts["deals by others"] += self.owners.get(customer) != person


def expected_counts(rows: Iterable[Opportunity], *, claims_end: bool) -> Counter[str]:
    """Decide the rows day by day in memory, apart from all that the importer does."""
    usable = [row for row in rows if row.account is not None and row.engaged is not None]
    days = sorted({day for row in usable for day in (row.engaged, row.closed) if day})
    model, still_open = OwnershipModel(), Counter[tuple[str, str]]()

    def close(row: Opportunity) -> None:
        model.deal(row.agent, str(row.account))
        still_open[row.agent, str(row.account)] -= 1
        if claims_end and not still_open[row.agent, str(row.account)]:
            model.release(row.agent, str(row.account))

    for day in days:
        for row in usable:
            if row.closed == day and row.engaged != day:
                close(row)
        for row in usable:
            if row.engaged == day:
                model.claim(row.agent, str(row.account))
                still_open[row.agent, str(row.account)] += 1
        for row in usable:
            if row.closed == day and row.engaged == day:
                close(row)
    return model.counts


# Few customers and agents, so that claims meet.
SHAPE = CrmShape(accounts=20, agents=10)


@pytest.mark.parametrize("claims_end", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_known_answers_on_made_up_rows(tmp_path: Path, seed: int, claims_end: bool) -> None:
    write_crm_files(tmp_path, SHAPE, seed=seed)
    text = (EXAMPLES / "crm-sales-opportunities" / "mapping.toml").read_text(encoding="utf-8")
    if not claims_end:
        text = text.replace('claim_ends = "last_open_opportunity"', 'claim_ends = "never"')
    with make(tmp_path, text, {}) as made:
        rows = list(opportunities(SHAPE, seed=seed))
        deals = sum(row.closed is not None and row.account is not None for row in rows)
        assert made.rejects == {"customer_missing": 142, "date_missing": 16}
        assert made.counts["file_claim"] == 880 - 142 - 16
        assert made.counts["record_deal"] == deals
        assert made.counts["define_territory"] == 3
        assert made.counts["add_person"] == 10 + 6
        assert made.counts["register_customer"] == 20
        found = OwnershipModel().follow(made.actions())
        assert found == expected_counts(rows, claims_end=claims_end)
        assert min(found.values()) > 0


def test_known_answers_of_one_seed_as_figures(tmp_path: Path) -> None:
    """So that the importer and the model above cannot go wrong together."""
    write_crm_files(tmp_path, SHAPE, seed=1)
    mapping = load_mapping(EXAMPLES / "crm-sales-opportunities" / "mapping.toml")
    with plan(mapping, tmp_path, tmp_path / "work", now=NOW) as made:
        assert dict(OwnershipModel().follow(made.actions())) == KNOWN_ANSWERS


KNOWN_ANSWERS = {
    "granted": 96,
    "already": 66,
    "refused": 560,
    "ended": 77,
    "deals": 598,
    "deals by others": 462,
}


# The order


def test_on_one_day_older_closes_then_claims_then_closes_of_that_day(tmp_path: Path) -> None:
    found = opportunities_plan(
        tmp_path,
        "A,Li,Hill,2024-05-01,2024-05-01,won,5",
        "B,Wu,Hill,2024-05-01,,open,",
        "C,Wang,Hill,2024-04-01,2024-05-01,lost,",
        "D,Wang,Hill,2024-04-02,2024-05-01,won,7",
    )
    assert acts(found) == [
        "opportunity/C/claim",
        "opportunity/D/claim",
        "opportunity/C/deal",
        "opportunity/D/deal",
        # Only the last open one of Wang's brings the release, before anybody's claim of the day.
        "opportunity/D/release",
        "opportunity/A/claim",
        "opportunity/B/claim",
        "opportunity/A/deal",
        "opportunity/A/release",
    ]
    release = next(each for each in found if isinstance(each, FileRelease))
    assert release.at == datetime(2024, 5, 1, tzinfo=UTC)
    assert release.cause == "last_open_opportunity_closed"
    assert (release.person, release.customer) == ("name:wang", "name:hill")


def test_times_of_day_order_before_the_phases_of_a_day(tmp_path: Path) -> None:
    found = opportunities_plan(
        tmp_path,
        "A,Li,Hill,2024-05-01 09:00,2024-05-01 12:00,won,5",
        "B,Wu,Hill,2024-05-01 11:00,,open,",
        "C,Wu,Hill,2024-04-01,2024-05-01 10:00,won,5",
    )
    assert acts(found) == [
        "opportunity/C/claim",
        "opportunity/A/claim",
        "opportunity/C/deal",
        "opportunity/C/release",
        "opportunity/B/claim",
        "opportunity/A/deal",
        "opportunity/A/release",
    ]


def test_close_without_time_on_the_day_of_an_engagement_with_time(tmp_path: Path) -> None:
    found = opportunities_plan(tmp_path, "A,Li,Hill,2024-05-01 09:00,2024-05-01,won,5")
    assert [(each.key, each.at) for each in found[-3:]] == [
        ("opportunity/A/claim", datetime(2024, 5, 1, 9, tzinfo=UTC)),
        ("opportunity/A/deal", datetime(2024, 5, 1, 9, tzinfo=UTC)),
        ("opportunity/A/release", datetime(2024, 5, 1, 9, tzinfo=UTC)),
    ]


def test_claims_that_never_end_are_not_released(tmp_path: Path) -> None:
    text = HEAD.replace("last_open_opportunity", "never") + OPPORTUNITIES
    rows = OPPORTUNITIES_HEADER + "A,Li,Hill,2024-05-01,2024-05-02,won,5\n"
    found = actions(tmp_path, text, {"opportunities.csv": rows})
    assert acts(found) == ["opportunity/A/claim", "opportunity/A/deal"]


def test_agents_named_in_two_ways_are_one_when_open_opportunities_are_counted(
    tmp_path: Path,
) -> None:
    people = '\n[[files]]\nfile = "people.csv"\n[files.person]\nname = "name"\nid = "no"\n'
    by_id = OPPORTUNITIES.replace("opportunities.csv", "more.csv").replace(
        'agent = "agent"', 'agent = { column = "agent", by = "id" }'
    )
    found = actions(
        tmp_path,
        HEAD + people + OPPORTUNITIES + by_id,
        {
            "people.csv": "no,name\n7,Li\n",
            "opportunities.csv": OPPORTUNITIES_HEADER + "A,LI,Hill,2024-05-01,2024-05-03,won,5\n",
            "more.csv": OPPORTUNITIES_HEADER + "B,7,hill,2024-05-02,2024-05-04,won,5\n",
        },
    )
    assert acts(found)[2:] == ["opportunity/A/deal", "opportunity/B/deal", "opportunity/B/release"]
    assert {each.person for each in found if isinstance(each, FileClaim)} == {"id:7"}


MIXED = {
    "people": (
        "people.csv",
        '[files.person]\nname = "name"\nterritory = "area"\nmanager = "boss"\n',
        "name,area,boss\nLi,North,Zhao\nWu,South,Qian\nWang,North,Sun\n",
    ),
    "customers": (
        "customers.csv",
        '[files.customer]\nname = "name"\nparent = "group"\n',
        "name,group\nHill,Mount\nMount,\nLake,Mount\nMount,\n",
    ),
    "list": (
        "list.csv",
        '[files.customer]\nname = "name"\n[files.owner]\ncustomer = "name"\nowner = "owner"\n',
        "name,owner\nRiver,Li\nHill,Wu\nPond,\n",
    ),
    "follow_ups": (
        "follow_ups.csv",
        '[files.follow_up]\nagent = "a"\ncustomer = "c"\nat = "t"\nmethod = "m"\n',
        "a,c,t,m\nLi,Hill,2024-03-01,call\nLi,Hill,2024-03-01,call\nWu,Lake,2024-02-01,visit\n",
    ),
    "claims": (
        "claims.csv",
        'key = "n"\n[files.claim]\nagent = "a"\ncustomer = "c"\nat = "t"\nreleased = "r"\n',
        "n,a,c,t,r\n1,Li,Lake,2024-01-05,2024-03-01\n2,Wu,Lake,2024-03-01,\n",
    ),
}


def mixed_mapping(order: Iterable[str]) -> str:
    tables = (f'[[files]]\nfile = "{MIXED[name][0]}"\n{MIXED[name][1]}' for name in order)
    return HEAD + "\n" + "\n".join(tables)


def mixed_files() -> dict[str, str]:
    return {file: rows for file, _, rows in MIXED.values()}


@given(order=st.permutations(sorted(MIXED)))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_order_of_the_files_means_nothing(tmp_path: Path, order: list[str]) -> None:
    found = actions(tmp_path, mixed_mapping(order), mixed_files())
    assert found == actions(tmp_path, mixed_mapping(sorted(MIXED)), mixed_files())


def test_facts_come_first_parents_before_children_then_acts_by_time(tmp_path: Path) -> None:
    found = actions(tmp_path, mixed_mapping(MIXED), mixed_files())
    facts = [each for each in found if each.at is None and not isinstance(each, OpenWithOwner)]
    assert found[: len(facts)] == facts
    assert [each.key for each in facts if isinstance(each, DefineTerritory)] == [
        "territory/created/name:north",
        "territory/created/name:south",
    ]
    customers = [each for each in facts if isinstance(each, RegisterCustomer)]
    assert [each.name for each in customers][-2:] == ["Hill", "Lake"]
    assert [each.parent for each in customers][-2:] == ["name:mount"] * 2
    # The opening balance holds at the cut-over, before what happened later.
    assert [type(each).__name__ for each in found[len(facts) :]] == [
        "OpenWithOwner",
        "OpenWithOwner",
        "FileClaim",
        "LogFollowUp",
        "FileRelease",
        "FileClaim",
        "LogFollowUp",
        "LogFollowUp",
    ]


def test_actions_go_on_where_they_stopped(tmp_path: Path) -> None:
    with make(tmp_path, mixed_mapping(MIXED), mixed_files()) as made:
        everything = list(made.actions())
        assert len(made) == len(everything) == sum(made.counts.values())
        assert len({each.key for each in everything}) == len(everything)
        for start in range(len(everything) + 2):
            assert list(made.actions(start)) == everything[start:]


def test_span_and_rows_are_known_before_filing(tmp_path: Path) -> None:
    with make(tmp_path, mixed_mapping(MIXED), mixed_files()) as made:
        assert made.earliest == datetime(2024, 1, 5, tzinfo=UTC)
        assert made.latest == datetime(2024, 3, 1, tzinfo=UTC)
        assert made.cut_over == datetime(2024, 1, 1, tzinfo=UTC)
        assert made.rows == 15
        assert [(each.file, each.rows, each.rejects) for each in made.files][-1] == (
            "people.csv",
            3,
            0,
        )


# Keys


def test_keys_do_not_depend_on_the_order_of_rows_and_equal_rows_stay_apart(
    tmp_path: Path,
) -> None:
    mapping = HEAD + "\n".join(
        ['[[files]]\nfile = "f.csv"', '[files.follow_up]\nagent="a"\ncustomer="c"\nat="t"\n']
    )
    rows = ["Li,Hill,2024-03-01,x", "Wu,Hill,2024-03-01,x", "Li,Hill,2024-03-01,x"]
    keys = []
    for order in (rows, rows[::-1], [*rows[1:], rows[0]]):
        found = actions(tmp_path, mapping, {"f.csv": "a,c,t,note\n" + "\n".join(order)})
        keys.append(sorted(acts(found)))
    assert keys[0] == keys[1] == keys[2]
    assert len(set(keys[0])) == 3
    added = actions(tmp_path, mapping, {"f.csv": "a,c,t,note\n" + "\n".join([*rows, rows[0]])})
    assert set(keys[0]) < set(acts(added))


def test_keys_by_content_do_not_depend_on_encoding_columns_or_kind_of_file(
    tmp_path: Path,
) -> None:
    mapping = HEAD + '[[files]]\nfile = "f.csv"\n[files.owner]\ncustomer = "客户"\nowner = "人"\n'
    contents: list[bytes] = [
        "客户,人,数\n甲公司,李明,5\n".encode(),
        "人;客户;数\r\n李明;甲公司;5\r\n".encode("gb18030"),
        "数\t客户\t人\n5\t甲公司\t李明\n".encode("utf-16"),
    ]
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["客户", "人", "数"])
    sheet.append(["甲公司", "李明", 5])
    book.save(tmp_path / "book.xlsx")
    contents.append((tmp_path / "book.xlsx").read_bytes())
    found = [tuple(acts(actions(tmp_path, mapping, {"f.csv": each}))) for each in contents]
    assert len(set(found)) == 1


def test_keys_of_columns_are_escaped_joined_and_unique(tmp_path: Path) -> None:
    mapping = HEAD + OPPORTUNITIES.replace('key = "id"', 'key = ["id", "agent"]')
    rows = [
        "a/b,Li,Hill,2024-05-01,,open,",
        "a,b+Li,Hill,2024-05-01,,open,",
        f"{'x' * 500},Li,Hill,2024-05-01,,open,",
        "a/b, Li ,Hill,2024-05-02,,open,",
        " , ,Hill,2024-05-02,,open,",
    ]
    files = {"opportunities.csv": OPPORTUNITIES_HEADER + "\n".join(rows)}
    with make(tmp_path, mapping, files) as made:
        keys = acts(made.actions())
        assert keys[:2] == ["opportunity/a%2Fb+Li/claim", "opportunity/a+b%2BLi/claim"]
        assert len(keys[2]) < 100
        assert rejects(made) == [
            ("opportunities.csv", 5, "id+agent", "key_duplicate", "a%2Fb+Li"),
            ("opportunities.csv", 6, "id", "key_missing", ""),
        ]


# The opening balance


def customer_list(folder: Path, *rows: str, encoding: str = "utf-8") -> Plan:
    mapping = load_mapping(EXAMPLES / "customer-list" / "mapping.toml")
    text = "客户名称,负责人,省份,电话\n" + "\n".join(rows)
    (folder / "customers.csv").write_bytes(text.encode(encoding))
    return plan(mapping, folder, folder / "work", now=NOW)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_list_that_everybody_has(tmp_path: Path, encoding: str) -> None:
    rows = (
        "远山贸易有限公司,李明,浙江,13800000001",
        "海风商店,,福建,",
        "青石矿业,公海,山西,13800000002",
        "远山贸易有限公司,李明,浙江,13800000003",
        "远山贸易（有限公司）,王芳,江苏,",
        "远山贸易有限公司 ,王芳,浙江,13800000004",
    )
    with customer_list(tmp_path, *rows, encoding=encoding) as made:
        found = list(made.actions())
        assert rejects(made) == [("customers.csv", 7, "负责人", "second_owner", "王芳")]
    assert [each.name for each in found if isinstance(each, AddPerson)] == ["李明", "王芳"]
    customers = [each for each in found if isinstance(each, RegisterCustomer)]
    assert [(each.name, each.contacts) for each in customers] == [
        ("远山贸易有限公司", (Contact(phone="13800000001"), Contact(phone="13800000003"))),
        ("海风商店", ()),
        ("青石矿业", (Contact(phone="13800000002"),)),
        ("远山贸易（有限公司）", ()),
    ]
    assert all(each.opening_balance and each.at is None for each in customers)
    assert customers[0].attributes == (TextAttribute("province", "浙江"),)
    owners = [
        (each.customer, each.person, each.row) for each in found if isinstance(each, OpenWithOwner)
    ]
    assert owners == [
        ("name:远山贸易有限公司", "name:李明", 2),
        ("name:远山贸易(有限公司)", "name:王芳", 6),
    ]


def test_row_that_contradicts_an_earlier_one_is_rejected_whole(tmp_path: Path) -> None:
    with customer_list(tmp_path, "甲,李明,浙江,1", "甲,李明,江苏,2", "甲,李明,,3") as made:
        assert rejects(made) == [("customers.csv", 3, "省份", "contradicts_earlier_row", "江苏")]
        (customer,) = [each for each in made.actions() if isinstance(each, RegisterCustomer)]
        assert customer.contacts == (Contact(phone="1"), Contact(phone="3"))
        assert made.counts["open_with_owner"] == 1


def test_customer_with_a_history_before_the_cut_over_is_no_opening_balance(
    tmp_path: Path,
) -> None:
    text = mixed_mapping(["list", "claims"])
    files = mixed_files() | {
        "claims.csv": "n,a,c,t,r\n1,Li,Hill,2023-12-31,\n2,Li,River,2024-01-02,\n"
    }
    found = actions(tmp_path, text, files)
    opening = {
        each.name: each.opening_balance for each in found if isinstance(each, RegisterCustomer)
    }
    assert opening == {"River": True, "Hill": False, "Pond": True}
    assert [type(each).__name__ for each in found[-4:]] == [
        "FileClaim",
        "OpenWithOwner",
        "OpenWithOwner",
        "FileClaim",
    ]


def test_contradictions_name_the_column_and_what_it_says(tmp_path: Path) -> None:
    """An attribute may be named like a field, and is not taken for it."""
    mapping = (
        HEAD
        + """
        [[files]]
        file = "customers.csv"
        [files.customer]
        name = "n"
        parent = "p"
        territory = "t"
        kind = { column = "k", organisation = "o", individual = "i" }
        identifiers = { name = "code" }
        attributes.name = { column = "a", type = "money" }
        attributes.parent = { column = "s", type = "set" }
        [[files]]
        file = "people.csv"
        [files.person]
        name = "n"
        phone = "tel"
        """
    )
    rows = (
        "A,P,T,o,1,5,x",
        "a,Q,,o,,,",
        "a,,U,o,,,",
        "a,,,i,,,",
        "a,,,o,2,,",
        "a,,,o,,6,",
        "a,,,o,,,x;y",
        "a,,,o,1,5,",
        "B,,,o,,,",
    )
    files = {
        "customers.csv": "n,p,t,k,code,a,s\n" + "\n".join(rows),
        "people.csv": "n,tel\nLi,1\nLi,2\nLi,\n",
    }
    assert rejected(tmp_path, mapping, files) == [
        ("3", "p", "contradicts_earlier_row", "Q"),
        ("4", "t", "contradicts_earlier_row", "U"),
        ("5", "k", "contradicts_earlier_row", "individual"),
        ("6", "code", "contradicts_earlier_row", "2"),
        ("7", "a", "contradicts_earlier_row", "6;CNY"),
        ("8", "s", "contradicts_earlier_row", "x;y"),
        ("3", "tel", "contradicts_earlier_row", "2"),
    ]


def test_manager_named_by_an_id_that_nobody_has(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "people.csv"
        [files.person]
        name = "name"
        id = "no"
        territory = "area"
        manager = { column = "boss", by = "id" }
        """
    )
    rows = ("1,Zhao,North,", "2,Li,North,1", "3,Wu,North,9", f"{'x' * 301},Ma,North,")
    files = {"people.csv": "no,name,area,boss\n" + "\n".join(rows)}
    with make(tmp_path, mapping, files) as made:
        assert rejects(made) == [
            ("people.csv", 4, "boss", "person_unknown", "9"),
            ("people.csv", 5, "no", "name_too_long", "x" * 200 + "…"),
        ]
        zhao = next(each for each in made.actions() if isinstance(each, AddPerson))
        assert (zhao.person, zhao.heads, zhao.roles) == (
            "id:1",
            ("name:north",),
            ("rep", "manager"),
        )


def test_row_that_no_event_could_hold(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "f.csv"
        [files.follow_up]
        agent = "a"
        customer = "c"
        at = "t"
        method = "m"
        agreed = "x"
        """
    )
    fits, exceeds = "字" * 6_000, "字" * 7_000
    rows = (f"Li,Hill,2024-05-01,{text},{text}\n" for text in (fits, exceeds))
    files = {"f.csv": "a,c,t,m,x\n" + "".join(rows)}
    assert rejected(tmp_path, mapping, files) == [("3", "", "row_too_long", "42016 bytes")]


def test_kind_that_one_file_leaves_open_contradicts_nothing(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "a.csv"
        [files.customer]
        name = "name"
        [[files]]
        file = "b.csv"
        [files.customer]
        name = "name"
        kind = "individual"
        """
    )
    found = actions(tmp_path, mapping, {"a.csv": "name\nHill\nLake\n", "b.csv": "name\nHill\n"})
    kinds = {each.name: each.customer_kind for each in found if isinstance(each, RegisterCustomer)}
    assert kinds == {"Hill": "individual", "Lake": "organisation"}


# Who is meant


def test_unknown_people_and_customers_are_rejected_or_created(tmp_path: Path) -> None:
    files = {
        "people.csv": "name,area,boss\nLi,North,Zhao\n",
        "customers.csv": "name,group\nHill,\n",
        "claims.csv": "n,a,c,t,r\n1,Li,Hill,2024-01-05,\n2,Ma,Hill,2024-01-05,\n"
        "3,Li,Dune,2024-01-05,\n4,Ma,Dune,2024-01-05,\n5,zhao,HILL,2024-01-06,\n",
    }
    mapping = mixed_mapping(["people", "customers", "claims"])
    strict = mapping.replace('"create"', '"reject"')
    with make(tmp_path, strict, files) as made:
        assert rejects(made) == [
            ("claims.csv", 3, "a", "person_unknown", "Ma"),
            ("claims.csv", 4, "c", "customer_unknown", "Dune"),
            ("claims.csv", 5, "c", "customer_unknown", "Dune"),
        ]
        assert acts(made.actions()) == ["claim/1", "claim/5"]
    with make(tmp_path, mapping, files) as made:
        assert rejects(made) == []
        created = [each for each in made.actions() if "/created/" in each.key]
        assert [(each.key, each.file, each.row) for each in created] == [
            ("territory/created/name:north", "people.csv", 2),
            ("person/created/name:ma", "claims.csv", 3),
            ("person/created/name:zhao", "claims.csv", 6),
            ("customer/created/name:dune", "claims.csv", 4),
        ]


def test_nobody_is_created_for_rows_that_are_rejected(tmp_path: Path) -> None:
    mapping = HEAD.replace('customers = "create"', 'customers = "reject"') + OPPORTUNITIES
    rows = OPPORTUNITIES_HEADER + "A,Li,Hill,2024-05-01,,open,\nB,Wu,Hill,soon,,open,\n"
    with make(tmp_path, mapping, {"opportunities.csv": rows}) as made:
        assert list(made.actions()) == []
        assert made.rejects == {"customer_unknown": 1, "date_unreadable": 1}


def test_customers_with_ids_may_share_a_name_that_then_means_neither(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "customers.csv"
        [files.customer]
        name = "name"
        id = "no"
        [[files]]
        file = "ids.csv"
        [files.owner]
        customer = { column = "no", by = "id" }
        owner = "who"
        [[files]]
        file = "names.csv"
        [files.owner]
        customer = "name"
        owner = "who"
        """
    )
    files = {
        "customers.csv": "no,name\n1,张伟\n2,张伟\n3,李娜\n,王强\n",
        "ids.csv": "no,who\n2,Wu\n9,Wu\n",
        "names.csv": "name,who\n张伟,Wu\n李娜,Li\n",
    }
    with make(tmp_path, mapping, files) as made:
        found = list(made.actions())
        assert rejects(made) == [
            ("customers.csv", 5, "no", "key_missing", ""),
            ("ids.csv", 3, "no", "customer_unknown", "9"),
            ("names.csv", 2, "name", "customer_ambiguous", "张伟"),
        ]
    registered = [
        (each.customer, each.foreign_id) for each in found if isinstance(each, RegisterCustomer)
    ]
    assert registered == [("id:1", "1"), ("id:2", "2"), ("id:3", "3")]
    assert [each.customer for each in found if isinstance(each, OpenWithOwner)] == ["id:2", "id:3"]


def test_people_territories_heads_and_managers(tmp_path: Path) -> None:
    found = actions(tmp_path, mixed_mapping(["people"]), mixed_files())
    people = {each.name: each for each in found if isinstance(each, AddPerson)}
    # The first manager of a territory is its head.
    assert (people["Zhao"].heads, people["Zhao"].manages) == (("name:north",), ())
    assert (people["Sun"].heads, people["Sun"].manages) == ((), ("name:north",))
    assert people["Sun"].territory == "name:north"
    assert people["Zhao"].roles == ("manager",)
    assert (people["Li"].territory, people["Li"].roles) == ("name:north", ("rep",))


def test_territories_of_a_file_of_their_own(tmp_path: Path) -> None:
    mapping = (
        mixed_mapping(["people"])
        + """
        [[files]]
        file = "areas.csv"
        key = "code"
        [files.territory]
        name = "name"
        parent = "above"
        head = "head"
        managers = "others"
        """
    )
    files = mixed_files() | {
        "areas.csv": "code,name,above,head,others\n2,north,All,Sun,Ma；Zhao\n1,All,,Kong,\n"
    }
    found = actions(tmp_path, mapping, files)
    areas = [each for each in found if isinstance(each, DefineTerritory)]
    assert [(each.key, each.name, each.parent) for each in areas] == [
        ("territory/1", "All", None),
        ("territory/created/name:south", "South", None),
        ("territory/2", "north", "name:all"),
    ]
    people = {each.name: each for each in found if isinstance(each, AddPerson)}
    assert people["Sun"].heads == ("name:north",)
    assert people["Kong"].heads == ("name:all",)
    assert people["Zhao"].manages == people["Ma"].manages == ("name:north",)
    strict = mapping.replace("[unknown]", '[unknown]\nterritories = "reject"')
    assert rejected(tmp_path, strict, files) == [("3", "area", "territory_unknown", "South")]


def test_parents_that_go_round_in_a_circle_or_are_unknown(tmp_path: Path) -> None:
    rows = "name,group\nA,B\nB,C\nC,B\nD,D\nE,F\nF,Nobody\nG,\nH,g\nI,E\n"
    files = {"customers.csv": rows}
    mapping = mixed_mapping(["customers"])
    assert rejected(tmp_path, mapping.replace('"create"', '"reject"'), files) == [
        ("2", "group", "parent_cycle", "B"),
        ("3", "group", "parent_cycle", "C"),
        ("4", "group", "parent_cycle", "B"),
        ("5", "group", "parent_cycle", "D"),
        ("6", "group", "parent_rejected", "F"),
        ("7", "group", "customer_unknown", "Nobody"),
        ("10", "group", "parent_rejected", "E"),
    ]
    found = actions(tmp_path, mapping, files)
    order = [each.name for each in found if isinstance(each, RegisterCustomer)]
    assert order == ["Nobody", "G", "F", "H", "E", "I"]


# Cells


def test_customers_with_everything(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "c.csv"
        key = "no"
        replace.kind = { "?" = "firm" }
        replace.size = { "-" = "" }
        [files.customer]
        name = "name"
        kind = { column = "kind", organisation = "firm", individual = ["person", "个体"] }
        identifiers = { uscc = "code" }
        territory = "area"
        [files.customer.attributes]
        size = { column = "size", type = "integer" }
        score = { column = "score", type = "decimal" }
        potential = { column = "potential", type = "money" }
        since = { column = "since", type = "date" }
        tags = { column = "tags", type = "set", separator = "," }
        [[files.customer.contacts]]
        name = "who"
        phone = "tel"
        email = "mail"
        """
    )
    header = "no,name,kind,code,area,size,score,potential,since,tags,who,tel,mail\n"
    rows = (
        '1,Hill  Works,?,９１350100m000100y43,North,"1,200",0.10,¥5.50,2020-02-29,'
        '"b，a, a",李,1,x@y\n'
        "2,Lake,个体,,,-,,,,,,,\n"
        "3,Pond,zoo,,,,,,,,,,\n"
        "4,Dune,firm,,,1.5,,,,,,,\n"
    )
    with make(tmp_path, mapping, {"c.csv": header + rows}) as made:
        hill, lake = (each for each in made.actions() if isinstance(each, RegisterCustomer))
        assert rejects(made) == [
            ("c.csv", 4, "kind", "value_unknown", "zoo"),
            ("c.csv", 5, "size", "number_unreadable", "1.5"),
        ]
    assert hill.name == "Hill Works"
    assert hill.identifiers == (("uscc", "91350100M000100Y43"),)
    assert (hill.customer_kind, hill.territory) == ("organisation", "name:north")
    assert hill.contacts == (Contact("李", "1", "x@y"),)
    assert hill.attributes == (
        MoneyAttribute("potential", MoneyAmount(Decimal("5.50"), "CNY")),
        DecimalAttribute("score", Decimal("0.10")),
        DateAttribute("since", date(2020, 2, 29)),
        IntegerAttribute("size", 1200),
        SetAttribute("tags", ("a", "b")),
    )
    assert (lake.customer_kind, lake.attributes, lake.contacts) == ("individual", (), ())


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        ("A,Li,,2024-05-01,,open,", "customer", "customer_missing"),
        ("A,,Hill,2024-05-01,,open,", "agent", "person_missing"),
        ("A,Li,\u200b,2024-05-01,,open,", "customer", "name_missing"),
        (f"A,Li,{'x' * 10_000},2024-05-01,,open,", "customer", "name_too_long"),
        (f"A,Li,{'x' * 10_001},2024-05-01,,open,", "customer", "text_too_long"),
        ("A,Li,Hi\x00ll,2024-05-01,,open,", "customer", "control_character"),
        ("A,Li,Hi\x1bll,2024-05-01,,open,", "customer", "control_character"),
        ("A,Li,Hill,,,open,", "engaged", "date_missing"),
        ("A,Li,Hill,2024-02-30,,open,", "engaged", "date_does_not_exist"),
        ("A,Li,Hill,24-02-03,,open,", "engaged", "year_of_two_digits"),
        ("A,Li,Hill,2025-01-02 00:00:01,,open,", "engaged", "date_in_future"),
        ("A,Li,Hill,2024-05-01,2025-02-01,won,5", "closed", "date_in_future"),
        ("A,Li,Hill,2024-05-01,,won,5", "closed", "date_missing"),
        ("A,Li,Hill,2024-05-01,2024-04-30,won,5", "closed", "closed_before_engaged"),
        ("A,Li,Hill,2024-05-01 08:00,2024-05-01 07:00,won,5", "closed", "closed_before_engaged"),
        ("A,Li,Hill,2024-05-01,2024-05-01,gone,5", "stage", "value_unknown"),
        ("A,Li,Hill,2024-05-01,2024-05-01,,5", "stage", "outcome_missing"),
        ("A,Li,Hill,2024-05-01,2024-05-01,won,", "value", "number_missing"),
        ("A,Li,Hill,2024-05-01,2024-05-01,won,five", "value", "number_unreadable"),
        ("A,Li,Hill,2024-05-01,2024-05-01,won,-5", "value", "number_negative"),
        ("A,Li,Hill,2024-05-01", "", "too_few_fields"),
        ("A,Li,Hill,2024-05-01,,open,,,x", "", "too_many_fields"),
        ('A,Li,"Hill"x,2024-05-01,,open,', "", "quoting_broken"),
    ],
)
def test_row_that_cannot_be_used(tmp_path: Path, row: str, column: str, reason: str) -> None:
    good = "Z,Li,Hill,2024-05-01,,open,"
    with make(
        tmp_path,
        HEAD + OPPORTUNITIES,
        {"opportunities.csv": f"{OPPORTUNITIES_HEADER}{row}\n{good}\n"},
    ) as made:
        (found,) = rejects(made)
        assert (found[1], found[2], found[3]) == (2, column, reason)
        assert acts(made.actions()) == ["opportunity/Z/claim"]


def test_future_within_the_tolerance_is_accepted(tmp_path: Path) -> None:
    rows = OPPORTUNITIES_HEADER + "A,Li,Hill,2025-01-02,,open,\n"
    with make(tmp_path, HEAD + OPPORTUNITIES, {"opportunities.csv": rows}) as made:
        assert made.counts["file_claim"] == 1


def test_what_is_open_has_not_closed_whatever_date_stands_there(tmp_path: Path) -> None:
    """Many systems write the expected day of the close into an open opportunity."""
    assert acts(opportunities_plan(tmp_path, "A,Li,Hill,2024-05-01,2031-01-01,open,5")) == [
        "opportunity/A/claim"
    ]


def test_money_is_exact_and_what_was_lost_brought_nothing(tmp_path: Path) -> None:
    exact = "1234567890123456789.000000001"
    found = opportunities_plan(
        tmp_path,
        f"A,Li,Hill,2024-05-01,2024-05-02,WON,{exact}",
        "B,Li,Hill,2024-05-01,2024-05-03,Lost,",
        "C,Li,Hill,2024-05-01,2024-05-04,lost,0.10",
    )
    deals = [each for each in found if isinstance(each, RecordDeal)]
    assert [(each.outcome, each.value) for each in deals] == [
        ("won", MoneyAmount(Decimal(exact), "CNY")),
        ("lost", MoneyAmount(Decimal(0), "CNY")),
        ("lost", MoneyAmount(Decimal("0.10"), "CNY")),
    ]
    assert [str(each.value.amount) for each in deals if each.value] == [exact, "0", "0.10"]


def test_deals_and_follow_ups_on_their_own(tmp_path: Path) -> None:
    mapping = (
        HEAD
        + """
        [[files]]
        file = "deals.csv"
        key = "n"
        decimal_separator = ","
        date_formats = ["%d.%m.%Y"]
        [files.deal]
        agent = "a"
        customer = "c"
        at = "t"
        outcome = { column = "o", won = "gewonnen", lost = "verloren" }
        value = "v"
        currency = "w"
        product = "p"
        [[files]]
        file = "follow_ups.csv"
        key = "n"
        [files.follow_up]
        agent = "a"
        customer = "c"
        at = "t"
        method = "m"
        agreed = "x"
        next_date = "next"
        """
    )
    files = {
        "deals.csv": "n;a;c;t;o;v;w;p\n1;Li;Hill;1.5.2024;gewonnen;1.054,50;eur;Lamp\n"
        "2;Li;Hill;2.5.2024;verloren;;;\n3;Li;Hill;3.5.2024;gewonnen;1;euro;\n",
        "follow_ups.csv": "n,a,c,t,m,x,next\n1,Li,Hill,2024-05-01 10:00,visit,to send a quote,"
        "2030-01-01\n2,Li,Hill,2024-05-02,,,soon\n3,Li,Hill,2024-05-02,,,\n",
    }
    with make(tmp_path, mapping, files) as made:
        found = list(made.actions())
        assert rejects(made) == [
            ("deals.csv", 4, "w", "currency_unknown", "euro"),
            ("follow_ups.csv", 3, "next", "date_unreadable", "soon"),
        ]
    common = {"person": "name:li", "customer": "name:hill"}
    assert found[2] == RecordDeal(
        key="deal/1",
        file="deals.csv",
        row=2,
        at=datetime(2024, 5, 1, tzinfo=UTC),
        outcome="won",
        value=MoneyAmount(Decimal("1054.50"), "EUR"),
        product="Lamp",
        **common,
    )
    assert found[3] == LogFollowUp(
        key="follow_up/1",
        file="follow_ups.csv",
        row=2,
        at=datetime(2024, 5, 1, 10, tzinfo=UTC),
        method="visit",
        agreed="to send a quote",
        next_date=date(2030, 1, 1),
        **common,
    )


def test_claims_with_a_stated_end(tmp_path: Path) -> None:
    mapping = mixed_mapping(["claims"]).replace("last_open_opportunity", "never")
    rows = "n,a,c,t,r\n1,Li,Lake,2024-01-05,2024-01-05\n2,Wu,Lake,2024-01-05,2024-01-04\n"
    with make(tmp_path, mapping, {"claims.csv": rows}) as made:
        assert acts(made.actions()) == ["claim/1", "claim/1/release"]
        release = list(made.actions())[-1]
        assert isinstance(release, FileRelease)
        assert release.cause == "stated"
        assert rejects(made) == [("claims.csv", 3, "r", "released_before_claimed", "2024-01-04")]


def test_workbook_is_read_like_a_csv_file(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["id", "agent", "customer", "engaged", "closed", "stage", "value"])
    sheet.append(
        [
            7,
            "Li",
            "Hill",
            datetime.fromisoformat("2024-05-01"),
            datetime.fromisoformat("2024-05-02"),
            "won",
            0.1,
        ]
    )
    sheet.append([8, "Li", "Hill", "2024-05-01", None, "open", None])
    sheet.append(
        [
            9,
            "Li",
            "Hill",
            datetime.fromisoformat("2024-05-01 09:30:00"),
            "=TODAY()",
            "won",
            "1,054.50",
        ]
    )
    sheet.append([10, "Li", "#N/A", datetime.fromisoformat("2024-05-01"), None, "open", None])
    sheet.append([11, "Li", "Hill", 45_413, None, "open", None])
    sheet.append([12, "Li", True, date(2024, 5, 1), date(2024, 5, 3), "won", 10**30])
    book.save(tmp_path / "book.xlsx")
    mapping = HEAD + OPPORTUNITIES.replace("opportunities.csv", "book.xlsx")
    with make(tmp_path, mapping, {}) as made:
        found = list(made.actions())
        assert rejects(made) == [
            ("book.xlsx", 4, "closed", "formula_without_value", ""),
            ("book.xlsx", 5, "customer", "cell_error", "#N/A"),
            ("book.xlsx", 6, "engaged", "date_unreadable", "45413"),
            ("book.xlsx", 7, "value", "number_out_of_range", str(10**30)),
        ]
    assert acts(found) == ["opportunity/7/claim", "opportunity/8/claim", "opportunity/7/deal"]
    deal = found[-1]
    assert isinstance(deal, RecordDeal)
    assert deal.value == MoneyAmount(Decimal("0.1"), "CNY")


def test_sheets_of_one_workbook_are_files_of_their_own(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    first, second = book.worksheets[0], book.create_sheet("人")
    first.title = "客户"
    for sheet, value in ((first, "甲"), (second, "李")):
        sheet.append(["name"])
        sheet.append([value])
    book.save(tmp_path / "b.xlsx")
    mapping = (
        HEAD
        + """
        [[files]]
        file = "b.xlsx"
        sheet = "人"
        [files.person]
        name = "name"
        [[files]]
        file = "b.xlsx"
        sheet = "客户"
        [files.customer]
        name = "name"
        """
    )
    found = actions(tmp_path, mapping, {})
    assert [(each.file, each.row) for each in found] == [("b.xlsx#人", 2), ("b.xlsx#客户", 2)]


# The list of rejects, and the workspace


def test_list_of_rejects_opens_in_a_spreadsheet_and_runs_nothing(tmp_path: Path) -> None:
    rows = (
        "A,Li,Hill,2024-05-01,2024-05-02,won,=HYPERLINK(1)\n"
        "B,Li,Hill,2024-05-01,2024-05-02,won,-5\n"
        'C,Li,"H\x00\n\x1b",2024-05-01,2024-05-02,won,5\n'
        f"D,Li,Hill,{'y' * 3000},2024-05-02,won,5\n"
    )
    with make(
        tmp_path, HEAD + OPPORTUNITIES, {"opportunities.csv": OPPORTUNITIES_HEADER + rows}
    ) as made:
        assert made.rejects_path.read_bytes().startswith(b"\xef\xbb\xbf")
        assert stat.S_IMODE(made.rejects_path.stat().st_mode) == 0o600
        assert [value for *_, value in rejects(made)] == [
            "'=HYPERLINK(1)",
            "-5",
            "H\\u0000\\u000a\\u001b",
            "y" * 200 + "…",
        ]


def test_temporary_file_is_private_and_goes_with_the_plan(tmp_path: Path) -> None:
    made = make(tmp_path, mixed_mapping(MIXED), mixed_files())
    (temporary,) = (tmp_path / "work").glob("*.sqlite3*")
    assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    made.close()
    made.close()
    assert [each.name for each in (tmp_path / "work").iterdir()] == ["rejects.csv"]


def test_file_that_cannot_be_used_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissingError):
        make(tmp_path, HEAD + OPPORTUNITIES, {"opportunities.csv": "id,agnet\n1,2\n"})
    assert list((tmp_path / "work").iterdir()) == []


def test_file_outside_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text(OPPORTUNITIES_HEADER, encoding="utf-8")
    (folder / "opportunities.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(FileUnreadableError, match="outside"):
        make(folder, HEAD + OPPORTUNITIES, {})


def test_workspace_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file", encoding="utf-8")
    with pytest.raises(WorkspaceUnusableError) as caught:
        make(tmp_path, mixed_mapping(MIXED), mixed_files())
    assert caught.value.way_out


def test_disk_that_is_full_while_rows_are_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of pages raises the very error that a full disk does."""
    schema = f"{staging.SCHEMA}\nPRAGMA max_page_count = 40;"
    monkeypatch.setattr(staging, "SCHEMA", schema)
    write_crm_files(tmp_path, CrmShape(opportunities=5_000), seed=4)
    mapping = load_mapping(EXAMPLES / "crm-sales-opportunities" / "mapping.toml")
    with pytest.raises(WorkspaceUnusableError, match="full"):
        plan(mapping, tmp_path, tmp_path / "work", now=NOW)
    assert list((tmp_path / "work").iterdir()) == []


def test_progress_is_reported_while_rows_are_read(tmp_path: Path) -> None:
    write_crm_files(tmp_path, CrmShape(opportunities=2500), seed=4)
    mapping = load_mapping(EXAMPLES / "crm-sales-opportunities" / "mapping.toml")
    reports: list[Progress] = []
    plan(mapping, tmp_path, tmp_path / "work", now=NOW, progress=reports.append).close()
    pipeline = [each.file_rows for each in reports if each.file == "sales_pipeline.csv"]
    assert pipeline == [1000, 2000, 2500]
    assert [each.rows for each in reports] == sorted(each.rows for each in reports)
    assert [each.stage for each in reports[-2:]] == ["resolving", "ordering"]
    assert reports[-1].rows == 2500 + 85 + 35


def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight times the rows, the same customers; SQLite's own memory is bounded by its setting."""
    # Else the larger file would fill a chunk that the smaller one does not.
    monkeypatch.setattr(encodings, "CHUNK_BYTES", 1 << 14)
    mapping = load_mapping(EXAMPLES / "crm-sales-opportunities" / "mapping.toml")

    def peak_bytes(rows: int) -> int:
        folder = tmp_path / str(rows)
        write_crm_files(folder, CrmShape(opportunities=rows), seed=5)
        tracemalloc.start()
        try:
            with plan(mapping, folder, tmp_path / "work", now=NOW) as made:
                assert sum(1 for _ in made.actions()) > rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The first run also fills what Python itself keeps.
    peak_bytes(1_000)
    assert peak_bytes(16_000) < 1.2 * peak_bytes(2_000)
