"""What of the order of neighbours is lost when vectors are stored shorter: measured on layers of networks trained on digits."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

pytestmark = pytest.mark.benchmark

Vectors = npt.NDArray[np.float32]
PROBES, SEEDS, EPOCHS = 100, 24, (1, 3)
SHAPES = ((64, 64, 64), (96, 48, 32), (128, 64, 48))


def packed(responses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the U-centred Gram of responses (n, p) as a unit vector of its n (n - 1) / 2 pairs."""
    gram = responses @ responses.T
    np.fill_diagonal(gram, 0)
    n, rows = len(gram), gram.sum(0)
    gram += rows.sum() / ((n - 1) * (n - 2)) - (rows[:, None] + rows[None]) / (n - 2)
    found = gram[np.triu_indices(n, 1)]
    return np.asarray(found / np.linalg.norm(found))


def stored() -> Vectors:
    """Layers of networks of several shapes, seeds and lengths of training."""
    digits = load_digits()
    images, found = digits.data / 16, []
    probe = np.concatenate([np.flatnonzero(digits.target == c)[: PROBES // 10] for c in range(10)])
    for seed in range(SEEDS):
        for epochs in EPOCHS:
            net = MLPClassifier(SHAPES[seed % len(SHAPES)], max_iter=epochs, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                net.fit(images, digits.target)
            at = images[probe]
            for weights, bias in zip(net.coefs_, net.intercepts_, strict=True):
                at = np.maximum(at @ weights + bias, 0)
                found.append(packed(at))
    return np.asarray(found, np.float32)


def nearest(vectors: Vectors, k: int) -> npt.NDArray[np.int64]:
    scores = vectors.astype(np.float64) @ vectors.astype(np.float64).T
    np.fill_diagonal(scores, -2)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def pca(dimension: int) -> Callable[[Vectors], Vectors]:
    def reduce(vectors: Vectors) -> Vectors:
        fitted = PCA(dimension, random_state=0).fit(vectors[::2])
        found = fitted.transform(vectors) + fitted.transform(np.zeros((1, vectors.shape[1]))) * -1
        return np.asarray(found, np.float32)

    return reduce


def product_quantised(parts: int, codes: int) -> Callable[[Vectors], Vectors]:
    def reduce(vectors: Vectors) -> Vectors:
        out = np.empty_like(vectors)
        for part in np.array_split(np.arange(vectors.shape[1]), parts):
            fitted = KMeans(codes, n_init=1, max_iter=10, random_state=0).fit(vectors[::2][:, part])
            out[:, part] = fitted.cluster_centers_[fitted.predict(vectors[:, part])]
        return out

    return reduce


WAYS: dict[str, tuple[float, Callable[[Vectors], Vectors]]] = {
    "fp16": (2 * 4_950, lambda vectors: vectors.astype(np.float16).astype(np.float32)),
    "int8": (
        4_950,
        lambda vectors: (
            np.round(vectors / np.abs(vectors).max(1, keepdims=True) * 127).astype(np.float32)
            * np.abs(vectors).max(1, keepdims=True)
            / 127
        ),
    ),
    "PCA 64": (4 * 64, pca(64)),
    "PCA 16": (4 * 16, pca(16)),
    "PQ 99 x 16": (99 / 2, product_quantised(99, 16)),
}


def test_half_precision_keeps_the_order_and_shorter_vectors_do_not() -> None:
    vectors = stored()
    exact, kept = nearest(vectors, 10), {}
    for name, (size, reduce) in WAYS.items():
        got = nearest(reduce(vectors), 10)
        first = float(np.mean(got[:, 0] == exact[:, 0]))
        recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(got, exact, strict=True)]))
        again = nearest_again(vectors, nearest(reduce(vectors), 40), exact)
        kept[name] = (first, recall, again)
        print(
            f"{name}: {size:.0f} bytes, first kept {first:.3f}, recall@10 {recall:.3f}, of 40 compared again {again:.3f}"
        )
    assert kept["fp16"][1] >= 0.99
    assert kept["fp16"][1] >= max(kept["PCA 16"][1], kept["PQ 99 x 16"][1])
    assert all(again >= recall for _, recall, again in kept.values())


def nearest_again(vectors: Vectors, candidates: npt.NDArray[np.int64], exact: npt.NDArray[np.int64]) -> float:
    """Return the recall of the ten nearest where the candidates are compared again exactly."""
    found = []
    for at, some in enumerate(candidates):
        scores = vectors[some].astype(np.float64) @ vectors[at].astype(np.float64)
        found.append(len(set(some[np.argsort(-scores, kind="stable")[:10]]) & set(exact[at])) / 10)
    return float(np.mean(found))
