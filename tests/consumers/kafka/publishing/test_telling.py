"""What subscribers are told of each decision, and what they are not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest

from consumers.kafka.publishing.cloud_events import Sent, encode
from consumers.kafka.publishing.messages import Current, Told
from consumers.kafka.publishing.telling import KEPT_INSIDE, PUBLIC
from ledger.canonical import instant
from ledger.events import decisions as d
from ledger.events import requests as r
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId
from tests.consumers.kafka.publishing.support import (
    check,
    founded,
    go_on,
    register,
    tellings,
)
from tests.projections.history import START, History

TO = Sent(UUID(int=7), "urn:guishu:test")
LATER = START + timedelta(days=3)


def sent(message: Told | Current) -> dict[str, Any]:
    """Return the body of a message, once it is found to be as the document says."""
    encoded = encode(message, 1, TO)
    body: dict[str, Any] = orjson.loads(encoded.value)
    check({name: value.decode() for name, value in encoded.headers}, body)
    return body


def last(history: History) -> dict[str, Any]:
    """Return what is told of the last public decision."""
    return sent(list(tellings(history))[-1].decision())


def current(history: History) -> list[dict[str, Any]]:
    """Return all that is told of who owns what now, in order."""
    found = [each.current() for each in tellings(history)]
    return [sent(each) for each in found if each is not None]


class TestWhatIsPublic:
    def test_every_decision_is_public_or_kept_inside_for_a_reason(self) -> None:
        """A decision that is new has to be thought about: is it for subscribers?"""
        names = {catalogue().name_of_class(each) for each in (*PUBLIC, *KEPT_INSIDE)}
        assert names == catalogue().decision_names
        assert not PUBLIC.keys() & KEPT_INSIDE.keys()
        assert all(why.endswith(".") for why in KEPT_INSIDE.values())

    def test_each_has_a_type_of_its_own(self) -> None:
        types = [*(each.type for each in PUBLIC.values()), Current.type]
        assert len(set(types)) == len(types) == len(set(PUBLIC.values())) + 1

    def test_every_public_decision_is_told_as_the_document_says(self) -> None:
        history = everything()
        found = [each.decision() for each in tellings(history)]
        for each in found:
            sent(each)
        assert {type(each) for each in found} == set(PUBLIC.values())


def everything() -> History:
    """A history in which every public decision was made, whether or not a decider would."""
    history = founded()
    registration = history.request(r.RegistrationRequested("cus_1", "organisation", "名"))
    change = history.request(r.CustomerChangeRequested("cus_1", territory="ter_1"))
    asked = history.request(r.ClaimFiled("cus_1", "per_1"))
    of_registration: tuple[d.Decision, ...] = (
        d.RegistrationRefused("cus_1", "identifier_taken", "cus_2", "uscc"),
        d.CustomerAdmitted("cus_1", "organisation", START, "ter_1"),
    )
    of_claim: tuple[d.Decision, ...] = (
        d.OwnershipGranted("cus_1", "per_1", "ter_1", "ter_1", LATER, approval="app_1"),
        d.ClaimRefused("cus_1", "per_2", "owned_by_another", "per_1", LATER),
        d.OwnershipReleased("cus_1", "per_1", "no_need", "ter_1"),
        d.OwnershipAssigned("cus_1", "per_1", "per_admin", "ter_1", "ter_1", LATER),
        d.AssignmentRefused("cus_1", "per_2", "already_yours", "per_1"),
        d.ReleaseRefused("cus_1", "not_owner", "per_1"),
        d.TransferRefused("cus_1", "trf_1", "per_2", "protected", "per_1", LATER),
        d.ApprovalOpened("cus_1", "trf_2", "transfer", "per_1", "per_1", "moved", "per_2"),
        d.OwnershipTransferred("cus_1", "per_2", "per_1", "trf_2", hand_over="hov_1"),
        d.ApprovalClosed("cus_1", "trf_2", "completed"),
        d.ConflictOpened("cus_1", "con_1", "deal", ("per_2", "per_3"), (1, 2), ("per_admin",)),
        d.ConflictEvidenceAdded("cus_1", "con_1", (3,), ("per_1",)),
        d.ConflictClosed("cus_1", "con_1", "award", "heard", "per_admin", "per_3"),
        d.RecycleWarned("cus_1", "per_2", 0, "no_deal", LATER, ("per_2",)),
        d.RecycleHeld("cus_1", "per_2", LATER),
        d.CustomerRecycled("cus_1", "per_2", "no_follow_up", "ter_1", 30),
    )
    for data in of_registration:
        history.decided(registration, data)
    history.decided(change, d.CustomerChanged("cus_1", "ter_1"))
    for data in of_claim:
        history.decided(asked, data)
    return history


class TestWords:
    def test_a_grant_says_whose_it_is_and_by_which_request(self) -> None:
        history = founded()
        register(history, "cus_1")
        history.later(days=1)
        position = history.claim("cus_1", "per_1")
        decided = history.event(position + 1)
        assert last(history) == {
            "position": position + 1,
            "version": 2,
            "effective": instant(decided.effective),
            "recorded": instant(decided.recorded),
            "customer": {"id": "cus_1", "foreign_ids": [{"system": "crm", "value": "A-cus_1"}]},
            "owner": {"id": "per_1", "foreign_ids": [{"system": "crm", "value": "S-1"}]},
            "former_owner": None,
            "reason": "claimed",
            "protected_until": instant(decided.data.protected_until),
            "approval": None,
            "cause": {
                "position": position,
                "request_id": history.event(position).envelope["request_id"],
                "caller": "tests",
                "source": None,
            },
        }

    def test_a_transfer_tells_why_it_was_asked_for_and_not_why_it_was_agreed_to(self) -> None:
        history = everything()
        (transferred,) = [
            sent(each.decision())
            for each in tellings(history)
            if isinstance(each.event.data, d.OwnershipTransferred)
        ]
        assert transferred["reason"] == "moved"
        assert (transferred["owner"]["id"], transferred["former_owner"]["id"]) == ("per_2", "per_1")

    def test_what_was_awaited_is_named_again_when_it_is_closed(self) -> None:
        found = [
            sent(each.decision())
            for each in tellings(everything())
            if isinstance(each.event.data, d.ApprovalClosed)
        ]
        assert [each["purpose"] for each in found] == ["transfer"]

    def test_a_refused_registration_names_the_ids_of_whoever_entered_it(self) -> None:
        history = founded()
        request = history.request(
            r.RegistrationRequested(
                "cus_9", "organisation", "名", foreign_ids=(ForeignId("crm", "A-9"),)
            )
        )
        history.decided(request, d.RegistrationRefused("cus_9", "identifier_taken", "cus_1"))
        body = last(history)
        assert body["existing"] == "cus_1"
        assert body["customer"]["foreign_ids"] == [{"system": "crm", "value": "A-9"}]


class TestCurrent:
    def test_it_follows_the_owner_and_the_ids_and_nothing_else(self) -> None:
        history = founded()
        register(history, "cus_1")
        history.claim("cus_1", "per_1")
        history.follow_up("cus_1", "per_1")
        history.claim("cus_1", "per_2")
        history.release("cus_1", "no_need")
        history.move("cus_1", "ter_1")
        history.ask(r.CustomerChangeRequested("cus_1", foreign_ids=(ForeignId("erp", "E-1"),)))
        found = current(history)
        assert [(each["owner"] or {}).get("id") for each in found] == [None, "per_1", None, None]
        assert [each["reason"] for each in found] == ["admitted", "claimed", "no_need", "no_need"]
        assert [each["version"] for each in found] == [1, 2, 5, 7]
        free, known = found[-2:]
        assert free["former_owner"]["id"] == known["former_owner"]["id"] == "per_1"
        assert [each["system"] for each in known["customer"]["foreign_ids"]] == ["crm", "erp"]
        assert known["since"] == free["since"]

    def test_of_a_random_history_the_last_is_what_the_deciders_hold(self) -> None:
        history = founded()
        go_on(history, [f"cus_{number}" for number in range(5)], seed=1, steps=300)
        latest = {each["customer"]["id"]: each for each in current(history)}
        for customer, state in latest.items():
            settled: Any = history.settled.customers[customer]
            assert (state["owner"] or {"id": None})["id"] == settled.owner
        versions: dict[str, int] = {}
        for each in current(history):
            assert each["version"] > versions.get(each["customer"]["id"], 0)
            versions[each["customer"]["id"]] = each["version"]


class TestNothingPersonal:
    @pytest.mark.parametrize(
        "value",
        ["13812345678", "+86 138-1234-5678", "zhang@example.com", "11010519491231002X"],
    )
    def test_of_an_individual_a_personal_id_is_left_out(self, value: str) -> None:
        """A 个体工商户 is a person; some systems know people by phone, mail or identity card."""
        history = founded()
        register(history, "cus_1", "individual", ForeignId("wechat", value))
        history.ask(r.CustomerChangeRequested("cus_1", foreign_ids=(ForeignId("shop", value),)))
        for body in (*current(history), last(history)):
            assert body["customer"]["foreign_ids"] == [{"system": "crm", "value": "A-cus_1"}]

    def test_of_an_organisation_it_is_a_number_as_any_other(self) -> None:
        history = founded()
        register(history, "cus_1", "organisation", ForeignId("erp", "13812345678"))
        assert [each["system"] for each in last(history)["customer"]["foreign_ids"]] == [
            "crm",
            "erp",
        ]

    def test_no_text_of_anybody_is_told(self) -> None:
        """Neither what is sealed nor what stands in plain beside it: names, notes, values."""
        history = founded()
        register(history, "cus_1", "individual")
        note = history.seal("cus_1", "note", "秘密")
        history.ask(r.ClaimFiled("cus_1", "per_1", note), actor="per_1")
        history.deal("cus_1", "per_2", value="1054.00")
        history.ask(r.ReleaseRequested("cus_1", "no_need", note))
        said = [sent(each.decision()) for each in tellings(history)] + current(history)
        text = orjson.dumps(said).decode()
        assert not {
            word for word in ("秘密", "张三", "名per", "1054", "example.com") if word in text
        }
