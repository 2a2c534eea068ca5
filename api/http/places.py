"""Territories with all that lies below them."""

from __future__ import annotations

from collections.abc import Iterable

from ledger.organisation import OrganisationAt


def below(organisation: OrganisationAt, roots: Iterable[str]) -> frozenset[str]:
    """Return the territories that are one of ``roots`` or lie below one."""
    named = tuple(roots)
    return frozenset(
        each.territory
        for each in organisation.territories()
        if any(organisation.is_within(each.territory, root) for root in named)
    )
