"""A demo organisation, made from a seed: people, territories, and three months of history.

What happens in it today is in api/demo_today.py.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from stdnum.cn import uscc

from api.holidays import years_for
from ledger import building, commands, ids
from ledger import organisation_commands as facts
from ledger.commands import CustomerCommand, parse
from ledger.conditions import Condition
from ledger.deciders import LATEST
from ledger.envelope import Origin
from ledger.errors import LedgerError
from ledger.policy import Policy, TerritoryRule
from ledger.recording import Asked, Recording
from ledger.recycling_rules import RecycleRule, Recycling

CALLER = "demo"
SEED = 20_260_301
# Who has left behind customers that nobody looks after, and who claims where they are not at home.
LEAVER, OUTSIDER = "孙磊", "张伟"
CUSTOMERS = 180
DAYS = 90
_TIME_ZONE = "Asia/Shanghai"
# Nobody followed up for so long: not every customer of three months, but one or two a day.
RECYCLE_DAYS = 45
# So many minutes behind the history's end some are warned of, so that it can be seen.
_WARNED_DAYS = Recycling().warnings[0].days_before
_WARNED_MINUTES = (3, 6, 10, 15)
# A lead goes back sooner, and without a warning: what is not followed up within a week was no lead
# of anybody. So many minutes behind the history's end some go, so that this can be seen as well.
LEAD_DAYS = 7
_LEAD_MINUTES = (1, 3, 6)

# Territory, its parent, and the provinces that lie in it.
_TERRITORIES: tuple[tuple[str, str | None, tuple[str, ...]], ...] = (
    ("全国", None, ()),
    ("华东", "全国", ("上海", "江苏", "浙江", "山东")),
    ("华北", "全国", ("北京", "天津", "河北")),
    ("华南", "全国", ("广东", "福建", "海南")),
    ("西南", "全国", ("四川", "重庆", "云南")),
)
_HEADS = {
    "全国": "陈建国",
    "华东": "林晓燕",
    "华北": "王志远",
    "华南": "黄丽华",
    "西南": "何大勇",
}
_REPS = {
    "华东": ("张伟", "李娜", "周杰", "吴敏"),
    "华北": ("刘洋", "赵静", "孙磊"),
    "华南": ("郑凯", "罗琳", "梁晨"),
    "西南": ("唐婷", "冯涛"),
}
_CITIES = {
    "上海": ("上海",),
    "江苏": ("苏州", "南京", "无锡"),
    "浙江": ("杭州", "宁波"),
    "山东": ("青岛", "济南"),
    "北京": ("北京",),
    "天津": ("天津",),
    "河北": ("石家庄", "唐山"),
    "广东": ("广州", "深圳", "佛山"),
    "福建": ("厦门", "福州"),
    "海南": ("海口",),
    "四川": ("成都", "绵阳"),
    "重庆": ("重庆",),
    "云南": ("昆明",),
}
_AREA_CODES = {
    "上海": "310000", "江苏": "320000", "浙江": "330000", "山东": "370000", "北京": "110000",
    "天津": "120000", "河北": "130000", "广东": "440000", "福建": "350000", "海南": "460000",
    "四川": "510000", "重庆": "500000", "云南": "530000",
}  # fmt: skip
_FIRST = "鼎恒华信锦瑞泰安嘉德宏远东方新启明诚联创博雅中和光大正通达"
_SECOND = "盛昌源科润达兴隆辉成立信佳业锐思维创力维诺捷飞宇晨海川峰"
_TRADES = (
    "智能装备",
    "精密机械",
    "新材料",
    "医疗器械",
    "物流",
    "软件",
    "食品",
    "环保",
    "电子",
    "纺织",
)
_REASONS = ("better_placed", "workload", "customer_moved")
_CHANNELS = ("call", "visit", "wechat", "email")
_NOTES = (
    "介绍了新产品线,客户要报价单",
    "拜访了采购部,约好下周演示",
    "客户说预算要等季度末",
    "发了样品,等测试结果",
    "谈了付款条件,还差两个点",
)
_CHARACTERS = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def demo_id(prefix: str, name: str) -> str:
    """Return the id of a person or territory of the demo organisation."""
    return ids.derived_id(prefix, CALLER, name)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo was made of: the administrator's id and how many requests were recorded."""

    administrator: str
    requests: int


