"""Orphaned customers: whose owner has left without handing them over. Pure.

They stay the leaver's, and are not recycled. The head of the leaver's territory, else of the
customer's, looks after them and acts as their owner; so may any head above either. Where that head
is away or has left, whoever stands in for the head does.
"""

from __future__ import annotations

from datetime import date

from ledger.approval_steps import releasing_territory
from ledger.approving import entitled, is_present
from ledger.events.values import Approver
from ledger.organisation import OrganisationAt


def is_orphaned(owner: str | None, organisation: OrganisationAt, day: date) -> bool:
    """Say whether the owner has left by ``day``."""
    person = organisation.person(owner) if owner is not None else None
    return person is not None and person.has_left(day)


def looked_after_by(
    owner: str, customer_territory: str | None, organisation: OrganisationAt, day: date
) -> tuple[str, ...]:
    """Return in whose care a customer of ``owner`` is on ``day``, who has left."""
    territory = releasing_territory(organisation.person(owner), customer_territory)
    return entitled(Approver("head", territory), 0, frozenset({owner}), organisation, day)


def acts_as_owner(
    person: str,
    owner: str | None,
    customer_territory: str | None,
    organisation: OrganisationAt,
    day: date,
) -> bool:
    """Say whether ``person`` acts on ``day`` as the owner of a customer of ``owner``, who left."""
    if owner is None or not is_orphaned(owner, organisation, day):
        return False
    known = organisation.person(owner)
    homes = (known.territory if known else None, customer_territory)
    is_head = any(organisation.heads(person, each) for each in homes)
    if is_head and is_present(organisation, person, day):
        return True
    return person in looked_after_by(owner, customer_territory, organisation, day)
