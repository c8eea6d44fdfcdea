"""A stand-in for transformers: it calls the hooks of a callback in the order and with the arguments that its Trainer does.

With it the callback is tested where transformers is not installed; the same tests run with the real Trainer where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

STEPS = 2
HOOKS = (
    *("on_init_end", "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_step_begin"),
    *("on_step_end", "on_evaluate", "on_save", "on_log"),
)


class TrainerCallback:
    """The base class: every hook is there, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name not in HOOKS:
            raise AttributeError(name)
        return lambda *args, **kwargs: None


@dataclass
class State:
    """What a Trainer says of where it is."""

    epoch: float | None = None
    global_step: int = 0
    is_world_process_zero: bool = True
    log_history: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """Trains: `step` for each step, `evaluate` after each epoch, or after each step, with the hooks around them."""

    def __init__(self, model: Any, callback: Any, epochs: int, rank: int, every_step: bool) -> None:
        self.model, self.callback, self.epochs, self.every_step = model, callback, epochs, every_step
        self.state = State(is_world_process_zero=rank == 0)

    def train(self, step: Callable[[], None], evaluate: Callable[[], dict[str, float]]) -> None:
        self.call("on_train_begin")
        for epoch in range(self.epochs):
            self.call("on_epoch_begin")
            for number in range(STEPS):
                self.call("on_step_begin")
                step()
                self.state.global_step += 1
                self.state.epoch = epoch + (number + 1) / STEPS
                self.call("on_step_end")
                if self.every_step:
                    self.evaluate(evaluate)
            self.call("on_epoch_end")
            self.log({"loss": 1 / (epoch + 1)})
            if not self.every_step:
                self.evaluate(evaluate)
        self.log({"train_runtime": 1.0, "train_loss": 0.75})
        for weight in self.model.parameters():
            weight.data.fill_(-1)  # as if the best checkpoint were loaded
        self.call("on_train_end")

    def evaluate(self, evaluate: Callable[[], dict[str, float]]) -> None:
        metrics = {f"eval_{name}": value for name, value in evaluate().items()}
        self.log(metrics)
        self.call("on_evaluate", metrics=metrics)

    def log(self, logs: dict[str, float]) -> None:
        self.state.log_history.append({**logs, "epoch": self.state.epoch, "step": self.state.global_step})
        self.call("on_log", logs=logs)

    def call(self, hook: str, **kwargs: Any) -> None:
        given = dict.fromkeys(("processing_class", "optimizer", "lr_scheduler", "train_dataloader", "eval_dataloader"))
        getattr(self.callback, hook)(None, self.state, None, model=self.model, **given, **kwargs)


def modules() -> dict[str, ModuleType]:
    """Return what `import transformers` would find."""
    package = ModuleType("transformers")
    package.TrainerCallback = TrainerCallback  # type: ignore[attr-defined]
    return {"transformers": package}
