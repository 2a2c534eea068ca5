"""Judges a history: pure rules, each of which names what contradicts it.

Nothing of the ledger's own deciding is used, but the names of its events: what a log may look like
is said here anew, from docs/http.md and the design.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from tests.soak.history import REQUESTS, Entry, History, Operation

# What changes whose a customer is, and the name of its field for whoever had it before.
_TAKES: dict[str, str] = {"OwnershipReleased": "owner", "OwnershipTransferred": "former_owner"}
_GIVES = frozenset({"OwnershipGranted", "OwnershipAssigned", "OwnershipTransferred"})
_CHANGES = _GIVES | _TAKES.keys() | {"ApprovalOpened", "ApprovalClosed", "StepAnswered"}
_REFUSALS = frozenset(
    {"ClaimRefused", "ReleaseRefused", "TransferRefused", "AnswerNotCounted", "AssignmentRefused"}
)

Demanded = Callable[[str, str], Sequence[frozenset[str]]]
"""Whose approvals the policy demands, step by step, by who asked for a transfer, and to whom."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that does not hold; ``customer`` None: it concerns the whole log."""

    rule: str
    customer: str | None
    sentence: str


@dataclass(frozen=True)
class Judged:
    """A history, with what several rules look up in it."""

    history: History
    demanded: Demanded

    @property
    def operations(self) -> tuple[Operation, ...]:
        return self.history.operations

    @property
    def log(self) -> tuple[Entry, ...]:
        return self.history.log

    @cached_property
    def at(self) -> dict[int, Entry]:
        return {each.position: each for each in self.log}

    @cached_property
    def attempts(self) -> dict[str, list[Operation]]:
        """The operations of each request, in the order in which they began."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for each in self.operations:
            if each.request_id is not None:
                found[each.request_id].append(each)
        return found

    @cached_property
    def requested(self) -> dict[str, list[Entry]]:
        """What was recorded of each request of the clients."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for each in self.log:
            if each.causation is None and each.request_id in self.attempts:
                found[each.request_id].append(each)
        return found

    @cached_property
    def decided(self) -> dict[int, list[Entry]]:
        """The decisions by the position of their request."""
        found: dict[int, list[Entry]] = defaultdict(list)
        for each in self.log:
            if each.causation is not None:
                found[each.causation].append(each)
        return found

    @cached_property
    def asked_of(self) -> dict[str, list[int]]:
        """The positions of the requests about each customer; its stream's versions count them."""
        found: dict[str, list[int]] = defaultdict(list)
        for each in self.log:
            if each.customer and each.stream.startswith("customer-"):
                found[each.customer].append(each.position)
        return found

    @cached_property
    def owners(self) -> dict[str, list[tuple[int, str | None]]]:
        """From which position on whose each customer was."""
        found: dict[str, list[tuple[int, str | None]]] = defaultdict(lambda: [(0, None)])
        for each in self.log:
            if each.name in _GIVES and each.customer:
                found[each.customer].append((each.position, each.data["owner"]))
            elif each.name in _TAKES and each.customer:
                found[each.customer].append((each.position, None))
        return found


Rule = Callable[[Judged], Iterator[Violation]]


def violations(history: History, demanded: Demanded) -> list[Violation]:
    """Return what contradicts the rules; empty: the history is right."""
    judged = Judged(history, demanded)
    return [found for rule in RULES for found in rule(judged)]


# --- the log by itself -----------------------------------------------------------------------


def positions_are_dense(judged: Judged) -> Iterator[Violation]:
    """Positions begin with 1, and each is there once."""
    for number, each in enumerate(judged.log, start=1):
        if each.position != number:
            said = f"at position {number} stands {each.position}"
            yield Violation("positions_are_dense", None, said)
            return


def versions_are_contiguous(judged: Judged) -> Iterator[Violation]:
    """The versions of a stream begin with 1, and each is there once, in the order of positions."""
    last: Counter[str] = Counter()
    for each in judged.log:
        if each.version != last[each.stream] + 1:
            said = f"version {each.version} of {each.stream} follows on {last[each.stream]}"
            yield Violation("versions_are_contiguous", each.customer, said)
        last[each.stream] = each.version


def each_is_decided_once(judged: Judged) -> Iterator[Violation]:
    """Each request has its decisions behind it, once, and they stand together."""
    for each in judged.log:
        if each.causation is not None:
            if each.causation not in judged.at or each.causation >= each.position:
                said = f"position {each.position} decides on {each.causation}"
                yield Violation("each_is_decided_once", each.customer, said)
        elif each.customer is not None:
            found = judged.decided.get(each.position, [])
            said = ", ".join(f"{one.position} {one.name}/{one.ordinal}" for one in found)
            ordinals = [one.ordinal for one in found]
            if not found or ordinals != list(range(len(found))) or not _stand_together(found):
                yield Violation(
                    "each_is_decided_once",
                    each.customer,
                    f"the request at {each.position} has the decisions [{said}]",
                )


