"""Customers and the search among them: given requests and decisions, then rows."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.organisation import PolicyAdopted
from ledger.events.values import Contact, ForeignId, Identifier, Site
from projections import customers, wording
from projections.customers import (
    ContactOfCustomer,
    Customer,
    CustomerDetails,
    Customers,
    NumberOfCustomer,
    SiteOfCustomer,
)
from projections.rebuild import compare
from tests.projections.failing import FailsOnce
from tests.projections.history import History, OpenUnsealer
from tests.projections.models import Models

USCC = "91310000MA1K35X28B"


@pytest.fixture
def models(models: Models) -> Models:
    """Only the read model of customers."""
    models.projections = [Customers(OpenUnsealer())]
    return models


def details(models: Models, customer: str) -> CustomerDetails:
    """Return a customer that must be there."""
    found = customers.customer(models.connection, customer)
    assert found is not None
    return found


def shown(models: Models, customer: str) -> Customer:
    return details(models, customer).customer


def found(models: Models, text: str, **how: Any) -> list[str]:
    return [each.customer for each in customers.search(models.connection, text, **how)]


# --- what a customer is ------------------------------------------------------------------------


def test_a_registered_customer_is_pending_until_it_is_admitted(models: Models) -> None:
    history = History().found()
    request = history.request(
        requests.RegistrationRequested(
            "cus_1",
            "organisation",
            "上海鼎盛智能装备有限公司",
            (Identifier("uscc", USCC),),
            (ForeignId("crm", "A-1001"),),
            territory="ter_east",
            attributes={"region": "上海", "revenue": {"decimal": "1.50"}},
            contacts=(
                Contact(
                    "con_1",
                    history.seal("con_1", "contacts.con_1.name", "王芳"),
                    history.seal("con_1", "contacts.con_1.phone", "+86 138-0013-8000"),
                    role="采购",
                ),
            ),
            sites=(Site("sit_1", "总部", history.seal("cus_1", "x", "浦东大道1号")),),
        )
    )
    models.project(history)
    pending = shown(models, "cus_1")
    assert (pending.state, pending.territory, pending.admitted_at) == ("pending", None, None)
    history.decide(request)
    models.project(history)
    assert details(models, "cus_1") == CustomerDetails(
        Customer(
            "cus_1",
            "organisation",
            "上海鼎盛智能装备有限公司",
            "admitted",
            None,
            None,
            None,
            "ter_east",
            "ter_east",
            {"region": "上海", "revenue": {"decimal": "1.50"}},
            pending.registered_at,
            history.decision(request).effective,
            history.decision(request).data.known_from,
        ),
        (NumberOfCustomer("uscc", USCC),),
        (ForeignId("crm", "A-1001"),),
        (ContactOfCustomer("con_1", "王芳", "+86 138-0013-8000", None, "采购"),),
        (SiteOfCustomer("sit_1", "总部", "浦东大道1号"),),
    )


def test_a_duplicate_is_refused_and_names_the_customer_that_exists(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "鼎盛", uscc=USCC)
    history.register("cus_2", "鼎盛公司", uscc=USCC)
    models.project(history)
    duplicate = shown(models, "cus_2")
    assert (duplicate.state, duplicate.reason, duplicate.existing) == (
        "refused",
        "identifier_taken",
        "cus_1",
    )
    assert shown(models, "cus_1").state == "admitted"


def test_who_is_registered_a_second_time_stays_as_it_was(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "鼎盛", uscc=USCC)
    history.register("cus_2", "鼎盛", uscc=USCC)
    history.register("cus_1", "别的名字")
    history.register("cus_2", "别的名字")
    models.project(history)
    assert (shown(models, "cus_1").name, shown(models, "cus_1").state) == ("鼎盛", "admitted")
    second = shown(models, "cus_2")
    assert (second.reason, second.existing) == ("identifier_taken", "cus_1")


def test_a_change_shows_once_it_holds_and_keeps_what_it_does_not_say(models: Models) -> None:
    history = History().found()
    history.ask(
        requests.RegistrationRequested(
            "cus_1",
            "organisation",
            "鼎盛",
            (Identifier("uscc", USCC), Identifier("vat", "7")),
            parent=None,
            territory="ter_east",
            attributes={"region": "上海", "size": 40},
            contacts=(
                Contact("con_1", history.seal("con_1", "x", "王芳"), role="采购"),
                Contact("con_2", history.seal("con_2", "x", "赵强")),
            ),
            sites=(Site("sit_1", "总部"), Site("sit_2", "仓库")),
        )
    )
    change = history.request(
        requests.CustomerChangeRequested(
            "cus_1",
            "鼎盛集团",
            (Identifier("vat", "8"),),
            (ForeignId("crm", "1"),),
            attributes={"size": 50, "stage": "won"},
            contacts=(Contact("con_1", phone=history.seal("con_1", "x", "13800138000")),),
            sites=(Site("sit_1", "新总部"),),
            removed=(
                "territory",
                "attribute:region",
                "identifier:uscc",
                "contact:con_2",
                "site:sit_2",
            ),
            closed=True,
        )
    )
    models.project(history)
    before = details(models, "cus_1")
    assert (before.customer.name, before.customer.state) == ("鼎盛", "admitted")
    assert len(before.contacts) == len(before.sites) == 2
    history.decide(change)
    models.project(history)
    after = details(models, "cus_1")
    assert after.customer.name == "鼎盛集团"
    assert after.customer.state == "closed"
    assert (after.customer.territory, after.customer.explicit_territory) == (None, None)
    assert after.customer.attributes == {"size": 50, "stage": "won"}
    assert after.identifiers == (NumberOfCustomer("vat", "8"),)
    assert after.foreign_ids == (ForeignId("crm", "1"),)
    assert after.contacts == (ContactOfCustomer("con_1", "王芳", "13800138000", None, "采购"),)
    assert after.sites == (SiteOfCustomer("sit_1", "新总部", None),)
    history.ask(requests.CustomerChangeRequested("cus_1", closed=False))
    models.project(history)
    assert shown(models, "cus_1").state == "admitted"


def test_a_refused_change_changes_nothing(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "鼎盛", uscc=USCC)
    history.register("cus_2", "华信")
    history.ask(requests.CustomerChangeRequested("cus_2", "新名", (Identifier("uscc", USCC),)))
    models.project(history)
    assert details(models, "cus_2").identifiers == ()
    assert shown(models, "cus_2").name == "华信"


def test_the_territory_is_what_the_last_decision_stated(models: Models) -> None:
    history = History().found(
        territory_rules=[
            {
                "territory": "ter_east",
                "conditions": [{"attribute": "region", "operator": "is", "value": "上海"}],
            }
        ]
    )
    history.join("per_1")
    history.register("cus_1", attributes={"region": "上海"})
    models.project(history)
    assert shown(models, "cus_1").territory == "ter_east"
    assert shown(models, "cus_1").explicit_territory is None
    history.move("cus_1", "ter_north")
    models.project(history)
    assert shown(models, "cus_1").territory == "ter_north"
    # A policy without that rule: the next decision finds the customer elsewhere.
    history.ask(requests.CustomerChangeRequested("cus_1", removed=("territory",)))
    history.fact(PolicyAdopted(2, {"claim_scope": "everywhere"}))
    history.claim("cus_1", "per_1")
    models.project(history)
    assert shown(models, "cus_1").territory is None


def test_a_change_asked_of_a_duplicate_is_made_where_it_was_decided(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "鼎盛", uscc=USCC)
    history.register("cus_2", "鼎盛", uscc=USCC)
    history.ask(requests.CustomerChangeRequested("cus_2", "鼎盛集团"))
    models.project(history)
    assert shown(models, "cus_1").name == "鼎盛集团"
    assert shown(models, "cus_2").name == "鼎盛"


def test_the_parent_is_the_one_that_was_decided(models: Models) -> None:
    """A subsidiary whose parent was entered twice was shown below the duplicate.

    So a group's root that was in the ledger already seemed to have no subsidiaries.
    """
    history = History().found()
    history.register("cus_1", "集团", uscc=USCC)
    history.register("cus_2", "集团", uscc=USCC)
    request = history.request(
        requests.RegistrationRequested("cus_3", "organisation", "分公司3", parent="cus_2")
    )
    history.register("cus_4", "分公司4")
    history.ask(requests.CustomerChangeRequested("cus_4", parent="cus_2"))
    models.project(history)
    assert shown(models, "cus_3").parent == "cus_2"  # as asked for, while nothing is decided
    history.decide(request)
    models.project(history)
    assert shown(models, "cus_3").parent == "cus_1"
    listed = customers.children(models.connection, "cus_1")
    assert [each.customer for each in listed] == ["cus_3", "cus_4"]
    # A change that speaks of something else leaves it, and one that takes it away does so.
    history.ask(requests.CustomerChangeRequested("cus_3", "分公司三"))
    history.ask(requests.CustomerChangeRequested("cus_4", removed=("parent",)))
    models.project(history)
    assert (shown(models, "cus_3").parent, shown(models, "cus_4").parent) == ("cus_1", None)


def test_children_of_a_group_parent_are_listed(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "集团")
    for number in (2, 3, 4):
        history.ask(
            requests.RegistrationRequested(
                f"cus_{number}", "organisation", f"分公司{number}", parent="cus_1"
            )
        )
    history.ask(requests.CustomerChangeRequested("cus_3", removed=("parent",)))
    models.project(history)
    listed = customers.children(models.connection, "cus_1", limit=1)
    assert [each.customer for each in listed] == ["cus_2"]
    rest = customers.children(models.connection, "cus_1", after="cus_2")
    assert [each.customer for each in rest] == ["cus_4"]


# --- finding -----------------------------------------------------------------------------------


@pytest.fixture
def filled(models: Models) -> Models:
    """A handful of customers."""
    history = History().found()
    history.ask(
        requests.RegistrationRequested(
            "cus_1",
            "organisation",
            "上海鼎盛智能装备有限公司",
            (Identifier("uscc", USCC),),
            (ForeignId("crm", "A-1001"),),
            territory="ter_east",
            contacts=(Contact("con_1", phone=history.seal("con_1", "x", "+86 138-0013-8000")),),
        )
    )
    history.register("cus_2", "鼎盛", territory="ter_north")
    history.register("cus_3", "北京华信软件有限公司", territory="ter_north")
    history.register("cus_4", "Ｃａｆé 100% 鼎_盛")
    history.register("cus_5", "鼎盛(重复)", uscc=USCC)
    history.ask(requests.CustomerChangeRequested("cus_3", closed=True))
    models.project(history)
    return models


def test_a_part_of_a_name_finds_the_shortest_names_first(filled: Models) -> None:
    assert found(filled, "鼎盛") == ["cus_2", "cus_5", "cus_1"]
    assert found(filled, "盛智能") == ["cus_1"]
    assert found(filled, "公司") == ["cus_3", "cus_1"]
    assert found(filled, "没有") == []


def test_one_character_is_enough(filled: Models) -> None:
    assert found(filled, "盛") == ["cus_2", "cus_5", "cus_1", "cus_4"]
    assert found(filled, "软") == ["cus_3"]


def test_letters_are_found_in_any_case_and_width_and_signs_stand_for_themselves(
    filled: Models,
) -> None:
    assert found(filled, "CAFÉ") == ["cus_4"]
    assert found(filled, "100%") == ["cus_4"]
    assert found(filled, "鼎_盛") == ["cus_4"]
    assert found(filled, "0%鼎") == []


def test_numbers_and_phones_find_their_customer(filled: Models) -> None:
    assert found(filled, USCC) == ["cus_1", "cus_5"]
    assert found(filled, "9131 0000") == ["cus_1", "cus_5"]
    assert found(filled, "a1001") == ["cus_1"]
    assert found(filled, "CRM:A-1001") == ["cus_1"]
    assert found(filled, "erp:A-1001") == []
    assert found(filled, "13800138000") == ["cus_1"]
    assert found(filled, "8613800138000") == ["cus_1"]
    assert found(filled, "8000") == ["cus_1"]
    assert found(filled, "138") == []
    assert found(filled, "cus_3") == ["cus_3"]


def test_filters_hold_for_every_way_of_finding(filled: Models) -> None:
    assert found(filled, "鼎盛", state="admitted") == ["cus_2", "cus_1"]
    assert found(filled, "鼎盛", territory="ter_north") == ["cus_2"]
    assert found(filled, USCC, state="refused") == ["cus_5"]
    assert found(filled, "", state="closed") == ["cus_3"]
    assert found(filled, "", territory="ter_east") == ["cus_1"]


def test_pages_follow_one_another_without_a_gap_or_a_repetition(models: Models) -> None:
    history = History().found()
    for number in range(25):
        name = f"{'长' * (number % 3)}公司{number}"
        foreign = (ForeignId("crm", "公司"),) if number == 20 else ()
        history.ask(
            requests.RegistrationRequested(
                f"cus_{number:02}", "organisation", name, foreign_ids=foreign
            )
        )
    models.project(history)
    for text in ("公司", "司", ""):
        everything = found(models, text, limit=100)
        assert len(everything) == 25
        pages: list[str] = []
        while page := found(models, text, limit=4, after=pages[-1] if pages else None):
            pages.extend(page)
        assert pages == everything


def test_resolving_goes_by_id_then_number_then_name(models: Models) -> None:
    history = History().found()
    history.register("cus_1", "鼎盛", uscc=USCC)
    history.ask(
        requests.RegistrationRequested(
            "cus_2", "organisation", "华信", foreign_ids=(ForeignId("crm", "鼎盛"),)
        )
    )
    history.register("cus_3", "同名")
    history.register("cus_4", "同名")
    history.register("cus_5", "鼎盛二", uscc=USCC)
    models.project(history)

    def meant(text: str) -> customers.Resolution:
        return customers.resolve(models.connection, text)

    def one(text: str) -> str | None:
        customer = meant(text).customer
        return None if customer is None else customer.customer

    assert one(" cus_1 ") == "cus_1"
    assert one("91310000-ma1k35x28b") == "cus_1", "not the duplicate, which was refused"
    assert one("鼎盛") == "cus_2", "a foreign id goes before a name"
    assert one("华信") == "cus_2"
    assert one("鼎盛二") == "cus_5", "a refused one is meant where nothing else has that name"
    assert one("cus_5") == "cus_5"
    several = meant("同名")
    assert several.customer is None
    assert [each.customer for each in several.matches] == ["cus_3", "cus_4"]
    assert several.near == ()


def test_an_unknown_text_suggests_near_names_and_ids(filled: Models) -> None:
    def near(text: str) -> list[str]:
        resolution = customers.resolve(filled.connection, text)
        assert (resolution.customer, resolution.matches) == (None, ())
        return [each.customer for each in resolution.near]

    assert near("上海鼎圣智能装备")[0] == "cus_1"
    assert near("北京华欣软件有限公司")[0] == "cus_3"
    assert "cus_3" in near("cus_33")
    assert near("zzzzzz") == []
    assert near("") == []


def test_a_name_of_many_characters_that_expand_is_kept_and_found(models: Models) -> None:
    """One character may become eighteen when folded; no index may be too small for that."""
    history = History().found()
    name = "ﷺ" * 300
    history.ask(
        requests.RegistrationRequested(
            "cus_1",
            "organisation",
            name,
            foreign_ids=(ForeignId("ﷺ" * 100, "ﷺ" * 100),),
        )
    )
    models.project(history)
    assert models.parked() == []
    assert found(models, name) == ["cus_1"]
    assert found(models, "ﷺ" * 100) == ["cus_1"]
    assert customers.resolve(models.connection, name).customer is not None


def test_quotes_and_backslashes_in_a_name_are_kept_and_found(models: Models) -> None:
    history = History().found()
    name = "a\"b\\c{d},e NULL'"
    history.register("cus_1", name)
    models.project(history)
    assert shown(models, "cus_1").name == name
    for part in ('a"b', "b\\c", "{d}", "},e", "null'", " "):
        assert found(models, part) == ["cus_1"], part


# --- erasure, batches, failures ----------------------------------------------------------------


def individual(history: History) -> None:
    """Register an individual whose name and identifier are sealed."""
    history.ask(
        requests.RegistrationRequested(
            "cus_1",
            "individual",
            history.seal("cus_1", "name", "张三小吃店"),
            (Identifier("uscc", "hmac:00", history.seal("cus_1", "identifiers.uscc", USCC)),),
            contacts=(Contact("con_1", history.seal("con_1", "contacts.con_1.name", "张三")),),
        )
    )
    history.register("cus_2", "张三丰")


def test_an_individual_is_found_by_name_and_number(models: Models) -> None:
    history = History().found()
    individual(history)
    models.project(history)
    assert found(models, "张三") == ["cus_2", "cus_1"]
    assert found(models, USCC) == ["cus_1"]


def test_an_erased_individual_has_no_name_and_is_found_by_nothing_but_its_id(
    models: Models,
) -> None:
    history = History().found()
    individual(history)
    models.projections = [Customers(OpenUnsealer(["key_cus_1"]))]
    models.project(history)
    erased = details(models, "cus_1")
    assert erased.customer.name is None
    assert erased.identifiers == (NumberOfCustomer("uscc", None),)
    assert erased.contacts == (ContactOfCustomer("con_1", "张三", None, None, None),)
    assert found(models, "张三") == ["cus_2"]
    assert found(models, USCC) == []
    assert found(models, "cus_1") == ["cus_1"]
    assert found(models, "") == ["cus_1", "cus_2"]


def eventful() -> History:
    """Return a history in which customers are registered, changed, refused, owned and moved."""
    history = History().found()
    history.join("per_1")
    for number in range(12):
        history.ask(
            requests.RegistrationRequested(
                f"cus_{number}",
                "organisation",
                f"公司{number}",
                (Identifier("uscc", str(number % 10)),),
                attributes={"a": number, "b": number},
                contacts=(Contact(f"con_{number}", history.seal("c", "x", "王"), role="r"),),
                sites=(Site(f"sit_{number}", "总部"),),
            )
        )
    for number in range(12):
        customer = f"cus_{number}"
        history.move(customer, f"ter_{number % 3}")
        history.claim(customer, "per_1")
        history.ask(
            requests.CustomerChangeRequested(
                customer,
                f"新公司{number}" if number % 2 else None,
                attributes={"a": 0, "c": number},
                contacts=(Contact(f"con_{number}", phone=history.seal("c", "x", "138")),),
                removed=("attribute:b", f"site:sit_{number}", "territory"),
                closed=number % 4 == 0,
            )
        )
        history.ask(
            requests.CustomerChangeRequested(
                customer,
                attributes={"b": 1},
                contacts=(Contact(f"con_{number}", role="新"),),
                sites=(Site(f"sit_{number}", "新总部"),),
                removed=("attribute:a",),
            )
        )
        history.release(customer)
        history.register(customer, "再来一次")
    return history


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_rows_are_the_same_whatever_the_batches(models: Models, batch: int) -> None:
    models.project(eventful(), batch=batch)
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []
    assert details(models, "cus_3").sites == (SiteOfCustomer("sit_3", "新总部", None),)
    assert details(models, "cus_3").contacts == (
        ContactOfCustomer("con_3", "王", "138", None, "新"),
    )
    assert shown(models, "cus_3").attributes == {"b": 1, "c": 3}


def test_a_failed_batch_leaves_nothing_behind_and_is_applied_again(models: Models) -> None:
    models.projections = [FailsOnce(Customers(OpenUnsealer()))]
    models.project(eventful())
    assert models.parked() == []
    assert compare(models.connect, models.projections, catalogue()) == []


def test_grams_of_a_text_are_among_those_of_any_that_holds_it() -> None:
    whole = wording.folded("上海鼎盛智能装备(集团)有限公司 Co., Ltd.")
    for start in range(len(whole)):
        for end in range(start + 1, len(whole) + 1):
            assert set(wording.search_grams(whole[start:end])) <= set(wording.grams(whole))


def test_phones_are_compared_without_the_prefix_of_the_country() -> None:
    same = {"13800138000", "+86 138 0013 8000", "0086-13800138000", "８６１３８００１３８０００"}
    assert {wording.phone_digits(each) for each in same} == {"13800138000"}
    assert wording.phone_digits("021-6868 1234") == "02168681234"
