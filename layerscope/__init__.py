"""The front door: `layerscope.upload`, `pack` and `open` in Python, `layerscope` on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerscope.packer import pack as pack
    from layerscope.stored_model import open_model as open
    from layerscope.uploader import upload as upload

__all__ = ["open", "pack", "upload"]


def __getattr__(name: str) -> object:
    # torch is imported where a model is packed, not wherever the command line starts; no module here has these names, as
    # importing one would put it in the place of the function
    if name == "open":
        from layerscope.stored_model import open_model

        return open_model
    if name == "pack":
        from layerscope.packer import pack

        return pack
    if name == "upload":
        from layerscope.uploader import upload

        return upload
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
