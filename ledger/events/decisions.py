"""What is decided: the enforcer alone writes these, in the stream ``ownership-<customer>``.

The outcome of a hand-over stands in its giver's stream, ``person-<id>``.

Cause, ordinal, effective time, decider version, policy and the guard values seen stand in the
envelope (see ledger/envelope.py). Reason codes are listed in ledger/reasons.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field

from ledger.events.values import ApprovalStep, Identifier, Instant


@dataclass(frozen=True, slots=True)
class CustomerAdmitted:
    """The customer is in the ledger, in the pool of ``territory`` (None: anybody may claim).

    ``known_from`` is the moment before which nobody knows whose the customer was. ``parent`` is
    the group parent as decided: where a duplicate was named, the customer that exists.
    """

    customer: str
    kind: str
    known_from: Instant
    territory: str | None = None
    parent: str | None = None
    identifiers: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistrationRefused:
    """The customer was not admitted; ``existing`` is the one that has the identifier already."""

    customer: str
    reason: str
    existing: str | None = None
    identifier_system: str | None = None


@dataclass(frozen=True, slots=True)
class CustomerChanged:
    """The change holds as it was asked; ``territory`` is the customer's from now on.

    So is ``parent``, the group parent: where a duplicate was named, the customer that exists.
    """

    customer: str
    territory: str | None = None
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """Nothing of the change holds; ``fields`` are those that it failed for."""

    customer: str
    reason: str
    fields: tuple[str, ...] = ()
    existing: str | None = None


@dataclass(frozen=True, slots=True)
class OwnershipGranted:
    """The claimant owns the customer from the effective time on.

    ``owner_territory`` and ``customer_territory`` are those of this moment. ``limits_waived`` are
    the reasons for which the policy in force would have refused the claim, had the policy of its
    import not waived them. ``opening`` marks the grant of an opening balance, which is no claim of
    its day. ``approval`` is that of a claim that awaited it.
    """

    customer: str
    owner: str
    owner_territory: str | None = None
    customer_territory: str | None = None
    protected_until: Instant | None = None
    limits_waived: tuple[str, ...] = ()
    opening: Literal[True] | None = None
    approval: str | None = None


@dataclass(frozen=True, slots=True)
class ClaimRefused:
    """The claim fails for one reason; ``owner`` is the customer's owner at that moment.

    ``retry_at`` is the first moment at which this reason no longer holds, where that is known.
    """

    customer: str
    claimant: str
    reason: str
    owner: str | None = None
    retry_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class OwnershipAssigned:
    """A manager gave a free customer to ``owner``, who owns it from the effective time on."""

    customer: str
    owner: str
    assigned_by: str
    owner_territory: str | None = None
    customer_territory: str | None = None
    protected_until: Instant | None = None


@dataclass(frozen=True, slots=True)
class AssignmentRefused:
    """The assignment fails for one reason; ``owner`` is the customer's owner at that moment."""

    customer: str
    assignee: str
    reason: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class OwnershipReleased:
    """``owner`` no longer owns the customer; it is in the pool of ``territory`` again."""

    customer: str
    owner: str
    reason_code: str
    territory: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRefused:
    """The release fails for one reason; ``owner`` is the customer's owner at that moment."""

    customer: str
    reason: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class TransferRefused:
    """The transfer fails at the door for one reason; ``owner`` is the owner at that moment.

    ``retry_at`` is the first moment at which this reason no longer holds, where that is known.
    """

    customer: str
    transfer: str
    receiver: str
    reason: str
    owner: str | None = None
    retry_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class ApprovalOpened:
    """A transfer, release, collaboration or claim (``purpose``) awaits approval by these steps.

    They are answered in order. ``asked`` may answer the first, as the organisation stands at this
    moment. ``approval`` is the id of the transfer or collaboration; that of a release or claim is
    made of its request's position. ``owner`` is left out where nobody owns the customer.
    ``receiver`` would own it, or collaborate. ``collaborators`` is what a transfer's
    request says becomes of them. ``hand_over`` is the one that opened it,
    where one did. ``ruled_among`` are the parties of the conflict whose ruling opened it.
    """

    customer: str
    approval: str
    purpose: str
    requester: str
    owner: Annotated[str | None, Field(default=None)]
    reason_code: str
    receiver: str | None = None
    steps: tuple[ApprovalStep, ...] = ()
    asked: tuple[str, ...] = ()
    collaborators: Literal["keep", "end"] | None = None
    hand_over: str | None = None
    ruled_among: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StepAnswered:
    """An answer counts: ``person`` answers ``step`` in place of its ``approver`` (both from 0)."""

    customer: str
    approval: str
    step: int
    approver: int
    person: str
    agreed: bool


@dataclass(frozen=True, slots=True)
class AnswerNotCounted:
    """An answer or withdrawal does not count, for one reason."""

    customer: str
    approval: str
    person: str
    reason: str


