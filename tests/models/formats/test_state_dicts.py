"""State dicts and checkpoints as people save them: what is the model, what is training, and when one has to choose."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from layerscope.models.formats.filling import to_torch
from layerscope.models.formats.pickle_values import StoredTensor
from layerscope.models.formats.plain_safetensors import read_plain
from layerscope.models.formats.state_dicts import State, unwrap
from layerscope.models.formats.whole_models.sequential import from_record
from layerscope.schemas.errors import Refused
from tests.models.formats.saving import CONTAINERS, Container, difference, images, randomise, read


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 3, 3)
        self.bn1 = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 10)


def _state() -> dict[str, Tensor]:
    return randomise(Net()).state_dict()


def _checkpoint(model: nn.Module, /, **more: Any) -> dict[str, Any]:
    """Return what a training script saves, with an optimizer that has moments of its own."""
    optimizer = torch.optim.Adam(model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return {"optimizer_state_dict": optimizer.state_dict(), "scheduler": {"last": torch.ones(3)}, **more}


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: tensor for key, tensor in state.items()}


def _equal(found: Mapping[str, StoredTensor], expected: Mapping[str, Tensor]) -> bool:
    ours = to_torch(found)
    return list(ours) == list(expected) and all(torch.equal(ours[key], tensor) for key, tensor in expected.items())


# Where the weights are -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_state_dict_alone_is_itself(container: Container, tmp_path: Path) -> None:
    expected = _state()

    found = unwrap(read(expected, tmp_path, container))

    assert _equal(found.tensors, expected)
    assert found == State(found.tensors)


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "net", "model_state_dict", "weights", "ema", "params", "network", "best model"]
)
def test_a_checkpoint_is_opened_whatever_the_key(key: str, tmp_path: Path) -> None:
    model = randomise(Net())
    checkpoint = _checkpoint(model, epoch=7, loss=0.25)
    expected = copy_of(model.state_dict())

    found = unwrap(read({**checkpoint, key: expected}, tmp_path))

    assert _equal(found.tensors, expected)
    assert found.training == {"epoch": 7, "loss": 0.25}
    assert repr(key) in found.notes[0]


def copy_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in state.items()}


def test_a_checkpoint_inside_another_is_opened(tmp_path: Path) -> None:
    expected = _state()

    found = unwrap(read({"checkpoint": {"epoch": 3, "state": {"model": expected}}, "acc": 0.5}, tmp_path))

    assert _equal(found.tensors, expected)
    assert found.training == {"epoch": 3, "acc": 0.5}


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "backbone.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_prefixes_that_all_keys_have_are_taken_away(prefix: str, tmp_path: Path) -> None:
    expected = _state()

    assert _equal(unwrap(read(_prefixed(prefix, expected), tmp_path)).tensors, expected)


def test_a_prefix_that_not_all_keys_have_stays(tmp_path: Path) -> None:
    expected = {**_prefixed("model.", _state()), "head.weight": torch.ones(2, 3)}

    assert _equal(unwrap(read(expected, tmp_path)).tensors, expected)


def test_the_weights_of_a_loss_are_left_out_with_a_note(tmp_path: Path) -> None:
    expected = _state()
    saved = {"state_dict": {**_prefixed("model.", expected), "criterion.weight": torch.ones(10)}}

    found = unwrap(read(saved, tmp_path))

    assert _equal(found.tensors, expected)
    assert any("criterion.weight" in note for note in found.notes)


def test_a_lightning_checkpoint_is_opened(tmp_path: Path) -> None:
    model = randomise(Net())
    expected = copy_of(model.state_dict())
    saved = {
        **_checkpoint(model, epoch=4, global_step=500),
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict(_prefixed("model.", expected)),
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(0.1)}},
        "loops": {"fit_loop": {"state_dict": {}, "weights": torch.ones(2)}},
        "hyper_parameters": {"lr": 0.1, "class_weights": torch.ones(10)},
    }

    found = unwrap(read(saved, tmp_path))

    assert _equal(found.tensors, expected)
    assert found.training == {"epoch": 4, "global_step": 500}


def test_averaged_weights_step_back_behind_the_weights(tmp_path: Path) -> None:
    expected = _state()

    found = unwrap(read({"model_ema": _prefixed("x.", expected), "model": expected}, tmp_path))

    assert _equal(found.tensors, expected)
    assert "['model_ema']" in found.notes[0]


def test_the_state_dict_of_an_averaged_model_loses_its_counter(tmp_path: Path) -> None:
    model = randomise(Net())

    found = unwrap(read(torch.optim.swa_utils.AveragedModel(model).state_dict(), tmp_path))

    assert _equal(found.tensors, model.state_dict())


# Whole models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("besides", [False, True])
def test_a_whole_model_in_a_checkpoint_is_found(besides: bool, container: Container, tmp_path: Path) -> None:
    model = randomise(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
    saved = _checkpoint(model, model=model, epoch=2)
    if besides:
        saved["state_dict"] = model.state_dict()

    found = unwrap(read(saved, tmp_path, container))

    assert found.model is not None
    assert difference(from_record(found.model).module, model, images(2, 4)) == 0
    assert found.training == {"epoch": 2}


def test_a_whole_model_alone_is_itself(tmp_path: Path) -> None:
    root = read(nn.Sequential(nn.ReLU()), tmp_path)

    assert unwrap(root) == State({}, root)


# Several, or none ----------------------------------------------------------------------------------------------------


def test_several_models_are_refused_by_name_with_the_line_that_saves_one(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        unwrap(read({"generator": _state(), "discriminator": _state()}, tmp_path))

    assert caught.value.code == "several-models"
    assert "['generator'], ['discriminator']" in caught.value.message
    torch.save({"generator": {"a": torch.ones(1)}}, tmp_path / "model.pt")
    line = caught.value.hint.removeprefix("Save one of them: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        exec(line, {"torch": torch})
    assert torch.load(tmp_path / "one.pt") == {"a": torch.ones(1)}


def test_nobody_is_told_to_load_several_whole_models(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        unwrap(read({"generator": nn.Sequential(nn.ReLU()), "discriminator": nn.Sequential(nn.Tanh())}, tmp_path))

    assert caught.value.code == "several-models"
    assert "torch.save(checkpoint['generator'], 'one.pt')" in caught.value.hint
    assert "torch.load" not in caught.value.hint


@pytest.mark.parametrize(
    "saved",
    [
        {"epoch": 3, "loss": torch.tensor(0.5)},
        {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}},
        {},
        [torch.ones(3)],
        torch.ones(3),
        "weights",
        Path("weights"),
        {1: torch.ones(3)},
    ],
    ids=str,
)
def test_what_has_no_model_in_it_is_refused(saved: object, tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        unwrap(read(saved, tmp_path))

    assert caught.value.code == "no-model"
    assert "layerscope.upload(model" in caught.value.hint


# Training ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
def test_figures_of_the_training_are_kept_in_whatever_form_they_are(container: Container, tmp_path: Path) -> None:
    saved = {
        "model": _state(),
        "epoch": np.int64(12),
        "loss": torch.tensor(0.5, requires_grad=True),
        "best_acc": torch.tensor([98.5]),
        "val_loss": np.float32(0.75),
        "train_loss": [0.9, np.float64(0.8), torch.tensor(0.5)],
        "test_loss": np.array([1.5, 0.5], dtype=">f4"),
        "accuracy": 0.97,
        "history": {"val_accuracy": [0.5, 0.75], "train_loss": [1.0]},
        "best_acc1": 1,
    }

    found = unwrap(read(saved, tmp_path, container))

    assert found.training == {
        "epoch": 12,
        "loss": 0.5,
        "best_acc": 98.5,
        "val_loss": 0.75,
        "train_loss": (0.9, 0.8, 0.5),
        "test_loss": (1.5, 0.5),
        "accuracy": 0.97,
        "val_accuracy": (0.5, 0.75),
        "best_acc1": 1,
    }
    assert {type(figure) for figure in found.training.values()} == {int, float, tuple}


def test_what_is_no_figure_of_the_training_is_not_kept(tmp_path: Path) -> None:
    saved = {
        "model": _state(),
        "loss": float("nan"),
        "val_loss": [0.5, float("inf")],
        "epoch": True,
        "acc": "high",
        "accuracy": torch.ones(2, 2),
        "lossy": 3,
        "train_acc": [],
        "test_acc": {"top": 1},
        "classes": 10,
        "seed": 1,
    }

    assert unwrap(read(saved, tmp_path)).training == {}


# safetensors ---------------------------------------------------------------------------------------------------------


def test_a_plain_safetensors_file_is_a_state_dict_without_order(tmp_path: Path) -> None:
    expected = {
        **_prefixed("module.", _state()),
        "module.half": torch.rand(3, 2).half(),
        "module.brain": torch.rand(5).bfloat16(),
        "module.flags": torch.tensor([True, False]),
        "module.none": torch.empty(0, 3),
        "module.count": torch.tensor(5),
    }
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(expected, path, metadata={"format": "pt"})

    found = unwrap(read_plain(path), ordered=False)

    ours = to_torch(found.tensors)
    assert not found.ordered
    assert {f"module.{key}" for key in ours} == set(expected)
    assert all(torch.equal(tensor, expected[f"module.{key}"]) for key, tensor in ours.items())


def test_booleans_that_are_none_are_refused(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x01\x02")

    with pytest.raises(Refused, match="bad-value"):
        read_plain(path)


# Objects, and what has no values ------------------------------------------------------------------------------------


class Callback:
    """What holds the learner that has it."""


class Learner:
    """An object with a model, as a training keeps it."""

    def __init__(self, model: Any) -> None:
        self.model, self.cbs = model, [Callback(), Callback()]
        for callback in self.cbs:
            callback.learn = self  # type: ignore[attr-defined]


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
    "wrap", [lambda one: one, lambda one: {"learner": one, "epoch": 3}], ids=["alone", "in a dict"]
)
def test_the_model_of_an_object_that_holds_itself_is_found(container: Container, wrap: Any, tmp_path: Path) -> None:
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    state = unwrap(read(wrap(Learner(model)), tmp_path, container))
    assert state.model is not None
    assert difference(from_record(state.model).module, model, images(2, 4)) == 0


def test_an_object_without_a_model_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no-model"):
        unwrap(read(Learner("none"), tmp_path))


@pytest.mark.parametrize("whole", [True, False])
def test_lazy_layers_are_said_to_be_lazy(whole: bool, tmp_path: Path) -> None:
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(Refused, match=r"not-initialised: Tensor '1\.weight' has no shape yet"):
        state = unwrap(read(lazy if whole else lazy.state_dict(), tmp_path))
        from_record(state.model)  # type: ignore[arg-type]
    lazy(torch.ones(1, 4))
    assert unwrap(read(lazy, tmp_path)).model is not None


UNREAD: dict[str, tuple[Any, str]] = {
    "sparse": (Tensor.to_sparse, "is sparse."),
    "float8": (lambda one: one.to(torch.float8_e5m2), "is of a type that is not read, float8_e5m2."),
    "meta": (lambda one: one.to("meta"), "has no values: it was made on the meta device."),
}


@pytest.mark.parametrize("name", UNREAD)
@pytest.mark.parametrize("whole", [True, False])
def test_a_tensor_that_is_not_read_is_named_for_what_it_is(name: str, whole: bool, tmp_path: Path) -> None:
    change, said = UNREAD[name]
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight = nn.Parameter(change(model[1].weight.detach()), requires_grad=False)  # type: ignore[assignment]
    with pytest.raises(Refused) as refused:
        from_record(unwrap(read(model if whole else model.state_dict(), tmp_path)).model)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.message) == ("unread-tensor", f"Tensor '1.weight' {said}")


@pytest.mark.parametrize("twice", [lambda one: [one, one], lambda one: {"a": one, "b": one}])
@pytest.mark.parametrize("saved", [Net, lambda: Net().state_dict()], ids=["whole", "state dict"])
def test_the_same_model_twice_is_one(twice: Any, saved: Any, tmp_path: Path) -> None:
    assert unwrap(read(twice(saved()), tmp_path)) is not None
    with pytest.raises(Refused, match="several-models"):
        unwrap(read([saved(), saved()], tmp_path))


def test_a_compiled_model_in_a_checkpoint_and_a_compiled_part_are_read(tmp_path: Path) -> None:
    model = randomise(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    state = unwrap(read({"model": torch.compile(model), "epoch": 3}, tmp_path))
    assert difference(from_record(state.model).module, model, images(2, 4)) == 0  # type: ignore[arg-type]
    assert any("compiled" in note for note in state.notes)
    part = nn.Sequential(torch.compile(model), nn.Linear(2, 2))  # type: ignore[arg-type]
    whole = from_record(unwrap(read(part, tmp_path)).model)  # type: ignore[arg-type]
    expected = nn.Sequential(model, part[1]).eval()
    assert difference(whole.module, expected, images(2, 4)) == 0
