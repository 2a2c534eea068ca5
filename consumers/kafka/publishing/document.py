"""The AsyncAPI 3 document of the public topics, made from the models of what is told."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from consumers.kafka.publishing.cloud_events import CONTENT_TYPE, TOPIC_ID
from consumers.kafka.publishing.messages import Current, Told
from consumers.kafka.publishing.telling import PUBLIC
from consumers.kafka.topics import CURRENT, OWNERSHIP, Topic

_PREFIX = "guishu"
_ABOUT = (
    "What guishu tells subscribers: every public decision, and who owns each customer now. The key"
    " of a record is the id of the customer, and all about one customer stands in one partition, in"
    " the order of the log. A record may come again, in the same words: it has the same ce_id."
    " Fields may be added to a type; what else would change comes under a type of another number."
    " Topics are named for the prefix guishu, which a ledger may have otherwise."
)
_TEXT = {"type": "string"}


def asyncapi() -> dict[str, Any]:
    """Return the document as JSON-ready mapping."""
    told: list[type[Told] | type[Current]] = [*PUBLIC.values(), Current]
    _, schemas = models_json_schema(
        [(each, "serialization") for each in told],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "guishu: who owns which customer",
            "version": "1.0.0",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {
            "decisions": _channel(OWNERSHIP, PUBLIC.values()),
            "current": _channel(CURRENT, (Current,)),
        },
        "operations": {
            "tellDecisions": _sends("decisions", "Every public decision, in order."),
            "tellCurrent": _sends("current", "Who owns a customer, whenever that has changed."),
        },
        "components": {
            "messages": {each.__name__: _message(each) for each in told},
            "schemas": dict(sorted(schemas["$defs"].items())),
        },
    }


def _channel(topic: Topic, told: Iterable[type[BaseModel]]) -> dict[str, Any]:
    return {
        "address": topic.name(_PREFIX),
        "description": f"Holds {topic.holds}.",
        "messages": {
            each.__name__: {"$ref": f"#/components/messages/{each.__name__}"} for each in told
        },
        "bindings": {
            "kafka": {
                "topicConfiguration": {"cleanup.policy": [topic.settings["cleanup.policy"]]},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _sends(channel: str, summary: str) -> dict[str, Any]:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{channel}"},
        "summary": summary,
    }


def _message(told: type[Told] | type[Current]) -> dict[str, Any]:
    return {
        "name": told.type,
        "title": told.__name__,
        "summary": (inspect.getdoc(told) or "").partition("\n")[0],
        "contentType": CONTENT_TYPE,
        "headers": _headers(told.type),
        "payload": {"$ref": f"#/components/schemas/{told.__name__}"},
        "bindings": {
            "kafka": {
                "key": {**_TEXT, "description": "The id of the customer."},
                "bindingVersion": "0.5.0",
            }
        },
    }


def _headers(type_: str) -> dict[str, Any]:
    properties: dict[str, dict[str, Any]] = {
        "ce_specversion": {**_TEXT, "const": "1.0"},
        "ce_id": {
            **_TEXT,
            "pattern": "^[0-9]+-[0-9]+$",
            "description": "Generation of the log and position in it: the event's name.",
        },
        "ce_source": {**_TEXT, "format": "uri", "description": "The ledger."},
        "ce_type": {**_TEXT, "const": type_},
        "ce_time": {**_TEXT, "format": "date-time", "description": "When it held."},
        "ce_subject": {**_TEXT, "description": "The id of the customer."},
        "content-type": {**_TEXT, "const": CONTENT_TYPE},
        TOPIC_ID: {
            **_TEXT,
            "format": "uuid",
            "description": "The id that Kafka gave the topic. Where it is another than before, the"
            " topic was made anew: begin at offset 0 again.",
        },
    }
    return {"type": "object", "required": list(properties), "properties": properties}
