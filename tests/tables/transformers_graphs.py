"""Writes the graphs of transformers' image classifiers from the transformers that is installed.

    python -m tests.tables.transformers_graphs

takes half an hour on one core, and transformers (5.24 now), which Layerscope itself does not need. Each family is there
as its default configuration has it, and in the sizes in which it is published.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import torch

from layerscope.models.formats.graph_tables.config_json import deciding
from layerscope.models.formats.graph_tables.stored import Free, digest
from tests.tables.graph_table import Made, check, constants, traced, write

_TINY: Final = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
_SMALL: Final = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
_LARGE: Final = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
_SIZES: Final = {"tiny": _TINY, "small": _SMALL}
_PLAIN: Final[Mapping[str, Any]] = {}
FAMILIES: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "ViT": {"base-patch16-224": _PLAIN, "base-patch32-224": {"patch_size": 32}, "large-patch16-224": _LARGE, **_SIZES},
    "DeiT": {"base": _PLAIN, **_SIZES},
    "Dinov2": {
        "base": {"patch_size": 14, "image_size": 518},
        "small": {"patch_size": 14, "image_size": 518, "hidden_size": 384, "num_attention_heads": 6},
        "default": _PLAIN,
    },
    "Dinov2WithRegisters": {"default": _PLAIN},
    "ViTMSN": {"default": _PLAIN},
    "Data2VecVision": {"default": _PLAIN},
    "IJepa": {"default": _PLAIN},
    "Beit": {
        "default": _PLAIN,
        "base-patch16-224": {
            "use_relative_position_bias": True,
            "use_mean_pooling": True,
            "layer_scale_init_value": 0.1,
        },
    },
    "Swin": {
        "tiny-patch4-window7-224": _PLAIN,
        "small-patch4-window7-224": {"depths": [2, 2, 18, 2]},
        "base-patch4-window7-224": {"depths": [2, 2, 18, 2], "embed_dim": 128, "num_heads": [4, 8, 16, 32]},
    },
    "Swinv2": {"default": _PLAIN, "tiny-patch4-window8-256": {"image_size": 256, "window_size": 8}},
    "ConvNext": {
        "tiny-224": _PLAIN,
        "small-224": {"depths": [3, 3, 27, 3]},
        "base-224": {"depths": [3, 3, 27, 3], "hidden_sizes": [128, 256, 512, 1024]},
    },
    "ConvNextV2": {
        "tiny": _PLAIN,
        "atto": {"depths": [2, 2, 6, 2], "hidden_sizes": [40, 80, 160, 320]},
        "nano": {"depths": [2, 2, 8, 2], "hidden_sizes": [80, 160, 320, 640]},
    },
    "ResNet": {
        "50": _PLAIN,
        "18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
        "34": {"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
        "101": {"depths": [3, 4, 23, 3]},
    },
    "RegNet": {"default": _PLAIN},
    "MobileNetV1": {"default": _PLAIN},
    "MobileNetV2": {"default": _PLAIN},
    "MobileViT": {"small": _PLAIN},
    "PoolFormer": {"s12": _PLAIN, "s24": {"depths": [4, 4, 12, 4]}},
    "Segformer": {"b0": _PLAIN},
    "PvtV2": {"b0": _PLAIN},
    "Cvt": {"13": _PLAIN},
    "FocalNet": {"tiny": _PLAIN},
    "Bit": {"50": _PLAIN},
    "SwiftFormer": {"xs": _PLAIN},
    "Hiera": {"default": _PLAIN},
    "TextNet": {"default": _PLAIN},
}


def main(families: list[str]) -> None:
    """Write the table of these families, or of all."""
    transformers = importlib.import_module("transformers")
    made: list[Made] = []
    for family in families or FAMILIES:
        for name, options in FAMILIES[family].items():
            start = time.perf_counter()
            try:
                made.append(_made(transformers, family, name, options))
                said = "ok"
            except Exception as error:  # whatever the library or a model raises, the others go on
                said = f"left out: {type(error).__name__} {str(error)[:160]}"
            print(f"{family} {name} {time.perf_counter() - start:.1f} s {said}", flush=True)
    write("transformers", transformers.__version__, made)


def _made(transformers: Any, family: str, name: str, options: Mapping[str, Any]) -> Made:
    model, other = built(transformers, family, options, 7, 0), built(transformers, family, options, 11, 0)
    config = model.config.to_dict()
    shape = image(config)
    graph, tensors = traced(model, shape)
    kept = constants(graph, tensors)
    check(built(transformers, family, options, 7, 1), graph, kept, shape)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    changed = {key: tuple(value.shape) for key, value in other.state_dict().items()}
    classifiers = tuple(sorted({key.rpartition(".")[0] for key in shapes if shapes[key] != changed[key]}))
    free = Free(classifiers, None)
    said = json.loads(json.dumps(deciding(config)))
    return Made(f"{config['model_type']}-{name}", family, graph.to_json(), kept, digest(shapes, free), free, said)


def built(transformers: Any, family: str, options: Mapping[str, Any], classes: int, seed: int) -> Any:
    """Return an architecture of so many classes with weights drawn from a seed."""
    torch.manual_seed(seed)
    kind = getattr(transformers, f"{family}ForImageClassification")
    return kind(kind.config_class(**options, num_labels=classes)).eval()


def image(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the shape of the images that a model takes."""
    size = config.get("image_size", 224)
    sides = [size, size] if isinstance(size, int) else list(size)
    return int(config.get("num_channels", 3)), int(sides[0]), int(sides[1])


if __name__ == "__main__":
    main(sys.argv[1:])
