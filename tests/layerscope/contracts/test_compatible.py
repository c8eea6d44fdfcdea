"""A change that breaks who built on the last release is told; one that breaks nobody is not."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from layerscope.contracts.__main__ import NAMES, RELEASED, documents
from layerscope.contracts.compatible import breaking
from layerscope.contracts.decided import DECIDED

OLD: dict[str, Any] = {
    "asyncapi.json": {
        "channels": {"events": {"address": "layerscope.events"}},
        "components": {
            "messages": {
                "told.v1": {
                    "headers": {"properties": {"ce_id": {"type": "string"}}, "required": ["ce_id"]},
                    "payload": {
                        "$defs": {"State": {"enum": ["a", "b"], "type": "string"}},
                        "properties": {
                            "state": {"$ref": "#/$defs/State"},
                            "size": {"type": "integer"},
                            "rows": {
                                "type": "array",
                                "items": {"properties": {"x": {"type": "number"}}, "type": "object"},
                            },
                        },
                        "required": ["state"],
                        "type": "object",
                    },
                }
            }
        },
    },
    "openapi.json": {
        "components": {"schemas": {"Listed": {"type": "object", "properties": {"n": {"type": "integer"}}}}},
        "paths": {
            "/models": {
                "get": {
                    "parameters": [
                        {
                            "name": "limit",
                            "required": False,
                            "schema": {"type": "integer", "minimum": 1, "maximum": 100},
                        },
                        {"name": "name", "schema": {"type": "string", "pattern": "^[a-c]{1,4}$"}},
                        {
                            "name": "state",
                            "required": False,
                            "schema": {"anyOf": [{"enum": ["a", "b"], "type": "string"}]},
                        },
                    ],
                    "responses": {
                        "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Listed"}}}}
                    },
                }
            }
        },
    },
}
Change = Callable[[Any], Any]


def payload(new: Any) -> Any:
    return new["asyncapi.json"]["components"]["messages"]["told.v1"]["payload"]


def operation(new: Any) -> Any:
    return new["openapi.json"]["paths"]["/models"]["get"]


def parameter(new: Any, name: str) -> Any:
    return next(one for one in operation(new)["parameters"] if one["name"] == name)["schema"]


BREAKING: dict[str, tuple[Change, str]] = {
    "an event goes": (lambda new: new["asyncapi.json"]["components"]["messages"].clear(), "event told.v1 is gone"),
    "a topic is renamed": (lambda new: new["asyncapi.json"]["channels"]["events"].update(address="x"), "the topic was"),
    "a field goes": (lambda new: payload(new)["properties"].pop("size"), "size is gone"),
    "a field may be missing": (lambda new: payload(new).update(required=[]), "state may now be left out"),
    "a header may be missing": (
        lambda new: new["asyncapi.json"]["components"]["messages"]["told.v1"]["headers"].pop("required"),
        "ce_id may now be left out",
    ),
    "a type changes": (lambda new: payload(new)["properties"]["size"].update(type="string"), "may now be string"),
    "a value may be null": (
        lambda new: payload(new)["properties"].update(size={"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        "may now be null",
    ),
    "a value is new": (lambda new: payload(new)["$defs"]["State"]["enum"].append("c"), "other values: c"),
    "a value is any": (lambda new: payload(new)["$defs"]["State"].pop("enum"), "other values: any"),
    "a field within a list goes": (
        lambda new: payload(new)["properties"]["rows"]["items"]["properties"].clear(),
        "x is gone",
    ),
    "a path goes": (lambda new: new["openapi.json"]["paths"].clear(), "GET /models is gone"),
    "an answer's field goes": (
        lambda new: new["openapi.json"]["components"]["schemas"]["Listed"]["properties"].clear(),
        "n is gone",
    ),
    "a parameter goes": (lambda new: operation(new)["parameters"].pop(), "the parameter state is gone"),
    "a parameter becomes necessary": (
        lambda new: operation(new)["parameters"][0].update(required=True),
        "limit has become necessary",
    ),
    "a new one is necessary": (
        lambda new: operation(new)["parameters"].append({"name": "x", "required": True, "schema": {}}),
        "x has become necessary",
    ),
    "a parameter takes less": (lambda new: parameter(new, "limit").update(maximum=50), "maximum 50"),
    "a parameter takes no small ones": (lambda new: parameter(new, "limit").update(minimum=2), "minimum 2"),
    "a parameter's value goes": (lambda new: parameter(new, "state")["anyOf"][0]["enum"].remove("b"), "no b"),
    "a parameter has another type": (lambda new: parameter(new, "limit").update(type="string"), "no integer"),
    "a parameter has a pattern": (lambda new: parameter(new, "limit").update(pattern="^1"), "only ^1"),
    "a pattern takes fewer letters": (lambda new: parameter(new, "name").update(pattern="^[ab]{1,4}$"), "only ^[ab]"),
    "a pattern takes shorter ones": (lambda new: parameter(new, "name").update(pattern="^[a-d]{1,3}$"), "only ^[a-d]"),
}
HARMLESS: dict[str, Change] = {
    "nothing": lambda new: None,
    "a field more": lambda new: payload(new)["properties"].update(more={"type": "string"}),
    "a field is always there": lambda new: payload(new).update(required=["state", "size"]),
    "a value less": lambda new: payload(new)["$defs"]["State"]["enum"].remove("b"),
    "an event more": lambda new: new["asyncapi.json"]["components"]["messages"].update(new={"payload": {}}),
    "a path more": lambda new: new["openapi.json"]["paths"].update({"/more": {"get": {}}}),
    "a parameter more": lambda new: operation(new)["parameters"].append({"name": "x", "schema": {}}),
    "a parameter takes more": lambda new: parameter(new, "limit").update(maximum=1000),
    "a pattern takes more letters": lambda new: parameter(new, "name").update(pattern="^[a-d=]{1,4}$"),
    "a parameter's value more": lambda new: parameter(new, "state")["anyOf"][0]["enum"].append("c"),
    "other words": lambda new: payload(new).update(description="in other words"),
}


@pytest.mark.parametrize("name", BREAKING)
def test_what_breaks_somebody_is_told_where(name: str) -> None:
    change, told = BREAKING[name]
    new = copy.deepcopy(OLD)
    change(new)
    (line,) = breaking(OLD, new)
    assert told in line


@pytest.mark.parametrize("name", HARMLESS)
def test_what_breaks_nobody_is_not_told(name: str) -> None:
    new = copy.deepcopy(OLD)
    HARMLESS[name](new)
    assert breaking(OLD, new) == []


def test_the_documents_break_nobody_who_built_on_the_last_release_but_where_it_was_decided() -> None:
    released = {name: json.loads((RELEASED / name).read_text()) for name in NAMES}
    assert breaking(released, documents()) == list(DECIDED)
