"""The common probe set: images that all datasets of one image shape share, so that classes of any two can be compared.

`init` and `datasets add` call `ensure`. It gives a dataset the set that others of its shape have, and makes one where
there is none. Only `renew` makes another one where models may stand on the present one: what is made from it then has
other addresses, is missing, and is asked for by repair, as after any change of a dataset.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from layerscope.schemas import keys
from layerscope.schemas.datasets import CommonProbe, DatasetDescription, PartName
from layerscope.schemas.digests import sha256
from layerscope.schemas.errors import NotFound
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.object_store import ObjectStore

IMAGES: Final = 256
"""The most there are together: of each dataset as many as of others, and of its classes likewise."""
FEWER: Final = 100
"""The most where IMAGES would have more than MOST_NUMBERS numbers: every model is run over them several times."""
MOST_NUMBERS: Final = 2**24
_FROM: Final[tuple[PartName, ...]] = ("probe", "test", "train")


def ensure(store: ObjectStore) -> None:
    """Give every dataset that lacks it the common probe set of its shape; what is there stays.

    A set on which no model can stand, for none is stored on any dataset of its shape, is made from all of these.

    Raises:
        DamagedDataset: a part that images are to be taken from is not the one described; add the dataset again.
    """
    for group in _by_shape(store):
        lacking = [one for one in group if not _is_there(store, one)]
        if not lacking:
            continue
        having = next((one for one in group if one not in lacking), None)
        if having is None or not any(_has_models(store, one.name) for one in group):
            _give(store, group, *_made(store, group))
        else:
            assert having.common is not None
            content = store.get(keys.DATASETS, keys.dataset_part(having.name, having.common.sha256))
            _give(store, lacking, content, having.common)


def renew(store: ObjectStore, name: str) -> list[DatasetDescription]:
    """Make the common probe set of a dataset's shape from all datasets of that shape; return these.

    The same datasets lead to the same set, so that a call that was cut short can be repeated.

    Raises:
        NotFound: there is no such dataset.
        DamagedDataset: as for `ensure`.
    """
    group = next((group for group in _by_shape(store) if any(one.name == name for one in group)), None)
    if group is None:
        raise NotFound(f"there is no dataset {name}")
    _give(store, group, *_made(store, group))
    return group


def chosen(parts: Sequence[PartArrays]) -> PartArrays:
    """Return images of these parts: of each an equal share, spread over its classes; nothing is drawn."""
    images = IMAGES if IMAGES * parts[0].images[0].size <= MOST_NUMBERS else FEWER
    shares = np.diff(np.linspace(0, images, len(parts) + 1).round().astype(int))
    taken = [
        part.images[datasets.choose_probe(part.labels, max(int(share), 1))]
        for part, share in zip(parts, shares, strict=True)
    ]
    together = np.concatenate(taken)
    return PartArrays(together, np.zeros(len(together), np.int64))


def _by_shape(store: ObjectStore) -> list[list[DatasetDescription]]:
    """Return the datasets, by name, of each shape."""
    names = {one.key.partition("/")[0] for one in store.list(keys.DATASETS)}
    found: dict[tuple[int, int, int], list[DatasetDescription]] = {}
    for name in sorted(names):
        description = datasets.describe(store, name)
        if description is not None:
            found.setdefault(description.shape, []).append(description)
    return list(found.values())


def _made(store: ObjectStore, group: Sequence[DatasetDescription]) -> tuple[bytes, CommonProbe]:
    parts = []
    with TemporaryDirectory() as folder:
        for one in group:
            name = next(part for part in _FROM if part in one.parts)
            parts.append(datasets.load(store, one, (name,), Path(folder)).part(name))
    together = chosen(parts)
    content = datasets.encode(together)
    sources = tuple(one.name for one in group)
    return content, CommonProbe(sha256=sha256(content), images=len(together), sources=sources)


def _give(store: ObjectStore, group: Sequence[DatasetDescription], content: bytes, common: CommonProbe) -> None:
    for one in group:
        datasets.write_common(store, one, content, common)


def _is_there(store: ObjectStore, description: DatasetDescription) -> bool:
    if description.common is None:
        return False
    there = store.head(keys.DATASETS, keys.dataset_part(description.name, description.common.sha256))
    return there is not None and there.size > 0


def _has_models(store: ObjectStore, dataset: str) -> bool:
    return next(iter(store.list(keys.MODELS, f"{dataset}/")), None) is not None
