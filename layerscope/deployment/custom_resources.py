"""Definitions of custom resources, as the JSON Schemas that kubeconform reads; unknown fields are errors in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import yaml

KEEPS_UNKNOWN: Final = "x-kubernetes-preserve-unknown-fields"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"


class _Loader(yaml.SafeLoader):
    """Takes a lone `=` for text, as Kubernetes does."""


_Loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: str(node.value))


def json_schemas(text: str) -> dict[str, dict[str, Any]]:
    """Return a schema for each version of each definition, by its file name `<kind>-<group>-<version>.json`."""
    found = {}
    for document in yaml.load_all(text, _Loader):
        if document is None or document.get("kind") != "CustomResourceDefinition":
            continue
        spec = document["spec"]
        for version in spec["versions"]:
            name = f"{spec['names']['kind']}-{spec['group']}-{version['name']}.json".lower()
            found[name] = _of_resource(version.get("schema", {}).get("openAPIV3Schema", {}))
    return found


def _of_resource(schema: Mapping[str, Any]) -> dict[str, Any]:
    strict = _strict(schema)
    if "properties" in strict:  # what every resource has, whether its definition says so or not
        strict["properties"] = {"apiVersion": {}, "kind": {}, "metadata": {}} | strict["properties"]
    return strict


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: _inner(key, value) for key, value in schema.items()}
    if schema.get(INT_OR_STRING):
        made.pop("type", None)
        made["oneOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = KEEPS_UNKNOWN in schema or "additionalProperties" in schema
    if "properties" in schema and not open_ended:
        made["additionalProperties"] = False
    return made


def _inner(key: str, value: Any) -> Any:
    if key == "properties":
        return {name: _strict(one) for name, one in value.items()}
    if key in ("items", "additionalProperties") and isinstance(value, Mapping):
        return _strict(value)
    if key in ("allOf", "anyOf", "oneOf"):  # these only add to what stands beside them
        return [dict(one) for one in value]
    return value
