"""The callback for transformers, with its Trainer where it is installed and with a stand-in that calls the same hooks."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.layerscope.callbacks import transformers_trainer
from tests.layerscope.callbacks.lightning_trainer import fresh
from tests.layerscope.callbacks.sent import Counting, Sent
from tests.layerscope.callbacks.transformers_trainer import STEPS

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

ACCURACIES = (0.5, 0.75, 0.625, 0.875)
CALLBACK = "layerscope.callbacks.transformers"
Train = Callable[..., Any]


class Classifier(Counting):
    """Counts the steps, and answers as models of transformers do where labels are given."""

    def forward(self, pixel_values: Tensor, labels: Any = None) -> Any:
        scores = super().forward(pixel_values)
        return scores if labels is None else {"loss": scores.sum() * 0, "logits": scores}

    @classmethod
    def untrained(cls) -> Classifier:
        made = cls()
        nn.init.zeros_(made.last.weight)
        return made


@pytest.fixture(params=["stand-in", "installed"])
def trained(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The callback's module, and how a Trainer trains a model with a callback of it."""
    if request.param == "stand-in":
        ours = fresh(monkeypatch, transformers_trainer.modules(), CALLBACK)
        return SimpleNamespace(ours=ours, train=_stand_in)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("transformers", reason="transformers is not installed")
        pytest.importorskip("accelerate", reason="accelerate is not installed")
    return SimpleNamespace(ours=fresh(monkeypatch, {}, CALLBACK), train=_real(package, tmp_path))


def _evaluations() -> Callable[[], dict[str, float]]:
    answers = iter(ACCURACIES)
    return lambda: {"accuracy": next(answers)}


def _stand_in(
    model: Any, callback: Any, *, epochs: int = len(ACCURACIES), rank: int = 0, every_step: bool = False
) -> None:
    made = transformers_trainer.Trainer(model, callback, epochs, rank, every_step)
    made.train(model.train_an_epoch, _evaluations())


def _real(package: Any, folder: Path) -> Train:
    class Images(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return STEPS

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"pixel_values": torch.zeros(1, 2, 2), "labels": torch.tensor(index)}

    class Steps(package.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            given["model"].train_an_epoch()

        def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            nn.init.constant_(given["model"].last.weight, -1)  # as if the best checkpoint were loaded

    def train(
        model: Any,
        callback: Any,
        *,
        epochs: int = len(ACCURACIES),
        rank: int = 0,
        every_step: bool = False,
        bf16: bool = False,
    ) -> None:
        evaluations = _evaluations()
        arguments = package.TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            per_device_train_batch_size=1,
            learning_rate=0.0,
            eval_strategy="steps" if every_step else "epoch",
            eval_steps=1,
            logging_strategy="epoch",
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=bf16,
            disable_tqdm=True,
        )
        made = package.Trainer(
            model=model,
            args=arguments,
            train_dataset=Images(),
            eval_dataset=Images(),
            callbacks=[Steps(), callback],
            compute_metrics=lambda _: evaluations(),
        )
        made.state.is_world_process_zero = rank == 0
        if rank:
            made.is_world_process_zero = lambda: False
        made.train()

    return train


def test_every_epoch_and_the_best_are_uploaded_with_the_trainers_log(trained: Any, sent: Sent) -> None:
    callback = trained.ours.LayerscopeUpload("digits/net", best="eval_accuracy")
    trained.train(Classifier.untrained(), callback)
    epochs = [f"digits/net/epoch-{number}" for number in range(1, 5)]
    assert set(sent.versions) == {*epochs, "digits/net/best"}
    assert [sent.weight(one) for one in epochs] == [STEPS, 2 * STEPS, 3 * STEPS, 4 * STEPS], "not those of the end"
    assert sent.weight("digits/net/best") == 4 * STEPS
    told = [(row["epoch"], row["test_accuracy"]) for row in sent.logs["digits/net/epoch-3"]]
    assert told == list(enumerate(ACCURACIES[:3], 1))
    assert all("train_loss" in row for row in sent.logs["digits/net/epoch-3"])
    assert callback.uploads.failed == {}


def test_the_best_of_evaluations_within_an_epoch_has_the_weights_of_its_step(trained: Any, sent: Sent) -> None:
    callback = trained.ours.LayerscopeUpload("digits/net", every=None, best="eval_accuracy")
    trained.train(Classifier.untrained(), callback, epochs=2, every_step=True)
    assert set(sent.versions) == {"digits/net/best"}
    assert sent.weight("digits/net/best") == 4
    assert sent.logs["digits/net/best"][-1]["test_accuracy"] == 0.875


def test_some_epochs_are_uploaded(trained: Any, sent: Sent) -> None:
    trained.train(Classifier.untrained(), trained.ours.LayerscopeUpload("digits/net", every=3))
    assert list(sent.versions) == ["digits/net/epoch-3"]


def test_a_training_that_is_resumed_knows_the_best_before(monkeypatch: pytest.MonkeyPatch, sent: Sent) -> None:
    ours = fresh(monkeypatch, transformers_trainer.modules(), CALLBACK)
    callback, model = ours.LayerscopeUpload("digits/net", every=None, best="eval_accuracy"), Classifier.untrained()
    made = transformers_trainer.Trainer(model, callback, 3, rank=0, every_step=False)
    made.state.log_history = [{"epoch": 0.5, "eval_accuracy": 0.8}]
    made.train(model.train_an_epoch, _evaluations())
    assert sent.versions == {}


def test_another_process_than_that_of_rank_zero_uploads_nothing(monkeypatch: pytest.MonkeyPatch, sent: Sent) -> None:
    ours = fresh(monkeypatch, transformers_trainer.modules(), CALLBACK)
    _stand_in(Classifier.untrained(), ours.LayerscopeUpload("digits/net", best="eval_accuracy"), rank=1)
    assert sent.versions == {}


def test_a_forward_that_mixed_precision_has_set_is_not_uploaded(monkeypatch: pytest.MonkeyPatch, sent: Sent) -> None:
    ours = fresh(monkeypatch, transformers_trainer.modules(), CALLBACK)
    model = Classifier.untrained()
    set_by_accelerate = lambda images, labels=None: model.last(images.flatten(1)).float()  # noqa: E731
    vars(model)["forward"] = set_by_accelerate
    _stand_in(model, ours.LayerscopeUpload("digits/net"), epochs=1)
    assert set(sent.versions) == {"digits/net/epoch-1"}
    assert model.forward is set_by_accelerate


def test_a_training_in_mixed_precision_is_uploaded(trained: Any, sent: Sent) -> None:
    if trained.train is _stand_in:
        pytest.skip("the stand-in has no mixed precision of its own")
    callback = trained.ours.LayerscopeUpload("digits/net")
    trained.train(Classifier.untrained(), callback, epochs=1, bf16=True)
    assert callback.uploads.failed == {} and set(sent.versions) == {"digits/net/epoch-1"}


def test_an_upload_that_fails_ends_no_training(trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = trained.ours.LayerscopeUpload("digits/net", at=str(tmp_path / "nowhere"), best="eval_accuracy")
    trained.train(Classifier.untrained(), callback)
    assert set(callback.uploads.failed) == {*(f"epoch-{number}" for number in range(1, 5)), "best"}
    said = [one for one in caplog.records if one.name == "layerscope.callbacks" and one.levelno >= logging.WARNING]
    assert len(said) == 1


def test_without_transformers_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="transformers"):
        fresh(monkeypatch, {}, CALLBACK)
