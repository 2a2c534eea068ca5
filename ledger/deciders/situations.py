"""What a decision may depend on, and the questions about it that several decisions ask. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple

from ledger import orphans, reasons
from ledger.conflicts import IDENTIFIER
from ledger.customer import Admitted, Customer
from ledger.envelope import Event
from ledger.organisation import Import, OrganisationAt, Person
from ledger.policy import Policy
from ledger.settled import Settled, subject


class Situation(NamedTuple):
    """All that a decision may depend on; ``version`` is that of the decider."""

    version: int
    settled: Settled
    request: Event
    organisation: OrganisationAt
    customer_id: str
    customer: Customer
    opened_import: Import | None
    policy: Policy
    # When the decision holds, and the organisation's day of that moment.
    effective: datetime
    day: date
    # An imported row older than the customer's last decision.
    out_of_order: bool

    @property
    def is_opening(self) -> bool:
        """Whether it is a row of an opening balance: of an import, and without a date of its own.

        An importer may as well state the cut-over for such a row.
        """
        opened, request = self.opened_import, self.request
        return opened is not None and (
            "occurred" not in request.envelope or request.occurred == opened.cut_over
        )


def situate(
    version: int, settled: Settled, request: Event, organisation: OrganisationAt
) -> Situation:
    """Find out which customer is meant, under which policy, and when the decision holds."""
    # Entered twice: what is asked of the duplicate is decided on the customer that exists.
    customer_id = subject(settled, request)
    customer = settled.customer(customer_id)
    opened = request.import_id and organisation.import_(request.import_id)
    opened_import = opened if opened and not opened.closed else None
    last = customer.effective
    asked = asked_for(request, opened_import)
    out_of_order = opened_import is not None and last is not None and asked < last
    effective = asked if last is None else max(asked, last)
    return Situation(
        version,
        settled,
        request,
        organisation,
        customer_id,
        customer,
        opened_import,
        opened_import.policy if opened_import else organisation.policy.policy,
        effective,
        organisation.day(effective),
        out_of_order,
    )


def no_earlier(situation: Situation, moment: datetime) -> Situation:
    """Return the situation of a decision that holds at a later moment."""
    day = situation.organisation.day(moment)
    return situation._replace(effective=moment, day=day)


def asked_for(request: Event, opened_import: Import | None) -> datetime:
    """Return when the request is to take effect: in an import when it occurred, else at once.

    Imported rows without a date are an opening balance, which holds at the import's cut-over.
    """
    if opened_import is None:
        return request.recorded
    if "occurred" in request.envelope or opened_import.cut_over is None:
        return request.occurred
    return opened_import.cut_over


def territory_of(situation: Situation, customer: Admitted) -> str | None:
    """Return the customer's territory: named, else by the first rule of the policy, else None."""
    return situation.policy.territory_of(customer.territory, customer.attributes)


def opens_conflicts(situation: Situation, kind: str) -> bool:
    """Say whether the policy sees conflicts of a kind, in imports too where it is one.

    A customer that is there twice is what an import brings, and no quarrel of its past: since
    version 3 that is always seen.
    """
    policy = situation.policy
    is_seen = policy.conflicts_in_imports or (situation.version >= 3 and kind == IDENTIFIER)
    if situation.opened_import is not None and not is_seen:
        return False
    return kind in policy.conflict_kinds


def is_behind(situation: Situation, other: Admitted) -> bool:
    """Say whether an imported row is older than what was decided last about another customer.

    It takes effect when it occurred, and so brings nothing there. What is asked now takes effect
    no earlier than what that customer saw last.
    """
    return situation.opened_import is not None and situation.effective < other.effective


def late_moment(situation: Situation) -> datetime | None:
    """Return the moment by which a late follow-up is judged; None where this one counts.

    Imported rows take effect when they happened, and never need it.
    """
    happened, recorded = situation.request.occurred, situation.request.recorded
    if situation.opened_import is not None or happened >= recorded:
        return None
    days = situation.policy.late_follow_up_days
    in_time = situation.organisation.days_after(happened, days) >= recorded
    return happened if in_time else None


# --- limits ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason to refuse, and the first moment at which it no longer holds, where known."""

    reason: str
    retry_at: datetime | None = None


def limits(
    situation: Situation,
    policy: Policy,
    customer: Admitted,
    person: Person,
    guards: dict[str, int],
) -> Iterator[Obstacle]:
    """Yield, in the order in which they count, the limits of ``policy`` that stand in the way."""
    organisation, effective = situation.organisation, situation.effective
    territory = policy.territory_of(customer.territory, customer.attributes)
    if not in_scope(organisation, policy, person, territory):
        yield Obstacle(reasons.OUTSIDE_TERRITORY)
    if policy.claims_in_others_groups != "allow" and _is_others_group(situation, person.person):
        yield Obstacle(reasons.GROUP_OF_ANOTHER)
    ended = customer.ended(person.person)
    if ended is not None and policy.cooldown_days:
        ends = organisation.days_after(ended, policy.cooldown_days)
        if effective < ends:
            yield Obstacle(reasons.COOLDOWN, ends)
    if person.person in customer.turned_down and customer.former and policy.cooldown_days:
        # Else a transfer that was refused would be had by a release and a claim.
        ends = organisation.days_after(customer.former[0].ended, policy.cooldown_days)
        if effective < ends:
            yield Obstacle(reasons.COOLDOWN, ends)
    refused = customer.claim_refused(person.person)
    if refused is not None and policy.cooldown_days:
        # Else who was turned down would ask the same people again at once.
        ends = organisation.days_after(refused, policy.cooldown_days)
        if effective < ends:
            yield Obstacle(reasons.COOLDOWN, ends)
    held = held_towards_limit(situation.settled, policy, person.person, guards)
    if policy.holding_limit is not None and held >= policy.holding_limit:
        yield Obstacle(reasons.HOLDING_LIMIT)
    if situation.is_opening:
        return  # on the day of the cut-over nobody claimed it
    day = situation.day
    grants = situation.settled.grants_of(person.person, day.isoformat())
    guards["grants"] = grants
    if policy.daily_claim_limit is not None and grants >= policy.daily_claim_limit:
        tomorrow = day.fromordinal(day.toordinal() + 1)
        yield Obstacle(reasons.DAILY_LIMIT, organisation.start_of(tomorrow))


