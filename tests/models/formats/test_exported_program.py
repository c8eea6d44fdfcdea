"""Exported programs are read without torch.export: same outputs, same layers, any batch; nothing in them is run.

The reference is the model itself; torch.export only ever sees models of the tests.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from layerscope.models.formats import rebuild
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.safe_form.graph_module import SafeModel, assemble
from layerscope.models.safe_form.tracing import trace
from layerscope.schemas.errors import Refused
from tests.functions.networks import NETWORKS, images, randomise
from tests.models.formats.graph_layers import called, layers
from tests.models.formats.hostile_programs import HOSTILE, MARKER, mutants

pytestmark = pytest.mark.slow

FAMILIES = {"resnet18": 64, "mobilenet_v3_small": 64, "densenet121": 64, "vgg11": 64, "vit_b_16": 64}
"""Classifiers of torchvision, and the size of their images here."""
MORE = {"shufflenet_v2_x0_5": 64, "convnext_tiny": 64, "efficientnet_b0": 64, "swin_t": 64, "googlenet": 96}
READ = FAMILIES | MORE if os.environ.get("LAYERSCOPE_ALL_FAMILIES") else FAMILIES
FIXED = "Sizes of tensors must match"
BATCHES = (1, 2, 5)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)


def exported(
    model: nn.Module, x: Tensor, path: Path, *, any_batch: bool = True, decomposed: bool = False, strict: bool = False
) -> Path:
    """Export a model to a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its use of itself
        sizes = ({0: Dim("batch")},) if any_batch else None
        program = torch.export.export(model, (x,), dynamic_shapes=sizes, strict=strict)
        torch.export.save(program.run_decompositions() if decomposed else program, path)
    return path


def rebuilt(model: Rebuilt) -> SafeModel:
    return assemble(model.graph, model.tensors.__getitem__)


def assert_same(read: Rebuilt, model: nn.Module, batch: Callable[[int], Tensor]) -> None:
    safe = rebuilt(read)
    with torch.no_grad():
        for count in BATCHES:
            x = batch(count)
            expected = model(x.clone())
            actual = safe(x.clone())
            assert actual.shape == expected.shape
            assert expected.isfinite().all()
            assert float((actual - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


def refused(path: Path) -> Refused:
    with pytest.raises(Refused) as caught:
        rebuild(path)
    return caught.value


# The same model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_program_computes_what_the_model_does_and_has_its_layers(name: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()
    packed, _ = trace(model)

    read = rebuild(exported(model, images(name, 2), tmp_path / "model.pt2"))

    assert_same(read, model, functools.partial(images, name))
    assert read.notes == ()
    if name not in ("attention", "plain", "shared"):  # the last has a block under two names, and calls it by both
        assert called(read.graph) == called(packed)
        assert {name: layers(read.graph)[name] for name in layers(packed)} == layers(packed)


@pytest.mark.parametrize("name", ["functional", "residual", "branches", "buffers"])
def test_a_strict_export_has_the_same_layers(name: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()
    read = rebuild(exported(model, images(name, 2), tmp_path / "strict.pt2", strict=True))
    assert_same(read, model, functools.partial(images, name))
    usual = rebuild(exported(model, images(name, 2), tmp_path / "model.pt2"))
    assert layers(read.graph) == layers(usual.graph) and called(read.graph) == called(usual.graph)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"attention"}))
