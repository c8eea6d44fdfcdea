"""Rule over the training log: trained too long, or not long enough."""

from __future__ import annotations

import math
from typing import Final

from layerscope.functions.findings.evidence import Evidence, Found, NotChecked
from layerscope.schemas.products.training_history import TrainingHistory

FEWEST_EPOCHS: Final = 4
DEVIATIONS: Final = 3.0
"""Of the difference of two accuracies over so many images: an accuracy that merely wavers stays below."""
SMALLEST_DROP: Final = 0.01
LOSS_ROSE: Final = 1.2
STILL_FALLS: Final = 0.1
LAST: Final = 0.2


def trained_wrongly_long(evidence: Evidence) -> Found | NotChecked | None:
    """The last epoch is clearly worse on test images than an earlier one; or the loss was still falling when it ended."""
    history = evidence.training_history
    if history is None:
        return NotChecked("no training log was uploaded with the model")
    if history.unit != "epoch" or len(history.epochs) < FEWEST_EPOCHS:
        return NotChecked(f"the training log has fewer than {FEWEST_EPOCHS} epochs")
    return _overfitted(history, evidence.images) or _undertrained(history)


def _overfitted(history: TrainingHistory, images: int) -> Found | None:
    best, last = history.best_by_accuracy, history.last
    lowest = history.best_by_loss
    figures: dict[str, float] = {"last": last.epoch}
    drop = 0.0
    if best and best.test_accuracy is not None and last.test_accuracy is not None:
        drop = best.test_accuracy - last.test_accuracy
        share = (best.test_accuracy + last.test_accuracy) / 2
        figures |= {"best": best.epoch, "best_accuracy": best.test_accuracy, "last_accuracy": last.test_accuracy}
        wavers = DEVIATIONS * math.sqrt(2 * share * (1 - share) / images)
        if drop >= max(SMALLEST_DROP, wavers) and best.epoch < last.epoch:
            return Found("overfitted", drop, figures, "training_history", way="accuracy")
    if lowest and lowest.test_loss and last.test_loss is not None and last.train_loss is not None:
        behind = len(history.epochs) - next(k for k, one in enumerate(history.epochs) if one.epoch == lowest.epoch) - 1
        gap = last.train_loss < lowest.train_loss if lowest.train_loss is not None else False
        if last.test_loss >= LOSS_ROSE * lowest.test_loss and behind >= 2 and gap:
            figures |= {"best": lowest.epoch, "best_loss": lowest.test_loss, "last_loss": last.test_loss}
            return Found("overfitted", max(drop, 0.0), figures, "training_history", way="loss")
    return None


def _undertrained(history: TrainingHistory) -> Found | None:
    losses = [(one.epoch, one.test_loss) for one in history.epochs if one.test_loss is not None]
    if len(losses) < FEWEST_EPOCHS:
        return None
    epoch, last = losses[-1]
    earlier, before = losses[-1 - max(1, round(LAST * len(losses)))]
    if last != min(loss for _, loss in losses) or before <= 0 or last > (1 - STILL_FALLS) * before:
        return None
    figures = {"last": epoch, "earlier": earlier, "last_loss": last, "earlier_loss": before, "fall": 1 - last / before}
    return Found("undertrained", 0.0, figures, "training_history")
