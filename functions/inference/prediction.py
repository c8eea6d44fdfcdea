"""One picture through a model, in the worker: one forward pass serves the outputs, the features and the feature maps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from layerscope.functions.analysis.activations import tapped
from layerscope.functions.analysis.feature_maps.shapes import Shaped, recorded, shaped
from layerscope.functions.analysis.feature_maps.sites import sites
from layerscope.functions.analysis.features import Features
from layerscope.functions.analysis.inference import Classifier, fit, inference
from layerscope.functions.analysis.outputs import output_kind
from layerscope.functions.analysis.searched_images import SearchedImages, search_set
from layerscope.functions.inference.call import Call, Predicted
from layerscope.functions.inference.nearest import nearest, searched
from layerscope.functions.inference.strongest_map import Responses
from layerscope.functions.runtime.kept_models import KeptModels
from layerscope.models import safe_form
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.digests import digest
from layerscope.schemas.products.predictions import OutputKind
from layerscope.stores import datasets

COPIES: Final = 2
"""Of the picture in its batch: what models that squeeze their features stumble over is a single one."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A model that was seen to fit its dataset, where its feature maps are, and its features of the test images."""

    model: SafeModel
    classifier: Classifier
    layers: tuple[Shaped, ...]
    tests: SearchedImages
    output_kind: OutputKind

    @property
    def bytes(self) -> int:
        """Return the bytes of the tensors and of the features."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        return sum(one.untyped_storage().nbytes() for one in tensors) + self.tests.bytes


@cache
def kept_models(budget: int) -> KeptModels[Kept]:
    """Return the models that this process keeps."""
    return KeptModels(budget)


def predict(call: Call) -> Predicted:
    """Return what a model says of a picture.

    Raises:
        Refused: the model does not fit its dataset.
    """
    start = time.perf_counter()
    device = safe_form.choose_device(call.device)
    models = kept_models(call.budget)
    key = digest([call.content, device, call.description.model_dump(mode="json")])
    was_kept = key in models.keys
    kept = models.get(key, lambda: call.model.stat().st_size, lambda: _built(call, device))
    loaded = time.perf_counter()
    features, responses = Features(kept.tests.layer), Responses(kept.layers, call.ranked)
    batch = np.repeat(call.pixels[None], COPIES, axis=0)
    with inference(), ExitStack() as taps:
        taps.enter_context(features.taken(kept.model))
        taps.enter_context(tapped(kept.model, responses.taps))
        outputs = kept.classifier(batch)[0].float().cpu().numpy()
    return Predicted(
        outputs=outputs,
        output_kind=call.output_kind or kept.output_kind,
        device=device,
        near=nearest(kept.tests, features.rows),
        strongest=responses.best,
        loading=0.0 if was_kept else loaded - start,
        computing=time.perf_counter() - loaded,
        kept=len(models.keys),
        kept_bytes=models.bytes,
    )


def _built(call: Call, device: str) -> Kept:
    model = safe_form.load(call.model, device)
    test = datasets.read(call.description, {"test": call.test}).part("test")
    convolutions = sites(model.safe_graph)
    with recorded(model, convolutions) as shapes:
        classifier = fit(model, test.images, call.description, device)
    layers = tuple(shaped(one, shapes, len(test.images[:2])) for one in convolutions)
    number = searched(model, device, len(test), call.description.shape)
    found, outputs = search_set(model, classifier, test, number)
    return Kept(model, classifier, layers, found, output_kind(outputs))
