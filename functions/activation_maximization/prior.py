"""What a dataset's images have in common, as statistics: the pictures that are made share it.

`mean` and `deviation` say, pixel by pixel, where images have something to show; what is left when both are taken out
has a Fourier spectrum, whose mean magnitudes are MACO's constraint. Colours are turned to the axes along which they do
not correlate, those of the dataset itself, so that the channels of a picture go together as they do in its images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK: Final = 1_000_000
# Five of 255 levels: pixels that never change, such as the borders of digits, may vary by that much.
LEAST_DEVIATION: Final = 0.02


@dataclass(frozen=True, slots=True)
class Prior:
    """Statistics of pixels scaled to 0..1, float32 on one device.

    Attributes:
        mean: (C, H, W).
        deviation: (C, H, W), standard deviation plus `LEAST_DEVIATION`.
        colours: (C, C), orthogonal; a column is an axis of colour.
        magnitudes: (C, H, W // 2 + 1), mean absolute values of the orthonormal rfft2 along each axis of colour.
    """

    mean: Tensor
    deviation: Tensor
    colours: Tensor
    magnitudes: Tensor


def spread(images: NDArray[np.uint8], most: int) -> NDArray[np.uint8]:
    """Return at most that many of the images, spread evenly over them."""
    return images if len(images) <= most else images[np.arange(most) * len(images) // most]


def prior_of(images: NDArray[np.uint8], device: str) -> Prior:
    """Measure images (N, H, W, C)."""
    height, width, channels = images.shape[1:]
    shape = (channels, height, width)
    total, squares = (torch.zeros(shape, dtype=torch.float64, device=device) for _ in range(2))

    def moments(pixels: Tensor) -> None:
        total.add_(pixels.sum(0))
        squares.add_(pixels.square().sum(0))

    _each(images, device, moments)
    exact = total / len(images)
    mean = exact.float()
    deviation = ((squares / len(images) - exact.square()).clamp(min=0).sqrt() + LEAST_DEVIATION).float()
    covariance = torch.zeros(channels, channels, dtype=torch.float64, device=device)
    _each(images, device, lambda p: covariance.add_(torch.einsum("nchw,ndhw->cd", *[(p - mean) / deviation] * 2)))
    colours = _axes(covariance).to(device)
    magnitudes = torch.zeros(channels, height, width // 2 + 1, dtype=torch.float64, device=device)

    def spectra(pixels: Tensor) -> None:
        fields = torch.einsum("cd,nchw->ndhw", colours, (pixels - mean) / deviation)
        magnitudes.add_(torch.fft.rfft2(fields, norm="ortho").abs().sum(0))

    _each(images, device, spectra)
    return Prior(mean, deviation, colours, (magnitudes / len(images)).float())


def _each(images: NDArray[np.uint8], device: str, take: Callable[[Tensor], object]) -> None:
    """Give all images to a function, as float32 (n, C, H, W) of 0..1, some at a time."""
    for some in np.array_split(images, -(-images.size // CHUNK)):
        take(torch.tensor(some, device=device).permute(0, 3, 1, 2).float().div_(255))


def _axes(covariance: Tensor) -> Tensor:
    """Return the eigenvectors, each with its largest entry positive: solvers are free to turn them round."""
    vectors = torch.linalg.eigh(covariance.cpu()).eigenvectors
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    axes: Tensor = vectors * largest.sign()
    return axes.float()
