"""Commands in one process, on a database of the test's own: what they record and what they say."""

from __future__ import annotations

import base64
import getpass
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest

from api.cli import checks
from api.cli.main import run
from ledger import deciders
from ledger.deciders import LATEST
from tests.support.database import DatabaseUrls

KEY = base64.b64encode(b"k" * 32).decode()
BOSS = ("--as", "陈建国")


class Said(NamedTuple):
    """What a command printed."""

    out: str
    err: str


class Shell:
    """Runs guishu as the shell would, in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.delenv("GUISHU_SETTINGS", raising=False)
        monkeypatch.delenv("GUISHU_OWNER_DATABASE_URL", raising=False)
        for name, value in (
            ("DATABASE_URL", url),
            ("GUISHU_MASTER_KEY", KEY),
            ("COLUMNS", "250"),
        ):
            monkeypatch.setenv(name, value)

    def __call__(self, *arguments: str, status: int = 0) -> Said:
        """Run a command; its exit status is checked."""
        self._monkeypatch.setattr("sys.argv", ["guishu", *arguments])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        said = Said(*self._capsys.readouterr())
        assert (ended.value.code or 0) == status, said
        assert "Traceback" not in said.err
        return said

    def json(self, *arguments: str) -> Any:
        """Run a command with --json and return what it said."""
        return json.loads(self(*arguments, "--json").out)


def staff(shell: Shell, territory: str, head: str, *reps: str) -> None:
    """Found a territory with its head and reps."""
    shell("territories", "define", territory, *BOSS)
    shell("people", "add", head, "--territory", territory, "--role", "manager", *BOSS)
    for rep in reps:
        shell("people", "add", rep, "--territory", territory, *BOSS)
    shell("territories", "change", territory, "--head", head, *BOSS)


def adopt(shell: Shell, folder: Path, *lines: str) -> None:
    """Put a policy of these lines in force."""
    policy = folder / "policy.toml"
    policy.write_text("\n".join(lines), encoding="utf-8")
    shell("policy", "adopt", str(policy), *BOSS)


@pytest.fixture
def guishu(
    founded: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys, founded.owner_url)


def person(guishu: Shell, name: str) -> dict[str, Any]:
    found = [each["person"] for each in guishu.json("people") if each["person"]["name"] == name]
    assert len(found) == 1
    person: dict[str, Any] = found[0]
    return person


def days_ahead(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).date().isoformat()


# --- people -------------------------------------------------------------------------------------


def test_a_change_of_a_person_keeps_what_is_not_given(guishu: Shell) -> None:
    guishu("territories", "define", "华北", *BOSS)
    said = guishu("people", "change", "李娜", "--role", "rep", "--role", "manager", *BOSS)
    assert "李娜: rep manager, at home in 华东" in said.out
    guishu("people", "change", "李娜", "--territory", "华北", *BOSS)
    guishu("people", "change", "李娜", "--name", "李娜娜", *BOSS)
    changed = person(guishu, "李娜娜")
    assert sorted(changed["roles"]) == ["manager", "rep"]
    assert "华北" in guishu("people", "--territory", "华北").out
    guishu("people", "change", "李娜娜", "--no-territory", *BOSS)
    assert person(guishu, "李娜娜")["territory"] is None


def test_a_change_that_changes_nothing_is_an_error(guishu: Shell) -> None:
    said = guishu("people", "change", "李娜", *BOSS, status=1)
    assert said.err.startswith("invalid_request: the change changes nothing")


def test_who_is_away_and_who_acts_meanwhile_is_shown(guishu: Shell) -> None:
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    said = guishu("people", "away", "李娜", days_ahead(10), days_ahead(20), *BOSS)
    assert f"李娜 is away from {days_ahead(10)} and back on {days_ahead(20)}" in said.out
    guishu("people", "delegate", "李娜", "王强", days_ahead(-1), days_ahead(20), *BOSS)
    listed = guishu("people").out
    assert f"away from {days_ahead(10)} until {days_ahead(20)}" in listed
    assert f"王强 acts until {days_ahead(20)}" in listed
    shown = guishu.json("people", "show", "李娜")["person"]
    assert shown["absences"] == [{"from_day": days_ahead(10), "until_day": days_ahead(20)}]
    assert shown["delegations"][0]["delegate"] == person(guishu, "王强")["person"]
    assert "王强 from" in guishu("people", "show", "李娜").out


def test_whoever_is_back_early_is_there_and_needs_no_delegate(guishu: Shell) -> None:
    """Nothing could be said that ended an absence, or a delegation, before its last day."""
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("people", "away", "李娜", days_ahead(-3), days_ahead(20), *BOSS)
    guishu("people", "delegate", "李娜", "王强", days_ahead(-3), days_ahead(20), *BOSS)
    today = days_ahead(0)
    assert f"李娜 is back from {today} on" in guishu("people", "back", "李娜", today, *BOSS).out
    guishu("people", "end-delegate", "李娜", today, *BOSS)
    listed = guishu("people").out
    assert "away" not in listed
    assert "acts" not in listed
    for command in ("back", "end-delegate"):
        said = guishu("people", command, "李娜", today, *BOSS, status=1)
        assert said.err.startswith("invalid_request: ")
    told = guishu("events", "--limit", "200").out
    assert f"李娜 is back from {today} on" in told
    assert f"nobody acts for 李娜 any more from {today} on" in told
    guishu("verify")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("away", "李娜", "2026-03-05", "2026-03-05"), "does not lie behind"),
        (("away", "李娜", "next week", "2026-03-05"), "is no day such as 2026-03-01"),
        (("delegate", "李娜", "李娜", "2026-03-01", "2026-03-05"), "their own delegate"),
        (("returned", "李娜", "2026-03-01"), "the person has not left"),
        (("left", "陈建国", "2026-03-01"), "an administrator must remain"),
        (("change", "李娜", "--role", "boss"), "roles"),
        (("add", "赵铁", "--foreign-id", "crm"), "is not SYSTEM=VALUE"),
    ],
)
def test_facts_about_people_that_cannot_be_get_one_sentence(
    guishu: Shell, arguments: tuple[str, ...], says: str
) -> None:
    before = guishu("events", "--limit", "1000").out
    said = guishu("people", *arguments, *BOSS, status=1)
    assert said.err.startswith("invalid_request: ")
    assert says in said.err
    assert guishu("events", "--limit", "1000").out == before


def test_who_leaves_and_returns(guishu: Shell) -> None:
    guishu("register", "恒信", "--claim", "--as", "李娜")
    said = guishu("people", "left", "李娜", days_ahead(-1), *BOSS)
    assert "customers then orphaned: 1" in said.out
    assert "orphaned" in guishu("whois", "恒信").out
    assert f"left on {days_ahead(-1)}" in guishu("people").out
    guishu("people", "returned", "李娜", days_ahead(-1), *BOSS)
    assert "orphaned" not in guishu("whois", "恒信").out


def test_only_an_administrator_states_facts(guishu: Shell) -> None:
    said = guishu("people", "add", "赵铁", "--as", "李娜", status=1)
    assert said.err.startswith("not_permitted: ")


def test_an_unknown_person_or_territory_suggests_near_ones(guishu: Shell) -> None:
    """For an unknown territory the first ten were suggested, whatever their names."""
    guishu("territories", "define", "东北大区", *BOSS)
    said = guishu("people", "change", "李娜", "--territory", "东北大", *BOSS, status=1)
    assert "Did you mean 东北大区" in said.err
    assert "华东" not in said.err
    said = guishu("people", "away", "李那", "2026-03-01", "2026-03-05", *BOSS, status=1)
    assert "Did you mean 李娜" in said.err


# --- territories --------------------------------------------------------------------------------


def territory(guishu: Shell, name: str) -> dict[str, Any]:
    found = [each["territory"] for each in guishu.json("territories")]
    (one,) = [each for each in found if each["name"] == name]
    wanted: dict[str, Any] = one
    return wanted


def test_a_change_of_a_territory_keeps_what_is_not_given(guishu: Shell) -> None:
    """Saying who the head is took the managers and the place in the tree away."""
    guishu("territories", "define", "全国", *BOSS)
    guishu("territories", "change", "华东", "--parent", "全国", *BOSS)
    guishu("territories", "change", "华东", "--add-manager", "李娜", *BOSS)
    guishu("territories", "change", "华东", "--name", "华东大区", *BOSS)
    boss, rep = person(guishu, "陈建国")["person"], person(guishu, "李娜")["person"]
    changed = territory(guishu, "华东大区")
    assert changed["parent"] == territory(guishu, "全国")["territory"]
    assert (changed["head"], sorted(changed["managers"])) == (boss, sorted([boss, rep]))
    said = guishu("territories", "change", "华东大区", "--head", "李娜", "--no-parent", *BOSS)
    assert "head 李娜, below nothing; no longer its manager: 陈建国" in said.out
    changed = territory(guishu, "华东大区")
    assert (changed["head"], changed["managers"], changed["parent"]) == (rep, [rep], None)
    guishu("territories", "change", "华东大区", "--remove-manager", "李娜", *BOSS)
    changed = territory(guishu, "华东大区")
    assert (changed["head"], changed["managers"]) == (None, [])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("define", "华东"), "guishu territories change changes it"),
        (("change", "华东"), "the change changes nothing"),
        (("change", "华东", "--remove-manager", "李娜"), "李娜 does not manage 华东"),
        (("change", "华东", "--parent", "华东"), "a territory cannot be above itself"),
        (("change", "华东", "--head", "李娜", "--no-head"), "given and taken away"),
    ],
)
def test_changes_of_territories_that_cannot_be_get_one_sentence(
    guishu: Shell, arguments: tuple[str, ...], says: str
) -> None:
    said = guishu("territories", *arguments, *BOSS, status=1)
    assert said.err.startswith("invalid_request: ")
    assert says in said.err


# --- policies and the decider -------------------------------------------------------------------


def test_a_policy_names_territories_by_name(guishu: Shell, tmp_path: Path) -> None:
    """The rules of territories were shown, and had to be written, with ids alone."""
    file = tmp_path / "policy.toml"
    file.write_text(
        "holding_limit = 7\n[[territory_rules]]\nterritory = '华东'\n"
        "conditions = [{ attribute = 'region', operator = 'one_of', value = ['江苏', '浙江'] }]\n",
        encoding="utf-8",
    )
    guishu("policy", "adopt", str(file), "--comment", "first", *BOSS)
    shown = guishu("policy").out
    assert "华东: where region one of 江苏, 浙江" in shown
    rules = guishu.json("policy")["rules"]
    assert rules["holding_limit"] == 7
    assert rules["territory_rules"][0]["territory"] == territory(guishu, "华东")["territory"]
    assert guishu.json("policy", "--history")[0]["comment"] == "first"
    file.write_text("[[territory_rules]]\nterritory = '华南'\nconditions = []\n", encoding="utf-8")
    assert guishu("policy", "adopt", str(file), *BOSS, status=1).err.startswith("not_found: ")


def test_a_version_of_the_decider_that_cannot_come_into_force(guishu: Shell) -> None:
    assert guishu.json("policy")["decider"] == LATEST
    said = guishu("policy", "decider", str(LATEST), *BOSS, status=1)
    assert f"version {LATEST} is in force already" in said.err
    for unknown in (0, LATEST + 1):
        said = guishu("policy", "decider", str(unknown), *BOSS, status=1)
        assert f"this guishu has no version {unknown} of the decider" in said.err


def test_a_version_of_the_decider_comes_into_force(
    guishu: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    latest = LATEST + 1
    later = {**deciders.deciders(), latest: deciders.decider(LATEST)}
    monkeypatch.setattr(deciders, "deciders", lambda: later)
    said = guishu("policy", "decider", str(latest), *BOSS)
    assert f"version {latest} of the decider decides from now on" in said.out
    assert guishu.json("policy")["decider"] == latest
    said = guishu("policy", "decider", "1", *BOSS, status=1)
    assert "a decider never goes back" in said.err


# --- looking up ---------------------------------------------------------------------------------


def test_a_history_has_names_and_says_what_it_reflects(guishu: Shell) -> None:
    made = guishu.json("register", "恒信", "--claim", "--as", "李娜")
    guishu("follow-up", "恒信", "约好周五", "--channel", "visit", "--as", "李娜")
    guishu("claim", "恒信", *BOSS, status=3)
    told = guishu.json("history", "恒信")
    assert told["customer"] == made["customer"]
    assert told["position"] >= told["entries"][-1]["position"]
    assert [each["event"] for each in told["entries"]] == [
        "RegistrationRequested",
        "ClaimFiled",
        "CustomerAdmitted",
        "OwnershipGranted",
        "FollowUpLogged",
        "Noted",
        "ClaimFiled",
        "ClaimRefused",
    ]
    said = guishu("history", "恒信").out
    assert f"恒信, as of position {told['position']}" in said
    assert "李娜 owns the customer." in said
    assert "李娜 followed up by visit. (note: 约好周五)" in said
    assert "The claim of 陈建国 was refused" in said
    assert "The owner is 李娜." in said
    assert "per_" not in said


def test_a_long_history_is_told_in_pages(guishu: Shell) -> None:
    guishu("register", "恒信", "--claim", "--as", "李娜")
    last = guishu("history", "恒信", "--limit", "2")
    assert len(last.out.splitlines()) == 3
    before = last.err.split("--before ")[1].strip()
    earlier = guishu.json("history", "恒信", "--limit", "2", "--before", before)["entries"]
    assert [each["event"] for each in earlier] == ["RegistrationRequested", "ClaimFiled"]


def test_ids_of_acts_are_shown_to_who_asks_and_correct_them(guishu: Shell) -> None:
    """A correction without a channel turned every follow-up into a call."""
    guishu("register", "恒信", "--claim", "--as", "李娜")
    made = guishu.json("follow-up", "恒信", "一", "--channel", "visit", "--as", "李娜")["made"]
    assert made not in guishu("history", "恒信").out
    assert f"[{made}]" in guishu("history", "恒信", "--ids").out
    guishu("follow-up", "恒信", "二", "--correct", made, "--as", "李娜")
    corrected = guishu.json("history", "恒信")["entries"][-2]
    assert corrected["event"] == "FollowUpCorrected"
    assert "channel" not in corrected["details"]


def test_lists_show_names_and_ids_to_who_asks(guishu: Shell) -> None:
    guishu("register", "恒信", "--claim", "--as", "李娜")
    for command, prefix in (("people", "per_"), ("customers", "cus_"), ("territories", "ter_")):
        assert prefix not in guishu(command).out
        assert prefix in guishu(command, "--ids").out
    assert "李娜" in guishu("customers", "--ids").out


def test_a_moment_from_which_on_a_claim_is_possible_is_local(guishu: Shell) -> None:
    """The moment stood in UTC among times of the organisation's zone."""
    guishu("register", "恒信", "--claim", "--as", "李娜")
    guishu("release", "恒信", "--as", "李娜")
    guishu("claim", "恒信", "--as", "李娜", status=3)
    retry_at = guishu.json("history", "恒信")["entries"][-1]["details"]["retry_at"]
    local = datetime.fromisoformat(retry_at).astimezone(ZoneInfo("Asia/Shanghai"))
    assert f"from {local:%Y-%m-%d %H:%M} on." in guishu("history", "恒信").out


