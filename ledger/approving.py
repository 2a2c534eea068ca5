"""Approvals: the steps that an ownership needs before it may move, and who may answer them. Pure.

Nobody judges a cause of their own: who asked and who would receive, the parties of a conflict whose
ruling is carried out, and whoever acts for them, approve nothing; nor does one person fill two
steps. Only to accept is the receiver's, for whom no other party stands in. Whoever is excluded so,
has left or is away is replaced by a delegate in force, else by the next head up, and in the end by
an administrator. Who is entitled is judged by the organisation's facts below the position of the
answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal

from ledger import reasons
from ledger.events import decisions
from ledger.events.values import ApprovalStep, Approver
from ledger.organisation import OrganisationAt

TRANSFER = "transfer"
RELEASE = "release"
COLLABORATION = "collaboration"
CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person has answered in place of one of a step's approvers."""

    approver: int
    person: str
    agreed: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A step as it stands: how far it was passed on upwards, and what was answered."""

    step: ApprovalStep
    passed_on: int = 0
    answers: tuple[Answer, ...] = ()

    @property
    def agreed(self) -> bool:
        """Whether enough of the approvers agreed."""
        return sum(each.agreed for each in self.answers) >= self.step.needed

    @property
    def refused(self) -> bool:
        """Whether so many refused that not enough are left to agree."""
        refusals = sum(not each.agreed for each in self.answers)
        return refusals > len(self.step.approvers) - self.step.needed


@dataclass(frozen=True, slots=True)
class Approval:
    """What waits for approval, as ``purpose`` says a transfer, release, collaboration or claim.

    ``owner`` owned the customer when it was opened, None where it was free and is claimed;
    ``receiver`` would own it, or collaborate; None for a release. ``steps`` are those with which it
    was opened; ``current`` counts those that are done. ``since`` is when the current step was
    opened, or passed on (UTC). ``collaborators`` says what becomes of them by a transfer.
    """

    approval: str
    purpose: str
    requester: str
    owner: str | None
    receiver: str | None
    opened: datetime
    since: datetime
    steps: tuple[Asked, ...]
    reason_code: str
    current: int = 0
    # Of the opening: the policy in force, by its number, and the import that it belongs to.
    policy: int = 0
    import_id: str | None = None
    # When those who may answer the current step now were reminded (UTC).
    reminded: datetime | None = None
    collaborators: Literal["keep", "end"] | None = None
    # The hand-over that opened it, where one did.
    hand_over: str | None = None
    # Between whom the conflict was by whose ruling it was opened.
    ruled_among: tuple[str, ...] = ()

    @property
    def parties(self) -> tuple[str, ...]:
        """Whoever must not judge: who asked, who would receive, and who was ruled on."""
        named = (self.requester, self.receiver, *self.ruled_among)
        return tuple(dict.fromkeys(each for each in named if each is not None))

    @property
    def step(self) -> Asked:
        """The step that is to be answered now."""
        return self.steps[self.current]

    @property
    def answered(self) -> frozenset[str]:
        """Everybody who has answered a step."""
        return frozenset(each.person for step in self.steps for each in step.answers)

    def answered_by(self, answer: Answer) -> Approval:
        """Return the approval with an answer to its current step."""
        step = replace(self.step, answers=(*self.step.answers, answer))
        steps = (*self.steps[: self.current], step, *self.steps[self.current + 1 :])
        return replace(self, steps=steps)

    def advanced(self, since: datetime) -> Approval:
        """Return the approval at its next step, opened at a moment (UTC)."""
        return replace(self, current=self.current + 1, since=since, reminded=None)

    def passed_on(self, since: datetime) -> Approval:
        """Return the approval with its current step passed on upwards at a moment (UTC)."""
        step = replace(self.step, passed_on=self.step.passed_on + 1)
        steps = (*self.steps[: self.current], step, *self.steps[self.current + 1 :])
        return replace(self, steps=steps, since=since, reminded=None)


Step = (
    decisions.ApprovalOpened
    | decisions.StepAnswered
    | decisions.StepOpened
    | decisions.StepReminded
    | decisions.StepPassedOn
)
"""The decisions about what awaits approval, but for its closing."""


def begun(steps: Sequence[ApprovalStep]) -> tuple[Asked, ...]:
    """Return the steps of an approval that nobody has answered yet."""
    return tuple(Asked(step) for step in steps)


def after(
    approval: Approval | None,
    decision: Step,
    effective: datetime,
    *,
    policy: int,
    import_id: str | None,
) -> Approval:
    """Fold a decision about what awaits approval; ``effective`` is when it holds (UTC).

    ``policy`` is the number of the one in force, ``import_id`` the import that it belongs to.
    """
    if isinstance(decision, decisions.ApprovalOpened):
        return Approval(
            decision.approval,
            decision.purpose,
            decision.requester,
            decision.owner,
            decision.receiver,
            effective,
            effective,
            begun(decision.steps),
            decision.reason_code,
            policy=policy,
            import_id=import_id,
            collaborators=decision.collaborators,
            hand_over=decision.hand_over,
            ruled_among=decision.ruled_among or (),
        )
    if approval is None:
        raise AssertionError("only what is open can be answered")
    if isinstance(decision, decisions.StepOpened):
        return approval.advanced(effective)
    if isinstance(decision, decisions.StepReminded):
        return replace(approval, reminded=effective)
    if isinstance(decision, decisions.StepPassedOn):
        return approval.passed_on(effective)
    return approval.answered_by(Answer(decision.approver, decision.person, decision.agreed))


# --- who is entitled ---------------------------------------------------------------------------


def is_present(organisation: OrganisationAt, person: str, day: date) -> bool:
    """Say whether somebody is of the organisation on ``day``, and not away."""
    found = organisation.person(person)
    if found is None or found.has_left(day):
        return False
    return not any(each.has(day) for each in found.absences)


def delegates(organisation: OrganisationAt, person: str, day: date) -> Iterator[str]:
    """Yield who acts for somebody on ``day``, the one named last first."""
    found = organisation.person(person)
    for each in reversed(found.delegations if found else ()):
        if each.has(day):
            yield each.delegate


def excluded(
    parties: Sequence[str],
    answered: frozenset[str],
    organisation: OrganisationAt,
    day: date,
    version: int,
) -> frozenset[str]:
    """Return who may not judge: the parties, whoever acts for them, and who has filled a step.

    Since ``version`` 3 of the decider the delegate of a delegate is among those, as in standing in.
    """
    found = _in_turn if version >= 3 else delegates
    acting = {each for person in parties for each in found(organisation, person, day)}
    return answered.union(parties, acting)


def entitled(
    approver: Approver,
    passed_on: int,
    barred: frozenset[str],
    organisation: OrganisationAt,
    day: date,
) -> tuple[str, ...]:
    """Return who may answer in place of ``approver``; empty where nobody is left.

    ``passed_on`` counts how often the step was passed on upwards; beyond the administrators it
    goes no further.
    """
    found: tuple[str, ...] = ()
    for level, group in enumerate(_levels(approver, barred, organisation, day)):
        found = group
        if level >= passed_on:
            return found
    return found


def _levels(
    approver: Approver, barred: frozenset[str], organisation: OrganisationAt, day: date
) -> Iterator[tuple[str, ...]]:
    """Yield, the nearest first, those of whom each level has somebody; each only once."""
    if approver.kind == "receiver":
        # To accept is nobody else's: at most of whoever acts for the receiver.
        stand_in = _stand_in(approver.person or "", barred, organisation, day)
        yield (stand_in,) if stand_in else ()
        return
    seen: set[str] = set()
    for group in _candidates(approver, organisation):
        found = (_stand_in(person, barred | seen, organisation, day) for person in group)
        level = tuple(dict.fromkeys(person for person in found if person is not None))
        seen.update(level)
        if level:
            yield level


def _candidates(approver: Approver, organisation: OrganisationAt) -> Iterator[Sequence[str]]:
    territory = approver.territory
    if approver.kind in {"owner", "person"} and approver.person is not None:
        yield (approver.person,)
        person = organisation.person(approver.person)
        territory = person.territory if person else None
    elif approver.kind == "role":
        yield [each.person for each in organisation.bearers(approver.role or "")]
    for above in organisation.lineage(territory):
        if above.head is not None:
            yield (above.head,)
    yield [each.person for each in organisation.bearers("admin")]


def _stand_in(
    person: str, barred: frozenset[str] | set[str], organisation: OrganisationAt, day: date
) -> str | None:
    """Return the person, else a delegate in force, or that one's delegate, and so on."""
    return next(
        (
            each
            for each in _in_turn(organisation, person, day)
            if each not in barred and is_present(organisation, each, day)
        ),
        None,
    )


