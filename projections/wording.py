"""Texts as people type them and as they are looked up: folding, grams, numbers, near ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from heapq import nlargest
from itertools import islice, pairwise
from typing import TypeVar

from rapidfuzz import fuzz, process

T = TypeVar("T")

# So many candidates are compared at a time, and no more are held in memory.
_CHUNK = 2_000
# A name of two characters with one of them wrong is half alike; longer ones must be more so.
_SHORT, _SHORT_LIKENESS_MIN, _LIKENESS_MIN = 3, 50.0, 60.0
# A text that is like a part of a longer name counts for less than one like the whole of another.
_PART_LIKENESS_MIN, _PART_WEIGHT = 75.0, 0.85
_MOBILE_DIGITS = 11


def folded(text: str) -> str:
    """Return ``text`` for comparing: NFKC, case folded, runs of white space as one space."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def number_folded(text: str) -> str:
    """Return an identifier or foreign id for comparing: folded, without spaces and hyphens."""
    return folded(text).replace(" ", "").replace("-", "")


def grams(folded_text: str) -> list[str]:
    """Return the characters and pairs of neighbouring characters of a folded text, each once.

    Chinese has no spaces between words: a text that holds another holds all of its pairs.
    """
    pairs = map("".join, pairwise(folded_text))
    return list(dict.fromkeys([*folded_text, *pairs]))


def search_grams(folded_text: str, limit: int = 24) -> list[str]:
    """Return up to ``limit`` grams that every text holding ``folded_text`` has."""
    if len(folded_text) < 2:
        return list(folded_text)
    return list(dict.fromkeys(map("".join, pairwise(folded_text))))[:limit]


def phone_digits(text: str) -> str:
    """Return the digits of a phone number, of a Chinese mobile without the country's 86."""
    digits = "".join(filter(str.isdigit, folded(text)))
    bare = digits.removeprefix("00").removeprefix("86")
    return bare if len(bare) == _MOBILE_DIGITS and bare.startswith("1") else digits


def nearest(text: str, candidates: Iterable[tuple[T, str]], limit: int) -> list[T]:
    """Return the ``limit`` candidates whose text is most like ``text``, the likest first.

    A candidate may come several times, by its id and by its name. Takes all candidates in turn
    and holds only some at a time.
    """
    wanted = folded(text)
    whole_min = _SHORT_LIKENESS_MIN if len(wanted) <= _SHORT else _LIKENESS_MIN
    left = iter(candidates)
    best: dict[T, float] = {}
    while chunk := list(islice(left, _CHUNK)):
        texts = [folded(each) for _, each in chunk]
        for scorer, weight, likeness_min in (
            (fuzz.ratio, 1.0, whole_min),
            (fuzz.partial_ratio, _PART_WEIGHT, _PART_LIKENESS_MIN),
        ):
            found = process.extract(
                wanted, texts, scorer=scorer, score_cutoff=likeness_min, limit=2 * limit
            )
            for _, likeness, index in found:
                key = chunk[index][0]
                best[key] = max(likeness * weight, best.get(key, 0.0))
        best = dict(nlargest(limit, best.items(), key=lambda item: item[1]))
    return list(best)
