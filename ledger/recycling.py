"""Recycling: when a customer that nobody works goes back to the pool, and who hears of it. Pure.

Counted are days without a follow-up by the present owner or a collaborator, or without a deal:
calendar days or working days, as the policy says. Nothing is counted while the owner is away, a
transfer, release or conflict is open, or a head has granted a hold. Each warning runs its full time
before the next step, whenever it was given: also when the policy was tightened meanwhile, or the
clock has slept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from ledger import reasons
from ledger.canonical import instant
from ledger.conflicts import GROUP
from ledger.counting import CountedAct, Counting, Pause
from ledger.customer import Admitted, Held
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.organisation import OrganisationAt, Person
from ledger.recycling_rules import RecycleRule, RecycleWarning
from ledger.working_days import WorkingDays

NO_FOLLOW_UP = "no_follow_up"
NO_DEAL = "no_deal"

# --- folding -----------------------------------------------------------------------------------


def noted(
    customer: Admitted,
    cause: Event,
    decision: decisions.Noted,
    effective: datetime,
    organisation: OrganisationAt,
) -> Admitted:
    """Return the customer as a fact that was noted leaves it, as far as recycling counts.

    What a follow-up says is remembered where the policy in force, by the facts of ``organisation``,
    recycles at all: elsewhere nobody asks.
    """
    tenure, data = customer.tenure, cause.data
    if not isinstance(tenure, Held):
        return customer
    counting = tenure.counting
    match data:
        case requests.FollowUpLogged():
            if counts(tenure, decision):
                at = min(cause.occurred, effective)
                says_more = data.note_digest is not None or data.person != tenure.owner
                if says_more and not organisation.policy.policy.recycling.rules:
                    act = CountedAct(data.follow_up, at)
                else:
                    act = counted_act(tenure, data, at, decision.token_of)
                counting = counting.with_follow_up(act)
        case requests.DealRecorded():
            if data.outcome == "won" and counts(tenure, decision):
                counting = counting.with_deal(data.deal, min(cause.occurred, effective))
        case requests.FollowUpCorrected():
            if data.at is not None:
                counting = counting.moved(data.follow_up, min(data.at, effective))
        case requests.FollowUpVoided():
            counting = counting.without(data.follow_up)
        case requests.DealVoided():
            counting = counting.without(data.deal)
        case requests.DealCorrected():
            if data.outcome == "lost":
                counting = counting.without(data.deal)
        case _:
            pass
    return customer if counting is tenure.counting else counted_by(customer, counting)


def counts(tenure: Held, decision: decisions.Noted) -> bool:
    """Say whether it was the present owner's, or that of somebody who collaborates."""
    theirs = decision.remark in (None, reasons.CONTACT_UNKNOWN, reasons.TOKEN_FOLLOW_UP)
    return theirs and decision.owner == tenure.owner


def counted_act(
    tenure: Held, request: requests.FollowUpLogged, at: datetime, token_of: str | None = None
) -> CountedAct:
    """Return a follow-up of a moment as it is remembered where something is recycled."""
    by = None if request.person == tenure.owner else request.person
    return CountedAct(request.follow_up, at, request.note_digest, by, token_of)


def told_or_held(
    customer: Admitted,
    decision: decisions.RecycleWarned | decisions.RecycleHeld,
    effective: datetime,
) -> Admitted:
    """Return the customer as a warning or a hold leaves it."""
    if not isinstance(customer.tenure, Held):
        raise AssertionError("only an owned customer is counted")
    counting = customer.tenure.counting
    if isinstance(decision, decisions.RecycleWarned):
        counting = counting.was_warned(decision.step, effective)
    else:
        counting = counting.paused(effective, decision.until)
    return counted_by(customer, counting)._replace(effective=effective)


def counted_by(customer: Admitted, counting: Counting) -> Admitted:
    """Return the owned customer with another counting."""
    if not isinstance(customer.tenure, Held):
        raise AssertionError("only an owned customer is counted")
    return customer._replace(tenure=replace(customer.tenure, counting=counting))


def is_paused(customer: Admitted) -> bool:
    """Say whether a transfer, release or conflict is open, so that nothing is counted.

    A group's conflict stands at its root, and is about its members.
    """
    disputed = any(each.kind != GROUP for each in customer.conflicts)
    return customer.approval is not None or disputed


def paused_by(before: Admitted, after: Admitted, effective: datetime) -> Admitted:
    """Return ``after``, with the pause that begins or ends with what was opened or closed.

    What was open already when the ownership began pauses it from there. A head's hold that reaches
    further goes on behind it.
    """
    tenure = after.tenure
    if not isinstance(tenure, Held) or is_paused(before) == is_paused(after):
        return after
    counting = tenure.counting
    if is_paused(after):
        return counted_by(after, replace(counting, pausing=effective))
    begin = counting.pausing or tenure.since
    counting = replace(counting, pausing=None)
    if begin < effective:
        held = (each.end for each in counting.pauses)
        counting = counting.paused(begin, max((effective, *held)))
    return counted_by(after, counting)


