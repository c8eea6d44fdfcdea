"""Records what published packages make of fixed responses, for a test that has neither: `tests/data/cka_scores.json`.

    pip install --no-deps --target FOLDER pytorch-cka torch_cka
    PYTHONPATH=.:FOLDER python -m tests.tables.cka_scores

They import tqdm, matplotlib and others, which have to be there as well. Both compute linear CKA from the unbiased HSIC_1 of
Song et al. 2012, in float64 here, over all images at once.
"""

from __future__ import annotations

import importlib
import json
import math
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from layerscope.datasets.digits import digits

RECORDED: Final = Path(__file__).parents[1] / "data" / "cka_scores.json"

Responses = NDArray[np.float64]


def responses() -> dict[str, Responses]:
    """Return of each of several layers the responses (100, p) to the probe images of `digits`, from fixed weights."""
    probe = digits()["probe"]
    pixels = probe.images.reshape(len(probe.images), -1) / 255
    first, other = _layer(pixels, 300, 1), _layer(pixels, 250, 3)
    return {
        "pixels": pixels,
        "first": first,
        "second": _layer(first, 200, 2),
        "other": other,
        "offset": other + 10,
        "labels": np.eye(10)[probe.labels],
        "noise": np.random.default_rng(4).standard_normal((len(pixels), 50)),
    }


def _layer(inputs: Responses, width: int, seed: int) -> Responses:
    weights = np.random.default_rng(seed).standard_normal((inputs.shape[1], width)) / math.sqrt(inputs.shape[1])
    return np.maximum(inputs @ weights, 0.0)


def _pytorch_cka(a: Responses, b: Responses) -> float:
    cka: Any = importlib.import_module("cka.cka")
    return float(cka.cka_from_features(torch.tensor(a), torch.tensor(b)))


def _torch_cka(a: Responses, b: Responses) -> float:
    package: Any = importlib.import_module("torch_cka.cka")
    grams = [torch.tensor(one @ one.T) for one in (a, b)]
    first, second = (gram - torch.diag(torch.diag(gram)) for gram in grams)  # as its `compare` does
    on = SimpleNamespace(device="cpu")

    def hsic(k: torch.Tensor, m: torch.Tensor) -> float:
        return float(package.CKA._HSIC(on, k, m))

    return hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))


def main() -> None:
    """Record the scores of every two layers."""
    torch.set_default_dtype(torch.float64)
    given = responses()
    scores = [
        {"a": a, "b": b, "pytorch-cka": _pytorch_cka(given[a], given[b]), "torch_cka": _torch_cka(given[a], given[b])}
        for a, b in combinations(given, 2)
    ]
    versions = {name: version(name) for name in ("pytorch-cka", "torch_cka", "torch", "numpy")}
    RECORDED.write_text(json.dumps({"versions": versions, "precision": "float64", "scores": scores}, indent=1) + "\n")


if __name__ == "__main__":
    main()
