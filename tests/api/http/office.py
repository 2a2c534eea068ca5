"""An office for the tests of the HTTP interface: who is there, and how each calls."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from fastapi import FastAPI

from api.bootstrap import open_ledger
from api.http import tokens
from api.http.app import create_app
from api.http.services import Services, open_services
from api.running import running, settle
from api.settings import Settings
from ledger import organisation_commands as facts
from ledger.envelope import Origin
from ledger.policy import Policy
from tests.support.database import DatabaseUrls
from tests.support.ledgers import MASTER_KEY

EAST, WEST = "ter_east", "ter_west"
# Per person: home territory and roles.
PEOPLE: Mapping[str, tuple[str | None, tuple[facts.Role, ...]]] = {
    "per_admin": (None, ("admin",)),
    "per_auditor": (None, ("auditor",)),
    "per_east": (EAST, ("manager",)),
    "per_west": (WEST, ("manager",)),
    "per_a": (EAST, ("rep",)),
    "per_b": (EAST, ("rep",)),
    "per_w": (WEST, ("rep",)),
}
CRM = "int_crm"


@dataclass
class Office:
    """A served ledger and the tokens of its people."""

    services: Services
    app: FastAPI
    tokens: dict[str, str] = field(default_factory=dict)

    def call(
        self,
        who: str | None,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        """Call as somebody (None: without credentials) and return the answer."""
        given = dict(headers or {})
        if who is not None:
            given["Authorization"] = f"Bearer {self.tokens[who]}"
        if body is not None:
            more["json"] = body

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://guishu") as client:
                return await client.request(method, path, headers=given, **more)

        return asyncio.run(send())

    def get(self, who: str | None, path: str, **more: Any) -> httpx.Response:
        """GET as somebody."""
        return self.call(who, "GET", path, **more)

    def post(self, who: str | None, path: str, body: Any, **more: Any) -> httpx.Response:
        """POST JSON as somebody, and wait for the decision."""
        headers = {"Prefer": "wait=20", **more.pop("headers", {})}
        return self.call(who, "POST", path, body=body, headers=headers, **more)

    def customer(self, name: str, *, by: str = "per_admin", **fields: Any) -> str:
        """Register a customer and return its id."""
        answer = self.post(by, "/v1/customers", {"name": name, **fields})
        assert answer.status_code == 201, answer.text
        found: str = answer.json()["customer"]
        return found

    def state(self, *stated: facts.FactCommand) -> None:
        """State facts of the organisation, past the interface."""
        origin = Origin("test", f"req_{id(stated)}_{stated[0]!r}"[:200], "per_admin")
        self.services.ledger.recording.record_facts(list(stated), origin)


def settings_of(urls: DatabaseUrls, folder: Path, **more: Any) -> Settings:
    """Return the settings of a process on the database of a test."""
    return Settings(
        database_url=urls.service_url,  # type: ignore[arg-type]  # pydantic makes it a secret
        owner_database_url=urls.owner_url,  # type: ignore[arg-type]
        master_key=base64.b64encode(MASTER_KEY).decode(),  # type: ignore[arg-type]
        data_directory=folder,
        **more,
    )


@contextmanager
def deciding_office(
    urls: DatabaseUrls, folder: Path, app: FastAPI | None = None, **more: Any
) -> Iterator[Office]:
    """Make an office with people of every role; its consumers run beside the block."""
    with (
        open_ledger(settings_of(urls, folder, **more), migrating=False) as ledger,
        running(ledger),
        open_services(ledger) as services,
    ):
        office = make_office(services, datetime.now(UTC) + timedelta(hours=1), app=app)
        settle(ledger, timeout_seconds=60)
        yield office


def make_office(
    services: Services,
    expires: datetime,
    policy: Policy | None = None,
    app: FastAPI | None = None,
) -> Office:
    """Found the office, and make tokens for its people and for one integration.

    ``app`` is an application that served another office before, whose routes are made already.
    """
    given: list[facts.FactCommand] = [
        facts.FoundOrganisation(name="测试公司", time_zone="Asia/Shanghai"),
        facts.DefineTerritory(territory=EAST, name="华东"),
        facts.DefineTerritory(territory=WEST, name="华西"),
        *(
            facts.AddPerson(person=person, name=person, territory=home, roles=roles)
            for person, (home, roles) in PEOPLE.items()
        ),
        facts.DefineTerritory(territory=EAST, name="华东", head="per_east"),
        facts.DefineTerritory(territory=WEST, name="华西", head="per_west"),
    ]
    if policy is not None:
        given.append(facts.AdoptPolicy(policy=policy))
    services.ledger.recording.record_facts(given, Origin("setup", "req_found", "setup"))
    if app is None:
        app = create_app(services)
    app.state.services = services
    office = Office(services, app)
    for person, (_, roles) in PEOPLE.items():
        office.tokens[person] = make_token(services, "person", person, roles, expires)
    office.tokens[CRM] = make_token(services, "integration", CRM, ("integration",), expires)
    return office


def make_token(
    services: Services,
    kind: tokens.Kind,
    principal: str,
    roles: Sequence[str],
    expires: datetime,
    **more: Any,
) -> str:
    """Make a token past the interface."""
    with services.ledger.pool.connection() as connection:
        return tokens.make_token(
            connection,
            kind=kind,
            principal=principal,
            roles=roles,
            made_by="test",
            expires=expires,
            **more,
        )


def read(office: Office, who: str | None, path: str) -> Any:
    """Return what somebody reads, once all that is recorded now is decided and shown."""
    position = settle(office.services.ledger, timeout_seconds=60)
    separator = "&" if "?" in path else "?"
    answer = office.get(who, f"{path}{separator}min_position={position}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def stored_requests(urls: DatabaseUrls) -> dict[str, int]:
    """Return the positions of requests by their ids, as the log has them."""
    query = """
    SELECT convert_from(body, 'UTF8')::jsonb ->> 'request_id', min(position)
    FROM ledger.events WHERE causation IS NULL GROUP BY 1
    """
    with psycopg.connect(urls.service_url) as connection:
        return {key: position for key, position in connection.execute(query) if key}
