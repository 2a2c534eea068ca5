"""Conflicts over HTTP: looking at them, and ruling on them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ledger import organisation_commands as facts
from ledger.policy import Policy
from tests.api.http.office import EAST, WEST, Office, make_token, read


def disputed(office: Office, name: str = "华星") -> tuple[str, str]:
    """Return a customer of per_a's that per_b works as well, and the conflict about that."""
    customer = office.customer(name, territory=EAST)
    office.post("per_a", "/v1/claims", {"customer": customer})
    follow_up(office, customer)
    (found,) = read(office, "per_auditor", f"/v1/conflicts?customer={customer}")["items"]
    return customer, found["conflict"]


def follow_up(office: Office, customer: str, person: str = "per_b") -> None:
    """Let somebody follow up, past the interface."""
    from ledger import commands
    from ledger.envelope import Origin
    from ledger.recording import Asked, new_request_id

    command = commands.LogFollowUp(customer=customer, person=person, note="价格谈妥")
    origin = Origin("test", new_request_id(), person)
    office.services.ledger.recording.record(Asked(command, origin))


def test_a_conflict_says_between_whom_what_proves_it_and_who_is_to_rule(office: Office) -> None:
    customer, conflict = disputed(office)
    found = read(office, "per_east", f"/v1/conflicts/{conflict}")
    assert (found["kind"], found["status"], found["owner"]) == ("follow_up", "open", "per_a")
    assert (found["parties"], found["awaits"]) == (["per_a", "per_b"], ["per_east"])
    (proof,) = found["proofs"]
    assert (proof["event"], proof["person"], proof["customer"]) == (
        "FollowUpLogged",
        "per_b",
        customer,
    )
    assert (proof["words"], proof["masked"]) == ({"note": "价格谈妥"}, False)
    assert found["members"] == []


def test_the_words_of_a_proof_are_for_those_within_their_scope(office: Office) -> None:
    customer, conflict = disputed(office)
    path = f"/v1/conflicts/{conflict}"
    # The owner, whoever wrote them, the head, an administrator.
    for who in ("per_a", "per_b", "per_east", "per_admin"):
        (proof,) = read(office, who, path)["proofs"]
        assert proof["words"] == {"note": "价格谈妥"}
    for who in ("per_w", "per_west", "per_auditor", "int_crm"):
        (proof,) = read(office, who, path)["proofs"]
        assert (proof["words"], proof["details"], proof["masked"]) == (None, None, True)
    with office.services.ledger.pool.connection() as connection:
        rows = connection.execute("SELECT person, subjects, fields FROM api.personal_access")
        noted = [tuple(row) for row in rows if row[2] == ["note"]]
    assert noted == [
        (who, [customer], ["note"]) for who in ("per_a", "per_b", "per_east", "per_admin")
    ]


def test_a_ruling_closes_it_and_one_by_somebody_else_does_not(office: Office) -> None:
    customer, conflict = disputed(office)
    path = f"/v1/conflicts/{conflict}/rulings"
    refused = office.post("per_west", path, {"ruling": "keep"})
    assert (refused.status_code, refused.json()["status"]) == (201, "refused")
    assert office.post("per_b", path, {"ruling": "keep"}).status_code == 403
    integration = office.post(
        "int_crm", path, {"ruling": "keep"}, headers={"On-Behalf-Of": "per_east"}
    )
    assert integration.json()["permission"] == "rulings:write"
    ruled = office.post(
        "per_east", path, {"ruling": "award", "receiver": "per_b", "reason": "先谈的"}
    )
    assert (ruled.status_code, ruled.json()["status"]) == (201, "done")
    found = read(office, "per_a", f"/v1/conflicts/{conflict}")
    assert (found["status"], found["ruled_by"], found["receiver"]) == (
        "award",
        "per_east",
        "per_b",
    )
    assert found["awaits"] == []
    # The step that is the head's own is done by the ruling; the receiver has still to accept.
    (task,) = read(office, "per_b", "/v1/inbox")["items"]
    office.post("per_b", f"/v1/approvals/{task['approval']['approval']}/approve", {})
    assert read(office, "per_w", f"/v1/customers/{customer}/ownership")["owner"] == "per_b"


def test_a_ruling_that_is_not_whole_or_about_nothing_is_refused(office: Office) -> None:
    _, conflict = disputed(office)
    path = f"/v1/conflicts/{conflict}/rulings"
    for body in (
        {"ruling": "award"},
        {"ruling": "keep", "receiver": "per_b"},
        {"ruling": "split"},
        {"ruling": "shout"},
        {"ruling": "keep", "reason": "\0"},
    ):
        assert office.post("per_east", path, body).status_code == 422
    none = office.post("per_east", "/v1/conflicts/cfl_none/rulings", {"ruling": "keep"})
    assert (none.status_code, none.json()["code"]) == (404, "not_found")
    assert office.get("per_a", "/v1/conflicts/cfl_none").status_code == 404


