"""What if: the recorded requests decided again under another policy, and what would be different.

Up to a position the log is folded as it was decided; behind it the requests are decided again, in
the order in which they were, each on the state that this itself has led to. Imports keep the policy
that they name. Nothing is written.

Requests of the clock are dropped, for they follow from a state that was not. Deadlines are raised
anew from the state that would be, as by a clock that never sleeps: each at the very moment at which
it falls due, where something was decided behind it. So a step that nobody ever answered counts as
waiting until it expires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime
from heapq import heappop, heappush
from typing import Any

from psycopg import Connection

from ledger.customer import Admitted
from ledger.deadlines import CLOCK, Deadline, next_at
from ledger.deciders import Decider, decider
from ledger.deciding import apply_parking, closes, is_hand_over, request_stream
from ledger.envelope import Event
from ledger.events.catalogue import Catalogue
from ledger.events.decisions import ApprovalOpened, Decision, RequestParked
from ledger.events.organisation import (
    AbsenceEnded,
    CalendarStated,
    ImportClosed,
    PersonReturned,
)
from ledger.events.requests import DeadlineReached
from ledger.folding import Folding, fold_log
from ledger.organisation import NumberedPolicy, OrganisationAt
from ledger.policy import Policy
from ledger.settled import Settled, subject
from ledger.store import arrays
from ledger.store.reading import head

# The number under which the given policy is known to what was opened under it.
_GIVEN = -1
# Fields that say on which terms something was decided. Steps are compared by themselves.
_TERMS = frozenset({"protected_until", "retry_at", "limits_waived"})
_STEPS = frozenset({"steps", "asked"})


@dataclass(slots=True)
class Count:
    """A number, and how often each of the customers behind it was counted."""

    total: int = 0
    customers: dict[str, int] = field(default_factory=dict)

    def add(self, customer: str) -> None:
        """Count once more, for a customer."""
        self.total += 1
        self.customers[customer] = self.customers.get(customer, 0) + 1


@dataclass(slots=True)
class Report:
    """What would be different behind the position ``after``, up to ``upto``.

    ``requests`` were decided again. ``decisions`` counts those that come out differently, and
    ``changes`` the same by what was and what would be decided (``ClaimRefused: holding_limit``);
    ``terms`` those that come out the same on other terms, such as another end of protection.
    ``steps`` counts requests that open other approval steps; ``steps_asked`` and
    ``steps_would_be`` count the steps themselves.

    As it stands in the end: ``owners`` holds, by customer, the owner that is and the one that would
    be; ``waiting`` who would await approval and does not, ``not_waiting`` the other way round.

    Apart from all that: ``undecidable`` requests, that could not be decided again or come behind
    such a one of the same customer; ``undecided`` ones, that the log has no decision on; the
    ``dropped`` requests of the clock, and the deadlines ``raised`` in their stead.
    """

    after: int
    upto: int = 0
    requests: int = 0
    decisions: Count = field(default_factory=Count)
    changes: dict[tuple[str, str], Count] = field(default_factory=dict)
    terms: Count = field(default_factory=Count)
    steps: Count = field(default_factory=Count)
    steps_asked: int = 0
    steps_would_be: int = 0
    owners: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    not_waiting: list[str] = field(default_factory=list)
    undecidable: Count = field(default_factory=Count)
    undecided: Count = field(default_factory=Count)
    dropped: Count = field(default_factory=Count)
    raised: Count = field(default_factory=Count)


@dataclass(frozen=True, slots=True)
class _UnderPolicy(OrganisationAt):
    """The organisation at a position, with another policy in force."""

    given: NumberedPolicy

    @property
    def policy(self) -> NumberedPolicy:
        return self.given

    def policy_numbered(self, number: int) -> Policy:
        if number == _GIVEN:
            return self.given.policy
        # Not super(): a class with slots is made twice, and knows only its first self.
        return OrganisationAt.policy_numbered(self, number)


@dataclass(slots=True)
class _Pending:
    """A request that was decided again; its recorded decisions are not all read yet.

    ``other`` is None where it has no decision now.
    """

    customer: str
    other: tuple[Decision, ...] | None
    recorded: list[Decision] = field(default_factory=list)


class WhatIf:
    """Takes the log on from where ``folding`` stands, and decides it again under ``policy``.

    Holds the settled state twice, as it is and as it would be, and no events.
    """

    def __init__(self, folding: Folding, policy: Policy) -> None:
        self._folding = folding
        self._catalogue = folding.catalogue
        self._other = _copied(folding.settled)
        self._given = NumberedPolicy(_GIVEN, policy)
        # When something falls due next at a customer; what no longer holds stays until then.
        self._due: list[tuple[datetime, str]] = []
        self._expected: dict[str, datetime] = {}
        self._pending: _Pending | None = None
        # Hand-overs of which not all parts are read yet, by the position of their request.
        self._hand_overs: dict[int, _Pending] = {}
        self._stuck: set[str] = set()
        self._report = Report(folding.position)
        self._expect_all(folding.position)

    def take(self, event: Event, requests: Mapping[int, Event]) -> None:
        """Take the next event; raises as ``Folding.take``, and DeciderMissingError."""
        data = event.data
        if isinstance(data, RequestParked):
            apply_parking(self._other, data)
        elif self._catalogue.kind_of(event.name) == "decision":
            request = requests[event.causation or 0]
            if is_hand_over(request):
                self._take_part(event, request)
            else:
                self._take_decision(event, request)
        self._folding.take(event, requests)
        if isinstance(data, ImportClosed) or self._counts_by(data):
            self._expect_all(event.position)  # from now on something falls due, or at another time
        elif isinstance(data, AbsenceEnded | PersonReturned):
            self._expect_all(event.position, of=data.person)

    def _take_decision(self, event: Event, request: Event) -> None:
        if not event.ordinal:
            self._compare()
            self._let_pass(request, event.position)
            self._pending = self._decide_again(event, request)
        if self._pending is not None:
            self._pending.recorded.append(event.data)
        else:  # the rest of what was decided in front of where this begins
            self._follow(event, request)

    def _take_part(self, event: Event, request: Event) -> None:
        """Take a decision on a hand-over: all its parts are decided again where it begins."""
        if not event.ordinal:
            self._compare()
            self._pending = None
            self._let_pass(request, event.position)
            self._hand_overs[request.position] = self._decide_again(event, request)
        pending = self._hand_overs.get(request.position)
        if pending is None:  # it began in front of where this begins
            self._follow(event, request)
            return
        pending.recorded.append(event.data)
        if closes(request, event):
            self._compare_by_customer(self._hand_overs.pop(request.position), request.data.giver)

    def _follow(self, event: Event, request: Event) -> None:
        organisation = self._folding.organisation.at(request.position)
        try:
            self._other.apply(request, event.data, event.effective, organisation)
        except MemoryError:  # of this machine, and not of this request
            raise
        except Exception:  # the rest of a hand-over that contradicts what would have come meanwhile
            self._stuck.add(event.data.customer)

    def take_all(self, events: Iterable[Event], requests: Mapping[int, Event]) -> None:
        """Take the next events, in order."""
        for event in events:
            self.take(event, requests)
        self._folding.settled.touched.clear()
        self._other.touched.clear()

    def report(self) -> Report:
        """Return what is different, when all was taken; call it once."""
        self._compare()
        report = self._report
        report.upto = self._folding.position
        for position, customer in self._folding.open.items():
            if position > report.after:
                report.undecided.add(customer)
        actual = self._folding.settled.customers
        for customer in sorted(actual.keys() | self._other.customers.keys()):
            if customer in self._stuck:
                continue  # nobody knows how it would have gone on
            is_so, would_be = actual.get(customer), self._other.customers.get(customer)
            if is_so is would_be:
                continue
            if _owner(is_so) != _owner(would_be):
                report.owners[customer] = _owner(is_so), _owner(would_be)
            if _waits(would_be) and not _waits(is_so):
                report.waiting.append(customer)
            elif _waits(is_so) and not _waits(would_be):
                report.not_waiting.append(customer)
        return report

    def _decide_again(self, decision: Event, request: Event) -> _Pending:
        report = self._report
        customer: str = decision.data.customer
        if isinstance(request.data, DeadlineReached):
            report.dropped.add(customer)
            return _Pending(customer, None)
        # The version that decided it decides it again: in force, or named by an unparking.
        decide = decider(decision.envelope["decider"])
        about = subject(self._other, request)
        decided = None
        if about not in self._stuck:
            decided = self._decide(decide, request, about, self._organisation_of(request))
        if decided is None:
            report.undecidable.add(about)
        else:
            report.requests += 1
            for touched in dict.fromkeys((about, *(each.customer for each in decided))):
                self._expect(touched, self._under_policy(request.position))
        return _Pending(customer, decided)

    def _decide(
        self, decide: Decider, request: Event, about: str, organisation: OrganisationAt
    ) -> tuple[Decision, ...] | None:
        """Decide on the state that would be, and fold it; None where that cannot be done.

        The enforcer would park the request, and its customer would wait.
        """
        decided: list[Decision] = []
        try:
            is_last = False
            while not is_last:
                draft = decide(self._other, request, organisation)
                for data in draft.all:
                    self._other.apply(request, data, draft.effective, organisation)
                decided += draft.all
                is_last = draft.is_last
        except MemoryError:  # of this machine, and not of this request
            raise
        except Exception:  # a defect at one customer must not end the whole
            self._stuck.add(about)
            return None
        return tuple(decided)

    def _organisation_of(self, request: Event) -> OrganisationAt:
        if request.position <= self._report.after:
            return self._folding.organisation.at(request.position)
        return self._under_policy(request.position)

    def _under_policy(self, position: int) -> _UnderPolicy:
        return _UnderPolicy(self._folding.organisation, position, self._given)

    # --- deadlines -----------------------------------------------------------------------------

    def _counts_by(self, data: object) -> bool:
        """Say whether what falls due goes by a calendar that is just being stated."""
        recycling = self._given.policy.recycling
        counts = recycling.rules and recycling.days == "working"
        return bool(counts) and isinstance(data, CalendarStated)

    def _expect(self, customer: str, organisation: OrganisationAt) -> None:
        """Take note of what falls due next at a customer."""
        found = self._deadline(customer, organisation)
        if found is not None and self._expected.get(customer) != found.due:
            self._expected[customer] = found.due
            heappush(self._due, (found.due, customer))

    def _expect_all(self, position: int, of: str | None = None) -> None:
        """Look anew at all customers, or at those of one person."""
        organisation = self._under_policy(position + 1)
        for customer, found in self._other.customers.items():
            if of is None or _owner(found) == of:
                self._expect(customer, organisation)

    def _deadline(self, customer: str, organisation: OrganisationAt) -> Deadline | None:
        found = self._other.customers.get(customer)
        if not isinstance(found, Admitted) or customer in self._stuck:
            return None
        return next_at(customer, found, organisation, found.effective)

    def _let_pass(self, request: Event, position: int) -> None:
        """Let be decided what falls due until a request, which is decided at ``position``."""
        organisation = self._under_policy(position)
        while self._due and self._due[0][0] <= request.recorded:
            due, customer = heappop(self._due)
            if self._expected.get(customer) != due:
                continue
            del self._expected[customer]
            found = self._deadline(customer, organisation)
            if found is not None and found.due <= due:
                self._raise(customer, found, organisation)
            else:  # a fact of the organisation has put it off meanwhile
                self._expect(customer, organisation)

    def _raise(self, customer: str, deadline: Deadline, organisation: _UnderPolicy) -> None:
        data = DeadlineReached(customer, deadline.kind, deadline.subject, deadline.due)
        event = Event(
            organisation.position,
            deadline.due,
            request_stream(customer),
            0,
            self._catalogue.name_of(data),
            {"actor": CLOCK, "caller": CLOCK},
            data,
        )
        self._report.raised.add(customer)
        decide = decider(organisation.decider)
        if self._decide(decide, event, customer, organisation) is None:
            self._report.undecidable.add(customer)
        elif self._deadline(customer, organisation) != deadline:
            self._expect(customer, organisation)

    # --- comparing -----------------------------------------------------------------------------

    def _compare(self) -> None:
        """Compare what was decided on the request before with what would be."""
        pending, self._pending = self._pending, None
        if pending is None or pending.other is None:
            return
        recorded, other = tuple(pending.recorded), pending.other
        if recorded == other:
            steps = _steps(recorded)
            self._report.steps_asked += len(steps)
            self._report.steps_would_be += len(steps)
            return
        self._count(pending.customer, recorded, other)

    def _compare_by_customer(self, pending: _Pending, giver: str) -> None:
        """Compare what a hand-over has brought with what it would bring, customer by customer.

        How far its parts have come and the figures at the end say nothing besides.
        """
        if pending.other is None:
            return
        recorded, other = _by_customer(pending.recorded), _by_customer(pending.other)
        for customer in sorted((recorded.keys() | other.keys()) - {giver}):
            self._count(customer, recorded.get(customer, ()), other.get(customer, ()))

    def _count(
        self, customer: str, recorded: tuple[Decision, ...], other: tuple[Decision, ...]
    ) -> None:
        report = self._report
        asked, would_be = _steps(recorded), _steps(other)
        report.steps_asked += len(asked)
        report.steps_would_be += len(would_be)
        if asked != would_be:
            report.steps.add(customer)
        left_out = _TERMS | _STEPS
        if _without(recorded, left_out) != _without(other, left_out):
            report.decisions.add(customer)
            change = _outcome(recorded), _outcome(other)
            report.changes.setdefault(change, Count()).add(customer)
        elif _without(recorded, _STEPS) != _without(other, _STEPS):
            report.terms.add(customer)


def _copied(settled: Settled) -> Settled:
    """Return the state once more; what stands in it never changes, and is shared."""
    copied = Settled(**{each.name: copy(getattr(settled, each.name)) for each in fields(settled)})
    copied.involved = {person: set(where) for person, where in settled.involved.items()}
    return copied


def _by_customer(decided: Iterable[Decision]) -> dict[str, tuple[Decision, ...]]:
    found: dict[str, tuple[Decision, ...]] = {}
    for data in decided:
        found[data.customer] = (*found.get(data.customer, ()), data)
    return found


def _owner(customer: Any) -> str | None:
    return customer.owner if isinstance(customer, Admitted) else None


def _waits(customer: Any) -> bool:
    return isinstance(customer, Admitted) and customer.approval is not None


def _steps(decided: tuple[Decision, ...]) -> tuple[Any, ...]:
    """Return the approval steps that were opened."""
    return tuple(
        step for each in decided if isinstance(each, ApprovalOpened) for step in each.steps
    )


def _without(decided: tuple[Decision, ...], left_out: frozenset[str]) -> list[tuple[Any, ...]]:
    return [
        (
            type(data),
            *(getattr(data, each.name) for each in fields(data) if each.name not in left_out),
        )
        for data in decided
    ]


def _outcome(decided: tuple[Decision, ...]) -> str:
    """Return what was decided, without whom and when, such as ``ClaimRefused: holding_limit``."""
    return ", ".join(_name_of(data) for data in decided)


def _name_of(data: Any) -> str:
    reason = getattr(data, "reason", None)
    return f"{type(data).__name__}: {reason}" if reason else type(data).__name__


def what_if(
    connection: Connection[Any],
    catalogue: Catalogue,
    policy: Policy,
    after: int,
    told: Callable[[int, int], None] = lambda position, top: None,
) -> Report:
    """Decide what is recorded behind ``after``, up to now, again under ``policy``; write nothing.

    ``told`` hears of the position reached, and of the one that is aimed at. Each page is read by a
    statement of its own, so that nothing is held up. Raises as ``Folding.take`` for a log that
    contradicts itself, and DeciderMissingError.
    """
    arrays.register(connection)
    top = head(connection)
    folding = Folding(catalogue)
    fold_log(connection, folding, min(after, top), lambda position: told(position, top))
    deciding = WhatIf(folding, policy)
    fold_log(
        connection, folding, top, lambda position: told(position, top), taking=deciding.take_all
    )
    return deciding.report()
