"""What one call of an operator is worth: a number, where it is on sizes, else a step by its table. Shared by both readers.

Traces and exported programs call the same operators of ATen, so one vocabulary serves them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from layerscope.models.formats.torchscript.calls import TracedCall, Value, bound, unknown
from layerscope.models.formats.torchscript.created import CREATING
from layerscope.models.formats.torchscript.numbers import number_call
from layerscope.models.formats.torchscript.operators import base_name, known
from layerscope.models.remedies import NOT_RANDOM
from layerscope.schemas.errors import Refused


def operator_call(
    name: str, args: list[Value], kwargs: Mapping[str, Value], add: Callable[[TracedCall], TracedCall]
) -> Value:
    """Return the value of a call; `add` enters the steps that it takes.

    Raises:
        Refused: `unknown-operator`, `bad-code`.
    """
    number = None if name in CREATING else number_call(name, args, add, kwargs)
    if number is not None:
        return number
    if not known(name):
        raise unknown(name)
    return add(TracedCall(name, bound(name, args, kwargs), in_place=base_name(name)[1]))


def is_training(call: Value) -> bool:
    """Return whether a call does what only a model in training mode does: drops values, or takes statistics of the batch."""
    if not isinstance(call, TracedCall):
        return False
    arguments = call.arguments
    by_batch = arguments.get("training") is True and arguments["running_mean"] is not None
    return by_batch or is_random(call)


def is_random(call: Value) -> bool:
    """Return whether a call drops values at random."""
    return isinstance(call, TracedCall) and call.arguments.get("train") is True


def is_evaluating(call: Value) -> bool:
    """Return whether a call does what only a model in eval mode does."""
    if not isinstance(call, TracedCall):
        return False
    arguments = call.arguments
    by_statistics = arguments.get("training") is False and arguments["running_mean"] is not None
    return by_statistics or arguments.get("train") is False


def random_in_eval(what: str) -> Refused:
    """Return the refusal of a model that drops values at random although it is in eval mode."""
    return Refused("random-in-eval", f"{what} in eval mode, so the model has no fixed answer.", NOT_RANDOM)
