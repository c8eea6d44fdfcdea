"""Gradients by what a model is shown, under the numerical rules of inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from layerscope.functions.analysis.inference import inference


@contextmanager
def differentiating(model: nn.Module) -> Iterator[None]:
    """Compute with gradients of pictures, not of weights, and by the numerical rules of `inference`."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with ExitStack() as stack:
        stack.enter_context(inference())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            # cuDNN has no gradient of recurrent layers in eval mode.
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        # What was laid out again under `inference` is barred from autograd; a copy is not.
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_inference() or tensor.data.is_inference():
                tensor.data = tensor.data.clone()
        yield
