"""What an answer about a test image stands on, in the worker: the images nearest to it, and the places that speak for it."""

from __future__ import annotations

from layerscope.functions.analysis.outputs import predicted_classes
from layerscope.functions.analysis.searched_images import passed
from layerscope.functions.inference.attribution import attributed
from layerscope.functions.inference.call import Call, Explained
from layerscope.functions.inference.nearest import nearest
from layerscope.functions.inference.prediction import held
from layerscope.schemas.errors import Refused


def explain(call: Call, index: int) -> Explained:
    """Return what the answer about a test image stands on; the pixels of the call are its own.

    Raises:
        Refused: the model does not fit its dataset.
    """
    found = held(call)
    kept = found.model
    made = passed(kept.model, kept.classifier, kept.tests.layer, call.pixels[None])
    label, predicted = int(kept.labels[index]), int(predicted_classes(made.outputs)[0])
    classes = [one for one in dict.fromkeys((predicted, label)) if one >= 0]
    kind = call.output_kind or kept.output_kind
    try:
        maps, reason = attributed(kept.classifier, kind, kept.layers, kept.multiply_adds, call.pixels, classes), None
    except Refused as refused:
        maps, reason = None, refused.message
    return Explained(
        label=label,
        predicted=predicted,
        near=nearest(kept.tests, made.features, without=index),
        attributed=maps,
        reason=reason,
        device=found.device,
        kept=found.kept,
        kept_bytes=found.kept_bytes,
    )
