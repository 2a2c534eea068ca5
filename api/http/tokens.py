"""Bearer tokens: ``gs_<id>_<secret>``, of which the ledger keeps the id and a SHA-256.

The secret has 32 random bytes (base64url), so that its bare hash can stand in a table. A token is
of a person or of an integration; it expires, can be revoked, and knows when it was used last (to
the minute). Tokens are no events: who has which role is, and a token never has more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import uuid_utils
from psycopg import Connection

from api.http.permissions import GRANTABLE, TABLE
from ledger.errors import LedgerError, RequestReusedError
from ledger.store.arrays import text_array

SECRET_BYTES = 32
PREFIX = "gs_"
PAGE = 100
Kind = Literal["person", "integration"]

_COLUMNS = """
token, kind, principal, roles, territories, grants, made, made_by, expires, revoked, last_used
"""
_MAKE_ONCE = """
INSERT INTO api.tokens (token, digest, kind, principal, roles, territories, grants, made_by,
                        expires, request_id, request_digest)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (made_by, request_id) DO NOTHING
"""
_OF_KEY = f"""
SELECT request_digest, {_COLUMNS} FROM api.tokens WHERE made_by = %s AND request_id = %s
"""  # noqa: S608  # constants
_OF_ID = f"SELECT {_COLUMNS} FROM api.tokens WHERE token = %s"  # noqa: S608  # constants
_FIND = f"SELECT digest, {_COLUMNS} FROM api.tokens WHERE token = %s"  # noqa: S608  # constants
_LIST = f"""
SELECT {_COLUMNS} FROM api.tokens
WHERE (%(principal)s::text IS NULL OR principal = %(principal)s) AND token > %(after)s
ORDER BY token LIMIT %(limit)s
"""  # noqa: S608  # constants
_REVOKE = """
UPDATE api.tokens SET revoked = clock_timestamp() WHERE token = %s AND revoked IS NULL
"""
_USED = """
UPDATE api.tokens SET last_used = clock_timestamp()
WHERE token = ANY(%b) AND (last_used IS NULL OR last_used < clock_timestamp() - interval '1 min')
"""


class TokenError(LedgerError):
    """A token cannot be made as it was asked for."""

    code = "token"


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its secret. ``territories`` None: no bound. Times are UTC."""

    token: str
    kind: Kind
    principal: str
    roles: tuple[str, ...]
    territories: tuple[str, ...] | None
    grants: tuple[str, ...]
    made: datetime
    made_by: str
    expires: datetime
    revoked: datetime | None
    last_used: datetime | None


@dataclass(frozen=True, slots=True)
class Key:
    """The caller's key of a request to make a token, and a keyed digest of what was asked."""

    request_id: str
    digest: bytes


def make_token(
    connection: Connection[Any],
    *,
    kind: Kind,
    principal: str,
    roles: Sequence[str],
    made_by: str,
    expires: datetime,
    territories: Sequence[str] | None = None,
    grants: Sequence[str] = (),
) -> str:
    """Make a token and return it whole; nobody can ask for it again. Raises TokenError."""
    _, secret = make_once(
        connection,
        kind=kind,
        principal=principal,
        roles=roles,
        made_by=made_by,
        expires=expires,
        territories=territories,
        grants=grants,
    )
    if secret is None:
        raise AssertionError("without a key a token is always made anew")
    return secret


def make_once(
    connection: Connection[Any],
    *,
    kind: Kind,
    principal: str,
    roles: Sequence[str],
    made_by: str,
    expires: datetime,
    territories: Sequence[str] | None = None,
    grants: Sequence[str] = (),
    key: Key | None = None,
) -> tuple[Token, str | None]:
    """Make a token; return it, and the whole of it, which nobody can ask for again.

    With a ``key`` that was used before by who makes it, the first token and None. Raises TokenError
    and RequestReusedError.
    """
    unknown = [role for role in roles if role not in TABLE]
    if unknown or not roles:
        raise TokenError(
            f"{unknown[0]} is no role." if unknown else "A token has at least one role.",
            way_out=f"Roles are {', '.join(TABLE)}.",
        )
    refused = [each for each in grants if each not in GRANTABLE]
    if refused or (grants and kind != "integration"):
        raise TokenError(
            "Only an integration is granted permissions, and only some of them.",
            way_out=f"These may be granted: {', '.join(sorted(GRANTABLE))}.",
        )
    token = uuid_utils.uuid7().hex
    secret = base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    bound = None if territories is None else list(territories)
    is_new = connection.execute(
        _MAKE_ONCE,
        (
            token,
            _digest(secret),
            kind,
            principal,
            list(roles),
            bound,
            list(grants),
            made_by,
            expires,
            key and key.request_id,
            key and key.digest,
        ),
    ).rowcount
    if not is_new and key is not None:
        return _made_before(connection, made_by, key), None
    made = token_of(connection, token)
    if made is None:
        raise AssertionError("nobody deletes tokens")
    return made, f"{PREFIX}{token}_{secret}"


def _made_before(connection: Connection[Any], made_by: str, key: Key) -> Token:
    row = connection.execute(_OF_KEY, (made_by, key.request_id)).fetchone()
    if row is None:
        raise AssertionError("nobody deletes tokens")
    if not hmac.compare_digest(bytes(row[0]), key.digest):
        raise RequestReusedError(key.request_id)
    return _token(row[1:])


def token_of(connection: Connection[Any], token: str) -> Token | None:
    """Return a token by its id, None where there is none."""
    row = connection.execute(_OF_ID, (token,)).fetchone()
    return None if row is None else _token(row)


def find_token(connection: Connection[Any], whole: str) -> Token | None:
    """Return the token of which somebody holds the secret, also one that is over; else None."""
    token, separator, secret = whole.removeprefix(PREFIX).partition("_")
    if not (whole.startswith(PREFIX) and separator and token.isalnum() and secret.isascii()):
        return None
    row = connection.execute(_FIND, (token,), prepare=True).fetchone()
    if row is None or not hmac.compare_digest(bytes(row[0]), _digest(secret)):
        return None
    return _token(row[1:])


def list_tokens(
    connection: Connection[Any], principal: str | None = None, *, after: str = "", limit: int = PAGE
) -> list[Token]:
    """Return the tokens (of a person or an integration) by id, behind ``after``."""
    rows = connection.execute(_LIST, {"principal": principal, "after": after, "limit": limit})
    return [_token(row) for row in rows]


def revoke_token(connection: Connection[Any], token: str) -> bool:
    """Revoke a token; says whether there was one in force. It ends within some seconds."""
    return connection.execute(_REVOKE, (token,)).rowcount == 1


def note_use(connection: Connection[Any], tokens: Sequence[str]) -> None:
    """Remember that tokens were used just now, to the minute."""
    connection.execute(_USED, (text_array(tokens),))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _token(row: Sequence[Any]) -> Token:
    token, kind, principal, roles, territories, grants, *times = row
    bound = None if territories is None else tuple(territories)
    return Token(token, kind, principal, tuple(roles), bound, tuple(grants), *times)
