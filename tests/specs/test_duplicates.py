"""A customer that is entered twice: what is asked of the second is decided on the first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ledger import reasons
from ledger.customer import Admitted, Refused
from ledger.deciders import decider
from ledger.events import decisions as d
from ledger.events import requests as r
from ledger.events.values import Contact, Identifier
from ledger.settled import NotLoadedError, Settled
from tests.specs.story import START, Story
from tests.specs.test_ownership import claim, company, opened, refused, register

NUMBER = (Identifier("uscc", "91350100M000100Y43"),)
OTHER_NUMBER = (Identifier("uscc", "91110000802100433B"),)


def entered_twice(story: Story | None = None, **how: Any) -> Story:
    """``cus_1`` was entered first, and ``cus_2`` is refused because of it."""
    story = (story or company()).when(register(identifiers=NUMBER), **how)
    story.when(register("cus_2", identifiers=NUMBER), **how)
    return story.then(d.RegistrationRefused("cus_2", reasons.IDENTIFIER_TAKEN, "cus_1", "uscc"))


def test_acts_at_a_duplicate_are_acts_at_the_existing_customer() -> None:
    story = entered_twice()
    story.when(r.AssignmentRequested("cus_2", "per_a"), by="per_head")
    story.then(
        d.OwnershipAssigned(
            "cus_1", "per_a", "per_head", "ter_east", "ter_east", START + timedelta(days=30)
        )
    )
    story.when(r.FollowUpLogged("cus_2", "fol_1", "per_a", "call"), by="per_a")
    story.then(d.Noted("cus_1", None, "per_a"))
    story.when(r.DealRecorded("cus_2", "dea_1", "per_b", "won"), by="per_b")
    story.then(d.Noted("cus_1", reasons.DEAL_BY_NON_OWNER, "per_a"))
    # Whoever knows the act by the other of its two customers may correct it as well.
    story.when(r.DealVoided("cus_1", "dea_1", "double"), by="per_b").then(d.Noted("cus_1"))
    story.when(r.FollowUpVoided("cus_2", "fol_1", "double"), by="per_a").then(d.Noted("cus_1"))
    story.when(r.ReleaseRequested("cus_2", "done"), by="per_a")
    story.then(d.OwnershipReleased("cus_1", "per_a", "done", "ter_east"))


def test_a_change_of_a_duplicate_changes_the_existing_customer() -> None:
    story = entered_twice()
    story.when(r.CustomerChangeRequested("cus_2", identifiers=OTHER_NUMBER))
    story.then(d.CustomerChanged("cus_1", "ter_east"))
    assert story.settled.identifiers == {
        ("uscc", NUMBER[0].key): None,
        ("uscc", OTHER_NUMBER[0].key): "cus_1",
    }


def test_a_duplicate_entered_again_still_leads_to_the_existing_customer() -> None:
    """The second refusal made the customer forget which one exists, and claims led nowhere.

    Found by registering a refused customer again, as another import of the same rows does.
    """
    story = entered_twice()
    story.when(register("cus_2", identifiers=NUMBER))
    story.then(d.RegistrationRefused("cus_2", reasons.ALREADY_REGISTERED))
    assert story.settled.customers["cus_2"] == Refused("cus_1", START)
    story.when(claim("per_a", "cus_2"))
    assert isinstance(story.decided, d.OwnershipGranted)
    assert story.decided.customer == "cus_1"


def test_a_registration_is_decided_on_the_customer_that_it_names() -> None:
    """A second registration of a duplicate was timed and guarded by the existing customer.

    So its effective time could lie before that of the decision in front of it.
    """
    story = opened()
    early, late = START - timedelta(days=90), START - timedelta(days=80)
    story.when(register(identifiers=NUMBER), on=early, under="imp_1")
    story.when(register("cus_2", identifiers=NUMBER), on=late, under="imp_1")
    between = early + timedelta(days=1)
    story.when(register("cus_2", identifiers=NUMBER), on=between, under="imp_1")
    assert story.draft is not None
    assert story.effective == late
    assert story.draft.guards == {"ownership": 1}
    assert story.settled.customers["cus_2"] == Refused("cus_1", late)


def test_a_parent_that_was_entered_twice_is_the_existing_customer() -> None:
    """Subsidiaries of a group whose root was in the ledger already were refused with all claims.

    An import names the parent by its own row; that row being a duplicate is no reason to refuse.
    """
    story = entered_twice().when(register("cus_3", parent="cus_2"))
    story.then(d.CustomerAdmitted("cus_3", "organisation", START, "ter_east", "cus_1"))
    subsidiary = story.settled.customers["cus_3"]
    assert isinstance(subsidiary, Admitted)
    assert subsidiary.parent == "cus_1"


def test_a_parent_is_changed_to_the_customer_that_exists_as_well() -> None:
    """The change said nothing of the parent, and everybody else showed the duplicate that it named.

    So what was decided on, and what people saw, were two groups.
    """
    story = entered_twice().when(register("cus_3"))
    story.when(r.CustomerChangeRequested("cus_3", parent="cus_2"))
    story.then(d.CustomerChanged("cus_3", "ter_east", "cus_1"))
    subsidiary = story.settled.customers["cus_3"]
    assert isinstance(subsidiary, Admitted)
    assert subsidiary.parent == "cus_1"


def test_a_follow_up_at_a_duplicate_names_a_contact_of_the_existing_customer() -> None:
    story = company().when(register(identifiers=NUMBER, contacts=(Contact("con_1"),)))
    story.when(register("cus_2", identifiers=NUMBER, contacts=(Contact("con_2"),)))
    story.when(claim("per_a"))
    story.when(r.FollowUpLogged("cus_2", "fol_1", "per_a", "call", contact="con_1"))
    story.then(d.Noted("cus_1", None, "per_a"))
    # The registration was refused with all that it said.
    story.when(r.FollowUpLogged("cus_2", "fol_2", "per_a", "call", contact="con_2"))
    story.then(d.Noted("cus_1", reasons.CONTACT_UNKNOWN, "per_a"))
    story.when(r.CustomerChangeRequested("cus_2", contacts=(Contact("con_3"),)))
    story.when(r.FollowUpLogged("cus_1", "fol_3", "per_a", "call", contact="con_3"))
    story.then(d.Noted("cus_1", None, "per_a"))


def test_a_duplicate_cannot_close_a_circle_in_a_group() -> None:
    story = entered_twice()
    refused(
        story.when(r.CustomerChangeRequested("cus_1", parent="cus_2")),
        reasons.GROUP_CYCLE,
        fields=("parent",),
    )
    story.when(register("cus_3", parent="cus_2"))
    refused(
        story.when(r.CustomerChangeRequested("cus_2", parent="cus_3")),
        reasons.GROUP_CYCLE,
        customer="cus_1",
    )


def test_the_parent_of_a_customer_that_was_never_admitted_is_unknown() -> None:
    story = company().when(register("cus_2", parent="cus_none"))
    refused(story, reasons.PARENT_UNKNOWN)
    refused(story.when(register("cus_3", parent="cus_2")), reasons.PARENT_UNKNOWN)
    refused(story.when(register("cus_2")), reasons.ALREADY_REGISTERED)
    refused(story.when(claim("per_a", "cus_2")), reasons.CUSTOMER_NOT_ADMITTED)


@pytest.mark.parametrize("named", ["cus_1", "cus_2"])
def test_an_identifier_that_is_given_up_must_be_locked_as_well(named: str) -> None:
    """No decider looks up the identifier that a customer had before, so it was written unlocked.

    Where the request names a duplicate, nobody could have guessed that it would be touched.
    """
    story = entered_twice()
    change = r.CustomerChangeRequested(named, identifiers=OTHER_NUMBER)
    request = story._event(f"customer-{named}", change)
    organisation = story.organisation.latest
    partial = Settled(
        customers=dict(story.settled.customers),
        versions=dict(story.settled.versions),
        identifiers={("uscc", OTHER_NUMBER[0].key): None},
    )
    draft = decider(1)(partial, request, organisation)
    with pytest.raises(NotLoadedError) as missing:
        partial.apply(request, draft.data, draft.effective, organisation)
    assert missing.value.key == ("identifier", "uscc", NUMBER[0].key)
