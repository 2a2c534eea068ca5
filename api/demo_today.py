"""What happens in the demo organisation today: one of each, for whoever looks to find it.

Some of it waits for somebody, so that there is something to do; some is settled, so that there is
something to read. All of it is live, decided by the enforcer as anybody's requests are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from api.bootstrap import Ledger
from api.demo import (
    LEAVER,
    OUTSIDER,
    Demo,
    about_to_go,
    chance_of,
    colleagues,
    credit_code,
    demo_id,
    head_of,
    origin_of,
)
from api.running import settle
from ledger import commands, ids
from ledger import organisation_commands as facts
from ledger.commands import CustomerCommand, parse
from ledger.recording import Asked, Recorded
from projections.approvals import list_approvals
from projections.conflicts import list_conflicts
from projections.ownership import list_ownership

# So many transfers still wait for approval, and so many owners note the same twice.
WAITING_TRANSFERS = 3
NOTED_TWICE = 2
# So many of one owner's are handed over, of which the receiver has accepted some.
HANDED_OVER_MAX = 3
ACCEPTED = 1
# Somebody from elsewhere claims in this territory.
OUTSIDE_IN = "华南"
# So many of a leaver's customers are left, each with a stand-in; the others are handed over before.
STOOD_IN = 2
STAND_IN_DAYS = 30
_EVERYTHING = 1_000

Owned = tuple[str, str]
"""A customer and its owner."""


def play(ledger: Ledger, made: Demo, now: datetime) -> None:
    """Let the day happen, in three acts; what one decides, the next one answers.

    ``now`` is the moment up to which the history reaches.
    """
    today = _Today(ledger, made, list(_free_to_act(ledger)))
    today.ask()
    settle(ledger)
    today.answer()
    settle(ledger)
    today.leave(now)
    settle(ledger)


def _free_to_act(ledger: Ledger) -> list[Owned]:
    """Return the customers at which nothing is open yet, that are not the leaver's, and stay."""
    with ledger.pool.connection() as connection:
        listed = list_ownership(connection, free=False, limit=_EVERYTHING)
        busy = {each.customer for each in list_approvals(connection, is_open=True)}
        busy |= {each.customer for each in list_conflicts(connection, is_open=True)}
    busy |= about_to_go()
    leaver = demo_id(ids.PERSON, LEAVER)
    owned = ((each.customer, each.owner or leaver) for each in listed)
    return [(name, owner) for name, owner in owned if owner != leaver and name not in busy]


