"""What a checkpoint says of its own training: figures next to the weights, one value each or one an epoch."""

from __future__ import annotations

import json
from typing import Final

from layerscope.functions.training_history import epochs
from layerscope.functions.training_history.epochs import Series

PLAIN_ACCURACY: Final = "test_accuracy"
"""Checkpoints are kept by what was held out, so that is what an accuracy without a further word means there."""


def read_checkpoint(content: bytes) -> Series:
    """Return the epochs that a checkpoint tells of: a JSON object of numbers and of lists of numbers.

    Raises:
        Refused: as of `epochs.of_rows`.
    """
    figures = json.loads(content)
    lists = {name: value for name, value in figures.items() if isinstance(value, list)}
    if lists:
        return epochs.of_lists(lists, plain_accuracy=PLAIN_ACCURACY)
    return epochs.of_rows([{name: float(value) for name, value in figures.items()}], plain_accuracy=PLAIN_ACCURACY)
