"""A mixed backlog: as the enforcer decides it, and as what-if does under another policy."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import Connection

from api.bench.harness import BenchDatabase, BenchServer, Measure
from consumers.enforcer import Enforcer
from consumers.feed import StoreFeed
from ledger.deadlines import CLOCK, STEP_REMINDER
from ledger.deciders import LATEST
from ledger.envelope import Origin, request_body
from ledger.events import organisation, requests
from ledger.events.catalogue import Catalogue, Data, catalogue
from ledger.events.values import Sealed
from ledger.policy import Policy
from ledger.store import arrays
from ledger.store.appending import Append, NewEvent
from ledger.store.committer import CommitterThread
from ledger.store.reading import head
from ledger.what_if import what_if

REQUESTS_PER_SECOND_MIN = 8_000
ENFORCED_PER_SECOND_MIN = 6_000

_APPEND_EVENTS = 5_000
_HEAD = "per_head"
# Of what was just asked for no deadline is due: to find that out is as much work.
_DUE = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured: the default is for figures, a smaller one for a look."""

    requests: int = 200_000
    customers: int = 50_000
    reps: int = 1_000
    rounds: int = 3


def measure(server: BenchServer, scale: Scale) -> list[Measure]:
    """Decide a mixed log once by the enforcer, and then again and again in memory."""
    events = catalogue()
    with server.database() as database:
        _record(database, events, "organisation", [(each, _HEAD) for each in _facts(scale)])
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            arrays.register(connection)
            begin = head(connection)
            work = _Work(scale).requests()
            _record(database, events, "customer", work)
            enforcer = Enforcer(connection, StoreFeed(), events)
            enforcer.start()
            before = time.perf_counter()
            enforcer.catch_up()
            enforced = len(work) / (time.perf_counter() - before)
        with psycopg.connect(database.service_url, autocommit=True) as connection:
            rates = [_rate(connection, events, scale, begin) for _ in range(scale.rounds)]
    rate = statistics.median(rates)
    return [
        Measure(
            "mixed requests (claims, follow-ups, deals, releases, transfers with their approvals,"
            f" deadlines) decided from a backlog, against {ENFORCED_PER_SECOND_MIN:,}/s",
            enforced,
            ENFORCED_PER_SECOND_MIN,
            "requests/s",
            enforced / ENFORCED_PER_SECOND_MIN,
            1,
        ),
        Measure(
            "mixed requests decided again by what-if, reading the log included, against"
            f" {REQUESTS_PER_SECOND_MIN:,}/s",
            rate,
            REQUESTS_PER_SECOND_MIN,
            "requests/s",
            rate / REQUESTS_PER_SECOND_MIN,
            1,
        ),
    ]


def _rate(connection: Connection[Any], events: Catalogue, scale: Scale, begin: int) -> float:
    """Return requests a second under a policy by which some of all comes out differently."""
    before = time.perf_counter()
    report = what_if(connection, events, _policy(scale, 90), begin)
    seconds = time.perf_counter() - before
    if not report.decisions.total or report.undecidable.total or report.undecided.total:
        raise AssertionError("the log was not decided again as a whole, or nothing was different")
    return report.requests / seconds


def _policy(scale: Scale, percent: int) -> Policy:
    """Return a policy under which somebody may hold a part of what is each one's share."""
    share = max(1, scale.customers * percent // scale.reps // 100)
    return Policy(holding_limit=share, daily_claim_limit=None, protection_days=0, cooldown_days=1)


def _facts(scale: Scale) -> list[Data]:
    name = Sealed("key", "text")
    return [
        organisation.OrganisationFounded("bench", "Asia/Shanghai"),
        organisation.DeciderAdopted(LATEST),
        organisation.PersonJoined(_HEAD, name, None, ("admin", "manager")),
        organisation.TerritoryDefined("ter_1", "north", None, _HEAD),
        *(
            organisation.PersonJoined(f"per_{number}", name, "ter_1")
            for number in range(scale.reps)
        ),
        organisation.PolicyAdopted(1, _policy(scale, 110).as_rules()),
    ]


@dataclass
class _Work:
    """Claims, follow-ups, some deals and releases, transfers with a deadline and two answers."""

    scale: Scale

    def requests(self) -> list[tuple[Data, str]]:
        """Return what is asked, and by whom; the customers come first."""
        chance = random.Random(1)  # noqa: S311 - which customers does not matter
        count = self.scale.customers
        asked: list[tuple[Data, str]] = [
            (requests.RegistrationRequested(_customer(each), "organisation", "name"), _HEAD)
            for each in range(count)
        ]
        owners: dict[str, str] = {}
        while len(asked) < self.scale.requests:
            customer = _customer(chance.randrange(count))
            asked += self._step(customer, owners, chance, len(asked))
        return asked

    def _step(
        self, customer: str, owners: dict[str, str], chance: random.Random, number: int
    ) -> list[tuple[Data, str]]:
        person = f"per_{chance.randrange(self.scale.reps)}"
        owner = owners.get(customer)
        lot = chance.random()
        if owner is None or lot < 0.3:
            owners.setdefault(customer, person)
            return [(requests.ClaimFiled(customer, person), person)]
        if lot < 0.7:
            return [(requests.FollowUpLogged(customer, f"fup_{number}", owner, "call"), owner)]
        if lot < 0.8:
            return [(requests.DealRecorded(customer, f"deal_{number}", owner, "won"), owner)]
        if lot < 0.9:
            del owners[customer]
            return [(requests.ReleaseRequested(customer, "no_need"), owner)]
        owners[customer] = person
        name = f"trf_{number}"
        return [
            (requests.TransferRequested(customer, name, person, "moved"), owner),
            (requests.DeadlineReached(customer, STEP_REMINDER, name, _DUE), CLOCK),
            (requests.ApprovalGiven(customer, name), _HEAD),
            (requests.ApprovalGiven(customer, name), person),
        ]


def _customer(number: int) -> str:
    return f"cus_{number:08d}"


def _record(
    database: BenchDatabase, events: Catalogue, stream: str, asked: Sequence[tuple[Any, str]]
) -> None:
    with CommitterThread(database.service_url) as committer:
        for start in range(0, len(asked), _APPEND_EVENTS):
            part = asked[start : start + _APPEND_EVENTS]
            committer.append(Append(tuple(_new(events, stream, *each) for each in part)))


def _new(events: Catalogue, stream: str, data: Any, actor: str) -> NewEvent:
    body = request_body(events, Origin("bench", "bench", actor), 0, data)
    whole = stream if stream == "organisation" else f"{stream}-{data.customer}"
    return NewEvent(whole, events.name_of(data), body)
