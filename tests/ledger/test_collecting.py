"""Where no garbage is searched for, and that it is again afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ledger.collecting import uncollected


@pytest.fixture(autouse=True)
def _collecting() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_garbage_is_searched_for_again_after_a_batch_even_where_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), uncollected():
        _fail()
    assert gc.isenabled()


def _fail() -> None:
    assert not gc.isenabled()
    raise ZeroDivisionError


def test_whoever_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
