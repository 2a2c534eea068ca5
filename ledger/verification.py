"""The audit of the log: every byte recomputed, every decision decided again.

What is found here is any change that does not also recompute what follows from it: the leaf hash,
and every decision that depends on what was changed. Whoever rewrites words on which nothing
depends (a note, a source) together with the hash, or the whole log behind some position together
with all that was told of it, is found by checkpoints kept outside the database, not by this.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson
from psycopg import Connection

from ledger import building, four_eyes, ids
from ledger.canonical import canonical_bytes, instant
from ledger.deciders import Decider, DeciderMissingError, deciders
from ledger.deciding import (
    ENFORCER,
    decision_events,
    expected_ordinal,
    parking_event,
    stream_of,
)
from ledger.envelope import Event, StoredEvent, decode
from ledger.errors import LedgerError
from ledger.events.catalogue import Catalogue, Data
from ledger.events.decisions import RequestParked
from ledger.events.organisation import ImportOpened, PolicyAdopted, ProposalAdopted
from ledger.events.requests import RequestUnparked
from ledger.events.values import Sealed
from ledger.folding import Folding
from ledger.organisation import Organisation, OrganisationAt, Proposal
from ledger.policy import Policy, without_limits
from ledger.settled import Settled, subject
from ledger.store import arrays
from ledger.store.appending import NewEvent
from ledger.store.reading import head, read_at, read_requests

PAGE_EVENTS = 2_000
PAGE_REQUEST_IDS = 10_000
SHOWN_MAX = 10
ORGANISATION = "organisation"

_PAGE = """
SELECT position, recorded, stream, version, name, body, causation, ordinal, leaf
FROM ledger.events WHERE position > %s AND position <= %s ORDER BY position LIMIT %s
"""
_REQUEST_IDS_OF = """
SELECT a.n, r.first_position, r.events
FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS a(caller, request_id, n)
CROSS JOIN LATERAL (SELECT first_position, events FROM ledger.request_ids k
                    WHERE k.request_id = a.request_id AND k.caller = a.caller LIMIT 1) r
ORDER BY a.n
"""
_REQUEST_IDS = """
SELECT request_id, caller, first_position, events FROM ledger.request_ids
WHERE (request_id, caller) > (%s, %s) ORDER BY request_id, caller LIMIT %s
"""
# A row for each partition of the customers: what lies behind the least, some may not have reached.
_ENFORCED = "SELECT count(*), min(position) FROM ledger.consumer_progress WHERE consumer = %s"
# Who follows the log, and how far each of them has seen it.
_SEEN = """
SELECT 'consumer ' || consumer, max(position) FROM ledger.consumer_progress GROUP BY consumer
UNION ALL
SELECT 'follower ' || application_name, notification_id FROM ledger.tracking
"""


class DiffersError(Exception):
    """The log differs from what it must be; carries the check's name, a sentence, a position."""

    def __init__(self, check: str, sentence: str, position: int | None = None) -> None:
        super().__init__(sentence)
        self.check = check
        self.position = position


@dataclass(frozen=True, slots=True)
class Failure:
    """The first position that differs, which check found it, and how."""

    position: int
    check: str
    sentence: str


