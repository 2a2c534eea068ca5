"""What the commands about people, territories and policies share: to state a fact.

Each records a fact, which is final at once; where four eyes are required, a proposal of it.
"""

from __future__ import annotations

import typer

from api.bootstrap import Ledger
from api.cli import resolve
from api.cli.context import console, origin, print_json
from api.cli.following import follow
from api.cli.four_eyes_commands import is_to_be_proposed, propose
from ledger import organisation_commands as facts


def group() -> typer.Typer:
    """Return an empty group of commands, which lists something where none of them is named."""
    return typer.Typer(no_args_is_help=False, rich_markup_mode=None)


def state(
    ledger: Ledger, fact: facts.FactCommand, as_: str | None, words: str, *, json: bool
) -> None:
    """Record a fact and say what holds from now on; or propose it, where four eyes are required."""
    actor = resolve.actor(ledger, as_)
    if is_to_be_proposed(ledger, fact):
        propose(ledger, fact, actor=actor, json=json)
        return
    recorded = ledger.recording.record_fact(fact, origin(actor))
    follow(ledger, recorded.position)
    if json:
        print_json(recorded)
        return
    out = console()
    out.print(words, markup=False, soft_wrap=True)
    about = f"; {recorded.about}" if recorded.about else ""
    out.print(f"recorded at {recorded.position}{about}", markup=False, soft_wrap=True)
