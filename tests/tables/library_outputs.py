"""Records what architectures of timm and transformers answer, for tests that have neither: `tests/data/library_outputs.json`.

    python -m tests.tables.library_outputs

Weights and images are numbers that names and shapes decide, so that a test makes the same ones.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from tests.tables.graph_weights import images, weights
from tests.tables.transformers_graphs import FAMILIES, image

RECORDED: Final = Path(__file__).parents[1] / "data" / "library_outputs.json"
CLASSES: Final = 7
TIMM: Final = (
    *("convnext_atto", "crossvit_tiny_240", "deit_tiny_distilled_patch16_224", "efficientnet_b0"),
    *("ghostnet_100", "levit_128s", "mobilenetv3_small_100", "mobilevit_xxs", "pit_ti_224", "poolformer_s12"),
    *("regnety_002", "repvgg_a0", "resnet26d", "resnetaa50", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"),
)
TRANSFORMERS: Final = (
    *(("ConvNextV2", "atto"), ("DeiT", "tiny"), ("MobileNetV2", "default"), ("PoolFormer", "s12")),
    *(("PvtV2", "b0"), ("ResNet", "18"), ("Segformer", "b0"), ("SwiftFormer", "xs"), ("ViT", "tiny")),
)


def main() -> None:
    """Write them."""
    timm, transformers = importlib.import_module("timm"), importlib.import_module("transformers")
    found = dict[str, Any]()
    for name in TIMM:
        model = timm.create_model(name, pretrained=False, num_classes=CLASSES)
        found[f"timm/{name}"] = _recorded(model, list(model.default_cfg["input_size"]))
    for family, name in TRANSFORMERS:
        kind = getattr(transformers, f"{family}ForImageClassification")
        model = kind(kind.config_class(**FAMILIES[family][name], num_labels=CLASSES))
        config = json.loads(model.config.to_json_string(use_diff=False))
        recorded = _recorded(model, list(image(config)))
        found[f"transformers/{config['model_type']}-{name}"] = recorded | {"config": config}
    versions = {one.__name__: one.__version__ for one in (timm, transformers)}
    RECORDED.write_text(json.dumps({"versions": versions, "architectures": found}, separators=(",", ":")) + "\n")


def _recorded(model: nn.Module, size: list[int]) -> dict[str, Any]:
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    model.eval().load_state_dict(weights(shapes))
    with torch.no_grad():
        answer = model(images(size))
    outputs = answer if isinstance(answer, Tensor) else answer.logits
    return {"shapes": shapes, "input": size, "outputs": outputs.tolist()}


if __name__ == "__main__":
    main()
