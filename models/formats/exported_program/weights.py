"""What an archive of torch.export holds: the program's JSON, and the tensors as views of the archive's bytes.

Since torch 2.8 (https://docs.pytorch.org/docs/stable/export/pt2_archive.html) a tensor is the raw bytes of its storage, and
JSON says of each its dtype, sizes, strides and offset. Before, all were one file of torch.save, which the reader of pickles
reads, likewise without running anything. Sample inputs, pickled in both, are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.formats.exported_program.arguments import DTYPES, rows, table, text, union
from layerscope.models.formats.exported_program.program import MAX_PROGRAM, MAX_VALUES
from layerscope.models.formats.exported_program.refusals import SAVE, bad_program
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.pickled.archive import Archive
from layerscope.models.formats.pickled.reader import read_bytes
from layerscope.models.formats.pickled.tensors import Storages
from layerscope.models.remedies import IN_FLOATS
from layerscope.models.safe_form.safetensors_file import MAX_TENSORS, shown, strict_json
from layerscope.schemas.errors import Refused

_OLD: Final = ("serialized_exported_program.json", "serialized_state_dict.pt", "serialized_constants.pt")


@dataclass(frozen=True, slots=True)
class Contents:
    """The JSON of the program, and its tensors by the names that it has for them."""

    program: bytes
    tensors: Mapping[str, StoredTensor]


def contents(archive: Archive) -> Contents:
    """Return what an archive of torch.export holds.

    Raises:
        Refused: `several-models`, `bad-program`, `bad-json`, `too-many-tensors`, `unknown-dtype`, `pickled-weights`; and as
            of `Archive.read`, `Storages` and `read_bytes`.
    """
    if _OLD[0] in archive.names:
        tensors = {name: tensor for record in _OLD[1:] for name, tensor in _pickled(archive, record).items()}
        return Contents(bytes(archive.read(_OLD[0], MAX_PROGRAM)), tensors)
    models = [name for name in archive.names if name.startswith("models/") and name.endswith(".json")]
    if len(models) > 1:
        raise Refused("several-models", f"The archive holds {len(models)} exported programs.", SAVE)
    name = models[0].removeprefix("models/").removesuffix(".json")
    storages = Storages(archive.size)
    tensors = {}
    for folder in ("data/weights", "data/constants"):
        record = f"{folder}/{name}_{folder.removeprefix('data/')}_config.json"
        if record in archive.names:
            tensors |= _raw(archive, folder, record, storages)
        else:
            tensors |= _pickled(archive, f"{folder}/{name}.pt")
    return Contents(bytes(archive.read(models[0], MAX_PROGRAM)), tensors)


def _pickled(archive: Archive, record: str) -> dict[str, StoredTensor]:
    """Return the tensors in a file of torch.save within the archive; none, if there is no such file."""
    content = archive.read(record) if record in archive.names else b""
    if not content:
        return {}
    root = read_bytes(memoryview(content)).root
    if not isinstance(root, dict):
        raise bad_program("its tensors are no table")
    return {name: value for name, value in root.items() if isinstance(name, str) and isinstance(value, StoredTensor)}


def _raw(archive: Archive, folder: str, record: str, storages: Storages) -> dict[str, StoredTensor]:
    raw = bytes(archive.read(record, MAX_PROGRAM))
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > MAX_VALUES:
        raise bad_program("it has too many tensors")
    config = table(
        table(strict_json(raw, "list of tensors", SAVE), "a list of tensors").get("config"), "a list of tensors"
    )
    if len(config) > MAX_TENSORS:
        raise Refused("too-many-tensors", f"The exported program has more than {MAX_TENSORS} tensors.", UPLOAD_CALL)
    flat: dict[tuple[str, str], StoredTensor] = {}

    def storage(path: str, dtype: str) -> StoredTensor:
        if (path, dtype) not in flat:
            flat[path, dtype] = storages.flat(archive.read(path), dtype, path)
        return flat[path, dtype]

    found: dict[str, StoredTensor] = {}
    for name, entry in config.items():
        payload = table(entry, "a tensor")
        path = f"{folder}/{text(payload.get('path_name'), 'the record of a tensor')}"
        if payload.get("use_pickle") is not False:
            found |= _of_class(archive, name, path)
        elif payload.get("tensor_meta") is not None:
            found[name] = _view(name, table(payload["tensor_meta"], "a tensor"), path, storage, storages)
    return found


def _of_class(archive: Archive, name: str, path: str) -> dict[str, StoredTensor]:
    """Return a tensor that is pickled, as those of classes other than torch's own are."""
    root = read_bytes(archive.read(path)).root
    if isinstance(root, StoredTensor):
        return {name: root}
    raise Refused(
        "pickled-weights",
        f"{shown(name)} is stored as a pickle, which may run code when read, and is no plain tensor.",
        UPLOAD_CALL,
    )


def _view(
    name: str,
    meta: Mapping[str, Any],
    path: str,
    storage: Callable[[str, str], StoredTensor],
    storages: Storages,
) -> StoredTensor:
    dtype = meta.get("dtype")
    if type(dtype) is not int or dtype not in DTYPES:
        raise Refused(
            "unknown-dtype",
            f"{shown(name)} is stored as dtype {shown(dtype)}; only {', '.join(DTYPES.values())} can be read.",
            f"Convert the model, and upload it from Python: {IN_FLOATS}",
        )
    if meta.get("layout") != _STRIDED:
        raise Refused("unknown-dtype", f"{shown(name)} is no dense tensor.", UPLOAD_CALL)
    shape, strides = (tuple(map(_size, rows(meta.get(key), key))) for key in ("sizes", "strides"))
    flat = storage(path, DTYPES[dtype])
    return storages.view(flat, _size(meta.get("storage_offset")), shape, strides, meta.get("requires_grad") is True)


_STRIDED: Final = 7


def _size(size: Any) -> Any:
    kind, value = union(size, "a size")
    if kind != "as_int":
        raise bad_program("a tensor has a size that is no number")
    return value
