"""What recycling counts from, of one ownership; small, for each customer's guard holds it. Pure.

It begins empty with every ownership, so that nobody's customer goes by the clock of a former owner.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from operator import attrgetter

# So many of the last are remembered: one that is voided must not count, and one before it does.
ACTS_MAX = 2
# So many where it is known what they say: whoever repeats one of them has not worked the customer.
NOTES_MAX = 4
TOKENS_MAX = 2
_AT = attrgetter("at")
# More pauses are taken together, in the owner's favour.
PAUSES_MAX = 16


@dataclass(frozen=True, slots=True)
class CountedAct:
    """A follow-up or deal by the owner, and when it was (UTC).

    ``note`` is the digest of what a follow-up says, where the policy recycled when it came; ``by``
    who followed up where that was a collaborator. What only repeats another, ``token_of``, counts
    once that one is voided.
    """

    act: str
    at: datetime
    note: str | None = None
    by: str | None = None
    token_of: str | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing is counted from ``begin`` until ``end`` (UTC)."""

    begin: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Warned:
    """The warning of this number (from 0) was given at this moment (UTC)."""

    step: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Counting:
    """Of one ownership: the owner's last follow-ups and won deals, the last first; what paused it;
    and the warnings that were given. ``import_id`` is the import in which it began. ``pausing`` is
    since when something is open that pauses it (UTC).
    """

    import_id: str | None = None
    follow_ups: tuple[CountedAct, ...] = ()
    deals: tuple[CountedAct, ...] = ()
    pauses: tuple[Pause, ...] = ()
    warned: tuple[Warned, ...] = ()
    pausing: datetime | None = None

    def with_follow_up(self, act: CountedAct) -> Counting:
        """Return it with one more follow-up by the owner or a collaborator."""
        return replace(self, follow_ups=_latest((act, *self.follow_ups)))

    def with_deal(self, act: str, at: datetime) -> Counting:
        """Return it with one more deal that the owner won."""
        return replace(self, deals=_latest((CountedAct(act, at), *self.deals)))

    def without(self, act: str) -> Counting:
        """Return it without a follow-up or deal that no longer counts."""
        if all(act not in (each.act, each.token_of) for each in (*self.follow_ups, *self.deals)):
            return self
        left = (each for each in self.follow_ups if each.act != act)
        freed = (replace(each, token_of=None) if each.token_of == act else each for each in left)
        return replace(
            self,
            follow_ups=_latest(tuple(freed)),
            deals=tuple(each for each in self.deals if each.act != act),
        )

    def moved(self, act: str, at: datetime) -> Counting:
        """Return it with a follow-up that was at another time."""
        found = next((each for each in self.follow_ups if each.act == act), None)
        if found is None:
            return self
        others = (each for each in self.follow_ups if each is not found)
        return replace(self, follow_ups=_latest((replace(found, at=at), *others)))

    @property
    def worked(self) -> tuple[CountedAct, ...]:
        """The follow-ups that count, the last first."""
        return tuple(each for each in self.follow_ups if each.token_of is None)

    def paused(self, begin: datetime, end: datetime) -> Counting:
        """Return it with one more pause, which replaces what is left of those before it."""
        before = [Pause(each.begin, min(each.end, begin)) for each in self.pauses]
        kept = [each for each in before if each.begin < each.end]
        if len(kept) >= PAUSES_MAX:
            kept[:2] = [Pause(kept[0].begin, kept[1].end)]
        return replace(self, pauses=(*kept, Pause(begin, end)))

    def was_warned(self, step: int, at: datetime) -> Counting:
        """Return it with a warning given."""
        others = (each for each in self.warned if each.step != step)
        return replace(self, warned=(*others, Warned(step, at)))


def _latest(acts: tuple[CountedAct, ...]) -> tuple[CountedAct, ...]:
    remembered: list[CountedAct] = []
    counted = tokens = 0
    for each in sorted(acts, key=_AT, reverse=True):
        if each.token_of is not None:
            tokens += 1
            if tokens > TOKENS_MAX:
                continue
        else:
            counted += 1
            if counted > (ACTS_MAX if each.note is None else NOTES_MAX):
                continue
        remembered.append(each)
    return tuple(remembered)
