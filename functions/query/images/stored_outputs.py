"""A model's outputs for the test images, some rows at a time: of all images of 1,000 classes they are 200 MB. Blocking."""

from __future__ import annotations

import io
import json
import math
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.outputs import finite_rows, log_probabilities
from layerscope.functions.query import answers
from layerscope.schemas import keys
from layerscope.schemas.errors import NotFound, Unavailable
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.predictions import OutputKind, Predictions
from layerscope.stores.object_store import ObjectStore


@dataclass(frozen=True, slots=True)
class StoredOutputs:
    """Where a .npy file of rows (N, C) is, and how it begins."""

    store: ObjectStore
    sha256: str
    kind: OutputKind
    shape: tuple[int, ...]
    dtype: np.dtype[np.float32]
    start: int

    def probabilities(self, first: int, after: int) -> NDArray[np.float64]:
        """Return the probabilities (after - first, C) of the images from `first` to before `after`; NaN where not finite.

        Raises:
            Unavailable: the file is shorter, or lost.
        """
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        content = _span(self.store, self.sha256, self.start + first * width, self.start + after * width)
        outputs = np.frombuffer(content, self.dtype).reshape(after - first, -1)
        finite = finite_rows(outputs)
        found = np.full(outputs.shape, np.nan)
        found[finite] = np.minimum(np.exp(log_probabilities(outputs[finite], self.kind)), 1)
        return found


def stored_outputs(store: ObjectStore, identity: Identity) -> StoredOutputs | None:
    """Return a model's outputs; None where they are not there (yet).

    Raises:
        Unanswerable: there is no such model.
        Unavailable: the file is shorter, or lost.
    """
    outcome = answers.standing(store, identity).outcomes.get(Predictions.declared.name)
    manifest = outcome.manifest if outcome else None
    if manifest is None or manifest.state != "complete":
        return None
    kind = json.loads(answers.content(store, manifest.file(DATA)))["output_kind"]
    sha256 = manifest.file("outputs.npy").sha256
    beginning = _span(store, sha256, 0, 10)
    (length,) = struct.unpack("<H", beginning[8:10])
    stream = io.BytesIO(_span(store, sha256, 0, 10 + length))
    np.lib.format.read_magic(stream)
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return StoredOutputs(store, sha256, kind, shape, dtype, stream.tell())


def _span(store: ObjectStore, sha256: str, first: int, after: int) -> bytes:
    try:
        content = store.get(keys.PRODUCTS, keys.blob(sha256), span=(first, after))
    except NotFound as error:
        raise Unavailable("the stored bytes of outputs.npy are lost") from error
    if len(content) != after - first:
        raise Unavailable("the stored bytes of outputs.npy are cut short")
    return content
