"""Version 1 of the decider: admission, single ownership, follow-ups and deals.

Read from top to bottom: ``decide`` is a switch over small functions, one a request. Each gets the
situation (settled state, request, facts) and returns the one decision that follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from ledger import reasons
from ledger.customer import Admitted, Customer, Held, Refused
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.events import decisions, requests
from ledger.events.values import Identifier
from ledger.organisation import Import, OrganisationAt, Person
from ledger.policy import Policy
from ledger.settled import Act, Settled, subject

# A chain of group parents longer than this is a mistake of whoever entered it.
GROUP_DEPTH_MAX = 32


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a decision may depend on."""

    settled: Settled
    request: Event
    organisation: OrganisationAt
    customer_id: str
    customer: Customer
    opened_import: Import | None
    policy: Policy
    effective: datetime
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


def decide(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
    """Return what follows from ``request``.

    ``organisation`` holds the facts below the request's position. Raises NotLoadedError where the
    settled state lacks something that the decision depends on.
    """
    situation = situate(settled, request, organisation)
    guards: dict[str, int] = {"ownership": settled.version(situation.customer_id)}
    data = _switch(situation, guards)
    return Draft(data, situation.effective, organisation.policy.number, guards)


def _switch(situation: Situation, guards: dict[str, int]) -> decisions.Decision:
    data = situation.request.data
    match data:
        case requests.ClaimFiled():
            return decide_claim(situation, data, guards)
        case requests.FollowUpLogged():
            return decide_follow_up(situation, data)
        case requests.DealRecorded():
            return decide_deal(situation, data)
        case requests.ReleaseRequested():
            return decide_release(situation, data)
        case requests.AssignmentRequested():
            return decide_assignment(situation, data, guards)
        case requests.RegistrationRequested():
            return decide_registration(situation, data)
        case requests.CustomerChangeRequested():
            return decide_change(situation, data)
        case requests.FollowUpCorrected() | requests.FollowUpVoided():
            return decide_correction(situation, data.follow_up, "follow_up")
        case requests.DealCorrected() | requests.DealVoided():
            return decide_correction(situation, data.deal, "deal")
        case requests.RequestUnparked():
            return decisions.Noted(situation.customer_id)
        case _:
            raise AssertionError(f"{situation.request.name} is no request")


def situate(settled: Settled, request: Event, organisation: OrganisationAt) -> Situation:
    """Find out which customer is meant, under which policy, and when the decision holds."""
    # Entered twice: what is asked of the duplicate is decided on the customer that exists.
    customer_id = subject(settled, request)
    customer = settled.customer(customer_id)
    opened = request.import_id and organisation.import_(request.import_id)
    opened_import = opened if opened and not opened.closed else None
    last = customer.effective
    asked = asked_for(request, opened_import)
    out_of_order = opened_import is not None and last is not None and asked < last
    return Situation(
        settled,
        request,
        organisation,
        customer_id,
        customer,
        opened_import,
        opened_import.policy if opened_import else organisation.policy.policy,
        asked if last is None else max(asked, last),
        out_of_order,
    )


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


# --- registration and change -------------------------------------------------------------------


def decide_registration(
    situation: Situation, request: requests.RegistrationRequested
) -> decisions.CustomerAdmitted | decisions.RegistrationRefused:
    """Admit a customer unless an identifier is taken or its parent is none of ours."""
    customer = request.customer
    if isinstance(situation.settled.customer(customer), Admitted | Refused):
        return decisions.RegistrationRefused(customer, reasons.ALREADY_REGISTERED)
    for identifier in request.identifiers:
        holder = situation.settled.holder_of(identifier.system, identifier.key)
        if holder is not None:
            return decisions.RegistrationRefused(
                customer, reasons.IDENTIFIER_TAKEN, holder, identifier.system
            )
    parent = None if request.parent is None else situation.settled.existing(request.parent)
    if parent is not None and not isinstance(situation.settled.customer(parent), Admitted):
        return decisions.RegistrationRefused(customer, reasons.PARENT_UNKNOWN)
    return decisions.CustomerAdmitted(
        customer,
        request.kind,
        situation.effective,
        situation.policy.territory_of(request.territory, request.attributes),
        parent,
        # The sealed value stays with the request, under whose id it was sealed.
        tuple(Identifier(each.system, each.key) for each in request.identifiers),
    )


def decide_change(
    situation: Situation, request: requests.CustomerChangeRequested
) -> decisions.CustomerChanged | decisions.ChangeRefused:
    """Let a change hold as a whole, or refuse it as a whole."""
    customer = situation.customer
    customer_id = situation.customer_id
    if not isinstance(customer, Admitted):
        return decisions.ChangeRefused(customer_id, reasons.CUSTOMER_NOT_ADMITTED)
    if situation.out_of_order:
        return decisions.ChangeRefused(customer_id, reasons.HISTORY_OUT_OF_ORDER)
    guarded = guarded_fields(situation.policy, customer, request)
    if guarded and not _may_change_guarded(situation, customer):
        return decisions.ChangeRefused(customer_id, reasons.NOT_HEAD, guarded)
    if request.closed is not None and not _is_owner_or_manager(situation, customer):
        return decisions.ChangeRefused(customer_id, reasons.NOT_OWNER, ("closed",))
    for identifier in request.identifiers:
        holder = situation.settled.holder_of(identifier.system, identifier.key)
        if holder is not None and holder != customer_id:
            field = f"identifier:{identifier.system}"
            return decisions.ChangeRefused(customer_id, reasons.IDENTIFIER_TAKEN, (field,), holder)
    parent = customer.parent
    if request.parent is not None:
        parent = situation.settled.existing(request.parent)
        problem = _parent_problem(situation, parent)
        if problem is not None:
            return decisions.ChangeRefused(customer_id, problem, ("parent",))
    removed = frozenset(request.removed)
    attributes = {
        name: value
        for name, value in (customer.attributes | request.attributes).items()
        if f"attribute:{name}" not in removed
    }
    explicit = None if "territory" in removed else request.territory or customer.territory
    return decisions.CustomerChanged(
        customer_id,
        situation.policy.territory_of(explicit, attributes),
        None if "parent" in removed else parent,
    )


def guarded_fields(
    policy: Policy, customer: Admitted, request: requests.CustomerChangeRequested
) -> tuple[str, ...]:
    """Return, sorted, what the request would really change of what the policy reads."""
    removed = frozenset(request.removed)
    fields = {
        f"attribute:{name}"
        for name in policy.guarded_attributes
        if (
            name in request.attributes and request.attributes[name] != customer.attributes.get(name)
        )
        or (f"attribute:{name}" in removed and name in customer.attributes)
    }
    if (request.territory or customer.territory) != customer.territory or (
        "territory" in removed and customer.territory is not None
    ):
        fields.add("territory")
    return tuple(sorted(fields))


def _may_change_guarded(situation: Situation, customer: Admitted) -> bool:
    organisation, actor = situation.organisation, situation.request.actor
    if situation.policy.guarded_changes_by == "anyone" or _is_admin(situation):
        return True
    territory = territory_of(situation, customer)
    if territory is None:
        return _is_there(situation) and organisation.is_manager(actor)
    if situation.policy.guarded_changes_by == "manager":
        return _manages(situation, territory)
    return _is_there(situation) and organisation.heads(actor, territory)


def _parent_problem(situation: Situation, parent: str) -> str | None:
    """Return why ``parent`` cannot be the customer's parent, None where it can."""
    above: str | None = parent
    for _ in range(GROUP_DEPTH_MAX):
        if above is None:
            return None
        if above == situation.customer_id:
            return reasons.GROUP_CYCLE
        found = situation.settled.customer(above)
        if not isinstance(found, Admitted):
            return reasons.PARENT_UNKNOWN
        above = found.parent
    return reasons.GROUP_CYCLE


# --- claims, assignments, releases -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A reason to refuse, and the first moment at which it no longer holds, where known."""

    reason: str
    retry_at: datetime | None = None


def decide_claim(
    situation: Situation, request: requests.ClaimFiled, guards: dict[str, int]
) -> decisions.OwnershipGranted | decisions.ClaimRefused:
    """Grant a claim, or refuse it for the first reason that applies."""
    customer, claimant = situation.customer, request.claimant
    person = situation.organisation.person(claimant)
    if isinstance(customer, Admitted) and person is not None:
        obstacle = _claim_obstacle(situation, customer, person)
        if obstacle is None:
            obstacle = next(limits(situation, situation.policy, customer, person, guards), None)
        if obstacle is None:
            return _grant(situation, customer, person, guards)
    elif person is None:
        obstacle = Obstacle(reasons.CLAIMANT_UNKNOWN)
    else:
        obstacle = Obstacle(reasons.CUSTOMER_NOT_ADMITTED)
    owner = customer.owner if isinstance(customer, Admitted) else None
    return decisions.ClaimRefused(
        situation.customer_id, claimant, obstacle.reason, owner, obstacle.retry_at
    )


def _claim_obstacle(situation: Situation, customer: Admitted, person: Person) -> Obstacle | None:
    """Return what no policy waives."""
    if situation.out_of_order:
        return Obstacle(reasons.HISTORY_OUT_OF_ORDER)
    if customer.closed:
        return Obstacle(reasons.CUSTOMER_CLOSED)
    if person.has_left(situation.organisation.day(situation.effective)):
        return Obstacle(reasons.CLAIMANT_LEFT)
    if customer.owner == person.person:
        return Obstacle(reasons.ALREADY_YOURS)
    if isinstance(customer.tenure, Held):
        return Obstacle(reasons.OWNED_BY_ANOTHER)
    return None


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
    ended = customer.ended(person.person)
    if ended is not None and policy.cooldown_days:
        ends = organisation.days_after(ended, policy.cooldown_days)
        if effective < ends:
            yield Obstacle(reasons.COOLDOWN, ends)
    held = held_towards_limit(situation.settled, policy, person.person, guards)
    if policy.holding_limit is not None and held >= policy.holding_limit:
        yield Obstacle(reasons.HOLDING_LIMIT)
    if situation.is_opening:
        return  # on the day of the cut-over nobody claimed it
    day = organisation.day(effective)
    grants = situation.settled.grants_of(person.person, day.isoformat())
    guards["grants"] = grants
    if policy.daily_claim_limit is not None and grants >= policy.daily_claim_limit:
        tomorrow = day.fromordinal(day.toordinal() + 1)
        yield Obstacle(reasons.DAILY_LIMIT, organisation.start_of(tomorrow))


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


def _grant(
    situation: Situation, customer: Admitted, person: Person, guards: dict[str, int]
) -> decisions.OwnershipGranted:
    waived: tuple[str, ...] = ()
    if situation.opened_import is not None:
        today = situation.organisation.policy.policy
        waived = tuple(
            dict.fromkeys(
                obstacle.reason for obstacle in limits(situation, today, customer, person, guards)
            )
        )
    return decisions.OwnershipGranted(
        situation.customer_id,
        person.person,
        person.territory,
        territory_of(situation, customer),
        protected_until(situation),
        waived,
        True if situation.is_opening else None,
    )


def protected_until(situation: Situation) -> datetime | None:
    """Return until when a new owner is protected, None where the policy protects nobody."""
    days = situation.policy.protection_days
    return situation.organisation.days_after(situation.effective, days) if days else None


def decide_assignment(
    situation: Situation, request: requests.AssignmentRequested, guards: dict[str, int]
) -> decisions.OwnershipAssigned | decisions.AssignmentRefused:
    """Give a free customer to somebody, by a manager over the customer and the assignee."""
    customer, actor = situation.customer, situation.request.actor
    person = situation.organisation.person(request.assignee)
    if not isinstance(customer, Admitted):
        reason: str | None = reasons.CUSTOMER_NOT_ADMITTED
    elif person is None:
        reason = reasons.CLAIMANT_UNKNOWN
    else:
        reason = _assignment_problem(situation, customer, person, guards)
        if reason is None:
            return decisions.OwnershipAssigned(
                situation.customer_id,
                person.person,
                actor,
                person.territory,
                territory_of(situation, customer),
                protected_until(situation),
            )
    owner = customer.owner if isinstance(customer, Admitted) else None
    return decisions.AssignmentRefused(situation.customer_id, request.assignee, reason or "", owner)


def _assignment_problem(
    situation: Situation, customer: Admitted, person: Person, guards: dict[str, int]
) -> str | None:
    territory = territory_of(situation, customer)
    held = held_towards_limit(situation.settled, situation.policy, person.person, guards)
    limit = situation.policy.holding_limit
    if situation.out_of_order:
        return reasons.HISTORY_OUT_OF_ORDER
    if customer.closed:
        return reasons.CUSTOMER_CLOSED
    if person.has_left(situation.organisation.day(situation.effective)):
        return reasons.CLAIMANT_LEFT
    if customer.owner is not None:
        same = customer.owner == person.person
        return reasons.ALREADY_YOURS if same else reasons.OWNED_BY_ANOTHER
    if not _is_admin(situation):
        if not _manages(situation, territory or person.territory):
            return reasons.NOT_MANAGER
        if not _manages(situation, person.territory):
            return reasons.OUTSIDE_TERRITORY
    if limit is not None and held >= limit:
        return reasons.HOLDING_LIMIT
    return None


def decide_release(
    situation: Situation, request: requests.ReleaseRequested
) -> decisions.OwnershipReleased | decisions.ReleaseRefused:
    """Free a customer, by its owner or a manager over the owner or the customer."""
    customer, customer_id = situation.customer, situation.customer_id
    if not isinstance(customer, Admitted):
        return decisions.ReleaseRefused(customer_id, reasons.CUSTOMER_NOT_ADMITTED)
    if situation.out_of_order:
        return decisions.ReleaseRefused(customer_id, reasons.HISTORY_OUT_OF_ORDER, customer.owner)
    if customer.owner is None or not _is_owner_or_manager(situation, customer):
        return decisions.ReleaseRefused(customer_id, reasons.NOT_OWNER, customer.owner)
    return decisions.OwnershipReleased(
        customer_id, customer.owner, request.reason_code, territory_of(situation, customer)
    )


def _is_owner_or_manager(situation: Situation, customer: Admitted) -> bool:
    if situation.request.actor == customer.owner or _is_admin(situation):
        return True
    if _manages(situation, territory_of(situation, customer)):
        return True
    owner = situation.organisation.person(customer.owner) if customer.owner else None
    return owner is not None and _manages(situation, owner.territory)


def _is_there(situation: Situation) -> bool:
    """Say whether the actor has not left: whoever has is no longer manager or administrator."""
    person = situation.organisation.person(situation.request.actor)
    return person is not None and not person.has_left(
        situation.organisation.day(situation.effective)
    )


def _manages(situation: Situation, territory: str | None) -> bool:
    return situation.organisation.manages(situation.request.actor, territory) and _is_there(
        situation
    )


def _is_admin(situation: Situation) -> bool:
    person = situation.organisation.person(situation.request.actor)
    return person is not None and "admin" in person.roles and _is_there(situation)


# --- follow-ups, deals and their corrections ---------------------------------------------------


def decide_follow_up(situation: Situation, request: requests.FollowUpLogged) -> decisions.Noted:
    """Note a follow-up, whether it was the owner's, and whether its contact is the customer's."""
    customer = situation.customer
    noted = _note(situation, request.person, reasons.FOLLOW_UP_BY_NON_OWNER, owner_then(situation))
    if noted.remark is None and request.contact is not None and isinstance(customer, Admitted):
        known = request.contact in customer.contacts
        return noted if known else replace(noted, remark=reasons.CONTACT_UNKNOWN)
    return noted


def decide_deal(situation: Situation, request: requests.DealRecorded) -> decisions.Noted:
    """Note a deal, and whether it was the owner's."""
    return _note(situation, request.person, reasons.DEAL_BY_NON_OWNER, owner_now(situation))


def _note(
    situation: Situation, person: str, by_non_owner: str, owner: str | None
) -> decisions.Noted:
    customer_id = situation.customer_id
    if not isinstance(situation.customer, Admitted):
        return decisions.Noted(customer_id, reasons.CUSTOMER_NOT_ADMITTED)
    if situation.out_of_order:
        return decisions.Noted(customer_id, reasons.HISTORY_OUT_OF_ORDER, owner)
    return decisions.Noted(customer_id, None if owner == person else by_non_owner, owner)


def owner_now(situation: Situation) -> str | None:
    """Return the customer's owner, None where nobody owns it."""
    customer = situation.customer
    return customer.owner if isinstance(customer, Admitted) else None


def owner_then(situation: Situation) -> str | None:
    """Return whose the customer was when a follow-up happened, where it may be entered so late.

    Else, and where nobody knows whose it was then, the present owner is what counts. Imported rows
    take effect when they happened, and never need this.
    """
    customer, request = situation.customer, situation.request
    happened, recorded = request.occurred, request.recorded
    if (
        not isinstance(customer, Admitted)
        or situation.opened_import is not None
        or happened >= recorded
    ):
        return owner_now(situation)
    days = situation.policy.late_follow_up_days
    if situation.organisation.days_after(happened, days) < recorded:
        return customer.owner
    return customer.owner_at(happened) if customer.remembers(happened) else customer.owner


def decide_correction(
    situation: Situation, act_id: str, kind: str
) -> decisions.Noted | decisions.CorrectionRefused:
    """Let a correction or voiding hold where it is of a standing act, by somebody entitled."""
    act = situation.settled.act(act_id)
    if act is None or act.kind != kind or act.customer != situation.customer_id:
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.UNKNOWN_ACT)
    if not act.stands:
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.ACT_VOIDED)
    if not _may_correct(situation, act):
        return decisions.CorrectionRefused(situation.customer_id, act_id, reasons.NOT_YOURS)
    return decisions.Noted(situation.customer_id)


def _may_correct(situation: Situation, act: Act) -> bool:
    if situation.request.actor in (act.person, act.actor) or _is_admin(situation):
        return True
    person = situation.organisation.person(act.person)
    if person is not None and _manages(situation, person.territory):
        return True
    customer = situation.customer
    return isinstance(customer, Admitted) and _manages(situation, territory_of(situation, customer))
