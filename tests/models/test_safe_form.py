"""The safe model form: what is packed comes back as the same model, with the same names, from the same bytes."""

from __future__ import annotations

import copy
import hashlib
import io
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from layerscope.models import safe_form
from tests.functions.networks import NETWORKS, Residual, SharedLayer, Tied, Tutorial, images, randomise

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)


def rebuilt(model: nn.Module) -> safe_form.SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(model)))


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    mine, other = ours.detach().double(), theirs.detach().double()
    return float((mine - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rebuilt_network_gives_the_same_outputs(name: str) -> None:
    model, batch = randomise(NETWORKS[name]()), images(name)

    ours = rebuilt(model)

    with torch.no_grad():
        expected = model.eval()(batch)
        assert torch.isfinite(expected).all()
        assert expected.std() > 0
        assert relative_difference(ours(batch), expected) <= 1e-6


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rebuilt_network_has_the_same_layers_and_state(name: str) -> None:
    model = randomise(NETWORKS[name]())

    ours = rebuilt(model)

    theirs = model.state_dict()
    assert list(ours.state_dict()) == list(theirs)
    assert all(torch.equal(ours.state_dict()[key], theirs[key]) for key in theirs)
    assert [key for key, _ in ours.named_parameters()] == [key for key, _ in model.named_parameters()]
    named = dict(model.named_modules())
    for path, module in ours.named_modules():
        assert module._get_name() == named[path]._get_name()
    assert [path for path, _ in ours.named_modules()] == list(named)
    assert not any(module.training for module in ours.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_models_are_equal_bytes(name: str) -> None:
    model = randomise(NETWORKS[name]())

    first, second = safe_form.pack(model), safe_form.pack(copy.deepcopy(model))

    assert first == second
    assert safe_form.canonical(first) == first
    assert safe_form.pack(safe_form.build(safe_form.read(first))) == first


def test_another_weight_is_another_content() -> None:
    model = randomise(Residual())
    before = hashlib.sha256(safe_form.pack(model)).digest()

    with torch.no_grad():
        model.fc.bias[3] += 1e-3

    assert hashlib.sha256(safe_form.pack(model)).digest() != before


def test_a_rebuilt_network_does_not_depend_on_the_batch_size_it_never_saw() -> None:
    model = randomise(Tutorial())
    ours = rebuilt(model)

    with torch.no_grad():
        together = ours(images("functional", 5))

    assert together.shape == (5, 10)


def test_the_safetensors_library_reads_the_file_too(tmp_path: Path) -> None:
    model = randomise(Residual())
    path = tmp_path / "model.safetensors"
    path.write_bytes(safe_form.pack(model))

    theirs = safetensors.torch.load_file(path)

    assert set(theirs) == set(model.state_dict())
    assert all(torch.equal(theirs[key], tensor) for key, tensor in model.state_dict().items())
    with safetensors.safe_open(path, framework="pt") as file:
        assert safe_form.FORMAT in file.metadata()["layerscope"]


def test_a_file_that_the_safetensors_library_wrote_becomes_canonical() -> None:
    packed = safe_form.pack(randomise(Residual()))
    file = io.BytesIO(packed)
    tensors = safetensors.torch.load(packed)
    architecture = safe_form.read(packed).graph.to_json().decode()

    foreign = safetensors.torch.save(tensors, {"layerscope": architecture, "format": "pt"})

    assert foreign != packed
    assert safe_form.canonical(foreign) == file.getvalue()


def test_paths_and_bytes_are_read_alike(tmp_path: Path) -> None:
    model, batch = randomise(Residual()), images("residual")
    path = tmp_path / "model.safetensors"
    path.write_bytes(safe_form.pack(model))

    ours = safe_form.load(path)

    assert torch.equal(ours(batch), rebuilt(model)(batch))
    assert safe_form.canonical(path) == path.read_bytes()


# What hooks and gradients see ----------------------------------------------------------------------------------------


def test_forward_hooks_fire_as_on_the_original() -> None:
    model, batch = randomise(Residual()).eval(), images("residual")

    def recorded(network: nn.Module) -> list[tuple[str, Tensor]]:
        seen: list[tuple[str, Tensor]] = []

        def hook(name: str) -> Callable[..., None]:
            return lambda module, args, output: seen.append((name, output.detach().clone()))

        for name, module in network.named_modules():
            if not list(module.children()):
                module.register_forward_hook(hook(name))
        network(batch)
        return seen

    ours, theirs = recorded(rebuilt(model)), recorded(model)

    assert [name for name, _ in ours] == [name for name, _ in theirs]
    assert len(ours) > 10
    for (_, mine), (_, other) in zip(ours, theirs, strict=True):
        assert relative_difference(mine, other) <= 1e-6


def test_gradients_reach_the_input_and_the_parameters() -> None:
    model, batch = randomise(Residual()).eval(), images("residual")
    ours = rebuilt(model)

    def gradients(network: nn.Module) -> list[Tensor]:
        x = batch.clone().requires_grad_()
        network(x)[:, 2].sum().backward()
        return [x.grad, *(parameter.grad for parameter in network.parameters())]  # type: ignore[list-item]

    for mine, other in zip(gradients(ours), gradients(model), strict=True):
        assert other.abs().max() > 0
        assert relative_difference(mine, other) <= 1e-5


def test_frozen_parameters_stay_frozen() -> None:
    model = Residual()
    model.stem.requires_grad_(False)
    model.layer1[0].bn1.weight.requires_grad_(False)

    ours = rebuilt(model)

    assert {name: p.requires_grad for name, p in ours.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }
    assert sum(not p.requires_grad for p in ours.parameters()) == 3


def test_tied_tensors_stay_tied() -> None:
    ours = rebuilt(randomise(Tied()))

    assert ours.get_parameter("down.weight") is ours.get_parameter("again.weight")
    assert sum(p.numel() for p in ours.parameters()) == 64 * 10 + 10


def test_shared_modules_stay_shared_and_fire_twice() -> None:
    ours = rebuilt(randomise(SharedLayer()))
    calls: list[str] = []
    ours.get_submodule("conv").register_forward_hook(lambda *_: calls.append("conv"))
    ours.get_submodule("second.0").register_forward_hook(lambda *_: calls.append("norm"))

    ours(images("shared"))

    assert ours.get_submodule("first") is ours.get_submodule("second")
    assert sorted(calls) == ["conv", "conv", "norm", "norm"]


def test_values_are_freed_after_their_last_use() -> None:
    ours = rebuilt(nn.Sequential(*(nn.Linear(4, 4) for _ in range(6))))
    alive: list[Any] = []
    ours.get_submodule("1").register_forward_hook(lambda m, a, output: alive.append(weakref.ref(output)))
    ours.get_submodule("5").register_forward_hook(lambda *_: alive.append(alive[0]()))

    with torch.no_grad():
        ours(torch.rand(2, 4))

    assert alive[1] is None


# What is kept and what is made of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_stored_as_they_are_and_computed_in_float32(dtype: torch.dtype) -> None:
    model, batch = randomise(Residual()).to(dtype), images("residual")
    packed = safe_form.pack(model)

    ours = safe_form.build(safe_form.read(packed))

    assert safetensors.torch.load(packed)["fc.weight"].dtype == dtype
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    assert relative_difference(ours(batch), model.float().eval()(batch)) <= 1e-6


def test_wrappers_of_training_are_taken_off() -> None:
    model = randomise(Residual())
    averaged = torch.optim.swa_utils.AveragedModel(model)

    assert safe_form.pack(nn.DataParallel(model)) == safe_form.pack(model)
    assert safe_form.pack(averaged) == safe_form.pack(model)


def test_a_rebuilt_model_that_learned_more_can_be_packed_again() -> None:
    ours = rebuilt(randomise(Residual()))
    ours.get_submodule("stem").requires_grad_(False)
    with torch.no_grad():
        ours.get_parameter("fc.bias").fill_(3.0)

    again = safe_form.build(safe_form.read(safe_form.pack(ours)))

    assert again.get_parameter("fc.bias").tolist() == [3.0] * 10
    assert not again.get_parameter("stem.weight").requires_grad
    assert again.get_parameter("fc.weight").requires_grad


def test_building_leaves_the_global_random_numbers_alone() -> None:
    packed = safe_form.pack(randomise(Residual()))
    before = torch.get_rng_state()

    safe_form.build(safe_form.read(packed))

    assert torch.equal(torch.get_rng_state(), before)


def test_auto_is_a_device_that_is_there() -> None:
    assert safe_form.choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert safe_form.choose_device("cpu") == "cpu"


# torchvision ---------------------------------------------------------------------------------------------------------

QUICK = ["resnet18", "mobilenet_v2", "squeezenet1_1", "shufflenet_v2_x0_5"]
SLOW = ["densenet121", "googlenet", "efficientnet_b0", "mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "swin_t"]
SLOW += ["swin_v2_t", "convnext_tiny", "vgg11_bn", "alexnet", "resnext50_32x4d", "inception_v3"]


def check_torchvision(name: str, size: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, **options).eval()
    with torch.no_grad():
        for key, tensor in (*model.named_parameters(), *model.named_buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) if "var" in key else torch.randn_like(tensor), alpha=0.02)
    batch = torch.rand(1, 3, size, size)

    ours = rebuilt(model)

    with torch.no_grad():
        assert relative_difference(ours(batch), model(batch)) <= 1e-6
    assert list(ours.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", QUICK)
def test_small_torchvision_classifiers_come_back_the_same(name: str) -> None:
    check_torchvision(name, 64)


@pytest.mark.parametrize("name", SLOW)
def test_a_torchvision_classifier_of_every_family_comes_back_the_same(name: str) -> None:
    check_torchvision(name, 96)


@pytest.mark.parametrize("name", ["vit_b_32", "maxvit_t"])
def test_torchvision_transformers_of_fixed_size_come_back_the_same(name: str) -> None:
    check_torchvision(name, 224)