@dataclass(frozen=True, slots=True)
class StepOpened:
    """The step before it is done: ``asked`` may answer this ``step`` (from 0) now."""

    customer: str
    approval: str
    step: int
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepReminded:
    """Nobody has answered ``step`` in time: ``asked``, who may, are reminded."""

    customer: str
    approval: str
    step: int
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPassedOn:
    """Nor has anybody after the reminder: ``asked``, the next ones up, may answer instead."""

    customer: str
    approval: str
    step: int
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnershipTransferred:
    """``owner`` owns the customer from the effective time on, and ``former_owner`` no longer.

    ``hand_over`` is the one that moved it, where one did; where nobody had to be asked ``approval``
    is the same.
    """

    customer: str
    owner: str
    former_owner: str
    approval: str
    owner_territory: str | None = None
    customer_territory: str | None = None
    protected_until: Instant | None = None
    hand_over: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalClosed:
    """What awaited approval is ``completed``, ``refused``, ``withdrawn``, ``expired`` or ``void``.

    ``reason`` says why it was refused or is void. ``turned_down`` is whose claim was refused: for
    so long as the policy has former owners wait, that person does not claim the customer.
    """

    customer: str
    approval: str
    outcome: str
    reason: str | None = None
    turned_down: str | None = None


@dataclass(frozen=True, slots=True)
class CollaboratorAdded:
    """``person`` collaborates in ``[since, until)``, with ``site`` at that place only.

    ``share`` is the percentage of the credit that was agreed on.
    """

    customer: str
    collaboration: str
    person: str
    role: str
    since: Instant
    until: Instant | None = None
    share: Decimal | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class CollaborationRefused:
    """A collaboration does not begin, or does not end, for one reason."""

    customer: str
    collaboration: str
    reason: str
    person: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class CollaborationsEnded:
    """These collaborations end; ``people`` are whose they were, in the same order."""

    customer: str
    collaborations: tuple[str, ...]
    people: tuple[str, ...]
    reason_code: str


@dataclass(frozen=True, slots=True)
class ConflictOpened:
    """Two parties meet at the customer (撞单); ``parties`` begin with the owner.

    ``kind`` is ``competing_claims``, ``follow_up``, ``deal``, ``identifier`` (entered again as
    another customer) or ``group``: members of the group at whose root this stands are under
    different owners, of whom ``parties`` begin with whoever owns most of them. ``evidence`` are the
    positions of the requests that prove it. ``asked`` may rule, as the organisation stands at this
    moment.
    """

    customer: str
    conflict: str
    kind: str
    parties: tuple[str, ...]
    evidence: tuple[int, ...]
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConflictEvidenceAdded:
    """One more request proves an open conflict; ``parties`` are those who join it."""

    customer: str
    conflict: str
    evidence: tuple[int, ...]
    parties: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConflictClosed:
    """A conflict was ruled on (``outcome`` is the ruling), or its cause is ``gone``.

    ``reason_code`` is that of the ruling, or why the cause is gone. ``receiver`` is to whom the
    customer was awarded; whether it is theirs, other decisions say.
    """

    customer: str
    conflict: str
    outcome: str
    reason_code: str
    ruled_by: str | None = None
    receiver: str | None = None


@dataclass(frozen=True, slots=True)
class GroupReviewRefused:
    """The review of a group brings no conflict, for one reason."""

    customer: str
    reason: str


@dataclass(frozen=True, slots=True)
class RulingReminded:
    """Nobody has ruled on a conflict in time: ``asked``, who may, are reminded."""

    customer: str
    conflict: str
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RulingPassedOn:
    """Nor has anybody after the reminder: ``asked``, the next ones up, may rule instead."""

    customer: str
    conflict: str
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RulingRefused:
    """A ruling does not hold, for one reason; ``person`` gave it."""

    customer: str
    conflict: str
    person: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecycleWarned:
    """``told`` hear that ``owner`` loses the customer at ``goes`` if nobody does anything.

    ``step`` is the number of the warning (from 0), ``because`` ``no_follow_up`` or ``no_deal``.
    """

    customer: str
    owner: str
    step: int
    because: str
    goes: Instant
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CustomerRecycled:
    """``owner`` no longer owns the customer; it is in the pool of ``territory`` again (回收).

    ``because`` is ``no_follow_up`` or ``no_deal``, for so many ``days`` as the rule has, which the
    policy counts (not said before version 3).
    """

    customer: str
    owner: str
    because: str
    territory: str | None = None
    days: int | None = None


@dataclass(frozen=True, slots=True)
class RecycleHeld:
    """Nothing is counted towards the recycling of the customer until a moment."""

    customer: str
    owner: str
    until: Instant


