"""The switch of the decider: from the kind of a request to the function that decides it.

What a version changes about older ones is a branch on ``situation.version``, wherever it matters.
"""

from __future__ import annotations

from datetime import datetime

from ledger.deciders import (
    claiming,
    collaborating,
    conflicting,
    deadlines,
    duplicates,
    grouping,
    handing_over,
    orphaned,
    ownership,
    recycling,
    transferring,
)
from ledger.deciders.drafts import Draft
from ledger.deciders.situations import Situation, no_earlier, situate
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.organisation import OrganisationAt
from ledger.settled import Settled


def decide(version: int, settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
    """Return what follows from ``request`` by ``version`` of the decider.

    ``organisation`` holds the facts below the request's position. Of a hand-over it is the next
    part. Raises NotLoadedError where the settled state lacks something that the decision depends
    on.
    """
    if isinstance(request.data, requests.HandOverRequested):
        return handing_over.decide_part(version, settled, request, request.data, organisation)
    situation = situate(version, settled, request, organisation)
    draft = _draft(situation)
    # What it brings about other customers must not hold before what any of these saw last.
    while (latest := _seen_last(settled, draft)) > draft.effective:
        draft = _draft(no_earlier(situation, latest))
    return draft


def _draft(situation: Situation) -> Draft:
    settled, organisation = situation.settled, situation.organisation
    guards: dict[str, int] = {"ownership": settled.version(situation.customer_id)}
    found = _switch(situation, guards)
    found += transferring.overtaken(situation, found)
    found += collaborating.left_behind(situation, found)
    found += conflicting.arising(situation, found)
    found += duplicates.claimed_twice(situation, found)
    found += conflicting.gone(situation, found)
    found += grouping.consequences(situation, found, guards)
    return Draft(found[0], situation.effective, organisation.policy.number, guards, more=found[1:])


def _seen_last(settled: Settled, draft: Draft) -> datetime:
    """Return when the last decision holds on any of those whom a draft is about, if it is later."""
    latest = draft.effective
    for each in draft.more:
        if each.customer != draft.data.customer:
            latest = max(latest, settled.customer(each.customer).effective or latest)
    return latest


def _switch(situation: Situation, guards: dict[str, int]) -> tuple[decisions.Decision, ...]:
    data = situation.request.data
    match data:
        case requests.ClaimFiled():
            return claiming.decide_claim(situation, data, guards)
        case requests.ReleaseRequested():
            return ownership.decide_release(situation, data)
        case requests.TransferRequested():
            return transferring.decide_transfer(situation, data, guards)
        case requests.ApprovalGiven():
            return transferring.decide_answer(situation, data.approval, guards, agreed=True)
        case requests.ApprovalDenied():
            return transferring.decide_answer(situation, data.approval, guards, agreed=False)
        case requests.TransferWithdrawn():
            return transferring.decide_withdrawal(situation, data)
        case requests.DeadlineReached():
            return deadlines.decide_deadline(situation, data)
        case requests.CollaborationRequested():
            return collaborating.decide_collaboration(situation, data)
        case requests.CollaborationEndRequested():
            return collaborating.decide_end(situation, data)
        case requests.RulingGiven():
            return conflicting.decide_ruling(situation, data, guards)
        case requests.StandInRequested():
            return orphaned.decide_stand_in(situation, data)
        case requests.StandInEndRequested():
            return orphaned.decide_end(situation, data)
        case requests.GroupReviewRequested():
            return grouping.decide_review(situation, guards)
        case requests.RecycleHoldRequested():
            return (recycling.decide_hold(situation, data),)
        case _:
            return (_switch_single(situation, guards),)


def _switch_single(situation: Situation, guards: dict[str, int]) -> decisions.Decision:
    data = situation.request.data
    match data:
        case requests.FollowUpLogged():
            return ownership.decide_follow_up(situation, data)
        case requests.DealRecorded():
            return ownership.decide_deal(situation, data)
        case requests.AssignmentRequested():
            return ownership.decide_assignment(situation, data, guards)
        case requests.RegistrationRequested():
            return ownership.decide_registration(situation, data)
        case requests.CustomerChangeRequested():
            return ownership.decide_change(situation, data)
        case requests.FollowUpCorrected() | requests.FollowUpVoided():
            return ownership.decide_correction(situation, data.follow_up, "follow_up")
        case requests.DealCorrected() | requests.DealVoided():
            return ownership.decide_correction(situation, data.deal, "deal")
        case requests.RequestUnparked():
            return decisions.Noted(situation.customer_id)
        case _:
            raise AssertionError(f"{situation.request.name} is no request")
