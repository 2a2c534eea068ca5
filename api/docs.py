"""Writes docs/events.md and docs/asyncapi.json from the code that they are about."""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

from consumers.kafka.publishing.document import asyncapi
from ledger.events.catalogue import Catalogue, EventType, catalogue

_HEAD = """# The event catalogue

Made from the code by `make docs`; a test sees that it is up to date. Names and stored JSON are for
ever: a new shape is a new version of the name, and older ones stay readable.

Around `data` stands an envelope; `ledger/envelope.py` lists its keys. Fields that are None are left
out. Times are RFC 3339 UTC with six digits, money is `{"amount": "1054.00", "currency": "CNY"}`,
and a sealed text is `{"key": …, "text": …}`.
"""
_KINDS = (
    (
        "request",
        "Requests",
        "What was asked or done, in the stream `customer-<id>`; about all that a person holds, in"
        " `person-<id>`.",
    ),
    (
        "decision",
        "Decisions",
        "What follows, in the stream `ownership-<id>`; a hand-over's outcome in `person-<id>`.",
    ),
    ("fact", "Facts of the organisation", "Final at once, in the stream `organisation`."),
)


def events_page(events: Catalogue) -> str:
    """Return the page as Markdown."""
    parts = [_HEAD]
    for kind, title, words in _KINDS:
        parts.append(f"## {title}\n\n{words}\n")
        parts += [_event(each) for each in events.types if each.kind == kind]
    return "\n".join(parts)


def _event(event: EventType) -> str:
    described = inspect.getdoc(event.data_class) or ""
    hints = get_type_hints(event.data_class)
    rows = [f"| `{each.name}` | {_type(hints[each.name])} |" for each in fields(event.data_class)]
    return "\n".join(
        [f"### {event.name}\n", described, "", "| field | type |", "| --- | --- |", *rows, ""]
    )


def _type(hint: object) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    for prefix in ("ledger.events.values.", "ledger.conditions.", "datetime.", "typing."):
        text = text.replace(prefix, "")
    return text.replace("|", "\\|")


def pages() -> dict[str, str]:
    """Return what is to stand in docs/, by the names of the files."""
    document = json.dumps(asyncapi(), ensure_ascii=False, indent=2)
    return {"events.md": events_page(catalogue()), "asyncapi.json": f"{document}\n"}


if __name__ == "__main__":
    for name, text in pages().items():
        (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
