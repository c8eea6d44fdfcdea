"""What is answered where there are no outputs: the Open Inference Protocol's `error`, with a code and a hint of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from layerscope.functions.stage.hop import PASSED_ON
from layerscope.schemas.errors import LayerscopeError, Refused

Answered = tuple[int, Mapping[str, str], bytes]
"""Status, headers, body."""
_STATUSES: Final[Mapping[str, int]] = {
    "no-such-model": 404,
    "no-such-stage": 404,
    "no-such-cut": 404,
    "bad-tensor": 400,
    "address-not-allowed": 403,
    "not-a-picture": 415,
    "too-many-bytes": 413,
    "too-many-pixels": 413,
    **dict.fromkeys(("no-picture", "broken-picture", "unknown-mode", "wrong-channels", "no-file", "broken-form"), 422),
}
_BUSY: Final = 429


class Passed(LayerscopeError):
    """A stage behind this one has answered with no outputs, and so does this one."""

    def __init__(self, status: int, message: str, code: str, hint: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.hint = hint


def refused(error: Refused) -> Answered:
    """Return what is answered where the request asks for what there is not, or the model cannot be run on it."""
    return _answered(_STATUSES.get(error.code, 409), error.message, error.code, error.hint)


def passed(error: Passed) -> Answered:
    """Return what is answered where a stage behind has said why there is nothing."""
    status, headers, body = _answered(error.status, str(error), error.code, error.hint)
    return status, {**headers, PASSED_ON: "true"}, body


def failed(status: int, message: str) -> Answered:
    """Return what is answered where something else stands in the way."""
    return _answered(status, message, "", "")


def _answered(status: int, message: str, code: str, hint: str) -> Answered:
    body = {"error": message, **({"code": code} if code else {}), **({"hint": hint} if hint else {})}
    headers = {"content-type": "application/json", **({"retry-after": "1"} if status == _BUSY else {})}
    if status == 408:
        headers["connection"] = "close"  # the rest of the body is not read
    return status, headers, json.dumps(body).encode()
