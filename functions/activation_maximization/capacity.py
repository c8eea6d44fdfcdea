"""How many pictures there may be, so that no model takes hours: by their pixels, and by what the model costs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from layerscope.functions.analysis.activations import LayerCall, reduced, weight_layers
from layerscope.functions.analysis.inference import Classifier, Images, inference


def capacity(image_pixels: int, one: int, pixels: int, multiply_adds: int) -> int:
    """Return how many pictures of `image_pixels` that cost `one` have so many pixels and multiply-adds; one at least."""
    most = pixels // image_pixels
    return max(1, min(most, multiply_adds // one) if one else most)


def cost_of_one(classifier: Classifier, images: Images) -> int:
    """Return the multiply-adds of a forward pass for one image like these (N, H, W, C).

    They are those in convolutions and linear layers: `safe_form.costs` counts all, but on torch's meta device, whose
    first use takes longer than the pictures of a small model.
    """
    some, layers = images[:2], weight_layers(classifier.model)

    def cost(call: LayerCall, output: Tensor) -> int:
        return _multiply_adds(layers[call.layer], output)

    with inference(), reduced(layers, cost) as costs:
        classifier(some)
    return sum(costs.values()) // len(some)


def _multiply_adds(layer: nn.Module, output: Tensor) -> int:
    """Return what a layer's output cost; of a transposed convolution, at most."""
    assert isinstance(layer, _ConvNd | nn.Linear)
    channels = layer.out_channels if isinstance(layer, _ConvNd) else layer.out_features
    cost: int = layer.weight.numel() * (output.numel() // channels)
    return cost
