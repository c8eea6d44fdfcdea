"""Finds the architecture of another library for a state dict, by a digest of its names and shapes.

Left out of the digest is what people change, the number of classes and of input channels. What no tensor tells, such as
an activation or a pooling, is as the library has it by default, or as `config.json` says; where that leaves several
architectures, the user has to name one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from layerscope.models.file_kinds import LOOKED_FOR, SENT, UPLOAD_CALL
from layerscope.models.formats.graph_tables import stored
from layerscope.models.formats.graph_tables.config_json import difference
from layerscope.models.formats.graph_tables.stored import Free, Shapes, digest
from layerscope.models.formats.lent_layers import Lender
from layerscope.models.safe_form.graph_spec import Graph, from_json
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Refused

LIBRARIES: Final = ("timm", "transformers")
_NAMED: Final = 8


def is_name(architecture: str) -> bool:
    """Tell whether a name is one of these libraries', which it says at its beginning: `timm/resnet26d`."""
    return architecture.partition("/")[0] in LIBRARIES


def names_of(shapes: Shapes, config: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return the architectures that have these names and shapes, one of each set that computes the same.

    With what `config.json` says, those that it does not contradict.
    """
    found = tuple(name for library in LIBRARIES for name in _of_library(library, shapes))
    return found if config is None else tuple(one for one in found if _differs(one, config) is None)


def said(shapes: Shapes, names: Sequence[str]) -> tuple[str, ...]:
    """Return the architecture that a file calls its model, where several have its names and shapes; nothing: it does not.

    Raises:
        Refused: `ambiguous-architecture`, it calls it by the names of several.
    """
    index = stored.index("timm")
    fitting = tuple(
        dict.fromkeys(
            f"timm/{name}"
            for name in names
            if name in index.places and index.places[name].digest == digest(shapes, index.free[index.places[name].free])
        )
    )
    if len(fitting) > 1:
        raise Refused(
            "ambiguous-architecture",
            f"{len(fitting)} architectures have the names and shapes of this state dict, and the file calls it by each: "
            f"{_list(fitting)}.",
            f"Say which one it is: layerscope upload FILE DATASET/MODEL/VERSION --architecture {fitting[0]}",
        )
    return fitting


def others(shapes: Shapes, name: str) -> tuple[str, ...]:
    """Return a note where a library has architectures of these names and shapes that compute otherwise than `name` does."""
    found = [one for one in names_of(shapes) if one.partition("/")[2] != name]
    if not found:
        return ()
    have = "have" if len(found) > 1 else "has"
    return (
        f"{_list(found)} {have} the same names and shapes, and other steps without tensors: if it is that one, upload it "
        f"with --architecture {found[0]}.",
    )


def lender(shapes: Shapes, named: str | None = None, config: Mapping[str, Any] | None = None) -> Lender | None:
    """Return the layers of the architecture with these names and shapes, or of the one that is named; None: of none.

    Raises:
        Refused: `unknown-architecture`, none is of that name here; `architecture-mismatch`, it has other names or shapes,
            or `config.json` says otherwise; `ambiguous-architecture`, several have these.
    """
    if named is not None:
        _check_named(named, shapes)
        return _lender(named, shapes)
    found, every = names_of(shapes, config), names_of(shapes)
    if len(found) > 1:
        raise Refused(
            "ambiguous-architecture",
            f"{len(found)} architectures have the names and shapes of this state dict: {_list(found)}.",
            f"Say which one it is: {SENT} --architecture {found[0]}",
        )
    if config is not None and every and not found:
        key = _differs(every[0], config)
        made = stored.index("transformers").configs.get(every[0].partition("/")[2], {})
        raise Refused(
            "architecture-mismatch",
            f"config.json says {shown(key)} is {shown(config.get(key or ''))}, and the {every[0]} that is known here has "
            f"{shown(made.get(key or ''))}.",
            UPLOAD_CALL,
        )
    return _lender(found[0], shapes) if found else None


def _of_library(library: str, shapes: Shapes) -> tuple[str, ...]:
    index = stored.index(library)
    for free in index.free:
        fits = all(f"{one}.weight" in shapes for one in free.classifiers)
        if fits and (found := index.digests.get(digest(shapes, free))):
            return tuple(f"{library}/{name}" for name in found)
    return ()


def _differs(name: str, config: Mapping[str, Any]) -> str | None:
    """Name the key in which `config.json` contradicts an architecture; timm's have none."""
    library, _, inner = name.partition("/")
    made_with = stored.index(library).configs.get(inner)
    return "model_type" if made_with is None else difference(config, made_with)


def _check_named(named: str, shapes: Shapes) -> None:
    library, _, name = named.partition("/")
    index = stored.index(library)
    if name not in index.places:
        near = difflib.get_close_matches(name[:64], index.places, n=1, cutoff=0)[0]
        raise Refused(
            "unknown-architecture",
            f"{shown(name)} is none of the {len(index.places)} architectures of {library} whose layers are known here.",
            f"If this is meant: {SENT} --architecture {library}/{near}; or {UPLOAD_CALL}",
        )
    if index.places[name].digest != digest(shapes, index.free[index.places[name].free]):
        raise Refused(
            "architecture-mismatch",
            f"The names or shapes of this state dict are not those of {named}.",
            LOOKED_FOR,
        )


def _lender(named: str, shapes: Shapes) -> Lender:
    library, _, name = named.partition("/")
    index, row = stored.index(library), stored.row(library, name)
    graph = adapted(row.graph, shapes, index.free[index.places[name].free])
    own = {one.name: tuple(shapes.get(one.name, ())) for one in graph.weights if one.kind != "constant"}
    said = f"{named} with its default settings ({library} {index.version})"
    return Lender(said, graph, own, row.constants.__getitem__)


def adapted(graph: dict[str, Any], shapes: Shapes, free: Free) -> Graph:
    """Return a stored graph for the number of classes and of channels that a state dict has."""
    for module in graph["modules"]:
        weight = shapes.get(f"{module['name']}.weight")
        arguments = module.get("arguments")
        if arguments is None or weight is None:
            continue
        if module["name"] in free.classifiers:
            arguments["out_features" if "out_features" in arguments else "out_channels"] = weight[0]
        elif module["name"] == free.stem and len(weight) == 4:
            arguments["in_channels"] = weight[1] * arguments["groups"]
    return from_json(canonical_json(graph))


def _list(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