def _is_others_group(situation: Situation, person: str) -> bool:
    """Say whether others own members of the group that the customer is in, and the person none.

    Not where a ruling lets the person own members beside them. Since version 3.
    """
    customer, settled = situation.customer, situation.settled
    if situation.version < 3 or not isinstance(customer, Admitted) or not customer.is_in_group:
        return False
    *_, root = (situation.customer_id, *settled.above(situation.customer_id))
    owners = settled.owners_from(root)
    return bool(owners) and person not in owners and person not in settled.group(root).allowed


def held_towards_limit(
    settled: Settled, policy: Policy, person: str, guards: dict[str, int]
) -> int:
    """Return how many customers count towards the person's holding limit."""
    holdings = settled.holdings_of(person)
    guards["held"], guards["held_won"] = holdings.held, holdings.held_won
    return holdings.held if policy.won_customers_count else holdings.held - holdings.held_won


def in_scope(
    organisation: OrganisationAt, policy: Policy, person: Person, territory: str | None
) -> bool:
    """Say whether the person may claim in ``territory``; without one anybody may."""
    if territory is None or policy.claim_scope == "everywhere":
        return True
    if policy.claim_scope == "own_territory":
        return person.territory == territory
    return organisation.is_within(territory, person.territory)


def protected_until(situation: Situation) -> datetime | None:
    """Return until when a new owner is protected, None where the policy protects nobody."""
    days = situation.policy.protection_days
    return situation.organisation.days_after(situation.effective, days) if days else None


def has_gone(situation: Situation, person: Person) -> bool:
    """Say whether somebody owns nothing new: who has left, or had, when all was handed over.

    What was recorded in front of such a hand-over, and is decided behind it, says of somebody who
    has left that they are still there.
    """
    closed = situation.settled.holdings_of(person.person).closed
    overtaken = closed is not None and situation.request.position < closed
    return overtaken or person.has_left(situation.day)


def may_take_part(situation: Situation, person: Person) -> bool:
    """Say whether somebody may begin to collaborate or stand in: not who has left.

    Since version 3 nor by what was recorded before they left, and is decided behind the hand-over
    of all that they held.
    """
    if situation.version >= 3:
        return not has_gone(situation, person)
    return not person.has_left(situation.day)


# --- who acts ----------------------------------------------------------------------------------


def is_owner_or_manager(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor owns the customer, or manages the customer or its owner."""
    if situation.request.actor == customer.owner or is_admin(situation):
        return True
    if manages(situation, territory_of(situation, customer)):
        return True
    owner = situation.organisation.person(customer.owner) if customer.owner else None
    if owner is not None and manages(situation, owner.territory):
        return True
    return acts_as_owner(situation, customer)


def acts_as_owner(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor acts as the owner, who has left (since version 2)."""
    return situation.version >= 2 and orphans.acts_as_owner(
        situation.request.actor,
        customer.owner,
        territory_of(situation, customer),
        situation.organisation,
        situation.day,
    )


def is_there(situation: Situation) -> bool:
    """Say whether the actor has not left: whoever has is no longer manager or administrator."""
    person = situation.organisation.person(situation.request.actor)
    return person is not None and not person.has_left(situation.day)


def has_actor_gone(situation: Situation) -> bool:
    """Say whether whoever asks has left, or had, when all was handed over (since version 3).

    What they hold is their head's business then, and no longer theirs.
    """
    person = situation.organisation.person(situation.request.actor)
    return situation.version >= 3 and person is not None and has_gone(situation, person)


def manages(situation: Situation, territory: str | None) -> bool:
    """Say whether the actor manages a territory, and has not left."""
    return situation.organisation.manages(situation.request.actor, territory) and is_there(
        situation
    )


def is_admin(situation: Situation) -> bool:
    """Say whether the actor is an administrator who has not left."""
    person = situation.organisation.person(situation.request.actor)
    return person is not None and "admin" in person.roles and is_there(situation)


def heads_customer(situation: Situation, customer: Admitted) -> bool:
    """Say whether the actor is a head over the customer or its owner, and has not left."""
    organisation, actor = situation.organisation, situation.request.actor
    owner = organisation.person(customer.owner) if customer.owner else None
    territories = (territory_of(situation, customer), owner.territory if owner else None)
    return is_there(situation) and any(organisation.heads(actor, each) for each in territories)
