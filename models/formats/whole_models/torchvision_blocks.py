"""The modules of torchvision that a pickled model may be made of: what their forward reads besides their children.

Part of `sequential`. So a model of torchvision's can be read whole, with any head that was put in place of its own; one
that is not here can still be matched by its state dict.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from torch import nn

from layerscope.models.file_kinds import PACK_COMMAND
from layerscope.models.formats.pickle_values import Value
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused


def _flag(value: Value) -> bool:
    return isinstance(value, bool)


def _size(value: Value) -> bool:
    return type(value) is int and 0 < value < 65_536


def _sizes(value: Value) -> bool:
    return isinstance(value, tuple | list) and 0 < len(value) < 5 and all(map(_size, value))


def _axes(value: Value) -> bool:
    return isinstance(value, tuple | list) and sorted(map(repr, value)) == sorted(map(repr, range(len(value))))


def _small(value: Value) -> bool:
    return type(value) is float and 0 <= value <= 1


@dataclass(frozen=True, slots=True)
class Block:
    """A module that is made of its children: attributes that its forward reads, and parameters of its own."""

    attributes: Mapping[str, Callable[[Value], bool]] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that are set whatever the file says, for they change no output in eval mode."""


_PLAIN: Final = Block()
_RESIDUAL: Final = Block({"use_res_connect": _flag})
_INCEPTION: Final = Block({"aux_logits": _flag, "transform_input": _flag})
_LIBRARY: Final[Mapping[str, Mapping[str, Block]]] = {
    "models.alexnet": {"AlexNet": _PLAIN},
    "models.convnext": {
        "ConvNeXt": _PLAIN,
        "CNBlock": Block(parameters=frozenset({"layer_scale"})),
        "LayerNorm2d": Block({"normalized_shape": _sizes, "eps": _small}, frozenset({"weight", "bias"})),
    },
    "models.densenet": {
        "DenseNet": _PLAIN,
        "_DenseBlock": _PLAIN,
        "_DenseLayer": Block(fixed={"memory_efficient": False, "drop_rate": 0.0}),
    },
    "models.efficientnet": {"EfficientNet": _PLAIN, "MBConv": _RESIDUAL, "FusedMBConv": _RESIDUAL},
    "models.googlenet": {"GoogLeNet": _INCEPTION, "Inception": _PLAIN, "InceptionAux": _PLAIN, "BasicConv2d": _PLAIN},
    "models.inception": {
        "Inception3": _INCEPTION,
        **dict.fromkeys(("BasicConv2d", "InceptionA", "InceptionB", "InceptionC", "InceptionD"), _PLAIN),
        **dict.fromkeys(("InceptionE", "InceptionAux"), _PLAIN),
    },
    "models.mnasnet": {"MNASNet": _PLAIN, "_InvertedResidual": Block({"apply_residual": _flag})},
    "models.mobilenetv2": {"MobileNetV2": _PLAIN, "InvertedResidual": _RESIDUAL},
    "models.mobilenetv3": {"MobileNetV3": _PLAIN, "InvertedResidual": _RESIDUAL},
    "models.regnet": {"RegNet": _PLAIN, "ResBottleneckBlock": _PLAIN},
    "models.resnet": {"ResNet": _PLAIN, "BasicBlock": _PLAIN, "Bottleneck": _PLAIN},
    "models.shufflenetv2": {"ShuffleNetV2": _PLAIN, "InvertedResidual": Block({"stride": _size})},
    "models.squeezenet": {"SqueezeNet": _PLAIN, "Fire": _PLAIN},
    "models.vgg": {"VGG": _PLAIN},
    "models.vision_transformer": {
        "VisionTransformer": Block(
            {"image_size": _size, "patch_size": _size, "hidden_dim": _size}, frozenset({"class_token"})
        ),
        "Encoder": Block(parameters=frozenset({"pos_embedding"})),
        "EncoderBlock": _PLAIN,
    },
    "ops.misc": {"SqueezeExcitation": _PLAIN, "Permute": Block({"dims": _axes})},
}
BLOCKS: Final[Mapping[str, Block]] = {
    f"torchvision.{module}.{name}": block for module, blocks in _LIBRARY.items() for name, block in blocks.items()
}
"""By their full names."""

IN_SEQUENCE: Final = frozenset(
    {
        "torchvision.models.densenet._Transition",
        "torchvision.models.mobilenet.ConvBNReLU",
        "torchvision.models.mobilenetv2.ConvBNActivation",
        "torchvision.models.mobilenetv2.ConvBNReLU",
        "torchvision.models.regnet.AnyStage",
        "torchvision.models.regnet.BottleneckTransform",
        "torchvision.models.regnet.SimpleStemIN",
        "torchvision.models.vision_transformer.MLPBlock",
        "torchvision.ops.misc.Conv2dNormActivation",
        "torchvision.ops.misc.ConvNormActivation",
        "torchvision.ops.misc.MLP",
    }
)
"""Classes that run their children one after the other, as nn.Sequential does."""

SKIPPED: Final = frozenset({"torchvision.ops.stochastic_depth.StochasticDepth"})
"""Classes that do nothing in eval mode."""


def make_block(name: str, attributes: Mapping[str, Value], where: str) -> nn.Module:
    """Return the module of BLOCKS of that name without its children, whose constructor was not run.

    Raises:
        Refused: `bad-argument`, an attribute is missing or out of its limits.
    """
    own = BLOCKS[name]
    module_name, _, class_name = name.rpartition(".")
    kind: type[nn.Module] = getattr(importlib.import_module(module_name), class_name)  # one of the names above
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    for attribute, check in own.attributes.items():
        value = attributes.get(attribute)
        if not check(value):
            raise Refused(
                "bad-argument",
                f"Module {shown(where)} ({class_name}) has {attribute}={shown(value)}, which is not allowed.",
                f"Save it again with the installed torchvision, or pack it: {PACK_COMMAND}",
            )
        vars(made)[attribute] = tuple(value) if isinstance(value, list) else value
    for attribute, value in attributes.items():
        if (
            value is None
            and attribute.isidentifier()
            and not attribute.startswith("_")
            and not hasattr(made, attribute)
        ):
            vars(made)[attribute] = None  # where there might be a child, as `downsample`
    vars(made).update(own.fixed)
    return made
