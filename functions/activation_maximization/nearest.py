"""The test image nearest to each picture as the model sees both: by its own features, not by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layerscope.functions.analysis.inference import Classifier, Images
from layerscope.functions.analysis.searched_images import distances, passed, search_set
from layerscope.models.safe_form import SafeModel
from layerscope.stores.datasets import PartArrays


@dataclass(frozen=True, slots=True)
class NearestImages:
    """Positions in the test part, one a picture, -1 where none can be compared; `layer`: whose input is, None: outputs.

    `searched`: how many test images were.
    """

    indices: Sequence[int]
    layer: str | None
    searched: int

    def images(self, test: Images) -> Images:
        """Return these images of the test part (N, H, W, C); a black one where there is none."""
        found = test[np.maximum(self.indices, 0)]
        found[np.less(self.indices, 0)] = 0
        return found


def nearest_images(
    pictures: Images, model: SafeModel, classifier: Classifier, test: PartArrays, number: int
) -> NearestImages:
    """Search so many test images for those nearest to pictures (P, H, W, C): Euclidean, ties by position.

    Compared is what the last layer with weights is given. Where a model has no such layer, or it is given something
    else than a row an image, its outputs are.
    """
    tests, outputs = search_set(model, classifier, test, number)
    layer = tests.layer if tests.reason is None else None
    made = passed(model, classifier, layer, pictures)
    own, others = (made.outputs, outputs) if layer is None or made.features is None else (made.features, tests.rows)
    exact = others.astype(np.float64)
    found = [distances(exact, row) for row in own]
    indices = [int(tests.indices[one.argmin()]) if np.isfinite(one.min()) else -1 for one in found]
    return NearestImages(indices, layer, len(tests.indices))
