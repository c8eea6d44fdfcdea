"""From phases to what a model is shown: pictures with the statistics of a dataset, and the gradient that leads back.

This runs at every step, next to the model's own passes, so it is written for few operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from layerscope.functions.activation_maximization.prior import Prior


@dataclass(frozen=True, slots=True)
class Rendering:
    """A prior, and the mean and deviation (C, 1, 1) by which the model's input is normalised."""

    prior: Prior
    mean: Tensor
    std: Tensor

    @property
    def black(self) -> Tensor:
        """Return what the model is shown of the darkest pixel, (C, 1, 1)."""
        return -self.mean / self.std

    @property
    def white(self) -> Tensor:
        """Return what the model is shown of the brightest pixel, (C, 1, 1)."""
        return (1 - self.mean) / self.std

    def shown(self, phases: Tensor, shift: int = 0) -> Tensor:
        """Return what the model is shown (N, C, H, W), with a gradient.

        Args:
            phases: of the pictures' spectra, in radians, (N, C, H, W // 2 + 1).
            shift: by how many pixels, in reading order, pictures are moved round the edge: `down * W + right`.
        """
        made: Tensor = _Shown.apply(phases, self, shift)
        return made

    def pixels(self, shown: Tensor) -> Tensor:
        """Return pictures of 0..1 from what the model is shown."""
        return torch.addcmul(self.mean, shown, self.std).clamp(0, 1)


class _Shown(torch.autograd.Function):
    """Renders with a gradient of its own: that of autograd, through complex numbers, takes three times as long."""

    @staticmethod
    def forward(ctx: Any, phases: Tensor, rendering: Rendering, shift: int) -> Tensor:
        prior = rendering.prior
        real, imaginary = phases.cos().mul_(prior.magnitudes), phases.sin().mul_(prior.magnitudes)
        fields = torch.fft.irfft2(torch.complex(real, imaginary), s=prior.mean.shape[-2:], norm="ortho")
        if len(prior.colours) > 1:
            fields = torch.einsum("cd,ndhw->nchw", prior.colours, fields)
        wished = torch.addcmul(prior.mean, prior.deviation, fields)
        pictures = wished.clamp(0, 1)
        ctx.save_for_backward(real, imaginary, wished == pictures)
        ctx.rendering, ctx.shift = rendering, shift
        return _rolled(torch.addcmul(rendering.black, pictures, 1 / rendering.std), shift)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        real, imaginary, free = ctx.saved_tensors
        prior, std = ctx.rendering.prior, ctx.rendering.std
        fields = _rolled(gradient, -ctx.shift).mul(prior.deviation / std).mul_(free)
        if len(prior.colours) > 1:
            fields = torch.einsum("cd,nchw->ndhw", prior.colours, fields)
        back = torch.fft.rfft2(fields, norm="ortho")
        # The derivative of Re(w z e^iθ) by the phase of z; w counts the half of the spectrum that is not stored.
        phases = (real * back.imag).addcmul_(imaginary, back.real, value=-1)
        phases[..., 1 : (fields.shape[-1] + 1) // 2] *= 2
        return phases, None, None


def _rolled(batch: Tensor, shift: int) -> Tensor:
    return batch.flatten(2).roll(shift, 2).view(batch.shape) if shift else batch