def _stand_together(found: Sequence[Entry]) -> bool:
    return all(second.position == first.position + 1 for first, second in pairwise(found))


def nobody_owns_beside_another(judged: Judged) -> Iterator[Violation]:
    """A customer is given to somebody only when it is free, and taken only from its owner."""
    owner: dict[str, str | None] = {}
    for each in judged.log:
        if each.customer is None or each.name not in _CHANGES:
            continue
        now = owner.get(each.customer)
        taken_from = each.data[_TAKES[each.name]] if each.name in _TAKES else None
        if (each.name in _TAKES or each.name in _GIVES) and taken_from != now:
            said = f"{each.name} at {each.position}, while {now or 'nobody'} owned it"
            yield Violation("nobody_owns_beside_another", each.customer, said)
        if each.name in _GIVES:
            owner[each.customer] = each.data["owner"]
        elif each.name in _TAKES:
            owner[each.customer] = None


def ownership_follows_from_requests(judged: Judged) -> Iterator[Violation]:
    """A grant is the claimant's own claim, and a release asked for by the owner."""
    for each in judged.log:
        request = judged.at.get(each.causation or 0)
        if each.name == "OwnershipGranted":
            is_so = (
                request is not None
                and request.name == "ClaimFiled"
                and request.data["claimant"] == each.data["owner"]
            )
        elif each.name == "OwnershipReleased":
            is_so = (
                request is not None
                and request.name == "ReleaseRequested"
                and request.actor == each.data["owner"]
            )
        else:
            continue
        if not is_so or request is None or request.customer != each.customer:
            said = f"{each.name} at {each.position} does not follow from position {each.causation}"
            yield Violation("ownership_follows_from_requests", each.customer, said)


def transfers_are_approved(judged: Judged) -> Iterator[Violation]:
    """A transfer has an opening, and behind that the agreement of each whom the policy demands."""
    opened: dict[str, Entry] = {}
    closed: dict[str, int | None] = {}
    agreed: dict[str, list[str]] = defaultdict(list)
    for each in judged.log:
        name = str(each.data.get("approval"))
        if each.name == "ApprovalOpened":
            opened[name] = each
        elif each.name == "StepAnswered" and each.data["agreed"] and _gave(judged, each):
            agreed[name].append(each.data["person"])
        elif each.name == "OwnershipTransferred":
            # That it is done is said with it, in front of it or behind.
            is_closed = closed.get(name, each.causation) != each.causation
            said = _lacking(judged, each, opened.get(name), agreed[name], is_closed=is_closed)
            if said is not None:
                yield Violation("transfers_are_approved", each.customer, said)
        elif each.name == "ApprovalClosed":
            closed[name] = each.causation


def _gave(judged: Judged, answered: Entry) -> bool:
    """Say whether somebody has given the approval that is counted."""
    request = judged.at.get(answered.causation or 0)
    return (
        request is not None
        and request.name == "ApprovalGiven"
        and request.actor == answered.data["person"]
        and request.data["approval"] == answered.data["approval"]
    )


def _lacking(
    judged: Judged, moved: Entry, opened: Entry | None, agreed: Sequence[str], *, is_closed: bool
) -> str | None:
    """Return what a transfer lacks, None where it lacks nothing."""
    what = f"the transfer at {moved.position}"
    if opened is None or is_closed:
        return f"{what} was not open"
    requester, receiver = opened.data["requester"], opened.data["receiver"]
    if (moved.data["owner"], moved.data["former_owner"]) != (receiver, opened.data["owner"]):
        return f"{what} is not what was opened at {opened.position}"
    if requester in agreed:
        return f"{what} was approved by {requester}, who asked for it"
    steps = judged.demanded(requester, receiver)
    if len(agreed) != len(steps) or any(
        each not in step for each, step in zip(agreed, steps, strict=True)
    ):
        return f"{what} was approved by {list(agreed)}, and {[sorted(each) for each in steps]} must"
    return None


# --- the log by what the clients know --------------------------------------------------------


def acknowledged_is_in_the_log(judged: Judged) -> Iterator[Violation]:
    """What an answer names stands there: the request as asked, at its version, and decisions."""
    for each in judged.operations:
        if each.is_read or each.outcome != "acknowledged":
            continue
        entry = judged.at.get(each.position or 0)
        said = _not_as_asked(each, entry) or _not_at_its_version(each, entry)
        said = said or _not_as_decided(each, judged)
        if said is not None:
            yield Violation(
                "acknowledged_is_in_the_log",
                each.customer,
                f"{each.kind} {each.request_id} of client {each.client}, answered with position"
                f" {each.position}, {said}",
            )