def _in_turn(organisation: OrganisationAt, person: str, day: date) -> Iterator[str]:
    """Yield the person, then whoever acts for them, then who acts for these, and so on."""
    waiting, seen = [person], {person}
    while waiting:
        nearest = waiting.pop(0)
        yield nearest
        for each in delegates(organisation, nearest, day):
            if each not in seen:
                seen.add(each)
                waiting.append(each)


def asked(
    approval: Approval, organisation: OrganisationAt, day: date, version: int
) -> tuple[str, ...]:
    """Return, sorted, who may answer the current step on ``day``."""
    return tuple(sorted({each for _, each in open_places(approval, organisation, day, version)}))


def passed_further(
    approval: Approval, since: datetime, organisation: OrganisationAt, day: date, version: int
) -> Approval | None:
    """Return the approval passed on upwards; None where nobody else is further up."""
    further = approval.passed_on(since)
    found = asked(further, organisation, day, version)
    return None if found in ((), asked(approval, organisation, day, version)) else further


def open_places(
    approval: Approval, organisation: OrganisationAt, day: date, version: int
) -> Iterator[tuple[int, str]]:
    """Yield the approvers of the current step who have not answered, each with who may.

    By ``version`` of the decider.
    """
    step = approval.step
    filled = {each.approver for each in step.answers}
    for number, approver in enumerate(step.step.approvers):
        if number not in filled:
            barred = _barred(approval, approver, approval.answered, organisation, day, version)
            for person in entitled(approver, step.passed_on, barred, organisation, day):
                if person not in approval.answered:
                    yield number, person


