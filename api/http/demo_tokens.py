"""Tokens for the people of the demo organisation, so that a newcomer can try HTTP at once.

They are made at the first start, stand in a file beside the master key that only its user can read,
and are printed; while any is in force the server listens on this machine's own addresses only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg import Connection

from api.http import tokens
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt, Person

MADE_BY = "demo"
FILE = "demo-tokens.json"
DAYS = 30
REPS = 2

_IN_FORCE = """
SELECT EXISTS (SELECT FROM api.tokens
               WHERE made_by = %s AND revoked IS NULL AND expires > clock_timestamp())
"""
_REVOKE = """
UPDATE api.tokens SET revoked = clock_timestamp() WHERE made_by = %s AND revoked IS NULL
"""


class DemoTokensError(LedgerError):
    """Tokens of the demo are in force, and the server was told to listen to others."""

    code = "demo_tokens"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"This ledger has demo tokens, which {FILE} holds in plain, and {host} is reached from"
            " elsewhere.",
            way_out="Serve on 127.0.0.1, or revoke them: guishu token revoke --demo.",
        )


def any_in_force(connection: Connection[Any]) -> bool:
    """Say whether a demo token would be accepted."""
    row = connection.execute(_IN_FORCE, (MADE_BY,)).fetchone()
    return bool(row and row[0])


def revoke_all(connection: Connection[Any]) -> int:
    """Revoke the demo's tokens; say how many there were."""
    return connection.execute(_REVOKE, (MADE_BY,)).rowcount


def demo_tokens(
    connection: Connection[Any], folder: Path, organisation: OrganisationAt
) -> dict[str, str]:
    """Return the tokens of some of the demo's people, by person; made anew where they are over."""
    path = folder / FILE
    kept = _read(path)
    people = [each.person for each in _chosen(organisation)]
    if set(people) <= kept.keys() and all(_holds(connection, kept[each]) for each in people):
        return {each: kept[each] for each in people}
    expires = datetime.now(UTC) + timedelta(days=DAYS)
    made = {
        each.person: tokens.make_token(
            connection,
            kind="person",
            principal=each.person,
            roles=sorted(each.roles) or ["rep"],
            made_by=MADE_BY,
            expires=expires,
        )
        for each in _chosen(organisation)
    }
    _write(path, made)
    return made


def _chosen(organisation: OrganisationAt) -> Iterator[Person]:
    """Yield an administrator, an auditor if there is one, a head, and two reps who are there."""
    today = organisation.day(datetime.now(UTC))
    there = [each for each in organisation.people() if not each.has_left(today)]
    wanted = [("admin", 1), ("auditor", 1), ("manager", 1), ("rep", REPS)]
    seen: set[str] = set()
    for role, many in wanted:
        bearers = [each for each in there if role in each.roles and each.person not in seen]
        if role == "manager":
            bearers = [each for each in bearers if organisation.is_manager(each.person)]
        for each in bearers[:many]:
            seen.add(each.person)
            yield each


def _holds(connection: Connection[Any], whole: str) -> bool:
    found = tokens.find_token(connection, whole)
    return found is not None and found.revoked is None and found.expires > datetime.now(UTC)


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _write(path: Path, made: Mapping[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(made, file)
