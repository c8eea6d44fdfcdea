"""Definitions of custom resources become schemas in which an unknown field is an error."""

from __future__ import annotations

from layerscope.deployment.custom_resources import json_schemas

DEFINITION = """
apiVersion: v1
kind: ConfigMap
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
spec:
  group: sources.example.com
  names: {kind: PingSource}
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              properties:
                port: {x-kubernetes-int-or-string: true, type: string}
                limits: {type: object, additionalProperties: {type: object, properties: {a: {type: string}}}}
                open: {type: object, properties: {a: {type: string}}, x-kubernetes-preserve-unknown-fields: true}
                list: {type: array, items: {type: object, properties: {b: {type: string}}}}
                operator: {type: string, enum: [=, in]}
    - name: v1beta1
      schema: {openAPIV3Schema: {type: object}}
"""


def test_every_version_has_a_file_and_closed_objects() -> None:
    schemas = json_schemas(DEFINITION)
    assert sorted(schemas) == ["pingsource-sources.example.com-v1.json", "pingsource-sources.example.com-v1beta1.json"]
    resource = schemas["pingsource-sources.example.com-v1.json"]
    assert sorted(resource["properties"]) == ["apiVersion", "kind", "metadata", "spec"]
    assert resource["additionalProperties"] is False
    spec = resource["properties"]["spec"]
    assert spec["additionalProperties"] is False
    fields = spec["properties"]
    assert fields["port"]["oneOf"] == [{"type": "integer"}, {"type": "string"}]
    assert "type" not in fields["port"]
    assert fields["list"]["items"]["additionalProperties"] is False
    assert fields["limits"]["additionalProperties"]["additionalProperties"] is False
    assert "additionalProperties" not in fields["open"]
    assert fields["operator"]["enum"] == ["=", "in"]
