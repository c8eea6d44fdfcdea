"""What to say of a pickled model of the user's own class: its name, its layers, and the one line that uploads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from layerscope.models.file_kinds import PACK_COMMAND, UPLOAD_CALL
from layerscope.models.formats.pickle_values import BuiltObject, Global, Value
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

MAX_LISTED: Final = 12
_MAX_DEPTH: Final = 3


def refuse_own_class(record: BuiltObject, where: str) -> Refused:
    """Return the refusal of a module whose forward pass is code that the file only names; `where` is its place."""
    name, place = _class(record), f", at {shown(where)}," if where else ""
    listed = list(itertools.islice(_listed(record), MAX_LISTED + 1))
    more = ", …" if len(listed) > MAX_LISTED else ""
    inside = f" ({', '.join(listed[:MAX_LISTED])}{more})" if listed else ""
    return Refused(
        "own-class",
        f"The model{place} is a {name}{inside}: its layers are in the file, but what its forward does with them is not.",
        f"{UPLOAD_CALL}; from the command line, for model in my_module.py: {PACK_COMMAND}",
    )


def _class(record: BuiltObject) -> str:
    name = record.type
    if not isinstance(name, Global):
        return "an unnamed object"
    return ascii(name.dotted)[1:-1][:80]


def _listed(record: BuiltObject, where: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the modules inside as `name: Class`, depth first."""
    for name, child in _children(record):
        path = f"{where}.{name}".lstrip(".")
        yield f"{ascii(path)[1:-1][:40]}: {_class(child).rpartition('.')[2]}"
        if depth < _MAX_DEPTH:
            yield from _listed(child, path, depth + 1)


def _children(record: BuiltObject) -> Iterator[tuple[str, BuiltObject]]:
    modules: Value = record.state.get("_modules") if isinstance(record.state, dict) else None
    if isinstance(modules, dict):
        yield from ((str(name), child) for name, child in modules.items() if isinstance(child, BuiltObject))