def test_a_batch_that_was_fixed_by_exporting_is_free_again(name: str, batch: int, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()

    read = rebuild(exported(model, images(name, batch), tmp_path / "model.pt2", any_batch=False))

    assert_same(read, model, functools.partial(images, name))
    assert read.notes == (f"The program was exported for batches of {batch}; the model takes any now.",)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_that_cannot_be_freed_is_refused_and_the_hint_leads_on(batch: int, tmp_path: Path) -> None:
    model = randomise(NETWORKS["attention"]()).eval()
    told = refused(exported(model, images("attention", batch), tmp_path / "model.pt2", any_batch=False))
    assert told.code == "fixed-batch"
    assert f"It was exported for batches of {batch}." in told.message
    assert "dynamic_shapes=({0: torch.export.Dim('batch')},)" in told.hint
    assert rebuild(exported(model, images("attention", 2), tmp_path / "model.pt2")).notes == ()


@pytest.mark.parametrize("name", ["functional", "residual", "pad shortcut", "branches", "shared", "tied", "buffers"])
def test_a_decomposed_program_computes_the_same(name: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()
    read = rebuild(exported(model, images(name, 2), tmp_path / "model.pt2", decomposed=True))
    assert_same(read, model, functools.partial(images, name))
    weighted = [name for name, (kind, _) in layers(trace(model)[0]).items() if kind in ("Conv2d", "BatchNorm2d")]
    assert set(weighted) <= set(called(read.graph))


def test_what_a_decomposition_makes_unknown_is_refused_and_the_hint_leads_on(tmp_path: Path) -> None:
    model = randomise(NETWORKS["attention"]()).eval()
    told = refused(exported(model, images("attention", 2), tmp_path / "model.pt2", decomposed=True))
    assert told.code == "unknown-operator"
    assert "without run_decompositions()" in told.hint
    rebuild(exported(model, images("attention", 2), tmp_path / "model.pt2"))


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"init_weights": False} if name == "googlenet" else {}
    if name.startswith("vit"):
        options["image_size"] = READ[name]
    model: nn.Module = models.get_model(name, num_classes=10, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.rand_like(module.weight) * 0.2 - 0.1
            module.running_var = torch.rand_like(module.weight) + 0.5
    return model.eval()


@pytest.mark.parametrize("name", READ)
def test_an_exported_torchvision_classifier_computes_what_it_did(name: str, tmp_path: Path) -> None:
    model, size = _torchvision(name), READ[name]

    read = rebuild(exported(model, torch.rand(2, 3, size, size), tmp_path / "model.pt2"))

    assert_same(read, model, lambda count: torch.rand(count, 3, size, size))
    packed, _ = trace(model)
    attention = {name for name, (kind, _) in layers(packed).items() if kind == "MultiheadAttention"}
    assert called(read.graph) == [name for name in called(packed) if name not in attention]


def test_every_layer_that_a_program_tells_apart_gets_its_arguments_back(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), stride=(2, 1), padding=(1, 2), padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, bias=False),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        nn.BatchNorm2d(6, eps=1e-3, affine=False),
        nn.GroupNorm(3, 6, affine=False),
        nn.Hardtanh(-2, 2, inplace=True),
        nn.Upsample(size=(9, 9), mode="bicubic", align_corners=False),
        nn.Upsample(scale_factor=2.0),
        nn.ConstantPad2d((1, 0, 2, -1), 0.5),
        nn.ReplicationPad2d(1),
        nn.AdaptiveAvgPool2d((18, 16)),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.CELU(0.7),
        nn.Hardswish(),
        nn.Flatten(),
        nn.LayerNorm(120, bias=False),
        nn.GLU(),
        nn.Threshold(0.1, -1.0),
        nn.Linear(60, 10, bias=False),
    ).eval()
    packed, _ = trace(model)

    read = rebuild(exported(model, torch.rand(2, 1, 16, 16), tmp_path / "model.pt2"))

    ours, theirs = layers(read.graph), layers(packed)
    assert ours == {name: theirs[name] for name in ours}
    assert called(read.graph) == called(packed)
    assert_same(read, model, lambda count: torch.rand(count, 1, 16, 16))


# What exporting keeps and what not -----------------------------------------------------------------------------------


def test_a_program_made_in_training_is_the_model_in_eval_mode(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 10))
    path = exported(randomise(model).train(), torch.rand(4, 1, 8, 8), tmp_path / "model.pt2")

    read = rebuild(path)

    assert_same(read, model.eval(), lambda count: torch.rand(count, 1, 8, 8))
    assert called(read.graph) == ["0", "1", "2", "3", "4"]
    assert [note.partition(";")[0] for note in read.notes] == ["The program does what a model in training mode does"]


