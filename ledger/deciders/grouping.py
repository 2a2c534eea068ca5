"""Members of one group 集团 under different owners: a conflict that stands at the group's root.

It arises where ownership of a member begins, or members come under another parent, and is gone
once one person owns them all, or only those whom an earlier ruling lets go on. Since version 2.
What came about unseen, as before that or by an import, is found by a review. Since version 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ledger import conflicts, groups, reasons
from ledger.conflicts import Conflict
from ledger.customer import Admitted
from ledger.deciders.opening import rulers
from ledger.deciders.situations import (
    Situation,
    heads_customer,
    is_admin,
    is_behind,
    opens_conflicts,
)
from ledger.events import decisions
from ledger.groups import Owners

Decisions = tuple[decisions.Decision, ...]

_BEGINS = decisions.OwnershipGranted | decisions.OwnershipAssigned | decisions.OwnershipTransferred


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of a group: whose its members will be, and which owners have come to it.

    ``owners`` None: it is no group of its own any more.
    """

    root: str
    owners: Owners | None
    joined: frozenset[str] = frozenset()


def consequences(situation: Situation, found: Decisions, guards: dict[str, int]) -> Decisions:
    """Return what ``found`` brings about at the roots of the groups that it touches."""
    if situation.version < 2:
        return ()
    result: list[decisions.Decision] = []
    opened = 0
    for change in (*_by_ownership(situation, found), *_by_parent(situation, found)):
        root = situation.settled.customer(change.root)
        if not isinstance(root, Admitted) or is_behind(situation, root):
            continue
        guards["group_owners"] = len(situation.settled.owners_from(change.root))
        for each in _at_root(situation, root, change, opened):
            opened += isinstance(each, decisions.ConflictOpened)
            result.append(each)
    return tuple(result)


# --- what changes ------------------------------------------------------------------------------


def _by_ownership(situation: Situation, found: Decisions) -> Iterator[_Change]:
    """Yield the groups of the customers whose ownership begins or ends."""
    settled = situation.settled
    changes: dict[str, Owners] = {}
    joined: dict[str, set[str]] = {}
    for each in found:
        gained = each.owner if isinstance(each, _BEGINS) else None
        lost = _loser(each)
        if gained is None and lost is None:
            continue
        customer = settled.customer(each.customer)
        if not isinstance(customer, Admitted) or not customer.is_in_group:
            continue
        *_, root = (each.customer, *settled.above(each.customer))
        change = changes.get(root, {})
        if lost is not None:
            change = {**change, lost: change.get(lost, 0) - 1}
        if gained is not None:
            change = {**change, gained: change.get(gained, 0) + 1}
            joined.setdefault(root, set()).add(gained)
        changes[root] = change
    for root, change in changes.items():
        owners = groups.counted(settled.owners_from(root), change)
        yield _Change(root, owners, frozenset(joined.get(root, ())))


def _loser(decision: decisions.Decision) -> str | None:
    """Return who owns a customer no longer by a decision."""
    match decision:
        case decisions.OwnershipReleased() | decisions.CustomerRecycled():
            return decision.owner
        case decisions.OwnershipTransferred():
            return decision.former_owner
        case _:
            return None


def _by_parent(situation: Situation, found: Decisions) -> Iterator[_Change]:
    """Yield the group that a customer leaves with all below it, and the one to which it comes."""
    settled, name, customer = situation.settled, situation.customer_id, situation.customer
    decided = found[0]
    if not isinstance(decided, decisions.CustomerChanged) or not isinstance(customer, Admitted):
        return
    moving = settled.owners_from(name) if decided.parent != customer.parent else {}
    if not moving:
        return
    *_, left = (name, *settled.above(name))
    joined = name
    if decided.parent is not None:
        *_, joined = (decided.parent, *settled.above(decided.parent))
    if left == joined:
        return
    if left == name:
        yield _Change(left, None)
    else:
        yield _Change(left, groups.counted(settled.owners_from(left), groups.less(moving)))
    there = moving if joined == name else groups.counted(settled.owners_from(joined), moving)
    yield _Change(joined, there, frozenset(moving))


# --- what follows ------------------------------------------------------------------------------


