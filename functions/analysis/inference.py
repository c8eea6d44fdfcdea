"""Images to a model's outputs: normalised batches, one set of numerical rules, and models that do not fit refused.

`fit` runs a model once before anything else does; what it returns has been seen to take the dataset's images and to
answer with one number a class, so that the functions behind it need no checks of their own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.functions.analysis.activations import Entered, entered, weight_layers
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused

Images = NDArray[np.uint8]

# What tensors of the wrong shape, dtype or number raise inside a model. Memory is not among them: see `_is_fault`.
_MISFITS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_WIDE: Final = 512
_OUT_OF_MEMORY: Final = ("allocate memory", "out of memory", "bad_alloc")
_HINT: Final = "Upload it under the dataset that it was trained on; `layerscope datasets list` shows them."


@contextmanager
def inference() -> Iterator[None]:
    """Compute without autograd, in full float32 (no TF32), with kernels that repeat, and with denormals as zero."""
    torch.set_flush_denormal(True)
    try:
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_flush_denormal(False)


def normalised(
    images: Images,
    description: DatasetDescription,
    device: str,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Return uint8 images (N, H, W, C) as a model sees them: float32 (N, C, H, W)."""
    mean, std = (np.reshape(figures, (-1, 1, 1)) for figures in (description.mean, description.std))
    scale = torch.tensor(1 / (255 * std), dtype=torch.float32, device=device)
    shift = torch.tensor(-mean / std, dtype=torch.float32, device=device)
    pixels = torch.tensor(images, device=device).permute(0, 3, 1, 2)  # bytes travel: a quarter of what floats would be
    # Copied into a layout of its own: with one channel, a permuted tensor passes for contiguous and for channels last
    # alike, and torch then takes its pick for all that follows.
    floats = torch.empty(pixels.shape, dtype=torch.float32, device=device, memory_format=memory_format)
    return floats.copy_(pixels).mul_(scale).add_(shift)