class Own(nn.Module):
    """What `forward` does is given."""

    def __init__(self, forward: Callable[[Own, Tensor], Any]) -> None:
        super().__init__()
        self.fc = nn.Linear(9, 4)
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("shift", torch.linspace(0, 1, 9), persistent=False)
        self.does = forward

    def forward(self, x: Tensor) -> Any:
        return self.does(self, x.flatten(1))


def _counts(model: Own, x: Tensor) -> Tensor:
    model.count.add_(1)
    return model.fc(x) * model.count


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_model_that_changes_itself_is_refused(decomposed: bool, tmp_path: Path) -> None:
    path = exported(Own(_counts).eval(), torch.rand(2, 1, 3, 3), tmp_path / "model.pt2", decomposed=decomposed)
    assert refused(path).code == "changes-itself"


def test_buffers_that_are_not_saved_and_constants_are_kept(tmp_path: Path) -> None:
    constant = torch.linspace(-1, 1, 9)
    model = Own(lambda own, x: own.fc((x + own.shift) * constant + torch.tensor(0.25))).eval()
    read = rebuild(exported(model, torch.rand(2, 1, 3, 3), tmp_path / "model.pt2"))
    assert_same(read, model, lambda count: torch.rand(count, 1, 3, 3))
    assert {weight.name: weight.kind for weight in read.graph.weights}["shift"] == "constant"


def test_sizes_of_the_images_stay_computed_where_they_are_open(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), Rows(), nn.Linear(4, 10)).eval()
    sides = {0: Dim("batch"), 2: Dim("height", min=8, max=64), 3: Dim("width", min=8, max=64)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, (torch.rand(2, 1, 16, 20),), dynamic_shapes=(sides,))
        torch.export.save(program, tmp_path / "model.pt2")
    read = rebuild(tmp_path / "model.pt2")
    for height, width in ((16, 20), (9, 31)):
        assert_same(read, model, lambda count, height=height, width=width: torch.rand(count, 1, height, width))  # type: ignore[misc]


class Rows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        return x.reshape(batch, channels, height * width).sum(2) / (height * width)


@pytest.mark.parametrize(
    ("forward", "code"),
    [
        (lambda own, x: (own.fc(x), x), "several-outputs"),
        (lambda own, x: torch.linalg.inv(own.fc(x)[:, :, None] @ own.fc(x)[:, None]).sum(1), "unknown-operator"),
    ],
    ids=["two outputs", "unknown"],
)
def test_what_is_not_taken_is_refused_with_a_hint(
    forward: Callable[[Own, Tensor], Any], code: str, tmp_path: Path
) -> None:
    told = refused(exported(Own(forward).eval(), torch.rand(2, 1, 3, 3), tmp_path / "model.pt2"))
    assert told.code == code
    assert told.message.endswith(".")
    assert "export" in told.hint or "layerscope.upload(model" in told.hint


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(Two(), (torch.rand(2, 3), torch.rand(2, 3)))
        torch.export.save(program, tmp_path / "model.pt2")
    told = refused(tmp_path / "model.pt2")
    assert (told.code, "takes 2 inputs" in told.message) == ("several-inputs", True)


# Hostile programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_refused_or_passed_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, code = HOSTILE[name]
    (tmp_path / "model.pt2").write_bytes(make())
    if code is None:
        assert rebuild(tmp_path / "model.pt2").graph.nodes
    else:
        told = refused(tmp_path / "model.pt2")
        assert told.code in code.split("|"), told
        assert told.message.endswith(".")
        assert told.hint
    assert not (tmp_path / MARKER).exists()


def test_mutants_are_read_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcomes = {"read": 0, "refused": 0}
    for mutant in mutants(300, seed=16):
        (tmp_path / "model.pt2").write_bytes(mutant)
        try:
            rebuild(tmp_path / "model.pt2")
            outcomes["read"] += 1
        except Refused:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 30
    assert not (tmp_path / MARKER).exists()
