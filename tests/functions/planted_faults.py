"""Faults whose truth is known: a sound network on digits, grey or coloured, and each thing that can be wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from layerscope.functions.analysis.inference import normalised
from layerscope.functions.evaluation.func import compute as evaluated
from layerscope.functions.feature_activation.func import compute as activated
from layerscope.functions.findings.func import compute as judged
from layerscope.functions.layer_vectors.func import compute as compared
from layerscope.functions.predictions.func import compute as predicted
from layerscope.functions.preprocessing.func import compute as prepared
from layerscope.functions.training_history.func import compute as logged
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.history import Epoch, History
from layerscope.schemas.products.feature_activation import FeatureActivation
from layerscope.schemas.products.findings import FindingKind, Findings
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores.datasets import Dataset, PartArrays, channel_statistics
from tests.benchmarks.digits_networks import digits_dataset, safe, trained

SEEDS: Final = (1, 2, 3)
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Case:
    """A model, the dataset that it is measured on, and the log of its training, if there is one."""

    model: nn.Sequential
    dataset: Dataset
    history: TrainingHistory | None = None

    def findings(self) -> Findings:
        """Return what the functions make of it, each as it is deployed."""
        model, dataset = safe(self.model), self.dataset
        outputs = predicted(model, dataset, "cpu")
        return judged(
            predictions=outputs,
            evaluation=evaluated(outputs, dataset),
            preprocessing=prepared(model, dataset, "cpu"),
            layer_vectors=compared(model, dataset, "cpu"),
            feature_activation=_activated(model, dataset),
            training_history=self.history,
            dataset=dataset,
        )

    def with_test(self, images: Images | None = None, labels: Labels | None = None) -> Case:
        """Return the same with other images, or other labels, to be measured on."""
        test = self.dataset.part("test")
        part = PartArrays(test.images if images is None else images, test.labels if labels is None else labels)
        one = self.dataset.description
        return replace(self, dataset=described(one.name, {**self.dataset.parts, "test": part}, one.mean, one.std))

    def changed(self, change: Callable[[nn.Sequential], None]) -> Case:
        """Return the same with a model that was changed."""
        model = copy.deepcopy(self.model)
        with torch.no_grad():
            change(model)
        return replace(self, model=model)


def _activated(model: SafeModel, dataset: Dataset) -> FeatureActivation | None:
    try:
        return activated(model, dataset, "cpu")
    except Refused:  # it has no convolution
        return None


Plant = Callable[[Case, int], Case]


def network(channels: int) -> nn.Sequential:
    """Return three strided convolutions with batch norm, and a linear layer of 10 outputs."""
    layers: list[nn.Module] = []
    before = channels
    for width in (12, 24, 32):
        layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))


def coloured(grey: Dataset) -> Dataset:
    """Return digits of 32 x 32 pixels in colours of their own, on dark grounds of other colours."""
    parts = {name: PartArrays(_painted(part.images), part.labels) for name, part in grey.parts.items()}
    return described("colours", parts, *channel_statistics(parts["train"].images))


def described(name: str, parts: Mapping[str, PartArrays], mean: tuple[float, ...], std: tuple[float, ...]) -> Dataset:
    """Return a dataset of ten classes with these parts."""
    made = {
        "name": name,
        "classes": tuple(str(one) for one in range(10)),
        "shape": next(iter(parts.values())).images.shape[1:],
        "mean": mean,
        "std": std,
        "parts": {one: {"sha256": "0" * 64, "images": len(part)} for one, part in parts.items()},
    }
    return Dataset(DatasetDescription.model_validate(made), parts)


@cache
def sound(kind: str, seed: int) -> Case:
    """Return a network that was trained well: `grey` on digits, `colours` on coloured ones."""
    dataset = digits_dataset() if kind == "grey" else coloured(digits_dataset())
    shape = dataset.description.shape

    def made() -> nn.Sequential:
        model = network(shape[2])
        model(torch.zeros(2, shape[2], *shape[:2]))
        return model

    return Case(cast(nn.Sequential, trained(made, seed, dataset)), dataset)


def others() -> Iterator[tuple[str, Case]]:
    """Yield 24 sound networks, with what they are called: of three kinds, on digits divided in other ways, by no seed above."""
    for kind in ("grey", "colours"):
        for seed in range(201, 205):
            grey = _divided(seed)
            dataset = grey if kind == "grey" else coloured(grey)
            side, _, channels = dataset.description.shape
            for name, make in _NETWORKS.items():
                model = trained(partial(make, channels, side), seed, dataset)
                yield f"{name} on {kind}, {seed}", Case(cast(nn.Sequential, model), dataset)


def _divided(seed: int) -> Dataset:
    """Return digits whose images are dealt to train and test anew."""
    dataset = digits_dataset()
    train, test = dataset.part("train"), dataset.part("test")
    images, labels = np.concatenate([train.images, test.images]), np.concatenate([train.labels, test.labels])
    dealt = np.random.default_rng(seed).permutation(len(images))
    first, rest = np.sort(dealt[: len(test)]), np.sort(dealt[len(test) :])
    parts = {"test": PartArrays(images[first], labels[first]), "train": PartArrays(images[rest], labels[rest])}
    return described("digits", {**dataset.parts, **parts}, *channel_statistics(parts["train"].images))


def _without_norm(channels: int, side: int) -> nn.Module:
    convolutions = (nn.Conv2d(channels, 12, 5, 2, 2), nn.ReLU(), nn.Conv2d(12, 24, 5, 2, 2), nn.ReLU())
    return nn.Sequential(
        *convolutions, nn.Flatten(), nn.Linear(24 * (side // 4) ** 2, 48), nn.ReLU(), nn.Linear(48, 10)
    )


def _perceptron(channels: int, side: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 64), nn.ReLU(), nn.Linear(64, 10))


def _with_norm(channels: int, side: int) -> nn.Module:
    model = network(channels)
    model(torch.zeros(2, channels, side, side))
    return model


_NETWORKS: Final[Mapping[str, Callable[[int, int], nn.Module]]] = {
    "convolutions with batch norm": _with_norm,
    "convolutions without a norm": _without_norm,
    "perceptron": _perceptron,
}


def _painted(images: Images) -> Images:
    random = np.random.default_rng(len(images))
    ink = random.uniform(0.6, 1.0, (len(images), 1, 1, 3))
    ground = random.uniform(0.0, 0.25, (len(images), 1, 1, 3))
    wide = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) / 255
    return np.rint(255 * (ground + wide * (ink - ground))).astype(np.uint8)


def _head(model: nn.Sequential) -> nn.Linear:
    return cast(nn.Linear, model[-1])


class OverflowsAtTimes(nn.Module):
    """Makes infinities of outputs that are high."""

    def forward(self, outputs: Tensor) -> Tensor:
        """Return outputs (N, C), those of sure images divided by 0."""
        return outputs / (outputs.amax(1, keepdim=True) < 9).float()


def _overflows(case: Case, seed: int) -> Case:
    return replace(case, model=nn.Sequential(*case.model, OverflowsAtTimes()))


def _constant(case: Case, seed: int) -> Case:
    return case.changed(lambda model: _raised(model, (seed,), 300.0))


def _permuted(case: Case, seed: int) -> Case:
    order = np.random.default_rng(seed).permutation(10)
    return case.changed(lambda model: _reordered(model, order.tolist()))


def _shifted(case: Case, seed: int) -> Case:
    return case.changed(lambda model: _reordered(model, [(k - seed) % 10 for k in range(10)]))


def _swapped(case: Case, seed: int) -> Case:
    order = list(range(10))
    order[seed], order[seed + 4] = order[seed + 4], order[seed]
    return case.changed(lambda model: _reordered(model, order))


def _reordered(model: nn.Sequential, order: list[int]) -> None:
    _head(model).weight.copy_(_head(model).weight[order])
    _head(model).bias.copy_(_head(model).bias[order])


def _inverted(case: Case, seed: int) -> Case:
    return case.with_test(images=np.subtract(255, case.dataset.part("test").images, dtype=np.uint8))


class Renormalises(nn.Module):
    """What a model expects that was trained on pixels of -1..1: here, what undoes that, so that the rest is sound."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        """Return images of -1..1 as they are with mean and deviation taken out."""
        return ((images + 1) / 2 - self.mean) / self.std


def _other_scale(case: Case, seed: int) -> Case:
    one = case.dataset.description
    model = nn.Sequential(Renormalises(float(np.mean(one.mean)), float(np.mean(one.std))), *case.model)
    channels = one.shape[2]
    wrong = described(one.name, case.dataset.parts, (0.0,) * channels, (4.0,) * channels)
    return replace(case, model=model.eval(), dataset=wrong)


def _untrained(case: Case, seed: int) -> Case:
    torch.manual_seed(seed + 50)
    shape = case.dataset.description.shape
    model = network(shape[2]).eval()
    model(torch.zeros(2, shape[2], *shape[:2]))
    return replace(case, model=model)


def _shuffled(case: Case, seed: int) -> Case:
    return case.with_test(labels=np.random.default_rng(seed).permutation(case.dataset.part("test").labels))


def _never(case: Case, seed: int) -> Case:
    return case.changed(lambda model: _raised(model, (seed, seed + 5), -300.0))


def _absorbs(case: Case, seed: int) -> Case:
    outputs = predicted(safe(case.model), case.dataset, "cpu").outputs
    others = outputs[case.dataset.part("test").labels != seed]
    behind = np.quantile(others.max(axis=1) - others[:, seed], 0.07)
    return case.changed(lambda model: _raised(model, (seed,), float(behind)))


def _weak(case: Case, seed: int) -> Case:
    own = case.dataset.part("test").labels == seed
    return case.changed(lambda model: _raised(model, (seed,), -_margin(case, 0.4, own)))


def _margin(case: Case, share: float, of: NDArray[np.bool_] | None = None) -> float:
    """Return below which margin of the first answer over the second this share of the images is."""
    test = case.dataset.part("test")
    outputs = predicted(safe(case.model), case.dataset, "cpu").outputs
    top = np.sort(outputs[np.ones(len(test), np.bool_) if of is None else of], axis=1)
    return float(np.quantile(top[:, -1] - top[:, -2], share))


def _raised(model: nn.Sequential, classes: tuple[int, ...], by: float) -> None:
    for one in classes:
        _head(model).bias[one] += by


def _pair(case: Case, seed: int) -> Case:
    """Have what tells two classes apart be a direction of chance, by which either is the one as often as the other."""
    a, b = seed, seed + 6
    test = case.dataset.part("test")
    some = np.isin(test.labels, (a, b))

    def alike(model: nn.Sequential) -> None:
        head = _head(model)
        features = model[:-1](normalised(test.images[some], case.dataset.description, "cpu"))
        torch.manual_seed(seed)
        apart = torch.randn_like(head.weight[a]) * 0.05
        means = [features[torch.from_numpy(test.labels[some] == one)].mean(dim=0) for one in (a, b)]
        between = (means[0] - means[1]) / (means[0] - means[1]).norm()
        apart -= (apart @ between) * between
        middle = (features @ apart).median()
        weight, bias = (head.weight[a] + head.weight[b]) / 2, (head.bias[a] + head.bias[b]) / 2
        head.weight[a], head.weight[b] = weight + apart, weight - apart
        head.bias[a], head.bias[b] = bias - middle, bias + middle

    return case.changed(alike)


def _pale(case: Case, seed: int) -> Case:
    random = np.random.default_rng(seed)
    images = case.dataset.part("test").images.copy()
    some = random.permutation(len(images))[: len(images) // 5]
    faint = images[some].astype(np.float64) * 0.12 + random.normal(0, 6, images[some].shape)
    images[some] = np.clip(faint, 0, 255).astype(np.uint8)
    return case.with_test(images=images)


def _noisy_labels(case: Case, seed: int) -> Case:
    random = np.random.default_rng(seed)
    labels = case.dataset.part("test").labels.copy()
    some = noisy(seed, len(labels))
    labels[some] = (labels[some] + random.integers(1, 10, len(some))) % 10
    return case.with_test(labels=labels)


def noisy(seed: int, images: int) -> Labels:
    """Return which labels are wrong where 2 % of them are."""
    return np.sort(np.random.default_rng((seed, 7)).permutation(images)[: round(0.02 * images)])


def _conflicts(case: Case, seed: int) -> Case:
    test = case.dataset.part("test")
    images, labels = test.images.copy(), test.labels
    first, second = np.flatnonzero(labels == seed)[:3], np.flatnonzero(labels == seed + 1)[:3]
    images[second] = images[first]
    return case.with_test(images=images)


def _leak(case: Case, seed: int) -> Case:
    images = case.dataset.part("test").images.copy()
    images[seed::15] = case.dataset.part("train").images[: len(images[seed::15])]
    labels = case.dataset.part("test").labels.copy()
    labels[seed::15] = case.dataset.part("train").labels[: len(images[seed::15])]
    return case.with_test(images=images, labels=labels)


def _nearly(images: Images, seed: int) -> Images:
    """Return images as another compression, or another shot, might have them: a little brighter, with a little noise."""
    random = np.random.default_rng((seed, 9))
    return np.clip(images * 1.02 + random.normal(0, 2, images.shape), 0, 255).astype(np.uint8)


def _near_in_test(case: Case, seed: int) -> Case:
    test = case.dataset.part("test")
    images, labels = test.images.copy(), test.labels.copy()
    some = np.arange(seed, len(images) - 7, 40)
    images[some], labels[some] = _nearly(images[some + 7], seed), labels[some + 7]
    return case.with_test(images=images, labels=labels)


def _near_in_train(case: Case, seed: int) -> Case:
    train, test = case.dataset.part("train"), case.dataset.part("test")
    images, labels = test.images.copy(), test.labels.copy()
    some = np.arange(seed, len(images), 30)
    images[some], labels[some] = _nearly(train.images[some], seed), train.labels[some]
    return case.with_test(images=images, labels=labels)


def _without(part: PartArrays, label: int, kept: int) -> PartArrays:
    return part.take(np.sort(np.r_[np.flatnonzero(part.labels != label), np.flatnonzero(part.labels == label)[:kept]]))


def _rare_in_test(case: Case, seed: int) -> Case:
    few = _without(case.dataset.part("test"), seed, 2)
    return case.with_test(images=few.images, labels=few.labels)


def _rare_in_train(case: Case, seed: int) -> Case:
    one = case.dataset.description
    parts = {**case.dataset.parts, "train": _without(case.dataset.part("train"), seed, 5)}
    return replace(case, dataset=described(one.name, parts, one.mean, one.std))


def _log(*epochs: tuple[float, float, float, float]) -> TrainingHistory:
    names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
    rows = tuple(Epoch(**dict(zip(names, one, strict=True))) for one in epochs)
    history = History(epochs=rows).model_dump_json().encode()
    return logged(sidecars={"history": history})


def _overfitted(case: Case, seed: int) -> Case:
    falls = [(1 / (k + 1), 0.5 + 0.1 * abs(k - 4 - seed), 0.9, 0.95 - 0.02 * abs(k - 4 - seed)) for k in range(12)]
    return replace(case, history=_log(*falls))


def _undertrained(case: Case, seed: int) -> Case:
    return replace(
        case, history=_log(*((2 * 0.8**k, 2 * 0.82**k, 0.5 + k / 50, 0.5 + k / 50) for k in range(6 + seed)))
    )


def _dead_layer(case: Case, seed: int) -> Case:
    def dead(model: nn.Sequential) -> None:
        cast(nn.BatchNorm2d, model[4]).weight.zero_()

    return case.changed(dead)


def _dead_channels(case: Case, seed: int) -> Case:
    def dead(model: nn.Sequential) -> None:
        norm = cast(nn.BatchNorm2d, model[4])
        some = torch.arange(seed, 24, 3)
        assert norm.bias is not None
        norm.weight[some], norm.bias[some] = 0.01, -5.0

    return case.changed(dead)


def _constant_channels(case: Case, seed: int) -> Case:
    def constant(model: nn.Sequential) -> None:
        norm = cast(nn.BatchNorm2d, model[4])
        some = torch.arange(seed, 24, 3)
        assert norm.bias is not None
        norm.weight[some], norm.bias[some] = 0.0, 0.3

    return case.changed(constant)


def _scaled(by: float) -> Plant:
    def plant(case: Case, seed: int) -> Case:
        def scaled(model: nn.Sequential) -> None:
            _head(model).weight.mul_(by)
            _head(model).bias.mul_(by)

        return case.changed(scaled)

    return plant


def _too_sure(case: Case, seed: int) -> Case:
    """Have a model that is right less often, as its images are noisy, be as sure as before, and more."""
    random = np.random.default_rng(seed)
    images = case.dataset.part("test").images
    blurred = np.clip(images + random.normal(0, 60, images.shape), 0, 255).astype(np.uint8)
    return _scaled(4.0)(case.with_test(images=blurred), seed)


BESIDES: Final[Mapping[str, frozenset[FindingKind]]] = {
    "outputs that overflow": frozenset({"weak_classes"}),
    "one answer for all": frozenset({"prepared_otherwise"}),
    "another scale of pixels": frozenset({"constant_answer"}),
    "two classes never answered": frozenset({"overconfident"}),
    "a class that absorbs mistakes": frozenset({"weak_classes", "weak_segment"}),
    "a weak class": frozenset({"class_absorbs_errors"}),
    "a pair that is told by nothing": frozenset({"labels_suspect"}),
    "a fifth of pale images": frozenset({"class_absorbs_errors", "overconfident"}),
    "train images in test": frozenset({"class_absorbs_errors"}),
    "a layer of one answer": frozenset({"constant_answer"}),
    "a third of dead channels": frozenset({"class_absorbs_errors", "underconfident"}),
    "a third of constant channels": frozenset({"class_absorbs_errors", "underconfident"}),
    "too sure": frozenset({"class_absorbs_errors", "labels_suspect", "weak_classes"}),
}
"""What may be found beside what was planted, being true as well; of the others nothing may."""

PLANTED: Final[Mapping[str, tuple[FindingKind, Plant]]] = {
    "outputs that overflow": ("outputs_not_finite", _overflows),
    "one answer for all": ("constant_answer", _constant),
    "labels permuted": ("labels_permuted", _permuted),
    "labels shifted": ("labels_permuted", _shifted),
    "two labels swapped": ("labels_permuted", _swapped),
    "images inverted": ("prepared_otherwise", _inverted),
    "another scale of pixels": ("prepared_otherwise", _other_scale),
    "labels shuffled": ("accuracy_at_chance", _shuffled),
    "two classes never answered": ("classes_never_answered", _never),
    "a class that absorbs mistakes": ("class_absorbs_errors", _absorbs),
    "a weak class": ("weak_classes", _weak),
    "a pair that is told by nothing": ("confused_pairs", _pair),
    "a fifth of pale images": ("weak_segment", _pale),
    "2 % of wrong labels": ("labels_suspect", _noisy_labels),
    "equal images of two classes": ("labels_conflict", _conflicts),
    "train images in test": ("test_images_in_train", _leak),
    "nearly equal test images": ("near_duplicates", _near_in_test),
    "nearly equal train images": ("near_duplicates_in_train", _near_in_train),
    "a class that is rare in test": ("test_imbalanced", _rare_in_test),
    "a class that is rare in train": ("train_imbalanced", _rare_in_train),
    "trained too long": ("overfitted", _overfitted),
    "trained too briefly": ("undertrained", _undertrained),
    "a layer of one answer": ("layers_dead", _dead_layer),
    "a third of dead channels": ("channels_dead", _dead_channels),
    "a third of constant channels": ("channels_constant", _constant_channels),
    "too sure": ("overconfident", _too_sure),
    "not sure enough": ("underconfident", _scaled(0.2)),
}
"""What is planted, the finding that it must lead to, and how."""

UNTRAINED: Final[Plant] = _untrained
