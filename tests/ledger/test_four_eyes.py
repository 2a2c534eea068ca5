"""Four eyes: what is guarded, who adopts, and what a proposal becomes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from ledger import four_eyes
from ledger import organisation_commands as facts_in
from ledger.commands import InvalidRequestError, UnknownIdError, parse
from ledger.events import organisation as facts
from ledger.events.values import Sealed
from ledger.four_eyes import FourEyesError, ProposalOutdatedError, ProposedError, is_guarded
from ledger.policy import Policy
from ledger.recording import NotPermittedError, RecordedFact
from ledger.verification import verify_log
from tests.ledger.test_organisation import organisation
from tests.ledger.test_verification import replaced, tampering
from tests.support.database import DatabaseUrls
from tests.support.ledgers import ADMINISTRATOR, TestLedger, open_test_ledger

NAME = Sealed("key_1", "AA==")
COMPANY = organisation(
    facts.TerritoryDefined("ter_all", "全国"),
    facts.TerritoryDefined("ter_1", "华东", "ter_all", "per_1", ("per_1", "per_2")),
    facts.PersonJoined("per_1", NAME, "ter_1", ("rep", "manager")),
).latest
POLICY = facts_in.AdoptPolicy(policy=Policy(holding_limit=7))
HOLIDAY = facts_in.StateCalendar(year=2026, holidays=(date(2026, 5, 1),))
BY_TWO = facts_in.RequireFourEyes(required=True)
BY_ONE = facts_in.RequireFourEyes(required=False)


def _territory(**fields: Any) -> facts_in.DefineTerritory:
    given: dict[str, Any] = {
        "territory": "ter_1",
        "name": "华东",
        "parent": "ter_all",
        "head": "per_1",
        "managers": ("per_2",),
    }
    return facts_in.DefineTerritory(**{**given, **fields})


def _person(*roles: Any, territory: str = "ter_1") -> facts_in.ChangePerson:
    return facts_in.ChangePerson(person="per_1", territory=territory, roles=roles)


@pytest.mark.parametrize(
    ("command", "guarded"),
    [
        (POLICY, True),
        (HOLIDAY, True),
        (facts_in.OpenImport(name="crm", time_zone="Asia/Shanghai"), True),
        (BY_ONE, True),
        (BY_TWO, False),
        (facts_in.AddPerson(name="王芳"), False),
        (facts_in.AddPerson(name="王芳", roles=("rep", "admin")), True),
        (_person("manager", "rep", territory="ter_all"), False),
        (_person("rep"), True),
        (_territory(name="东区"), False),
        (_territory(head="per_2"), True),
        (_territory(head=None), True),
        (_territory(managers=()), True),
        (_territory(parent=None), True),
        (facts_in.DefineTerritory(name="华北", parent="ter_all"), False),
        (facts_in.DefineTerritory(name="华北", head="per_1"), True),
        (facts_in.DefineTerritory(name="华北", managers=("per_1",)), True),
        (facts_in.MarkLeft(person="per_1", left_on=date(2026, 3, 2)), False),
        (facts_in.CloseImport(import_id="imp_1"), False),
    ],
)
def test_what_decides_over_others_is_guarded(
    command: facts_in.FactCommand, *, guarded: bool
) -> None:
    assert is_guarded(command, COMPANY) is guarded


@pytest.mark.parametrize(
    "command",
    [
        POLICY,
        HOLIDAY,
        BY_ONE,
        _territory(),
        facts_in.DefineTerritory(name="华北", parent="ter_all"),
        _person("rep"),
        facts_in.OpenImport(name="crm", time_zone="Asia/Shanghai", policy=Policy()),
    ],
)
def test_a_proposal_holds_all_that_its_command_says(command: facts_in.ProposedCommand) -> None:
    kind, fact = four_eyes.as_json(command)
    proposed = organisation(facts.FactProposed("pro_1", kind, fact)).latest.proposal("pro_1")
    assert proposed is not None
    assert four_eyes.command_of(proposed) == command


def test_a_proposed_import_tells_what_to_do_next() -> None:
    error = ProposedError("pro_1", "The import")
    assert str(error) == "The import is proposed as pro_1."
    assert "guishu adopt pro_1" in error.way_out


# --- through the door ---------------------------------------------------------------------------


@pytest.fixture
def ledger(database: DatabaseUrls) -> Iterator[TestLedger]:
    """Two administrators, who are required to act together, a manager and a rep."""
    with open_test_ledger(database) as opened:
        opened.found(["per_1", "per_2"])
        added: list[facts_in.FactCommand] = [
            facts_in.AddPerson(person="per_boss", name="李总", roles=("admin", "manager")),
            facts_in.AddPerson(person="per_manager", name="张经理", roles=("manager",)),
            BY_TWO,
        ]
        opened.recording.record_facts(added, opened.origin())
        yield opened


def _state(
    ledger: TestLedger, command: facts_in.FactCommand, actor: str = ADMINISTRATOR
) -> list[RecordedFact]:
    return ledger.recording.record_facts([command], ledger.origin(actor))


def _propose(
    ledger: TestLedger, command: facts_in.ProposedCommand, actor: str = ADMINISTRATOR
) -> str:
    (recorded,) = _state(ledger, facts_in.ProposeFact(fact=command), actor)
    assert recorded.about is not None
    return recorded.about


def _adopt(ledger: TestLedger, proposal: str, actor: str = "per_boss") -> list[RecordedFact]:
    return _state(ledger, facts_in.AdoptProposal(proposal=proposal), actor)


def _roles(person: str, *roles: Any) -> facts_in.ChangePerson:
    return facts_in.ChangePerson(person=person, territory="ter_1", roles=roles)


def test_a_policy_is_in_force_once_another_administrator_adopts_it(ledger: TestLedger) -> None:
    before = len(ledger.log())
    with pytest.raises(FourEyesError) as raised:
        _state(ledger, POLICY)
    assert raised.value.code == "four_eyes"
    assert len(ledger.log()) == before
    proposal = _propose(ledger, POLICY)
    assert ledger.recording.organisation().policy.number == 0
    with pytest.raises(FourEyesError, match="of their own"):
        _adopt(ledger, proposal, ADMINISTRATOR)
    adopted, policy = _adopt(ledger, proposal)
    now = ledger.recording.organisation()
    assert (now.policy.number, now.policy.policy.holding_limit) == (1, 7)
    log = ledger.log()
    assert log[adopted.position - 1].data == facts.ProposalAdopted(proposal, ADMINISTRATOR)
    assert (log[policy.position - 1].data, policy.about) == (
        facts.PolicyAdopted(1, POLICY.policy.as_rules()),
        "1",
    )
    found = now.proposal(proposal)
    assert found is not None
    assert (found.state, found.proposer, found.decided_by) == (
        "adopted",
        ADMINISTRATOR,
        "per_boss",
    )
    assert verify_log(ledger.connection, ledger.catalogue).good


def test_a_proposal_is_adopted_or_withdrawn_once(ledger: TestLedger) -> None:
    first, second = _propose(ledger, POLICY), _propose(ledger, POLICY)
    _adopt(ledger, first)
    _state(ledger, facts_in.WithdrawProposal(proposal=second))
    for proposal in (first, second, "pro_none"):
        with pytest.raises(UnknownIdError):
            _adopt(ledger, proposal)
        with pytest.raises(UnknownIdError):
            _state(ledger, facts_in.WithdrawProposal(proposal=proposal))
    states = [each.state for each in ledger.recording.organisation().proposals()]
    assert states == ["adopted", "withdrawn"]


def test_the_same_adoption_again_gets_the_first_answer(ledger: TestLedger) -> None:
    proposal = _propose(ledger, POLICY)
    origin = ledger.origin("per_boss")
    adopting = facts_in.AdoptProposal(proposal=proposal)
    first = ledger.recording.record_facts([adopting], origin)
    assert ledger.recording.record_facts([adopting], origin) == first
    assert ledger.recording.organisation().policy.number == 1


def test_what_could_not_be_stated_is_not_proposed(ledger: TestLedger) -> None:
    with pytest.raises(UnknownIdError):
        _propose(ledger, facts_in.DefineTerritory(name="华北", head="per_nobody"))
    with pytest.raises(UnknownIdError):
        _propose(ledger, _roles("per_nobody", "manager"))
    renamed = parse(
        facts_in.ChangePerson,
        {"person": "per_1", "territory": None, "roles": ["rep"], "name": "李娜"},
    )
    with pytest.raises(InvalidRequestError):
        parse(facts_in.ProposeFact, {"fact": renamed})


def test_what_has_changed_since_is_not_set_back(ledger: TestLedger) -> None:
    person = _propose(ledger, _roles("per_1", "rep", "manager"))
    head = facts_in.DefineTerritory(territory="ter_1", name="华东", head="per_1")
    territory = _propose(ledger, head)
    moved = facts_in.ChangePerson(person="per_1", territory=None, roles=("rep",))
    _state(ledger, moved)
    _state(ledger, facts_in.DefineTerritory(territory="ter_1", name="东区"))
    for proposal in (person, territory):
        with pytest.raises(ProposalOutdatedError):
            _adopt(ledger, proposal)
    back = facts_in.ChangePerson(person="per_1", territory="ter_1", roles=("rep",))
    _state(ledger, back)
    _adopt(ledger, person)
    found = ledger.recording.organisation().person("per_1")
    assert found is not None
    assert found.roles == {"rep", "manager"}


def test_a_policy_agreed_on_in_between_is_not_overwritten(ledger: TestLedger) -> None:
    """A policy proposed before another came into force overwrote what that one had brought."""
    first, second = _propose(ledger, POLICY), _propose(ledger, POLICY)
    _adopt(ledger, first)
    with pytest.raises(ProposalOutdatedError, match="has been changed") as raised:
        _adopt(ledger, second)
    assert (raised.value.code, "propose again" in raised.value.way_out) == (
        "proposal_outdated",
        True,
    )
    organisation = ledger.recording.organisation()
    overtaken = {
        each.proposal: four_eyes.is_overtaken(each, organisation)
        for each in organisation.proposals()
    }
    assert (organisation.policy.number, overtaken[second]) == (1, True)
    third = _propose(ledger, POLICY)
    _adopt(ledger, third)
    assert ledger.recording.organisation().policy.number == 2


def test_a_calendar_is_stated_by_two_and_not_set_back(ledger: TestLedger) -> None:
    """One person alone could state holidays, by which customers go to the pool or do not."""
    with pytest.raises(FourEyesError):
        _state(ledger, HOLIDAY)
    first, second = _propose(ledger, HOLIDAY), _propose(ledger, HOLIDAY)
    other = _propose(ledger, facts_in.StateCalendar(year=2025))
    _adopt(ledger, first)
    with pytest.raises(ProposalOutdatedError):
        _adopt(ledger, second)
    _adopt(ledger, other)
    stated = ledger.recording.organisation().working_days.years
    assert (stated[2026].holidays, stated[2025].holidays) == (HOLIDAY.holidays, ())


def test_a_rep_joins_by_one_and_gets_other_roles_by_two(ledger: TestLedger) -> None:
    with pytest.raises(FourEyesError):
        _state(ledger, facts_in.AddPerson(name="王芳", roles=("admin",)))
    _state(ledger, facts_in.AddPerson(person="per_3", name="王芳", territory="ter_1"))
    with pytest.raises(FourEyesError):
        _state(ledger, _roles("per_3", "admin"))


def test_who_may_adopt(ledger: TestLedger) -> None:
    proposal = _propose(ledger, POLICY)
    for actor in ("per_1", "per_manager", "per_nobody"):
        with pytest.raises(FourEyesError, match="Only another administrator"):
            _adopt(ledger, proposal, actor)
    with pytest.raises(NotPermittedError):
        _propose(ledger, POLICY, "per_manager")
    with pytest.raises(NotPermittedError):
        _state(ledger, facts_in.WithdrawProposal(proposal=proposal), "per_1")


def test_a_manager_adopts_where_one_administrator_is_left(ledger: TestLedger) -> None:
    """Else nobody could ever make a second one again, where the other one has left."""
    _state(ledger, facts_in.MarkLeft(person="per_boss", left_on=date(2026, 1, 1)))
    proposal = _propose(ledger, _roles("per_1", "admin"))
    for actor in (ADMINISTRATOR, "per_boss", "per_2"):
        with pytest.raises(FourEyesError):
            _adopt(ledger, proposal, actor)
    _adopt(ledger, proposal, "per_manager")
    _adopt(ledger, _propose(ledger, POLICY), "per_1")
    with pytest.raises(FourEyesError):
        _adopt(ledger, _propose(ledger, POLICY), "per_manager")


def test_it_takes_two_to_go_back_to_one(ledger: TestLedger) -> None:
    with pytest.raises(FourEyesError):
        _state(ledger, BY_ONE)
    _adopt(ledger, _propose(ledger, BY_ONE))
    _state(ledger, POLICY)
    assert ledger.recording.organisation().policy.number == 1


# --- the audit ----------------------------------------------------------------------------------

ALONE: list[facts_in.FactCommand] = [
    POLICY,
    BY_ONE,
    facts_in.AddPerson(name="王芳", roles=("admin",)),
    _roles("per_1", "admin"),
    facts_in.DefineTerritory(territory="ter_1", name="华东", head="per_1"),
    facts_in.DefineTerritory(name="华北", head="per_1"),
    facts_in.OpenImport(name="crm", time_zone="Asia/Shanghai"),
]
ADOPTED: list[facts_in.ProposedCommand] = [
    POLICY,
    BY_ONE,
    _roles("per_1", "admin"),
    facts_in.DefineTerritory(territory="ter_1", name="华东", head="per_1"),
    facts_in.DefineTerritory(name="华北", head="per_1"),
    facts_in.OpenImport(name="crm", time_zone="Asia/Shanghai"),
    facts_in.OpenImport(name="crm", time_zone="Asia/Shanghai", policy=Policy(holding_limit=9)),
]


def _differs(ledger: TestLedger) -> tuple[int, str]:
    failure = verify_log(ledger.connection, ledger.catalogue).failure
    assert failure is not None
    return failure.position, failure.check


@pytest.mark.parametrize("command", ALONE)
def test_the_audit_names_what_one_person_alone_has_put_in_force(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch, command: facts_in.FactCommand
) -> None:
    """It looked at no fact: whoever came round the door was found by nobody."""
    monkeypatch.setattr(four_eyes, "check", lambda *_: None)
    (recorded,) = _state(ledger, command)
    assert _differs(ledger) == (recorded.position, "four_eyes")


@pytest.mark.parametrize("command", ADOPTED)
def test_the_audit_finds_nothing_in_what_two_people_have(
    ledger: TestLedger, command: facts_in.ProposedCommand
) -> None:
    _adopt(ledger, _propose(ledger, command))
    _state(ledger, facts_in.MarkLeft(person="per_2", left_on=date(2026, 1, 1)))
    _state(ledger, facts_in.AddPerson(name="王芳", territory="ter_1"))
    assert verify_log(ledger.connection, ledger.catalogue).good


def test_the_audit_names_a_proposer_who_adopts(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(four_eyes, "check", lambda *_: None)
    adopted, _ = _adopt(ledger, _propose(ledger, POLICY), ADMINISTRATOR)
    assert _differs(ledger) == (adopted.position, "four_eyes")


def test_the_audit_names_what_was_adopted_twice(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = _propose(ledger, POLICY)
    _adopt(ledger, proposal)
    monkeypatch.setattr(four_eyes, "check", lambda *_: None)
    adopted, _ = _adopt(ledger, proposal)
    assert _differs(ledger) == (adopted.position, "four_eyes")


def test_the_audit_names_an_adoption_without_what_it_adopts(
    ledger: TestLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = _propose(ledger, POLICY)
    monkeypatch.setattr(four_eyes, "expanded", lambda stated, _: ((each, 0) for each in stated))
    (adopted,) = _adopt(ledger, proposal)
    assert _differs(ledger) == (adopted.position, "four_eyes")
    ledger.register("苏州恒信电子有限公司")
    assert _differs(ledger) == (adopted.position + 1, "four_eyes")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("ProposalAdopted.v1", '"proposer":"per_admin"', '"proposer":"per_1"'),
        ("PolicyAdopted.v1", '"holding_limit":7', '"holding_limit":8'),
        ("FactProposed.v1", '"holding_limit":7', '"holding_limit":8'),
        ("FactProposed.v1", '"holding_limit":7', '"holding_limit":-8'),
        ("FactProposed.v1", '"kind":"policy"', '"kind":"import"'),
    ],
)
def test_the_audit_names_what_is_not_what_was_proposed(
    ledger: TestLedger, name: str, old: str, new: str
) -> None:
    """A policy was rewritten together with its hash, and by nothing that was decided yet."""
    adopted, policy = _adopt(ledger, _propose(ledger, POLICY))
    with tampering(ledger) as tampered:
        tampered.rewrite(replaced(old, new), tampered.position(name))
        differs = adopted if name == "ProposalAdopted.v1" else policy
        assert tampered.found() == (differs.position, "four_eyes")


def test_it_takes_two_administrators_to_begin(database: DatabaseUrls) -> None:
    with open_test_ledger(database) as ledger:
        ledger.found(["per_1"])
        assert not ledger.recording.organisation().four_eyes
        with pytest.raises(InvalidRequestError, match="two administrators"):
            _state(ledger, BY_TWO)
        # Together with the second one it holds.
        both: list[facts_in.FactCommand] = [
            facts_in.AddPerson(name="李总", roles=("admin",)),
            BY_TWO,
        ]
        ledger.recording.record_facts(both, ledger.origin())
        assert ledger.recording.organisation().four_eyes
