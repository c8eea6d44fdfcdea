"""What is said of finished pictures: their scores, how these stand shifts, and the score of the image that is nearest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from layerscope.functions.activation_maximization.ascent import CHUNK_ON_CPU, CHUNK_ON_GPU, Score
from layerscope.functions.analysis.inference import Classifier, Images, inference

Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Measurements:
    """Scores (P, K) of pictures and of the images nearest to them, (S, P, K) of the shifted pictures, (n, K) of controls."""

    scores: Scores
    shifted: Scores
    nearest_scores: Scores
    control_scores: Scores


def measure(
    score: Score, pictures: Images, beside: Images, controls: Images, classifier: Classifier, shift: int
) -> Measurements:
    """Look at pictures (P, H, W, C), one or more, at the images beside them, of the same shape, and at controls (n, H, W, C)."""
    moved = [shifted(pictures, rows, columns) for rows, columns in _directions(shift)]
    every = np.concatenate([pictures, beside, *moved, controls])
    budget = CHUNK_ON_CPU if classifier.device == "cpu" else CHUNK_ON_GPU
    batch = max(2, budget // (pictures.shape[1] * pictures.shape[2]))
    with inference():
        scores = np.concatenate(
            [score(classifier.inputs(some)).cpu().numpy() for some in np.array_split(every, -(-len(every) // batch))]
        )
    own, of_controls = scores[: len(every) - len(controls)], scores[len(every) - len(controls) :]
    by_set = own.reshape(-1, len(pictures), own.shape[1])
    return Measurements(by_set[0], by_set[2:], by_set[1], of_controls)


def shifted(pictures: Images, rows: int, columns: int) -> Images:
    """Return pictures (P, H, W, C) moved down and to the right; what comes in repeats the edge."""
    height, width = pictures.shape[1:3]
    from_rows = np.clip(np.arange(height) - rows, 0, height - 1)
    from_columns = np.clip(np.arange(width) - columns, 0, width - 1)
    return pictures[:, from_rows[:, None], from_columns]


def _directions(shift: int) -> Iterator[tuple[int, int]]:
    return ((rows, columns) for rows in (-shift, shift) for columns in (-shift, shift))
