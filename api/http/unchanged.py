"""``If-None-Match``: what the caller has already is not sent again (304).

For what follows from its ETag alone: facts of the organisation, which all callers see alike. What
belongs to a customer changes by decisions and clocks as well, and is masked for some; there the
ETag is for If-Match, and nothing is compared.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Response

from api.http.problems import NotModified
from api.http.services import made_of


class Unless:
    """What the caller has already, by its ETag (weak or not), or ``*``."""

    def __init__(
        self,
        if_none_match: Annotated[
            str | None,
            Header(
                max_length=200,
                description="The ETag of what one has; where that is how it is, 304.",
                examples=['"17"'],
            ),
        ] = None,
    ) -> None:
        self._tags = {
            each.strip().removeprefix("W/") for each in (if_none_match or "").split(",") if each
        }

    def check(self, response: Response) -> None:
        """Raise NotModified where the caller has what is about to be answered."""
        if self._tags & {response.headers["ETag"], "*"}:
            raise NotModified({name: response.headers[name] for name in _KEPT})


_KEPT = ("ETag", "Ledger-Position")
InUnless = Annotated[Unless, Depends(made_of(Unless))]

UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as If-None-Match says."}}
"""What a route that asks ``Unless`` answers besides, for OpenAPI."""
