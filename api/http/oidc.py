"""JWTs of an OpenID Connect issuer, beside guishu's own tokens.

Issuer and audience come from the settings, the keys from the issuer's JWKS, which is read again
when a token names a key that is not known, at most every few seconds. A claim names the person: by
the person's id, or by what a stated system calls them. Such a token has all the person's roles.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, import_key

from api.http.callers import Credentials
from api.http.problems import UnauthorizedError
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
KEYS_SECONDS_MAX = 3_600.0
# An unknown key asks the issuer again, but whoever makes keys up must not make us ask all the time;
# nor do all callers, one behind the other, ask an issuer that does not answer.
REFRESH_SECONDS_MIN = 10.0
RETRY_SECONDS_MIN = 2.0
TOKEN_CHARACTERS_MAX = 16_384
LEEWAY_SECONDS = 60
# Keys that are at hand when this is asked are still at hand when they are used.
_MARGIN_SECONDS = 5.0
_FETCH_SECONDS_MAX = 5.0
_BYTES_MAX = 1_048_576


class IssuerUnavailableError(LedgerError):
    """The issuer's keys cannot be had, so that its tokens cannot be told from others."""

    code = "issuer_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The issuer of the token does not answer.", way_out="Try again in a moment."
        )


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are accepted. ``jwks_url`` None: by the issuer's discovery document.

    ``claim`` names the person, by id, or by what ``system`` calls them.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    claim: str = "sub"
    system: str | None = None


class OidcVerifier:
    """Verifies an issuer's JWTs; for any number of threads."""

    def __init__(
        self,
        issuer: Issuer,
        organisation: Callable[[], OrganisationAt],
        *,
        fetch: Callable[[str], Mapping[str, Any]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._organisation = organisation
        self._fetch = fetch or fetch_json
        self._now = now
        self._lock = threading.Lock()
        self._keys: KeySet | None = None
        self._fetched_at = -KEYS_SECONDS_MAX
        self._registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
        )

    def is_at_hand(self, whole: str) -> bool:
        """Say whether it is a JWT for which the issuer need not be asked."""
        if not _is_jwt(whole):
            return False
        keys = self._keys
        is_fresh = self._now() - self._fetched_at < KEYS_SECONDS_MAX - _MARGIN_SECONDS
        return keys is not None and is_fresh and _knows(keys, whole)

    def verify(self, whole: str) -> Credentials | None:
        """Return what a JWT says; None where it is none. Raises UnauthorizedError and
        IssuerUnavailableError.
        """
        if not _is_jwt(whole):
            return None
        if len(whole) > TOKEN_CHARACTERS_MAX:
            raise UnauthorizedError("The JWT is longer than any that is taken.")
        claims = self._claims(whole)
        person = self._person(claims.get(self._issuer.claim))
        try:
            expires = datetime.fromtimestamp(int(claims["exp"]), UTC)
        except (ValueError, OverflowError, OSError):
            raise UnauthorizedError("The JWT does not say when it is over.") from None
        return Credentials("person", person, None, None, (), expires)

    def _claims(self, whole: str) -> Mapping[str, Any]:
        keys = self._key_set(KEYS_SECONDS_MAX)
        if not _knows(keys, whole):
            # It may be signed by a key that is newer than those at hand.
            keys = self._key_set(REFRESH_SECONDS_MIN)
        try:
            return self._decoded(whole, keys)
        except (JoseError, ValueError):
            raise UnauthorizedError("The JWT does not hold.") from None

    def _decoded(self, whole: str, keys: KeySet) -> Mapping[str, Any]:
        token = jwt.decode(whole, keys, algorithms=ALGORITHMS)
        self._registry.validate(token.claims)
        return token.claims

    def _key_set(self, seconds_max: float) -> KeySet:
        """Return the issuer's keys, not older than so many seconds if the issuer answers."""
        known = self._keys
        if known is not None and self._now() - self._fetched_at < seconds_max:
            # Without waiting for whoever asks for newer ones.
            return known
        with self._lock:
            age = self._now() - self._fetched_at
            if age >= (RETRY_SECONDS_MIN if self._keys is None else seconds_max):
                with suppress(URLError, OSError, ValueError, KeyError, JoseError):
                    self._keys = _imported(self._fetch(self._jwks_url()))
                self._fetched_at = self._now()
            if self._keys is None:
                raise IssuerUnavailableError
            return self._keys

    def _jwks_url(self) -> str:
        if self._issuer.jwks_url is not None:
            return self._issuer.jwks_url
        base = self._issuer.issuer.rstrip("/")
        return str(self._fetch(f"{base}/.well-known/openid-configuration")["jwks_uri"])

    def _person(self, named: object) -> str:
        if not isinstance(named, str):
            raise UnauthorizedError("The JWT names nobody of the organisation.")
        system, organisation = self._issuer.system, self._organisation()
        if system is None:
            return named
        for person in organisation.people():
            if any((each.system, each.value) == (system, named) for each in person.foreign_ids):
                return person.person
        raise UnauthorizedError("The JWT names nobody of the organisation.")


def _is_jwt(whole: str) -> bool:
    return whole.count(".") == 2


def _knows(keys: KeySet, whole: str) -> bool:
    """Say whether a JWT names one of the keys, or none where there is only one."""
    head = whole.partition(".")[0]
    try:
        named = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
        kid = named.get("kid")
    except (ValueError, AttributeError, RecursionError):
        # What cannot be read is signed by no key, however new.
        return True
    if kid is None:
        return len(keys.keys) == 1
    return any(each.kid == kid for each in keys.keys)


def _imported(document: Mapping[str, Any]) -> KeySet:
    """Return the keys of a JWKS, those of kinds left out that are not known (RFC 7517, 5).

    Raises ValueError where none is left.
    """
    given = document["keys"]
    found = []
    for each in given if isinstance(given, list) else ():
        with suppress(JoseError, ValueError, KeyError, TypeError):
            if isinstance(each, dict):
                found.append(import_key(each))
    if not found:
        raise ValueError("no key")
    return KeySet(found)


def fetch_json(url: str) -> Mapping[str, Any]:
    """Fetch a JSON object, over TLS but from this machine; raises OSError and ValueError."""
    parts = urlsplit(url)
    is_here = parts.hostname in ("127.0.0.1", "::1", "localhost")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_here):
        raise ValueError("the keys of an issuer are fetched over https")
    with urllib.request.urlopen(url, timeout=_FETCH_SECONDS_MAX) as answer:  # noqa: S310 - checked
        found = json.loads(answer.read(_BYTES_MAX))
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found
