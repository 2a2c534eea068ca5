"""Which versions of the decider there are."""

from __future__ import annotations

import pytest

from ledger.deciders import LATEST, DeciderMissingError, decider, deciders


def test_every_version_up_to_the_latest_is_there() -> None:
    assert list(deciders()) == list(range(1, LATEST + 1))
    assert decider(LATEST) is deciders()[LATEST]


def test_a_version_that_is_not_there_is_asked_for_in_vain() -> None:
    with pytest.raises(DeciderMissingError, match=f"Version {LATEST + 1} of the decider"):
        decider(LATEST + 1)
