"""What every schedule begins with: an organisation, and customers, of which two have owners."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ledger.approval_rules import ApprovalRule, ApproverRule, StepRule
from ledger.deciders import LATEST
from ledger.deciding import stream_of
from ledger.envelope import Event, Origin, decode, request_body
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import Catalogue
from ledger.events.values import Identifier, Sealed
from ledger.organisation import Organisation
from ledger.policy import Policy
from ledger.store.appending import NewEvent
from tests.simulation.following import ENFORCER, PROJECTOR, Enforcer, Projector, Shared
from tests.simulation.relaying import Relay
from tests.simulation.rules import Rules
from tests.simulation.store import PARTITIONS, State, Store
from tests.simulation.topic import Topic

START = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
ADMINISTRATOR = "per_admin"
REPS = ("per_0", "per_1", "per_2", "per_3")
HEADS = ("per_boss", "per_east")
CUSTOMERS = ("cus_a", "cus_b", "cus_c", "cus_f")
# Entered a second time: what is asked about it is decided on the first, in another partition.
TWICE, ITSELF = "cus_t", "cus_c"
LIMIT = 2
_SEALED = Sealed("key", "text")
_RECEIVER_ACCEPTS = ApprovalRule(steps=(StepRule(approvers=(ApproverRule(kind="receiver"),)),))


@dataclass(frozen=True, slots=True)
class Prologue:
    """The state when all of it is decided and projected, and the log up to there as read."""

    state: State
    now: datetime
    events: tuple[Event, ...]


def policy(number: int, limit: int) -> facts.PolicyAdopted:
    """Return a policy with so many customers at most to a person."""
    rules = Policy(
        holding_limit=limit,
        daily_claim_limit=3,
        cooldown_days=0,
        protection_days=0,
        claim_scope="everywhere",
        approval_rules=(_RECEIVER_ACCEPTS,),
        conflict_kinds=("follow_up", "identifier"),
    )
    return facts.PolicyAdopted(number, rules.as_rules())


def recorded(
    catalogue: Catalogue, data: Any, actor: str, request_id: str, *, kind: str = "request"
) -> NewEvent:
    """Return the event of a request or fact, as recording makes it."""
    stream = stream_of("request", data) if kind == "request" else "organisation"
    body = request_body(catalogue, Origin("test", request_id, actor), 0, data)
    return NewEvent(stream, catalogue.name_of(data), body)


def begin(catalogue: Catalogue) -> Prologue:
    """Return the prologue; to be made once for any number of schedules."""
    store, topic, rules = Store(State(), START), Topic(), Rules()
    store.open_generation()
    given = [recorded(catalogue, each, ADMINISTRATOR, "0", kind="fact") for each in _facts()]
    given += [
        recorded(catalogue, each, ADMINISTRATOR, f"r{number}")
        for number, each in enumerate(_registrations())
    ]
    given += [
        recorded(catalogue, requests.ClaimFiled(customer, person), person, f"c{customer}")
        for customer, person in zip(CUSTOMERS[1:3], REPS, strict=False)
    ]
    with store.transaction():
        store.append(given)
    organisation = Organisation()
    organisation.apply_all(decode(catalogue, each) for each in store.state.log[: len(_facts())])
    store.divide(ENFORCER, PARTITIONS)
    store.divide(PROJECTOR, PARTITIONS)
    shared = Shared(rules, store, topic, catalogue, lambda: organisation)
    for kind in (Enforcer, Projector):
        _relay_all(rules, store, topic)
        for number in range(PARTITIONS):
            follower = kind(shared, number, "prologue")
            follower.start()
            for _ in range(PARTITIONS):
                follower.read(1_000, 1_000)
                follower.commit(lambda point: None)
    _relay_all(rules, store, topic)
    events = tuple(decode(catalogue, each) for each in store.state.log)
    return Prologue(store.state, store.now, events)


def _relay_all(rules: Rules, store: Store, topic: Topic) -> None:
    relay = Relay(rules, store, topic, "prologue")
    relay.send(1_000)
    relay.settle(None)
    relay.mark(taken=True)


def _facts() -> list[facts.OrganisationFact]:
    return [
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        facts.DeciderAdopted(LATEST),
        facts.PersonJoined(ADMINISTRATOR, _SEALED, None, ("admin",)),
        *(facts.PersonJoined(each, _SEALED, "ter_east", ("manager",)) for each in HEADS),
        *(facts.PersonJoined(each, _SEALED, "ter_east") for each in REPS),
        facts.TerritoryDefined("ter_all", "全国", None, HEADS[0]),
        facts.TerritoryDefined("ter_east", "华东", "ter_all", HEADS[1]),
        policy(1, LIMIT),
    ]


def _registrations() -> list[requests.RegistrationRequested]:
    found = [
        requests.RegistrationRequested(
            each, "organisation", "名", (Identifier("uscc", each),), territory="ter_east"
        )
        for each in CUSTOMERS
    ]
    again = requests.RegistrationRequested(
        TWICE, "organisation", "名", (Identifier("uscc", ITSELF),), territory="ter_east"
    )
    return [*found, again]
