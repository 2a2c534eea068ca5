"""Hand-overs: how far one has come, what it goes through, and who holds what at a customer. Pure.

A hand-over is decided in parts. What is done so far stands in the giver's own settled state, so
that whoever decides the next part goes on where the last one ended.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.customer import Admitted, Customer
from ledger.events.decisions import HandOverAdvanced, HandOverCompleted, HandOverRefused
from ledger.events.requests import HandOverRequested

# A part is one transaction, and one look at so many customers. Decisions of ledgers that there are
# depend on it: it never changes but with a version of the decider.
PART_CUSTOMERS = 250

OUTCOMES = (HandOverCompleted, HandOverRefused)
OF_PERSON = (HandOverAdvanced, *OUTCOMES)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The hand-over requested at a position is done up to where ``done`` says."""

    request: int
    done: HandOverAdvanced


def behind(so_far: UnderWay | None) -> str:
    """Return the last customer that is done with; the parts go in the order of the ids."""
    return so_far.done.behind if so_far is not None else ""


def next_ordinal(so_far: UnderWay | None) -> int:
    """Return the ordinal of the first decision of the next part."""
    return so_far.done.decisions if so_far is not None else 0


def listed_behind(request: HandOverRequested, last: str) -> tuple[str, ...]:
    """Return what comes next of the customers that a request names, one more than a part."""
    left = sorted(each for each in set(request.customers) if each > last)
    return tuple(left[: PART_CUSTOMERS + 1])


def people_at(customer: Customer) -> frozenset[str]:
    """Return who holds something at a customer, as far as a hand-over asks.

    They own it, have asked for what awaits approval, would receive it, or collaborate. What a
    hand-over opened is not its orderer's, nor what a ruling opened the ruler's.
    """
    if not isinstance(customer, Admitted):
        return frozenset()
    owner, approval = customer.owner, customer.approval
    if approval is None and not customer.collaborations:
        return frozenset() if owner is None else frozenset((owner,))
    found = {owner, *(each.person for each in customer.collaborations)}
    for each in (approval, *(each.approval for each in customer.collaborations)):
        if each is not None:
            found.add(each.receiver)
            if each.hand_over is None and not each.ruled_among:
                found.add(each.requester)
    return frozenset(person for person in found if person is not None)
