"""A log for measurements: a sales organisation at work, as its enforcer would have decided.

The same seed gives the same log, but for the ciphertexts. Requests come in blocks and their
decisions behind them, as from an enforcer with some load.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from ledger import reasons
from ledger.envelope import Origin, Ruling, decision_body, request_body
from ledger.events import decisions, organisation, requests
from ledger.events.catalogue import Data, catalogue
from ledger.events.values import Identifier, Money, Sealed
from ledger.sealing import Vault
from ledger.store.appending import Append, NewEvent, append_within

_APPEND_EVENTS = 5_000
_BLOCK_REQUESTS = 500
_TERRITORIES = 20
_CALLER = "bench"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class SyntheticLog:
    """Grows a log of ``customers`` and ``people``; ``connection`` is the service's, autocommit.

    Of the requests that are no registration 40 % are follow-ups with a sealed note, 10 % deals,
    the others claims and releases. The customers come first, mixed with these.
    """

    connection: Connection[Any]
    vault: Vault
    customers: int = 100_000
    people: int = 1_000
    position: int = 0
    _now: datetime = BEGIN
    _chance: random.Random = field(
        default_factory=lambda: random.Random(1)  # noqa: S311 - the same each time
    )
    _requests: int = 0
    _known: int = 0
    _owners: dict[str, str | None] = field(default_factory=dict)
    _new: list[NewEvent] = field(default_factory=list)

    def found(self) -> None:
        """Record the organisation, its territories and its people."""
        self._fact(organisation.OrganisationFounded("bench", "Asia/Shanghai"))
        for number in range(_TERRITORIES):
            self._fact(organisation.TerritoryDefined(f"ter_{number}", f"区{number}"))
        for number in range(self.people):
            self._fact(
                lambda seal, n=number: organisation.PersonJoined(
                    f"per_{n}", seal(f"per_{n}", "name", f"张{n}"), f"ter_{n % _TERRITORIES}"
                )
            )
        self._append()

    def grow(self, upto: int) -> None:
        """Append until the log has at least ``upto`` events."""
        while self.position < upto:
            self._now += timedelta(seconds=20)
            decided: list[tuple[int, Any]] = []
            while len(decided) < _BLOCK_REQUESTS:
                decided += self._step()
            for cause, data in decided:
                self._decide(cause, data)
            if len(self._new) >= _APPEND_EVENTS:
                self._append()
        self._append()

    @property
    def customer_ids(self) -> list[str]:
        """The customers that were entered so far."""
        return [_customer(number) for number in range(self._known)]

    @property
    def halfway(self) -> datetime:
        """The middle between the first moment and the last that decisions hold from."""
        return BEGIN + (self._now - BEGIN) / 2

    # --- what happens --------------------------------------------------------------------------

    def _step(self) -> list[tuple[int, Any]]:
        if self._known < self.customers and self._chance.random() < 0.6:
            return self._enter()
        if self._known == 0:
            return []
        customer = _customer(self._chance.randrange(self._known))
        owner = self._owners.get(customer)
        person = owner or f"per_{self._chance.randrange(self.people)}"
        lot = self._chance.random()
        if lot < 0.4:
            return [self._follow_up(customer, person, owner)]
        if lot < 0.5:
            return [self._deal(customer, person, owner)]
        if owner is not None and lot < 0.75:
            return [self._give_back(customer, owner)]
        return [self._claim(customer, f"per_{self._chance.randrange(self.people)}")]

    def _enter(self) -> list[tuple[int, Any]]:
        """Somebody enters a customer and claims it in the same append."""
        number = self._known
        self._known += 1
        customer, person = _customer(number), f"per_{self._chance.randrange(self.people)}"
        identifiers = (Identifier("uscc", f"91{number:016d}"),)
        registration = requests.RegistrationRequested(
            customer,
            "organisation",
            f"上海第{number}机电设备有限公司",
            identifiers,
            attributes={"region": "华东", "industry": "machinery"},
        )
        admitted = decisions.CustomerAdmitted(
            customer,
            "organisation",
            self._now,
            f"ter_{number % _TERRITORIES}",
            identifiers=identifiers,
        )
        cause = self._request(registration, person)
        return [(cause, admitted), self._claim(customer, person)]

    def _claim(self, customer: str, person: str) -> tuple[int, Any]:
        cause = self._request(requests.ClaimFiled(customer, person), person)
        owner = self._owners.get(customer)
        if owner is not None:
            reason = reasons.ALREADY_YOURS if owner == person else reasons.OWNED_BY_ANOTHER
            return cause, decisions.ClaimRefused(customer, person, reason, owner)
        self._owners[customer] = person
        until = self._now + timedelta(days=30)
        granted = decisions.OwnershipGranted(
            customer, person, _home(person), _pool(customer), until
        )
        return cause, granted

    def _give_back(self, customer: str, owner: str) -> tuple[int, Any]:
        cause = self._request(requests.ReleaseRequested(customer, "no_need"), owner)
        self._owners[customer] = None
        return cause, decisions.OwnershipReleased(customer, owner, "no_need", _pool(customer))

    def _follow_up(self, customer: str, person: str, owner: str | None) -> tuple[int, Any]:
        def logged(seal: Callable[[str, str, str], Sealed]) -> requests.FollowUpLogged:
            note = seal(customer, "note", "谈了新项目的报价,下周再联系")
            act = f"fup_{self._requests:010d}"
            day = date(2026, 3, 2)
            return requests.FollowUpLogged(customer, act, person, "phone", note, next_on=day)

        return self._request(logged, person), _noted(
            customer, owner, reasons.FOLLOW_UP_BY_NON_OWNER
        )

    def _deal(self, customer: str, person: str, owner: str | None) -> tuple[int, Any]:
        outcome = "won" if self._chance.random() < 0.6 else "lost"
        deal = requests.DealRecorded(
            customer,
            f"deal_{self._requests:010d}",
            person,
            outcome,
            Money(Decimal("1054.00"), "CNY"),
        )
        return self._request(deal, person), _noted(customer, owner, reasons.DEAL_BY_NON_OWNER)

    # --- the log -------------------------------------------------------------------------------

    def _fact(self, data: Any) -> int:
        return self._request(data, "per_0")

    def _request(self, data: Any, actor: str) -> int:
        self._requests += 1
        request_id = f"req_{self._requests:010d}"

        def seal(subject: str, name: str, text: str) -> Sealed:
            key = self.vault.keys_for([subject])[subject]
            return self.vault.seal(key, text, _CALLER, request_id, 0, name)

        made: Data = data(seal) if callable(data) else data
        body = request_body(catalogue(), Origin(_CALLER, request_id, actor), 0, made)
        customer = getattr(made, "customer", None)
        stream = "organisation" if customer is None else f"customer-{customer}"
        return self._put(NewEvent(stream, catalogue().name_of(made), body))

    def _decide(self, cause: int, data: Any) -> None:
        guards = {"ownership": 1, "held": 5, "held_won": 0, "grants": 1}
        ruling = Ruling(cause, 0, self._now, 1, 1, guards)
        body = decision_body(catalogue(), ruling, data)
        name = catalogue().name_of(data)
        self._put(NewEvent(f"ownership-{data.customer}", name, body, None, cause, 0))

    def _put(self, event: NewEvent) -> int:
        self._new.append(event)
        self.position += 1
        return self.position

    def _append(self) -> None:
        while self._new:
            part = tuple(self._new[:_APPEND_EVENTS])
            with self.connection.transaction():
                append_within(self.connection, Append(part)).fetchone()
            del self._new[: len(part)]


def _customer(number: int) -> str:
    return f"cus_{number:08d}"


def _home(person: str) -> str:
    return f"ter_{int(person.removeprefix('per_')) % _TERRITORIES}"


def _pool(customer: str) -> str:
    return f"ter_{int(customer.removeprefix('cus_')) % _TERRITORIES}"


def _noted(customer: str, owner: str | None, remark: str) -> decisions.Noted:
    return decisions.Noted(customer, None if owner else remark, owner)
