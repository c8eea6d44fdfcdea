"""`layerscope.upload`: from a module in the user's process to its analysis."""

from __future__ import annotations

import asyncio

from torch import nn

from layerscope import client
from layerscope.pack import pack
from layerscope.systems import locate
from schemas.identity import Identity


def upload(model: nn.Module, name: str, *, at: str | None = None) -> None:
    """Pack a module into the safe form and put it into the bucket, which is all that its analysis needs.

    Args:
        model: any module that `torch.fx` can trace; it is not changed.
        name: `DATASET/MODEL/VERSION`.
        at: URL or directory of the system; by default LAYERSCOPE_URL, or the one that `up` or `demo` made last.

    Raises:
        Refused: the module cannot be packed; the message names the node in the way, the hint says what to do.
        ValueError: the name is not of that form.
        NoSystem: there is no such system.
    """
    identity = Identity.parse(name)
    asyncio.run(client.upload(locate(at), identity, pack(model), ".safetensors", lambda _: None))
