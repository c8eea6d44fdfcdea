"""What a file says of itself that its model is: names of architectures, as training programs leave them in a checkpoint.

    {"arch": "resnet18", "args": Namespace(model="resnet18"), …}     timm's and torchvision's own programs
    {"model_name": …}, {"config": {"model": {"name": …}}}            those of people

They are strings and nothing else: a name is only ever looked up among those that are known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from layerscope.models.formats.pickle_values import BuiltObject, Value

_NAMES: Final = ("arch", "architecture", "model_name", "model", "model_arch", "backbone", "network", "net", "name")
_SETTINGS: Final = ("args", "config", "cfg", "hparams", "hyper_parameters", "opt", "options", "params", "model", "meta")
_ONE: Final = re.compile(r"[A-Za-z0-9_.:/-]{2,128}", re.ASCII)
_MOST: Final = 8
_DEPTH: Final = 3


def said_names(table: Mapping[Value, Value]) -> tuple[str, ...]:
    """Return the names that a checkpoint or the metadata of a file have where people write an architecture's."""
    return tuple(dict.fromkeys(name for _, name in zip(range(_MOST), _said(table, _DEPTH), strict=False)))


def _said(table: Mapping[Value, Value], depth: int) -> Iterator[str]:
    for key in _NAMES:
        value = table.get(key)
        if isinstance(value, str) and _ONE.fullmatch(value):
            yield _bare(value)
    for key in _SETTINGS if depth else ():
        inner = table.get(key)
        if isinstance(inner, BuiltObject):  # such as argparse.Namespace
            inner = inner.state
        if isinstance(inner, dict):
            yield from _said(inner, depth - 1)


def _bare(name: str) -> str:
    """Return a name without what says whose it is, `timm/`, and which weights it began with, `.a1_in1k`."""
    return name.rpartition("/")[2].rpartition(":")[2].removeprefix("torchvision.models.").partition(".")[0].lower()