# --- when --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fall:
    """What comes next on the way to the pool, and when (UTC).

    ``step`` is the number of the warning, None where the customer goes; ``to`` who hears of it.
    ``goes`` is when it goes if nobody does anything; ``because`` is ``no_follow_up`` or
    ``no_deal``, for so many ``days``.
    """

    subject: str
    due: datetime
    step: int | None
    goes: datetime
    because: str
    days: int
    to: tuple[str, ...] = ()


def fall_of(
    name: str, customer: Admitted, organisation: OrganisationAt, now: datetime
) -> Fall | None:
    """Return what comes next for the customer ``name``, as things are ``now``; None for never.

    A customer whose owner will have left by then is not recycled, but orphaned.
    """
    tenure = customer.tenure
    if not isinstance(tenure, Held) or customer.closed or is_paused(customer):
        return None
    policy = organisation.policy.policy
    if not policy.recycling.rules:
        return None
    owner = organisation.person(tenure.owner)
    rule = _rule_of(customer, organisation)
    if rule is None or owner is None:
        return None
    working = organisation.working_days if policy.recycling.days == "working" else None
    pauses = tuple(_merged(_pauses(tenure, owner, organisation)))
    clock = _Clock(organisation.time_zone, pauses, working)
    begun = _begun(tenure, owner, organisation)
    warnings = policy.recycling.warnings_of(rule)
    chains = [] if begun is None else list(_chains(tenure, rule, warnings, begun, clock))
    if not chains:
        return None
    because, start, days = min(chains, key=lambda each: clock.after(each[1], each[2]))
    fall = _next(tenure, warnings, clock, (because, start, days))
    due = clock.not_within_a_pause(fall.due, now)
    subject = f"{name}@{instant(tenure.since)}"
    fall = replace(fall, subject=subject, due=due, goes=max(fall.goes, due))
    return None if owner.has_left(organisation.day(due)) else fall


def _rule_of(customer: Admitted, organisation: OrganisationAt) -> RecycleRule | None:
    policy = organisation.policy.policy
    territory = policy.territory_of(customer.territory, customer.attributes)
    return policy.recycling.rule_for(
        territory, customer.attributes, customer.won_deals, organisation.is_within
    )


_Chain = tuple[str, datetime, int]
_Warnings = tuple[RecycleWarning, ...]


def _begun(
    tenure: Held, owner: Person, organisation: OrganisationAt
) -> tuple[datetime, datetime | None] | None:
    """Return from when on is counted at the earliest, and when the import was closed; None: never.

    Whoever left and came back begins anew.
    """
    begun, closed_at = tenure.since, None
    if owner.joined_on is not None:
        begun = max(begun, organisation.start_of(owner.joined_on))
    if tenure.counting.import_id is not None:
        opened = organisation.import_(tenure.counting.import_id)
        if opened is None or opened.closed_at is None:
            return None
        closed_at = opened.closed_at
    return begun, closed_at


def _chains(
    tenure: Held,
    rule: RecycleRule,
    warnings: _Warnings,
    begun: tuple[datetime, datetime | None],
    clock: _Clock,
) -> Iterator[_Chain]:
    """Yield what counts: why, from when, and how many days.

    What would have begun to fall due before the import was closed counts from there.
    """
    earliest, closed_at = begun
    counting = tenure.counting
    first = warnings[0].days_before if warnings else 0
    for because, acts, days in (
        (NO_FOLLOW_UP, counting.worked, rule.follow_up_days),
        (NO_DEAL, counting.deals, rule.deal_days),
    ):
        if days is not None:
            start = max((earliest, *(each.at for each in acts)))
            if closed_at is not None and clock.after(start, days - first) <= closed_at:
                start = max(start, closed_at)
            yield because, start, days


def _next(tenure: Held, warnings: _Warnings, clock: _Clock, chain: _Chain) -> Fall:
    """Return the first warning that was not given yet, else the end; each runs its full time.

    A warning counts that was not given too early for what is counted now.
    """
    because, start, days = chain
    given = {each.step: each.at for each in tenure.counting.warned}
    last: datetime | None = None
    found: tuple[datetime, int] | None = None
    left = 0
    for step, warning in enumerate(warnings):
        due = clock.after(start, days - warning.days_before)
        if last is not None:
            due = max(due, clock.after(last, left - warning.days_before))
        left = warning.days_before
        at = given.get(step)
        if found is None and at is not None and at >= due:
            last = at
        else:
            found, last = found or (due, step), due
    goes = clock.after(start, days)
    if last is not None:
        goes = max(goes, clock.after(last, left))
    if found is None:
        return Fall("", goes, None, goes, because, days)
    due, number = found
    return Fall("", due, number, goes, because, days, warnings[number].to)


# --- what keeps a customer ----------------------------------------------------------------------

