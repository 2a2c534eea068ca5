"""What ``guishu run`` shows first, where it is not shown by running it."""

from __future__ import annotations

import threading
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from api.bootstrap import Ledger
from api.cli.operations import _patiently
from api.cli.summary import CLAIM_DAYS, first_moment


def test_the_last_seven_days_are_seven() -> None:
    """From the same time a week ago on, they were eight, the first of them not whole."""
    now = datetime.fromisoformat("2026-12-01T01:57:00+08:00")
    assert CLAIM_DAYS == 7
    assert first_moment(now) == datetime.fromisoformat("2026-11-25T00:00:00+08:00")


def ledger(*, embedded: bool) -> Ledger:
    return cast(Ledger, SimpleNamespace(database=SimpleNamespace(embedded=embedded)))


def lost_at_first() -> tuple[list[str], Any]:
    shown: list[str] = []

    def show() -> None:
        shown.append("lost" if not shown else "shown")
        if shown == ["lost"]:
            raise psycopg.OperationalError

    return shown, show


def test_what_is_shown_first_waits_for_a_database_that_restarts() -> None:
    """``guishu run`` ended where the database went while addresses and tokens were looked up."""
    shown, show = lost_at_first()
    _patiently(ledger(embedded=False), threading.Event(), show)
    assert shown == ["lost", "shown"]


def test_of_the_embedded_server_the_loss_is_told() -> None:
    shown, show = lost_at_first()
    with pytest.raises(psycopg.OperationalError):
        _patiently(ledger(embedded=True), threading.Event(), show)
    assert shown == ["lost"]
