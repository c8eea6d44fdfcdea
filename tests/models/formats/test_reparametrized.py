"""Weights that training kept as several tensors: what a state dict of them comes to is what torch computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from layerscope.models import safe_form
from layerscope.models.formats import rebuild
from layerscope.models.formats.filling import to_torch
from layerscope.models.formats.pickled import read_pickled
from layerscope.models.formats.reparametrized import _to_bfloat16
from layerscope.models.formats.state_dicts import unwrap
from tests.models.formats.saving import read

pytestmark = pytest.mark.filterwarnings("ignore")  # torch tells that the older forms are older


def pruned(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.4)
    prune.l1_unstructured(layer, "bias", 0.5)
    return layer


FORMS: dict[str, Callable[[], nn.Module]] = {
    "pruned": lambda: pruned(nn.Conv2d(3, 4, 3)),
    "weight norm": lambda: nn.utils.weight_norm(nn.Conv2d(3, 4, 3)),
    "weight norm of a transposed convolution": lambda: nn.utils.weight_norm(nn.ConvTranspose2d(3, 4, 3), dim=1),
    "weight norm over all": lambda: nn.utils.weight_norm(nn.Linear(5, 4), dim=None),
    "weight norm, newer": lambda: parametrizations.weight_norm(nn.Linear(5, 4)),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Conv2d(3, 4, 3)),
    "spectral norm, newer": lambda: parametrizations.spectral_norm(nn.Linear(5, 4)),
    "spectral norm of a transposed convolution": lambda: parametrizations.spectral_norm(nn.ConvTranspose2d(3, 4, 3)),
}


def permanent(layer: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the weights that torch computes in eval mode."""
    layer.eval()
    with torch.no_grad():
        layer(x)  # the older forms compute before a forward pass
        return {name: getattr(layer, name).detach() for name in ("weight", "bias")}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_weight_is_what_torch_computes(name: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = FORMS[name]()
    wanted = permanent(layer, torch.randn(2, 5) if isinstance(layer, nn.Linear) else torch.randn(2, 3, 8, 8))
    torch.save({f"{prefix}layer.{key}": value for key, value in layer.state_dict().items()}, tmp_path / "model.pt")
    found = unwrap(read_pickled(tmp_path / "model.pt").root)
    assert set(found.tensors) == {"layer.weight", "layer.bias"}
    for key, value in wanted.items():
        stored = found.tensors[f"layer.{key}"]
        assert stored.shape == tuple(value.shape) and stored.dtype == "F32"
        np.testing.assert_allclose(np.asarray(stored.array), value.numpy(), rtol=2e-6, atol=1e-7)
    word = "pruned" if name == "pruned" else "weight-normed" if name.startswith("weight") else "spectrally normed"
    assert any(word in note for note in found.notes)


@pytest.mark.parametrize(
    "state",
    [
        {"a_g": torch.ones(3), "a_v": torch.ones(4, 2)},  # shapes that are of no weight norm
        {"a_g": torch.ones(40_000, 1), "a_v": torch.ones(1, 40_000)},  # together they would take 13 GB
        {"a_orig": torch.ones(2, 2), "a_mask": torch.ones(2, 3)},
        {"a_v": torch.ones(4, 2), "b_g": torch.ones(4, 1)},
        {"a": torch.ones(2), "a_orig": torch.ones(2), "a_mask": torch.ones(2)},
        {"a_orig": torch.ones(2, dtype=torch.int64), "a_mask": torch.ones(2)},
    ],
)
def test_what_only_looks_like_it_stays_as_it_is(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt")
    found = unwrap(read_pickled(tmp_path / "model.pt").root)
    assert set(found.tensors) == set(state) and found.notes == ()


def test_a_pruned_network_of_torchvision_is_recognised(tmp_path: Path) -> None:
    import torchvision

    model = torchvision.models.shufflenet_v2_x0_5(weights=None).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            prune.random_unstructured(layer, "weight", 0.3)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    rebuilt = rebuild(tmp_path / "model.pt")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        answer = safe_form.build(safe_form.read(safe_form.written(rebuilt.graph, rebuilt.tensors)))(x)
        assert torch.allclose(answer, model(x), atol=1e-5)


class Twins(nn.Module):
    """Layers of equal shapes, with names of their own: only their order tells one from the other."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, 16, bias=bias) for _ in "abc")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.c(self.b(self.a(x.flatten(1)).relu()).relu())
        return answer


def masked(layer: nn.Module) -> nn.Module:
    return prune.random_unstructured(layer, "weight", 0.4)  # type: ignore[no-any-return]


APART: dict[str, Callable[[nn.Module], nn.Module]] = {
    "pruned": masked,
    "weight norm": nn.utils.weight_norm,
    "weight norm, newer": parametrizations.weight_norm,
    "spectral norm": nn.utils.spectral_norm,
    "spectral norm, newer": parametrizations.spectral_norm,
}


@pytest.mark.parametrize("form", APART)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("which", ["a", "b", "ab", "ca"])
def test_a_weight_that_was_taken_apart_stays_in_its_layer(form: str, bias: bool, which: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Twins(bias)
    for name in which:
        APART[form](network.get_submodule(name))
    network.eval()
    x = torch.randn(3, 1, 4, 4)
    with torch.no_grad():
        wanted = network(x)
        torch.save(network.state_dict(), tmp_path / "model.pt")
        linear = {"type": "Linear", "in_features": 16, "out_features": 16, "bias": bias}
        blocks = json.dumps([{"type": "Flatten"}, linear, {"type": "ReLU"}, linear, {"type": "ReLU"}, linear])
        found = rebuild(tmp_path / "model.pt", blocks=blocks.encode())
        ours = safe_form.build(safe_form.read(safe_form.written(found.graph, found.tensors)))(x)
    assert wanted.std() > 0
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-6)


def test_a_layer_that_holds_others_begins_before_them(tmp_path: Path) -> None:
    outer = nn.MultiheadAttention(4, 2)
    parametrizations.weight_norm(outer, "in_proj_weight")  # saved behind out_proj, which lies in it
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "attention": outer, "last": nn.Linear(2, 2)})
    state = unwrap(read(model.state_dict(), tmp_path, "zip"))
    names = ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]
    inner = [f"attention.{name}" for name in names]
    assert list(state.tensors) == ["first.weight", "first.bias", *inner, "last.weight", "last.bias"]


def test_what_was_saved_in_a_row_or_compiled_is_found(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    state = model.state_dict()
    for value in ((model, optimiser), [model], torch.compile(model)):
        assert unwrap(read(value, tmp_path, "zip")).model is not None
    for value in ((state, 3), list(state.items()), [state, optimiser.state_dict()]):
        assert set(unwrap(read(value, tmp_path, "zip")).tensors) == {"0.weight", "0.bias"}


def test_bfloat16_is_computed_and_rounded_as_torch_does(tmp_path: Path) -> None:
    layer = pruned(nn.Linear(64, 32)).to(torch.bfloat16)
    found = to_torch(unwrap(read(layer.state_dict(), tmp_path)).tensors)
    expected = (layer.weight_orig * layer.weight_mask).detach()  # type: ignore[operator]
    assert torch.equal(found["weight"], expected) and found["weight"].dtype == torch.bfloat16
    values = (
        torch.randn(4096, generator=torch.Generator().manual_seed(2)).double() * torch.logspace(-30, 30, 4096).double()
    )
    values[:4] = torch.tensor([float("inf"), -float("inf"), float("nan"), 3.4e38], dtype=torch.double)
    rounded = torch.from_numpy(_to_bfloat16(values.numpy()).view(np.int16)).view(torch.bfloat16)
    assert torch.equal(rounded.float().nan_to_num(7), values.float().bfloat16().float().nan_to_num(7))