CLOSED = "closed"
APPROVAL_OPEN = "approval_open"
CONFLICT_OPEN = "conflict_open"
ORPHANED = "orphaned"
OWNER_LEAVING = "owner_leaving"
IMPORT_OPEN = "import_open"
EXEMPT = "exempt"
NO_RULE = "no_rule"
OWNER_AWAY = "owner_away"
ON_HOLD = "on_hold"


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeps a customer from the pool, though nobody works it.

    ``by`` is one of the codes above. ``subject`` is the approval or conflict that is open, or the
    import. ``until`` is the moment at which an absence or a hold is over (UTC), ``rule`` the number
    of the rule that exempts it (from 0).
    """

    by: str
    subject: str | None = None
    until: datetime | None = None
    rule: int | None = None


def kept_by(customer: Admitted, organisation: OrganisationAt, now: datetime) -> tuple[Kept, ...]:
    """Return all that keeps an owned customer from the pool ``now``, where the policy recycles."""
    tenure, rules = customer.tenure, organisation.policy.policy.recycling.rules
    if not isinstance(tenure, Held) or not rules:
        return ()
    return tuple(_kept_by(customer, tenure, organisation, now))


def _kept_by(
    customer: Admitted, tenure: Held, organisation: OrganisationAt, now: datetime
) -> Iterator[Kept]:
    if customer.closed:
        yield Kept(CLOSED)
    if customer.approval is not None:
        yield Kept(APPROVAL_OPEN, customer.approval.approval)
    for each in customer.conflicts:
        if each.kind != GROUP:
            yield Kept(CONFLICT_OPEN, each.conflict)
    import_id = tenure.counting.import_id
    opened = None if import_id is None else organisation.import_(import_id)
    if opened is not None and not opened.closed:
        yield Kept(IMPORT_OPEN, import_id)
    rule = _rule_of(customer, organisation)
    if rule is None:
        yield Kept(NO_RULE)
    elif rule.follow_up_days is None and rule.deal_days is None:
        yield Kept(EXEMPT, rule=organisation.policy.policy.recycling.rules.index(rule))
    owner = organisation.person(tenure.owner)
    if owner is not None:
        if owner.has_left(organisation.day(now)):
            yield Kept(ORPHANED)
        elif owner.left_on is not None and fall_of("", customer, organisation, now) is None:
            yield Kept(OWNER_LEAVING)
        yield from _pauses_now(owner, tenure, organisation, now)


def _pauses_now(
    owner: Person, tenure: Held, organisation: OrganisationAt, now: datetime
) -> Iterator[Kept]:
    absences = _merged(_absences(owner, organisation))
    for by, pauses in ((OWNER_AWAY, absences), (ON_HOLD, iter(tenure.counting.pauses))):
        # What else has paused it was over when it was folded; only a hold lies ahead.
        until = next((each.end for each in pauses if each.begin <= now < each.end), None)
        if until is not None:
            yield Kept(by, until=until)


# --- counting days -----------------------------------------------------------------------------


# Without a zone, for it is counted by the wall clock.
_YEAR_1 = datetime.min  # noqa: DTZ901


@dataclass(frozen=True, slots=True)
class _Clock:
    """Counts days of the organisation, leaving pauses out (in order, apart).

    Where only working days count, ``working`` says which these are; each counts with its 24 hours,
    so that what begins on a Friday at ten is a working day old on the Monday at ten.
    """

    zone: ZoneInfo
    pauses: Sequence[Pause]
    working: WorkingDays | None = None

    def after(self, start: datetime, days: int) -> datetime:
        """Return the moment that so many counted days have gone by; days go by the wall clock."""
        counted, working = self._counted, self.working
        begin = counted(start)
        due = begin + timedelta(days=days)
        for pause in self.pauses:
            first, end = max(counted(pause.begin), begin), counted(pause.end)
            if first >= due:
                break
            due += max(end - first, timedelta())
        local = _YEAR_1 + due if working is None else working.moment(due)
        return local.replace(tzinfo=self.zone).astimezone(UTC)

    def not_within_a_pause(self, due: datetime, now: datetime) -> datetime:
        """Return ``due``, or the end of a pause that began before anything came of it."""
        for pause in self.pauses:
            if pause.begin <= now and pause.end > due:
                due = pause.end
        return due

    def _counted(self, moment: datetime) -> timedelta:
        """Return how much time that counts has gone by from long ago, by the wall clock."""
        local = moment.astimezone(self.zone).replace(tzinfo=None)
        return local - _YEAR_1 if self.working is None else self.working.elapsed(local)


def _pauses(tenure: Held, owner: Person, organisation: OrganisationAt) -> Iterator[Pause]:
    yield from tenure.counting.pauses
    yield from (each for each in _absences(owner, organisation) if each.end > tenure.since)


def _absences(owner: Person, organisation: OrganisationAt) -> Iterator[Pause]:
    for each in owner.absences:
        yield Pause(organisation.start_of(each.from_day), organisation.start_of(each.until_day))


def _merged(pauses: Iterable[Pause]) -> Iterator[Pause]:
    """Yield the pauses in order, those that touch as one."""
    current: Pause | None = None
    for each in sorted(pauses, key=lambda pause: pause.begin):
        if current is None:
            current = each
        elif each.begin <= current.end:
            current = Pause(current.begin, max(current.end, each.end))
        else:
            yield current
            current = each
    if current is not None:
        yield current
