"""A long history of requests of every kind, made from a seed, for holding a version to its word."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from ledger.canonical import canonical_bytes
from ledger.conditions import Condition
from ledger.customer import Admitted, open_approvals
from ledger.deadlines import next_at
from ledger.events import decisions as d
from ledger.events import organisation as facts
from ledger.events import requests as r
from ledger.events.values import Identifier, Money, Part, Sealed
from ledger.policy import Policy, TerritoryRule
from ledger.recycling_rules import RecycleRule, Recycling
from tests.specs.story import Story

NAME = Sealed("key", "text")
CUSTOMERS = [f"cus_{number:02d}" for number in range(9)]
REPS = [f"per_{number}" for number in range(6)]
HEADS = ["per_boss", "per_east", "per_west"]
PEOPLE = [*REPS, *HEADS, "per_admin"]
REGIONS = ["华东", "华西", "海外"]


def decided(version: int, seed: int, requests: int) -> tuple[str, frozenset[str]]:
    """Return the SHA-256 of all that ``version`` decides on a history, and what kinds there are."""
    history = _History(version, random.Random(seed))  # noqa: S311 - it must come out the same
    for _ in range(requests):
        history.go_on()
    return history.digest.hexdigest(), frozenset(history.names)


@dataclass
class _History:
    version: int
    chance: random.Random
    digest: Any = field(default_factory=hashlib.sha256)
    names: set[str] = field(default_factory=set)
    made: int = 0
    policies: int = 0
    # What later requests may name: approvals, collaborations, conflicts, acts, by customer.
    named: dict[str, list[str]] = field(default_factory=dict)
    acts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.story = Story(version=self.version)
        home = {"per_4": "ter_west", "per_5": "ter_west", "per_west": "ter_west"}
        heads = {"ter_all": "per_boss", "ter_east": "per_east", "ter_west": "per_west"}
        self.story.given(
            facts.OrganisationFounded("公司", "Asia/Shanghai"),
            facts.PersonJoined("per_admin", NAME, None, ("admin",)),
            *(facts.PersonJoined(each, NAME, home.get(each, "ter_east")) for each in REPS),
            *(facts.PersonJoined(each, NAME, home.get(each), ("manager",)) for each in HEADS),
            *(
                facts.TerritoryDefined(each, each, None if each == "ter_all" else "ter_all", head)
                for each, head in heads.items()
            ),
        )
        self._adopt()
        for customer in CUSTOMERS:
            self._register(customer)

    def go_on(self) -> None:
        """Let some time pass, raise what falls due, and let somebody ask for something."""
        chance = self.chance
        self.story.later(minutes=chance.choice([1, 2, 5, 30, 120] * 20 + [9_000]))
        customer = chance.choice(CUSTOMERS)
        if self._raise_deadline(customer):
            return
        if chance.random() < 0.006:
            self._state_a_fact()
        kinds: list[tuple[Callable[[str, str], r.Request], int]] = [
            (self._claim, 10),
            (self._follow_up, 8),
            (self._deal, 4),
            (self._release, 2),
            (self._assign, 2),
            (self._transfer, 5),
            (self._answer, 20),
            (self._collaborate, 4),
            (self._rule, 9),
            (self._change, 2),
            (self._amend, 3),
            (self._hold, 1),
        ]
        if self.version >= 2:
            kinds += [(self._hand_over, 2), (self._stand_in, 3)]
        if self.version >= 3:
            kinds += [(self._review, 1)]
        make = chance.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        if make in (self._answer, self._rule) and chance.random() < 0.9:
            customer = chance.choice([each for each in CUSTOMERS if self._open(each)] or CUSTOMERS)
        self._ask(make(customer, chance.choice(PEOPLE)), self._actor(customer))

    # --- what happens ---------------------------------------------------------------------------

    def _ask(self, request: r.Request, actor: str) -> None:
        self.story.when(request, by=actor)
        draft = self.story.draft
        assert draft is not None
        for data in draft.all:
            name = self.story.events.name_of(data)
            self.names.add(name)
            written = {"name": name, "data": self.story.events.dump(data)}
            frame = {"effective": draft.effective.isoformat(), "policy": draft.policy}
            self.digest.update(canonical_bytes(written | frame | {"guards": draft.guards}))
            self._remember(data)

    def _remember(self, data: d.Decision) -> None:
        known = self.named.setdefault(data.customer, [])
        match data:
            case d.ApprovalOpened(approval=name) | d.CollaboratorAdded(collaboration=name):
                known.append(name)
            case d.ConflictOpened(conflict=name) | d.StandInNamed(stand_in=name):
                known.append(name)
            case _:
                pass

    def _raise_deadline(self, customer: str) -> bool:
        found = self.story.settled.customer(customer)
        now = self.story.now
        if not isinstance(found, Admitted):
            return False
        organisation = self.story.organisation.at(self.story.position + 1)
        due = next_at(customer, found, organisation, now)
        if due is None or due.due > now:
            return False
        self._ask(r.DeadlineReached(customer, due.kind, due.subject, due.due), "clock")
        return True

    def _state_a_fact(self) -> None:
        chance, person = self.chance, self.chance.choice(PEOPLE[:-1])
        today = self.story.now.date()
        what = chance.randrange(6)
        if what == 0:
            self._adopt()
        elif what == 1:
            until = today + timedelta(days=chance.randrange(1, 20))
            self.story.given(facts.PersonAway(person, today, until))
        elif what == 2:
            self.story.given(facts.PersonLeft(person, today))
        else:
            self.story.given(facts.PersonReturned(person, today))

    def _adopt(self) -> None:
        chance = self.chance
        self.policies += 1
        rules = tuple(
            TerritoryRule(
                territory=territory,
                conditions=(Condition(attribute="region", operator="one_of", value=(region,)),),
            )
            for territory, region in (("ter_east", "华东"), ("ter_west", "华西"))
        )
        recycle = RecycleRule(follow_up_days=chance.choice([8, 20]), deal_days=90)
        policy = Policy(
            holding_limit=chance.choice([None, 3, 5]),
            daily_claim_limit=chance.choice([None, 2]),
            cooldown_days=chance.choice([0, 3]),
            protection_days=chance.choice([0, 5]),
            claim_scope=chance.choice(["own_territory", "subtree", "everywhere"]),
            territory_rules=rules,
            won_customers_count=chance.choice([True, False]),
            recycling=Recycling(rules=(recycle,) if chance.random() < 0.7 else ()),
            conflict_window_hours=chance.choice([24, 200]),
        )
        self.story.given(facts.PolicyAdopted(self.policies, policy.as_rules()))

    # --- what is asked --------------------------------------------------------------------------

    def _actor(self, customer: str) -> str:
        """Return mostly somebody who may: the owner, or a head, or who is to receive it."""
        found = self.story.settled.customer(customer)
        likely = list(HEADS)
        if isinstance(found, Admitted):
            likely += [found.owner] * 3 if found.owner is not None else []
            receiver = found.approval.receiver if found.approval is not None else None
            likely += [receiver] * 3 if receiver is not None else []
        return self.chance.choice(likely if self.chance.random() < 0.8 else PEOPLE)

    def _new(self, prefix: str, customer: str) -> str:
        self.made += 1
        name = f"{prefix}_{self.made}"
        self.acts.setdefault(f"{prefix} {customer}", []).append(name)
        return name

    def _open(self, customer: str) -> list[str]:
        found = self.story.settled.customer(customer)
        if not isinstance(found, Admitted):
            return []
        rulings = [each.conflict for each in found.conflicts]
        return rulings + [each.approval for each in open_approvals(found)]

    def _known(self, customer: str) -> str:
        """Return mostly what is still open at the customer, else what once was."""
        names = self.named.get(customer, [])[-3:]
        if self.chance.random() < 0.8:
            names = self._open(customer) or names
        return self.chance.choice(names) if names else "none"

    def _act(self, prefix: str, customer: str) -> str:
        return self.chance.choice(self.acts.get(f"{prefix} {customer}", ["none"])[-30:])

    def _register(self, customer: str) -> None:
        chance = self.chance
        request = r.RegistrationRequested(
            customer,
            "organisation",
            "名",
            (Identifier("uscc", str(chance.randrange(20))),),
            attributes={
                "region": chance.choice(REGIONS),
                "grade": chance.choice(["key", "plain", "plain"]),
            },
            parent=chance.choice([None, *CUSTOMERS[: CUSTOMERS.index(customer)]]),
        )
        self._ask(request, "per_admin")

    def _claim(self, customer: str, person: str) -> r.Request:
        return r.ClaimFiled(customer, person)

    def _follow_up(self, customer: str, person: str) -> r.Request:
        found = self.story.settled.customer(customer)
        owner = found.owner if isinstance(found, Admitted) else None
        by = owner if owner is not None and self.chance.random() < 0.6 else person
        return r.FollowUpLogged(customer, self._new("fup", customer), by, "call")

    def _deal(self, customer: str, person: str) -> r.Request:
        outcome = self.chance.choice(["won", "lost"])
        value = Money(Decimal(self.chance.randrange(1_000)), "CNY")
        return r.DealRecorded(customer, self._new("deal", customer), person, outcome, value)

    def _release(self, customer: str, person: str) -> r.Request:
        return r.ReleaseRequested(customer, "no_need")

    def _assign(self, customer: str, person: str) -> r.Request:
        return r.AssignmentRequested(customer, person)

    def _transfer(self, customer: str, person: str) -> r.Request:
        keep: Literal["keep", "end"] | None = self.chance.choice(["keep", "end", None])
        return r.TransferRequested(
            customer, self._new("trf", customer), person, "moved", collaborators=keep
        )

    def _answer(self, customer: str, person: str) -> r.Request:
        name, lot = self._known(customer), self.chance.random()
        if lot < 0.75:
            return r.ApprovalGiven(customer, name)
        if lot < 0.9:
            return r.ApprovalDenied(customer, name, "no")
        return r.TransferWithdrawn(customer, name, "no_need")

    def _collaborate(self, customer: str, person: str) -> r.Request:
        if self.chance.random() < 0.3:
            return r.CollaborationEndRequested(customer, self._known(customer), "over")
        share = self.chance.choice([None, Decimal(20), Decimal(80)])
        name = self._new("cbn", customer)
        return r.CollaborationRequested(customer, name, person, "support", "help", share=share)

    def _rule(self, customer: str, person: str) -> r.Request:
        ruling = self.chance.choice(["keep", "award", "split", "allow", "dismiss"])
        receiver = person if ruling == "award" else None
        parts = (Part(person, Decimal(30)),) if ruling == "split" else ()
        name = self._known(customer)
        return r.RulingGiven(customer, name, ruling, "heard", receiver=receiver, parts=parts)

    def _change(self, customer: str, person: str) -> r.Request:
        return r.CustomerChangeRequested(
            customer,
            attributes={"region": self.chance.choice(REGIONS)},
            closed=self.chance.choice([*[None] * 9, True, False, False, False]),
            parent=self.chance.choice([None, *CUSTOMERS]),
        )

    def _amend(self, customer: str, person: str) -> r.Request:
        call, deal = self._act("fup", customer), self._act("deal", customer)
        match self.chance.randrange(4):
            case 0:
                return r.FollowUpCorrected(customer, call, "typo", at=self.story.now)
            case 1:
                return r.FollowUpVoided(customer, call, "typo")
            case 2:
                return r.DealCorrected(customer, deal, "typo", outcome="won")
            case _:
                return r.DealVoided(customer, deal, "typo")

    def _hold(self, customer: str, person: str) -> r.Request:
        until: date = self.story.now.date() + timedelta(days=self.chance.randrange(1, 30))
        return r.RecycleHoldRequested(customer, until, "asked")

    # --- what version 1 was never asked -----------------------------------------------------------

    def _hand_over(self, customer: str, person: str) -> r.Request:
        chance = self.chance
        giver, receivers = chance.choice(PEOPLE), chance.sample(PEOPLE, chance.choice([1, 1, 2]))
        return r.HandOverRequested(
            giver,
            self._new("hov", giver),
            tuple(each for each in receivers if each != giver) or (person,),
            "all_to_one" if len(receivers) == 1 else "spread",
            "left",
            customers=tuple(chance.sample(CUSTOMERS, 4)) if chance.random() < 0.3 else (),
            collaborators=chance.choice(["keep", "end", None]),
            collaborations=chance.choice(["end", "give", None]),
        )

    def _stand_in(self, customer: str, person: str) -> r.Request:
        if self.chance.random() < 0.3:
            return r.StandInEndRequested(customer, self._known(customer), "back")
        until = self.story.now.date() + timedelta(days=self.chance.randrange(1, 60))
        return r.StandInRequested(customer, self._new("sti", customer), person, until, "left")

    # --- what version 2 was never asked -----------------------------------------------------------

    def _review(self, customer: str, person: str) -> r.Request:
        return r.GroupReviewRequested(customer)
