"""What can be asked: each request is a fact once recorded, and gets its decision later.

Those about a customer stand in the stream ``customer-<id>``, those about all that a person holds in
``person-<id>``. Who asked, when, and from where is in the
envelope (see ledger/envelope.py); here is what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from ledger.conditions import Condition
from ledger.events.values import (
    Attribute,
    Contact,
    Day,
    ForeignId,
    Identifier,
    Instant,
    Money,
    Part,
    Sealed,
    Site,
    Text,
)


@dataclass(frozen=True, slots=True)
class RegistrationRequested:
    """Somebody enters a customer. ``kind`` is ``organisation`` or ``individual`` (个体工商户).

    ``opening`` marks a row of an opening balance: before the import's cut-over the customer's
    ownership is unknown, not free.
    """

    customer: str
    kind: str
    name: Text
    identifiers: tuple[Identifier, ...] = ()
    foreign_ids: tuple[ForeignId, ...] = ()
    parent: str | None = None
    territory: str | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    contacts: tuple[Contact, ...] = ()
    sites: tuple[Site, ...] = ()
    opening: bool = False
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CustomerChangeRequested:
    """Somebody changes a customer. What is None or absent stays; ``removed`` names what goes.

    ``removed`` holds words such as ``parent``, ``territory``, ``attribute:region``,
    ``contact:<id>``, ``site:<id>``, ``identifier:<system>``. ``closed`` closes the customer or
    opens it again.
    """

    customer: str
    name: Text | None = None
    identifiers: tuple[Identifier, ...] = ()
    foreign_ids: tuple[ForeignId, ...] = ()
    parent: str | None = None
    territory: str | None = None
    attributes: dict[str, Attribute] = field(default_factory=dict)
    contacts: tuple[Contact, ...] = ()
    sites: tuple[Site, ...] = ()
    removed: tuple[str, ...] = ()
    closed: bool | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ClaimFiled:
    """Somebody claims a customer (领取) for ``claimant``."""

    customer: str
    claimant: str
    note: Sealed | None = None


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """The owner, or a manager over the owner or the customer, gives the customer back (释放)."""

    customer: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class AssignmentRequested:
    """A manager assigns a free customer to somebody (分配)."""

    customer: str
    assignee: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """Somebody asks that ``receiver`` becomes the owner (转移).

    ``value`` is that of the deal at stake, where there is one: rules may ask for it.
    ``collaborators`` says what becomes of those who collaborate; they stay where nothing is said.
    """

    customer: str
    transfer: str
    receiver: str
    reason_code: str
    reason: Sealed | None = None
    value: Money | None = None
    collaborators: Literal["keep", "end"] | None = None


@dataclass(frozen=True, slots=True)
class TransferWithdrawn:
    """Whoever asked for a transfer or release that awaits approval no longer does (撤回)."""

    customer: str
    approval: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class ApprovalGiven:
    """Somebody agrees to what awaits approval (同意)."""

    customer: str
    approval: str
    comment: Sealed | None = None


@dataclass(frozen=True, slots=True)
class ApprovalDenied:
    """Somebody does not agree to what awaits approval (驳回)."""

    customer: str
    approval: str
    reason_code: str
    comment: Sealed | None = None


@dataclass(frozen=True, slots=True)
class CollaborationRequested:
    """Somebody asks that ``person`` works on the customer beside its owner (协作).

    It holds from ``from_day`` until the day before ``until_day``, where these are given, and with
    ``site`` for that place of the customer only. ``share`` is the percentage of the credit that was
    agreed on. What the owner or a head asks for is settled at once; others await their answer.
    """

    customer: str
    collaboration: str
    person: str
    role: str
    reason_code: str
    reason: Sealed | None = None
    share: Decimal | None = None
    from_day: Day | None = None
    until_day: Day | None = None
    site: str | None = None


@dataclass(frozen=True, slots=True)
class CollaborationEndRequested:
    """The owner, a head, or whoever collaborates asks that a collaboration ends."""

    customer: str
    collaboration: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class RulingGiven:
    """Somebody rules on a conflict (裁决): ``keep``, ``award``, ``split``, ``allow``, ``dismiss``.

    ``receiver`` is the party to whom the customer is awarded. ``parts`` are those who collaborate
    with the owner from now on, where it is split.
    """

    customer: str
    conflict: str
    ruling: str
    reason_code: str
    reason: Sealed | None = None
    receiver: str | None = None
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class FollowUpLogged:
    """Somebody followed a customer up (跟进): how, what was agreed, and when next.

    When it happened is the envelope's ``occurred``, where it differs from the recorded time.
    ``note_digest`` tells the same note apart from others under the same key (ledger/tokens.py).
    """

    customer: str
    follow_up: str
    person: str
    channel: str
    note: Sealed | None = None
    agreed: Sealed | None = None
    next_on: Day | None = None
    contact: str | None = None
    site: str | None = None
    foreign_ids: tuple[ForeignId, ...] = ()
    note_digest: str | None = None


@dataclass(frozen=True, slots=True)
class DealRecorded:
    """A deal was ``won`` or ``lost`` by a person, with its value where there is one."""

    customer: str
    deal: str
    person: str
    outcome: str
    value: Money | None = None
    product: str | None = None
    foreign_ids: tuple[ForeignId, ...] = ()


@dataclass(frozen=True, slots=True)
class FollowUpCorrected:
    """A follow-up was entered wrongly; what is None stays. ``at`` is the corrected time."""

    customer: str
    follow_up: str
    reason_code: str
    reason: Sealed | None = None
    channel: str | None = None
    note: Sealed | None = None
    agreed: Sealed | None = None
    next_on: Day | None = None
    at: Instant | None = None


@dataclass(frozen=True, slots=True)
class FollowUpVoided:
    """A follow-up never happened, or was entered twice: it no longer counts."""

    customer: str
    follow_up: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class DealCorrected:
    """A deal was entered wrongly; what is None stays."""

    customer: str
    deal: str
    reason_code: str
    reason: Sealed | None = None
    outcome: str | None = None
    value: Money | None = None
    product: str | None = None


@dataclass(frozen=True, slots=True)
class DealVoided:
    """A deal fell through, or was entered twice: it no longer counts."""

    customer: str
    deal: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class RecycleHoldRequested:
    """A head asks that the customer is not recycled until the day before ``until`` (暂缓回收)."""

    customer: str
    until: Day
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class GroupReviewRequested:
    """Somebody asks whether a customer's group has come under several owners unseen (核查).

    As before the decider saw groups, or by an import. An administrator asks, or a head over the
    root of the group.
    """

    customer: str


@dataclass(frozen=True, slots=True)
class StandInRequested:
    """A head asks that ``person`` stands in for an owner who has left (代管).

    Until the day before ``until``, or the end of the ownership, if that comes first.
    """

    customer: str
    stand_in: str
    person: str
    until: Day
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class StandInEndRequested:
    """A head, an owner who is back, or whoever stands in asks that it ends."""

    customer: str
    stand_in: str
    reason_code: str
    reason: Sealed | None = None


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The clock says that something fell due. ``kind`` is one of ledger/deadlines.py.

    ``subject`` is what it is about: an approval, a conflict, or a customer and since when it is
    owned. ``due`` is when it fell due (UTC).
    """

    customer: str
    kind: str
    subject: str
    due: Instant