def test_a_moment_to_come_is_known_to_nobody(guishu: Shell) -> None:
    """It was answered with who owns the customer now, as something that had been."""
    guishu("register", "恒信", "--claim", "--as", "李娜")
    for option in ("--as-of", "--known-at"):
        said = guishu("whois", "恒信", option, days_ahead(400), status=1)
        assert "the moment lies in the future" in said.err


def test_who_owned_it_as_the_ledger_knew_it(guishu: Shell) -> None:
    guishu("register", "恒信", "--claim", "--as", "李娜")
    told = guishu.json("whois", "恒信")
    assert told["owner_name"] == "李娜"
    said = guishu("whois", "恒信", "--as-of", "2020-01-01", "--known-at", "2021-01-01").out
    assert "On 2020-01-01 00:00, as the ledger knew it on 2021-01-01 00:00, 恒信" in said
    assert "was not in the ledger" in said


def test_years_before_1000_are_written_with_four_digits(guishu: Shell) -> None:
    """They were shown as 1-01-01, which is no date that anybody could type again."""
    guishu("register", "恒信", *BOSS)
    said = guishu("whois", "恒信", "--as-of", "0002-01-01").out
    assert said.startswith("On 0002-01-01 00:00 恒信 was not in the ledger")
    # Eight hours before it, in UTC, no calendar of this program has a year.
    first = guishu("whois", "恒信", "--as-of", "0001-01-01", "--json", status=1).err
    assert "lies before the year 1" in first


