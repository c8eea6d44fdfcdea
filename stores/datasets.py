"""Datasets: labelled images in the bucket `datasets`, written once and read by digest.

`write` puts each part's arrays under their SHA-256 and names them last in `dataset.json`; `fetch` brings parts into a
local folder, `read` makes arrays of them. What a model sees of a pixel is said in `schemas/datasets.py`.
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from layerscope.schemas import keys
from layerscope.schemas.datasets import CommonProbe, DatasetDescription, DatasetPart, PartName
from layerscope.schemas.digests import canonical_json, sha256
from layerscope.schemas.errors import NotFound, Refused, Unavailable
from layerscope.stores import damage
from layerscope.stores.object_store import ObjectStore

HEADER_BYTES: Final = 4_096
"""More than an `.npz` of two arrays has besides their data."""

_MEASURED: Final[tuple[PartName, ...]] = ("train", "test", "probe")
_ADD_AGAIN: Final = "add it again with layerscope datasets add"


class DamagedDataset(Unavailable):
    """A dataset in the bucket is not what its description says; adding it again repairs it, and what waited for it."""


@dataclass(frozen=True, slots=True, eq=False)
class PartArrays:
    """One part's arrays, read-only: `images` uint8 (N, H, W, C) and `labels` int64 (N,) from 0, at least one of each.

    Raises:
        ValueError: they are not that; the message says how.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(f"images are {images.dtype} of shape {images.shape}, not uint8 of (N, H, W, C)")
        if labels.dtype != np.int64 or labels.ndim != 1:
            raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}, not int64 of (N,)")
        if len(images) != len(labels) or not images.size:
            raise ValueError(f"{len(images)} images of shape {images.shape[1:]}, and {len(labels)} labels")
        if labels.min() < 0:
            raise ValueError(f"the label {labels.min()} is below 0")
        for name, array in (("images", images), ("labels", labels)):
            view = array.view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> PartArrays:
        """Return the images at these positions, with their labels."""
        return PartArrays(self.images[indices], self.labels[indices])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A dataset's description, and the arrays of those of its parts that were asked for.

    Raises:
        ValueError: the arrays are not as described.
    """

    description: DatasetDescription
    parts: Mapping[str, PartArrays]

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            described = self.description.part(cast(PartName, name))
            if described is None or described.images != len(part) or part.images.shape[1:] != self.description.shape:
                raise ValueError(
                    f"part {name}: {part.images.shape} images, which {self.description.name} does not have"
                )
            if (highest := part.labels.max()) >= len(self.description.classes):
                raise ValueError(f"part {name}: label {highest}, of {len(self.description.classes)} classes from 0")

    def part(self, name: PartName) -> PartArrays:
        """Return a part's arrays.

        Raises:
            KeyError: it was not asked for, or the dataset has none of that name.
        """
        return self.parts[name]


def describe(store: ObjectStore, name: str) -> DatasetDescription | None:
    """Return what a dataset says of itself; None where there is none of this name, or none that can be read."""
    key = keys.dataset_description(name)
    try:
        found = DatasetDescription.model_validate_json(store.get(keys.DATASETS, key))
    except NotFound:
        return None
    except ValidationError:
        damage.report(keys.DATASETS, key, f"cannot be read ({_ADD_AGAIN})")
        return None
    return found


def write(
    store: ObjectStore,
    name: str,
    classes: Sequence[str],
    parts: Mapping[PartName, PartArrays],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    source: str = "",
    first_label: int = 0,
) -> DatasetDescription:
    """Store a dataset, its description last; what is there already is left as it is.

    `mean` and `std`, one a channel, are of pixels scaled to 0..1; by default those of the train part, else of test.
    `first_label` is as in the description; the labels of the parts begin at 0 all the same.

    Raises:
        ValueError: the parts do not agree with each other, with the classes or with the figures.
    """
    measured = [parts[one].images for one in _MEASURED if one in parts]
    if not measured:
        raise ValueError("a dataset has a part train, test or probe")
    if mean is None or std is None:
        statistics = channel_statistics(measured[0])
        mean, std = statistics[0] if mean is None else mean, statistics[1] if std is None else std
    contents = {part: encode(parts[part]) for part in sorted(parts)}
    before = describe(store, name)
    description = DatasetDescription(
        name=name,
        classes=tuple(classes),
        shape=cast(tuple[int, int, int], measured[0].shape[1:]),
        mean=tuple(mean),
        std=tuple(std),
        source=source,
        first_label=first_label,
        parts={
            part: DatasetPart(sha256=sha256(content), images=len(parts[part])) for part, content in contents.items()
        },
        common=before.common if before and before.shape == measured[0].shape[1:] else None,
    )
    Dataset(description, {part: parts[part] for part in contents})  # checks that they agree
    for content in contents.values():
        _write_part(store, name, content)
    _write_description(store, description)
    return description


def write_common(store: ObjectStore, description: DatasetDescription, content: bytes, common: CommonProbe) -> None:
    """Give a dataset its common probe set, `content` as encoded; what is there already is left as it is."""
    _write_part(store, description.name, content)
    _write_description(store, description.model_copy(update={"common": common}))


def _write_part(store: ObjectStore, name: str, content: bytes) -> None:
    key = keys.dataset_part(name, sha256(content))
    there = store.head(keys.DATASETS, key)
    if there is None or there.size != len(content):
        store.put(keys.DATASETS, key, content, media_type="application/zip")


def fetch(
    store: ObjectStore, description: DatasetDescription, parts: tuple[PartName, ...], cache: Path
) -> dict[str, Path]:
    """Return local files of these parts, each checked against its digest.

    Raises:
        Refused: the dataset has no such part (code `no-dataset-part`).
        DamagedDataset: a part is missing in the bucket, or is not the one described.
    """
    for part in parts:
        if description.part(part) is None:
            raise Refused(
                "no-dataset-part",
                f"The dataset {description.name} has no {part} part.",
                "layerscope init makes it"
                if part == "common"
                else f"layerscope datasets add {description.name} with all its parts, {part} among them",
            )
    return {part: _fetched(store, description, part, cache) for part in parts}


def read(description: DatasetDescription, paths: Mapping[str, Path]) -> Dataset:
    """Read fetched parts.

    Raises:
        DamagedDataset: a file does not hold what the description says.
    """
    try:
        return Dataset(
            description, {name: _decode(path, _array_bytes(description, name)) for name, path in paths.items()}
        )
    except (ValueError, KeyError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise DamagedDataset(f"the dataset {description.name} cannot be read: {error}; {_ADD_AGAIN}") from error


def load(store: ObjectStore, description: DatasetDescription, parts: tuple[PartName, ...], cache: Path) -> Dataset:
    """Fetch and read parts of a dataset; raises as these do."""
    return read(description, fetch(store, description, parts, cache))


def image(store: ObjectStore, description: DatasetDescription, part: PartName, index: int) -> NDArray[np.uint8]:
    """Return one image (H, W, C) of a part, of which no other bytes are read but the file's beginning.

    What is read is held against no digest, which is of the whole part; where it lies, and its size, are.

    Raises:
        DamagedDataset: the part is missing in the bucket, or is not laid out as `encode` lays it out.
    """
    described, size = _described(description, part), math.prod(description.shape)
    key = keys.dataset_part(description.name, described.sha256)
    wrong = f"part {part} of the dataset {description.name} is not in the bucket as described; {_ADD_AGAIN}"
    try:
        beginning = store.get(keys.DATASETS, key, span=(0, HEADER_BYTES))
        start = _images_at(beginning, (described.images, *description.shape)) + index * size
        found = store.get(keys.DATASETS, key, span=(start, start + size))
    except (NotFound, ValueError, struct.error) as error:
        raise DamagedDataset(wrong) from error
    if len(found) != size:
        raise DamagedDataset(wrong)
    return np.frombuffer(found, np.uint8).reshape(description.shape)


def _images_at(beginning: bytes, shape: tuple[int, ...]) -> int:
    """Return where the pixels of the first image begin in a part's file.

    Raises:
        ValueError, struct.error: it is no such file, or its images are not of this shape.
    """
    name, extra = struct.unpack_from("<HH", beginning, 26)  # of the first entry's local header (APPNOTE.TXT 4.3.7)
    stream = io.BytesIO(beginning[30 + name + extra :])
    if beginning[:4] != b"PK\x03\x04" or beginning[30 : 30 + name] != b"images.npy":
        raise ValueError("its first entry is not images.npy")
    np.lib.format.read_magic(stream)
    if np.lib.format.read_array_header_1_0(stream) != (shape, False, np.dtype(np.uint8)):
        raise ValueError("its images have another shape")
    return int(30 + name + extra + stream.tell())


def encode(part: PartArrays) -> bytes:
    """Return a part as an `.npz` file, stored; equal arrays give equal bytes on every machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, array in (("images", part.images), ("labels", part.labels)):
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # whatever system this is
            npy = io.BytesIO()
            np.lib.format.write_array(npy, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            file.writestr(entry, npy.getbuffer())
    return buffer.getvalue()


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation (N in the denominator) of each channel of pixels scaled to 0..1.

    Sums are of integers, so every machine has the same figures. A channel of one value has the deviation 1.
    """
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = [int(count) for count in np.bincount(images[..., channel].ravel(), minlength=256)]
        n = sum(counts)
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / (255 * n))
        deviations.append(math.sqrt((n * squares - total * total) / (255 * n) ** 2) or 1.0)
    return tuple(means), tuple(deviations)


def choose_probe(labels: NDArray[np.int64], n: int = 100) -> NDArray[np.int64]:
    """Return ascending positions of `n` labels, as many of each class as there are of others, spread over its images.

    Where a class has too few, the others have more; where there are more classes than `n`, classes are spread as well.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quota = np.zeros_like(counts)
    while (missing := min(n, len(labels)) - quota.sum()) > 0:
        open_classes = np.flatnonzero(quota < counts)
        quota[_spread(open_classes, min(missing, len(open_classes)))] += 1
    chosen = [_spread(np.flatnonzero(labels == one), count) for one, count in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _spread(positions: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    return positions[np.arange(count) * len(positions) // max(count, 1)]


def _write_description(store: ObjectStore, description: DatasetDescription) -> None:
    content = canonical_json(description.model_dump(mode="json"))
    key = keys.dataset_description(description.name)
    try:
        there = store.get(keys.DATASETS, key)
    except NotFound:
        there = b""
    if there != content:
        store.put(keys.DATASETS, key, content, media_type="application/json")


def _fetched(store: ObjectStore, description: DatasetDescription, part: PartName, cache: Path) -> Path:
    wanted = _described(description, part).sha256
    path = cache / f"{wanted}.npz"
    if path.exists() and _file_sha256(path) == wanted:
        return path
    what = f"part {part} of the dataset {description.name}"
    try:
        limit = _array_bytes(description, part) + HEADER_BYTES
        store.download(keys.DATASETS, keys.dataset_part(description.name, wanted), path, limit=limit)
    except (NotFound, Refused) as error:
        raise DamagedDataset(f"{what} is not in the bucket as described: {error}; {_ADD_AGAIN}") from error
    if (found := _file_sha256(path)) != wanted:
        path.unlink(missing_ok=True)
        raise DamagedDataset(f"{what} has the SHA-256 {found} where {wanted} is described; {_ADD_AGAIN}")
    return path


def _described(description: DatasetDescription, part: PartName) -> DatasetPart:
    found = description.part(part)
    assert found is not None, f"{description.name} has no {part} part, as `fetch` has seen"
    return found


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _array_bytes(description: DatasetDescription, part: str) -> int:
    """Return the bytes of a part's two arrays."""
    described = _described(description, cast(PartName, part))
    return described.images * (math.prod(description.shape) + 8)


def _decode(path: Path, array_bytes: int) -> PartArrays:
    with zipfile.ZipFile(path) as file:  # before anything is unpacked
        if (size := sum(entry.file_size for entry in file.infolist())) > array_bytes + HEADER_BYTES:
            raise ValueError(f"{size} bytes unpacked, of which {array_bytes} are described")
    with np.load(path, allow_pickle=False) as arrays:
        return PartArrays(arrays["images"], arrays["labels"])
