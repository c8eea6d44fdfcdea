"""transformers: a callback of its Trainer that uploads epochs and the best evaluation, with the Trainer's own log.

The weights are packed as an epoch ends. What was measured of it is read as the next one begins, since the Trainer
evaluates and logs after it has told its callbacks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from torch import Tensor, nn
from transformers import TrainerCallback

from layerscope.callbacks.uploads import Uploads, numbers

ROUNDING: Final = 1e-6
"""The Trainer counts epochs as a sum of fractions."""


@dataclass(frozen=True, slots=True)
class _Ended:
    """An epoch that has ended and is yet to be uploaded: after how many steps, as what, and the packed model."""

    step: int
    versions: Sequence[str]
    content: bytes


class LayerscopeUpload(TrainerCallback):
    """Uploads the model of a Trainer as the versions `epoch-<N>` and `best`; epochs count from 1.

    ::

        Trainer(…, callbacks=[LayerscopeUpload("digits/vit", best="eval_accuracy")])

    The process of rank zero uploads. Setups that divide the weights among processes (FSDP, DeepSpeed) are not for it.
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
        """Upload nothing yet; arguments and errors as of `Uploads`."""
        self.uploads = Uploads(name, at=at, every=every, best=best, mode=mode, example=example)
        self._ended: _Ended | None = None
        self._trains = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go on with what was measured before a training was resumed."""
        self._trains = state.is_world_process_zero
        self.uploads.resume(_rows(state))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Upload the epoch before."""
        self._upload(state)

    def on_epoch_end(self, args: Any, state: Any, control: Any, *, model: nn.Module, **kwargs: Any) -> None:
        """Pack the weights as they are now, if this epoch is uploaded."""
        versions = self.uploads.of_epoch(math.ceil(state.epoch - ROUNDING)) if self._trains else []
        if versions and (content := self._packed(model, versions)) is not None:
            self._ended = _Ended(state.global_step, versions, content)

    def on_evaluate(
        self,
        args: Any,
        state: Any,
        control: Any,
        *,
        model: nn.Module,
        metrics: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Upload the model where no evaluation of this training was better."""
        if not self._trains or not state.global_step:
            return
        if versions := self.uploads.of_best(numbers(metrics or {})):
            is_packed = self._ended is not None and self._ended.step == state.global_step
            content = self._ended.content if is_packed and self._ended else self._packed(model, versions)
            self._send(state, versions, content)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Upload the last epoch, and wait for all uploads."""
        self._upload(state)
        self._trains = False  # an evaluation after it may be of any weights
        self.uploads.close()

    def _packed(self, model: nn.Module, versions: Sequence[str]) -> bytes | None:
        return self.uploads.packed(lambda: as_written(model), *versions)

    def _upload(self, state: Any) -> None:
        """Upload the epoch that has ended, unless that is done."""
        if self._ended is not None:
            self._send(state, self._ended.versions, self._ended.content)
            self._ended = None

    def _send(self, state: Any, versions: Sequence[str], content: bytes | None) -> None:
        self.uploads.history[:] = _rows(state)
        if content is not None:
            self.uploads.send(content, versions)


def as_written(model: nn.Module) -> nn.Module:
    """Return a model with the forward pass of its class: in mixed precision one of accelerate's is set on the object."""
    if "forward" not in vars(model):
        return model
    plain = copy.copy(model)
    del vars(plain)["forward"]
    return plain


def _rows(state: Any) -> list[dict[str, float]]:
    return [numbers(row) for row in state.log_history]
