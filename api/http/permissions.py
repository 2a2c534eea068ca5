"""Who may do what: one table of permission by role, and how far each reaches.

A permission is what a route declares; a role gives it for what is one's own, for the territories
that one manages, or for all. Whether something that a caller may ask for is then granted is decided
by the ledger, and not here: this table keeps out who has no business at a door at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum, StrEnum
from functools import lru_cache
from types import MappingProxyType


class Permission(StrEnum):
    """What a route asks of its caller."""

    READ_OWNERSHIP = "ownership:read"
    READ_HISTORY = "history:read"
    READ_PERSONAL = "personal:read"
    READ_FIGURES = "figures:read"
    READ_ORGANISATION = "organisation:read"
    READ_LOG = "log:read"
    EXPORT = "ownership:export"
    WRITE_CUSTOMERS = "customers:write"
    CLAIM = "claims:write"
    WORK = "work:write"
    ASSIGN = "assignments:write"
    TRANSFER = "transfers:write"
    APPROVE = "approvals:write"
    COLLABORATE = "collaborations:write"
    RULE = "rulings:write"
    HAND_OVER = "hand_overs:write"
    HOLD = "holds:write"
    WRITE_ORGANISATION = "organisation:write"
    ADOPT = "proposals:adopt"
    IMPORT = "imports:write"
    WHAT_IF = "what_if:run"
    TOKENS = "tokens:write"
    METRICS = "metrics:read"


class Reach(IntEnum):
    """How far a permission reaches; whoever has several roles has the farthest of them."""

    NOWHERE = 0
    # What one owns, or collaborates at; what one has done oneself.
    OWN = 1
    # What lies in a territory that one manages, or belongs to somebody at home there.
    MANAGED = 2
    EVERYWHERE = 3


P, R = Permission, Reach

_EVERYBODY = {
    P.READ_OWNERSHIP: R.EVERYWHERE,
    P.READ_ORGANISATION: R.EVERYWHERE,
}
_REP = {
    **_EVERYBODY,
    P.READ_HISTORY: R.EVERYWHERE,
    P.READ_PERSONAL: R.OWN,
    P.WRITE_CUSTOMERS: R.EVERYWHERE,
    P.CLAIM: R.EVERYWHERE,
    P.WORK: R.EVERYWHERE,
    P.TRANSFER: R.EVERYWHERE,
    # Receivers answer as well.
    P.APPROVE: R.EVERYWHERE,
    P.COLLABORATE: R.EVERYWHERE,
}
TABLE: Mapping[str, Mapping[Permission, Reach]] = MappingProxyType(
    {
        "rep": _REP,
        "manager": {
            **_REP,
            P.READ_PERSONAL: R.MANAGED,
            P.READ_FIGURES: R.EVERYWHERE,
            P.ASSIGN: R.EVERYWHERE,
            P.RULE: R.EVERYWHERE,
            P.HAND_OVER: R.EVERYWHERE,
            P.HOLD: R.EVERYWHERE,
            P.EXPORT: R.EVERYWHERE,
            # Where the proposer is the only administrator.
            P.ADOPT: R.EVERYWHERE,
        },
        "auditor": {
            **_EVERYBODY,
            P.READ_HISTORY: R.EVERYWHERE,
            P.READ_FIGURES: R.EVERYWHERE,
            P.READ_LOG: R.EVERYWHERE,
            P.EXPORT: R.EVERYWHERE,
            P.WHAT_IF: R.EVERYWHERE,
            P.METRICS: R.EVERYWHERE,
        },
        "admin": dict.fromkeys(Permission, R.EVERYWHERE),
        "integration": {
            **_EVERYBODY,
            P.READ_HISTORY: R.EVERYWHERE,
            P.READ_LOG: R.EVERYWHERE,
            P.EXPORT: R.EVERYWHERE,
            P.WRITE_CUSTOMERS: R.EVERYWHERE,
            P.CLAIM: R.EVERYWHERE,
            P.WORK: R.EVERYWHERE,
            P.TRANSFER: R.EVERYWHERE,
            P.COLLABORATE: R.EVERYWHERE,
            P.METRICS: R.EVERYWHERE,
        },
    }
)
"""What each role may; a permission that is not named is not had."""

STANDING_IN: Mapping[Permission, Reach] = MappingProxyType(
    {P.APPROVE: R.EVERYWHERE, P.RULE: R.EVERYWHERE, P.ASSIGN: R.EVERYWHERE}
)
"""What whoever acts for a manager or an administrator may ask for beside their own, meanwhile.

Only what is decided by who stands in: to answer, to rule, to have orphaned customers worked.
"""

GRANTABLE = frozenset({P.APPROVE, P.RULE, P.READ_PERSONAL, P.ASSIGN, P.HAND_OVER, P.IMPORT})
"""What an integration may be granted by its token beside what its role gives."""

Rights = Mapping[Permission, Reach]


def rights_of(roles: Iterable[str], grants: Iterable[str] = ()) -> Rights:
    """Return what roles and grants give together; unknown names give nothing."""
    return _rights_of(frozenset(roles), frozenset(grants))


@lru_cache(maxsize=256)
def _rights_of(roles: frozenset[str], grants: frozenset[str]) -> Rights:
    rights: dict[Permission, Reach] = {}
    for role in roles:
        for permission, reach in TABLE.get(role, {}).items():
            rights[permission] = max(reach, rights.get(permission, Reach.NOWHERE))
    for name in grants:
        rights[Permission(name)] = Reach.EVERYWHERE
    return MappingProxyType(rights)


def both(one: Rights, other: Rights) -> dict[Permission, Reach]:
    """Return what both have, as far as it reaches for both."""
    return {
        permission: min(reach, other[permission])
        for permission, reach in one.items()
        if permission in other
    }
