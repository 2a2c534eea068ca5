"""Who calls: from the Authorization header to a caller with rights.

A token or JWT names a principal: a person of the organisation, or an integration. An integration
that acts for a person names it in the header ``On-Behalf-Of``: then the rights are those that both
have, limits and exclusions are the person's, and the log records both. What a person may do follows
from the roles of the organisation's facts, and from no more of them than the token has. Whoever
acts for a manager may ask meanwhile for what the ledger lets who stands in decide; a token that was
made with less than its person has stays so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Protocol

from psycopg import Connection

from api.http import tokens
from api.http.directory import Directory
from api.http.permissions import STANDING_IN, Permission, Reach, Rights, both, rights_of
from api.http.problems import ForbiddenError, MalformedHeaderError, UnauthorizedError
from ledger.approving import delegates
from ledger.organisation import OrganisationAt

# A revoked token ends after so many seconds at most.
CACHED_SECONDS = 5.0
CACHED_MAX = 10_000
_NOTED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a token or a JWT says: of whom it is, and how far it goes at most.

    ``kind`` is ``person`` or ``integration``; ``roles`` None: all that the person has.
    """

    kind: str
    principal: str
    roles: frozenset[str] | None
    territories: tuple[str, ...] | None
    grants: tuple[str, ...]
    expires: datetime | None
    token: str | None = None


class Verifier(Protocol):
    """Tells whose a bearer token of a certain kind is."""

    def verify(self, whole: str) -> Credentials | None:
        """Return what the token says, None where it is none of this kind; UnauthorizedError."""
        ...

    def is_at_hand(self, whole: str) -> bool:
        """Say whether it can be told at once, without asking anybody."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for whom, and what that allows.

    ``name`` is the principal as the log records it (``person:…`` or ``integration:…``), under which
    request ids are unique. ``person`` is whose act it is; an integration of its own has none.
    """

    name: str
    person: str | None
    on_behalf: bool
    rights: Mapping[Permission, Reach]
    territories: tuple[str, ...] | None
    organisation: OrganisationAt
    day: date

    def may(self, permission: Permission) -> bool:
        """Say whether the caller has a permission at all."""
        return self.rights.get(permission, Reach.NOWHERE) > Reach.NOWHERE

    def require(self, permission: Permission) -> None:
        """Raise ForbiddenError where the permission is lacking."""
        if not self.may(permission):
            raise ForbiddenError(permission)

    @property
    def actor(self) -> str:
        """Whose act a write is; raises ForbiddenError for an integration that names nobody."""
        if self.person is None:
            raise ForbiddenError(
                "On-Behalf-Of",
                "An integration writes for a person, whom the header On-Behalf-Of names.",
                way_out="Send On-Behalf-Of with the id of the person whose act it is.",
            )
        return self.person

    def within(self, territory: str | None) -> bool:
        """Say whether something lies in the territories to which the token is bound."""
        if self.territories is None:
            return True
        return any(self.organisation.is_within(territory, each) for each in self.territories)

    def must_be_unbound(self) -> None:
        """Raise ForbiddenError for a token that is bound to territories: this is about all."""
        if self.territories is not None:
            raise ForbiddenError(
                "territory scope", "This concerns all territories, and the token is for some."
            )

    def must_be_within(self, *territories: str | None) -> None:
        """Raise ForbiddenError for what lies outside the territories to which the token is bound.

        None lies in no territory: it is for tokens without a bound.
        """
        for territory in territories:
            if not self.within(territory):
                raise ForbiddenError(
                    "territory scope", "This lies outside the territories that the token is for."
                )


class TokenVerifier:
    """Verifies guishu's own tokens; remembers what it found for some seconds."""

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Connection[Any]]],
        *,
        cached_seconds: float = CACHED_SECONDS,
    ) -> None:
        self._connect = connect
        self._cached_seconds = cached_seconds
        self._lock = threading.Lock()
        self._found: OrderedDict[str, tuple[float, tokens.Token]] = OrderedDict()
        self._noted: OrderedDict[str, float] = OrderedDict()

    def verify(self, whole: str) -> Credentials | None:
        """Return what a token says; raises UnauthorizedError where it is over or unknown."""
        if not whole.startswith(tokens.PREFIX):
            return None
        found = self._find(whole)
        now = datetime.now(UTC)
        if found is None or found.revoked is not None or found.expires <= now:
            raise UnauthorizedError("The token is unknown, revoked, or has expired.")
        return Credentials(
            found.kind,
            found.principal,
            frozenset(found.roles),
            found.territories,
            found.grants,
            found.expires,
            found.token,
        )

    def is_at_hand(self, whole: str) -> bool:
        """Say whether the database need not be asked."""
        with self._lock:
            cached = self._found.get(whole)
        return cached is not None and time.monotonic() - cached[0] < self._cached_seconds

    def _find(self, whole: str) -> tokens.Token | None:
        now = time.monotonic()
        with self._lock:
            cached = self._found.get(whole)
        if cached is not None and now - cached[0] < self._cached_seconds:
            return cached[1]
        with self._connect() as connection:
            found = tokens.find_token(connection, whole)
            if found is None:
                # Not remembered: whoever guesses must not drive out those who know.
                return None
            if now - self._noted.get(found.token, -_NOTED_SECONDS) >= _NOTED_SECONDS:
                tokens.note_use(connection, [found.token])
                self._remember(self._noted, found.token, now)
        self._remember(self._found, whole, (now, found))
        return found

    def _remember(self, cache: OrderedDict[str, Any], key: str, value: Any) -> None:
        with self._lock:
            cache[key] = value
            cache.move_to_end(key)
            if len(cache) > CACHED_MAX:
                cache.popitem(last=False)


