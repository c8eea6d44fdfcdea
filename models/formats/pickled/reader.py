"""From the path of a file that torch.save wrote to plain data: which container it is, and what it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from layerscope.models.formats.pickle_values import Global, Value, unreadable
from layerscope.models.formats.pickled.archive import Archive, mapped
from layerscope.models.formats.pickled.legacy import read_stream
from layerscope.models.formats.pickled.tensors import is_known
from layerscope.schemas.errors import Refused

_PROGRAM: Final = (
    "Save the program before it is compiled: torch.export.save(torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
)
_COMPILED: Final = ("archive_format", "data/aotinductor/")
"""Records of a package of compiled code, some of which its release has."""
_TAR: Final = slice(257, 262)


@dataclass(frozen=True)
class Saved:
    """What a file of torch.save holds; `foreign` are the dotted names in it that are neither torch's layers nor plain data."""

    root: Value
    container: Literal["zip", "legacy"]
    foreign: tuple[str, ...]


def read_pickled(path: Path) -> Saved:
    """Read a file of torch.save, in bounded CPU time, and in bounded memory besides the mapped file.

    Raises:
        Refused: `torchscript`, `exported-program`, `tar-era`, `not-torch`; and as of `Archive` and `legacy.read_stream`.
    """
    return read_bytes(mapped(path))


def read_bytes(data: memoryview) -> Saved:
    """Read the content of a file of torch.save; raises Refused as of `read_pickled`."""
    if bytes(data[:4]) == b"PK\3\4":
        archive = Archive(data)
        _check_kind(archive)
        return Saved(archive.pickle("data.pkl"), "zip", foreign_names(archive.foreign))
    if bytes(data[:1]) != b"\x80":
        raise _not_torch(data)
    root, named = read_stream(data)
    return Saved(root, "legacy", foreign_names(named))


def foreign_names(names: Iterable[Global]) -> tuple[str, ...]:
    """Return, sorted and dotted, those names that are neither layers of torch nor plain data."""
    return tuple(sorted(name.dotted for name in names if not is_known(name) and not _is_layer(name)))


def _is_layer(name: Global) -> bool:
    return name.module.startswith("torch.nn.modules.") and name.name.isidentifier()


def _check_kind(archive: Archive) -> None:
    if archive.is_torchscript:
        raise unreadable("torchscript", "This is a TorchScript archive, not a file of torch.save.")
    if "data.pkl" in archive.names:
        return
    if any(name.startswith(_COMPILED) for name in archive.names):
        message = "This is no file of torch.save; it may be a package of compiled code (.pt2), which is never run."
        raise unreadable("exported-program", message, _PROGRAM)
    raise unreadable("not-torch", "This zip archive has no data.pkl: torch.save did not write it.")


def _not_torch(data: memoryview) -> Refused:
    if bytes(data[_TAR]) == b"ustar":
        return unreadable("tar-era", "This is a tar archive, as torch.save wrote it before version 0.2.")
    return unreadable("not-torch", "The file begins neither as a zip archive nor as a pickle of torch.save.")
