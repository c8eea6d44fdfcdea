"""Rules over how sure the model is: too sure or not sure enough, and what one temperature would change."""

from __future__ import annotations

from typing import Final

import numpy as np

from layerscope.functions.analysis.calibration import calibration_error
from layerscope.functions.analysis.outputs import log_probabilities
from layerscope.functions.findings.evidence import Evidence, Floats, Found, Integers, NotChecked
from layerscope.schemas.products.findings import FindingKind

SMALLEST: Final = 0.02
ABOVE_FLOOR: Final = 1.5
"""Times the error that 95 % of perfectly calibrated models stay below."""
MOST_CELLS: Final = 4_000_000
TEMPERATURES: Final = (0.05, 20.0)


def miscalibrated(evidence: Evidence) -> Found | NotChecked | None:
    """Confidence off by more than 2 points, and by half as much again as chance explains; and the temperature that helps.

    One number that all logits are divided by (Guo et al. 2017) is fitted to half of the images and tried on the other half,
    both ways round: what it would bring is never told from images that it was fitted to.
    """
    calibration = evidence.evaluation.calibration
    if calibration is None:
        return NotChecked("some outputs are not finite")
    error, floor = calibration.ece, calibration.noise_floor_95
    if error < SMALLEST or error < ABOVE_FLOOR * floor:
        return None
    step = max(1, -(-evidence.images * evidence.classes // MOST_CELLS))
    images = np.arange(0, evidence.images, step)
    log_p = log_probabilities(evidence.predictions.outputs[images], evidence.predictions.output_kind)
    labels = evidence.labels[images]
    right = log_p.argmax(axis=1) == labels
    gap = float(np.exp(log_p.max(axis=1)).mean() - right.mean())
    halves = (np.arange(len(images)) % 2 == 0, np.arange(len(images)) % 2 == 1)
    fitted = [temperature(log_p[half], labels[half]) for half in halves]
    after = np.empty(len(images))
    for half, other in zip(halves, reversed(fitted), strict=True):
        after[half] = _confidence(log_p[half], other)
    figures = {
        "error": error,
        "floor": floor,
        "gap": abs(gap),
        "temperature": float(np.sqrt(fitted[0] * fitted[1])),
        "error_before": calibration_error(np.exp(log_p.max(axis=1)), right),
        "error_after": calibration_error(after, right),
    }
    sure = np.exp(log_p.max(axis=1))
    order = np.argsort(-sure if gap > 0 else sure, kind="stable")
    shown = images[order[~right[order] if gap > 0 else right[order]]]
    kind: FindingKind = "overconfident" if gap > 0 else "underconfident"
    return Found(kind, 0.0, figures, "evaluation", images=tuple(map(int, shown)))


def temperature(log_p: Floats, labels: Integers) -> float:
    """Return the temperature of the least cross-entropy, for log probabilities or logits (N, C) and labels (N,).

    The cross-entropy is convex in 1 / temperature; SciPy's bounded scalar search finds it.
    """
    from scipy.optimize import minimize_scalar

    own = np.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]

    def loss(log_t: float) -> float:
        scaled = log_p / np.exp(log_t)
        highest = scaled.max(axis=1)
        total = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float((total - own / np.exp(log_t)).mean())

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def _confidence(log_p: Floats, divided_by: float) -> Floats:
    scaled = log_p / divided_by
    total = np.exp(scaled - scaled.max(axis=1)[:, None]).sum(axis=1)
    return np.asarray(1 / total)
