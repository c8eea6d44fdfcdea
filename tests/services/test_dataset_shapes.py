"""A model of every built-in dataset's shape goes through every product on the real stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from layerscope.datasets import torchvision_readers
from layerscope.models.safe_form import pack
from layerscope.stores import common_probe
from tests.layerscope.datasets.test_torchvision_readers import NATIVE, unchecked
from tests.small_networks import ANALYSED
from tests.stack import RealStack, eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]

__all__ = ["unchecked"]
OUTPUTS = {"mnist": [10], "fashion_mnist": [10], "emnist": [26, 27], "cifar10": [10], "cifar100": [100], "svhn": [10]}


def network(channels: int, outputs: int) -> bytes:
    torch.manual_seed(outputs)
    layers = (nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, outputs))
    return pack(nn.Sequential(*layers))


@pytest.mark.usefixtures("unchecked")
def test_every_product_is_made_for_every_shape(stack: RealStack, tmp_path: Path) -> None:
    subjects = []
    for name, outputs in OUTPUTS.items():
        NATIVE[name](tmp_path / name)
        made = torchvision_readers.add(stack.store, name, tmp_path / name, download=False)
        common_probe.ensure(stack.store)
        for number in outputs:
            subjects.append(f"{name}/net{number}/1")
            body = network(made.shape[2], number)
            stack.s3.put_object(Bucket="models", Key=f"{subjects[-1]}.safetensors", Body=body)
    for subject in subjects:
        told = eventually(lambda who=subject: (m := stack.model(who)) and m["state"] == "complete" and m)
        states = {name: line["state"] for name, line in told["products"].items()}
        assert {name for name, state in states.items() if state == "complete"} == ANALYSED, (subject, told["products"])
