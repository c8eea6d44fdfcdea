"""What is said of an exported program that is not taken."""

from __future__ import annotations

from typing import Final

from layerscope.models.remedies import OTHERWISE
from layerscope.schemas.errors import Refused

_CALL: Final = (
    "torch.export.save(torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 'model.pt2')"
)
SAVE: Final = f"Save it so: {_CALL}"
WHOLE: Final = (
    f"If it was decomposed, save the program as torch.export.export gives it, without run_decompositions(): {_CALL}. "
    f"If not: {OTHERWISE}"
)


def bad_program(what: str) -> Refused:
    """Return the refusal of a program that torch would not have written."""
    return Refused("bad-program", f"The exported program is not as torch writes it: {what}.", SAVE)


def fixed_batch(what: str) -> Refused:
    """Return the refusal of a program that only fits batches of the size that it was exported with."""
    return Refused("fixed-batch", what, f"Export it with a batch of any size, on at least two images: {_CALL}")
