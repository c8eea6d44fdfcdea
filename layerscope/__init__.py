"""The front door: `layerscope.upload` and `layerscope.pack` in Python, `layerscope` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerscope.pack import pack as pack
    from layerscope.upload import upload as upload

__all__ = ["pack", "upload"]


def __getattr__(name: str) -> object:
    # torch is imported where a model is packed, not wherever the command line starts
    if name == "pack":
        from layerscope.pack import pack

        return pack
    if name == "upload":
        from layerscope.upload import upload

        return upload
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
