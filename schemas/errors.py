"""What can go wrong, and what each error means for the delivery of an event.

    LayerscopeError
      Refused           this model or upload cannot have this product: permanent, stored as the product's outcome
      NotFound          the object store has no such object; never reaches a sender
      Changed           the object is no longer the one that was asked for; never reaches a sender
      EventError        an event cannot be taken; `status` is what its sender is answered
        Ignored, Busy, NotTaken, Unavailable (ShortOfResources, ShortOfMemory, WorkerNotStarted, WorkStalled, CircuitOpen),
          WorkFailed (WorkerDied), SetAside, BodyTooLarge, BodyLate, SenderGone, MethodNotAllowed, InvalidEvent
          InvalidCloudEvent, InvalidEventData (`events.cloudevent`), InvalidNotification (`events.notification`)

Anything else is a bug: 500. `docs/architecture.md` has the statuses as a table, generated from these classes.
"""

from __future__ import annotations

from typing import ClassVar


class LayerscopeError(Exception):
    """The root of the errors that this system raises on purpose."""


class Refused(LayerscopeError):
    """This model or upload cannot have this product; `code` is stable, `message` one sentence, `hint` what to do."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.hint = hint

    def advising(self, hint: str) -> Refused:
        """Return the same refusal with another hint, for one who can do something else about it."""
        return Refused(self.code, self.message, hint)

    def __reduce__(self) -> tuple[type[Refused], tuple[str, str, str]]:
        # Exceptions cross the worker's pipe; the default would rebuild with one argument only.
        return Refused, (self.code, self.message, self.hint)


class NotFound(LayerscopeError):
    """The object store has no such object."""


class Changed(LayerscopeError):
    """The object is no longer the one that was asked for (its ETag differs)."""


class EventError(LayerscopeError):
    """An event cannot be taken."""

    status: ClassVar[int] = 500


class Ignored(EventError):
    """Nothing to do: the event is not for this function, was superseded, or its object is gone."""

    status = 204


class InvalidEvent(EventError):
    """Not an event that this function understands; a dead letter at once."""

    status = 422


class MethodNotAllowed(EventError):
    """Events are sent by POST."""

    status = 405


class BodyLate(EventError):
    """The body did not arrive in time; the sender tries again."""

    status = 408


class BodyTooLarge(EventError):
    """The body is larger than an event may be; a dead letter at once."""

    status = 413


class SenderGone(EventError):
    """The sender closed the connection before the body was complete."""

    status = 400


class Busy(EventError):
    """Too many events are in work here, or the replica is draining; the sender tries again."""

    status = 429


class NotTaken(EventError):
    """Whoever was to be notified refuses it, and would again: a dead letter at once."""

    status = 422


class Unavailable(EventError):
    """A dependency does not answer; the sender tries again."""

    status = 503


class WorkFailed(EventError):
    """The computation crashed or passed a limit: a failed attempt, never a dead function."""

    status = 500


class ShortOfResources(Unavailable):
    """The node has no more space, open files, processes or memory to give: no fault of the work."""


class ShortOfMemory(ShortOfResources):
    """The node has no more memory to give, where the computation was still within its own limit."""


class WorkerNotStarted(Unavailable):
    """The computing process could not start."""


class WorkStalled(Unavailable):
    """The computation took very long by the clock, but was given too little of the processor to have passed its limit."""


class CircuitOpen(Unavailable):
    """The function failed for one model after the other, and takes none until a trial succeeds."""


class WorkerDied(WorkFailed):
    """The computing process was ended from outside, as by the kernel where memory is short: perhaps not by the work."""


class SetAside(EventError):
    """Every attempt at this work ended the process, or never came to an end: a dead letter at once."""

    status = 422
