"""Versions of a model while it is trained: the epochs and the best one, each with all that was measured until then.

What is uploaded is packed where the training calls, between two steps, so that it is the weights of that moment and no
other thread touches the model. It is sent by a thread of its own. A training never ends because an upload fails.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

from torch import Tensor, nn

from layerscope import client
from layerscope.functions.training_history.columns import words
from layerscope.packer import pack
from layerscope.schemas.errors import LayerscopeError, Refused
from layerscope.schemas.identity import Identity
from layerscope.systems import locate
from layerscope.training_log import sidecar

BEST: Final = "best"
WAITING_BYTES: Final = 2 * 2**30
"""Memory for what waits to be sent; of a training that is faster than its uploads, the versions beyond are left out."""

_LOW_IS_GOOD: Final = frozenset({"loss", "losses", "nll", "error", "err", "perplexity", "entropy"})

_log = logging.getLogger("layerscope.callbacks")


@dataclass(frozen=True, slots=True)
class _Version:
    """What is to be sent: a model in the safe form, and the log of its training as a sidecar, if there is one to tell."""

    content: bytes
    sidecars: Mapping[str, bytes]


class Uploads:
    """Uploads a model as it is trained, as the versions `epoch-<N>` and `best` of one model.

    Call it after each epoch, in a `with` block, whose end waits for the last upload::

        with Uploads("digits/lenet", best="test_accuracy") as uploads:
            for epoch in range(10):
                train(model)
                uploads(model, {"train_loss": …, "test_accuracy": …})

    What fails is logged once for each reason, with what to do, and is in `failed`; the next version is tried again.
    """

    def __init__(
        self,
        name: str,
        *,
        at: str | None = None,
        every: int | None = 1,
        best: str | None = None,
        mode: Literal["min", "max"] | None = None,
        example: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Upload nothing yet.

        Args:
            name: `DATASET/MODEL`.
            at: URL or directory of the system, as of `layerscope.upload`.
            every: an epoch is uploaded whose number this divides; None: none is.
            best: the figure by which the version `best` is chosen; it is replaced whenever the figure is better.
            mode: whether that is best at its lowest or highest; by default what is a loss or an error by its name is
                best at its lowest.
            example: images that the model takes, or the shape of one, as of `layerscope.upload`.

        Raises:
            ValueError: the name is not of that form, `every` is less than 1, or nothing would be uploaded.
        """
        if name.count("/") != 1:
            raise ValueError(f"{name!r} is not DATASET/MODEL; versions are called epoch-1, epoch-2 … and {BEST}")
        Identity.parse(f"{name}/{BEST}")
        if every is None and best is None:
            raise ValueError("nothing would be uploaded: say every=1 or best='val_accuracy'")
        if every is not None and every < 1:
            raise ValueError(f"every={every} is not a number of epochs: 1 or more, or None for none")
        self.name = name
        self.history: list[dict[str, float]] = []
        self.best: float | None = None
        self.uploaded: list[str] = []
        self.failed: dict[str, str] = {}
        self._at, self._every, self._figure, self._example = at, every, best, example
        self._sign = 1 if (mode or _mode_of(best or "")) == "max" else -1
        self._thread: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._waiting: dict[str, _Version] = {}
        self._warned: set[str] = set()

    def __call__(self, model: nn.Module, figures: Mapping[str, Any], epoch: int | None = None) -> None:
        """Take note of what was measured after an epoch, and upload the model if it is its turn, or the best so far.

        Args:
            model: as it is now; it is not changed.
            figures: what was measured, by names such as `train_loss` and `val_accuracy`; what is no number is left out.
            epoch: its number; by default calls are counted from 1.
        """
        number = len(self.history) + 1 if epoch is None else epoch
        measured = numbers(figures)
        self.history.append({"epoch": number, **measured})
        versions = [*self.of_epoch(number), *self.of_best(measured)]
        if versions and (content := self.packed(lambda: model, *versions)) is not None:
            self.send(content, versions)

    def resume(self, history: Sequence[Mapping[str, float]]) -> None:
        """Go on after these rows, from a training that was interrupted."""
        self.history[:] = [dict(row) for row in history]
        values = [row[self._figure] for row in self.history if self._figure is not None and self._figure in row]
        finite = [value for value in values if not math.isnan(value)]
        self.best = max(finite, key=lambda value: self._sign * value, default=None)

    @property
    def chooses(self) -> bool:
        """Tell whether a best version is uploaded."""
        return self._figure is not None

    def of_epoch(self, epoch: int) -> list[str]:
        """Return the version as which an epoch is uploaded, if it is."""
        return [f"epoch-{epoch}"] if self._every is not None and epoch % self._every == 0 else []

    def of_best(self, measured: Mapping[str, float]) -> list[str]:
        """Return the version of the best model if this is it, and remember how good it is."""
        if self._figure is None:
            return []
        value = measured.get(self._figure)
        if value is None:
            self._warn(
                f"no version {BEST} of {self.name} can be chosen by {self._figure!r}, which was not measured",
                f"Measured were {', '.join(sorted(measured)) or 'no figures'}: say best='…' with one of them",
            )
            return []
        if math.isnan(value) or (self.best is not None and self._sign * value <= self._sign * self.best):
            return []
        self.best = value
        return [BEST]

    def packed(self, find: Callable[[], nn.Module], *versions: str) -> bytes | None:
        """Return the model that is found, in the safe form; None where that fails, which is told of these versions."""
        try:
            return pack(find(), example=self._example)
        except Exception as error:  # noqa: BLE001  no upload is worth a training
            self._fails(versions, error)
            return None

    def send(self, content: bytes, versions: Sequence[str]) -> None:
        """Have a packed model sent under each of these versions, with the history as it is now.

        A version that still waits gives way to a newer one of its name.
        """
        made = _Version(content, self._sidecars())
        for version in versions:
            with self._lock:
                others = {id(one.content): len(one.content) for name, one in self._waiting.items() if name != version}
                is_full = bool(others) and sum((others | {id(content): len(content)}).values()) > WAITING_BYTES
                is_new = version not in self._waiting
                if not is_full:
                    self._waiting[version] = made
            if is_full:
                self._fails([version], _TooFast())
            elif is_new:
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="layerscope-uploads")
                self._thread.submit(self._upload, version)

    def close(self) -> None:
        """Wait until all that was to be sent is sent, or has failed; it may be used again."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
            _log.info("%s: %d uploaded, %d failed", self.name, len(self.uploaded), len(self.failed))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _upload(self, version: str) -> None:
        with self._lock:
            made = self._waiting.pop(version)
        identity = Identity.parse(f"{self.name}/{version}")
        try:
            sending = client.upload(
                locate(self._at), identity, made.content, ".safetensors", _log.debug, sidecars=made.sidecars
            )
            client.finished(sending)
        except Exception as error:  # noqa: BLE001  no upload is worth a training
            self._fails([version], error)
        else:
            self.failed.pop(version, None)
            self.uploaded.append(version)
            _log.info("uploaded %s", identity.subject)

    def _sidecars(self) -> Mapping[str, bytes]:
        try:
            return dict([sidecar(self.history)])
        except ValueError as error:
            self._warn(f"what was measured of {self.name} is not uploaded with it", str(error))
            return {}

    def _fails(self, versions: Sequence[str], error: Exception) -> None:
        why = _told(error)
        for version in versions:
            self.failed[version] = why
            self._warn(f"{self.name}/{version} was not uploaded", why)

    def _warn(self, what: str, why: str) -> None:
        """Log it as a warning where it is the first with this reason."""
        level = logging.DEBUG if why in self._warned else logging.WARNING
        self._warned.add(why)
        _log.log(level, "%s: %s. The training goes on; this is not said again.", what, why.rstrip("."))


class _TooFast(LayerscopeError):
    """More waits to be sent than is kept."""

    def __str__(self) -> str:
        return f"{WAITING_BYTES // 2**30} GiB wait to be sent, as the training is faster."


def numbers(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return those figures that are one number each, tensors of one element among them."""
    found: dict[str, float] = {}
    for name, value in figures.items():
        if isinstance(value, str | bytes) or value is None:
            continue
        try:
            found[name] = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError):  # a picture, a table, a tensor of several elements
            continue
    return found


def _mode_of(figure: str) -> Literal["min", "max"]:
    return "min" if _LOW_IS_GOOD & set(words(figure)) else "max"


def _told(error: Exception) -> str:
    """Return what is wrong, and what to do about it."""
    if isinstance(error, Refused):
        return f"{error.message} {error.hint}"
    if isinstance(error, _TooFast):
        return f"{error} Upload fewer: every=10, or every=None with best='…'"
    said = str(error) if isinstance(error, LayerscopeError | ValueError) else f"{type(error).__name__}: {error}"
    return said if "`layerscope " in said else f"{said.rstrip('.')}. `layerscope doctor` looks for the cause"