@dataclass(frozen=True, slots=True)
class RecycleHoldRefused:
    """The hold fails for one reason; ``owner`` is the customer's owner at that moment."""

    customer: str
    reason: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class StandInNamed:
    """``person`` stands in for ``owner``, who has left, from the effective time on.

    It ends with ``until`` or with the ownership, unless StandInEnded comes first.
    """

    customer: str
    stand_in: str
    person: str
    owner: str
    named_by: str
    until: Instant


@dataclass(frozen=True, slots=True)
class StandInEnded:
    """``person`` no longer stands in at the customer, before the day that was said."""

    customer: str
    stand_in: str
    person: str
    reason_code: str


@dataclass(frozen=True, slots=True)
class StandInRefused:
    """A stand-in is not named, or does not end, for one reason."""

    customer: str
    stand_in: str
    reason: str
    person: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """The request stands as a fact and nothing else follows.

    ``remark`` is a code such as ``deal_by_non_owner``; ``owner`` the owner at that moment. Of a
    follow-up that was entered late, within the days of the policy, both speak of the time at which
    it happened. ``token_of`` names the follow-up that this one only repeats, so that it does not
    count against recycling; that is remarked where there is nothing else to remark.
    """

    customer: str
    remark: str | None = None
    owner: str | None = None
    token_of: str | None = None


@dataclass(frozen=True, slots=True)
class CorrectionRefused:
    """A correction or voiding does not hold; ``act`` is what it was meant for."""

    customer: str
    act: str
    reason: str


@dataclass(frozen=True, slots=True)
class HandOverLineRefused:
    """What a hand-over names does not move, for one reason; ``owner`` is the customer's owner.

    ``receiver`` is who would have got it, where that was found. ``retry_at`` is the first moment at
    which this reason no longer holds, where that is known.
    """

    customer: str
    hand_over: str
    reason: str
    owner: str | None = None
    receiver: str | None = None
    retry_at: Instant | None = None


@dataclass(frozen=True, slots=True)
class HandOverAdvanced:
    """A part of a hand-over is done, all up to the customer ``behind``, and the rest follows.

    ``decisions`` counts those made so far, with this one. Of all so far: ``moved`` customers have
    another owner, ``waiting`` ones await approval (``promised`` says of whom so many, by receiver),
    ``refused`` ones stay, by reason; ``settled`` counts other things. ``left`` says that the giver
    has left, and owns nothing new by what was asked before.
    """

    giver: str
    hand_over: str
    behind: str
    decisions: int
    moved: int = 0
    waiting: int = 0
    settled: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    promised: dict[str, int] = field(default_factory=dict)
    left: Literal[True] | None = None

    @property
    def customer(self) -> str:
        """What it is about: of other decisions a customer, here the giver."""
        return self.giver


@dataclass(frozen=True, slots=True)
class HandOverCompleted:
    """All that a hand-over is about was gone through; the figures are as of HandOverAdvanced."""

    giver: str
    hand_over: str
    moved: int = 0
    waiting: int = 0
    settled: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    left: Literal[True] | None = None

    @property
    def customer(self) -> str:
        """What it is about: of other decisions a customer, here the giver."""
        return self.giver


@dataclass(frozen=True, slots=True)
class HandOverRefused:
    """Nothing of a hand-over is done, for one reason."""

    giver: str
    hand_over: str
    reason: str

    @property
    def customer(self) -> str:
        """What it is about: of other decisions a customer, here the giver."""
        return self.giver


@dataclass(frozen=True, slots=True)
class RequestParked:
    """The enforcer could not decide the request at position ``request``: a defect, not a refusal.

    The customer waits until a RequestUnparked; the other customers go on. Of a request about a
    person that person stands for the customer, in the stream too.
    """

    customer: str
    request: int
    error: str


Decision = (
    CustomerAdmitted
    | RegistrationRefused
    | CustomerChanged
    | ChangeRefused
    | OwnershipGranted
    | ClaimRefused
    | OwnershipAssigned
    | AssignmentRefused
    | OwnershipReleased
    | ReleaseRefused
    | TransferRefused
    | ApprovalOpened
    | StepAnswered
    | AnswerNotCounted
    | StepOpened
    | OwnershipTransferred
    | ApprovalClosed
    | CollaboratorAdded
    | CollaborationRefused
    | CollaborationsEnded
    | ConflictOpened
    | ConflictEvidenceAdded
    | ConflictClosed
    | RulingReminded
    | RulingPassedOn
    | RulingRefused
    | Noted
    | CorrectionRefused
    | StepReminded
    | StepPassedOn
    | RecycleWarned
    | CustomerRecycled
    | RecycleHeld
    | RecycleHoldRefused
    | GroupReviewRefused
    | HandOverLineRefused
    | HandOverAdvanced
    | HandOverCompleted
    | HandOverRefused
    | StandInNamed
    | StandInEnded
    | StandInRefused
)

OfPerson = HandOverAdvanced | HandOverCompleted | HandOverRefused
"""The decisions about all that a person holds; every other one is about a customer."""
