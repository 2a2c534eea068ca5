"""The deciders: pure functions from settled state, a request and the facts to decisions.

The decider is a rule itself. Its version comes into force by an event of the organisation; old
versions stay, so that the history decided by them can be decided again. A change of what any
history would bring is a new version, never an edit of what an old one does: ``tests/specs/
test_versions.py`` holds each version to what it brought when it came out.

1. Admission, single ownership, transfers and releases with approval, collaborators, conflicts,
   deadlines, recycling.
2. What came after the first release: token follow-ups, groups, identifiers claimed twice, orphans,
   claims that may await approval.
3. What reading version 2 closely found: who may judge, ask or be moved in corners of the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from ledger.deciders import switch
from ledger.deciders.drafts import Draft
from ledger.envelope import Event
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt
from ledger.settled import Settled

Decider = Callable[[Settled, Event, OrganisationAt], Draft]
LATEST = 3


class DeciderMissingError(LedgerError):
    """The version of the decider in force is not part of this version of guishu."""

    code = "decider_missing"

    def __init__(self, version: int) -> None:
        super().__init__(
            f"Version {version} of the decider is asked for, and this guishu has up to {LATEST}.",
            way_out="Upgrade guishu, or name a version that it has.",
        )


def deciders() -> Mapping[int, Decider]:
    """Return every version of the decider that this version of guishu has."""
    return MappingProxyType(
        {version: partial(switch.decide, version) for version in range(1, LATEST + 1)}
    )


def decider(version: int) -> Decider:
    """Return one version of the decider; raises DeciderMissingError."""
    found = deciders().get(version)
    if found is None:
        raise DeciderMissingError(version)
    return found
