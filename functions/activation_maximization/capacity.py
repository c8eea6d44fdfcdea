"""How many pictures there may be, so that no model takes hours: by their pixels, and by what the model costs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from layerscope.functions.analysis.activations import LayerCall, reduced, weight_layers
from layerscope.functions.analysis.inference import Classifier, Images, inference


def capacity(classifier: Classifier, images: Images, pixels: int, multiply_adds: int) -> int:
    """Return how many pictures like these images (N, H, W, C) have so many pixels and multiply-adds; one at least.

    Costs are those of one forward pass for each picture, in convolutions and linear layers: `functions.costs` counts
    all, but on torch's meta device, whose first use takes longer than the pictures of a small model.
    """
    height, width = images.shape[1:3]
    some, layers = images[:2], weight_layers(classifier.model)

    def cost(call: LayerCall, output: Tensor) -> int:
        return _multiply_adds(layers[call.layer], output)

    with inference(), reduced(layers, cost) as costs:
        classifier(some)
    most: int = pixels // (height * width)
    one: int = sum(costs.values()) // len(some)
    return max(1, min(most, multiply_adds // one) if one else most)


def _multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Return what a layer's output cost; of a transposed convolution, at most."""
    assert isinstance(layer, _ConvNd | nn.Linear)
    channels = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
    cost: int = layer.weight.numel() * (output.numel() // channels)
    return cost
