"""The pages made from the code are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.docs import pages

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["events.md", "asyncapi.json"])
def test_a_page_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run make docs"
