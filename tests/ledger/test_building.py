"""From commands to events: ids, identifiers, and which texts are sealed, for whom, and where."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from ledger import building, commands
from ledger import organisation_commands as facts_in
from ledger.building import Built, FactContext, Ids, build_fact, build_request
from ledger.commands import CheckDigitError, InvalidRequestError, parse
from ledger.events import organisation as facts
from ledger.events import requests
from ledger.events.catalogue import catalogue
from ledger.events.values import ForeignId, Identifier, Money, Sealed
from ledger.ids import derived_id
from ledger.policy import Policy

USCC = "91350100M000100Y43"
SECRETS = ["王芳", "13800138000", "wang@example.com", "解放路 1 号", "客户要报价单", "下周演示"]


@dataclass
class Sealer:
    """Seals so that a test sees what was sealed: subject, field and text."""

    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def seal(self, subject: str, name: str, text: str) -> Sealed:
        self.seen.append((subject, name, text))
        return sealed(subject, name, text)


def sealed(subject: str, name: str, text: str) -> Sealed:
    """Return what a Sealer makes of a text; nobody reads it by chance."""
    return Sealed(f"key_{subject}", base64.b64encode(f"{name}={text}".encode()).decode())


def digest(system: str, value: str) -> str:
    return f"hmac:{system}:{len(value)}"


def note_digest(subject: str, note: str) -> str:
    return f"{subject}/{len(note)}"


def build(
    command: commands.CustomerCommand, sealer: Sealer | None = None, kind: str = "organisation"
) -> Built:
    return build_request(
        command, Ids("seed"), (sealer or Sealer()).seal, digest, note_digest, lambda customer: kind
    )


def only(built: Built) -> Any:
    (data,) = built.data
    return data


CUSTOMER = derived_id("cus", "seed", "")


# --- ids ----------------------------------------------------------------------------------------


def test_an_id_is_made_once_for_each_label() -> None:
    made = Ids()
    first = made.make("con", "0")
    assert first == made.make("con", "0")
    assert len({first, made.make("con", "1"), made.make("sit", "0"), Ids().make("con", "0")}) == 4


def test_ids_follow_from_a_seed() -> None:
    assert Ids("a").make("cus") == Ids("a").make("cus") != Ids("b").make("cus")


# --- registering --------------------------------------------------------------------------------

CARD: dict[str, Any] = {
    "identifiers": [{"system": "uscc", "value": USCC.lower()}, {"system": "erp", "value": " 7 "}],
    "foreign_ids": [{"system": "crm", "value": "C-1"}],
    "contacts": [
        {"name": "王芳", "phone": "13800138000", "email": "wang@example.com", "role": "采购"},
        {"contact": "con_known", "phone": "13800138000"},
    ],
    "sites": [{"name": "总部", "address": "解放路 1 号"}, {"site": "sit_known", "name": "分部"}],
    "attributes": {
        "region": "华东",
        "employees": 12,
        "rating": {"decimal": "1E+2"},
        "since": {"date": "2020-01-01"},
        "tags": {"set": ["vip", "a", "vip"]},
        "potential": {"money": {"amount": "1E+6", "currency": "CNY"}},
    },
    "parent": "cus_parent",
    "territory": "ter_1",
    "opening": True,
}


def test_an_organisation_is_registered_with_people_sealed_and_the_rest_in_plain() -> None:
    sealer = Sealer()
    command = parse(commands.RegisterCustomer, {"name": "恒信电子", **CARD})
    built = build(command, sealer)
    data = only(built)
    contact, site = derived_id("con", "seed", "0"), derived_id("sit", "seed", "0")
    assert (built.customer, built.made, data.customer) == (CUSTOMER, None, CUSTOMER)
    assert data.name == "恒信电子"
    assert data.identifiers == (Identifier("uscc", USCC), Identifier("erp", "7"))
    assert data.foreign_ids == (ForeignId("crm", "C-1"),)
    assert (data.parent, data.territory, data.opening) == ("cus_parent", "ter_1", True)
    assert data.attributes == {
        "region": "华东",
        "employees": 12,
        "rating": {"decimal": "100"},
        "since": {"date": "2020-01-01"},
        "tags": {"set": ["a", "vip"]},
        "potential": {"money": {"amount": "1000000", "currency": "CNY"}},
    }
    assert [each.contact for each in data.contacts] == [contact, "con_known"]
    assert [each.site for each in data.sites] == [site, "sit_known"]
    assert [each.name for each in data.sites] == ["总部", "分部"]
    assert sealer.seen == [
        (contact, f"contacts.{contact}.name", "王芳"),
        (contact, f"contacts.{contact}.phone", "13800138000"),
        (contact, f"contacts.{contact}.email", "wang@example.com"),
        ("con_known", "contacts.con_known.phone", "13800138000"),
        (CUSTOMER, f"sites.{site}.address", "解放路 1 号"),
    ]


def test_an_individual_is_registered_with_name_and_identifiers_sealed() -> None:
    sealer = Sealer()
    command = parse(
        commands.RegisterCustomer,
        {
            "name": "王芳",
            "kind": "individual",
            "identifiers": [{"system": "resident_id", "value": "１１０１"}],
            "sites": [{"name": "王芳的店"}],
        },
    )
    data = only(build(command, sealer))
    site = data.sites[0].site
    assert data.name == sealed(CUSTOMER, "name", "王芳")
    assert data.identifiers == (
        Identifier(
            "resident_id",
            "hmac:resident_id:4",
            sealed(CUSTOMER, "identifiers.resident_id", "1101"),
        ),
    )
    assert data.sites[0].name == sealed(CUSTOMER, f"sites.{site}.name", "王芳的店")
    assert {subject for subject, _, _ in sealer.seen} == {CUSTOMER}


def test_whoever_registers_and_claims_does_both_in_one_append() -> None:
    command = parse(commands.RegisterCustomer, {"name": "恒信", "claim_for": "per_1"})
    registration, claim = build(command).data
    assert isinstance(registration, requests.RegistrationRequested)
    assert claim == requests.ClaimFiled(CUSTOMER, "per_1")


def test_a_wrong_credit_code_needs_its_override() -> None:
    fields = {"name": "恒信", "identifiers": [{"system": "uscc", "value": "91350100M000100Y4Z"}]}
    with pytest.raises(CheckDigitError):
        build(parse(commands.RegisterCustomer, fields))
    data = only(build(parse(commands.RegisterCustomer, {**fields, "overrides": ["check_digit"]})))
    assert data.identifiers == (Identifier("uscc", "91350100M000100Y4Z"),)
    assert data.overrides == ("check_digit",)


def test_two_identifiers_of_one_system_are_refused() -> None:
    numbers = [{"system": "erp", "value": "1"}, {"system": "erp", "value": "2"}]
    with pytest.raises(InvalidRequestError, match="given twice"):
        build(parse(commands.RegisterCustomer, {"name": "恒信", "identifiers": numbers}))


# --- changing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["organisation", "individual"])
def test_a_change_seals_what_the_kind_of_the_customer_demands(kind: str) -> None:
    sealer = Sealer()
    command = parse(
        commands.ChangeCustomer,
        {
            "customer": "cus_1",
            "name": "王芳",
            "identifiers": [{"system": "erp", "value": "7"}],
            "removed": ["parent"],
            "closed": True,
        },
    )
    data = only(build(command, sealer, kind))
    if kind == "individual":
        assert data.name == sealed("cus_1", "name", "王芳")
        assert data.identifiers[0].key == "hmac:erp:1"
        assert len(sealer.seen) == 2
    else:
        assert (data.name, data.identifiers) == ("王芳", (Identifier("erp", "7"),))
        assert sealer.seen == []
    assert (data.removed, data.closed) == (("parent",), True)


def test_a_change_without_a_name_keeps_the_name() -> None:
    data = only(build(parse(commands.ChangeCustomer, {"customer": "cus_1", "parent": "cus_2"})))
    assert data == requests.CustomerChangeRequested("cus_1", parent="cus_2")


# --- acts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("contact", "subject"), [("con_1", "con_1"), (None, "cus_1")])
def test_a_note_is_sealed_for_whom_it_is_about(contact: str | None, subject: str) -> None:
    command = commands.LogFollowUp(
        customer="cus_1",
        person="per_1",
        channel="visit",
        note="客户要报价单",
        agreed="下周演示",
        next_on=date(2026, 3, 9),
        contact=contact,
        site="sit_1",
    )
    built = build(command)
    made = derived_id("fol", "seed", "")
    assert built == Built(
        (
            requests.FollowUpLogged(
                "cus_1",
                made,
                "per_1",
                "visit",
                sealed(subject, "note", "客户要报价单"),
                sealed(subject, "agreed", "下周演示"),
                date(2026, 3, 9),
                contact,
                "sit_1",
                note_digest=note_digest(subject, "客户要报价单"),
            ),
        ),
        "cus_1",
        made,
    )


@pytest.mark.parametrize(
    ("amount", "written"), [("1054.00", "1054.00"), ("1E+3", "1000"), ("-0.50", "-0.50")]
)
def test_a_sum_of_money_is_written_out(amount: str, written: str) -> None:
    """``1E+3`` stood in the log as it was sent: no decimal string, and no money for a reader."""
    fields = {
        "customer": "cus_1",
        "person": "per_1",
        "outcome": "won",
        "value": {"amount": amount, "currency": "CNY"},
        "product": "数控机床",
    }
    data = only(build(parse(commands.RecordDeal, fields)))
    assert catalogue().dump(data)["value"] == {"amount": written, "currency": "CNY"}
    assert data.deal == derived_id("dea", "seed", "")


def test_every_other_request_mirrors_its_command_with_its_words_sealed() -> None:
    text = "客户要报价单"

    def words(name: str) -> Sealed:
        return sealed("cus_1", name, text)

    moment = "2026-03-01T10:00:00+08:00"
    pairs: list[tuple[type[commands.Command], dict[str, Any], requests.Request]] = [
        (
            commands.FileClaim,
            {"claimant": "per_1", "note": text},
            requests.ClaimFiled("cus_1", "per_1", words("note")),
        ),
        (
            commands.ReleaseCustomer,
            {"reason": text},
            requests.ReleaseRequested("cus_1", "released", words("reason")),
        ),
        (
            commands.AssignCustomer,
            {"assignee": "per_1", "reason": text},
            requests.AssignmentRequested("cus_1", "per_1", words("reason")),
        ),
        (
            commands.CorrectFollowUp,
            {"follow_up": "fol_1", "reason": text, "note": text, "agreed": text, "at": moment},
            requests.FollowUpCorrected(
                "cus_1",
                "fol_1",
                "corrected",
                words("reason"),
                None,
                words("note"),
                words("agreed"),
                None,
                parse(
                    commands.CorrectFollowUp, {"customer": "c", "follow_up": "f", "at": moment}
                ).at,
            ),
        ),
        (
            commands.VoidFollowUp,
            {"follow_up": "fol_1", "reason": text},
            requests.FollowUpVoided("cus_1", "fol_1", "voided", words("reason")),
        ),
        (
            commands.CorrectDeal,
            {
                "deal": "dea_1",
                "reason": text,
                "outcome": "lost",
                "value": {"amount": "1.50", "currency": "CNY"},
                "product": "机床",
            },
            requests.DealCorrected(
                "cus_1",
                "dea_1",
                "corrected",
                words("reason"),
                "lost",
                Money(Decimal("1.50"), "CNY"),
                "机床",
            ),
        ),
        (
            commands.VoidDeal,
            {"deal": "dea_1", "reason": text},
            requests.DealVoided("cus_1", "dea_1", "voided", words("reason")),
        ),
        (
            commands.UnparkRequest,
            {"request": 7, "decider": 2},
            requests.RequestUnparked("cus_1", 7, 2),
        ),
    ]
    for kind, fields, expected in pairs:
        command: Any = parse(kind, {"customer": "cus_1", **fields})
        assert build(command) == Built((expected,), "cus_1")


def test_no_secret_stands_in_what_is_written() -> None:
    person = facts_in.AddPerson(name="王芳", phone="13800138000", email="wang@example.com")
    fact, _ = build_fact(person, Ids("seed"), Sealer().seal, FactContext(0, {}))
    command = parse(commands.RegisterCustomer, {"name": "恒信", **CARD})
    note = commands.LogFollowUp(
        customer="cus_1", person="per_1", note="客户要报价单", agreed="下周演示"
    )
    written = repr(
        [catalogue().dump(each) for each in (fact, only(build(command)), only(build(note)))]
    )
    assert [secret for secret in SECRETS if secret in written] == []


# --- facts --------------------------------------------------------------------------------------


def built_fact(kind: type[commands.Command], **fields: Any) -> tuple[Any, str | None]:
    command: Any = parse(kind, fields)
    context = FactContext(4, {"holding_limit": None})
    return build_fact(command, Ids("seed"), Sealer().seal, context)


def test_facts_mirror_their_commands() -> None:
    day, later = date(2026, 3, 2), date(2026, 3, 9)
    territory, person = derived_id("ter", "seed", ""), derived_id("per", "seed", "")
    policy = Policy(holding_limit=7)
    assert built_fact(facts_in.FoundOrganisation, name="公司", time_zone="Asia/Shanghai") == (
        facts.OrganisationFounded("公司", "Asia/Shanghai"),
        None,
    )
    assert built_fact(
        facts_in.DefineTerritory, name="华东", parent="ter_9", head="per_1", managers=["per_2"]
    ) == (facts.TerritoryDefined(territory, "华东", "ter_9", "per_1", ("per_2",)), territory)
    assert built_fact(facts_in.DefineTerritory, territory="ter_2", name="华东")[1] == "ter_2"
    assert built_fact(facts_in.AddPerson, name="王芳", territory="ter_1", joined_on=day) == (
        facts.PersonJoined(person, sealed(person, "name", "王芳"), "ter_1", ("rep",), day),
        person,
    )
    assert built_fact(
        facts_in.ChangePerson, person="per_1", territory=None, roles=["admin"], name="王方"
    ) == (
        facts.PersonChanged("per_1", None, ("admin",), sealed("per_1", "name", "王方")),
        "per_1",
    )
    assert built_fact(facts_in.ChangePerson, person="per_1", territory="ter_1", roles=[]) == (
        facts.PersonChanged("per_1", "ter_1", ()),
        "per_1",
    )
    assert built_fact(facts_in.MarkLeft, person="per_1", left_on=day) == (
        facts.PersonLeft("per_1", day),
        "per_1",
    )
    assert built_fact(facts_in.MarkReturned, person="per_1", returned_on=day) == (
        facts.PersonReturned("per_1", day),
        "per_1",
    )
    period: dict[str, Any] = {"person": "per_1", "from_day": day, "until_day": later}
    assert built_fact(facts_in.MarkAway, **period) == (
        facts.PersonAway("per_1", day, later),
        "per_1",
    )
    assert built_fact(facts_in.NameDelegate, delegate="per_2", **period) == (
        facts.DelegateNamed("per_1", "per_2", day, later),
        "per_1",
    )
    assert built_fact(facts_in.EndAbsence, person="per_1", back_on=day) == (
        facts.AbsenceEnded("per_1", day),
        "per_1",
    )
    assert built_fact(facts_in.EndDelegation, person="per_1", ended_on=day) == (
        facts.DelegationEnded("per_1", day),
        "per_1",
    )
    assert built_fact(facts_in.AdoptPolicy, policy=policy.as_rules(), comment="新财年") == (
        facts.PolicyAdopted(5, policy.as_rules(), "新财年"),
        "5",
    )
    assert built_fact(facts_in.AdoptDecider, version=1) == (facts.DeciderAdopted(1), None)
    import_id = derived_id("imp", "seed", "")
    opening = {"name": "crm", "time_zone": "Asia/Shanghai"}
    assert built_fact(facts_in.OpenImport, **opening) == (
        facts.ImportOpened(import_id, "crm", "Asia/Shanghai", {"holding_limit": None}),
        import_id,
    )
    with_policy, about = built_fact(
        facts_in.OpenImport, import_id="imp_7", policy=policy.as_rules(), **opening
    )
    assert (with_policy.rules, about) == (policy.as_rules(), "imp_7")
    assert built_fact(facts_in.CloseImport, import_id="imp_7") == (
        facts.ImportClosed("imp_7"),
        "imp_7",
    )


def test_a_command_that_is_built_elsewhere_is_a_defect() -> None:
    deal = commands.RecordDeal(customer="cus_1", person="per_1", outcome="won")
    with pytest.raises(AssertionError, match="built elsewhere"):
        building._simple(deal, Sealer().seal)
