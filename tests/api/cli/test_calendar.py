"""Working days and holidays, on the command line."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from api.cli.checks import CALENDAR_DAYS_AHEAD
from api.holidays import known_years, year_of_library, years_around
from ledger.commands import InvalidRequestError
from tests.api.cli.test_commands import BOSS, Shell, findings
from tests.api.cli.test_commands import guishu as guishu  # the fixture

# The organisation's: near the end of a month its day is another one than that of UTC.
ZONE = ZoneInfo("Asia/Shanghai")
THIS_YEAR = datetime.now(ZONE).year
UNKNOWN = known_years()[-1] + 1


def _adopt(guishu: Shell, folder: Path, days: str) -> None:
    policy = folder / "policy.toml"
    policy.write_text(
        f'[recycling]\ndays = "{days}"\n[[recycling.rules]]\nfollow_up_days = 300\n',
        encoding="utf-8",
    )
    guishu("policy", "adopt", str(policy), *BOSS)


def test_the_library_says_which_days_are_exceptions_to_the_week() -> None:
    year = year_of_library(2026)
    assert year.workdays == tuple(
        date.fromisoformat(f"2026-{each}")
        for each in ("01-04", "02-14", "02-28", "05-09", "09-20", "10-10")
    )
    assert date(2026, 10, 1) in year.holidays
    assert all(each.weekday() < 5 for each in year.holidays)
    assert year.source is not None
    assert year.source.startswith("chinesecalendar 1.")
    # Every year that it knows makes a fact.
    assert [year_of_library(each).year for each in known_years()] == list(known_years())
    with pytest.raises(InvalidRequestError, match=f"not {UNKNOWN}"):
        year_of_library(UNKNOWN)
    assert [each.year for each in years_around(date(UNKNOWN, 5, 1))] == [UNKNOWN - 1]


def test_a_new_organisation_of_mainland_china_knows_its_holidays(guishu: Shell) -> None:
    known = [each for each in range(THIS_YEAR - 1, THIS_YEAR + 2) if each in known_years()]
    stated = guishu.json("calendar")
    assert [each["year"] for each in stated] == known
    assert "chinesecalendar" in guishu("calendar").out
    said = guishu("calendar", "seed", *BOSS)
    assert "nothing to state" in said.out
    assert guishu.json("calendar", "seed", *BOSS) == {"stated": [], "position": None}


def test_years_are_stated_once_from_the_library_and_shown(guishu: Shell) -> None:
    assert "stated: 2018, 2019" in guishu("calendar", "seed", "2018", "2019", *BOSS).out
    assert guishu.json("calendar", "seed", "2018", "2020", *BOSS)["stated"] == [2020]
    shown = guishu.json("calendar", "show", "2018")
    assert shown["holidays"][0] == "2018-01-01"
    said = guishu("calendar", "show", "2018").out
    assert "2018-02-11" in said
    assert "worked" in said
    assert "Of 1999 no holidays are stated" in guishu("calendar", "show", "1999").out
    assert f"not {UNKNOWN}" in guishu("calendar", "seed", str(UNKNOWN), *BOSS, status=1).err
    assert "Nobody is named" in guishu("calendar", "seed", "2017", status=1).err
    assert "not_permitted" in guishu("calendar", "seed", "2017", "--as", "李娜", status=1).err


def test_what_people_state_is_replaced_only_where_they_say_so(guishu: Shell) -> None:
    days = ("--holiday", "2018-03-05", "--holiday", "2018-03-06", "--workday", "2018-03-10")
    assert (
        "2018: 2 holidays, 1 weekend days" in guishu("calendar", "state", "2018", *days, *BOSS).out
    )
    assert guishu.json("calendar", "show", "2018") == {
        "year": 2018,
        "holidays": ["2018-03-05", "2018-03-06"],
        "workdays": ["2018-03-10"],
        "source": None,
    }
    assert "people" in guishu("calendar").out
    said = guishu("calendar", "seed", "2018", *BOSS, status=1)
    assert "people have stated 2018 otherwise" in said.err
    assert guishu.json("calendar", "seed", "2018", "--replace", *BOSS)["stated"] == [2018]
    assert guishu.json("calendar", "show", "2018")["source"].startswith("chinesecalendar")
    # In the log both stand.
    told = [
        each for each in guishu("events", "--limit", "200").out.splitlines() if "2018: " in each
    ]
    assert len(told) == 2


def test_a_calendar_takes_two_where_policies_do(guishu: Shell) -> None:
    """Calendars decide when customers are recycled, and one person alone stated them."""
    guishu("people", "add", "李总", "--role", "admin", *BOSS)
    guishu("four-eyes", "on", *BOSS)
    before = guishu.json("calendar")
    said = guishu("calendar", "seed", "2018", "2019", *BOSS)
    assert said.out.count("somebody else adopts it") == 2
    state = ("calendar", "state", "2017", "--holiday", "2017-03-06")
    assert guishu.json(*state, *BOSS)["proposed"]
    assert guishu.json("calendar") == before
    assert "2017: 1 holidays, 0 weekend days worked" in guishu("proposals").out
    for proposal in guishu.json("proposals"):
        guishu("adopt", proposal["proposal"], *BOSS, status=1)
        guishu("adopt", proposal["proposal"], "--as", "李总")
    assert len(guishu.json("calendar")) == len(before) + 3
    assert guishu.json("calendar", "show", "2017")["holidays"] == ["2017-03-06"]
    guishu("verify")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("2018", "--holiday", "2018-03-10"), "a holiday is a Saturday or Sunday"),
        (("2018", "--workday", "2018-03-09"), "a working day is none of a weekend"),
        (("2018", "--holiday", "soon"), "is no day such as"),
        (("2018", "--holiday", "2019-03-05"), "lies in another year"),
    ],
)
def test_days_that_make_no_sense_get_one_sentence(
    guishu: Shell, arguments: tuple[str, ...], says: str
) -> None:
    before = guishu.json("calendar")
    assert says in guishu("calendar", "state", *arguments, *BOSS, status=1).err
    assert guishu.json("calendar") == before


def test_what_is_provisional_is_said_where_working_days_count(
    guishu: Shell, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("policy")
    guishu("register", "恒信电子", "--territory", "华东", *BOSS)
    guishu("claim", "恒信电子", "--as", "李娜")

    _adopt(guishu, folder, "calendar")
    assert guishu("recycle", "--forecast", "900").err == ""
    assert "counts no working days" in findings(guishu, status=0)["calendar"]["found"]
    _adopt(guishu, folder, "working")
    # 300 working days end more than a year from now, in one that nobody has stated.
    (row,) = guishu.json("recycle", "--forecast", "900")
    last = int(row["day"][:4])
    lacking = [each for each in range(THIS_YEAR, last + 1) if each not in known_years()]
    assert lacking
    assert f"Of {', '.join(map(str, lacking))} no" in guishu("recycle", "--forecast", "900").err
    assert "provisional" in guishu("due", "--days", "900").err
    # What is not announced yet is no trouble; what should be stated by now is.
    soon = (datetime.now(ZONE) + timedelta(days=CALENDAR_DAYS_AHEAD)).year
    good = lacking[0] > soon
    doctor = findings(guishu, status=0 if good else 4)["calendar"]
    assert (doctor["good"], doctor["found"][:3]) == (good, "Of ")
    for year in lacking:
        guishu("calendar", "state", str(year), *BOSS)
    assert guishu("recycle", "--forecast", "900").err == ""
    assert guishu("due", "--days", "900").err == ""
    assert "stated as far" in findings(guishu, status=0)["calendar"]["found"]
    guishu("verify")
