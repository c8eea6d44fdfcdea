"""A state dict alone, matched by its keys and shapes to one of torchvision's classifiers, and that classifier built.

What shapes cannot tell is settled by a stated rule, which a note repeats, or is refused until the user names it:

- A first convolution for another number of channels has the original's stride and padding. One of 3x3 in a ResNet may
  have any: refused, unless named `resnet18+cifar_stem` (stride 1, padding 1, no max-pooling).
- `transform_input` of GoogLeNet and Inception v3 with three channels is not in the tensors: refused, unless named
  `googlenet+transform_input` or `googlenet-transform_input`.
- Between two layers of a replaced head lies one ReLU, if anything does; a layer before its first one is a dropout.
- Vision transformers are of the image size that their position embedding fits; MaxViT is of torchvision's, 224.

What no key or number hides behind a name is the same for all: torchvision's own eps, strides and activations.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Final

from layerscope.models.file_kinds import LAYERS_WANTED, LOOKED_FOR, SENT, UPLOAD
from layerscope.models.formats.architectures.heads import find_head
from layerscope.models.formats.architectures.known_modules import (
    KnownArchitecture,
    build_known,
    make,
    own_shapes,
    renamed,
)
from layerscope.models.formats.architectures.table import FAMILIES, Family, family_of
from layerscope.models.formats.filling import COUNTER
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

Shapes = Mapping[str, tuple[int, ...]]

_KNOWN: Final = "the classifiers of torchvision, timm and transformers that are known here"
_POSITIONS: Final = "encoder.pos_embedding"
_CIFAR: Final = "cifar_stem"
_TRANSFORM: Final = "transform_input"
_NAMED: Final = re.compile(r"(?:torchvision\.models\.)?([A-Za-z0-9_]{1,64})((?:[+-][a-z_]{1,32}){0,4})", re.ASCII)
_CANDIDATES: Final = 3
"""How many architectures of a family are built to find the nearest one, for a message."""


def recognise(shapes: Shapes, named: str | None = None) -> KnownArchitecture:
    """Return the architecture that a state dict with these keys and shapes belongs to, checked key by key.

    `named` is what the user says it is, to be checked: `resnet18`, or with a setting `googlenet+transform_input`.

    Raises:
        Refused: `unknown-architecture` (it is none of them, or `named` is no name), `architecture-mismatch` (it is not
            the one named), `ambiguous-architecture` (the user has to name it), `duplicate-tensor` (one tensor under
            its old and its present name), `unknown-head` (the last layers were replaced by ones that keys do not tell).
    """
    shapes = renamed(shapes)
    wanted, settings = _read_name(named) if named is not None else (None, {})
    family, name, cifar = _find(shapes)
    if wanted is not None and name != wanted:
        raise _mismatch(shapes, wanted)
    if family is None or name is None:
        raise _unknown(shapes)
    settings = _settle(shapes, family, name, settings, cifar)
    known = _describe(shapes, family, name, settings)
    if differences := _differences(own_shapes(build_known(known)), shapes):
        raise _refused("unknown-architecture" if wanted is None else "architecture-mismatch", name, differences)
    return known


def _find(shapes: Shapes) -> tuple[Family | None, str | None, bool]:
    """Return family and name of the architecture whose body this is, and whether it has a ResNet's 3x3 stem."""
    for family in FAMILIES:
        stem = tuple(shapes.get(f"{family.stem}.weight", ()))
        if len(stem) != 4:
            continue
        by_digest = {digest: name for name, (_, digest) in family.members.items()}
        if name := by_digest.get(body_digest(shapes, family)[1]):
            return family, name, False
        if "resnet18" in family.members and stem[2:] == (3, 3):
            original = {**shapes, f"{family.stem}.weight": (*stem[:2], 7, 7)}
            if name := by_digest.get(body_digest(original, family)[1]):
                return family, name, True
    return None, None, False


