"""The network in a state dict with more in it: found under any name, and only where the rest takes no part in its forward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layerscope.models import formats
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.schemas.errors import Refused
from tests.models.formats import kinds

State = dict[str, Tensor]


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def rebuilt(saved: Any, folder: Path, **said: Any) -> Rebuilt:
    torch.save(saved, folder / "model.pt")
    return formats.rebuild(folder / "model.pt", **said)


FOUND: dict[str, Callable[[State], State]] = {
    "under any name": lambda state: under("encoder.", state),
    "the first of a sequence": lambda state: under("0.", state),
    "two deep": lambda state: under("learner.resnet.", state),
    "beside an average": lambda state: under("net.", state) | under("ema_net.", zeros(state)),
    "beside an average of another depth": lambda state: under("model.", state) | under("ema.module.", zeros(state)),
    "without a name, beside an average": lambda state: state | under("ema.", zeros(state)),
    "online, beside its target": lambda state: under("online.", state) | under("swa_target.online.", zeros(state)),
    "beside a loss": lambda state: under("model.", state) | {"loss_module.weight": torch.ones(3)},
    "beside metrics": lambda state: (
        under("model.", state) | {"train_acc.tp": torch.zeros(3), "val_f1.fp": torch.zeros(3)}
    ),
    "without a name, beside a metric": lambda state: state | {"acc.total": torch.tensor(0)},
}
PARTS: dict[str, Callable[[State], State]] = {
    "a mean of the images": lambda state: under("model.", state) | {"mean": torch.zeros(1, 3, 1, 1)},
    "a module before it": lambda state: under("1.", state) | {"0.mean": torch.zeros(3), "0.std": torch.ones(3)},
    "another network": lambda state: under("a.", state) | under("b.", state),
    "a module in it": lambda state: under("model.", state) | {"model.extra.weight": torch.ones(3, 3)},
}


@pytest.mark.parametrize("name", FOUND)
def test_a_network_is_known_by_what_is_trained(name: str, tmp_path: Path) -> None:
    state = kinds.shuffle_net(3).state_dict()
    found = rebuilt(FOUND[name](state), tmp_path)
    assert found.architecture == "torchvision shufflenet_v2_x0_5"
    assert all(torch.equal(found.tensors[one], tensor) for one, tensor in state.items())
    assert any("left out" in note or "taken away" in note for note in found.notes)


@pytest.mark.parametrize("name", PARTS)
def test_what_may_take_part_is_never_left_out(name: str, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        rebuilt(PARTS[name](kinds.shuffle_net(3).state_dict()), tmp_path)
    assert refused.value.code == "unknown-architecture"


@pytest.mark.parametrize("name", FOUND)
def test_blocks_are_given_the_network_alone(name: str, tmp_path: Path) -> None:
    state = kinds.digits().state_dict()
    found = rebuilt(FOUND[name](state), tmp_path, blocks=kinds.BLOCKS)
    assert all(torch.equal(found.tensors[one], tensor) for one, tensor in state.items())


@pytest.mark.parametrize("other", [{"confusion": torch.zeros(3, 3)}, {"weights": torch.ones(3)}])
def test_of_several_things_in_a_checkpoint_the_only_network_is_meant(other: State, tmp_path: Path) -> None:
    found = rebuilt({"net": kinds.shuffle_net(3).state_dict(), "metric": other}, tmp_path)
    assert found.architecture == "torchvision shufflenet_v2_x0_5"
    assert "The checkpoint holds besides, and it was left out: ['metric']." in found.notes


def test_of_several_networks_the_one_that_has_a_lenders_layers_is_meant(tmp_path: Path) -> None:
    from layerscope.models import safe_form

    (tmp_path / "lender").write_bytes(safe_form.pack(kinds.digits()))
    lenders = (("digits/net/0", tmp_path / "lender"),)
    two = {"student": kinds.digits().state_dict(), "teacher": kinds.shuffle_net(3).state_dict()}
    found = rebuilt(two, tmp_path, lenders=lenders)
    assert found.architecture == "the layers of digits/net/0"
    with pytest.raises(Refused, match="several-models"):
        rebuilt(two | {"critic": zeros(kinds.digits().state_dict())}, tmp_path, lenders=lenders)