def _not_at_its_version(asked: Operation, entry: Entry | None) -> str | None:
    if entry is None or asked.based_on is None or entry.version == asked.based_on + 1:
        return None
    return f"has version {entry.version}, and was based on {asked.based_on}"


def _not_as_decided(asked: Operation, judged: Judged) -> str | None:
    for position, name in asked.decisions:
        found = judged.at.get(position)
        if found is None or found.name != name or found.causation != asked.position:
            return f"has no {name} at {position}"
    names = {name for _, name in asked.decisions}
    if names and asked.is_refused is not None and asked.is_refused != bool(names & _REFUSALS):
        return f"was answered as {'' if asked.is_refused else 'not '}refused: {sorted(names)}"
    return None


def _not_as_asked(asked: Operation, entry: Entry | None) -> str | None:
    """Return how an entry differs from what a client asked for."""
    if entry is None:
        return "is not in the log"
    if (entry.request_id, entry.causation) != (asked.request_id, None):
        return f"stands there as {entry.request_id}"
    expected = {
        "name": (REQUESTS.get(asked.kind), entry.name),
        "customer": (asked.customer, entry.customer),
        "actor": (asked.person, entry.actor),
        "receiver": (asked.receiver, entry.data.get("receiver")),
    }
    if asked.kind in ("approve", "refuse"):
        expected["approval"] = (asked.approval, entry.data.get("approval"))
    if asked.kind == "claim":
        expected["claimant"] = (asked.person, entry.data.get("claimant"))
    for name, (wanted, found) in expected.items():
        if wanted != found:
            return f"has {name} {found} instead of {wanted}"
    return None


def each_request_is_there_whole_or_not_at_all(judged: Judged) -> Iterator[Violation]:
    """Whatever became of its answer: a request stands in the log once, as asked, or not at all."""
    rule = "each_request_is_there_whole_or_not_at_all"
    for request_id, attempts in judged.attempts.items():
        found = judged.requested.get(request_id, [])
        if len(found) > 1:
            said = f"{request_id} stands at {[each.position for each in found]}"
            yield Violation(rule, attempts[0].customer, said)
        for each in found:
            differs = _not_as_asked(attempts[0], each)
            if differs is not None:
                said = f"{request_id} at {each.position} {differs}"
                yield Violation(rule, attempts[0].customer, said)


def nobody_else_has_asked(judged: Judged) -> Iterator[Violation]:
    """What the log has of the clients' people, the clients have asked for."""
    asked = {each.request_id for each in judged.operations if not each.is_read}
    people = {each.person for each in judged.operations}
    kinds = set(REQUESTS.values())
    for each in judged.log:
        is_theirs = each.causation is None and each.actor in people and each.name in kinds
        if is_theirs and each.request_id not in asked:
            said = f"nobody has asked for {each.request_id} at {each.position}"
            yield Violation("nobody_else_has_asked", each.customer, said)


def refused_has_changed_nothing(judged: Judged) -> Iterator[Violation]:
    """What was not recorded is not there; what was decided as refused brings nothing else."""
    rule = "refused_has_changed_nothing"
    for request_id, attempts in judged.attempts.items():
        if all(each.outcome == "not_recorded" for each in attempts):
            for entry in judged.requested.get(request_id, []):
                said = f"{request_id} was not recorded, and stands at {entry.position}"
                yield Violation(rule, attempts[0].customer, said)
    for position, decided in judged.decided.items():
        names = [each.name for each in decided]
        if _REFUSALS.intersection(names) and _CHANGES.intersection(names):
            said = f"the request at {position} was refused, and brought {names}"
            yield Violation(rule, decided[0].customer, said)


def real_time_order_holds(judged: Judged) -> Iterator[Violation]:
    """What was asked for after an answer stands behind what that answer told of.

    A read tells of no position up to which nothing else may come, so only writes are in front.
    """
    front = _Highest()
    for each in judged.operations:
        if each.outcome == "acknowledged" and each.returned is not None and not each.is_read:
            highest = max([each.position or 0, *(position for position, _ in each.decisions)])
            front.add(each.returned, highest)
    front.close()
    for request_id, attempts in judged.attempts.items():
        began = attempts[0].invoked
        for entry in judged.requested.get(request_id, []):
            known = front.before(began)
            if entry.position <= known:
                yield Violation(
                    "real_time_order_holds",
                    attempts[0].customer,
                    f"{request_id} was asked for at {began:.3f}, when position {known} had been"
                    f" answered, and stands at {entry.position}",
                )


