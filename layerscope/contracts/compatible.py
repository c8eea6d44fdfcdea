"""What a new version of the documents would break for those who built on an older one.

Who reads events and answers relies on what is there, and on the values it may have; who asks relies on what may be left
out, and on what is taken. What is added on the first side, or allowed on the second, breaks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]
LOWER: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_CLASS: Final = re.compile(r"\[([^\]]*)\]")
UPPER: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def breaking(old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each change that breaks somebody, of the documents by file name."""
    return [
        *_messages(old["asyncapi.json"], new["asyncapi.json"]),
        *_paths(old["openapi.json"], new["openapi.json"]),
    ]


def _messages(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name, channel in old["channels"].items():
        address = new["channels"].get(name, {}).get("address")
        if address != channel["address"]:
            yield f"channel {name}: the topic was {channel['address']}, and is {address}"
    for name, message in old["components"]["messages"].items():
        now = new["components"]["messages"].get(name)
        if now is None:
            yield f"event {name} is gone"
            continue
        for part in ("headers", "payload"):
            if part in message:
                before, after = message[part], now.get(part, {})
                yield from _read(_Place(before, before), _Place(after, after), f"event {name}, {part}")


def _paths(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in old["paths"].items():
        for method, operation in methods.items():
            where = f"{method.upper()} {path}"
            now = new["paths"].get(path, {}).get(method)
            if now is None:
                yield f"{where} is gone"
                continue
            yield from _asked(operation, now, where)
            before, after = (_Place(_answer(one), root) for one, root in ((operation, old), (now, new)))
            yield from _read(before, after, where)


def _answer(operation: Mapping[str, Any]) -> Schema:
    content = operation["responses"]["200"].get("content", {})
    schema: Schema = content.get("application/json", {}).get("schema", {})
    return schema


def _asked(old: Mapping[str, Any], new: Mapping[str, Any], where: str) -> Iterator[str]:
    before, after = ({one["name"]: one for one in operation.get("parameters", ())} for operation in (old, new))
    for name, parameter in before.items():
        if name not in after:
            yield f"{where}: the parameter {name} is gone"
        elif narrowed := _narrowed(parameter["schema"], after[name]["schema"]):
            yield f"{where}: the parameter {name} takes less: {narrowed}"
    for name, parameter in after.items():
        if parameter.get("required") and not before.get(name, {}).get("required"):
            yield f"{where}: the parameter {name} has become necessary"


def _narrowed(old: Schema, new: Schema) -> str | None:
    """Return what a parameter no longer takes."""
    before, after = (_alternatives(one) for one in (old, new))
    for kind, schema in before.items():
        now = after.get(kind)
        if now is None:
            return f"no {kind}"
        if gone := set(map(str, schema.get("enum", ()))) - set(map(str, now.get("enum", schema.get("enum", ())))):
            return f"no {', '.join(sorted(gone))}"
        if "enum" in now and "enum" not in schema:
            return "only some values"
        if "pattern" in now and not _takes_all(now["pattern"], schema.get("pattern")):
            return f"only {now['pattern']}"
        for bounds, sign in ((LOWER, 1), (UPPER, -1)):
            for bound in bounds:
                if bound in now and (bound not in schema or sign * now[bound] > sign * schema[bound]):
                    return f"{bound} {now[bound]}"
    return None


def _takes_all(new: str, old: str | None) -> bool:
    """Tell whether a pattern takes what another took: the same one, but for further characters in its classes."""
    if new == old:
        return True
    if old is None or "(?" in new or "\\" in new:
        return False
    before, after = (_CLASS.split(one) for one in (old, new))
    return before[::2] == after[::2] and all(
        _characters(taken) <= _characters(now) for taken, now in zip(before[1::2], after[1::2], strict=True)
    )


def _characters(within: str) -> set[str]:
    return {one for one in map(chr, range(32, 127)) if re.fullmatch(f"[{within}]", one)}


def _alternatives(schema: Schema) -> dict[str, Schema]:
    return {str(one.get("type", "anything")): one for one in schema.get("anyOf", [schema])}


class _Place:
    """A schema within the document that its references are looked up in."""

    def __init__(self, schema: Schema, root: Schema) -> None:
        while "$ref" in schema:
            found: Any = root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                found = found[step]
            schema = found
        self.schema, self.root = schema, root

    def inside(self, schema: Schema) -> _Place:
        return _Place(schema, self.root)

    def options(self) -> list[_Place]:
        """Return what the value may be, each without alternatives."""
        parts = self.schema.get("anyOf") or self.schema.get("oneOf")
        return [leaf for one in parts for leaf in self.inside(one).options()] if parts else [self]

    @property
    def kind(self) -> str:
        """Return a word for what it is: the type, or the title of an object."""
        kind = str(self.schema.get("type", "anything"))
        return "integer or number" if kind in {"integer", "number"} else kind


def _read(old: _Place, new: _Place, where: str) -> Iterator[str]:
    """Tell what those who read a value can no longer rely on."""
    before, after = old.options(), new.options()
    known = {one.kind for one in before}
    for kind in sorted({one.kind for one in after} - known):
        if "anything" not in known:
            yield f"{where} may now be {kind}"
    for was in before:
        same = [one for one in after if one.kind == was.kind]
        if len(same) == len([one for one in before if one.kind == was.kind]) == 1:
            yield from _value(was, same[0], where)


def _value(old: _Place, new: _Place, where: str) -> Iterator[str]:
    before, after = (_values(one.schema) for one in (old, new))
    if before is not None and (after is None or not after <= before):
        yield f"{where} may now have other values: {', '.join(sorted((after or {'any'}) - before))}"
    for name, schema in old.schema.get("properties", {}).items():
        now = new.schema.get("properties", {}).get(name)
        if now is None:
            yield f"{where}: {name} is gone"
            continue
        if name in old.schema.get("required", ()) and name not in new.schema.get("required", ()):
            yield f"{where}: {name} may now be left out"
        yield from _read(old.inside(schema), new.inside(now), f"{where}.{name}")
    for keyword in ("items", "additionalProperties"):
        parts = old.schema.get(keyword), new.schema.get(keyword)
        if isinstance(parts[0], dict) and isinstance(parts[1], dict):
            yield from _read(old.inside(parts[0]), new.inside(parts[1]), f"{where}[]")


def _values(schema: Schema) -> set[str] | None:
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else set(map(str, values))