def test_a_duplicate_says_of_which_customer(guishu: Shell) -> None:
    """For a refused registration it said that nobody could own it, and not why."""
    code = ("--identifier", "uscc=91350100M000100Y43")
    first = guishu("register", "恒信", *code, "--as", "李娜")
    assert first.out.startswith("admitted: ")
    guishu("register", "恒信二", *code, "--as", "李娜", status=3)
    refused = guishu.json("customers", "恒信二")[0]["customer"]["customer"]
    assert "refused as a duplicate of 恒信." in guishu("whois", refused).out
    assert "(refused: identifier_taken)" in guishu("customers", "恒信二").out


def test_a_search_looks_on_until_the_page_is_full(guishu: Shell) -> None:
    """Whose they are was asked of the first page only, so --owner found nothing behind it."""
    for number in range(4):
        guishu("register", f"恒信{number}", "--as", "李娜")
    guishu("register", "恒信电子有限公司", "--claim", "--as", "李娜")
    found = guishu.json("customers", "恒信", "--owner", "李娜", "--limit", "2")
    assert [each["customer"]["name"] for each in found] == ["恒信电子有限公司"]
    assert found[0]["owner_name"] == "李娜"
    page = guishu("customers", "恒信", "--free", "--limit", "2")
    assert "there may be more: --after cus_" in page.err


