"""Policies in words, on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.api.cli.test_commands import BOSS, Shell, adopt
from tests.api.cli.test_commands import guishu as guishu  # the fixture

LINES = """
holding_limit = 40
won_customers_count = false
claims_may_await = true
cooldown_days = 0
late_follow_up_days = 0
conflicts_in_imports = true
[[territory_rules]]
territory = '华东'
conditions = [
    { attribute = 'region', operator = 'one_of', value = ['江苏', '浙江'] },
    { attribute = 'size', operator = 'is_not', value = 'small' },
]
[[approval_rules]]
purposes = ['transfer', 'claim']
territories = 'different'
value_at_least = { amount = '500000', currency = 'CNY' }
conditions = [{ attribute = 'grade', operator = 'is', value = 'key' }]
[[approval_rules.steps]]
needed = 'any'
approvers = [{ kind = 'person', person = "李娜" }, { kind = 'role', role = 'admin' }]
[[approval_rules.steps]]
approvers = [{ kind = 'head', of = 'receiving' }, { kind = 'common_head' }]
[[approval_rules.steps]]
needed = 2
approvers = [{ kind = 'owner' }, { kind = 'receiver' }, { kind = 'head' }]
[approval_deadlines]
remind_days = 1
[recycling]
days = 'working'
[[recycling.rules]]
territories = ['华东']
won_deals_min = 1
[[recycling.rules]]
conditions = [{ attribute = 'size', operator = 'is', value = 'large' }]
follow_up_days = 60
deal_days = 200
warnings = [{ days_before = 10, to = ['owner', 'head'] }]
[[recycling.rules]]
follow_up_days = 30
""".strip().splitlines()
SAID = (
    "at most 40 customers a person, those with a won deal not counted",
    "in one's own territory and those below it; from elsewhere awaiting approval",
    "华东: where region one of 江苏, 浙江 and size is not small",
    "judged by who owns the customer when they are entered",
    "a transfer or a claim from outside across territories of a deal of CNY 500,000 or more where"
    " grade is key: by 李娜 or anybody with the role admin; then the head of the receiving"
    " territory and the head above both territories; then 2 of the owner, the receiver, the head"
    " of the releasing territory",
    "reminded after 1 day, passed on upwards after 4 days, expires after 14 days",
    "in 华东 with 1 won deal or more: never",
    "where size is large: 60 working days without a follow-up or 200 working days without a won"
    " deal; 10 working days before it goes the owner and the head",
    "all others: 30 working days without a follow-up",
    "3 working days before it goes the owner, 1 working day before it goes the owner and the head",
    "a follow-up with the same note again, or within 10 minutes of the last",
    "another claim within 24 hours of the grant",
    "open conflicts too",
    "up to 50 % of the credit without approval",
)


def _words(shown: str) -> str:
    """Return what stands in a table, whatever its lines are broken at."""
    cells = [line.split("│")[2].strip() for line in shown.splitlines() if line.count("│") == 3]
    return " ".join(cells).replace("  ", " ")


def test_a_policy_is_told_in_words(guishu: Shell, tmp_path: Path) -> None:
    """It was shown as the raw data that stands in the log, with ids and none of its names."""
    adopt(guishu, tmp_path, *LINES)
    shown = guishu("policy").out
    for said in SAID:
        assert said in _words(shown)
    for raw in ("ter_", "per_", "{", "None", "_days", "operator"):
        assert raw not in shown
    assert guishu.json("policy")["rules"]["holding_limit"] == 40


def test_a_policy_that_names_nobody_who_is_there_is_refused(guishu: Shell, tmp_path: Path) -> None:
    """People had to be named by their ids, and any id would do."""
    steps = "[[approval_rules]]\nsteps = [{ approvers = [{ kind = 'person', person = '王五' }] }]"
    (tmp_path / "policy.toml").write_text(steps, encoding="utf-8")
    said = guishu("policy", "adopt", str(tmp_path / "policy.toml"), *BOSS, status=1)
    assert said.err.startswith("not_found: There is no person 王五.")


def test_a_policy_can_be_read_at_80_columns(
    guishu: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adopt(guishu, tmp_path, *LINES)
    monkeypatch.setenv("COLUMNS", "80")
    shown = guishu("policy").out
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert SAID[-3] in _words(shown)


def test_the_defaults_are_told_as_well(guishu: Shell) -> None:
    shown = guishu("policy").out
    for said in (
        "policy: the defaults",
        "at most 999 customers a person",
        "from elsewhere refused",
        "a transfer inside one territory: by the head of the releasing territory",
        "nothing is recycled",
        "open no conflicts",
    ):
        assert said in shown
    # Nobody is asked about claims that are refused.
    assert "a claim from outside" not in shown


def test_no_limits_are_told_as_none(guishu: Shell, tmp_path: Path) -> None:
    adopt(
        guishu,
        tmp_path,
        "claim_scope = 'everywhere'",
        "protection_days = 0",
        "conflict_kinds = []",
        "collaborator_share_max = 10.5",
        "approval_rules = []",
        "recycling = { rules = [{ deal_days = 9 }], warnings = [], token_follow_up_minutes = 0 }",
    )
    shown = guishu("policy").out
    for said in (
        "everywhere",
        "nothing needs any",
        "all customers: 9 days without a won deal",
        "nobody is warned",
        "the same note again ",
        "up to 10.5 % of the credit",
    ):
        assert said in shown
    assert "another claim within" not in shown


def test_older_and_proposed_policies_are_shown_and_compared(guishu: Shell, tmp_path: Path) -> None:
    """Whoever was to adopt a proposed policy could not see what it says, but as JSON."""
    adopt(guishu, tmp_path, "holding_limit = 7")
    adopt(guishu, tmp_path, "holding_limit = 8", "cooldown_days = 1")
    assert "at most 7 customers" in guishu("policy", "show", "1").out
    assert guishu.json("policy", "show", "1")["rules"]["holding_limit"] == 7
    said = guishu("policy", "compare", "1").out
    for words in ("at most 7 customers", "at most 8 customers", "3 days until", "1 day until"):
        assert words in said
    assert "protection" not in said
    assert "from policy 1 to policy 1: none" in guishu("policy", "compare", "1", "1").out
    guishu("people", "add", "李总", "--role", "admin", *BOSS)
    guishu("four-eyes", "on", *BOSS)
    adopt(guishu, tmp_path, "holding_limit = 9", "cooldown_days = 1")
    (proposal,) = (each["proposal"] for each in guishu.json("proposals"))
    assert "at most 9 customers" in guishu("policy", "show", proposal).out
    both = guishu.json("policy", "compare", "2", proposal)
    assert [each["rules"]["holding_limit"] for each in both.values()] == [8, 9]
    for unknown in ("3", "-1", "latest"):
        said_of = guishu("policy", "show", "--", unknown, status=1).err
        assert said_of.startswith("not_found: There is no policy")
