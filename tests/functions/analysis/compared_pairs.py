"""Two pairs of models that texts are written about: one where a is better and the layers are alike, one where neither is."""

from __future__ import annotations

from typing import Any

from layerscope.functions.analysis.paired import RightAlone
from layerscope.functions.analysis.wording.match import BestMatch, ComparedLayer, ComparedModel, LayerMatch
from layerscope.schemas.products.description import DescribedConfusion, DescriptionFacts
from layerscope.schemas.products.layer_vectors import Layer
from layerscope.schemas.products.summary import SummaryLayer


def rows(*lines: tuple[str, str, dict[str, Any], tuple[int, ...], int]) -> tuple[SummaryLayer, ...]:
    return tuple(
        SummaryLayer(
            name=name,
            type=type_,
            call=0,
            arguments=arguments,
            input=None,
            output=output,
            parameters=parameters,
            multiply_adds=None,
            learns="trainable" if parameters else None,
        )
        for name, type_, arguments, output, parameters in lines
    )


def figures(
    images: int, correct: int, interval: tuple[float, float], confusion: tuple[str, str, int, float], layers: int
) -> dict[str, Any]:
    true, predicted, count, rate = confusion
    return {
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_low": interval[0],
        "accuracy_high": interval[1],
        "non_finite": 0,
        "confidence": "calibrated",
        "confusion": DescribedConfusion(true_name=true, predicted_name=predicted, images=count, rate=rate),
        "layers": layers,
        "layers_constant": 0,
        "layers_non_finite": 0,
        "layers_unbatched": 0,
        "layers_input_like": 0,
        "unwell_layer": None,
        "clearest_layer": None,
        "clearest_label_cka": None,
    }


def compared(
    subject: str, known: dict[str, Any], layer: tuple[str, str, int, float], sizes: tuple[int, int], network: Any
) -> ComparedModel:
    name, type_, position, label_cka = layer
    found = Layer(
        name=name, call=0, type=type_, shape=(8,), label_cka=label_cka, input_cka=0.35, effective_dimension=6.5
    )
    return ComparedModel(subject, DescriptionFacts(**known), ComparedLayer(found, position), *sizes, network)


CLEAR = LayerMatch(
    a=compared(
        "digits/lenet/3",
        {
            **figures(360, 351, (0.9534, 0.9869), ("8", "1", 3, 3 / 36), 5),
            "ece": 0.021,
            "noise_floor_95": 0.034,
        },
        ("fc2", "Linear", 4, 0.72),
        (61_706, 416_520),
        rows(
            ("conv1", "Conv2d", {"in_channels": 1, "out_channels": 6, "kernel_size": [5, 5]}, (6, 28, 28), 156),
            ("act1", "Tanh", {}, (6, 28, 28), 0),
            ("pool1", "AvgPool2d", {"kernel_size": 2}, (6, 14, 14), 0),
            ("conv2", "Conv2d", {"in_channels": 6, "out_channels": 16, "kernel_size": [5, 5]}, (16, 10, 10), 2_416),
            ("pool2", "AvgPool2d", {"kernel_size": 2}, (16, 5, 5), 0),
            ("fc1", "Linear", {"in_features": 400, "out_features": 120}, (120,), 48_120),
            ("fc2", "Linear", {"in_features": 120, "out_features": 84}, (84,), 10_164),
            ("fc3", "Linear", {"in_features": 84, "out_features": 10}, (10,), 850),
        ),
    ),
    b=compared(
        "digits/mlp/2",
        {
            **figures(360, 327, (0.8742, 0.9341), ("5", "9", 5, 5 / 37), 2),
            "confidence": "overconfident",
            "ece": 0.062,
            "noise_floor_95": 0.031,
        },
        ("fc1", "Linear", 1, 0.58),
        (25_450, 25_408),
        rows(
            ("fc1", "Linear", {"in_features": 784, "out_features": 32}, (32,), 25_120),
            ("relu", "ReLU", {}, (32,), 0),
            ("drop", "Dropout", {"p": 0.1}, (32,), 0),
            ("fc2", "Linear", {"in_features": 32, "out_features": 10}, (10,), 330),
        ),
    ),
    metric="deconfounded",
    score=0.634,
    z=44.1,
    alone=RightAlone(360, only_a=29, only_b=5),
    percentile_untrained=0.985,
    percentile_untrained_by_other_metric=0.97,
    label_baselines=(0.48, 0.5),
    untrained_layers=120,
    untrained_bound=0.41,
    interval=(0.571, 0.688),
    best_matches=(BestMatch("fc2", "fc1", 0.634, 0.985), BestMatch("fc3", "fc2", 0.702, 0.99)),
)

OVERLAP = LayerMatch(
    a=compared(
        "fashion/resnet_s/1",
        figures(1_000, 874, (0.852, 0.8932), ("Shirt", "T-shirt/top", 38, 0.38), 6),
        ("layer2.0.conv1", "Conv2d", 4, 0.41),
        (174_970, 12_450_000),
        rows(
            ("stem", "Conv2d", {"in_channels": 1, "out_channels": 16, "kernel_size": [3, 3]}, (16, 28, 28), 160),
            ("layer1.0.conv1", "Conv2d", {"out_channels": 16, "kernel_size": [3, 3]}, (16, 28, 28), 2_320),
            ("layer1.0.bn1", "BatchNorm2d", {}, (16, 28, 28), 32),
            ("layer1.0.conv2", "Conv2d", {"out_channels": 16, "kernel_size": [3, 3]}, (16, 28, 28), 2_320),
            ("layer2.0.conv1", "Conv2d", {"out_channels": 32, "kernel_size": [3, 3]}, (32, 14, 14), 4_640),
            ("layer2.0.conv2", "Conv2d", {"out_channels": 32, "kernel_size": [3, 3]}, (32, 14, 14), 9_248),
            ("fc", "Linear", {"out_features": 10}, (10,), 330),
        ),
    ),
    b=compared(
        "fashion/vgg_s/4",
        figures(1_000, 881, (0.8594, 0.8996), ("Pullover", "Coat", 29, 0.29), 4),
        ("features.3", "Conv2d", 2, 0.44),
        (312_410, 9_210_000),
        rows(
            ("features.0", "Conv2d", {"out_channels": 32, "kernel_size": [3, 3]}, (32, 28, 28), 320),
            ("features.2", "MaxPool2d", {"kernel_size": 2}, (32, 14, 14), 0),
            ("features.3", "Conv2d", {"out_channels": 64, "kernel_size": [3, 3]}, (64, 14, 14), 18_496),
            ("classifier.0", "Linear", {"out_features": 93}, (93,), 292_000),
            ("classifier.2", "Linear", {"out_features": 10}, (10,), 1_594),
        ),
    ),
    metric="deconfounded",
    score=0.31,
    z=21.6,
    alone=RightAlone(1_000, only_a=58, only_b=65),
    percentile_untrained=0.71,
    percentile_untrained_by_other_metric=0.8,
    label_baselines=(0.46, 0.47),
    untrained_layers=96,
    untrained_bound=0.47,
    interval=(0.22, 0.39),
    best_matches=(BestMatch("layer2.0.conv1", "features.3", 0.31, 0.71),),
)

PAIRS = {"clear": CLEAR, "overlap": OVERLAP}
