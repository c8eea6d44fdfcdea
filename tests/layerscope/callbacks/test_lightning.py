"""The callback for Lightning, with Lightning where it is installed and with a stand-in that calls the documented hooks.

Each test trains with both: a hook that does nothing any more fails everywhere, and one that Lightning calls otherwise
fails where Lightning is.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.layerscope.callbacks import lightning_trainer
from tests.layerscope.callbacks.sent import Counting, Sent

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of the torch that it runs on

ACCURACIES = (0.5, 0.75, 0.625, 0.875)
NAMES = ("lightning.pytorch", "pytorch_lightning")
CALLBACK = "layerscope.callbacks.lightning"


@dataclass
class Lightning:
    """A Lightning, the callback's module on it, and how a Trainer of it fits a module to its end."""

    package: Any
    ours: Any
    fit: Callable[..., Any]
    resume: Callable[[Any, Any, Any], None]


@pytest.fixture(params=["stand-in", "installed"])
def lightning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lightning:
    if request.param == "stand-in":
        ours = lightning_trainer.fresh(monkeypatch, lightning_trainer.modules(), CALLBACK)
        return Lightning(lightning_trainer, ours, *_stand_in())
    name = next((one for one in NAMES if importlib.util.find_spec(one.partition(".")[0])), NAMES[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of what it imports
        package = pytest.importorskip(name, reason="Lightning is not installed")
    ours = lightning_trainer.fresh(monkeypatch, {}, CALLBACK)
    return Lightning(package, ours, *_real(package, tmp_path))


def _stand_in() -> tuple[Callable[..., Any], Callable[[Any, Any, Any], None]]:
    def fit(module: Any, callback: Any, epochs: int = len(ACCURACIES), **options: Any) -> Any:
        trainer = lightning_trainer.Trainer(epochs, [callback], **options)
        trainer.fit(module, [torch.zeros(1, 1, 2, 2)])
        return trainer.checkpoint

    def resume(module: Any, callback: Any, checkpoint: Any) -> None:
        trainer = lightning_trainer.Trainer(len(ACCURACIES), [callback])
        trainer.fit(module, [torch.zeros(1, 1, 2, 2)], checkpoint)

    return fit, resume


def _real(package: Any, folder: Path) -> tuple[Callable[..., Any], Callable[[Any, Any, Any], None]]:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    batches = [torch.zeros(1, 1, 2, 2)]

    def trainer(callback: Any, epochs: int, **options: Any) -> Any:
        return package.Trainer(max_epochs=epochs, callbacks=[callback], default_root_dir=folder, **quiet, **options)

    def fit(module: Any, callback: Any, epochs: int = len(ACCURACIES), **options: Any) -> Any:
        if "rank" in options:
            pytest.skip("several processes are not started here")
        made = trainer(callback, epochs, **options)
        made.fit(module, batches, batches)
        if not options.get("fast_dev_run"):
            made.save_checkpoint(folder / "last.ckpt")
        return folder / "last.ckpt"

    def resume(module: Any, callback: Any, checkpoint: Any) -> None:
        trainer(callback, len(ACCURACIES)).fit(module, batches, batches, ckpt_path=checkpoint)

    return fit, resume


def module_of(package: Any, *, direct: bool = False, failing: int | None = None) -> Any:
    """Return a module whose network counts epochs, and whose accuracy is ACCURACIES; `direct`: it has a forward."""

    class Module(package.LightningModule):  # type: ignore[misc]
        automatic_optimization = False

        def __init__(self) -> None:
            super().__init__()
            self.criterion = nn.CrossEntropyLoss()
            self.net = Counting.untrained()

        def training_step(self, batch: Any, number: int) -> None:
            if self.trainer.current_epoch + 1 == failing:
                raise RuntimeError("the training fails by itself")
            self.net.train_an_epoch()
            self.log("train_loss", 1 / (self.trainer.current_epoch + 1), on_step=False, on_epoch=True, batch_size=1)

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("val_acc", ACCURACIES[self.trainer.current_epoch], batch_size=1)

        def on_train_epoch_end(self) -> None:
            self.log("train_acc", 0.25)  # after the callbacks

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    class Direct(Module):
        def forward(self, images: Tensor) -> Any:
            return self.net(images)

    return Direct() if direct else Module()


def test_every_epoch_and_the_best_are_uploaded_with_what_was_logged(lightning: Lightning, sent: Sent) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit", best="val_acc")
    lightning.fit(module_of(lightning.package), callback)
    epochs = [f"digits/lit/epoch-{number}" for number in range(1, 5)]
    assert set(sent.versions) == {*epochs, "digits/lit/best"}
    assert [sent.weight(one) for one in epochs] == [1, 2, 3, 4]
    assert sent.weight("digits/lit/best") == 4
    assert sent.logs["digits/lit/epoch-3"] == [
        {"epoch": number, "train_loss": pytest.approx(1 / number), "test_accuracy": value, "train_accuracy": 0.25}
        for number, value in enumerate(ACCURACIES[:3], 1)
    ]
    assert callback.uploads.failed == {}


def test_what_was_not_measured_in_an_epoch_is_not_taken_from_an_earlier_one(lightning: Lightning, sent: Sent) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit", every=2)
    lightning.fit(module_of(lightning.package), callback, check_val_every_n_epoch=2)
    assert set(sent.versions) == {"digits/lit/epoch-2", "digits/lit/epoch-4"}
    told = {row["epoch"]: row.get("test_accuracy") for row in sent.logs["digits/lit/epoch-4"]}
    assert told == {1: None, 2: 0.75, 3: None, 4: 0.875}


@pytest.mark.parametrize(("direct", "network"), [(True, None), (True, "net"), (False, "net")])
def test_the_module_itself_or_a_part_of_it_is_uploaded(
    lightning: Lightning, sent: Sent, direct: bool, network: str | None
) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit", every=None, best="val_acc", network=network)
    lightning.fit(module_of(lightning.package, direct=direct), callback, epochs=2)
    assert sent.weight("digits/lit/best") == 2
    layer = b"net.last.weight" if direct and network is None else b'"last.weight"'
    assert layer in sent.versions["digits/lit/best"]


def test_a_part_that_is_not_there_is_named_with_those_that_are(
    lightning: Lightning, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit", network="encoder")
    lightning.fit(module_of(lightning.package), callback, epochs=2)
    assert sent.versions == {}
    (said,) = [one.getMessage() for one in caplog.records if one.name == "layerscope.callbacks" and one.levelno >= 30]
    assert "has no part 'encoder'. Say network='…', the classifier's attribute; there are net" in said


def test_a_training_that_is_resumed_goes_on_with_its_log_and_its_best(lightning: Lightning, sent: Sent) -> None:
    first = lightning.ours.LayerscopeUpload("digits/lit", best="val_acc")
    checkpoint = lightning.fit(module_of(lightning.package), first, epochs=2)
    sent.versions.clear()
    second = lightning.ours.LayerscopeUpload("digits/lit", best="val_acc")
    lightning.resume(module_of(lightning.package), second, checkpoint)
    assert set(sent.versions) == {"digits/lit/epoch-3", "digits/lit/epoch-4", "digits/lit/best"}
    assert [row["epoch"] for row in sent.logs["digits/lit/epoch-3"]] == [1, 2, 3]
    assert sent.order.count("digits/lit/best") <= 3, "0.625 after 0.75 is not the best"


def test_a_training_that_fails_waits_for_what_is_under_way(lightning: Lightning, sent: Sent) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit")
    with pytest.raises(RuntimeError, match="by itself"):
        lightning.fit(module_of(lightning.package, failing=3), callback)
    assert callback.uploads.uploaded == ["epoch-1", "epoch-2"]


@pytest.mark.parametrize("options", [{"rank": 1}, {"fast_dev_run": True}])
def test_another_process_than_that_of_rank_zero_and_a_trial_run_upload_nothing(
    lightning: Lightning, sent: Sent, options: dict[str, Any]
) -> None:
    lightning.fit(module_of(lightning.package), lightning.ours.LayerscopeUpload("digits/lit"), **options)
    assert sent.versions == {}


def test_an_upload_that_fails_ends_no_training(
    lightning: Lightning, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = lightning.ours.LayerscopeUpload("digits/lit", at=str(tmp_path / "nowhere"))
    module = module_of(lightning.package)
    lightning.fit(module, callback)
    assert module.net.last.weight[0, 0].item() == len(ACCURACIES)
    assert set(callback.uploads.failed) == {f"epoch-{number}" for number in range(1, 5)}
    said = [one for one in caplog.records if one.name == "layerscope.callbacks" and one.levelno >= logging.WARNING]
    assert len(said) == 1


def test_without_lightning_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install lightning"):
        lightning_trainer.fresh(monkeypatch, {}, CALLBACK)