def policy() -> Policy:
    """Return the demo's policy: the defaults, with low limits so that they can be met.

    Customers that nobody works are recycled, but for those with a won deal; leads are so at once.
    """
    rules = tuple(
        TerritoryRule(
            territory=demo_id(ids.TERRITORY, name),
            conditions=(Condition(attribute="region", operator="one_of", value=provinces),),
        )
        for name, _, provinces in _TERRITORIES
        if provinces
    )
    recycling = Recycling(
        rules=(
            RecycleRule(won_deals_min=1),
            RecycleRule(
                conditions=(Condition(attribute="stage", operator="is", value="lead"),),
                follow_up_days=LEAD_DAYS,
                warnings=(),
            ),
            RecycleRule(follow_up_days=RECYCLE_DAYS),
        )
    )
    return Policy(
        holding_limit=40,
        daily_claim_limit=12,
        territory_rules=rules,
        recycling=recycling,
        claims_may_await=True,
    )


def make_demo(recording: Recording, now: datetime) -> Demo:
    """Record the demo organisation and its history up to ``now`` (UTC).

    The history is an import, so that it takes effect when it happened, under the demo's policy.
    """
    chance = chance_of()
    administrator = demo_id(ids.PERSON, _HEADS["全国"])
    _found(recording, administrator, now)
    history = sorted(_history(chance, now), key=lambda asked: asked[0])
    import_id = demo_id(ids.IMPORT, "history")
    opening = facts.OpenImport(
        import_id=import_id,
        name="demo-history",
        time_zone=_TIME_ZONE,
        # What was claimed from outside in the past was refused then, and awaits nobody now.
        policy=policy().model_copy(update={"claims_may_await": False}),
    )
    recording.record_fact(opening, origin_of("import", administrator))
    asked = [
        Asked(command, origin_of(key, actor, occurred=at, import_id=import_id), seed=seed)
        for at, _, key, actor, command, seed in history
    ]
    for start in range(0, len(asked), 1_000):
        for result in recording.record_many(asked[start : start + 1_000]):
            if isinstance(result, LedgerError):
                raise result
    return Demo(administrator, len(asked))


def close_demo(recording: Recording, demo: Demo) -> None:
    """Close the demo's import, once its history has been decided; from then on all is live."""
    closing = facts.CloseImport(import_id=demo_id(ids.IMPORT, "history"))
    recording.record_fact(closing, origin_of("close", demo.administrator))


def about_to_go() -> set[str]:
    """Return the customers of which something falls due within minutes."""
    first = CUSTOMERS
    numbers = range(first, first + len(_WARNED_MINUTES) + len(_LEAD_MINUTES))
    return {building.Ids(_seed(number)).make(ids.CUSTOMER) for number in numbers}


def _seed(number: int) -> str:
    return f"demo/customer/{number}"


def chance_of(about: str | None = None) -> random.Random:
    """Return chance that is the same each time; what is drawn about one thing moves no other."""
    seed = SEED if about is None else f"{SEED}/{about}"
    return random.Random(seed)  # noqa: S311 - a demo is to come out the same, not to be secret


def head_of(person: str) -> str:
    """Return the head of the team that somebody is in."""
    (territory,) = (
        name for name, team in _REPS.items() if person in [demo_id(ids.PERSON, m) for m in team]
    )
    return demo_id(ids.PERSON, _HEADS[territory])


def colleagues(owner: str) -> list[str]:
    """Return the others of an owner's team."""
    teams = ([demo_id(ids.PERSON, name) for name in team] for team in _REPS.values())
    return [each for team in teams if owner in team for each in team if each != owner]


def origin_of(
    key: str, actor: str, *, occurred: datetime | None = None, import_id: str | None = None
) -> Origin:
    """Return the origin of a request of the demo: made again under its key, it stands once."""
    return Origin(CALLER, f"demo/{key}", actor, occurred=occurred, import_id=import_id)


def _found(recording: Recording, administrator: str, now: datetime) -> None:
    commands_: list[facts.FactCommand] = [
        facts.FoundOrganisation(name="东方智造", time_zone=_TIME_ZONE)
    ]
    for name, parent, _ in _TERRITORIES:
        commands_.append(_territory(name, parent))
    for territory, head in _HEADS.items():
        roles = ("admin", "manager") if territory == "全国" else ("manager",)
        commands_.append(_person(head, territory, roles))
    for territory, people in _REPS.items():
        commands_.extend(_person(name, territory, ("rep",)) for name in people)
    for name, parent, _ in _TERRITORIES:
        head = demo_id(ids.PERSON, _HEADS[name])
        commands_.append(_territory(name, parent, head))
    # Whoever tries the demo is one person, who would find nobody to adopt what they propose.
    commands_.append(facts.RequireFourEyes(required=False))
    commands_.append(facts.AdoptDecider(version=LATEST))
    commands_.append(facts.AdoptPolicy(policy=policy(), comment="the demo's limits are low"))
    commands_ += years_for(_TIME_ZONE, now.date())
    recording.record_facts(commands_, origin_of("organisation", administrator))


