"""Which versions of the decider there are."""

from __future__ import annotations

from functools import cache

import pytest

from ledger.deciders import LATEST, DeciderMissingError, decider, deciders
from ledger.events.catalogue import catalogue
from tests.specs import random_history

# Each history is looked at twice.
decided = cache(random_history.decided)


def test_every_version_up_to_the_latest_is_there() -> None:
    assert list(deciders()) == list(range(1, LATEST + 1))


def test_a_version_that_is_not_there_is_asked_for_in_vain() -> None:
    with pytest.raises(DeciderMissingError, match=f"Version {LATEST + 1} of the decider"):
        decider(LATEST + 1)


# What version 1 brought when it came out, by the seed of a random history. Never to be changed: a
# ledger somewhere was decided so, and its audit would fail.
VERSION_1 = {
    1: "1eb137b0a88cac0d199ecae2441bc5492aad261ff17a79162ebca250e64299fa",
    2: "e7c7b33e3897ebf9c9fb87abbcaa4a260ed4aa12af685ed077ac287daf5ef25d",
    3: "7580d2c71365c759ac7d8c2583cb514579fe547029bf5c13b44550546e4989ee",
    4: "42a39ed269ff09b01af3afb60e763da75c76dc1ff76be2169c387f1523675182",
}


# The same for version 2, whose histories have hand-overs and stand-ins too.
VERSION_2 = {
    1: "dc610b973e48425726bd3731060541438f00d59ff9cf9b908aa80023dce78c81",
    2: "459f920653cea8ae1bdbee432ac25c7e531c6800a9cfd8bb84afb1c1f17607db",
    3: "7a20b696500df57f0cdb1ee2d4bddefc645bb24ec016aa5de99058af482158e3",
    4: "f28c9017bf2baf0bf74362534ab00b2acc377908796b780b85b2617f0c730d4d",
}


@pytest.mark.parametrize("seed", VERSION_1)
def test_version_1_decides_as_it_did_when_it_came_out(seed: int) -> None:
    digest, _ = decided(1, seed, 5_000)
    assert digest == VERSION_1[seed]


@pytest.mark.parametrize("seed", VERSION_2)
def test_version_2_decides_as_it_did_when_it_came_out(seed: int) -> None:
    digest, _ = decided(2, seed, 5_000)
    assert digest == VERSION_2[seed]


# What there was no request for when version 1 came out.
SINCE = {
    "StandInNamed.v1",
    "StandInEnded.v1",
    "StandInRefused.v1",
    "HandOverLineRefused.v1",
    "HandOverAdvanced.v1",
    "HandOverCompleted.v1",
    "HandOverRefused.v1",
}


SINCE_VERSION_3 = {"GroupReviewRefused.v1"}


def test_the_histories_that_hold_version_1_bring_every_kind_of_decision_it_had() -> None:
    kinds = frozenset[str]().union(*(decided(1, seed, 5_000)[1] for seed in VERSION_1))
    # What no decider makes is the parking of a request that cannot be decided.
    assert kinds >= catalogue().decision_names - {"RequestParked.v1"} - SINCE - SINCE_VERSION_3


def test_the_histories_that_hold_version_2_bring_what_came_with_it() -> None:
    kinds = frozenset[str]().union(*(decided(2, seed, 5_000)[1] for seed in VERSION_2))
    # What a hand-over of several parts says between them comes after a thousand customers only.
    assert kinds >= SINCE - {"HandOverAdvanced.v1"}


def test_a_random_history_of_version_3_has_reviews_of_groups_too() -> None:
    assert decided(3, 1, 1_000)[1] >= SINCE_VERSION_3
