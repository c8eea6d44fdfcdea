"""Rule over how the images are prepared: another way than the dataset's makes the model right more often."""

from __future__ import annotations

from typing import Final

from layerscope.functions.findings.evidence import Evidence, Found, NotChecked

UNLIKELY: Final = 0.001
SMALLEST: Final = 0.05
FAIR: Final = 0.5
TIMES_CHANCE: Final = 10
"""How right a model must be in a way to be said to have been trained in it: half of the images, or ten times of one in C."""


def prepared_otherwise(evidence: Evidence) -> Found | NotChecked | None:
    """A way in which the same images are right more often: exact McNemar test, for every way that was tried.

    Images that are right in one way only are as likely to be so in either, if the ways do not matter (McNemar 1947).
    """
    tried = evidence.preprocessing
    if tried is None or not tried.ways:
        return NotChecked("the model was not run on images prepared otherwise")
    from scipy.stats import binom

    best = max(tried.ways, key=lambda one: one.correct)
    gain = (best.correct - tried.correct) / tried.images
    chance = float(binom.sf(best.gained - 1, best.gained + best.lost, 0.5)) * len(tried.ways)
    fair = min(FAIR, TIMES_CHANCE / evidence.classes)
    if best.correct < fair * tried.images or gain < SMALLEST or chance > UNLIKELY:
        return None
    figures = {
        "images": tried.images,
        "correct": tried.correct,
        "correct_then": best.correct,
        "accuracy": tried.correct / tried.images,
        "accuracy_then": best.correct / tried.images,
    }
    return Found("prepared_otherwise", gain, figures, "preprocessing", way=best.name)
