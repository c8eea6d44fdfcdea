"""What an upload is, by its first bytes, and what to say of each format that is not the safe form."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from functions.errors import Refused
from functions.safetensors_file import MAX_HEADER, PACK_COMMAND

Kind = Literal[
    "safetensors-layerscope",
    "safetensors-plain",
    "torch-zip",
    "torch-legacy",
    "onnx",
    "image",
    "text",
    "empty",
    "unknown",
]
OURS: Final = "safetensors-layerscope"