def body_digest(shapes: Shapes, family: Family) -> tuple[int, str]:
    """Return how many tensors the body has, and a digest of their names and shapes; what may vary is left out.

    That is the head, auxiliary heads, the channels and bias of the stem, image sizes, and batch norms' counters.
    """
    lines = sorted(f"{name} {_fixed(name, tuple(shapes[name]), family)}" for name in _body(shapes, family))
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _body(shapes: Shapes, family: Family) -> Iterator[str]:
    outside = {family.head.partition(".")[0], *family.auxiliary}
    for name in shapes:
        if name.partition(".")[0] not in outside and name != f"{family.stem}.bias" and not name.endswith(f".{COUNTER}"):
            yield name


def _fixed(name: str, shape: tuple[int, ...], family: Family) -> tuple[int | None, ...]:
    free = name in (f"{family.stem}.weight", _POSITIONS)
    return (*shape[:1], None, *shape[2:]) if free else shape


def _describe(shapes: Shapes, family: Family, name: str, settings: Mapping[str, bool]) -> KnownArchitecture:
    """Return what the shapes tell of an architecture beyond its name; raises what `find_head` raises."""
    original = make(name)
    stem, own = tuple(shapes[f"{family.stem}.weight"]), original.get_submodule(family.stem)
    head = find_head(shapes, family, original)
    bias = f"{family.stem}.bias" in shapes
    notes = [*head.notes]
    if stem[1] != 3 and not settings[_CIFAR]:
        notes.append(
            f"The first convolution takes {stem[1]} channels; its stride and padding are taken as the original's."
        )
    return KnownArchitecture(
        name=name,
        num_classes=head.num_classes,
        in_channels=stem[1],
        head=head,
        stem_bias=None if bias == (own.bias is not None) else bias,
        image_size=_image_size(shapes, stem) if _POSITIONS in shapes else None,
        auxiliary_classes=_auxiliary_classes(shapes, family),
        transform_input=settings[_TRANSFORM],
        cifar_stem=settings[_CIFAR],
        notes=tuple(notes),
    )


def _image_size(shapes: Shapes, stem: tuple[int, ...]) -> int | None:
    patches = tuple(shapes[_POSITIONS])[1] - 1 if len(shapes[_POSITIONS]) == 3 else 0
    return math.isqrt(patches) * stem[-1] or None if patches > 0 else None


def _auxiliary_classes(shapes: Shapes, family: Family) -> int | None:
    found = (shapes.get(f"{path}.{layer}.weight") for path in family.auxiliary for layer in ("fc2", "fc"))
    return next((shape[0] for shape in found if shape), None)


# What the user says --------------------------------------------------------------------------------------------------


def _read_name(named: str) -> tuple[str, dict[str, bool]]:
    match, names = _NAMED.fullmatch(named.strip()), _names()
    if match is None or match[1] not in names:
        near = difflib.get_close_matches(named.strip()[:64].lower(), names, n=1, cutoff=0)[0]
        raise Refused(
            "unknown-architecture",
            f"{shown(named)} is none of the {len(names)} architectures whose weights are read without their code.",
            f"If this is meant: {SENT} --architecture {near}; or leave it out, and it is looked for: {SENT}",
        )
    settings = {setting[1:]: setting[0] == "+" for setting in re.findall(r"[+-][a-z_]+", match[2])}
    if not settings.keys() <= (allowed := _settings_of(match[1])):
        raise Refused(
            "unknown-architecture",
            f"{shown(named)} has a setting that {match[1]} does not know; it knows {', '.join(sorted(allowed)) or 'none'}.",
            f"Name the architecture alone: {SENT} --architecture {match[1]}",
        )
    return match[1], settings


def _names() -> list[str]:
    return sorted(name for family in FAMILIES for name in family.members)


def _settings_of(name: str) -> set[str]:
    family = family_of(name)
    return {_TRANSFORM} if family.auxiliary else {_CIFAR} if "resnet18" in family.members else set()


