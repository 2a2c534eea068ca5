"""Groups of customers 集团: whose the members at and below a customer are. Pure.

A customer with others below it, by their ``parent``, has a guard of its own for that. It counts
what is below at every depth, so that a part of a group can move to another without being listed.
What concerns a group as a whole stands at its root.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

Owners = Mapping[str, int]
"""How many members each owner has; who has none is not in it."""


@dataclass(frozen=True, slots=True)
class Group:
    """Whose the customers at and below one are; all are in ``owners`` that somebody owns.

    At the root of a group ``allowed`` are those who, by a ruling, may own members side by side.
    """

    owners: Owners = field(default_factory=dict)
    allowed: tuple[str, ...] = ()

    def counted(self, change: Owners) -> Group:
        """Return the group with more members for some owners, or fewer."""
        return replace(self, owners=counted(self.owners, change))

    def allowing(self, people: Iterable[str]) -> Group:
        """Return the group in which these people, and all who own members now, may go on."""
        return replace(self, allowed=tuple(sorted({*self.owners, *people})))


def counted(owners: Owners, change: Owners) -> Owners:
    """Return ``owners`` with ``change`` added; raises AssertionError for fewer than none."""
    found = dict(owners)
    for owner, number in change.items():
        left = found.pop(owner, 0) + number
        if left < 0:
            raise AssertionError(f"{owner} would own fewer than no members of a group")
        if left:
            found[owner] = left
    return found


def less(leaving: Owners) -> Owners:
    """Return the change that it is when those members leave."""
    return {owner: -number for owner, number in leaving.items()}


def is_split(owners: Owners, allowed: Iterable[str]) -> bool:
    """Say whether several people own members of a group, and no ruling lets all of them."""
    return len(owners) > 1 and not owners.keys() <= set(allowed)
