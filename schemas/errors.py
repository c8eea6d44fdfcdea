"""What can go wrong while an event is answered, and what each means for its delivery.

    Refused        this model or upload cannot have this product: permanent, stored as the product's outcome
    InvalidEvent   not an event we understand: 400 or 422, a dead letter at once
    Ignored        not ours, superseded or gone: 204, nothing to do
    Busy           try again soon: 429
    Unavailable    a dependency is down: 503
    WorkFailed     the computation crashed, or passed its time or memory limit: 500, a failed attempt
    NotFound, Changed   what the object store says of an object; never reaches a sender

Anything else is a bug: 500. The table of statuses is in `functions/handler.py`.
"""

from __future__ import annotations


class LayerscopeError(Exception):
    """The root of the errors that this system raises on purpose."""


class Refused(LayerscopeError):
    """This model or upload cannot have this product; `code` is stable, `message` one sentence, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str, str]]:
        # Exceptions cross the worker's pipe; the default would rebuild with one argument only.
        return Refused, (self.code, self.message, self.hint)


class InvalidEvent(LayerscopeError):
    """Not an event we understand; `status` is 400 where it is no CloudEvent, 422 where its data is not of its type."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


class Ignored(LayerscopeError):
    """Nothing to do for this event: it is not ours, was superseded, or its object is gone."""


class Busy(LayerscopeError):
    """Too much is under way here; the sender tries again."""


class Unavailable(LayerscopeError):
    """A dependency does not answer; the sender tries again."""


class WorkFailed(LayerscopeError):
    """The computation crashed or passed a limit: a failed attempt, never a dead function."""


class NotFound(LayerscopeError):
    """The object store has no such object."""


class Changed(LayerscopeError):
    """The object is no longer the one that was asked for (its ETag differs)."""
