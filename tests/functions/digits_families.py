"""Networks whose history is known: a parent, its copy, what was trained on from it, and others of its architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from layerscope.functions.analysis.inference import normalised
from layerscope.stores.datasets import Dataset
from tests.benchmarks.digits_networks import BATCH, trained


def family_of(make: Callable[[], nn.Module], dataset: Dataset) -> dict[str, nn.Module]:
    """Return `parent`, `twin` (another seed), `untrained`, `copy`; `child`, `sibling`, `head` were trained on from the first.

    `head` has a new last layer, and all before it is frozen.
    """
    parent = trained(make, 1, dataset)
    torch.manual_seed(9)
    untrained = make().eval()
    head = copy.deepcopy(parent).requires_grad_(False)
    assert isinstance(head, nn.Sequential)
    head[-1] = nn.Linear(head[-1].in_features, 10)  # type: ignore[arg-type]
    return {
        "parent": parent,
        "twin": trained(make, 2, dataset),
        "untrained": untrained,
        "copy": copy.deepcopy(parent),
        "child": tuned(parent, 5, dataset),
        "sibling": tuned(parent, 6, dataset),
        "head": tuned(head, 7, dataset),
    }


def tuned(model: nn.Module, seed: int, dataset: Dataset, steps: int = 40) -> nn.Module:
    """Return a copy that was trained on for some batches; what is frozen stays as it is."""
    torch.manual_seed(seed)
    child, train = copy.deepcopy(model), dataset.part("train")
    for module in child.modules():
        module.train(any(one.requires_grad for one in module.parameters()))
    images, labels = normalised(train.images, dataset.description, "cpu"), torch.tensor(train.labels)
    optimiser = torch.optim.AdamW([one for one in child.parameters() if one.requires_grad], 1e-3)
    for _ in range(steps):
        batch = torch.randperm(len(labels))[:BATCH]
        optimiser.zero_grad()
        functional.cross_entropy(child(images[batch]), labels[batch]).backward()
        optimiser.step()
    return child.eval()


def linear_only() -> nn.Module:
    """Return a model whose training has one solution, whatever it starts from."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
