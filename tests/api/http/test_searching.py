"""What may be found by whom: nobody feels out what they may not see."""

from __future__ import annotations

import pytest

from tests.api.http.office import CRM, EAST, Office, read

ID, PHONE = "440101199001011234", "13800138000"


@pytest.fixture
def customers(office: Office) -> tuple[str, str]:
    """An individual and an organisation of the east, both per_a's."""
    number = [{"system": "id", "value": ID}]
    one = office.customer("张小三", kind="individual", identifiers=number, territory=EAST)
    contacts = [{"name": "李雷", "phone": f"+86 {PHONE}"}]
    other = office.customer("华星电子", contacts=contacts, territory=EAST)
    for each in (one, other):
        office.post("per_a", "/v1/claims", {"customer": each})
    return one, other


def found(office: Office, who: str, text: str) -> list[str]:
    page = read(office, who, f"/v1/customers?text={text}&limit=1")
    items = [each["customer"] for each in page["items"]]
    assert page["next"] is None
    return items


def test_who_does_not_see_it_finds_nothing_by_a_part_of_what_is_personal(
    office: Office, customers: tuple[str, str]
) -> None:
    """Digit by digit a search told the phone, the identifier and the name that were masked."""
    one, other = customers
    for who in ("per_w", "per_west", "per_auditor", CRM):
        for part in (ID[:8], ID[:-1], "张小", PHONE[-4:], PHONE[-8:]):
            assert found(office, who, part) == [], (who, part)
        # Whoever knows it must be told whose the customer is before the call.
        assert found(office, who, ID) == found(office, who, "张小三") == [one]
        assert found(office, who, PHONE) == [other]
        # Of an organisation name and number are no secret.
        assert found(office, who, "华星") == [other]
    for who in ("per_a", "per_admin"):
        assert found(office, who, ID[:8]) == found(office, who, "张小") == [one]
        assert found(office, who, PHONE[-4:]) == [other]
