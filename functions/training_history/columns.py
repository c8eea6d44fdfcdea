"""Which column of a training log is which figure: by the words that the loggers and tutorials of the field use."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from layerscope.schemas.history import Figure

EPOCH: Final = frozenset({("epoch",), ("epochs",)})
STEP: Final = frozenset({("step",), ("steps",), ("global", "step"), ("trainer", "global", "step"), ("iteration",)})

_TRAIN: Final = frozenset({"train", "training", "tr"})
_TEST: Final = frozenset({"test", "testing", "te", "val", "valid", "validation", "eval", "evaluation", "dev"})
_LOSS: Final = frozenset({"loss", "losses", "nll", "crossentropy"})
_ACCURACY: Final = frozenset({"acc", "accs", "accuracy", "accuracies"})
_MEANS: Final = frozenset({"epoch", "epochs", "mean", "avg", "average", "running"})
_KINDS: Final = frozenset(
    {"categorical", "sparse", "binary", "multiclass", "top", "1", "0", "dataloader", "idx", "metrics"}
)
_OTHERS: Final = frozenset({"min", "max", "std", "grad", "norm", "time", "lr", "rate"})
_BATCH: Final = frozenset({"step", "batch", "iter", "iteration"})
_JOINED: Final = re.compile(r"(train|validation|valid|val|test|eval)(?=loss|acc)")
_NUMBERED: Final = re.compile(r"(acc|accuracy|loss)s?_?(\d+)$")


def words(name: str) -> tuple[str, ...]:
    """Return the words of a column's name, in lower case; of a chart's export only what follows the run's name."""
    name = name.rsplit(" - ", 1)[-1]
    name = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    name = _JOINED.sub(r"\1 ", name)
    return tuple(re.findall(r"[a-z]+|[0-9]+", _NUMBERED.sub(r"\1 \2", name)))


def figures(counts: Mapping[str, int], *, plain_accuracy: Figure = "train_accuracy") -> dict[Figure, str]:
    """Return the column of each figure that is there.

    Args:
        counts: how many values each column has. Of several for a figure, that of whole epochs wins, then the plainer
            name, then the one with more values.
        plain_accuracy: what an accuracy is that does not say of which images; a plain loss is of training.
    """
    ranked: dict[Figure, list[tuple[bool, int, bool, int, str]]] = {}
    for name, count in counts.items():
        found = words(name)
        figure = _figure(frozenset(found), plain_accuracy)
        if figure is not None and count:
            rank = (bool(_BATCH & set(found)), _strange(found), "epoch" not in found, -count, name)
            ranked.setdefault(figure, []).append(rank)
    return {figure: min(ranks)[-1] for figure, ranks in sorted(ranked.items())}


def _strange(found: tuple[str, ...]) -> int:
    return sum(word not in _TRAIN | _TEST | _LOSS | _ACCURACY | _MEANS | _KINDS for word in found)


def _figure(found: frozenset[str], plain_accuracy: Figure) -> Figure | None:
    loss = bool(found & _LOSS) or {"cross", "entropy"} <= found
    accuracy = bool(found & _ACCURACY) or {"top", "1"} <= found
    train, test = bool(found & _TRAIN), bool(found & _TEST)
    if loss == accuracy or (train and test) or found & _OTHERS or any(w.isdigit() and int(w) > 1 for w in found):
        return None
    if loss:
        return "test_loss" if test else "train_loss"
    return "test_accuracy" if test else "train_accuracy" if train else plain_accuracy
