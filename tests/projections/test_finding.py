"""Finding many at once: that it stays a look-up, whatever the server knows of the tables."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.store.arrays import text_array
from projections import finding
from tests.projections.history import History
from tests.projections.models import Models

NAMES = text_array(["恒信", "锐思"])
FOLDED = {"folded": NAMES, "limit": finding.NAMESAKES_MAX}


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (finding._PEOPLE, FOLDED),
        (finding._CUSTOMERS, FOLDED),
        (finding._BY_IDENTIFIER, FOLDED),
        (finding._BY_FOREIGN_ID, {**FOLDED, "system": "crm"}),
        (finding._BY_ID, (NAMES,)),
        (finding._IDENTIFIERS, (NAMES,)),
        (finding._FOREIGN_IDS, (NAMES, "crm")),
    ],
)
def test_tables_that_were_never_analysed_are_not_read_as_a_whole(
    models: Models, statement: str, parameters: Any
) -> None:
    """Right after an import of 50,000 customers the next one took a second for each page of names:
    all customers were read for each of them, for the server had no statistics yet.
    """
    models.project(History())
    with finding.looking_up(models.connection):
        plan = models.connection.execute(b"EXPLAIN " + statement.encode(), parameters).fetchall()
    steps = "\n".join(step for (step,) in plan)
    assert "Index" in steps
    assert "Seq Scan" not in steps
    assert "Hash Join" not in steps