def test_an_integer_that_is_none_gets_a_clear_error(guishu: Shell) -> None:
    """``²`` passed for a digit, and ended in a traceback."""
    said = guishu("register", "恒信", "--attribute", "size:integer=²", "--as", "李娜", status=1)
    assert "'²' is no whole number" in said.err


def test_every_fact_is_told_in_words(guishu: Shell) -> None:
    """Of facts of the organisation the log showed the event's name alone."""
    guishu("people", "away", "李娜", "2026-03-01", "2026-03-05", *BOSS)
    told = guishu("events", "--limit", "100").out
    assert "东方智造 is founded; its days are those of Asia/Shanghai" in told
    assert "territory 华东, head 陈建国" in told
    assert "李娜 joins: rep, 华东" in told
    assert "李娜 is away from 2026-03-01 until 2026-03-05" in told
    assert "PersonAway" not in told


# --- what is typed ------------------------------------------------------------------------------

NO_UTF8 = "恒信\udcff"


@pytest.mark.parametrize(
    "arguments",
    [
        ("claim", NO_UTF8, *BOSS),
        ("claim", "恒信", "--as", NO_UTF8),
        ("assign", "恒信", NO_UTF8, *BOSS),
        ("whois", NO_UTF8),
        ("history", NO_UTF8),
        ("events", "--customer", NO_UTF8),
        ("customers", NO_UTF8),
        ("customers", "--after", NO_UTF8),
        ("customers", "--owner", NO_UTF8),
        ("customers", "--territory", NO_UTF8),
        ("people", "show", NO_UTF8),
    ],
)
def test_bytes_of_the_terminal_that_are_no_utf8_get_a_clear_error(
    guishu: Shell, arguments: tuple[str, ...]
) -> None:
    """Looked up in the database they ended in a traceback of its driver."""
    guishu("register", "恒信", *BOSS)
    said = guishu(*arguments, status=1).err
    assert said.startswith("invalid_request: ")
    assert "holds what is not UTF-8" in said


