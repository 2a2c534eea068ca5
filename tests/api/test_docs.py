"""The pages made from the code are up to date."""

from __future__ import annotations

from pathlib import Path

from api.docs import events_page
from ledger.events.catalogue import catalogue

DOCS = Path(__file__).parents[2] / "docs"


def test_the_event_catalogue_is_what_the_code_says() -> None:
    written = (DOCS / "events.md").read_text(encoding="utf-8")
    assert written == events_page(catalogue()), "run make docs"
