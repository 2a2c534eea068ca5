"""Clients: whoever records requests and facts, and remembers what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ledger.customer import Admitted, Customer, open_approvals
from ledger.deadlines import CLOCK, next_at
from ledger.deciders import LATEST
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import Catalogue
from ledger.organisation import Organisation
from ledger.settled import Settled
from ledger.store import guards
from tests.simulation.prologue import (
    ADMINISTRATOR,
    CUSTOMERS,
    HEADS,
    REPS,
    TWICE,
    policy,
    recorded,
)
from tests.simulation.schedule import Step
from tests.simulation.store import NoGenerationError, Store

DEFECT = "defect"
"""How the id of a request begins that cannot be decided until a defect is mended."""


class Clients:
    """What each step has somebody ask for; mostly somebody who may."""

    def __init__(
        self, store: Store, catalogue: Catalogue, organisation: Callable[[], Organisation]
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._organisation = organisation
        self._asked = 0
        # The bodies of what was acknowledged, by position.
        self.acknowledged: dict[int, bytes] = {}

    def _ask(self, request: Any, actor: str, prefix: str = "req") -> str:
        self._asked += 1
        return self._append(request, actor, f"{prefix}_{self._asked}", "request")

    def _append(self, data: Any, actor: str, request_id: str, kind: str) -> str:
        event = recorded(self._catalogue, data, actor, request_id, kind=kind)
        try:
            with self._store.transaction():
                position = self._store.append([event])
        except NoGenerationError:
            return f"refused, for no generation is open: {data}"
        self.acknowledged[position] = event.body
        return f"{position} {data} by {actor}"

    def claim(self, step: Step) -> str:
        customer = [*CUSTOMERS, *CUSTOMERS, TWICE][step.a % (2 * len(CUSTOMERS) + 1)]
        person = REPS[step.b % len(REPS)]
        prefix = DEFECT if step.c < 30 else "req"
        return self._ask(requests.ClaimFiled(customer, person), person, prefix)

    def release(self, step: Step) -> str:
        found = self._owned(step)
        if found is None:
            return ""
        customer, owner = found
        return self._ask(requests.ReleaseRequested(customer, "no_need"), owner)

    def transfer(self, step: Step) -> str:
        found = self._owned(step)
        if found is None:
            return ""
        customer, owner = found
        name, receiver = f"trf_{self._asked}", REPS[step.b % len(REPS)]
        asked = requests.TransferRequested(customer, name, receiver, "moved")
        return self._ask(asked, HEADS[1] if step.c < 300 else owner)

    def answer(self, step: Step) -> str:
        waiting = [
            (name, approval)
            for name in CUSTOMERS
            if isinstance(found := self._customer(name), Admitted)
            for approval in open_approvals(found)
        ]
        if not waiting:
            return ""
        customer, approval = waiting[step.a % len(waiting)]
        receiver = approval.receiver or HEADS[1]
        actor = REPS[step.c % len(REPS)] if step.b % 5 == 0 else receiver
        if step.c < 150:
            return self._ask(requests.ApprovalDenied(customer, approval.approval, "no"), actor)
        return self._ask(requests.ApprovalGiven(customer, approval.approval), actor)

    def assign(self, step: Step) -> str:
        customer, assignee = CUSTOMERS[step.a % len(CUSTOMERS)], REPS[step.b % len(REPS)]
        return self._ask(requests.AssignmentRequested(customer, assignee), HEADS[1])

    def follow_up(self, step: Step) -> str:
        found = self._owned(step)
        if found is None:
            return ""
        customer, owner = found
        logged = requests.FollowUpLogged(customer, f"fup_{self._asked}", owner, "call")
        return self._ask(logged, owner)

    def deadline(self, step: Step) -> str:
        customer = CUSTOMERS[step.a % len(CUSTOMERS)]
        found = self._customer(customer)
        if not isinstance(found, Admitted):
            return ""
        due = next_at(customer, found, self._organisation().latest, self._store.now)
        if due is None:
            return ""
        self._store.now = max(self._store.now, due.due)
        return self._ask(requests.DeadlineReached(customer, due.kind, due.subject, due.due), CLOCK)

    def fact(self, step: Step) -> str:
        today, latest = self._store.now.date(), self._organisation().latest
        person = latest.person(REPS[step.a % len(REPS)])
        fact: facts.OrganisationFact
        if person is None or step.b % 2:
            fact = policy(latest.policy.number + 1, 1 + step.c % 3)
        elif person.left_on is not None:
            fact = facts.PersonReturned(person.person, today)
        else:
            fact = facts.PersonLeft(person.person, today)
        return self._append(fact, ADMINISTRATOR, "fact", "fact")

    def time(self, step: Step) -> str:
        hours = (1, 12, 30)[step.a % 3]
        self._store.now += timedelta(hours=hours)
        return f"{hours} hours pass"

    def unpark(self, step: Step) -> str:
        stuck = [row for row in self._store.state.parked.values() if row.error is not None]
        if not stuck:
            return ""
        row = stuck[step.a % len(stuck)]
        asked = requests.RequestUnparked(row.customer, row.position, LATEST)
        return self._ask(asked, ADMINISTRATOR)

    def _customer(self, customer: str) -> Customer:
        settled, text = Settled(), guards.text_of(("customer", customer))
        there = self._store.state.guards.get(text)
        guards.load(settled, [text], [] if there is None else [(text, *there)])
        return settled.customers[customer]

    def _owned(self, step: Step) -> tuple[str, str] | None:
        """Return a customer that is owned, as far as is decided, and its owner."""
        owners = [
            (name, found.owner)
            for name in CUSTOMERS
            if isinstance(found := self._customer(name), Admitted) and found.owner is not None
        ]
        return owners[step.a % len(owners)] if owners else None
