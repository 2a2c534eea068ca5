"""What falls due, on the command line; and that the clock runs where the ledger does."""

from __future__ import annotations

import pytest

from api.bootstrap import open_ledger
from api.cli.due_commands import KEPT_BESIDE, REAL_FOLLOW_UP
from api.running import running
from api.settings import load_settings
from tests.api.cli.test_commands import BOSS, Shell, days_ahead
from tests.api.cli.test_commands import guishu as guishu  # the fixture
from tests.support.processes import wait_until

LEADING = """
SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE locktype = 'advisory' AND granted AND datname = current_database()
  AND classid::bigint = hashtext('guishu clock')::bigint & 4294967295
"""


def _transfer(guishu: Shell) -> str:
    guishu("people", "add", "王强", "--territory", "华东", *BOSS)
    guishu("register", "恒信电子", "--territory", "华东", *BOSS)
    guishu("claim", "恒信电子", "--as", "李娜")
    made: str = guishu.json("transfer", "恒信电子", "王强", "--as", "李娜")["made"]
    return made


def test_what_is_due_says_when_what_and_who_is_awaited(guishu: Shell) -> None:
    assert "due within 7 days: none" in guishu("due").out
    transfer = _transfer(guishu)
    said = guishu("due", "--ids").out
    for word in ("恒信电子", "reminded", "李娜", "陈建国", transfer):
        assert word in said
    assert "due within 1 days: none" in guishu("due", "--days", "1").out
    ((row),) = guishu.json("due", "--limit", "1")
    assert (row["kind"], row["subject"], row["overdue"]) == ("step_reminder", transfer, False)
    assert "--limit 2" in guishu("due", "--limit", "1").err


def test_the_inbox_says_until_when(guishu: Shell) -> None:
    transfer = _transfer(guishu)
    assert "reminded" in guishu("inbox", *BOSS).out
    (row,) = guishu.json("inbox", *BOSS)
    assert (row["next"]["kind"], row["next"]["subject"]) == ("step_reminder", transfer)
    guishu("withdraw", transfer, "--as", "李娜")
    assert "due within 7 days: none" in guishu("due").out


