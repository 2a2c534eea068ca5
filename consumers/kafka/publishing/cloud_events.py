"""Messages as CloudEvents 1.0 in Kafka's binary binding. Pure.

Of the binding there is what stands here: an attribute is a header ``ce_<name>``, the data are the
value. The package ``cloudevents`` (2.2) would bring ``python-dateutil`` and ``deprecation`` with it
for that, says that things will break with every update, and builds an event and checks it to give
the same eight headers.
"""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from consumers.kafka.publishing.messages import Current, Told
from consumers.kafka.records import Encoded
from ledger.canonical import canonical_bytes, instant

CONTENT_TYPE = "application/json"
TOPIC_ID = "topic_id"
"""A header of our own: the id that Kafka gave the topic for which this was sent. One that was made
anew has another, and begins again at its offset 0."""


class Sent(NamedTuple):
    """To which topic something is sent, and by which name the ledger is known there."""

    topic_id: UUID
    source: str


def source_of(topic_prefix: str) -> str:
    """Return the URI that names a ledger to its subscribers: its topics' prefix does."""
    return f"urn:guishu:{topic_prefix}"


def encode(message: Told | Current, generation: int, to: Sent) -> Encoded:
    """Return a message as it is sent; the same each time.

    Its id is that of the event in the log: the generation too, for behind a lost tail the same
    position is given to another event.
    """
    at = message.since if isinstance(message, Current) else message.effective
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{generation}-{message.position}",
        "ce_source": to.source,
        "ce_type": message.type,
        "ce_time": instant(at),
        "ce_subject": message.customer.id,
        "content-type": CONTENT_TYPE,
        TOPIC_ID: str(to.topic_id),
    }
    return Encoded(
        message.customer.id.encode(),
        canonical_bytes(message.model_dump(mode="json")),
        [(name, value.encode()) for name, value in headers.items()],
    )