class Gate:
    """Lets callers in: finds out who calls, and with which rights."""

    def __init__(self, directory: Directory, verifiers: tuple[Verifier, ...]) -> None:
        self._directory = directory
        self._verifiers = verifiers
        # Who stands in for somebody follows from the organisation and the day.
        self._standing_in: tuple[int, date, frozenset[str]] | None = None

    def admit(self, authorization: str | None, on_behalf_of: str | None) -> Caller:
        """Return the caller; raises UnauthorizedError, ForbiddenError, MalformedHeaderError."""
        credentials = self._credentials(authorization)
        organisation = self._directory.organisation()
        day = organisation.day(datetime.now(UTC))
        if credentials.kind == "person":
            if on_behalf_of is not None and on_behalf_of != credentials.principal:
                raise ForbiddenError(
                    "On-Behalf-Of",
                    "A person acts for nobody else.",
                    way_out="Leave On-Behalf-Of out, or use the token of an integration.",
                )
            roles = _roles(credentials.principal, organisation, day)
            return Caller(
                f"person:{credentials.principal}",
                credentials.principal,
                False,
                self._rights(credentials.principal, roles, organisation, day, credentials.roles),
                credentials.territories,
                organisation,
                day,
            )
        rights = rights_of(credentials.roles or (), credentials.grants)
        if on_behalf_of is not None:
            roles = _acting_for(on_behalf_of, organisation, day)
            rights = both(rights, self._rights(on_behalf_of, roles, organisation, day))
        return Caller(
            f"integration:{credentials.principal}",
            on_behalf_of,
            on_behalf_of is not None,
            rights,
            credentials.territories,
            organisation,
            day,
        )

    def is_at_hand(self, authorization: str | None) -> bool:
        """Say whether a caller can be admitted without asking the database."""
        _, _, whole = (authorization or "").partition(" ")
        return self._directory.is_fresh and any(
            each.is_at_hand(whole.strip()) for each in self._verifiers
        )

    def _rights(
        self,
        person: str,
        roles: frozenset[str],
        organisation: OrganisationAt,
        day: date,
        roles_max: frozenset[str] | None = None,
    ) -> Rights:
        """Return what a person may do, by no more roles than ``roles_max``."""
        if roles_max is not None and not roles <= roles_max:
            return rights_of(roles & roles_max)
        rights = rights_of(roles)
        return {**rights, **STANDING_IN} if self._stands_in(person, organisation, day) else rights

    def _stands_in(self, person: str, organisation: OrganisationAt, day: date) -> bool:
        known = self._standing_in
        if known is None or known[:2] != (organisation.position, day):
            known = organisation.position, day, standing_in(organisation, day)
            self._standing_in = known
        return person in known[2]

    def _credentials(self, authorization: str | None) -> Credentials:
        scheme, _, whole = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not whole.strip():
            raise UnauthorizedError("A bearer token is needed.", given=False)
        for verifier in self._verifiers:
            found = verifier.verify(whole.strip())
            if found is not None:
                return found
        raise UnauthorizedError("The token is of no kind that this ledger knows.")


def roles_of(person: str, organisation: OrganisationAt, day: date) -> frozenset[str] | None:
    """Return the roles of a person who is there on a day, else None."""
    found = organisation.person(person)
    if found is None or found.has_left(day):
        return None
    return found.roles | ({"manager"} if organisation.is_manager(person) else set())


def standing_in(organisation: OrganisationAt, day: date) -> frozenset[str]:
    """Return who acts on a day for a manager or an administrator, or for whoever acts for one.

    Also for those who are there: they may be barred from judging, and then it is their delegate's.
    """
    found: set[str] = set()
    waiting = {each.person for each in organisation.bearers("admin")}
    waiting.update(*(each.managers for each in organisation.territories()))
    while waiting:
        for each in delegates(organisation, waiting.pop(), day):
            if each not in found:
                found.add(each)
                waiting.add(each)
    return frozenset(found)


def _roles(person: str, organisation: OrganisationAt, day: date) -> frozenset[str]:
    roles = roles_of(person, organisation, day)
    if roles is None:
        raise UnauthorizedError("The person whom the token names is not there, or has left.")
    return roles


def _acting_for(person: str, organisation: OrganisationAt, day: date) -> frozenset[str]:
    if organisation.person(person) is None:
        raise MalformedHeaderError("On-Behalf-Of", "names nobody of the organisation.")
    try:
        return _roles(person, organisation, day)
    except UnauthorizedError:
        raise ForbiddenError("On-Behalf-Of", "The person named has left.") from None