@dataclass
class _Today:
    ledger: Ledger
    made: Demo
    # Those that nobody has acted on today.
    owned: list[Owned]
    # What the second act answers: a conflict's customer and owner, and two hand-overs.
    disputed: list[Owned] = field(default_factory=list)
    handed_over: list[str] = field(default_factory=list)

    def _record(self, actor: str, key: str, command: CustomerCommand) -> Recorded:
        asked = Asked(command, origin_of(key, actor), seed=f"demo/{key}")
        return self.ledger.recording.record(asked)

    def _take(self, count: int) -> Sequence[Owned]:
        taken, self.owned = self.owned[:count], self.owned[count:]
        return taken

    # --- the first act ---------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for what others have to answer, and do what others have to settle."""
        for number, (customer, owner) in enumerate(self._take(WAITING_TRANSFERS)):
            self._transfer(f"waiting/{number}", customer, owner)
        for customer, owner in self._take(1):
            transfer, receiver = self._transfer("completed", customer, owner)
            agree = commands.Approve(customer=customer, approval=transfer)
            self._record(head_of(owner), "completed/head", agree)
            self._record(receiver, "completed/receiver", agree)
        for customer, owner in self._take(1):
            transfer, _ = self._transfer("refused", customer, owner)
            deny = commands.Refuse(
                customer=customer,
                approval=transfer,
                reason_code="no_capacity",
                comment="季度末再说",
            )
            self._record(head_of(owner), "refused/head", deny)
        self._work_beside_owners()
        self._divide_a_group()
        self._repeat_notes()
        self._hand_over_some()
        self._hand_over_before_leaving()
        self._claim_from_outside()

    def _transfer(self, key: str, customer: str, owner: str) -> tuple[str, str]:
        receiver = colleagues(owner)[0]
        asked = commands.RequestTransfer(
            customer=customer, receiver=receiver, reason_code="workload"
        )
        return self._record(owner, key, asked).made or "", receiver

    def _work_beside_owners(self) -> None:
        """Let colleagues work at customers of others: conflicts, and one asks to collaborate."""
        taken = self._take(4)
        for number, (customer, owner) in enumerate(taken):
            person = colleagues(owner)[0]
            follow_up = commands.LogFollowUp(customer=customer, person=person, note="老客户介绍的")
            kinds: tuple[CustomerCommand, ...] = (
                follow_up,
                commands.RecordDeal(customer=customer, person=person, outcome="won"),
                commands.RequestCollaboration(
                    customer=customer, person=person, role="presales", share=Decimal(20)
                ),
                follow_up,
            )
            self._record(person, f"beside/{number}", kinds[number])
        self.disputed += taken[3:]

    def _divide_a_group(self) -> None:
        """Let two branches of one group be claimed in two territories, and one entered twice."""
        code = {"system": "uscc", "value": credit_code(chance_of("group"), "上海")}

        def register(key: str, person: str, **fields: Any) -> str:
            command = parse(commands.RegisterCustomer, fields)
            return self._record(demo_id(ids.PERSON, person), f"group/{key}", command).customer

        group = register("root", "陈建国", name="鼎恒集团")
        for key, person, city, region, identifiers in (
            ("east", "周杰", "上海", "上海", [code]),
            ("south", "梁晨", "广州", "广东", []),
        ):
            register(
                key,
                person,
                name=f"鼎恒集团{city}分公司",
                parent=group,
                attributes={"region": region},
                identifiers=identifiers,
                claim_for=demo_id(ids.PERSON, person),
            )
        register("again", "吴敏", name="鼎恒集团上海公司", identifiers=[code])

    def _repeat_notes(self) -> None:
        """Let owners note the same twice: the second time counts for nothing, and is flagged."""
        for number, (customer, owner) in enumerate(self._take(NOTED_TWICE)):
            for time in (1, 2):
                follow_up = commands.LogFollowUp(customer=customer, person=owner, note="电话未接通")
                self._record(owner, f"token/{number}/{time}", follow_up)

    def _hand_over_some(self) -> None:
        """Let a head hand some customers over, of whoever has the most of them left."""
        theirs: dict[str, list[str]] = {}
        for customer, owner in self.owned:
            theirs.setdefault(owner, []).append(customer)
        for giver in sorted(theirs, key=lambda each: (-len(theirs[each]), each))[:1]:
            order = commands.HandOver(
                giver=giver,
                receivers=(colleagues(giver)[0],),
                customers=tuple(theirs[giver][:HANDED_OVER_MAX]),
                reason_code="workload",
            )
            self.handed_over.append(self._record(head_of(giver), "hand-over", order).made or "")

    def _hand_over_before_leaving(self) -> None:
        """Let the head hand over what somebody has who leaves; some were forgotten."""
        leaver = demo_id(ids.PERSON, LEAVER)
        with self.ledger.pool.connection() as connection:
            listed = list_ownership(connection, owner=leaver, limit=_EVERYTHING)
        given = tuple(each.customer for each in listed[STOOD_IN:])
        if given:
            order = commands.HandOver(
                giver=leaver,
                receivers=tuple(colleagues(leaver)),
                plan="spread",
                customers=given,
                reason_code="leaving",
            )
            self.handed_over.append(self._record(head_of(leaver), "leaving", order).made or "")

    def _claim_from_outside(self) -> None:
        """Let somebody claim in another territory, which awaits the heads of both."""
        where, claimant = demo_id(ids.TERRITORY, OUTSIDE_IN), demo_id(ids.PERSON, OUTSIDER)
        with self.ledger.pool.connection() as connection:
            free = list_ownership(connection, free=True, territory=where)
        for each in free[-1:]:
            claim = commands.FileClaim(customer=each.customer, claimant=claimant)
            self._record(claimant, "outside", claim)

    # --- the second and third --------------------------------------------------------------------

    def answer(self) -> None:
        """Rule on one conflict, and accept what is handed over: one's in part, the leaver's all."""
        with self.ledger.pool.connection() as connection:
            conflicts = list_conflicts(connection, is_open=True)
            awaited = [
                (each.state, each.customer)
                for each in list_approvals(connection, is_open=True, limit=_EVERYTHING)
                if each.state is not None and each.state.hand_over is not None
            ]
        rulers = {customer: head_of(owner) for customer, owner in self.disputed}
        for each in conflicts:
            if each.customer in rulers:
                keep = commands.Rule(
                    customer=each.customer, conflict=each.conflict, ruling="keep", reason="先到先得"
                )
                self._record(rulers[each.customer], f"ruled/{each.customer}", keep)
        for hand_over, count in zip(self.handed_over, (ACCEPTED, _EVERYTHING), strict=False):
            mine = [(state, name) for state, name in awaited if state.hand_over == hand_over]
            for state, customer in sorted(mine, key=lambda one: one[1])[:count]:
                agree = commands.Approve(customer=customer, approval=state.approval)
                self._record(state.receiver or "", f"accepted/{customer}", agree)

    def leave(self, now: datetime) -> None:
        """Let somebody leave; what is still theirs is orphaned, and has a stand-in."""
        leaver = demo_id(ids.PERSON, LEAVER)
        day = self.ledger.recording.organisation().day(now)
        left = facts.MarkLeft(person=leaver, left_on=day)
        self.ledger.recording.record_fact(left, origin_of("left", self.made.administrator))
        with self.ledger.pool.connection() as connection:
            orphans = list_ownership(connection, owner=leaver, limit=_EVERYTHING)
        for number, each in enumerate(orphans):
            stand_in = commands.NameStandIn(
                customer=each.customer,
                person=colleagues(leaver)[0],
                until=day + timedelta(days=STAND_IN_DAYS),
            )
            self._record(head_of(leaver), f"stand-in/{number}", stand_in)
