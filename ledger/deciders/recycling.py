"""Recycling: warnings, the way to the pool, holds, and follow-ups that reset nothing."""

from __future__ import annotations

from dataclasses import replace

from ledger import approving, reasons, tokens
from ledger.approval_steps import releasing_territory
from ledger.customer import Admitted, Held
from ledger.deciders.situations import Situation, heads_customer, is_admin, territory_of
from ledger.events import decisions, requests
from ledger.events.values import Approver
from ledger.recycling import counted_act, counts, fall_of, told_or_held


def decide_fall(situation: Situation, customer: Admitted) -> decisions.Decision:
    """Warn, or take the customer from its owner; the caller has seen that this is due."""
    name, now = situation.customer_id, situation.request.recorded
    fall = fall_of(name, customer, situation.organisation, now)
    if fall is None or customer.owner is None:
        raise AssertionError("what is due is the customer's next step towards the pool")
    if fall.step is None:
        territory = territory_of(situation, customer)
        days = fall.days if situation.version >= 3 else None
        return decisions.CustomerRecycled(name, customer.owner, fall.because, territory, days)
    told = _told(situation, customer, customer.owner, fall.to)
    warned = decisions.RecycleWarned(name, customer.owner, fall.step, fall.because, fall.goes, told)
    # It runs its full time from now on, also where it comes late.
    then = told_or_held(customer, warned, situation.effective)
    following = fall_of(name, then, situation.organisation, now)
    return warned if following is None else replace(warned, goes=following.goes)


def _told(
    situation: Situation, customer: Admitted, owner: str, to: tuple[str, ...]
) -> tuple[str, ...]:
    """Return, each once, who hears of a warning ``to`` the owner, the head or both."""
    organisation = situation.organisation
    told: dict[str, None] = {}
    for whom in to:
        if whom == "owner":
            told[owner] = None
            continue
        territory = territory_of(situation, customer)
        above = Approver("head", releasing_territory(organisation.person(owner), territory))
        barred = frozenset({owner})
        found = approving.entitled(above, 0, barred, organisation, situation.day)
        told.update(dict.fromkeys(found))
    return tuple(told)


def judged(
    situation: Situation, request: requests.FollowUpLogged, noted: decisions.Noted
) -> decisions.Noted:
    """Return what was noted of a follow-up, and which one it only repeats, where it does.

    Where nothing is recycled nobody needs to know. What an import brings was entered elsewhere,
    often by the day alone, and is taken as it is.
    """
    customer, recycling = situation.customer, situation.policy.recycling
    if situation.version < 2 or situation.opened_import is not None or not recycling.rules:
        return noted
    if not isinstance(customer, Admitted) or not isinstance(customer.tenure, Held):
        return noted
    if not counts(customer.tenure, noted):
        return noted
    happened = min(situation.request.occurred, situation.effective)
    act = counted_act(customer.tenure, request, happened)
    token_of = tokens.repeated(
        customer.tenure.counting.worked,
        act.by,
        act.note,
        act.at,
        recycling.token_follow_up_minutes,
    )
    if token_of is None:
        return noted
    return replace(noted, remark=noted.remark or reasons.TOKEN_FOLLOW_UP, token_of=token_of)


def decide_hold(
    situation: Situation, request: requests.RecycleHoldRequested
) -> decisions.RecycleHeld | decisions.RecycleHoldRefused:
    """Hold a customer from being recycled, by a head over it or its owner, for so long at most."""
    customer, name = situation.customer, situation.customer_id
    if not isinstance(customer, Admitted):
        return decisions.RecycleHoldRefused(name, reasons.CUSTOMER_NOT_ADMITTED)
    owner = customer.owner
    if owner is None:
        return decisions.RecycleHoldRefused(name, reasons.NOT_OWNED)
    until = situation.organisation.start_of(request.until)
    reason = _hold_problem(situation, customer)
    if reason is None and until <= situation.effective:
        reason = reasons.DAY_NOT_AHEAD
    longest = situation.policy.recycling.hold_days_max
    if reason is None and until > situation.organisation.days_after(situation.effective, longest):
        reason = reasons.HOLD_TOO_LONG
    if reason is not None:
        return decisions.RecycleHoldRefused(name, reason, owner)
    return decisions.RecycleHeld(name, owner, until)


def _hold_problem(situation: Situation, customer: Admitted) -> str | None:
    if situation.out_of_order:
        return reasons.HISTORY_OUT_OF_ORDER
    is_entitled = heads_customer(situation, customer) or is_admin(situation)
    if not is_entitled or situation.request.actor == customer.owner:
        return reasons.HOLD_NEEDS_HEAD
    return None
