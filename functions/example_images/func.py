"""Example images: the test images that show best what a model does, by class, by confidence and by confusion."""

from __future__ import annotations

import numpy as np

from layerscope.functions.analysis.images import sprite_sheet
from layerscope.functions.example_images.choice import capacity, cells_of, filled, most_confused
from layerscope.functions.example_images.judgements import judge
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.schemas.products.example_images import ExampleImage, ExampleImages
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import Dataset


def compute(predictions: Predictions, dataset: Dataset) -> ExampleImages:
    """Choose images by their stored outputs and put them on one sheet."""
    limits = ExampleImages.declared.parameters
    test, described = dataset.part("test"), dataset.description
    judged = judge(predictions.outputs, test.labels, predictions.output_kind)
    right, wrong = judged.right, judged.wrong
    most = capacity(described.shape, limits["images"], limits["pixels"], limits["fewest"])
    listed = min(limits["listed"], most // 8)  # three lists and the representative leave more than half to the cells
    surest_right = judged.most_confident(right, listed).tolist()
    least_sure_right = judged.least_confident(right, listed).tolist()
    surest_wrong = judged.most_confident(wrong, listed).tolist()
    cells = cells_of(judged, len(described.classes))
    pair = most_confused(cells, predictions.outputs, predictions.output_kind)
    shown = {*surest_right, *least_sure_right, *surest_wrong}
    if pair is not None:
        shown.add(pair.representative)
    shown_cells = filled(cells, judged, shown, most, limits["a_cell"])
    indices = sorted(shown)
    sheet, places = sprite_sheet(test.images[indices])
    return ExampleImages(
        classes=described.classes,
        examples=tuple(
            ExampleImage(
                index=index,
                label=int(test.labels[index]),
                predicted=int(judged.predicted[index]),
                confidence=float(judged.confidence[index]),
                place=place,
            )
            for index, place in zip(indices, places, strict=True)
        ),
        cells=tuple(shown_cells),
        cells_left_out=len(cells) - len(shown_cells),
        most_confused=pair,
        most_confident_right=tuple(surest_right),
        least_confident_right=tuple(least_sure_right),
        most_confident_wrong=tuple(surest_wrong),
        right=len(right),
        wrong=len(wrong),
        non_finite=len(judged.non_finite),
        non_finite_first=tuple(judged.non_finite[:listed].tolist()),
        labels=judged.labels.astype(np.int32),
        predicted=judged.predicted.astype(np.int32),
        confidence=judged.confidence.astype(np.float32),
        own=judged.own.astype(np.float32),
        sheet=sheet,
    )


def new() -> ProductFunction:
    """Return the function, as `func` expects it."""
    return ProductFunction(ExampleImages, compute)
