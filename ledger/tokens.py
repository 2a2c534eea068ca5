"""Token follow-ups 敷衍跟进: the same note again, or one more within minutes of the last. Pure.

Notes are sealed, and no decider looks inside. So a request carries a digest of its note, keyed by
the key of the note's subject (``Vault.note_digest``): notes about one contact, or about the
customer itself, can be told apart, and no others. It dies with that key.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime, timedelta

from ledger.counting import CountedAct

# Blanks, and what nobody sees: a note is the same with and without them.
_UNSEEN = re.compile("[\\s\u00ad\u200b-\u200f\u2060\ufeff]+")


def folded(note: str) -> str:
    """Return what is left of a note when blanks, case and full width make no difference."""
    return _UNSEEN.sub("", unicodedata.normalize("NFKC", note)).casefold()


def repeated(
    acts: Iterable[CountedAct], by: str | None, note: str | None, at: datetime, minutes: int
) -> str | None:
    """Return which of ``acts``, follow-ups that count, one repeats; None where it counts itself.

    ``by`` is who followed up where that was not the owner. A note is the same whoever wrote it, for
    else two who work together would keep a customer by one; minutes are counted for each by
    themselves.
    """
    near = timedelta(minutes=minutes)
    for each in acts:
        if note is not None and note == each.note:
            return each.act
        if each.by == by and abs(at - each.at) < near:
            return each.act
    return None
