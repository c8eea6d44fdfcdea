"""What people upload: file formats read without executing them, the safe form, tracing. Usable alone: no S3, no Kafka.

from layerscope.models import inspect, pack, rebuild

inspect(Path("checkpoint.pt"))     what is in a file, and whether it would be admitted
rebuild(Path("checkpoint.pt"))     its model, as graph and tensors
pack(module)                       a module of yours in the safe form, as bytes
load(Path("net.safetensors"))      a model in the safe form, as a torch module again
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if (
    __name__ != "layerscope.models"
):  # from a checkout the folder has a bare name too, by which modules would exist twice
    raise ImportError("this folder is part of a package: import layerscope.models")

if TYPE_CHECKING:
    from layerscope.models.formats import rebuild as rebuild
    from layerscope.models.inspection import inspect as inspect
    from layerscope.models.safe_form import load as load
    from layerscope.models.safe_form import pack as pack

__all__ = ["inspect", "load", "pack", "rebuild"]

_MODULES: Final = {"inspect": "inspection", "load": "safe_form", "pack": "safe_form", "rebuild": "formats"}


def __getattr__(name: str) -> object:
    # torch takes seconds to import, and the structural reader does without
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