def test_figures_that_contradict_each_other_are_refused(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(
        "[approval_deadlines]\nremind_days = 3\npass_on_days = 2\n",
        encoding="utf-8",
    )
    said = guishu("policy", "adopt", str(policy), *BOSS, status=1)
    assert "pass_on_days must be more than remind_days" in said.err


def test_the_clock_runs_beside_the_ledger_where_it_is_asked_for(guishu: Shell) -> None:
    _transfer(guishu)
    with open_ledger(load_settings()) as ledger, ledger.pool.connection() as connection:

        def leads() -> bool:
            return connection.execute(LEADING).fetchone() == (1,)

        with running(ledger):
            assert not leads()
        with running(ledger, clock_too=True):
            wait_until(leads)
        wait_until(lambda: not leads())


def test_what_goes_back_to_the_pool_is_foretold_and_can_be_held(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    _transfer(guishu)
    guishu("withdraw", "恒信电子", "--as", "李娜")
    assert "back to the pool within 30 days: none" in guishu("recycle").out
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text("[[recycling.rules]]\nfollow_up_days = 31\n", encoding="utf-8")
    guishu("policy", "adopt", str(policy), *BOSS)
    assert "a warning that it goes" in guishu("due", "--days", "30").out
    said = guishu("recycle", "--forecast", "32").out
    assert "李娜" in said
    assert "恒信电子" not in said
    assert "恒信电子" in guishu("recycle", "--forecast", "32", "--customers").out
    (row,) = guishu.json("recycle", "--forecast", "32", "--owner", "李娜")
    assert (row["because"], row["next"]["kind"]) == ("no_follow_up", "recycle_warning")
    assert guishu.json("recycle", "--forecast", "32", "--owner", "王强") == []
    refused = guishu("recycle", "hold", "恒信电子", days_ahead(40), "--as", "李娜", status=3)
    assert "hold_needs_head" in refused.out
    held = guishu("recycle", "hold", "恒信电子", days_ahead(40), "--reason", "大单", *BOSS)
    assert "held: 恒信电子 until" in held.out
    assert "back to the pool within 32 days: none" in guishu("recycle", "--forecast", "32").out
    assert "is no day" in guishu("recycle", "hold", "恒信电子", "soon", *BOSS, status=1).err


def test_what_keeps_a_customer_from_the_pool_is_said(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It was just missing among those that would go, or went later than anybody could explain."""
    transfer = _transfer(guishu)
    assert "nothing is recycled" in guishu("recycle", "kept").err
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(
        "[[recycling.rules]]\nconditions = [{attribute='size', operator='is', value='large'}]\n"
        "[[recycling.rules]]\nfollow_up_days = 31\n",
        encoding="utf-8",
    )
    guishu("policy", "adopt", str(policy), *BOSS)
    assert KEPT_BESIDE in guishu("recycle").err
    assert "a transfer is open" in guishu("recycle", "kept").out
    ((kept,),) = (row["kept"] for row in guishu.json("recycle", "kept", "--owner", "李娜"))
    assert (kept["by"], kept["subject"]) == ("approval_open", transfer)
    assert "none" in guishu("recycle", "kept", "--owner", "王强").out
    guishu("withdraw", transfer, "--as", "李娜")
    assert guishu.json("recycle", "kept") == []
    # What is over by a date goes later, and is told with it.
    guishu("recycle", "hold", "恒信电子", days_ahead(40), *BOSS)
    assert "on hold" in guishu("recycle", "kept", "--customer", "恒信电子").out
    said = guishu("due", "--days", "90").out
    assert "a warning that it goes" in said
    assert f"on hold until {days_ahead(40)}" in said
    (row,) = guishu.json("due", "--days", "90")
    assert [each["by"] for each in row["kept"]] == ["on_hold"]
    guishu("register", "大成物流", "--territory", "华东", "--attribute", "size=large", *BOSS)
    guishu("claim", "大成物流", "--as", "李娜")
    assert "exempt: where size is large" in guishu("recycle", "kept").out
    first = guishu("recycle", "kept", "--limit", "1")
    assert "there may be more: --after cus_" in first.err
    guishu("people", "left", "李娜", days_ahead(0), *BOSS)
    assert "the owner has left" in guishu("recycle", "kept").out


def test_a_token_follow_up_is_flagged_wherever_it_is_shown(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text("[[recycling.rules]]\nfollow_up_days = 31\n", encoding="utf-8")
    guishu("policy", "adopt", str(policy), *BOSS)
    guishu("register", "恒信电子", "--territory", "华东", *BOSS)
    guishu("claim", "恒信电子", "--as", "李娜")
    guishu("follow-up", "恒信电子", "客户要报价单", "--as", "李娜")
    (before,) = guishu.json("due", "--days", "30")
    assert before["last_follow_up_is_token"] is False
    # The same words, blanks and width aside: by the digest that stands beside the sealed note.
    said = guishu("follow-up", "恒信电子", " 客户要 报价单", "--as", "李娜")
    assert "The follow-up only repeats one before" in said.out
    (after,) = guishu.json("due", "--days", "30")
    assert after == {**before, "last_follow_up_is_token": True}
    assert REAL_FOLLOW_UP in guishu("due", "--days", "30").out
    told = guishu("history", "恒信电子").out
    assert "only repeats one before, by its note or within minutes. It does not count" in told
    (noted,) = [
        each
        for each in guishu.json("history", "恒信电子")["entries"]
        if each["code"] == "token_follow_up"
    ]
    assert noted["details"]["token_of"].startswith("fol_")
    guishu("verify")


def test_a_recycling_rule_names_its_territories_by_name(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Finding: the names went into the policy as if they were ids, and matched nothing."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    guishu("register", "恒信电子", "--territory", "华东", *BOSS)
    guishu("claim", "恒信电子", "--as", "李娜")
    for rules, status, says in (
        ('[[recycling.rules]]\nterritories = ["华东"]\nfollow_up_days = 31\n', 0, "in force"),
        ('[[recycling.rules]]\nterritories = ["华西"]\nfollow_up_days = 31\n', 1, "not_found"),
        ("[[recycling.rules]]\nterritories = [7]\nfollow_up_days = 31\n", 1, "territories"),
        ("recycling = 7\n", 1, "recycling"),
    ):
        policy.write_text(rules, encoding="utf-8")
        said = guishu("policy", "adopt", str(policy), *BOSS, status=status)
        assert says in said.out + said.err
    assert [row["kind"] for row in guishu.json("due", "--days", "30")] == ["recycle_warning"]