def _settle(shapes: Shapes, family: Family, name: str, settings: Mapping[str, bool], cifar: bool) -> dict[str, bool]:
    channels = shapes[f"{family.stem}.weight"][1]
    if cifar != settings.get(_CIFAR, False):
        if not cifar:
            raise _refused(
                "architecture-mismatch", name, ["its first convolution is 7x7, not the 3x3 for small images"]
            )
        raise Refused(
            "ambiguous-architecture",
            f"This is a {name} with a first convolution of 3x3, whose stride, and whether max-pooling follows, no tensor tells.",
            f"If it has stride 1 and padding 1, and maxpool is nn.Identity(): {SENT} --architecture {name}+{_CIFAR}; if "
            f"not, from Python: {UPLOAD}",
        )
    if family.auxiliary and channels == 3 and _TRANSFORM not in settings:
        raise Refused(
            "ambiguous-architecture",
            f"This is a {name}, but no tensor tells whether it rescales its input (transform_input).",
            f"If it began with torchvision's ImageNet weights: {SENT} --architecture {name}+{_TRANSFORM}; if it was trained "
            f"from scratch: {SENT} --architecture {name}-{_TRANSFORM}",
        )
    if channels != 3 and settings.get(_TRANSFORM):
        raise _refused("architecture-mismatch", name, [f"{_TRANSFORM} needs 3 input channels, and it has {channels}"])
    return {_TRANSFORM: settings.get(_TRANSFORM, False), _CIFAR: cifar}


# Refusing ------------------------------------------------------------------------------------------------------------


def _unknown(shapes: Shapes) -> Refused:
    family = max(FAMILIES, key=lambda family: _likeness(shapes, family))
    count = body_digest(shapes, family)[0]
    by_size = sorted(family.members, key=lambda name: abs(family.members[name][0] - count))
    compared = {name: own_shapes(make(name)) for name in by_size[:_CANDIDATES] if _likeness(shapes, family) > 1}
    if not compared:
        return Refused(
            "unknown-architecture",
            f"A state dict has no layers, and the {len(shapes)} tensors of this one ({shown(next(iter(shapes), ''))}, …) "
            f"are those of none of {_KNOWN}.",
            LAYERS_WANTED,
        )

    def shared(name: str) -> tuple[int, int]:
        own = compared[name]
        return len(own.keys() & shapes.keys()), len(own.items() & shapes.items())

    nearest = max(compared, key=shared)
    return _refused("unknown-architecture", nearest, _against(shapes, nearest))


def _likeness(shapes: Shapes, family: Family) -> int:
    tops = {name.partition(".")[0] for name in shapes}
    body = {family.stem.partition(".")[0], family.head.partition(".")[0], *family.auxiliary}
    return len(tops & body) + 2 * (f"{family.stem}.weight" in shapes)


def _mismatch(shapes: Shapes, wanted: str) -> Refused:
    return _refused("architecture-mismatch", wanted, _against(shapes, wanted))


def _against(shapes: Shapes, name: str) -> list[str]:
    """Return how a state dict differs from an architecture, the layers that people replace last."""
    family = family_of(name)
    own = own_shapes(make(name))
    for tensor in (f"{family.head}.weight", f"{family.head}.bias"):
        if tensor in shapes and shapes[tensor][1:] == own.get(tensor, ())[1:]:
            own[tensor] = shapes[tensor]  # it may have any number of classes
    differences = _differences(own, shapes)
    return sorted(differences, key=lambda text: any(path in text for path in (family.head, *family.auxiliary)))


def _differences(expected: Shapes, found: Shapes) -> list[str]:
    missing = [
        f"{shown(name)} is missing" for name in expected if name not in found and not name.endswith(f".{COUNTER}")
    ]
    others = [
        f"{shown(name)} has the shape {shown(tuple(found[name]))}, not {shown(tuple(expected[name]))}"
        for name in expected
        if name in found and tuple(found[name]) != tuple(expected[name])
    ]
    unexpected = [f"{shown(name)} is one too many" for name in found if name not in expected]
    return others + missing + unexpected


def _refused(code: str, name: str, differences: list[str]) -> Refused:
    more = f", and {len(differences) - 2} more such differences" if len(differences) > 2 else ""
    what = "not a" if code == "architecture-mismatch" else f"that of none of {_KNOWN}; nearest is"
    return Refused(
        code,
        f"This state dict is {what} {name}: {'; '.join(differences[:2])}{more}.",
        LOOKED_FOR if code == "architecture-mismatch" else LAYERS_WANTED,
    )
