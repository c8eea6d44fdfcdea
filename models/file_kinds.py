"""What an upload is, by its first bytes, and what to say of each format that is not the safe form."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Literal

from layerscope.schemas.errors import Refused

Kind = Literal[
    "safetensors-layerscope",
    "safetensors-plain",
    "torch-zip",
    "torch-legacy",
    "onnx",
    "keras",
    "hdf5",
    "numpy",
    "image",
    "text",
    "empty",
    "unknown",
]
PACK_COMMAND: Final = "layerscope pack my_module:model --out model.safetensors"
UPLOAD: Final = "layerscope.upload(model, 'DATASET/MODEL/VERSION')"
UPLOAD_WITH_IMAGES: Final = "layerscope.upload(model, 'DATASET/MODEL/VERSION', example=images)"
SAY_IMAGES: Final = f"Say which images it takes: {UPLOAD_WITH_IMAGES}"
UPLOAD_CALL: Final = f"From Python, where the model is in memory: {UPLOAD}"
MAX_HEADER: Final = 4 * 2**20
"""Bytes of the header of a safetensors file that are read."""
SENT: Final = "layerscope upload FILE DATASET/MODEL/VERSION"
LAYERS_WANTED: Final = (
    f"Upload one version with its layers, and state dicts of that model are known from then on: {UPLOAD}; or name a "
    f"stored version that has them: {SENT} --like DATASET/MODEL/VERSION; or list them in blocks.json, which `layerscope "
    f"inspect FILE` begins: {SENT} --architecture blocks.json"
)
"""How a state dict of a network that is not known comes to its layers."""
LOOKED_FOR: Final = f"Leave the architecture out, and it is looked for: {SENT}; or {UPLOAD_CALL}"
KEY: Final = "layerscope"
"""The metadata entry that holds the architecture, and so makes a safetensors file one in the safe form."""

_IMAGES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_PICKLES: Final = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))
_ONNX_SECOND_TAGS: Final = b"\x12\x1a\x22\x2a\x32\x3a\x42"
_OF_KERAS: Final = (b"metadata.json", b"config.json", b"model.weights.h5")
"""Names of records of an archive of Keras, one of which comes first; those of torch are in a folder."""
_ASSETS: Final = b"assets/"
"""The folder that may come first in an archive of Keras; one of torch may be called so too."""
_DIRECTORY: Final = 2**16
"""Bytes at the end of a zip file in which its last records are listed."""
_BEGINNING: Final = 512

_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "safetensors-plain": (
        "no-architecture",
        "This safetensors file holds tensors, but not the architecture.",
    ),
    "torch-zip": (
        "pickled-model",
        "This is a zip file, as torch.save writes; it could run code when read.",
    ),
    "torch-legacy": (
        "pickled-model",
        "This is a pickle, as old torch.save writes; it could run code when read.",
    ),
    "onnx": ("onnx-model", "This looks like an ONNX model, not like the safe form."),
    "keras": ("keras-model", "This is a model of Keras (.keras)."),
    "hdf5": ("keras-model", "This is an HDF5 file, as Keras wrote its models."),
    "numpy": ("not-a-model", "This is a file of NumPy, with arrays and no model."),
    "image": ("not-a-model", "This is a picture, not a model."),
    "text": ("not-a-model", "This is text, not a model."),
    "empty": ("empty-file", "The file is empty."),
    "unknown": ("unknown-format", "This is no file format that is known here."),
}
_HINT: Final = f"{UPLOAD_CALL}; from the command line: {PACK_COMMAND}"


_KERAS: Final = 'Export it from Keras, and upload that file: model.export("model.onnx", format="onnx")'


def sniff(source: Path | bytes) -> Kind:
    """Return what a file is, by path or by content; only its beginning is looked at, and nothing in it is parsed."""
    with opened(source) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        beginning = stream.read(_BEGINNING)
        length = _safetensors_length(beginning, size)
        if length is not None:
            stream.seek(8)
            ours = f'"{KEY}"'.encode() in stream.read(min(length, MAX_HEADER))
            return "safetensors-layerscope" if ours else "safetensors-plain"
        kind = _other(beginning)
        if kind == "torch-zip" and _first_name(beginning).startswith(_ASSETS):
            stream.seek(max(0, size - _DIRECTORY))
            directory = stream.read()
            return "keras" if all(name in directory for name in _OF_KERAS) else kind
    return kind


def opened(source: Path | bytes) -> BinaryIO:
    """Open a file for reading, by path or by content."""
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _safetensors_length(beginning: bytes, size: int) -> int | None:
    if len(beginning) < 10 or beginning[8:9] != b"{":
        return None
    length: int = struct.unpack_from("<Q", beginning)[0]
    return length if length <= size - 8 else None


def _other(beginning: bytes) -> Kind:
    if not beginning:
        return "empty"
    if beginning.startswith(b"PK\x03\x04"):
        first = _first_name(beginning)
        return "keras" if first in _OF_KERAS else "numpy" if first.endswith(b".npy") else "torch-zip"
    if beginning.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if beginning.startswith(b"\x93NUMPY"):
        return "numpy"
    if beginning.startswith(_PICKLES):
        return "torch-legacy"
    if beginning.startswith(_IMAGES) or (beginning.startswith(b"RIFF") and beginning[8:12] == b"WEBP"):
        return "image"
    if len(beginning) > 2 and beginning[0] == 8 and 0 < beginning[1] < 32 and beginning[2] in _ONNX_SECOND_TAGS:
        return "onnx"
    return "text" if _is_text(beginning) else "unknown"


def _first_name(beginning: bytes) -> bytes:
    """Return the name of the first record of a zip file."""
    return beginning[30 : 30 + int.from_bytes(beginning[26:28], "little")]


def _is_text(beginning: bytes) -> bool:
    try:
        text = beginning.decode()
    except UnicodeDecodeError as error:
        if error.start < _BEGINNING - 3:  # else a character that is cut in two where the beginning ends
            return False
        text = beginning[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)


def refusal(kind: Kind) -> Refused:
    """Return the refusal of a file that is not in the safe form, with the hint how to write it.

    Raises:
        KeyError: the kind is the safe form itself.
    """
    code, message = _REFUSALS[kind]
    return Refused(code, message, _KERAS if code == "keras-model" else _HINT)
