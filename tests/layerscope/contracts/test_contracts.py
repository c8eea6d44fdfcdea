"""The documents that others build on say what the code does, with examples that validate."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest

from layerscope.contracts.__main__ import FOLDER, documents
from layerscope.contracts.examples import EXAMPLES
from layerscope.schemas.events import declared_events


def test_every_event_has_an_example() -> None:
    assert set(EXAMPLES) == set(declared_events())


def test_what_is_written_is_what_the_code_says() -> None:
    for name, document in documents().items():
        assert json.loads((FOLDER / name).read_text()) == json.loads(json.dumps(document))


MESSAGES = documents()["asyncapi.json"]["components"]["messages"]


@pytest.mark.parametrize("name", [name for name, message in MESSAGES.items() if "examples" in message])
def test_examples_of_messages_validate(name: str) -> None:
    message = MESSAGES[name]
    (example,) = message["examples"]
    jsonschema_rs.validator_for(message["payload"]).validate(example["payload"])
    jsonschema_rs.validator_for(message["headers"]).validate(example["headers"])
    assert message["payload"]["$id"].endswith(f"{name}.json")


def test_every_reference_leads_somewhere() -> None:
    whole = documents()["asyncapi.json"]

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            inside = [one for key, part in value.items() if key != "payload" for one in references(part)]
            return [value["$ref"], *inside] if isinstance(value.get("$ref"), str) else inside
        return [one for part in value for one in references(part)] if isinstance(value, list) else []

    found = references(whole)
    assert len(found) > 20
    for one in found:
        place: object = whole
        for step in one.removeprefix("#/").split("/"):
            assert isinstance(place, dict)
            place = place[step]
