"""Images as (height, width, channels), as Keras has them: the model is given (channels, height, width), like every other."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from layerscope.models.formats.onnx_graph.program import OnnxStep, Program

NOTE: Final = (
    "The file takes images as (height, width, channels); the model takes them as (channels, height, width) now."
)
_CHANNELS: Final = frozenset({1, 3, 4})
_TO_FIRST, _TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
_IMAGES: Final = "images, channels first"


def is_channels_last(shape: tuple[int | None, ...]) -> bool:
    """Tell from an input's shape whether its channels come last: (images, 224, 224, 3)."""
    return len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS


def channels_first(program: Program) -> Program:
    """Return a program that takes (images, channels, height, width).

    Its first step, which turns images round for the convolutions, is left out; where there is none, one is put before.
    """
    batch, height, width, channels = program.shape
    shape = (batch, channels, height, width)
    users = [step for step in program.steps if program.input in step.inputs]
    if users and program.output != program.input and all(_turns(step) for step in users):
        turned = {step.outputs[0] for step in users}
        steps = tuple(
            replace(step, inputs=tuple(program.input if name in turned else name for name in step.inputs))
            for step in program.steps
            if step not in users
        )
        output = program.input if program.output in turned else program.output
        return replace(program, steps=steps, shape=shape, output=output)
    back = OnnxStep("Transpose", (_IMAGES,), (program.input,), {"perm": _TO_LAST}, "", None)
    return replace(program, steps=(back, *program.steps), input=_IMAGES, shape=shape)


def _turns(step: OnnxStep) -> bool:
    return step.operator == "Transpose" and step.attributes.get("perm") == _TO_FIRST
