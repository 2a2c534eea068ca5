"""Histories as the enforcer would write them: requests, and what the real decider makes of them.

A history is built in memory, on a clock of its own, and then appended to a log that holds nothing
but histories. What it cannot do (a decision that no decider makes) a test writes with ``decided``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection

from ledger.deciders import LATEST, decider
from ledger.deciding import apply_parking, parking_event, stream_of
from ledger.envelope import Event, Origin, Ruling, StoredEvent, decision_body, decode, request_body
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import Data, catalogue
from ledger.events.decisions import Decision, RequestParked
from ledger.events.values import Attribute, Identifier, Money, Sealed
from ledger.organisation import Organisation
from ledger.settled import Settled
from ledger.store import arrays
from ledger.store.appending import EVENTS_PER_TRANSACTION_MAX, Append, NewEvent, append_within

START = datetime(2026, 1, 5, 1, 0, tzinfo=UTC)
"""Nine o'clock on a Monday in Shanghai, unless a history is told otherwise."""

Seal = Callable[[str, str, str], Sealed]


def open_seal(subject: str, name: str, text: str) -> Sealed:
    """Seal nothing: the text stands there for OpenUnsealer to read."""
    return Sealed(f"key_{subject}", text)


class OpenUnsealer:
    """Reads what ``open_seal`` wrote; knows keys that were destroyed."""

    def __init__(self, destroyed: Sequence[str] = ()) -> None:
        self.destroyed = frozenset(destroyed)

    def open_text(self, event: Event, name: str, value: str | Sealed | None) -> str | None:
        """Return the text of a field."""
        if not isinstance(value, Sealed):
            return value
        return None if value.key in self.destroyed else value.text