def _territory(name: str, parent: str | None, head: str | None = None) -> facts.DefineTerritory:
    return facts.DefineTerritory(
        territory=demo_id(ids.TERRITORY, name),
        name=name,
        parent=demo_id(ids.TERRITORY, parent) if parent else None,
        head=head,
    )


def _person(name: str, territory: str, roles: Sequence[Any]) -> facts.AddPerson:
    return facts.AddPerson(
        person=demo_id(ids.PERSON, name),
        name=name,
        territory=demo_id(ids.TERRITORY, territory),
        roles=tuple(roles),
    )


# When, a running number that keeps the order of one moment, key, actor, command, seed of ids.
_Act = tuple[datetime, int, str, str, CustomerCommand, str]


def _history(chance: random.Random, now: datetime) -> Iterator[_Act]:
    """Yield what happened in three months; at times two people want the same customer."""
    places = [
        (territory, province) for territory, _, provinces in _TERRITORIES for province in provinces
    ]
    names: set[str] = set()
    start = now - timedelta(days=DAYS)
    for number in range(CUSTOMERS):
        territory, province = chance.choice(places)
        reps = [demo_id(ids.PERSON, name) for name in _REPS[territory]]
        life = _Life(chance, number, demo_id(ids.PERSON, _HEADS[territory]), reps, start, now)
        yield life.registered(_company(chance, province, names), province)
        yield from life.worked()
    # By a chance of their own, so that all the others stay as they are without them.
    apart = chance_of("forgotten")
    for number, minutes in enumerate(_WARNED_MINUTES, start=CUSTOMERS):
        territory, province = apart.choice(places)
        reps = [demo_id(ids.PERSON, name) for name in _REPS[territory]]
        life = _Life(apart, number, demo_id(ids.PERSON, _HEADS[territory]), reps, start, now)
        last = timedelta(days=RECYCLE_DAYS - _WARNED_DAYS) - timedelta(minutes=minutes)
        yield from life.forgotten(_company(apart, province, names), province, now - last)
    leads = chance_of("leads")
    for number, minutes in enumerate(_LEAD_MINUTES, start=CUSTOMERS + len(_WARNED_MINUTES)):
        territory, province = leads.choice(places)
        # Of whoever leaves they would be orphaned, and stay.
        reps = [demo_id(ids.PERSON, name) for name in _REPS[territory] if name != LEAVER]
        life = _Life(leads, number, demo_id(ids.PERSON, _HEADS[territory]), reps, start, now)
        last = timedelta(days=LEAD_DAYS) - timedelta(minutes=minutes)
        name = _company(leads, province, names)
        yield from life.forgotten(name, province, now - last, stage="lead")


