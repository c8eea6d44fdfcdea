"""The JSON Schemas are what the code says, and are called what events call them."""

from __future__ import annotations

import json

import pytest

from layerscope.events.cloudevent import schema_id
from layerscope.schemas.__main__ import FOLDER, documents
from layerscope.schemas.events import declared_events, schema_name


def test_what_is_written_is_what_the_code_says() -> None:
    written = {str(path.relative_to(FOLDER)): json.loads(path.read_text()) for path in FOLDER.rglob("*.json")}
    assert written == json.loads(json.dumps(documents()))


@pytest.mark.slow
def test_an_events_dataschema_names_its_schema() -> None:
    for data in declared_events():
        assert documents()[f"events/{schema_name(data)}.json"]["$id"] == schema_id(data)
