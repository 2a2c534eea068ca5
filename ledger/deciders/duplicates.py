"""The same identifier under two customers 同一证件号: a conflict at the customer that has it.

The second one is refused. But where it was to be somebody else's, two people are after the same
customer, and its owner and they are told apart by a ruling. Since version 2.
"""

from __future__ import annotations

from ledger import conflicts, reasons
from ledger.customer import Admitted, Held
from ledger.deciders import conflicting
from ledger.deciders.situations import Situation, is_behind, opens_conflicts
from ledger.events import decisions

Decisions = tuple[decisions.Decision, ...]


def claimed_twice(situation: Situation, found: Decisions) -> Decisions:
    """Return the conflict that a refused registration or change opens or proves further."""
    if situation.version < 2:
        return ()
    match found[0]:
        case (
            decisions.RegistrationRefused(reason=reasons.IDENTIFIER_TAKEN, existing=str(existing))
            | decisions.ChangeRefused(reason=reasons.IDENTIFIER_TAKEN, existing=str(existing))
        ):
            pass
        case _:
            return ()
    if not opens_conflicts(situation, conflicts.IDENTIFIER):
        return ()
    customer = situation.settled.customer(existing)
    if not isinstance(customer, Admitted) or is_behind(situation, customer):
        return ()
    person = _rival(situation, customer)
    if person is None:
        return ()
    return conflicting.between(situation, existing, customer, conflicts.IDENTIFIER, person)


def _rival(situation: Situation, existing: Admitted) -> str | None:
    """Return who would have the customer as well; None where that is nobody, or its owner.

    That is who owns the customer that was to be changed, else whoever asked, if they sell.
    """
    customer, actor = situation.customer, situation.request.actor
    if not isinstance(existing.tenure, Held):
        return None
    if isinstance(customer, Admitted) and isinstance(customer.tenure, Held):
        rival = customer.tenure.owner
    elif conflicting.sells_against(situation, existing, actor):
        rival = actor
    else:
        return None
    return None if rival == existing.tenure.owner else rival
