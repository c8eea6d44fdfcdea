"""One picture through a model, in the worker: one forward pass serves the outputs, the features and the feature maps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.analysis.feature_maps.shapes import Shaped, recorded, shaped
from layerscope.functions.analysis.feature_maps.sites import sites
from layerscope.functions.analysis.features import Features
from layerscope.functions.analysis.inference import Classifier, fit, inference
from layerscope.functions.analysis.outputs import output_kind
from layerscope.functions.analysis.searched_images import SearchedImages, search_set
from layerscope.functions.inference.call import Call, Predicted
from layerscope.functions.inference.nearest import cost_of_one, nearest, searched
from layerscope.functions.inference.strongest_map import Responses
from layerscope.functions.runtime.kept_models import KeptModels
from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import tapped
from layerscope.schemas.digests import digest
from layerscope.schemas.products.predictions import OutputKind
from layerscope.stores import datasets

COPIES: Final = 2
"""Of the picture in its batch: what models that squeeze their features stumble over is a single one."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A model that was seen to fit its dataset, where its feature maps are, and its features of the test images.

    `labels` are those of the test part, (N,), and `multiply_adds` are those of one image; None: not known.
    """

    model: SafeModel
    classifier: Classifier
    layers: tuple[Shaped, ...]
    tests: SearchedImages
    output_kind: OutputKind
    labels: NDArray[np.int64]
    multiply_adds: int | None

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensors and of the features."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(one.untyped_storage().nbytes() for one in tensors) + self.tests.bytes + self.labels.nbytes


@cache
def kept_models(budget: int) -> KeptModels[Kept]:
    """Return the models that this process keeps."""
    return KeptModels(budget)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A model in memory: whether it was before, its device, and how many there are with how many bytes."""

    model: Kept
    device: str
    was_kept: bool
    kept: int
    kept_bytes: int


def held(call: Call) -> Held:
    """Return the model that is asked, from memory or built.

    Raises:
        Refused: the model does not fit its dataset.
    """
    device = safe_form.choose_device(call.device)
    models = kept_models(call.budget)
    key = digest([call.content, device, call.description.model_dump(mode="json")])
    was_kept = key in models.keys
    kept = models.get(key, lambda: call.model.stat().st_size, lambda: _built(call, device))
    return Held(kept, device, was_kept, len(models.keys), models.bytes)


def predict(call: Call) -> Predicted:
    """Return what a model says of a picture.

    Raises:
        Refused: the model does not fit its dataset.
    """
    start = time.perf_counter()
    found = held(call)
    kept, loaded = found.model, time.perf_counter()
    features, responses = Features(kept.tests.layer), Responses(kept.layers, call.ranked)
    batch = np.repeat(call.pixels[None], COPIES, axis=0)
    with inference(), ExitStack() as taps:
        taps.enter_context(features.taken(kept.model))
        taps.enter_context(tapped(kept.model, responses.taps))
        outputs = kept.classifier(batch)[0].float().cpu().numpy()
    return Predicted(
        outputs=outputs,
        output_kind=call.output_kind or kept.output_kind,
        device=found.device,
        near=nearest(kept.tests, features.rows),
        strongest=responses.best,
        loading=0.0 if found.was_kept else loaded - start,
        computing=time.perf_counter() - loaded,
        kept=found.kept,
        kept_bytes=found.kept_bytes,
    )


def _built(call: Call, device: str) -> Kept:
    model = safe_form.load(call.model, device)
    test = datasets.read(call.description, {"test": call.test}).part("test")
    convolutions = [one for one in sites(model.safe_graph) if one.is_convolution]
    with recorded(model, convolutions) as shapes:
        classifier = fit(model, test.images, call.description, device)
    layers = tuple(shaped(one, shapes, len(test.images[:2])) for one in convolutions)
    one = cost_of_one(model, call.description.shape)
    found, outputs = search_set(model, classifier, test, searched(one, device, len(test)))
    return Kept(model, classifier, layers, found, output_kind(outputs), test.labels.copy(), one)