class _Highest:
    """The highest position that had been answered before an instant."""

    def __init__(self) -> None:
        self._answers: list[tuple[float, int]] = []
        self._instants: list[float] = []
        self._highest: list[int] = []

    def add(self, instant: float, position: int) -> None:
        self._answers.append((instant, position))

    def close(self) -> None:
        highest = 0
        for instant, position in sorted(self._answers):
            highest = max(highest, position)
            self._instants.append(instant)
            self._highest.append(highest)

    def before(self, instant: float) -> int:
        at = bisect_right(self._instants, instant)
        return self._highest[at - 1] if at else 0


def reads_show_what_was_so(judged: Judged) -> Iterator[Violation]:
    """A read reflects what it was asked to, and shows what was so there, or a little later.

    Later than its position, for the read models go on while it is answered; but no position of a
    request that was asked for only after its answer.
    """
    rule = "reads_show_what_was_so"
    later = _first_asked_after(judged)
    for each in judged.operations:
        if not each.is_read or each.outcome != "acknowledged" or each.position is None:
            continue
        if each.position < each.min_position:
            said = f"a read from {each.min_position} on was answered by {each.position}"
            yield Violation(rule, each.customer, said)
        upto = later(each.returned or 0.0)
        shown = _owners_between(judged.owners[each.customer], each.position, upto)
        if each.owner not in shown:
            yield Violation(
                rule,
                each.customer,
                f"client {each.client} read at {each.invoked:.3f} by position {each.position} that"
                f" {each.owner or 'nobody'} owns it, which was {shown}",
            )
        version = bisect_right(judged.asked_of[each.customer], each.position)
        if each.version is not None and each.version != version:
            said = f"a read by position {each.position} told version {each.version}, not {version}"
            yield Violation(rule, each.customer, said)


def reads_never_go_back(judged: Judged) -> Iterator[Violation]:
    """A read shows no less than what one before it reflected, while PostgreSQL stays up.

    What it tells may be a lower position, for that is only the least that it reflects. The read
    models do not wait for the disk, so behind a crash they may begin a little before.
    """
    later = _first_asked_after(judged)
    instants = [instant for outage in judged.history.outages for instant in outage]
    reads: dict[int, list[Operation]] = defaultdict(list)
    for each in judged.operations:
        if each.is_read and each.outcome == "acknowledged" and each.returned is not None:
            began = bisect_right(instants, each.invoked)
            # Odd ones lie within an outage.
            if began == bisect_right(instants, each.returned) and not began % 2:
                reads[began].append(each)
    for together in reads.values():
        front = _Highest()
        for each in together:
            front.add(each.returned or 0.0, each.position or 0)
        front.close()
        for each in together:
            known = front.before(each.invoked)
            owners = judged.owners[each.customer]
            if each.owner not in _owners_between(owners, known, later(each.returned or 0.0)):
                said = (
                    f"client {each.client} read at {each.invoked:.3f} that {each.owner or 'nobody'}"
                    f" owns it, when position {known} had been shown"
                )
                yield Violation("reads_never_go_back", each.customer, said)


def _first_asked_after(judged: Judged) -> Callable[[float], int]:
    """Return what gives the last position before any that was asked for after an instant."""
    asked = sorted(
        (attempts[0].invoked, entry.position)
        for request_id, attempts in judged.attempts.items()
        for entry in judged.requested.get(request_id, [])
    )
    instants = [instant for instant, _ in asked]
    lowest = [position for _, position in asked]
    for index in range(len(lowest) - 2, -1, -1):
        lowest[index] = min(lowest[index], lowest[index + 1])

    def upto(instant: float) -> int:
        at = bisect_right(instants, instant)
        return lowest[at] - 1 if at < len(lowest) else len(judged.log)

    return upto


def _owners_between(
    owners: Sequence[tuple[int, str | None]], first: int, last: int
) -> list[str | None]:
    at = bisect_right([position for position, _ in owners], first) - 1
    return [owner for position, owner in owners[at:] if position <= max(first, last)]


RULES: tuple[Rule, ...] = (
    positions_are_dense,
    versions_are_contiguous,
    each_is_decided_once,
    nobody_owns_beside_another,
    ownership_follows_from_requests,
    transfers_are_approved,
    acknowledged_is_in_the_log,
    each_request_is_there_whole_or_not_at_all,
    nobody_else_has_asked,
    refused_has_changed_nothing,
    real_time_order_holds,
    reads_show_what_was_so,
    reads_never_go_back,
)