def test_a_name_that_is_unknown_is_told_shortened(guishu: Shell) -> None:
    assert len(guishu("whois", "x" * 10_000, status=1).err) < 1_000


def test_a_second_founding_says_whose_the_ledger_is(guishu: Shell) -> None:
    """It was said that only an administrator may, which no administrator could help."""
    said = guishu("init", "别家公司", "陈建国", status=1).err
    assert said.startswith("founded_before: This ledger is that of 东方智造 already.")


def test_a_measure_that_does_not_exist_is_not_passed_over(guishu: Shell) -> None:
    """Nothing was measured, and an empty table was written as if all were well."""
    said = guishu("bench", "--only", "stoer", status=1).err
    assert said.startswith("unknown_measure: No measure has stoer in its name.")


# --- imports ------------------------------------------------------------------------------------

MAPPING = """
name = "list"
[constants]
time_zone = "Asia/Shanghai"
cut_over = 2024-01-01
[unknown]
people = "create"
[[files]]
file = "list.csv"
[files.customer]
name = "name"
attributes = { remark = "remark" }
[files.owner]
customer = "name"
owner = "owner"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "list.toml").write_text(MAPPING, encoding="utf-8")
    files = tmp_path / "files"
    files.mkdir()
    rows = f"name,remark,owner\n恒信,,王强\n锐思,{'长' * 301},王强\n"
    (files / "list.csv").write_text(rows, encoding="utf-8")
    return tmp_path


def test_a_list_of_rejects_is_for_its_owner_alone(guishu: Shell, folder: Path) -> None:
    """The copy of the list could be read by everybody on the machine, phone numbers and all."""
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"), *BOSS)
    guishu(*arguments)
    rejects = folder / "var" / "import-rejects.csv"
    assert stat.S_IMODE(rejects.stat().st_mode) == 0o600
    assert "list.csv,3,remark,invalid_request" in rejects.read_text(encoding="utf-8-sig")
    assert guishu.json("whois", "恒信")["owner_name"] == "王强"


def test_the_command_that_imported_into_an_empty_ledger_can_be_given_again(
    database: DatabaseUrls,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The second time the same command was refused, for nobody had said who acts.

    The first time its user had become the administrator, and no word of it was said.
    """
    monkeypatch.chdir(folder)
    (folder / "files" / "list.csv").write_text("name,remark,owner\n恒信,,王强\n", encoding="utf-8")
    guishu = Shell(monkeypatch, capsys, database.owner_url)
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"))
    said = guishu(*arguments).err
    assert f"list is founded, {getpass.getuser()} is its administrator" in said
    before = guishu("events", "--limit", "1000").out
    guishu(*arguments)
    assert guishu("events", "--limit", "1000").out == before