def _barred(
    approval: Approval,
    approver: Approver,
    answered: frozenset[str],
    organisation: OrganisationAt,
    day: date,
    version: int,
) -> frozenset[str]:
    """Return who may not answer in place of ``approver``; a receiver may always accept.

    Since ``version`` 3 of the decider nobody accepts in place of a receiver who is not there that
    asked for it, was ruled on as well, acts for one of those, or has filled a step.
    """
    if approver.kind != "receiver":
        return excluded(approval.parties, answered, organisation, day, version)
    if version < 3:
        return frozenset()
    receiver = approver.person or ""
    others = [each for each in approval.ruled_among if each != receiver]
    return excluded((approval.requester, *others), answered, organisation, day, version) - {
        receiver
    }


def place_of(
    approval: Approval, person: str, organisation: OrganisationAt, day: date, version: int
) -> int | str:
    """Return which approver of the current step ``person`` answers for, or why for none."""
    for number, entitled_person in open_places(approval, organisation, day, version):
        if entitled_person == person:
            return number
    if person in approval.answered:
        return reasons.ALREADY_ANSWERED
    for ahead in range(approval.current + 1, len(approval.steps)):
        later = replace(approval, current=ahead)
        if any(each == person for _, each in open_places(later, organisation, day, version)):
            return reasons.NOT_YOUR_TURN
    return reasons.OWN_CAUSE if person in approval.parties else reasons.NOT_ASKED


def lacks_an_approver(
    approval: Approval, organisation: OrganisationAt, day: date, version: int
) -> bool:
    """Say whether some step could not be filled, one person filling one place at most."""
    taken: set[str] = set()
    for number in range(len(approval.steps)):
        step = replace(approval, current=number)
        filled = 0
        for approver in step.step.step.approvers:
            barred = _barred(approval, approver, frozenset(taken), organisation, day, version)
            found = entitled(approver, 0, barred, organisation, day)
            free = next((each for each in found if each not in taken), None)
            if free is not None:
                taken.add(free)
                filled += 1
        if filled < step.step.step.needed:
            return True
    return False
