"""Lightning: a callback of its Trainer that uploads epochs and the best one, with what the module logs by `self.log`.

The weights are packed as an epoch ends. What was measured in it is read as the next one begins, since a module may still
log as its epoch ends, after the callbacks.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from torch import Tensor, nn

from layerscope.callbacks.uploads import BEST, Uploads, numbers
from layerscope.schemas.errors import Refused

PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")
"""The two names under which Lightning is published; a Trainer takes the callbacks of its own."""
KEY: Final = "layerscope"
"""Where it stands in a checkpoint what was measured."""


def _package() -> Any:
    name = next((one for one in PACKAGES if one in sys.modules), None)
    for one in (name,) if name else PACKAGES:
        try:
            return importlib.import_module(one)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{one}.".startswith(f"{error.name}."):
                raise
    raise ModuleNotFoundError("Lightning is not installed: pip install lightning", name="lightning")


_lightning: Any = _package()


class LayerscopeUpload(_lightning.Callback):
    """Uploads the model of a Trainer as the versions `epoch-<N>` and `best`; epochs count from 1.

    ::

        Trainer(callbacks=[LayerscopeUpload("digits/lenet", best="val_acc")])

    The process of rank zero uploads. Strategies that divide the weights among processes (FSDP, DeepSpeed) are not for it.
    """

    def __init__(
        self,
        name: str,
        *,
        at: str | None = None,
        every: int | None = 1,
        best: str | None = None,
        mode: Literal["min", "max"] | None = None,
        network: str | None = None,
        example: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Upload nothing yet; arguments and errors as of `Uploads`, and besides:

        Args:
            network: the attribute of the module that holds the classifier, such as `net`; by default the module itself,
                or where it has no `forward`, the only part of it that has weights.
        """
        self.uploads = Uploads(name, at=at, every=every, best=best, mode=mode, example=example)
        self._network = network
        self._before: Mapping[str, Any] = {}
        self._ended: tuple[int, bytes | None] | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Remember what was measured before."""
        self._before = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Pack the weights as they are now."""
        if trainer.is_global_zero and not trainer.fast_dev_run:
            epoch = trainer.current_epoch + 1
            self._ended = epoch, self._packed(pl_module, epoch)

    def on_train_epoch_start(self, trainer: Any, pl_module: nn.Module) -> None:
        """Upload the epoch before."""
        self._upload(trainer)

    def on_train_end(self, trainer: Any, pl_module: nn.Module) -> None:
        """Upload the last epoch, and wait for all uploads."""
        self._upload(trainer)
        self.uploads.close()

    def on_exception(self, trainer: Any, pl_module: nn.Module, exception: BaseException) -> None:
        """Wait for the uploads that are under way."""
        self.uploads.close()

    def on_save_checkpoint(self, trainer: Any, pl_module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Keep in a checkpoint what a training that is resumed goes on with."""
        self._upload(trainer)
        checkpoint[KEY] = list(self.uploads.history)

    def on_load_checkpoint(self, trainer: Any, pl_module: nn.Module, checkpoint: dict[str, Any]) -> None:
        """Go on with what was measured before."""
        self.uploads.resume(checkpoint.get(KEY, []))

    def _packed(self, module: nn.Module, epoch: int) -> bytes | None:
        versions = self.uploads.of_epoch(epoch)
        if not versions and not self.uploads.chooses:
            return None
        return self.uploads.packed(lambda: network_of(module, self._network), *(versions or [BEST]))

    def _upload(self, trainer: Any) -> None:
        """Upload the epoch that has ended, unless that is done."""
        now = dict(trainer.callback_metrics)  # by every process: it may take all of them to add a figure up
        # What was not measured in this epoch stands there as it did before.
        fresh = numbers({name: value for name, value in now.items() if value is not self._before.get(name)})
        if self._ended is not None:
            (epoch, content), self._ended, self._before = self._ended, None, now
            self.uploads.history.append({"epoch": epoch, **fresh})
            versions = [*self.uploads.of_epoch(epoch), *self.uploads.of_best(fresh)]
            if versions and content is not None:
                self.uploads.send(content, versions)


def network_of(module: nn.Module, name: str | None) -> nn.Module:
    """Return the classifier of a module: by its name, the module itself, or its only part with weights.

    Raises:
        Refused: `no-network`, there is no such part, or it takes a name to say which is meant.
    """
    parts: dict[str, nn.Module] = {
        one: part for one, part in module.named_children() if any(True for _ in part.parameters())
    }
    if name is not None:
        found: nn.Module | None = dict(module.named_modules()).get(name)
        if found is None:
            raise Refused("no-network", f"{type(module).__name__} has no part {name!r}.", _say_which(parts))
        return found
    if type(module).forward is not _lightning.LightningModule.forward:
        return module
    if len(parts) != 1:
        said = f"{type(module).__name__} has no forward, and {len(parts)} parts with weights."
        raise Refused("no-network", said, _say_which(parts))
    (only,) = parts.values()
    return only


def _say_which(parts: Mapping[str, nn.Module]) -> str:
    return f"Say network='…', the classifier's attribute; there are {', '.join(parts) or 'none with weights'}"
