"""Every route declares who may call it, and lets in nobody else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.http.admission import Anybody, Requires
from api.http.permissions import GRANTABLE, TABLE, Permission, Reach, both, rights_of
from tests.api.http.office import Office

# Who of the office has which role alone.
BY_ROLE = {
    "rep": "per_a",
    "manager": "per_east",
    "auditor": "per_auditor",
    "admin": "per_admin",
    "integration": "int_crm",
}
# No route takes this; whoever is let in gets no further, and no stream begins.
MALFORMED = "?min_position=x&after=x&limit=x"
OPEN = {"/livez", "/readyz"}


def routes(office: Office) -> Iterator[APIRoute]:
    """Yield every route of the application."""
    included = [getattr(each, "original_router", None) for each in office.app.routes]
    found = [
        each
        for router in included
        if router is not None
        for each in router.routes
        if isinstance(each, APIRoute)
    ]
    assert {each.path for each in found} == office.app.openapi()["paths"].keys()
    yield from found


def declared(dependant: Dependant) -> Iterator[Requires | Anybody]:
    """Yield what a route says of its callers."""
    if isinstance(dependant.call, Requires | Anybody):
        yield dependant.call
    for each in dependant.dependencies:
        yield from declared(each)


def test_every_route_declares_a_permission(office: Office) -> None:
    for route in routes(office):
        said = list(declared(route.dependant))
        assert len(said) == 1, route.path
        assert isinstance(said[0], Anybody) == (route.path in OPEN), route.path


def test_every_role_is_named_here() -> None:
    assert BY_ROLE.keys() == TABLE.keys()


def test_nothing_but_routes_that_declare_is_served(office: Office) -> None:
    """What is mounted or added past the routers would declare nothing, and be walked by nobody."""
    walked = {id(each) for each in routes(office)}
    past = [
        each
        for each in office.app.routes
        if not hasattr(each, "original_router") and id(each) not in walked
    ]
    assert [getattr(each, "path", each) for each in past] == ["/v1/openapi.json"]


def test_every_route_lets_in_whoever_has_its_permission_and_nobody_else(office: Office) -> None:
    """Each route is called by each role: 403 and the permission's name, or anything else."""
    told: Counter[tuple[str, bool]] = Counter()
    for route in routes(office):
        (said,) = declared(route.dependant)
        if isinstance(said, Anybody):
            continue
        path = re.sub(r"{[^}]*}", "1", route.path) + MALFORMED
        for method in sorted(route.methods or ()):
            for role, who in BY_ROLE.items():
                answer = office.call(who, method, path)
                is_missing = (
                    answer.status_code == 403 and answer.json()["permission"] == said.permission
                )
                assert is_missing != (said.permission in TABLE[role]), (method, path, role)
                told[role, is_missing] += 1
    assert all(told[role, False] > 20 for role in BY_ROLE)
    assert all((told[role, True] > 5) == (role != "admin") for role in BY_ROLE)


def test_every_route_refuses_whoever_shows_no_token_that_holds(office: Office) -> None:
    for route in routes(office):
        if route.path in OPEN:
            continue
        path = re.sub(r"{[^}]*}", "1", route.path) + MALFORMED
        for method in sorted(route.methods or ()):
            for headers in ({}, {"Authorization": "Bearer gs_1_none"}):
                answer = office.call(None, method, path, headers=headers)
                assert answer.status_code == 401, (method, path, headers, answer.text)
                assert answer.headers["WWW-Authenticate"].startswith("Bearer"), (method, path)


def test_several_roles_reach_as_far_as_the_farthest() -> None:
    rights = rights_of(["rep", "manager"])
    assert rights[Permission.READ_PERSONAL] is Reach.MANAGED
    assert Permission.READ_LOG not in rights
    assert rights_of(["nobody"]) == {}


def test_for_two_only_what_both_have() -> None:
    rights = both(rights_of(["integration"]), rights_of(["rep"]))
    assert Permission.READ_LOG not in rights
    assert Permission.APPROVE not in rights
    granted = both(rights_of(["integration"], [Permission.APPROVE]), rights_of(["rep"]))
    assert granted[Permission.APPROVE] is Reach.EVERYWHERE


def test_what_may_be_granted_is_no_part_of_an_integrations_role() -> None:
    assert not GRANTABLE & TABLE["integration"].keys()


@pytest.mark.parametrize("who", ["per_a", "per_nobody"])
def test_a_person_acts_for_nobody_else(office: Office, who: str) -> None:
    customer = office.customer("华星")
    headers = {"On-Behalf-Of": who}
    answer = office.post("per_b", "/v1/claims", {"customer": customer}, headers=headers)
    assert answer.status_code == 403


def test_an_integration_names_for_whom_it_writes_and_both_are_recorded(office: Office) -> None:
    customer = office.customer("华星")
    body = {"customer": customer}
    alone = office.post("int_crm", "/v1/claims", body)
    assert (alone.status_code, alone.json()["permission"]) == (403, "On-Behalf-Of")
    unknown = office.post("int_crm", "/v1/claims", body, headers={"On-Behalf-Of": "per_none"})
    assert unknown.status_code == 400
    # The person's limits: an auditor claims nothing, whoever asks for it.
    refused = office.post("int_crm", "/v1/claims", body, headers={"On-Behalf-Of": "per_auditor"})
    assert refused.status_code == 403
    made = office.post("int_crm", "/v1/claims", body, headers={"On-Behalf-Of": "per_a"})
    assert made.json()["owner"] == "per_a"
    logged = office.get("per_auditor", f"/v1/events?name=ClaimFiled.v1&customer={customer}")
    envelope = logged.json()["items"][0]["body"]
    assert (envelope["caller"], envelope["actor"]) == ("integration:int_crm", "per_a")
    assert envelope["on_behalf_of"] == "per_a"
