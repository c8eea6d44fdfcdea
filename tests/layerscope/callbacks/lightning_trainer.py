"""A stand-in for Lightning: it calls the hooks of a callback in the order and with the arguments that Lightning documents.

With it the callback is tested where Lightning is not installed; the same tests run with Lightning itself where it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

HOOKS = (
    *("setup", "teardown", "on_fit_start", "on_fit_end", "on_sanity_check_start", "on_sanity_check_end"),
    *("on_train_start", "on_train_end", "on_train_epoch_start", "on_train_epoch_end"),
    *("on_train_batch_start", "on_train_batch_end", "on_validation_start", "on_validation_end"),
    *("on_save_checkpoint", "on_load_checkpoint", "on_exception"),
)


class Callback:
    """The base class: every hook is there, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda *args, **kwargs: None


class LightningModule(nn.Module):
    """The base class of modules; `log` takes what was measured, as Lightning's does."""

    trainer: Any

    def forward(self, *args: Any) -> Any:
        raise NotImplementedError

    def log(self, name: str, value: Any, **_: Any) -> None:
        self.trainer.callback_metrics[name] = torch.as_tensor(float(value))


class Trainer:
    """Trains: `training_step` and `validation_step` once an epoch each, with the hooks around them."""

    def __init__(
        self,
        max_epochs: int,
        callbacks: list[Any],
        rank: int = 0,
        check_val_every_n_epoch: int = 1,
        fast_dev_run: bool = False,
    ) -> None:
        self.callbacks, self.max_epochs, self.every = callbacks, max_epochs, check_val_every_n_epoch
        self.callback_metrics: dict[str, Tensor] = {}
        self.current_epoch = 0
        self.is_global_zero = rank == 0
        self.fast_dev_run = fast_dev_run
        self.checkpoint: dict[str, Any] = {}
        self.module: Any = None

    def fit(self, module: Any, batches: Any, checkpoint: dict[str, Any] | None = None) -> None:
        self.module, module.trainer = module, self
        self.call("setup", stage="fit")
        if checkpoint is not None:
            self.current_epoch = checkpoint["epoch"] + 1
            self.call("on_load_checkpoint", checkpoint)
        self.call("on_fit_start")
        self.call("on_sanity_check_start")
        self.call("on_validation_start")
        self.call("on_validation_end")
        self.call("on_sanity_check_end")
        self.call("on_train_start")
        try:
            for epoch in range(self.current_epoch, self.max_epochs):
                self.current_epoch = epoch
                self.epoch(batches)
            self.current_epoch = self.max_epochs
        except Exception as error:
            self.call("on_exception", error)
            raise
        self.call("on_train_end")
        self.call("on_fit_end")
        self.call("teardown", stage="fit")

    def epoch(self, batches: Any) -> None:
        self.call("on_train_epoch_start")
        for number, batch in enumerate(batches):
            self.call("on_train_batch_start", batch, number)
            self.module.training_step(batch, number)
            self.call("on_train_batch_end", None, batch, number)
        if (self.current_epoch + 1) % self.every == 0:
            self.call("on_validation_start")
            self.module.eval()
            self.module.validation_step(batches[0], 0)
            self.module.train()
            self.call("on_validation_end")
        self.call("on_train_epoch_end")
        self.module.on_train_epoch_end()
        self.checkpoint = {"epoch": self.current_epoch}
        self.call("on_save_checkpoint", self.checkpoint)

    def call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.module, *args, **kwargs)


def modules() -> dict[str, ModuleType]:
    """Return what `import lightning.pytorch` would find."""
    package, pytorch = ModuleType("lightning"), ModuleType("lightning.pytorch")
    for one in (Callback, LightningModule, Trainer):
        setattr(pytorch, one.__name__, one)
    package.pytorch = pytorch  # type: ignore[attr-defined]
    return {"lightning": package, "lightning.pytorch": pytorch}


def fresh(monkeypatch: Any, replaced: dict[str, ModuleType], name: str) -> ModuleType:
    """Import a module anew, with these in the place of what is installed; the test's end undoes it."""
    import importlib

    for one, module in replaced.items():
        monkeypatch.setitem(sys.modules, one, module)
    monkeypatch.delitem(sys.modules, name, raising=False)
    found = importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    return found