class _Life:
    """One customer's story."""

    def __init__(
        self,
        chance: random.Random,
        number: int,
        head: str,
        reps: list[str],
        start: datetime,
        now: datetime,
    ) -> None:
        self._chance = chance
        # Of its own, so that what else happens does not depend on it.
        self._handing_over = chance_of(str(number))
        self._number = number
        self._head = head
        self._reps = reps
        self._now = now
        self._steps = 0
        self._seed = _seed(number)
        self._customer = building.Ids(self._seed).make(ids.CUSTOMER)
        self._at = start + timedelta(hours=chance.randint(0, 24 * (DAYS - 2)))

    def registered(self, name: str, province: str, **attributes: str) -> _Act:
        chance = self._chance
        fields: dict[str, Any] = {
            "name": name,
            "identifiers": [{"system": "uscc", "value": credit_code(chance, province)}],
            "attributes": {
                "region": province,
                "industry": chance.choice(_TRADES),
                "size": chance.choice(("large", "middle", "small", "small")),
                **attributes,
            },
            "contacts": [{"name": chance.choice("王李张刘陈杨") + "经理", "phone": _phone(chance)}],
        }
        return self._act(self._head, parse(commands.RegisterCustomer, fields), self._seed)

    def worked(self) -> Iterator[_Act]:
        chance = self._chance
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            owner = chance.choice(self._reps)
            if not self._later(1, 60):
                return
            yield self._claim(owner)
            if chance.random() < 0.3:
                self._later(0, 3)
                yield self._claim(chance.choice(self._reps))
            for _ in range(chance.randint(0, 5)):
                if not self._later(12, 120):
                    return
                person = owner if chance.random() < 0.9 else chance.choice(self._reps)
                yield self._follow_up(person)
            if chance.random() < 0.35 and self._later(4, 48):
                yield self._deal(owner)
            yield from self._transferred(owner)
            if chance.random() < 0.3 and self._later(24, 240):
                release = commands.ReleaseCustomer(
                    customer=self._customer, reason_code="not_reached"
                )
                yield self._act(owner, release)

    def forgotten(
        self, name: str, province: str, last: datetime, **attributes: str
    ) -> Iterator[_Act]:
        """Yield the story of a customer that was claimed, followed up once, and left alone."""
        owner = self._chance.choice(self._reps)
        self._at = last - timedelta(days=3)
        yield self.registered(name, province, **attributes)
        self._at = last - timedelta(days=1)
        yield self._claim(owner)
        self._at = last
        yield self._follow_up(owner)

    def _transferred(self, owner: str) -> Iterator[_Act]:
        """Now and then the owner hands the customer to a colleague; the newest still waits."""
        chance = self._handing_over
        colleagues = [each for each in self._reps if each != owner]
        if chance.random() > 0.15 or not self._later(12, 72):
            return
        receiver = chance.choice(colleagues)
        asked = self._act(
            owner,
            commands.RequestTransfer(
                customer=self._customer, receiver=receiver, reason_code=chance.choice(_REASONS)
            ),
        )
        yield asked
        transfer = building.Ids(asked[-1]).make(ids.TRANSFER)
        for person, likely in ((self._head, 0.8), (receiver, 0.9)):
            if not self._later(6, 48):
                return
            agrees = chance.random() < likely
            yield self._act(
                person,
                commands.Approve(customer=self._customer, approval=transfer)
                if agrees
                else commands.Refuse(
                    customer=self._customer, approval=transfer, reason_code="no_capacity"
                ),
            )
            if not agrees:
                return

    def _later(self, hours_min: int, hours_max: int) -> bool:
        hours = self._chance.uniform(hours_min, hours_max)
        self._at += timedelta(hours=hours)
        return self._at < self._now

    def _claim(self, person: str) -> _Act:
        return self._act(person, commands.FileClaim(customer=self._customer, claimant=person))

    def _follow_up(self, person: str) -> _Act:
        next_on = (self._at + timedelta(days=self._chance.randint(2, 14))).date()
        follow_up = commands.LogFollowUp(
            customer=self._customer,
            person=person,
            channel=self._chance.choice(_CHANNELS),
            note=self._chance.choice(_NOTES),
            next_on=next_on,
        )
        return self._act(person, follow_up)

    def _deal(self, person: str) -> _Act:
        amount = Decimal(self._chance.randint(20, 900)) * 1_000
        won = self._chance.random() < 0.6
        deal = commands.RecordDeal(
            customer=self._customer,
            person=person,
            outcome="won" if won else "lost",
            value=commands.MoneyIn(amount=amount, currency="CNY"),
        )
        return self._act(person, deal)

    def _act(self, actor: str, command: CustomerCommand, seed: str | None = None) -> _Act:
        self._steps += 1
        key = f"{self._number}/{self._steps}"
        at = min(self._at, self._now)
        order = self._number * 1_000 + self._steps
        return at, order, key, actor, command, seed or f"demo/{key}"


def _company(chance: random.Random, province: str, names: set[str]) -> str:
    while True:
        city, trade = chance.choice(_CITIES[province]), chance.choice(_TRADES)
        name = f"{city}{chance.choice(_FIRST)}{chance.choice(_SECOND)}{trade}有限公司"
        if name not in names:
            names.add(name)
            return name


def credit_code(chance: random.Random, province: str) -> str:
    """Return a credit code with a right check digit that no registry gave to anybody."""
    body = "91" + _AREA_CODES[province] + "MADEM" + "".join(chance.choices(_CHARACTERS, k=4))
    code: str = body + uscc.calc_check_digit(body)
    return code


def _phone(chance: random.Random) -> str:
    return "1" + "".join(chance.choices("0123456789", k=10))