@dataclass
class History:
    """Events in the order of the log; each method returns the position of what it recorded.

    The decisions are those of the real decider, the newest unless told otherwise; their effective
    times are those of ``now``.
    """

    now: datetime = START
    seal: Seal = open_seal
    organisation: Organisation = field(default_factory=Organisation)
    settled: Settled = field(default_factory=lambda: Settled(complete=True))
    events: list[Event] = field(default_factory=list)
    made: int = 0
    version: int = LATEST
    _new: list[NewEvent] = field(default_factory=list)
    _versions: dict[str, int] = field(default_factory=dict)

    # --- time and place ------------------------------------------------------------------------

    def later(self, **amount: float) -> History:
        """Let time go by, as ``timedelta`` counts it."""
        self.now += timedelta(**amount)
        return self

    @property
    def position(self) -> int:
        """The position of the latest event."""
        return len(self.events)

    def event(self, position: int) -> Event:
        """Return the event at a position."""
        return self.events[position - 1]

    def decision(self, request: int) -> Event:
        """Return the decision of the request at a position."""
        return next(each for each in self.events if each.causation == request)

    # --- facts of the organisation -------------------------------------------------------------

    def fact(self, data: facts.OrganisationFact, actor: str = "per_admin") -> int:
        """Record a fact of the organisation."""
        origin = Origin("tests", self._name("fact"), actor)
        event = self._put("organisation", data, request_body(catalogue(), origin, 0, data))
        self.organisation.apply(event)
        return event.position

    def found(self, time_zone: str = "Asia/Shanghai", **rules: Any) -> History:
        """Found the organisation, with an administrator and a policy of nothing but these rules."""
        self.fact(facts.OrganisationFounded("华东机电", time_zone))
        self.join("per_admin", roles=("admin", "manager"))
        open_rules: dict[str, Any] = {
            "holding_limit": None,
            "daily_claim_limit": None,
            "cooldown_days": 0,
            "conflict_kinds": [],
        }
        self.fact(facts.PolicyAdopted(1, open_rules | rules))
        return self

    def join(
        self, person: str, territory: str | None = None, roles: tuple[str, ...] = ("rep",)
    ) -> int:
        """Let somebody join, whose name is made of the id."""
        name = self.seal(person, "name", f"名{person}")
        return self.fact(facts.PersonJoined(person, name, territory, roles))

    def leave(self, person: str, left_on: date | None = None) -> int:
        """Let somebody leave."""
        return self.fact(facts.PersonLeft(person, left_on or self.now.date()))

    def territory(self, territory: str, parent: str | None = None, head: str | None = None) -> int:
        """Define a territory."""
        return self.fact(facts.TerritoryDefined(territory, f"区{territory}", parent, head))

    # --- requests and decisions ----------------------------------------------------------------

    def request(
        self,
        data: requests.Request,
        *,
        actor: str = "per_admin",
        occurred: datetime | None = None,
        import_id: str | None = None,
    ) -> int:
        """Record a request, without deciding it."""
        origin = Origin(
            "tests", self._name("request"), actor, occurred=occurred, import_id=import_id
        )
        body = request_body(catalogue(), origin, 0, data)
        return self._put(stream_of("request", data), data, body).position

    def decide(self, request: int) -> int:
        """Decide the request at a position, as the enforcer does; return the first decision's."""
        cause = self.event(request)
        organisation = self.organisation.at(request)
        first, is_last = self.position + 1, False
        while not is_last:
            draft = decider(self.version)(self.settled, cause, organisation)
            for ordinal, data in enumerate(draft.all, draft.ordinal):
                self.decided(request, data, draft.effective, draft.policy, draft.guards, ordinal)
                self.settled.apply(cause, data, draft.effective, organisation)
            is_last = draft.is_last
        return first

    def decided(
        self,
        request: int,
        data: Decision,
        effective: datetime | None = None,
        policy: int = 0,
        guards: dict[str, int] | None = None,
        ordinal: int = 0,
    ) -> int:
        """Record a decision that is given; what was settled stays as it is."""
        under = self.event(request).import_id
        ruling = Ruling(
            request, ordinal, effective or self.now, self.version, policy, guards or {}, under
        )
        body = decision_body(catalogue(), ruling, data)
        stream = stream_of("decision", data)
        return self._put(stream, data, body, request, ordinal).position

    def ask(self, data: requests.Request, **how: Any) -> int:
        """Record a request and decide it at once."""
        request = self.request(data, **how)
        self.decide(request)
        return request

    def register(
        self,
        customer: str,
        name: str | None = None,
        *,
        uscc: str | None = None,
        territory: str | None = None,
        attributes: dict[str, Attribute] | None = None,
        **how: Any,
    ) -> int:
        """Register an organisation as customer, and decide."""
        identifiers = () if uscc is None else (Identifier("uscc", uscc),)
        return self.ask(
            requests.RegistrationRequested(
                customer,
                "organisation",
                name or f"公司{customer}",
                identifiers,
                territory=territory,
                attributes=attributes or {},
            ),
            **how,
        )

    def claim(self, customer: str, person: str, **how: Any) -> int:
        """Claim a customer for a person, and decide."""
        return self.ask(requests.ClaimFiled(customer, person), **({"actor": person} | how))

    def release(self, customer: str, reason_code: str = "no_need", **how: Any) -> int:
        """Release a customer, by the administrator unless said otherwise, and decide."""
        return self.ask(requests.ReleaseRequested(customer, reason_code), **how)

    def assign(self, customer: str, person: str, **how: Any) -> int:
        """Assign a free customer, and decide."""
        return self.ask(requests.AssignmentRequested(customer, person), **how)

    def move(self, customer: str, territory: str, **how: Any) -> int:
        """Name the customer's territory, and decide."""
        change = requests.CustomerChangeRequested(customer, territory=territory)
        return self.ask(change, **how)

    def follow_up(self, customer: str, person: str, **how: Any) -> str:
        """Log a follow-up of this moment, decide, and return its id."""
        act = self._name("fup")
        how = {"actor": person, "occurred": self.now} | how
        self.ask(requests.FollowUpLogged(customer, act, person, "phone"), **how)
        return act

    def deal(
        self, customer: str, person: str, outcome: str = "won", value: str = "1054.00", **how: Any
    ) -> str:
        """Record a deal of this moment, decide, and return its id."""
        act = self._name("deal")
        money = Money(Decimal(value), "CNY")
        how = {"actor": person, "occurred": self.now} | how
        self.ask(requests.DealRecorded(customer, act, person, outcome, money), **how)
        return act

    # --- the log -------------------------------------------------------------------------------

    def append(self, connection: Connection[Any], limit: int | None = None) -> int:
        """Append what is new, up to ``limit`` events; return how many are left.

        The connection is in autocommit mode. The clock of the history stays its own: recorded
        times are those of the store.
        """
        arrays.register(connection)
        left = len(self._new) if limit is None else min(limit, len(self._new))
        while left:
            part = tuple(self._new[: min(left, EVENTS_PER_TRANSACTION_MAX)])
            with connection.transaction():
                row = append_within(connection, Append(part)).fetchone()
            assert row == (self.position - len(self._new) + 1,), "the log holds something else"
            del self._new[: len(part)]
            left -= len(part)
        return len(self._new)

    def park(self, request: int, customer: str) -> None:
        """Record that the request at a position could not be decided: its customer waits."""
        parked = RequestParked(customer, request, "ZeroDivisionError")
        new = parking_event(catalogue(), parked, self.settled)
        self._put(new.stream, parked, new.body)
        apply_parking(self.settled, parked)

    def raw(self, stream: str, name: str, body: bytes) -> int:
        """Record a request that this version of guishu cannot read."""
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        stored = StoredEvent(self.position + 1, self.now, stream, version, name, body)
        self.events.append(Event(*stored[:5], {}, None))
        self._new.append(NewEvent(stream, name, body))
        return stored.position

    def _name(self, kind: str) -> str:
        self.made += 1
        return f"{kind}_{self.made}"

    def _put(
        self,
        stream: str,
        data: Data,
        body: bytes,
        causation: int | None = None,
        ordinal: int | None = None,
    ) -> Event:
        name = catalogue().name_of(data)
        version = self._versions[stream] = self._versions.get(stream, 0) + 1
        stored = StoredEvent(
            self.position + 1, self.now, stream, version, name, body, causation, ordinal
        )
        event = decode(catalogue(), stored)
        self.events.append(event)
        self._new.append(NewEvent(stream, name, body, None, causation, ordinal))
        return event
