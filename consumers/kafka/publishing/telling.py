"""Which decisions subscribers are told of, and in which words. Pure.

Public is what changes whose a customer is, what was asked to change it and failed, and what may
come to change it: approvals, conflicts, warnings of recycling. All else stays inside, and
``KEPT_INSIDE`` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from consumers.kafka.publishing import messages
from consumers.kafka.publishing.messages import Cause, Current, Customer, KnownAs, Person, Told
from consumers.kafka.publishing.standing import Standing, known_as
from ledger.envelope import Event
from ledger.events import decisions
from ledger.events.values import ForeignId
from ledger.organisation import OrganisationAt

PUBLIC: Mapping[type[Any], type[Told]] = {
    decisions.CustomerAdmitted: messages.Admitted,
    decisions.RegistrationRefused: messages.RegistrationRefused,
    decisions.CustomerChanged: messages.CustomerChanged,
    decisions.OwnershipGranted: messages.Granted,
    decisions.ClaimRefused: messages.ClaimRefused,
    decisions.OwnershipAssigned: messages.Assigned,
    decisions.AssignmentRefused: messages.AssignmentRefused,
    decisions.OwnershipReleased: messages.Released,
    decisions.ReleaseRefused: messages.ReleaseRefused,
    decisions.OwnershipTransferred: messages.Transferred,
    decisions.TransferRefused: messages.TransferRefused,
    decisions.ApprovalOpened: messages.ApprovalOpened,
    decisions.ApprovalClosed: messages.ApprovalClosed,
    decisions.ConflictOpened: messages.ConflictOpened,
    decisions.ConflictEvidenceAdded: messages.ConflictExtended,
    decisions.ConflictClosed: messages.ConflictResolved,
    decisions.RecycleWarned: messages.RecycleWarned,
    decisions.RecycleHeld: messages.RecycleHeld,
    decisions.CustomerRecycled: messages.Recycled,
}
"""The decisions that are told, and as what."""

_WORKFLOW = "Who is asked and who answers is the organisation's own; the end is told."
_BESIDE = "Whoever works beside the owner owns nothing."
_ANSWERED = "It changes nothing, and whoever asked for it is answered."
_ORDER = "An order about all that a person holds; each customer that moves is told by itself."

KEPT_INSIDE: Mapping[type[Any], str] = {
    decisions.ChangeRefused: _ANSWERED,
    decisions.StepAnswered: _WORKFLOW,
    decisions.AnswerNotCounted: _WORKFLOW,
    decisions.StepOpened: _WORKFLOW,
    decisions.StepReminded: _WORKFLOW,
    decisions.StepPassedOn: _WORKFLOW,
    decisions.CollaboratorAdded: _BESIDE,
    decisions.CollaborationRefused: _BESIDE,
    decisions.CollaborationsEnded: _BESIDE,
    decisions.GroupReviewRefused: _ANSWERED,
    decisions.RulingReminded: _WORKFLOW,
    decisions.RulingPassedOn: _WORKFLOW,
    decisions.RulingRefused: _WORKFLOW,
    decisions.RecycleHoldRefused: _ANSWERED,
    decisions.StandInNamed: _BESIDE,
    decisions.StandInEnded: _BESIDE,
    decisions.StandInRefused: _BESIDE,
    decisions.Noted: "Follow-ups and deals are the daily work of people, and change no owner.",
    decisions.CorrectionRefused: _ANSWERED,
    decisions.HandOverLineRefused: "It stays whose it is; the hand-over's receipt says why.",
    decisions.HandOverAdvanced: _ORDER,
    decisions.HandOverCompleted: _ORDER,
    decisions.HandOverRefused: _ORDER,
    decisions.RequestParked: "A defect of the ledger, for whoever runs it; nothing is decided.",
}
"""The decisions that are not told, and why."""


@dataclass(frozen=True, slots=True)
class Telling:
    """A decision and what it takes to tell it: how the customer stood before and stands after it.

    ``organisation`` is that of the decision's position. ``customer`` is known by ``foreign_ids``.
    """

    event: Event
    cause: Event
    before: Standing | None
    after: Standing | None
    organisation: OrganisationAt

    def decision(self) -> Told:
        """Return what is told of the decision, which is a public one."""
        model = PUBLIC[type(self.event.data)]
        return model(**self._frame(), **_SAID[model](self, self.event.data))

    def current(self) -> Current | None:
        """Return how the customer stands now, where this decision has made it so."""
        standing, event = self.after, self.event
        if standing is None or standing.position != event.position:
            return None
        return Current(
            position=event.position,
            version=standing.version,
            recorded=event.recorded,
            customer=self._customer(),
            owner=self.person(standing.owner),
            former_owner=self.person(standing.former_owner),
            since=standing.since,
            protected_until=standing.protected_until,
            reason=standing.reason,
            cause=self._cause(),
        )

    def person(self, person: str | None) -> Any:
        """Return somebody with the ids that other systems have for them; None of nobody."""
        if person is None:
            return None
        found = self.organisation.person(person)
        known = known_as(found.foreign_ids, of_a_person=True) if found else ()
        return Person(id=person, foreign_ids=_listed(known))

    def owner_change(self) -> dict[str, Any]:
        """Return whose the customer is and was."""
        after = self.after
        if after is None:
            raise AssertionError(f"{self.event.data.customer} has an owner and was never admitted")
        before = self.before.owner if self.before is not None else None
        return {
            "owner": self.person(after.owner),
            "former_owner": self.person(before),
            "reason": after.reason,
        }

    def purpose_of(self, approval: str) -> str | None:
        """Return what was awaited under an id."""
        awaited = self.before.awaited_as(approval) if self.before is not None else None
        return awaited.purpose if awaited is not None else None

    def _frame(self) -> dict[str, Any]:
        event = self.event
        return {
            "position": event.position,
            "version": event.version,
            "effective": event.effective,
            "recorded": event.recorded,
            "customer": self._customer(),
            "cause": self._cause(),
        }

    def _customer(self) -> Customer:
        data, cause = self.event.data, self.cause.data
        if isinstance(data, decisions.RegistrationRefused):
            # So that whoever entered it knows which of theirs it was.
            known = known_as(cause.foreign_ids, of_a_person=cause.kind == "individual")
        else:
            known = self.after.foreign_ids if self.after is not None else ()
        return Customer(id=data.customer, foreign_ids=_listed(known))

    def _cause(self) -> Cause:
        envelope = self.cause.envelope
        return Cause(
            position=self.cause.position,
            request_id=envelope["request_id"],
            caller=self.cause.caller,
            # Not its reference, a file's name perhaps, in which anything may stand.
            source=envelope.get("source", {}).get("system"),
        )


def _listed(known: tuple[ForeignId, ...]) -> tuple[KnownAs, ...]:
    return tuple(KnownAs(system=each.system, value=each.value) for each in known)


_Said = Callable[[Telling, Any], dict[str, Any]]


def _refused(telling: Telling, data: Any) -> dict[str, Any]:
    return {"owner": telling.person(data.owner), "reason": data.reason}


def _back_in_the_pool(telling: Telling, data: Any) -> dict[str, Any]:
    return {**telling.owner_change(), "territory": data.territory}


# What is told of each beside the frame.
_SAID: Mapping[type[Told], _Said] = {
    messages.Admitted: lambda t, d: {**_back_in_the_pool(t, d), "known_from": d.known_from},
    messages.RegistrationRefused: lambda t, d: {"reason": d.reason, "existing": d.existing},
    messages.CustomerChanged: lambda t, d: {"territory": d.territory},
    messages.Granted: lambda t, d: {
        **t.owner_change(),
        "protected_until": d.protected_until,
        "approval": d.approval,
    },
    messages.ClaimRefused: lambda t, d: {
        **_refused(t, d),
        "claimant": t.person(d.claimant),
        "retry_at": d.retry_at,
    },
    messages.Assigned: lambda t, d: {**t.owner_change(), "protected_until": d.protected_until},
    messages.AssignmentRefused: lambda t, d: {
        **_refused(t, d),
        "assignee": t.person(d.assignee),
    },
    messages.Released: _back_in_the_pool,
    messages.ReleaseRefused: _refused,
    messages.Transferred: lambda t, d: {
        **t.owner_change(),
        "protected_until": d.protected_until,
        "approval": d.approval,
        "hand_over": d.hand_over,
    },
    messages.TransferRefused: lambda t, d: {
        **_refused(t, d),
        "transfer": d.transfer,
        "receiver": t.person(d.receiver),
        "retry_at": d.retry_at,
    },
    messages.ApprovalOpened: lambda t, d: {
        "approval": d.approval,
        "purpose": d.purpose,
        "reason": d.reason_code,
        "owner": t.person(d.owner),
        "receiver": t.person(d.receiver),
    },
    messages.ApprovalClosed: lambda t, d: {
        "approval": d.approval,
        "purpose": t.purpose_of(d.approval),
        "outcome": d.outcome,
        "reason": d.reason,
    },
    messages.ConflictOpened: lambda t, d: {
        "conflict": d.conflict,
        "kind": d.kind,
        "parties": tuple(map(t.person, d.parties)),
    },
    messages.ConflictExtended: lambda t, d: {
        "conflict": d.conflict,
        "parties": tuple(map(t.person, d.parties)),
    },
    messages.ConflictResolved: lambda t, d: {
        "conflict": d.conflict,
        "outcome": d.outcome,
        "reason": d.reason_code,
        "receiver": t.person(d.receiver),
    },
    messages.RecycleWarned: lambda t, d: {
        "owner": t.person(d.owner),
        "reason": d.because,
        "goes": d.goes,
    },
    messages.RecycleHeld: lambda t, d: {"owner": t.person(d.owner), "until": d.until},
    messages.Recycled: _back_in_the_pool,
}