def test_an_import_that_another_user_began_is_nobodys_by_default(
    guishu: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"))
    assert "Nobody is named who acts" in guishu(*arguments, status=1).err
    guishu(*arguments, *BOSS)
    monkeypatch.setattr("getpass.getuser", lambda: "somebody")
    assert "Nobody is named who acts" in guishu(*arguments, status=1).err


def test_a_check_says_what_would_be_filed_and_files_nothing(guishu: Shell, folder: Path) -> None:
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"), "--check", *BOSS)
    before = guishu("events", "--limit", "1000").out
    told = guishu.json(*arguments)
    assert told["actions"]["register_customer"] == 2
    assert "what would be filed" in guishu(*arguments).out
    assert guishu("events", "--limit", "1000").out == before


def test_where_rejects_cannot_be_written_nothing_is_filed(guishu: Shell, folder: Path) -> None:
    """It was noticed when everything had been filed, and the report was lost."""
    (folder / "var").write_text("a file, no folder", encoding="utf-8")
    before = guishu("events", "--limit", "1000").out
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"), *BOSS)
    assert "rejects_unwritable: " in guishu(*arguments, status=1).err
    assert guishu("events", "--limit", "1000").out == before


def test_whom_the_ledger_holds_already_is_said(guishu: Shell, folder: Path) -> None:
    """An import made a second 李娜, for it looked into its own files only."""
    rows = "name,remark,owner\n恒信,,李娜\n锐思,,王强\n"
    (folder / "files" / "list.csv").write_text(rows, encoding="utf-8")
    guishu("register", "恒信", *BOSS)
    arguments = ("import", str(folder / "list.toml"), str(folder / "files"), *BOSS)
    found = {"add_person": 1, "register_customer": 1}
    before = guishu("events", "--limit", "1000").out
    assert guishu.json(*arguments, "--check")["found_in_the_ledger"] == found
    assert "found in the ledger" in guishu(*arguments, "--check").out
    assert guishu("events", "--limit", "1000").out == before
    assert guishu.json(*arguments)["found_in_the_ledger"] == found
    assert guishu.json("whois", "锐思")["owner_name"] == "王强"
    assert person(guishu, "李娜")["territory"] is not None
    again = guishu.json(*arguments)
    # Counts by reason were counted once more: {"('history_out_of_order', 1)": 1}.
    assert again["report"]["total"]["refused"] == {"history_out_of_order": 1}
    assert again["found_in_the_ledger"] == found
    assert sum(again["recorded"].values()) == 0


@pytest.mark.parametrize("more", [(), ("--check",)])
def test_a_cut_over_to_come_is_said_before_anything_is_founded(
    database: DatabaseUrls,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
) -> None:
    """A check found nothing wrong, and the import had founded a ledger and added people to it."""
    monkeypatch.chdir(folder)
    mapping = folder / "list.toml"
    text = mapping.read_text(encoding="utf-8").replace("2024-01-01", days_ahead(40))
    mapping.write_text(text, encoding="utf-8")
    guishu = Shell(monkeypatch, capsys, database.owner_url)
    said = guishu("import", str(mapping), str(folder / "files"), *more, status=1).err
    assert "mapping_invalid: The mapping list cannot be used" in said
    assert f"{days_ahead(40)} cannot be the cut-over: the time lies in the future" in said
    assert guishu("events").out == ""


# --- doctor -------------------------------------------------------------------------------------


def findings(guishu: Shell, status: int = 4) -> dict[str, dict[str, Any]]:
    said = guishu("doctor", "--json", status=status)
    return {each["what"]: each for each in json.loads(said.out)}


def test_doctor_finds_nothing_wrong_where_nothing_is(guishu: Shell) -> None:
    found = findings(guishu, status=0)
    assert all(each["good"] and not each["way_out"] for each in found.values())
    assert found["role"]["found"] == "guishu_app can only add to the log"
    assert found["decided"]["found"] == "everything; nobody is at it"


def test_doctor_says_who_is_behind_and_that_nobody_is_at_it(
    guishu: Shell, founded: DatabaseUrls
) -> None:
    """It was said to wait until the number falls, which stays while each request has a decision."""
    with psycopg.connect(founded.superuser_url, autocommit=True) as connection:
        reached = connection.execute("SELECT max(position) FROM ledger.events").fetchone()
        assert reached is not None
        connection.execute("UPDATE ledger.consumer_progress SET position = position - 2")
        connection.execute(
            "UPDATE projections.tracking SET position = position - 1 WHERE name = 'timeline'"
        )
    found = findings(guishu)
    assert (
        found["decided"]["found"] == f"up to position {reached[0] - 2}, 2 behind; nobody is at it"
    )
    assert found["decided"]["way_out"] == "Start guishu run."
    assert (
        found["projected"]["found"]
        == f"up to position {reached[0] - 1}, 1 behind (timeline); nobody is at it"
    )


def test_doctor_sees_who_is_at_it(guishu: Shell, founded: DatabaseUrls) -> None:
    with psycopg.connect(founded.service_url, autocommit=True) as leader:
        leader.execute(
            "SELECT pg_advisory_lock(hashtext('guishu projector'), hashtext(current_database()))"
        )
        found = findings(guishu, status=0)
        pid = leader.info.backend_pid
    assert found["projected"]["found"] == f"everything; session {pid} is at it"


def test_doctor_names_outdated_read_models_and_parked_streams(
    guishu: Shell, founded: DatabaseUrls
) -> None:
    """The words of a parked stream may quote personal data; what doctor says is passed on."""
    with psycopg.connect(founded.superuser_url, autocommit=True) as connection:
        connection.execute("UPDATE projections.tracking SET version = 0 WHERE name = 'claims'")
        connection.execute(
            "INSERT INTO projections.parked (projection, stream, position, code, words)"
            " VALUES ('deals', 'customer-cus_1', 3, 'ValueError', '李娜')"
        )
    found = findings(guishu)
    assert found["read models"]["found"].startswith("claims is of version 0, this guishu has ")
    assert found["read models"]["way_out"] == "Run guishu rebuild."
    parked = found["parked streams"]["found"]
    assert parked == "deals leaves customer-cus_1 alone from 3 on (ValueError)"
    assert "guishu rebuild" in guishu("doctor", status=4).out


def test_doctor_minds_the_disk(tmp_path: Path) -> None:
    low = checks.disk_room(checks.FREE_BYTES_MIN - 1, 10 << 30, tmp_path)
    assert not low.good
    assert "Free some space" in low.way_out
    assert low.found == f"1,024.0 MiB free of 10.0 GiB at {tmp_path}"
    assert checks.disk_room(checks.FREE_BYTES_MIN, 10 << 30, tmp_path).good


def test_a_database_that_lacks_migrations_is_told_apart(
    unmigrated: DatabaseUrls, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command ended in a traceback of psycopg: UndefinedTable."""
    shell = Shell(monkeypatch, capsys, unmigrated.owner_url)
    for command in (("doctor",), ("people",), ("whois", "恒信")):
        said = shell(*command, status=1)
        assert said.err.startswith("not_migrated: ")
        assert "guishu migrate" in said.err
    shell("migrate")
    shell("init", "东方智造", "陈建国")
    assert "陈建国" in shell("people").out


# --- asked before acting ------------------------------------------------------------------------


def test_a_claim_and_a_transfer_can_be_checked_before_they_are_made(guishu: Shell) -> None:
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("register", "鼎盛", *BOSS)
    head = len(guishu("events", "--json", "--limit", "1000").out.splitlines())
    said = guishu("claim", "鼎盛", "--check", "--as", "李娜")
    assert "nothing was recorded" in said.out
    assert "granted: 鼎盛 belongs to 李娜" in said.out
    guishu("claim", "鼎盛", "--as", "李娜")
    said = guishu("claim", "鼎盛", "--check", "--as", "王强", status=3)
    assert "refused: owned_by_another" in said.out
    checked = json.loads(guishu("claim", "鼎盛", "--check", "--json", "--as", "王强", status=3).out)
    assert checked["decisions"][0]["reason"] == "owned_by_another"
    assert not checked["is_behind"]
    said = guishu("transfer", "鼎盛", "王强", "--check", "--as", "李娜")
    assert "the transfer awaits approval in 2 steps; asked: 陈建国" in said.out
    said = guishu("transfer", "鼎盛", "李娜", "--check", "--as", "李娜", status=3)
    assert "refused: already_yours" in said.out
    # The claim and its decision, and nothing of what was only asked.
    assert len(guishu("events", "--json", "--limit", "1000").out.splitlines()) == head + 2


# --- what if ------------------------------------------------------------------------------------


def test_what_another_policy_would_have_brought(guishu: Shell, tmp_path: Path) -> None:
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    for name in ("鼎盛", "恒源", "华信"):
        guishu("register", name, *BOSS)
        guishu("claim", name, "--as", "李娜")
    guishu("claim", "恒源", "--as", "王强", status=3)
    head = len(guishu("events", "--json", "--limit", "1000").out.splitlines())
    strict = tmp_path / "strict.toml"
    strict.write_text("holding_limit = 1\n", encoding="utf-8")
    asked = ("what-if", "--policy", str(strict), "--since", "2026-01-01")
    said = guishu(*asked, "--show", "1")
    assert "7 requests decided again" in said.out
    assert "ClaimRefused: holding_limit" in said.out
    assert "恒源" in said.out
    assert "and 1 more" in said.err
    report = guishu.json(*asked)
    assert report["decisions"]["total"] == 3
    owners = {each["customer"]: each for each in report["owners"]}
    assert len(owners) == 2
    assert {each["owner"] for each in owners.values()} == {person(guishu, "李娜")["person"]}
    assert {each["would_be"] for each in owners.values()} == {
        None,
        person(guishu, "王强")["person"],
    }
    assert {each["would_be"] for each in report["changes"]} == {
        "ClaimRefused: holding_limit",
        "OwnershipGranted",
    }
    later = guishu.json("what-if", "--policy", str(strict), "--since", days_ahead(2))
    assert later["requests"] == 0
    assert len(guishu("events", "--json", "--limit", "1000").out.splitlines()) == head


@pytest.mark.parametrize(
    ("text", "since", "says"),
    [
        ("holding_limit = -1", "2026-01-01", "invalid_request"),
        ("holding_limit = ", "2026-01-01", "policy_file"),
        ("holding_limit = 1", "last week", "is no date or time"),
    ],
)
def test_a_what_if_that_cannot_be_gets_one_sentence(
    guishu: Shell, tmp_path: Path, text: str, since: str, says: str
) -> None:
    (tmp_path / "policy.toml").write_text(text, encoding="utf-8")
    said = guishu("what-if", "--policy", "policy.toml", "--since", since, status=1)
    assert says in said.err


# --- four eyes ----------------------------------------------------------------------------------


def test_what_one_proposes_another_puts_in_force(guishu: Shell, tmp_path: Path) -> None:
    assert "four eyes are not required" in guishu("four-eyes").out
    guishu("four-eyes", "on", *BOSS, status=1)
    guishu("people", "add", "李总", "--role", "admin", *BOSS)
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    assert "four eyes are required from now on" in guishu("four-eyes", "on", *BOSS).out
    assert "they are required already" in guishu("four-eyes", "on", *BOSS, status=1).err
    assert guishu.json("four-eyes") == {"required": True}
    file = tmp_path / "policy.toml"
    file.write_text("holding_limit = 12\n", encoding="utf-8")
    said = guishu("policy", "adopt", str(file), "--comment", "新财年", *BOSS)
    assert "somebody else adopts it with guishu adopt pro_" in said.out
    guishu("people", "change", "李娜", "--role", "manager", *BOSS)
    guishu("territories", "change", "华东", "--head", "李娜", *BOSS)
    assert guishu.json("policy")["number"] == 0
    listed = guishu("proposals").out
    for words in ("a policy (新财年)", "李娜: manager", "华东: head 李娜"):
        assert words in listed
    policy, role, head = (each["proposal"] for each in guishu.json("proposals"))
    assert guishu("adopt", policy, *BOSS, status=1).err.startswith("four_eyes: ")
    said = guishu("adopt", policy, "--as", "李总")
    assert "in force: a policy (新财年)" in said.out
    assert guishu.json("policy")["rules"]["holding_limit"] == 12
    guishu("adopt", role, "--as", "李总")
    assert person(guishu, "李娜")["roles"] == ["manager"]
    guishu("proposals", "withdraw", head, "--as", "李总")
    assert "proposals: none" in guishu("proposals").out
    said = guishu("proposals", "--all")
    assert "adopted by 李总" in said.out
    assert "withdrawn by 李总" in said.out
    said = guishu("people", "add", "赵铁", "--role", "manager", *BOSS, status=1)
    assert said.err.startswith("four_eyes: Whoever joins begins as a rep")
    assert "proposed as" in guishu("four-eyes", "off", *BOSS).out
    assert "is neither on nor off" in guishu("four-eyes", "maybe", *BOSS, status=1).err
    log = guishu("events", "--limit", "1000").out
    assert "four eyes are required from now on" in log
    assert "陈建国 proposes a change (policy) as pro_" in log
    assert f"李总 adopts {policy} of 陈建国:" in log
    assert f"李总 withdraws {head}" in log
    guishu("verify")


def test_a_proposal_that_was_overtaken_is_listed_as_such(guishu: Shell, tmp_path: Path) -> None:
    """It stood among those that wait for somebody, and adopting it set back what was agreed on."""
    guishu("people", "add", "李总", "--role", "admin", *BOSS)
    guishu("four-eyes", "on", *BOSS)
    file = tmp_path / "policy.toml"
    for limit in (12, 13):
        file.write_text(f"holding_limit = {limit}\n", encoding="utf-8")
        guishu("policy", "adopt", str(file), *BOSS)
    assert "overtaken" not in guishu("proposals").out
    first, second = (each["proposal"] for each in guishu.json("proposals"))
    guishu("adopt", second, "--as", "李总")
    assert guishu("adopt", first, "--as", "李总", status=1).err.startswith("proposal_outdated: ")
    (listed,) = guishu.json("proposals")
    assert (listed["proposal"], listed["overtaken"]) == (first, True)
    said = guishu("proposals")
    assert "overtaken" in said.out
    assert "propose again" in said.err
    assert guishu.json("policy")["rules"]["holding_limit"] == 13


def test_an_import_begins_once_somebody_else_has_opened_it(guishu: Shell, folder: Path) -> None:
    guishu("people", "add", "李总", "--role", "admin", *BOSS)
    guishu("four-eyes", "on", *BOSS)
    (folder / "files" / "list.csv").write_text("name,remark,owner\n恒信,,王强\n", encoding="utf-8")
    importing = ("import", str(folder / "list.toml"), str(folder / "files"), *BOSS)
    for _ in range(2):
        said = guishu(*importing, status=1)
        (proposal,) = guishu.json("proposals")
        assert f"proposed: The import is proposed as {proposal['proposal']}." in said.err
    assert "the import list" in guishu("proposals").out
    assert "恒信" not in guishu("customers").out
    guishu("adopt", proposal["proposal"], "--as", "李总")
    guishu(*importing)
    assert "恒信" in guishu("customers").out
    # Whoever proposed it is who imports, also where nobody is named.
    assert "could not be used: 0" in guishu(*importing[:-2]).out
    guishu("verify")


def test_a_ledger_of_two_administrators_begins_with_four_eyes(
    database: DatabaseUrls,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    shell = Shell(monkeypatch, capsys, database.owner_url)
    said = shell("init", "东方智造", "陈建国", "--second-administrator", "李总")
    assert "陈建国 and 李总 are its administrators" in said.out
    assert shell.json("four-eyes") == {"required": True}
    assert "proposed as" in shell("four-eyes", "off", *BOSS).out