@dataclass(frozen=True, slots=True)
class HandOverRequested:
    """Somebody orders that what ``giver`` holds goes to ``receivers`` (交接).

    ``plan`` is ``all_to_one``, or ``spread`` over several by territory and load. With ``customers``
    only these go, with ``territories`` and ``conditions`` only what is in one of the territories
    and meets all the conditions; with none of them all that the giver holds, other things than
    customers too. ``collaborators`` says what becomes of those who collaborate at the customers
    (they stay where nothing is said), ``collaborations`` what of the giver's own: they end, or the
    receiver has them.
    """

    giver: str
    hand_over: str
    receivers: tuple[str, ...]
    plan: Literal["all_to_one", "spread"]
    reason_code: str
    reason: Sealed | None = None
    customers: tuple[str, ...] = ()
    territories: tuple[str, ...] = ()
    conditions: tuple[Condition, ...] = ()
    collaborators: Literal["keep", "end"] | None = None
    collaborations: Literal["end", "give"] | None = None

    @property
    def customer(self) -> str:
        """What waits where it cannot be decided: of other requests the customer, here the giver."""
        return self.giver

    @property
    def is_of_all(self) -> bool:
        """Whether it is about all that the giver holds."""
        return not (self.customers or self.territories or self.conditions)


@dataclass(frozen=True, slots=True)
class RequestUnparked:
    """An administrator has a parked request decided after all, by a stated decider version.

    ``request`` is the position of the parked request; its customer's later requests, which waited
    for it, are decided after it, in their order.
    """

    customer: str
    request: int
    decider: int


Request = (
    RegistrationRequested
    | CustomerChangeRequested
    | ClaimFiled
    | ReleaseRequested
    | AssignmentRequested
    | TransferRequested
    | TransferWithdrawn
    | ApprovalGiven
    | ApprovalDenied
    | CollaborationRequested
    | CollaborationEndRequested
    | RulingGiven
    | FollowUpLogged
    | DealRecorded
    | FollowUpCorrected
    | FollowUpVoided
    | DealCorrected
    | DealVoided
    | RequestUnparked
    | DeadlineReached
    | RecycleHoldRequested
    | GroupReviewRequested
    | HandOverRequested
    | StandInRequested
    | StandInEndRequested
)