def _at_root(situation: Situation, root: Admitted, change: _Change, opened: int) -> Decisions:
    known = conflicts.of_kind(root.conflicts, conflicts.GROUP)
    if change.owners is None:
        return () if known is None else (_gone(change, known, reasons.GROUP_JOINED),)
    # A customer with none below it comes to be the root of a group now: nothing is allowed there.
    allowed = situation.settled.group(change.root).allowed if root.children else ()
    if not groups.is_split(change.owners, allowed):
        if known is None:
            return ()
        several = len(change.owners) > 1
        return (_gone(change, known, reasons.ALLOWED_BEFORE if several else reasons.ONE_OWNER),)
    if not change.joined or not opens_conflicts(situation, conflicts.GROUP):
        return ()
    if known is not None:
        return _proved_further(situation, change, known)
    # Of one request there is mostly one conflict.
    name = f"cft_{situation.request.position}"
    parties = _parties(change.owners, change.joined)
    return (_opened(situation, change.root, f"{name}_{opened}" if opened else name, parties),)


def _opened(
    situation: Situation, root: str, conflict: str, parties: tuple[str, ...]
) -> decisions.ConflictOpened:
    return decisions.ConflictOpened(
        root,
        conflict,
        conflicts.GROUP,
        parties,
        (situation.request.position,),
        rulers(situation, parties, 0),
    )


def _gone(change: _Change, known: Conflict, reason: str) -> decisions.ConflictClosed:
    return decisions.ConflictClosed(change.root, known.conflict, conflicts.GONE, reason)


def _parties(owners: Owners, joined: frozenset[str]) -> tuple[str, ...]:
    """Return those who own members, who owns most of them first; of too many those who came now."""
    ranked = sorted(owners, key=lambda owner: (-owners[owner], owner))
    named = set(sorted(ranked, key=lambda owner: owner not in joined)[: conflicts.PARTIES_MAX])
    return tuple(owner for owner in ranked if owner in named)


def _proved_further(situation: Situation, change: _Change, known: Conflict) -> Decisions:
    """Return that more owners are parties, up to a bound."""
    room = conflicts.PARTIES_MAX - len(known.parties)
    joining = tuple(sorted(change.joined.difference(known.parties)))[:room]
    if not joining:
        return ()
    parties = (*known.parties, *joining)
    added = decisions.ConflictEvidenceAdded(
        change.root,
        known.conflict,
        (situation.request.position,),
        joining,
        rulers(situation, parties, known.waiting.passed_on),
    )
    return (added,)


# --- reviews -----------------------------------------------------------------------------------


def decide_review(situation: Situation, guards: dict[str, int]) -> Decisions:
    """Open the conflict of a group that nobody was told of, or say why there is none to open."""
    name = situation.customer_id
    if not isinstance(situation.customer, Admitted):
        return (decisions.GroupReviewRefused(name, reasons.CUSTOMER_NOT_ADMITTED),)
    *_, root_name = (name, *situation.settled.above(name))
    root = situation.settled.customer(root_name)
    if not isinstance(root, Admitted):
        raise AssertionError("what stands above a customer is in the ledger")
    owners = situation.settled.owners_from(root_name)
    guards["group_owners"] = len(owners)
    problem = _review_problem(situation, root_name, root, owners)
    if problem is not None:
        return (decisions.GroupReviewRefused(name, problem),)
    conflict = f"cft_{situation.request.position}"
    parties = _parties(owners, frozenset())
    noted = decisions.Noted(name, None, situation.customer.owner)
    return (noted, _opened(situation, root_name, conflict, parties))


def _review_problem(situation: Situation, name: str, root: Admitted, owners: Owners) -> str | None:
    if situation.out_of_order or is_behind(situation, root):
        return reasons.HISTORY_OUT_OF_ORDER
    if not (is_admin(situation) or heads_customer(situation, root)):
        return reasons.REVIEW_NEEDS_HEAD
    if situation.version < 3 or not opens_conflicts(situation, conflicts.GROUP):
        return reasons.CONFLICTS_UNSEEN
    if conflicts.of_kind(root.conflicts, conflicts.GROUP) is not None:
        return reasons.CONFLICT_OPEN
    if len(owners) < 2:
        return reasons.GROUP_NOT_SPLIT
    allowed = situation.settled.group(name).allowed
    return None if groups.is_split(owners, allowed) else reasons.ALLOWED_BEFORE
