"""Why a picture is not answered with a class, as HTTP says it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Self

from layerscope.schemas.errors import EventError, LayerscopeError, Refused
from layerscope.schemas.queries import ErrorAnswer

_OF_PICTURES: Final[Mapping[str, int]] = {"not-a-picture": 415, "too-many-pixels": 413}


class Rejected(LayerscopeError):
    """There is no answer but this; `status` is HTTP's."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.answer = ErrorAnswer(code=code, message=message, hint=hint)

    @classmethod
    def picture(cls, refused: Refused) -> Self:
        """Return what is answered where the picture is at fault."""
        return cls(_OF_PICTURES.get(refused.code, 422), refused.code, refused.message, refused.hint)

    @classmethod
    def model(cls, refused: Refused) -> Self:
        """Return what is answered where the model is."""
        return cls(409, refused.code, refused.message, refused.hint)

    @classmethod
    def circumstance(cls, error: EventError) -> Self:
        """Return what is answered where neither is: too many at once, a body too large, a service that is down."""
        code = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()
        message = str(error)
        return cls(
            error.status, code, f"{message[:1].upper()}{message[1:]}.", "try again" if error.status == 503 else ""
        )

    @classmethod
    def bug(cls) -> Self:
        """Return what is answered where something is wrong here; what, is nobody else's business."""
        return cls(500, "internal-error", "Something is wrong here.", "see inference's log")
