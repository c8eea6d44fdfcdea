"""Epochs and the best one are uploaded from any loop, each with the weights of its moment and the log until then."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from layerscope import systems
from layerscope.callbacks import Uploads, uploads
from layerscope.schemas.errors import Unavailable
from tests.layerscope.callbacks.sent import Counting, Sent

ACCURACIES = (0.5, 0.75, 0.625, 0.875, 0.875)


def train(made: Uploads, name: str = "val_acc", values: tuple[float, ...] = ACCURACIES) -> None:
    model = Counting.untrained()
    with made:
        for value in values:
            model.train_an_epoch()
            made(model, {"train_loss": 1 - value, name: value, "lr": 0.1, "note": "warm"})


def test_every_epoch_has_the_weights_and_the_log_of_its_moment(sent: Sent) -> None:
    made = Uploads("digits/counting")
    train(made)
    assert sent.order == [f"digits/counting/epoch-{number}" for number in range(1, 6)]
    assert [sent.weight(one) for one in sent.order] == [1, 2, 3, 4, 5]
    log = sent.logs["digits/counting/epoch-3"]
    assert log == [
        {"epoch": number, "train_loss": 1 - value, "test_accuracy": value}
        for number, value in enumerate(ACCURACIES[:3], 1)
    ]
    assert made.uploaded == [f"epoch-{number}" for number in range(1, 6)] and made.failed == {}


def test_some_epochs_are_uploaded_and_the_first_of_the_best(sent: Sent) -> None:
    train(Uploads("digits/counting", every=2, best="val_acc"))
    assert set(sent.versions) == {"digits/counting/epoch-2", "digits/counting/epoch-4", "digits/counting/best"}
    assert sent.weight("digits/counting/best") == 4
    assert len(sent.logs["digits/counting/best"]) == 4


@pytest.mark.parametrize(
    ("figure", "mode", "epoch"),
    [("val_loss", None, 2), ("val_error", None, 2), ("val_loss", "max", 3), ("val_f1", None, 3), ("val_f1", "min", 2)],
)
def test_what_is_best_follows_from_the_figures_name_or_is_said(sent: Sent, figure: str, mode: Any, epoch: int) -> None:
    train(Uploads("digits/counting", every=None, best=figure, mode=mode), figure, (0.5, 0.25, 0.75, float("nan")))
    assert sent.weight("digits/counting/best") == epoch


def test_a_better_one_takes_the_place_of_one_that_still_waits(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    first, go_on = threading.Event(), threading.Event()
    send = Sent.__call__

    async def slowly(self: Sent, *args: Any, **kwargs: Any) -> None:
        first.set()
        go_on.wait(60)
        await send(self, *args, **kwargs)

    monkeypatch.setattr(Sent, "__call__", slowly)
    made, model = Uploads("digits/counting", every=None, best="acc"), Counting.untrained()
    with made:
        for epoch in range(1, 5):
            model.train_an_epoch()
            made(model, {"acc": epoch / 10})
            assert first.wait(60)
        go_on.set()
    assert sent.order == ["digits/counting/best"] * 2, "the first, and the last of the three that waited"
    assert sent.weight("digits/counting/best") == 4


def test_what_waits_is_bounded_and_the_versions_beyond_are_told(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, go_on = threading.Event(), threading.Event()
    send = Sent.__call__

    async def slowly(self: Sent, *args: Any, **kwargs: Any) -> None:
        first.set()
        go_on.wait(60)
        await send(self, *args, **kwargs)

    monkeypatch.setattr(Sent, "__call__", slowly)
    made, model = Uploads("digits/counting"), Counting.untrained()
    with made:
        made(model, {"acc": 0.1})
        assert first.wait(60)
        monkeypatch.setattr(uploads, "WAITING_BYTES", 1)
        made(model, {"acc": 0.2})
        made(model, {"acc": 0.3})
        made(model, {"acc": 0.4})
        go_on.set()
    assert made.uploaded == ["epoch-1", "epoch-2"] and set(made.failed) == {"epoch-3", "epoch-4"}
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert said.startswith("digits/counting/epoch-3 was not uploaded") and "every=10" in said


def test_a_training_goes_on_and_one_warning_says_what_failed_and_what_to_do(
    sent: Sent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send = Sent.__call__

    async def failing(self: Sent, *args: Any, **kwargs: Any) -> None:
        if "epoch-4" not in args[1].subject:
            raise Unavailable("the object store does not answer")
        await send(self, *args, **kwargs)

    monkeypatch.setattr(Sent, "__call__", failing)
    made = Uploads("digits/counting")
    train(made)
    assert made.uploaded == ["epoch-4"] and set(made.failed) == {"epoch-1", "epoch-2", "epoch-3", "epoch-5"}
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert said == (
        "digits/counting/epoch-1 was not uploaded: the object store does not answer. `layerscope doctor` looks for the "
        "cause. The training goes on; this is not said again."
    )


def test_a_model_that_cannot_be_packed_and_a_system_that_is_not_there_end_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Branching(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    made = Uploads("digits/branching", at=str(tmp_path / "nowhere"))
    with made:
        made(Branching(), {"acc": 0.1})
        made(Counting(), {"acc": 0.2})
    ours = [one for one in caplog.records if one.name.startswith("layerscope")]  # torch warns of its own
    first, second = [one.getMessage() for one in ours if one.levelno == logging.WARNING]
    assert first.startswith("digits/branching/epoch-1 was not uploaded: ") and "torch.where" in first
    assert "there is no system in" in second and "layerscope init" in second


def test_figures_of_which_none_is_a_loss_or_an_accuracy_do_not_keep_a_model_back(
    sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    with Uploads("digits/counting", best="val_kappa") as made:
        made(Counting(), {"val_kappa": 0.5, "picture": torch.zeros(2, 2), "none": None})
        made(Counting(), {"val_kappa": 0.6})
    assert set(sent.versions) == {f"digits/counting/{one}" for one in ("epoch-1", "epoch-2", "best")}
    assert sent.logs == {}
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "'val_kappa'" in said and "train_accuracy" in said


def test_a_figure_that_was_not_measured_is_named_with_those_that_were(
    sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    with Uploads("digits/counting", every=None, best="val_acc") as made:
        made(Counting(), {"val_accuracy": 0.5})
        made(Counting(), {"val_accuracy": 0.6})
    assert sent.versions == {}
    (said,) = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert "'val_acc', which was not measured" in said and "Measured were val_accuracy" in said


def test_a_training_that_goes_on_after_an_interruption_knows_what_was_before(sent: Sent) -> None:
    made = Uploads("digits/counting", every=None, best="val_acc")
    made.resume([{"epoch": 1, "val_acc": 0.9}, {"epoch": 2, "val_acc": float("nan")}])
    with made:
        made(Counting.untrained(), {"val_acc": 0.8})
        assert sent.versions == {}
        made(Counting.untrained(), {"val_acc": 0.95})
    assert [row["epoch"] for row in sent.logs["digits/counting/best"]] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("digits", {}, "is not DATASET/MODEL"),
        ("digits/lenet/1", {}, "is not DATASET/MODEL"),
        ("digits/le net", {}, "is not a name"),
        ("digits/lenet", {"every": 0}, "1 or more"),
        ("digits/lenet", {"every": None}, "nothing would be uploaded"),
    ],
)
def test_what_cannot_be_meant_is_said_before_a_training(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Uploads(name, **given)


@pytest.mark.slow
def test_what_is_uploaded_is_analysed(tmp_path: Path) -> None:
    """For real: a system in a directory, and a dataset that it does not have, so that little is computed."""
    systems.make_embedded(tmp_path)
    made = Uploads("unknown-dataset/counting", at=str(tmp_path), every=2, best="val_acc")
    train(made, values=(0.5, 0.75))
    assert made.failed == {}
    for version in ("epoch-2", "best"):
        folder = tmp_path / "products/manifests/unknown-dataset/counting" / version
        told = [json.loads(one.read_text())["headline"]["epochs"] for one in folder.glob("*/training_history/*.json")]
        assert max(told) == 2
