"""What the worker found, in the words of the answer: names of classes, probabilities, pictures."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from layerscope.functions.analysis.images import png
from layerscope.functions.analysis.outputs import finite_rows, log_probabilities
from layerscope.functions.inference.call import Near, Predicted, Strongest
from layerscope.functions.inference.stored_model import StoredModel
from layerscope.schemas.inference import (
    ClassOutput,
    InferenceSeconds,
    Nearest,
    NearestImage,
    PictureReading,
    PredictionAnswer,
    StrongestMap,
)

if TYPE_CHECKING:
    from layerscope.functions.analysis.pictures.picture import Picture

NOTHING_TO_COMPARE: Final = "There is no channel to compare: each is dead, constant or not finite on the test images."


def answer_of(model: StoredModel, picture: Picture, made: Predicted) -> PredictionAnswer:
    """Return the answer about one picture."""
    identity = model.identity
    classes = classes_of(made.outputs, made, model.description.classes)
    return PredictionAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        content=model.content,
        device=made.device,
        predicted=classes[0] if finite_rows(made.outputs[None])[0] else None,
        classes=classes,
        output_kind=made.output_kind,
        read=_reading(model, picture),
        nearest=nearest_of(model, made.near),
        map=_map(made.strongest),
        map_reason=None if made.strongest else model.no_ranked or NOTHING_TO_COMPARE,
        seconds=InferenceSeconds(
            reading=round(picture.seconds, 4), loading=round(made.loading, 4), computing=round(made.computing, 4)
        ),
    )


def classes_of(outputs: NDArray[np.float32], made: Predicted, names: tuple[str, ...]) -> tuple[ClassOutput, ...]:
    """Return every class, the largest output first, of equals the first; in their order where one is not finite."""
    if not finite_rows(outputs[None])[0]:
        finite = [float(one) if math.isfinite(one) else None for one in outputs]
        return tuple(
            ClassOutput(index=index, name=name, output=output, probability=None)
            for index, (name, output) in enumerate(zip(names, finite, strict=True))
        )
    probabilities = np.exp(log_probabilities(outputs[None], made.output_kind)[0])
    return tuple(
        ClassOutput(index=one, name=names[one], output=float(outputs[one]), probability=float(probabilities[one]))
        for one in np.argsort(-outputs, kind="stable").tolist()
    )


def _reading(model: StoredModel, picture: Picture) -> PictureReading:
    description = model.description
    channels = picture.pixels.shape[2]
    shown = picture.pixels if channels == 3 else picture.pixels[..., 0]
    return PictureReading(
        format=picture.format,
        width=picture.width,
        height=picture.height,
        mode=picture.mode,
        steps=picture.steps,
        shape=description.shape,
        mean=description.mean,
        std=description.std,
        picture=data_uri(shown),
    )


def nearest_of(model: StoredModel, near: Near) -> Nearest:
    """Return what is nearest among the test images, with where each is shown."""
    names, part = model.description.classes, model.description.part("test")
    pictures, pages = f"/datasets/{model.description.name}/images", f"/models/{model.identity.subject}/images"
    return Nearest(
        layer=near.layer,
        features=near.features,
        searched=near.searched,
        test_images=part.images if part else 0,
        images=tuple(
            NearestImage(
                index=one.index,
                distance=one.distance,
                label=one.label,
                label_name=names[one.label],
                predicted=one.predicted if one.predicted >= 0 else None,
                predicted_name=names[one.predicted] if one.predicted >= 0 else None,
                picture=f"{pictures}/{one.index}.png?sha256={part.sha256 if part else ''}",
                page=f"{pages}/{one.index}",
            )
            for one in near.images
        ),
        reason=near.reason,
    )


def _map(found: Strongest | None) -> StrongestMap | None:
    if found is None:
        return None
    values = found.map.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    grey = np.rint((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return StrongestMap(
        layer=found.layer,
        call=found.call,
        channel=found.channel,
        norm=found.norm,
        strongest=found.strongest,
        ratio=found.norm / found.strongest,
        low=low,
        high=high,
        picture=data_uri(grey),
    )


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return grey (H, W) or RGB (H, W, 3) pixels as a data URI of a PNG."""
    return f"data:image/png;base64,{base64.b64encode(png(Image.fromarray(pixels))).decode()}"