@dataclass(frozen=True, slots=True)
class Classifier:
    """A model that was seen to fit its dataset; made by `fit`."""

    model: nn.Module
    description: DatasetDescription
    device: str
    memory_format: torch.memory_format

    def inputs(self, images: Images) -> Tensor:
        """Return uint8 images (N, H, W, C) as the model is given them, float32 (N, C, H, W)."""
        return normalised(images, self.description, self.device, self.memory_format)

    def __call__(self, images: Images) -> Tensor:
        """Return the outputs (N, classes) of one batch; to be called inside `inference()`.

        Raises:
            Refused: the model fails on this batch, or its outputs are not of that shape.
        """
        outputs = _answer(self.model, self.inputs(images), self.description)
        return _checked(outputs, len(images), self.description)

    def outputs(self, images: Images, batch: int) -> NDArray[np.float32]:
        """Return the outputs (N, classes) of all images, computed in batches of at most `batch`.

        Raises:
            Refused: as for one batch.
        """
        answers = np.empty((len(images), len(self.description.classes)), np.float32)
        # Even batches: a last one of a single image is what models that squeeze their features stumble over.
        bounds = np.linspace(0, len(images), -(-len(images) // batch) + 1).astype(int)
        with inference():
            for start, stop in pairwise(bounds):
                answers[start:stop] = self(images[start:stop]).cpu().numpy()
        return answers


def fit(
    model: nn.Module, images: Images, description: DatasetDescription, device: str, *, as_it_is: bool = False
) -> Classifier:
    """Run the model on the first two of these images (N, H, W, C) and return it as one that fits its dataset.

    On a CPU the weights of a model that gains by it are laid out channels last, if it runs like that; not `as_it_is`.

    Raises:
        Refused: it does not take such images (`input-mismatch`), or returns anything but one number a class for each
            (`not-a-classifier`, `output-mismatch`).
    """
    plain = Classifier(model, description, device, torch.contiguous_format)
    first = images[:2]
    with inference():
        plain(first)
        if as_it_is or device != "cpu" or not _gains_by_channels_last(model):
            return plain
        model.to(memory_format=torch.channels_last)
        fast = Classifier(model, description, device, torch.channels_last)
        with suppress(RuntimeError):  # what `view` raises across the axes of a response, in many models
            model(fast.inputs(first))
            return fast
        model.to(memory_format=torch.contiguous_format)
        return plain


def _gains_by_channels_last(model: nn.Module) -> bool:
    """Tell from its layers, not from a clock, whose mood would show in the last digits of the outputs.

    Small, depthwise and 1x1 convolutions gain (1.2 to 2.2 times on whole models), wide dense ones lose (ResNet: 0.7).
    """
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    wide = any(layer.in_channels >= _WIDE and layer.groups == 1 and max(layer.kernel_size) > 1 for layer in layers)
    of_three_axes = any(weight.ndim > 4 for weight in model.parameters())  # has no such layout, and `to` would raise
    return bool(layers) and not wide and not of_three_axes


def _answer(model: nn.Module, batch: Tensor, description: DatasetDescription) -> Any:
    """Run the model; an error that it makes on a CPU too is its own, any other is the device's."""
    try:
        return model(batch)
    except _MISFITS as error:
        if _is_fault(error):
            raise
        own = model if batch.device.type == "cpu" else copy.deepcopy(model).cpu()
        with entered(weight_layers(own)) as path:
            try:
                own(batch.cpu())
            except _MISFITS as again:
                if _is_fault(again):
                    raise
                raise Refused("input-mismatch", _misfit(own, path, description, again), _HINT) from error
        raise


def _is_fault(error: Exception) -> bool:
    """Tell whether an error speaks of the machine, not of the model."""
    if isinstance(error, (torch.OutOfMemoryError, torch.AcceleratorError)):
        return True
    return any(sign in str(error) for sign in _OUT_OF_MEMORY)


def _misfit(model: nn.Module, path: list[Entered], description: DatasetDescription, error: Exception) -> str:
    """Say what the dataset has, what the first layer expects, and where and why the model failed."""
    height, width, channels = description.shape
    parts = [f"The model does not take the {channels}x{height}x{width} images (C, H, W) of {description.name}"]
    layers = weight_layers(model)
    first = path[0].layer if path else next(iter(layers), None)
    if first is not None:
        parts.append(f"its first layer {_expectation(first, layers[first])}")
    if path and path[-1].layer != first:
        last = path[-1]
        parts.append(f"the last layer it came to {_expectation(last.layer, layers[last.layer])}, given {last.shape}")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return "; ".join(parts) + f" ({reason[:300]})."


def _expectation(name: str, layer: nn.Module) -> str:
    """Say what one weight layer expects."""
    if isinstance(layer, nn.Linear):
        return f"{name} (Linear) expects {layer.in_features} features"
    return f"{name} ({type(layer).__name__}) expects {layer.in_channels} channel{'s'[: layer.in_channels != 1]}"


def _checked(outputs: object, images: int, description: DatasetDescription) -> Tensor:
    """Return what the model returned, if it is one number a class for each image."""
    classes = len(description.classes)
    if not isinstance(outputs, Tensor):
        raise Refused(
            "not-a-classifier",
            f"The model returns a {type(outputs).__name__}; a tensor with one number for each class is needed.",
            "Pack a model whose forward pass returns the class scores alone.",
        )
    if outputs.ndim != 2 or len(outputs) != images or not outputs.is_floating_point():
        raise Refused(
            "not-a-classifier",
            f"For {images} images the model returns {str(outputs.dtype).removeprefix('torch.')} of shape "
            f"{tuple(outputs.shape)}; floating-point numbers of shape ({images}, {classes}) are needed.",
            "Pack a model whose forward pass returns one row of class scores for each image.",
        )
    if outputs.shape[1] == classes + description.first_label:
        return outputs[:, description.first_label :]
    if outputs.shape[1] != classes:
        raise Refused(
            "output-mismatch",
            f"The model has {outputs.shape[1]} outputs; {description.name} has {classes} classes.",
            _HINT,
        )
    return outputs