def test_conflicts_are_listed_by_what_they_are_and_page_by_page(office: Office) -> None:
    conflicts = [disputed(office, name)[1] for name in ("华星", "蓝海", "恒信")]
    office.post("per_east", f"/v1/conflicts/{conflicts[0]}/rulings", {"ruling": "dismiss"})

    def ids(query: str) -> list[str]:
        items = read(office, "per_w", f"/v1/conflicts?{query}")["items"]
        return [each["conflict"] for each in items]

    assert ids("") == ids("kind=follow_up") == ids(f"territory={EAST}") == conflicts[::-1]
    assert ids("status=open") == conflicts[:0:-1]
    assert ids("status=ended") == ids("status=dismiss") == conflicts[:1]
    assert ids("kind=deal") == ids(f"territory={WEST}") == ids("territory=ter_none") == []
    assert ids("party=per_b") == conflicts[::-1]
    first = read(office, "per_a", "/v1/conflicts?limit=2")
    rest = read(office, "per_a", f"/v1/conflicts?limit=2&cursor={first['next']}")
    assert [each["conflict"] for each in first["items"] + rest["items"]] == conflicts[::-1]
    assert office.get("per_a", "/v1/conflicts?kind=lost").status_code == 422


def test_the_inbox_names_what_one_is_to_rule_on(office: Office) -> None:
    _, conflict = disputed(office)
    (task,) = read(office, "per_east", "/v1/inbox")["items"]
    assert (task["kind"], task["conflict"]["conflict"]) == ("ruling", conflict)
    assert [each["words"] for each in task["asked_as"]] == ["head of 华东"]
    assert task["next"]["then"] == "ruling_reminder"
    assert read(office, "per_east", "/v1/inbox?kind=transfer")["items"] == []
    for who in ("per_a", "per_west", "per_admin"):
        assert read(office, who, "/v1/inbox")["items"] == []


def test_whoever_stands_in_for_an_absent_head_rules_and_answers(office: Office) -> None:
    """The permission table knew managers only: whoever acted for one was turned away (403)."""
    _, conflict = disputed(office)
    path, body = f"/v1/conflicts/{conflict}/rulings", {"ruling": "keep"}
    refused = office.post("per_w", path, body)
    assert (refused.status_code, refused.json()["permission"]) == (403, "rulings:write")
    today = office.services.directory.organisation(now=True).day(datetime.now(UTC))
    days = {"from_day": today, "until_day": today + timedelta(days=1)}
    office.state(
        facts.MarkAway(person="per_east", **days),
        facts.NameDelegate(person="per_east", delegate="per_w", **days),
    )
    office.services.directory.outdate()
    # Whoever is to judge has to know.
    (proof,) = read(office, "per_w", f"/v1/conflicts/{conflict}")["proofs"]
    assert (proof["words"], proof["masked"]) == ({"note": "价格谈妥"}, False)
    # Who looks at the figures or takes the customers over is not for who stands in.
    assert office.get("per_w", "/v1/territories/figures").status_code == 403
    assert office.post("per_w", "/v1/hand-overs", {}).status_code == 403
    office.tokens["narrow"] = make_token(
        office.services, "person", "per_west", ("rep",), datetime.now(UTC) + timedelta(hours=1)
    )
    assert office.post("narrow", path, body).status_code == 403
    ruled = office.post("per_w", path, body)
    assert (ruled.status_code, ruled.json()["status"]) == (201, "done")


def test_whether_who_stands_in_may_rule_is_for_the_ledger_to_decide(office: Office) -> None:
    _, conflict = disputed(office)
    today = office.services.directory.organisation(now=True).day(datetime.now(UTC))
    days = {"from_day": today, "until_day": today + timedelta(days=1)}
    # For a head who is there, and has nothing to do with the parties.
    office.state(facts.NameDelegate(person="per_west", delegate="per_w", **days))
    office.services.directory.outdate()
    ruled = office.post("per_w", f"/v1/conflicts/{conflict}/rulings", {"ruling": "keep"})
    assert (ruled.status_code, ruled.json()["status"]) == (201, "refused")


def test_a_group_that_was_split_unseen_is_listed_and_reviewed(office: Office) -> None:
    office.state(facts.AdoptPolicy(policy=Policy(conflict_kinds=())), facts.AdoptDecider(version=3))
    root = office.customer("鼎恒集团", territory=EAST)
    for name, owner in (("上海", "per_a"), ("杭州", "per_b")):
        branch = office.customer(name, parent=root, territory=EAST)
        assert office.post(owner, "/v1/claims", {"customer": branch}).status_code == 201
    office.state(facts.AdoptPolicy(policy=Policy(conflict_kinds=("group",))))
    listed = read(office, "per_a", "/v1/conflicts/unseen")["items"]
    assert listed == [{"customer": root, "owned": 2, "owners": 2}]
    assert office.post("per_a", "/v1/conflicts/reviews", {"customer": root}).status_code == 403
    other = office.post("per_west", "/v1/conflicts/reviews", {"customer": root})
    assert other.json()["decisions"][0]["reason"] == "review_needs_head"
    reviewed = office.post("per_east", "/v1/conflicts/reviews", {"customer": root})
    assert (reviewed.status_code, reviewed.json()["status"]) == (201, "done")
    assert read(office, "per_a", "/v1/conflicts/unseen")["items"] == []
    (found,) = read(office, "per_a", "/v1/conflicts?kind=group")["items"]
    assert found["parties"] == ["per_a", "per_b"]
