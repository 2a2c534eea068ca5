"""JWTs of an OpenID Connect issuer, beside guishu's own tokens.

Issuer and audience come from the settings, the keys from the issuer's JWKS, which is read again
when a token names a key that is not known, at most every few seconds. A claim names the person: by
the person's id, or by what a stated system calls them. Such a token has all the person's roles.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from api.http.callers import Credentials
from api.http.problems import UnauthorizedError
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt

ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
KEYS_SECONDS_MAX = 3_600.0
# An unknown key asks the issuer again, but whoever makes keys up must not make us ask all the time.
REFRESH_SECONDS_MIN = 10.0
LEEWAY_SECONDS = 60
HELD_MAX = 10_000
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
        # When each expires of those that held by the keys at hand, by the digests of whole tokens.
        self._held: OrderedDict[bytes, float] = OrderedDict()
        self._registry = jwt.JWTClaimsRegistry(
            leeway=LEEWAY_SECONDS,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
        )

    def is_at_hand(self, whole: str) -> bool:
        """Say whether neither the issuer nor anything else need be asked, nor be waited for.

        That is known of tokens only that held before: another may make us ask for newer keys.
        """
        if self._now() - self._fetched_at >= KEYS_SECONDS_MAX - _MARGIN_SECONDS:
            return False
        return self._held.get(_digest(whole), 0.0) > time.time()

    def verify(self, whole: str) -> Credentials | None:
        """Return what a JWT says; None where it is none. Raises UnauthorizedError and
        IssuerUnavailableError.
        """
        if whole.count(".") != 2:
            return None
        claims = self._claims(whole)
        person = self._person(claims.get(self._issuer.claim))
        expires = datetime.fromtimestamp(int(claims["exp"]), UTC)
        self._hold(whole, expires.timestamp())
        return Credentials("person", person, None, None, (), expires)

    def _hold(self, whole: str, expires: float) -> None:
        digest = _digest(whole)
        if digest in self._held:
            return
        with self._lock:
            self._held[digest] = expires
            if len(self._held) > HELD_MAX:
                self._held.popitem(last=False)

    def _claims(self, whole: str) -> Mapping[str, Any]:
        try:
            return self._decoded(whole, self._key_set(KEYS_SECONDS_MAX))
        except (JoseError, ValueError):
            # It may be signed by a key that is newer than those at hand.
            try:
                return self._decoded(whole, self._key_set(REFRESH_SECONDS_MIN))
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
            if self._keys is None or self._now() - self._fetched_at >= seconds_max:
                try:
                    found = KeySet.import_key_set(dict(self._fetch(self._jwks_url())))  # type: ignore[arg-type]
                except (URLError, OSError, ValueError, KeyError, JoseError):
                    if self._keys is None:
                        raise IssuerUnavailableError from None
                else:
                    self._keys = found
                    self._held.clear()
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


def _digest(whole: str) -> bytes:
    return hashlib.sha256(whole.encode()).digest()


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