@dataclass(slots=True)
class Report:
    """What the audit of the log has found; ``undecided`` positions include the parked ones."""

    events: int = 0
    decisions: int = 0
    failure: Failure | None = None
    undecided: list[int] = field(default_factory=list)
    parked: dict[int, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nothing differs; requests that wait for their decision are no difference."""
        return self.failure is None

    def lines(self) -> Iterator[str]:
        """Yield the report as sentences."""
        if self.failure is not None:
            yield (
                f"position {self.failure.position} differs ({self.failure.check}):"
                f" {self.failure.sentence}"
            )
            return
        yield f"{self.events:,} events: dense, in order, each as its leaf hash says"
        yield f"{self.decisions:,} decisions: decided again, each the same to the byte"
        if self.parked:
            some = ", ".join(str(each) for each in sorted(self.parked)[:SHOWN_MAX])
            yield f"{len(self.parked):,} requests are parked: {some}"
        waiting = [each for each in self.undecided if each not in self.parked]
        if waiting:
            some = ", ".join(str(each) for each in waiting[:SHOWN_MAX])
            yield f"{len(waiting):,} requests wait for their decision: {some}"


def verify_log(
    connection: Connection[Any],
    catalogue: Catalogue,
    progress: Callable[[int], None] = lambda position: None,
    *,
    versions: Mapping[int, Decider] | None = None,
) -> Report:
    """Audit the log as far as it goes now, a page a statement; stops at the first difference.

    Holds the settled state of every customer, and one page of events. ``progress`` hears of the
    position reached. Others may append meanwhile. ``versions`` are the deciders that there are, by
    default all of this version of guishu; raises DeciderMissingError where another was in force.
    """
    arrays.register(connection)
    # In this order: what has been seen of the log, and who has come how far, is in the log by then.
    partitions, least = connection.execute(_ENFORCED, (ENFORCER,)).fetchall()[0]
    top = head(connection)
    audit = _Audit(connection, catalogue, deciders() if versions is None else versions)
    report = Report()
    try:
        while audit.position < top:
            audit.check_page(top)
            progress(audit.position)
        # Of a single partition, what was dealt with shows as well how far it has come.
        dealt_with = audit.folding.dealt_with if partitions <= 1 else 0
        audit.check_end(max(min(least or 0, top), dealt_with))
    except DiffersError as error:
        position = audit.position if error.position is None else error.position
        report.failure = Failure(position, error.check, str(error))
    report.events = audit.events
    report.decisions = audit.decisions
    report.undecided = list(audit.folding.open)
    report.parked = {
        position: parked.error for position, parked in sorted(audit.folding.parked.items())
    }
    return report


def decisions_lacking(
    folding: Folding, run: Sequence[tuple[StoredEvent, Event]], requests: Mapping[int, Event]
) -> int:
    """Decide again, and fold, decisions that come next; return how many are missing behind them.

    ``folding`` has folded all in front of them; ``requests`` holds what they are about. Raises
    DiffersError for one that is not what deciding brings, and DeciderMissingError.
    """
    checks = DecisionChecks(folding.catalogue, deciders(), folding)
    for stored, event in run:
        checks.take(stored, event, requests)
    folding.settled.touched.clear()
    return checks.following


class _Audit:
    """Checks one page after the other; ``position`` is the one that was looked at last."""

    def __init__(
        self, connection: Connection[Any], catalogue: Catalogue, versions: Mapping[int, Decider]
    ) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._bytes = _ByteChecks(catalogue)
        self._request_ids = _RequestIdChecks(connection)
        self._four_eyes = _FourEyesChecks()
        self._decisions = DecisionChecks(catalogue, versions)

    @property
    def folding(self) -> Folding:
        return self._decisions.folding

    @property
    def position(self) -> int:
        return self._bytes.position

    @property
    def events(self) -> int:
        """How many events hold."""
        return self.folding.position

    @property
    def decisions(self) -> int:
        """How many decisions were decided again, and hold."""
        return self._decisions.count

    def check_page(self, top: int) -> None:
        """Check the next events; raises DiffersError for the first that differs."""
        rows = self._connection.execute(
            _PAGE, (self.position, top, PAGE_EVENTS), prepare=True, binary=True
        ).fetchall()
        if not rows:
            raise DiffersError(
                "dense", f"positions {self.position + 1} to {top} are missing", self.position + 1
            )
        read: list[tuple[StoredEvent, Event]] = []
        found: DiffersError | None = None
        for row in rows:
            stored = StoredEvent._make(row[:8])
            try:
                read.append((stored, self._bytes.check(stored, row[8])))
            except DiffersError as error:
                found = _at(stored.position, error)
                break
        # What was read before the difference may itself differ in what it says.
        self._check_meaning(read)
        if found is not None:
            raise found

    def _check_meaning(self, read: Sequence[tuple[StoredEvent, Event]]) -> None:
        events = [event for _, event in read]
        about = [_about(event) for event in events]
        requests = read_requests(
            self._connection,
            self._catalogue,
            [position for position in about if position is not None],
            events,
        )
        found: DiffersError | None = None
        for stored, event in read:
            try:
                self._request_ids.take(event)
                self._four_eyes.take(event, self.folding.organisation)
                self._decisions.take(stored, event, requests)
            except DiffersError as error:
                found = _at(stored.position, error)
                break
        self.folding.settled.touched.clear()
        self._request_ids.check()
        if found is not None:
            raise found

    def check_end(self, enforced: int) -> None:
        """Check what only shows when all was read; ``enforced`` is how far all was decided."""
        self._decisions.check_end()
        self._four_eyes.check_end(self.position)
        self._request_ids.check_end(self.position)
        self._check_passed_over(enforced)
        self._check_tail()

    def _check_passed_over(self, enforced: int) -> None:
        """Check that all that the enforcer has passed has its decision, or waits for a parked one.

        So a decision that was cut off the end of the log is missed.
        """
        folding = self.folding
        waiting = folding.waiting()
        passed = [
            position
            for position, customer in folding.open.items()
            if position <= enforced and customer not in waiting
        ]
        for start in range(0, len(passed), PAGE_EVENTS):
            stored = read_at(self._connection, passed[start : start + PAGE_EVENTS])
            for request in (decode(self._catalogue, each) for each in stored):
                if subject(folding.settled, request) not in waiting:
                    raise DiffersError(
                        "undecided",
                        "the enforcer has passed this request, and its decision is not there",
                        request.position,
                    )

    def _check_tail(self) -> None:
        """Check that nobody has seen more of the log than there is."""
        seen = self._connection.execute(_SEEN).fetchall()
        last = self._request_ids.last_position
        top = head(self._connection)
        for who, position in [*seen, ("a request id", last)]:
            if position > top:
                raise DiffersError(
                    "tail", f"the log ends before it, and {who} knows of {position}", top + 1
                )


def _about(event: Event) -> int | None:
    """Return the position of the request that a decision or parking is about."""
    return event.data.request if isinstance(event.data, RequestParked) else event.causation


def _at(position: int, error: DiffersError) -> DiffersError:
    return DiffersError(error.check, str(error), error.position or position)


class _ByteChecks:
    """What an event must be by itself, and next to the one in front of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._recorded: datetime | None = None
        self._versions: dict[str, int] = {}
        self.position = 0

    def check(self, stored: StoredEvent, leaf: bytes) -> Event:
        """Return the next event as read; raises DiffersError."""
        before, self.position = self.position, stored.position
        if stored.position != before + 1:
            missing = before + 1
            self.position = missing
            raise DiffersError(
                "dense", f"positions {missing} to {stored.position - 1} are missing", missing
            )
        self._check_place(stored)
        self._check_leaf(stored, leaf)
        event = self._read(stored)
        if (stored.causation, stored.ordinal) != (event.causation, event.ordinal):
            raise DiffersError("cause", "its columns and its body name different causes")
        self._check_stream(event)
        return event

    def _check_place(self, stored: StoredEvent) -> None:
        if self._recorded is not None and stored.recorded < self._recorded:
            raise DiffersError("recorded", "it was recorded before the event in front of it")
        self._recorded = stored.recorded
        expected = self._versions.get(stored.stream, 0) + 1
        if stored.version != expected:
            raise DiffersError(
                "version", f"{stored.stream} has version {stored.version}, not {expected}"
            )
        self._versions[stored.stream] = stored.version

    def _check_leaf(self, stored: StoredEvent, leaf: bytes) -> None:
        # The bytes of ledger.canonical.Entry, without its look at what the database has checked.
        place = f"{stored.position} {instant(stored.recorded)} {stored.stream} {stored.version}"
        head_line = f"{place} {stored.name}\n"
        if hashlib.sha256(b"\x00" + head_line.encode() + stored.body).digest() != leaf:
            raise DiffersError("leaf", "its leaf hash is not that of its columns")

    def _read(self, stored: StoredEvent) -> Event:
        try:
            if canonical_bytes(orjson.loads(stored.body)) != stored.body:
                raise DiffersError("canonical", "its body is not in canonical form")
            return decode(self._catalogue, stored)
        except (LedgerError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DiffersError("readable", f"it cannot be read: {type(error).__name__}") from error

    def _check_stream(self, event: Event) -> None:
        kind = self._catalogue.kind_of(event.name)
        expected = ORGANISATION if kind == "fact" else stream_of(kind, event.data)
        if event.stream != expected:
            raise DiffersError("stream", f"it stands in {event.stream}, and not in {expected}")


class _FourEyesChecks:
    """What one person alone does not put in force was proposed by another.

    Also where a superuser, or a way round the door, has recorded it.
    """

    def __init__(self) -> None:
        # The adoption whose fact comes next, and what it adopts.
        self._adoption: Event | None = None
        self._adopted: Proposal | None = None

    def take(self, event: Event, organisation: Organisation) -> None:
        """Look at the next event, which is not folded yet; raises DiffersError."""
        if self._adopted is None and event.stream != ORGANISATION:
            return
        # What is recorded together was judged together, by what held in front of all of it.
        before = organisation.at(event.position - int(event.envelope.get("index", 0)))
        if self._adopted is not None:
            self._check_adopted(event, self._adopted, before)
        elif isinstance(event.data, ProposalAdopted):
            self._adoption, self._adopted = event, _adopted(event, event.data, before)
        elif before.four_eyes and four_eyes.is_guarded_fact(event.data, before):
            raise DiffersError(
                "four_eyes", f"{event.actor} alone has put in force what takes two people"
            )

    def _check_adopted(self, event: Event, adopted: Proposal, before: OrganisationAt) -> None:
        if not self._is_behind(event) or not _states(event.data, adopted, before):
            raise DiffersError(
                "four_eyes", f"it stands behind the adoption of {adopted.proposal}, and is not it"
            )
        self._adoption = self._adopted = None

    def _is_behind(self, event: Event) -> bool:
        """Say whether it was recorded together with the adoption in front of it."""
        if self._adoption is None or event.stream != ORGANISATION:
            return False
        adoption, own = self._adoption.envelope, event.envelope
        same = all(adoption.get(each) == own.get(each) for each in ("caller", "request_id"))
        return same and own.get("index") == int(adoption.get("index", 0)) + 1

    def check_end(self, position: int) -> None:
        """Check that every adoption has its fact; raises DiffersError."""
        if self._adopted is not None:
            raise DiffersError("four_eyes", "what it adopts does not come behind it", position)


def _adopted(event: Event, data: ProposalAdopted, before: OrganisationAt) -> Proposal:
    proposal = before.proposal(data.proposal)
    if proposal is None or proposal.state != "open":
        raise DiffersError("four_eyes", f"{data.proposal} is no open proposal")
    if event.actor == proposal.proposer:
        raise DiffersError("four_eyes", f"{event.actor} adopts a proposal of their own")
    if data.proposer != proposal.proposer:
        raise DiffersError("four_eyes", f"{proposal.proposer} has proposed it, and nobody else")
    return proposal


def _states(data: Data, proposal: Proposal, before: OrganisationAt) -> bool:
    """Say whether a fact is what was proposed; ids that were made, and numbers, are its own."""
    try:
        command = four_eyes.command_of(proposal)
    except LedgerError:
        return False
    own = {ids.TERRITORY: getattr(data, "territory", None), ids.IMPORT: _import_id(data)}
    made = building.Ids(_made={f"{prefix}/": each for prefix, each in own.items() if each})
    context = building.FactContext(getattr(data, "number", 1) - 1, {})
    stated, _ = building.build_fact(command, made, _seals_nothing, context)
    if isinstance(data, PolicyAdopted | ImportOpened) and isinstance(stated, type(data)):
        # Rules that a later guishu reads may say more than those that were written then.
        wanted = before.policy.policy if command.policy is None else command.policy
        rules = without_limits(wanted) if command.policy is None else wanted
        return replace(stated, rules=data.rules) == data and (
            Policy.model_validate(data.rules) == rules
        )
    return stated == data


def _import_id(data: Data) -> str | None:
    return data.import_id if isinstance(data, ImportOpened) else None


def _seals_nothing(subject: str, name: str, text: str) -> Sealed:
    raise AssertionError("nothing of a proposal is sealed")


class DecisionChecks:
    """What the events say: each decision is decided again on what was decided before it."""

    def __init__(
        self,
        catalogue: Catalogue,
        versions: Mapping[int, Decider],
        folding: Folding | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._versions = versions
        self.folding = Folding(catalogue) if folding is None else folding
        self.count = 0
        # By customer, the last of its requests that was decided.
        self._decided: dict[str, int] = {}
        # Of the request decided last, what must follow at once: its other decisions.
        self._following: deque[NewEvent] = deque()

    @property
    def following(self) -> int:
        """How many decisions must follow at once."""
        return len(self._following)

    def take(self, stored: StoredEvent, event: Event, requests: Mapping[int, Event]) -> None:
        """Check and fold the next event; raises DiffersError."""
        if self._following:
            self._compare(stored, self._following.popleft(), event.causation or 0)
            self.count += 1
        elif isinstance(event.data, RequestParked):
            self._check_parking(stored, event.data, requests)
        elif self._catalogue.kind_of(event.name) == "decision":
            self._check_decision(stored, event, requests)
            self.count += 1
        elif event.causation is not None:
            raise DiffersError("cause", "it names a cause, and only a decision has one")
        try:
            self.folding.take(event, requests)
        except Exception as error:
            raise DiffersError(
                "state", f"it contradicts what was decided before: {type(error).__name__}"
            ) from error

    def _check_parking(
        self, stored: StoredEvent, parked: RequestParked, requests: Mapping[int, Event]
    ) -> None:
        if parked.request not in self.folding.open:
            raise DiffersError("parking", "what it parks is no request, or was decided before")
        settled = self.folding.settled
        if parked.customer != subject(settled, requests[parked.request]):
            raise DiffersError("parking", "it makes another customer wait than that of its request")
        self._compare(stored, parking_event(self._catalogue, parked, settled), parked.request)

    def _check_decision(
        self, stored: StoredEvent, event: Event, requests: Mapping[int, Event]
    ) -> None:
        folding = self.folding
        request = requests.get(event.causation or 0)
        if request is None or request.position not in folding.open:
            raise DiffersError("once", self._why_not(request))
        if event.ordinal != expected_ordinal(request, folding.settled):
            raise DiffersError("once", "it is not the decision that comes next on its request")
        if not isinstance(request.data, RequestUnparked):
            customer: str = request.data.customer
            last = self._decided.get(customer, 0)
            if last > request.position:
                raise DiffersError(
                    "order", f"request {request.position} of {customer} was decided after {last}"
                )
            self._decided[customer] = request.position
        version = self._version(event, request)
        first, *others = self._decide_again(request, version)
        self._compare(stored, first, request.position)
        self._following.extend(others)

    def check_end(self) -> None:
        """Check that the last request has all its decisions; raises DiffersError."""
        if self._following:
            missing = self._following[0]
            raise DiffersError(
                "decision",
                f"the {missing.name} that belongs here is missing",
                self.folding.position + 1,
            )

    def _why_not(self, request: Event | None) -> str:
        if request is None:
            return "there is no request in front of it that it decides"
        if self._catalogue.kind_of(request.name) != "request":
            return f"it decides the {request.name} at {request.position}, which is no request"
        return f"the request at {request.position} was decided before"

    def _version(self, event: Event, request: Event) -> int:
        version = event.envelope.get("decider")
        in_force = self.folding.organisation.at(request.position).decider
        named = self.folding.named.get(request.position, frozenset())
        if version == in_force:
            return in_force
        if request.position in self.folding.parked and version in named:
            return int(version)
        raise DiffersError("decider", f"version {version} of the decider was not in force")

    def _decide_again(self, request: Event, version: int) -> tuple[NewEvent, ...]:
        settled: Settled = self.folding.settled
        decide = self._versions.get(version)
        if decide is None:
            raise DeciderMissingError(version)
        try:
            draft = decide(settled, request, self.folding.organisation.at(request.position))
            return decision_events(self._catalogue, request, draft, version, settled.versions)
        except Exception as error:
            raise DiffersError(
                "decision", f"deciding its request again fails: {type(error).__name__}"
            ) from error

    def _compare(self, stored: StoredEvent, expected: NewEvent, request: int) -> None:
        if (stored.stream, stored.name) != (expected.stream, expected.name):
            raise DiffersError(
                "decision",
                f"request {request} decided again brings {expected.name} in {expected.stream},"
                f" and not this {stored.name}",
            )
        version = stored.version if expected.version is None else expected.version
        if (stored.body, stored.version) != (expected.body, version):
            raise DiffersError(
                "decision", f"request {request} decided again brings another {expected.name}"
            )


@dataclass(slots=True)
class _Run:
    """The events of one append with a request id, which stand next to each other."""

    caller: str
    request_id: str
    first_position: int
    events: int = 1


class _RequestIdChecks:
    """The ids of requests name the events that they brought; what was erased names nothing."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._run: _Run | None = None
        self._complete: list[_Run] = []
        self._matched = 0
        self.last_position = 0

    def take(self, event: Event) -> None:
        """Look at the next event; raises DiffersError."""
        envelope, run = event.envelope, self._run
        request_id = envelope.get("request_id")
        if request_id is None:
            self._close()
            return
        index, caller = envelope.get("index"), envelope.get("caller")
        if index == 0:
            self._close()
            self._run = _Run(str(caller), request_id, event.position)
        elif run and (run.caller, run.request_id, run.events) == (caller, request_id, index):
            run.events += 1
        else:
            raise DiffersError("request_id", f"it is not event {index} of the request it names")

    def _close(self) -> None:
        if self._run is not None:
            self._complete.append(self._run)
            self._run = None

    def check(self) -> None:
        """Compare what was seen with the request ids that are still kept; raises DiffersError."""
        runs, self._complete = self._complete, []
        if not runs:
            return
        callers = arrays.text_array([run.caller for run in runs])
        request_ids = arrays.text_array([run.request_id for run in runs])
        rows = self._connection.execute(
            _REQUEST_IDS_OF, (callers, request_ids), prepare=True, binary=True
        ).fetchall()
        self._matched += len(rows)
        for number, first_position, events in rows:
            run = runs[number - 1]
            if (first_position, events) != (run.first_position, run.events):
                raise DiffersError(
                    "request_id",
                    f"its request id names {events} events from {first_position} on, and it"
                    f" brought {run.events}",
                    run.first_position,
                )

    def check_end(self, top: int) -> None:
        """Check that every request id names events; raises DiffersError."""
        self._close()
        self.check()
        kept = 0
        for page in self._pages():
            kept += sum(1 for row in page if row[2] <= top)
            self.last_position = max(
                self.last_position, *(first + events - 1 for _, _, first, events in page)
            )
        if kept != self._matched:
            raise DiffersError(
                "request_id", "a request id names what it did not bring", self._misled(top)
            )

    def _misled(self, top: int) -> int:
        """Return the first position that a request id names and that is not of that request."""
        misled: list[int] = []
        for page in self._pages():
            named = {row[2]: row for row in page if row[2] <= top}
            for stored in read_at(self._connection, sorted(named)):
                request_id, caller, _, _ = named.pop(stored.position)
                envelope = orjson.loads(stored.body)
                said = (envelope.get("request_id"), envelope.get("caller"), envelope.get("index"))
                if said != (request_id, caller, 0):
                    misled.append(stored.position)
            misled.extend(named)
        return min(misled, default=top)

    def _pages(self) -> Iterator[list[tuple[str, str, int, int]]]:
        behind = ("", "")
        while True:
            page = self._connection.execute(
                _REQUEST_IDS, (*behind, PAGE_REQUEST_IDS), prepare=True
            ).fetchall()
            if not page:
                return
            yield page
            behind = (page[-1][0], page[-1][1])
