"""From what people type to ids, and from ids to names; an unknown one suggests near ones."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from zoneinfo import ZoneInfo

from api.bootstrap import Ledger
from api.cli.context import shown, typed
from api.imports.rejects import shown_text
from ledger.errors import LedgerError
from ledger.organisation import OrganisationAt
from projections import customers as customer_views
from projections import people as people_views
from projections.wording import nearest

NEAR_MAX = 5


class NotFoundError(LedgerError):
    """What somebody typed names nothing, or several things."""

    code = "not_found"


def actor(ledger: Ledger, text: str | None) -> str:
    """Return the person who acts; raises NotFoundError where nobody is named."""
    if text is None:
        raise NotFoundError(
            "Nobody is named who acts.", way_out="Say it with --as; guishu people lists everybody."
        )
    return person(ledger, text)


def person(ledger: Ledger, text: str) -> str:
    """Return the id of a person named by id, name or foreign id.

    Raises NotFoundError, InvalidRequestError.
    """
    if ledger.recording.organisation().person(typed(text, "person")) is not None:
        return text
    with ledger.pool.connection() as connection:
        found = people_views.find_people(connection, text)
    if len(found.exact) == 1:
        return found.exact[0].person
    if found.exact:
        names = Names(ledger)
        several = ", ".join(
            f"{each.person} ({names.territory(each.territory) or 'no territory'})"
            for each in found.exact
        )
        raise NotFoundError(f"{text} is the name of several people.", way_out=f"One of: {several}")
    near = [f"{each.name} ({each.person})" for each in found.near]
    raise NotFoundError(
        f"There is no person {shown_text(text)}.", way_out=_near(near, "guishu people")
    )


def customer(ledger: Ledger, text: str) -> str:
    """Return the id of a customer named by id, number or name.

    Raises NotFoundError, InvalidRequestError.
    """
    with ledger.pool.connection() as connection:
        found = customer_views.resolve(connection, typed(text, "customer"))
    if found.customer is not None:
        return found.customer.customer
    if found.matches:
        several = ", ".join(f"{each.name} ({each.customer})" for each in found.matches)
        raise NotFoundError(f"{text} means several customers.", way_out=f"One of: {several}")
    near = [f"{each.name} ({each.customer})" for each in found.near]
    raise NotFoundError(
        f"There is no customer {shown_text(text)}.", way_out=_near(near, "guishu customers")
    )


def territory(ledger: Ledger, text: str) -> str:
    """Return the id of a territory named by id or name.

    Raises NotFoundError, InvalidRequestError.
    """
    organisation = ledger.recording.organisation()
    if organisation.territory(typed(text, "territory")) is not None:
        return text
    everything = list(organisation.territories())
    found = [each for each in everything if each.name == text.strip()]
    if len(found) == 1:
        return found[0].territory
    if found:
        several = ", ".join(each.territory for each in found)
        raise NotFoundError(
            f"{text} is the name of several territories.", way_out=f"One of: {several}"
        )
    named = {each.territory: f"{each.name} ({each.territory})" for each in everything}
    near = nearest(text, ((each.territory, each.name) for each in everything), NEAR_MAX)
    raise NotFoundError(
        f"There is no territory {shown_text(text)}.",
        way_out=_near([named[each] for each in near], "guishu territories"),
    )


def _near(near: list[str], command: str) -> str:
    if near:
        return "Did you mean " + ", ".join(near) + "?"
    return f"{command} lists what there is."


class Names:
    """The names of people, customers and territories, looked up as they are needed."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._people: dict[str, str] = {}
        self._customers: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take note of what the organisation is like by now."""
        self.organisation: OrganisationAt = self._ledger.recording.organisation()

    @property
    def zone(self) -> ZoneInfo:
        """The organisation's time zone."""
        return self.organisation.time_zone

    def moment(self, at: datetime | None) -> str:
        """Return a moment in the organisation's time zone, for people."""
        return shown(at, self.zone)

    def person(self, person: str | None) -> str:
        """Return a person's name, or the id where the name was erased or is not projected yet."""
        if person is None:
            return ""
        if person not in self._people:
            with self._ledger.pool.connection() as connection:
                name = people_views.names(connection, [person]).get(person)
            if name is None:
                return person
            self._people[person] = name
        return self._people[person]

    def customer(self, customer: str | None) -> str:
        """Return a customer's name, or the id where the name was erased."""
        if customer is None:
            return ""
        if customer not in self._customers:
            with self._ledger.pool.connection() as connection:
                found = customer_views.summaries(connection, [customer]).get(customer)
            if found is None or found.name is None:
                return customer
            self._customers[customer] = found.name
        return self._customers[customer]

    def of(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the names of people, customers and territories by id; others are left out."""
        wanted = sorted(set(ids))
        with self._ledger.pool.connection() as connection:
            people = people_views.names(connection, wanted)
            known = customer_views.summaries(connection, wanted)
        names: dict[str, str | None] = {key: self.territory(key) for key in wanted}
        names |= people | {key: each.name for key, each in known.items()}
        return {key: name for key, name in names.items() if name is not None}

    def territory(self, territory: str | None) -> str:
        """Return a territory's name."""
        found = self.organisation.territory(territory) if territory else None
        return found.name if found else territory or ""
