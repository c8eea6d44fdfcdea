"""What is said of an ONNX file that is not read: how to export the model so that it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from layerscope.models.file_kinds import UPLOAD_CALL
from layerscope.models.safe_form.safetensors_file import shown
from layerscope.schemas.errors import Refused

EXPORT_HINT: Final = "Export it again: torch.onnx.export(model, (images,), 'model.onnx', external_data=False)"
PACK_HINT: Final = UPLOAD_CALL


def refused(code: str, message: str) -> Refused:
    """Return the refusal of a file that another export may mend."""
    return Refused(code, message, EXPORT_HINT)


def unknown_operators(operators: Iterable[str]) -> Refused:
    """Return the refusal of a model that uses these operators."""
    names = ", ".join(shown(operator)[1:-1] for operator in sorted(set(operators))[:8])
    return Refused("unknown-operator", f"The model uses ONNX operators that are not read here: {names}.", PACK_HINT)
