"""Waiting until what a command recorded is decided and shown."""

from __future__ import annotations

from api.bootstrap import Ledger
from api.cli.context import notes
from api.running import NotFollowedError, settle

WAIT_SECONDS_MAX = 30.0


def follow(ledger: Ledger, position: int) -> None:
    """Wait until a position is decided and projected; where it takes too long, say so, go on."""
    try:
        settle(ledger, timeout_seconds=WAIT_SECONDS_MAX)
    except NotFollowedError as error:
        notes().print(
            f"Recorded at position {position}. {error} {error.way_out}",
            markup=False,
            soft_wrap=True,
        )
