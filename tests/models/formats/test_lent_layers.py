"""A state dict with more in it than the stored network: what takes no part is left out, what may is never passed over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from layerscope.models import formats, safe_form
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.schemas.errors import Refused
from tests.models.formats.saving import images, randomise

STORED = "thumbnails/own/0"


class Own(nn.Module):
    """The network of which a version is stored."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.norm(self.stem(x)).relu().mean((2, 3)))
        return answer


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "own.safetensors"
    path.write_bytes(safe_form.pack(Own()))
    return path


def under(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def own(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomise(Own())


def read(state: Mapping[str, Tensor], stored: Path, like: str | None = None) -> Rebuilt:
    path = stored.parent / "model.pt"
    torch.save(dict(state), path)
    return formats.rebuild(path, lenders=((STORED, stored),), like=like)


MINE = own().state_dict()
OTHERS: dict[str, Tensor] = {name: tensor + 1 for name, tensor in MINE.items()}
SCORES = torch.ones(4)
LEFT_OUT = {
    "a loss": under("net.", MINE) | {"criterion.weight": SCORES},
    "losses in it": MINE | {"loss_fn.weight": SCORES, "aux_losses.0.centers": torch.ones(4, 6)},
    "metrics": under("model.net.", MINE) | {"model.train_acc.tp": SCORES, "model.val_f1.fp": SCORES},
    "a metric in it": MINE | {"confusion_matrix.confmat": torch.ones(4, 4)},
    "its average beside it": under("net.", MINE) | under("ema_net.", OTHERS) | {"ema_net.decay": torch.tensor(0.9)},
    "its average in it": MINE | under("ema.", OTHERS),
    "its average by another wrapper": under("online.", MINE) | under("ema_model.online.", OTHERS),
}
CONVOLUTION = torch.ones(6, 6, 1, 1)
MEAN = torch.ones(1, 3, 1, 1)
REFUSED = {
    "a layer more": (MINE | {"extra.weight": CONVOLUTION}, "'extra.weight'"),
    "a layer more under a name": (under("net.", MINE) | {"net.extra.weight": CONVOLUTION}, "'extra.weight'"),
    "a layer that is called like a metric": (MINE | {"f1.weight": CONVOLUTION}, "'f1.weight'"),
    "an attention that is called like an average": (MINE | {"ema.conv.weight": CONVOLUTION}, "'ema.conv.weight'"),
    "a gate that is called like a loss": (MINE | {"loss_gate.weight": CONVOLUTION}, "'loss_gate.weight'"),
    "a mean around it": (under("net.", MINE) | {"mean": MEAN, "std": MEAN}, "'mean', 'std'"),
    "a temperature": (under("net.", MINE) | {"temperature": torch.tensor(2.0)}, "'temperature'"),
    "a step before it": (under("1.", MINE) | {"0.mean": MEAN}, "'0.mean'"),
}
BESIDE = under("net.", MINE) | {"projector.weight": torch.ones(8, 4)}


@pytest.mark.parametrize("name", LEFT_OUT)
@pytest.mark.parametrize("like", [None, STORED])
def test_what_takes_no_part_is_left_out_and_named(name: str, like: str | None, stored: Path) -> None:
    rebuilt = read(LEFT_OUT[name], stored, like)
    ours = safe_form.build(safe_form.read(safe_form.written(rebuilt.graph, rebuilt.tensors)))
    x = images(2, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(ours(x), own()(x))
    assert any("left out" in note for note in rebuilt.notes)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("like", [None, STORED])
def test_what_may_take_part_is_a_refusal_that_names_it(name: str, like: str | None, stored: Path) -> None:
    state, named = REFUSED[name]
    with pytest.raises(Refused) as caught:
        read(state, stored, like)
    assert caught.value.code == "unlike-lender"
    assert named in caught.value.message and STORED in caught.value.message
    assert "layerscope.upload(model" in caught.value.hint
    assert f"--like {STORED}" not in caught.value.hint  # which would lead to the same refusal


def test_another_module_beside_it_is_left_out_only_where_the_user_says_so(stored: Path) -> None:
    with pytest.raises(Refused) as caught:
        read(BESIDE, stored)
    assert "'projector.weight'" in caught.value.message and f"--like {STORED}" in caught.value.hint
    assert any("'projector.weight'" in note for note in read(BESIDE, stored, STORED).notes)  # the hint, followed


def test_once_the_grown_network_is_stored_its_state_dicts_are_known(stored: Path, tmp_path: Path) -> None:
    class Grown(Own):
        def __init__(self) -> None:
            super().__init__()
            self.extra = nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.head(self.extra(self.norm(self.stem(x)).relu()).mean((2, 3)))
            return answer

    grown, x = randomise(Grown()), images(2, 3, 9, 9)
    with pytest.raises(Refused, match="another one"):
        read(grown.state_dict(), stored)
    (tmp_path / "grown.safetensors").write_bytes(safe_form.pack(Grown()))  # what the hint says
    torch.save(grown.state_dict(), tmp_path / "model.pt")
    lenders = ((STORED, stored), ("thumbnails/own/1", tmp_path / "grown.safetensors"))
    rebuilt = formats.rebuild(tmp_path / "model.pt", lenders=lenders)
    ours = safe_form.build(safe_form.read(safe_form.written(rebuilt.graph, rebuilt.tensors)))
    with torch.no_grad():
        assert torch.equal(ours(x), grown(x))


def test_a_known_architecture_that_contains_a_stored_one_is_still_known(tmp_path: Path) -> None:
    body = torchvision.models.squeezenet1_1(weights=None, num_classes=3)
    small = nn.Sequential(body.features[0])
    names = nn.Sequential()
    names.add_module("features", small)
    (tmp_path / "part.safetensors").write_bytes(safe_form.pack(names))
    torch.save(body.state_dict(), tmp_path / "model.pt")
    rebuilt = formats.rebuild(tmp_path / "model.pt", lenders=((STORED, tmp_path / "part.safetensors"),))
    assert rebuilt.architecture == "torchvision squeezenet1_1"


@pytest.mark.parametrize("more", [{"mean": MEAN}, {"extra.weight": CONVOLUTION}, {"normalize.mean": MEAN}])
@pytest.mark.parametrize("prefix", ["", "model.", "1."])
def test_torchvisions_are_not_recognised_with_more_in_them(
    more: dict[str, Tensor], prefix: str, tmp_path: Path
) -> None:
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=3).state_dict()
    torch.save(under(prefix, state) | more, tmp_path / "model.pt")
    with pytest.raises(Refused):
        formats.rebuild(tmp_path / "model.pt")
    with pytest.raises(Refused):
        formats.rebuild(tmp_path / "model.pt", architecture="squeezenet1_1")
