"""How far a token that is bound to territories may write: to customers that lie there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from api.http.callers import Caller
from api.http.finding import find_soon
from api.http.problems import ForbiddenError
from api.http.services import Services
from ledger.commands import ChangeCustomer, HandOver, RegisterCustomer
from projections.whois import places_of


async def outside(
    services: Services, caller: Caller, commands: Sequence[Any]
) -> list[ForbiddenError | None]:
    """Return for each of the commands why the token is not for it, None where it is.

    What lies in no territory, and what nobody knows, is for tokens without a bound.
    """
    if caller.territories is None:
        return [None] * len(commands)
    named = sorted({each.customer for each in commands if _is_about_a_customer(each)})
    places: dict[str, str | None] = {}
    if named:
        places = await find_soon(
            services,
            lambda connection: places_of(connection, named),
            lambda found: len(found) == len(named),
        )
    return [_refusal(caller, each, places) for each in commands]


async def must_lie_within(services: Services, caller: Caller, command: Any) -> None:
    """Raise ForbiddenError where the caller's token is not for what a command is about."""
    (refusal,) = await outside(services, caller, [command])
    if refusal is not None:
        raise refusal


def _is_about_a_customer(command: Any) -> bool:
    return not isinstance(command, RegisterCustomer | HandOver)


def _refusal(caller: Caller, command: Any, places: dict[str, str | None]) -> ForbiddenError | None:
    try:
        caller.must_be_within(*_territories(caller, command, places))
    except ForbiddenError as error:
        return error
    return None


def _territories(caller: Caller, command: Any, places: dict[str, str | None]) -> list[str | None]:
    match command:
        case RegisterCustomer():
            return [command.territory]
        case HandOver():
            giver = caller.organisation.person(command.giver)
            return [giver.territory if giver else None]
        case ChangeCustomer(territory=str() as territory):
            return [places.get(command.customer), territory]
        case _:
            return [places.get(command.customer)]
