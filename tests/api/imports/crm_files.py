"""Makes files of the layout that examples/crm-sales-opportunities maps, from a seed.

Every name in them is invented: syllables put together by the generator.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from pathlib import Path

FIRST_DAY = date(2021, 1, 4)
DAYS = 430

_SYLLABLES = ("bor", "dal", "fen", "gim", "hul", "kas", "lev", "mot", "nir", "pok", "rud", "sev")
_SECTORS = ("mining", "shipping", "printing", "technolgy")
_COUNTRIES = ("Northland", "Southmark", "Isle of Wren")
_PRODUCTS = {"Lamp One": 120, "Lamp Two": 990, "Beacon": 14_500}
_REGIONS = ("Harbour", "Hills", "Plains")


@dataclass(frozen=True, slots=True)
class Opportunity:
    """A row of the pipeline; what is None is an empty cell."""

    key: str
    agent: str
    product: str
    account: str | None
    stage: str
    engaged: date | None
    closed: date | None
    value: int | None


@dataclass(frozen=True, slots=True)
class CrmShape:
    """How much to make."""

    accounts: int = 85
    agents: int = 35
    opportunities: int = 880
    without_account: int = 142
    without_date: int = 16


def write_crm_files(folder: Path, shape: CrmShape, *, seed: int) -> None:
    """Write accounts.csv, sales_teams.csv and sales_pipeline.csv into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "sales_teams.csv", _TEAMS_HEADER, _team_rows(shape))
    _write(folder / "accounts.csv", _ACCOUNTS_HEADER, _account_rows(shape, seed))
    _write(folder / "sales_pipeline.csv", _PIPELINE_HEADER, _pipeline_rows(shape, seed))


_TEAMS_HEADER = "sales_agent,manager,regional_office"
_ACCOUNTS_HEADER = "account,sector,year_established,revenue,employees,office_location,subsidiary_of"
_PIPELINE_HEADER = (
    "opportunity_id,sales_agent,product,account,deal_stage,engage_date,close_date,close_value"
)


def _write(path: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def _chooser(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311  # rows to test with, and no secret


def _team_rows(shape: CrmShape) -> Iterator[Sequence[object]]:
    for number, agent in enumerate(agent_names(shape)):
        region = number % len(_REGIONS)
        manager = f"{_SYLLABLES[region].title()} Chief{'ab'[number % 2]}"
        yield agent, manager, _REGIONS[region]


def _account_rows(shape: CrmShape, seed: int) -> Iterator[Sequence[object]]:
    chooser = _chooser(seed)
    accounts = account_names(shape)
    for number, account in enumerate(accounts):
        sector, founded = chooser.choice(_SECTORS), chooser.randint(1950, 2020)
        revenue = f"{chooser.randint(1, 9_999)}.{chooser.randint(0, 99):02}"
        employees, country = chooser.randint(3, 40_000), chooser.choice(_COUNTRIES)
        parent = accounts[(number * 7) % 9 + 1] if number % 6 == 0 and number > 9 else ""
        yield account, sector, founded, revenue, employees, country, parent


def _pipeline_rows(shape: CrmShape, seed: int) -> Iterator[Sequence[object]]:
    for each in opportunities(shape, seed=seed):
        value = "" if each.value is None else each.value
        days = _day(each.engaged), _day(each.closed)
        yield each.key, each.agent, each.product, each.account or "", each.stage, *days, value


def agent_names(shape: CrmShape) -> list[str]:
    """Return the invented names of the agents."""
    return [
        f"{first.title()} {last.title()}son"
        for first, last, _ in zip(
            (a for a, _ in product(_SYLLABLES * 100, _SYLLABLES)),
            (b for _, b in product(_SYLLABLES * 100, _SYLLABLES)),
            range(shape.agents),
            strict=False,
        )
    ]


def account_names(shape: CrmShape) -> list[str]:
    """Return the invented names of the accounts."""
    base = len(_SYLLABLES)

    def name(number: int) -> str:
        syllables = []
        while True:
            number, digit = divmod(number, base)
            syllables.append(_SYLLABLES[digit])
            if not number:
                return "".join(syllables).title() + " Works"

    return [name(number) for number in range(shape.accounts)]


def opportunities(shape: CrmShape, *, seed: int) -> Iterator[Opportunity]:
    """Yield the rows of the pipeline; the same seed gives the same rows."""
    chooser = _chooser(seed)
    agents, accounts = agent_names(shape), account_names(shape)
    for number in range(shape.opportunities):
        accountless = number < shape.without_account
        dateless = not accountless and number < shape.without_account + shape.without_date
        engaged = FIRST_DAY + timedelta(days=chooser.randrange(DAYS))
        # A close on the very day of the engagement is the hard case of the order within a day.
        closed = engaged + timedelta(days=chooser.choice((0, 1, 3, 8, 20, 60)))
        product_name, price = chooser.choice(list(_PRODUCTS.items()))
        stage = chooser.choice(("Won", "Won", "Won", "Lost", "Lost", "Engaging"))
        if dateless:
            stage = "Prospecting"
        value = price if stage == "Won" else 0 if stage == "Lost" else None
        yield Opportunity(
            key=f"{number:05X}{chooser.randrange(4096):03X}",
            agent=chooser.choice(agents),
            product=product_name,
            account=None if accountless else chooser.choice(accounts),
            stage=stage,
            engaged=None if dateless else engaged,
            closed=closed if stage in ("Won", "Lost") else None,
            value=value,
        )


def _day(day: date | None) -> str:
    return "" if day is None else f"{day.month}/{day.day}/{day.year}"
