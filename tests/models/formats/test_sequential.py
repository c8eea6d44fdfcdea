"""Whole pickled models made anew: the layers of torch, nested and wrapped, and what is refused with a way out."""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.models import resnet

from layerscope.models import safe_form
from layerscope.models.formats import rebuild
from layerscope.models.formats.pickle_values import BuiltObject, Global
from layerscope.models.formats.whole_models.sequential import Whole, from_record, is_torchvision, state_of
from layerscope.models.safe_form.graph_module import assemble
from layerscope.models.safe_form.tracing import trace
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.errors import Refused
from tests.models.formats.saving import CONTAINERS, Container, difference, images, randomise, read

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(3)


IMAGE, ROW, LINE, SOLID = (2, 4, 8, 8), (2, 4), (2, 4, 16), (2, 2, 4, 8, 8)
LAYERS_AND_INPUTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3, padding=1), LINE),
    "Conv2d": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 1), 1, groups=2, bias=False), IMAGE),
    "Conv2d same": (lambda: nn.Conv2d(4, 6, 4, padding="same", dilation=2), IMAGE),
    "Conv2d circular": (lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="circular"), IMAGE),
    "Conv2d reflect": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 3), SOLID),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 3, 3), LINE),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 3, 3, 2, output_padding=1), IMAGE),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), SOLID),
    "Linear": (lambda: nn.Linear(4, 3, bias=False), ROW),
    "Linear of NumPy": (lambda: nn.Linear(np.int64(4), np.prod([1, 3])), ROW),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4, eps=1e-2), ROW),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4, momentum=None), IMAGE),
    "BatchNorm2d bare": (lambda: nn.BatchNorm2d(4, affine=False, track_running_stats=False), IMAGE),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(2), SOLID),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(4), IMAGE),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(4), LINE),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(2), SOLID),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "LayerNorm": (lambda: nn.LayerNorm((4, 8, 8), bias=False), IMAGE),
    "RMSNorm": (lambda: nn.RMSNorm(8), IMAGE),
    "LocalResponseNorm": (lambda: nn.LocalResponseNorm(3, alpha=0.5), IMAGE),
    "Identity": (nn.Identity, IMAGE),
    "Flatten": (lambda: nn.Flatten(2), IMAGE),
    "Unflatten": (lambda: nn.Unflatten(1, (2, 2)), IMAGE),
    "Dropout": (lambda: nn.Dropout(0.3), IMAGE),
    "Dropout1d": (nn.Dropout1d, LINE),
    "Dropout2d": (nn.Dropout2d, IMAGE),
    "Dropout3d": (nn.Dropout3d, SOLID),
    "AlphaDropout": (nn.AlphaDropout, IMAGE),
    "FeatureAlphaDropout": (nn.FeatureAlphaDropout, IMAGE),
    "ZeroPad1d": (lambda: nn.ZeroPad1d((1, 2)), LINE),
    "ZeroPad2d": (lambda: nn.ZeroPad2d((1, 2, 3, -1)), IMAGE),
    "ConstantPad2d": (lambda: nn.ConstantPad2d(1, 0.5), IMAGE),
    "ReflectionPad1d": (lambda: nn.ReflectionPad1d(2), LINE),
    "ReflectionPad2d": (lambda: nn.ReflectionPad2d(2), IMAGE),
    "ReplicationPad2d": (lambda: nn.ReplicationPad2d(2), IMAGE),
    "CircularPad2d": (lambda: nn.CircularPad2d(2), IMAGE),
    "MaxPool1d": (lambda: nn.MaxPool1d(2), LINE),
    "MaxPool2d": (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), IMAGE),
    "MaxPool3d": (lambda: nn.MaxPool3d(2), SOLID),
    "AvgPool1d": (lambda: nn.AvgPool1d(2), LINE),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE),
    "LPPool2d": (lambda: nn.LPPool2d(2, 2), IMAGE),
    "AdaptiveAvgPool1d": (lambda: nn.AdaptiveAvgPool1d(3), LINE),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d((3, None)), IMAGE),
    "AdaptiveAvgPool3d": (lambda: nn.AdaptiveAvgPool3d(2), SOLID),
    "AdaptiveMaxPool1d": (lambda: nn.AdaptiveMaxPool1d(3), LINE),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(3), IMAGE),
    "Upsample": (lambda: nn.Upsample(scale_factor=1.5, mode="bilinear", align_corners=True), IMAGE),
    "Upsample to a size": (lambda: nn.Upsample((5, 11)), IMAGE),
    "UpsamplingBilinear2d": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), IMAGE),
    "PixelShuffle": (lambda: nn.PixelShuffle(2), IMAGE),
    "PixelUnshuffle": (lambda: nn.PixelUnshuffle(2), IMAGE),
    "ChannelShuffle": (lambda: nn.ChannelShuffle(2), IMAGE),
    "LeakyReLU": (lambda: nn.LeakyReLU(0.3), IMAGE),
    "ELU": (lambda: nn.ELU(0.5, inplace=True), IMAGE),
    "CELU": (lambda: nn.CELU(0.5), IMAGE),
    "PReLU": (lambda: nn.PReLU(4), IMAGE),
    "GELU": (lambda: nn.GELU("tanh"), IMAGE),
    "GLU": (lambda: nn.GLU(1), IMAGE),
    "Hardtanh": (lambda: nn.Hardtanh(-0.2, 0.3), IMAGE),
    "Hardshrink": (lambda: nn.Hardshrink(0.7), IMAGE),
    "Softshrink": (lambda: nn.Softshrink(0.7), IMAGE),
    "Threshold": (lambda: nn.Threshold(0.1, 20), IMAGE),
    "Softplus": (lambda: nn.Softplus(2, 3), IMAGE),
    "Softmax": (lambda: nn.Softmax(1), IMAGE),
    "Softmin": (lambda: nn.Softmin(1), IMAGE),
    "LogSoftmax": (lambda: nn.LogSoftmax(1), IMAGE),
    **{
        name: (getattr(nn, name), IMAGE)
        for name in (
            *("ReLU", "ReLU6", "SELU", "SiLU", "Mish", "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink"),
            *("Softsign", "Hardswish", "Hardsigmoid", "Softmax2d"),
        )
    },
}
NOT_FROM_ONE_IMAGE = {"Bilinear", "Embedding", "MultiheadAttention", "RNN", "LSTM", "GRU"}


@pytest.mark.parametrize("name", LAYERS_AND_INPUTS)
def test_a_pickled_layer_is_made_anew_with_the_same_outputs(name: str, tmp_path: Path) -> None:
    make, shape = LAYERS_AND_INPUTS[name]
    model = randomise(nn.Sequential(make()))

    for container in CONTAINERS:
        whole = from_record(read(model, tmp_path, container))

        assert difference(whole.module, model, images(*shape)) == 0
        assert whole.notes == ()
    trace(whole.module)


def test_every_layer_of_the_vocabulary_is_tried() -> None:
    assert set(LAYERS) == {name.partition(" ")[0] for name in LAYERS_AND_INPUTS} & set(LAYERS) | NOT_FROM_ONE_IMAGE


@pytest.mark.parametrize(
    ("layer", "batch"),
    [
        (nn.MultiheadAttention(8, 2, batch_first=True), [(2, 3, 8)] * 3),
        (nn.MultiheadAttention(8, 2, kdim=4, vdim=6, bias=False), [(3, 2, 8), (3, 2, 4), (3, 2, 6)]),
        (nn.RNN(3, 4, 2, nonlinearity="relu"), [(5, 2, 3)]),
        (nn.LSTM(3, 4, 2, bidirectional=True), [(5, 2, 3)]),
        (nn.GRU(3, 4, bias=False, batch_first=True), [(5, 2, 3)]),
        (nn.Bilinear(2, 3, 4), [(5, 2), (5, 3)]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_layer_that_takes_or_gives_several_tensors_is_made_anew(
    layer: nn.Module, batch: list[tuple[int, ...]], tmp_path: Path
) -> None:
    randomise(layer)

    ours = from_record(read(layer, tmp_path)).module[0]  # type: ignore[index]

    given = [images(*shape) for shape in batch]
    mine, expected = ours(*given), layer(*given)
    assert torch.equal(mine[0], expected[0])
    assert expected[0].abs().max() > 0


def test_an_embedding_is_made_anew(tmp_path: Path) -> None:
    layer = randomise(nn.Embedding(5, 3, padding_idx=1))

    ours = from_record(read(nn.Sequential(layer), tmp_path)).module

    assert torch.equal(ours(torch.arange(5)), layer(torch.arange(5)))


# Trees ---------------------------------------------------------------------------------------------------------------


def _nested() -> nn.Sequential:
    activation = nn.ReLU(inplace=True)
    body = nn.Sequential(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), activation), nn.MaxPool2d(2))
    return nn.Sequential(
        OrderedDict(
            body=body, more=nn.Sequential(nn.Conv2d(4, 4, 3), activation), flat=nn.Flatten(), head=nn.Linear(484, 10)
        )
    )


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("wrapper", [lambda model: model, nn.DataParallel, torch.optim.swa_utils.AveragedModel])
def test_a_nested_network_comes_back_as_it_was(
    wrapper: Callable[[nn.Module], nn.Module], container: Container, tmp_path: Path
) -> None:
    model = randomise(_nested())

    whole = from_record(read(wrapper(copy.deepcopy(model)), tmp_path, container))

    assert difference(whole.module, model, images(2, 1, 28, 28)) == 0
    assert safe_form.pack(whole.module) == safe_form.pack(model)
    assert whole.architecture == "nn.Sequential of 4 layers"


def test_tied_weights_and_frozen_ones_stay_so(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight  # type: ignore[assignment]
    model[0].bias.requires_grad_(False)  # type: ignore[union-attr, operator]

    ours = from_record(read(model, tmp_path)).module

    assert ours[2].weight is ours[0].weight  # type: ignore[index]
    assert [parameter.requires_grad for parameter in ours.parameters()] == [True, False, True]
    assert safe_form.pack(ours) == safe_form.pack(model)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_type_of_the_numbers_stays(dtype: torch.dtype, tmp_path: Path) -> None:
    model = randomise(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))).to(dtype)

    ours = from_record(read(model, tmp_path)).module

    assert {name: tensor.dtype for name, tensor in ours.state_dict().items()} == {
        name: tensor.dtype for name, tensor in model.state_dict().items()
    }
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_changing_the_new_tensors_does_not_touch_the_file(tmp_path: Path) -> None:
    root = read(nn.Linear(4, 3), tmp_path)
    before = (tmp_path / "saved.pt").read_bytes()

    ours = from_record(root).module
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()

    assert (tmp_path / "saved.pt").read_bytes() == before


# Old releases --------------------------------------------------------------------------------------------------------


def _without(model: nn.Module, folder: Path, *names: str) -> BuiltObject:
    """Return the record of a model as a release of torch saved it that did not have these attributes yet."""
    record: BuiltObject = read(model, folder)
    _forget(record, names)
    return record


def _forget(record: BuiltObject, names: tuple[str, ...]) -> None:
    for name in names:
        record.state.pop(name, None)
        record.state["_buffers"].pop(name, None)
    for child in record.state["_modules"].values():
        _forget(child, names)


@pytest.mark.parametrize(
    ("layer", "names", "shape"),
    [
        (nn.GELU(), ("approximate",), IMAGE),
        (nn.Conv2d(4, 6, 3, padding=1), ("padding_mode", "_reversed_padding_repeated_twice"), IMAGE),
        (nn.MaxPool2d(2), ("return_indices", "ceil_mode"), IMAGE),
        (nn.Upsample(scale_factor=2), ("recompute_scale_factor", "align_corners"), IMAGE),
        (nn.Hardswish(), ("inplace",), IMAGE),
        (nn.BatchNorm2d(4), ("num_batches_tracked", "track_running_stats"), IMAGE),
        (nn.ReLU(), ("_non_persistent_buffers_set", "_is_full_backward_hook", "_state_dict_hooks"), IMAGE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_an_old_release_did_not_save_has_the_meaning_it_had(
    layer: nn.Module, names: tuple[str, ...], shape: tuple[int, ...], tmp_path: Path
) -> None:
    model = randomise(nn.Sequential(layer))

    ours = from_record(_without(model, tmp_path, *names)).module

    assert difference(ours, model, images(*shape)) == 0


# What torchvision is made of -----------------------------------------------------------------------------------------


def _resnet() -> nn.Module:
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)  # type: ignore[no-any-return]


def _transfer_learned() -> nn.Module:
    model = _resnet()
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(512, 32), nn.Tanh(), nn.Linear(32, 10))
    return model


TORCHVISION: dict[str, Callable[[], nn.Module]] = {
    "a replaced head": _transfer_learned,
    "a body in a Sequential": lambda: nn.Sequential(*list(_resnet().children())[:-1], nn.Flatten(), nn.Linear(512, 10)),
    "attributes of its blocks": lambda: torchvision.models.shufflenet_v2_x0_5(weights=None),
}
MORE_OF_TORCHVISION = (
    *("alexnet", "vgg11_bn", "resnet50", "mobilenet_v2", "efficientnet_b0", "efficientnet_v2_s", "densenet121"),
    *(
        "mnasnet0_5",
        "mobilenet_v3_small",
        "squeezenet1_1",
        "regnet_y_400mf",
        "convnext_tiny",
        "googlenet",
        "inception_v3",
        "vit_b_32",
    ),
)


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_pickled_model_of_torchvision_is_made_anew_whatever_its_head(name: str, tmp_path: Path) -> None:
    model = randomise(TORCHVISION[name]())

    whole = from_record(read(model, tmp_path))

    assert difference(whole.module, model, images(1, 3, 64, 64)) == 0
    assert whole.notes == ()


@pytest.mark.parametrize("name", MORE_OF_TORCHVISION)
def test_each_family_of_torchvision_is_made_anew(name: str, tmp_path: Path) -> None:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = randomise(torchvision.models.get_model(name, weights=None, num_classes=7, **options))

    whole = from_record(read(model, tmp_path, "legacy"))

    assert difference(whole.module, model, images(1, 3, 224, 224)) == 0
    trace(whole.module)


def test_the_state_dict_of_a_pickled_model_is_the_one_it_had(tmp_path: Path) -> None:
    model = _resnet()
    record = read(nn.DataParallel(model), tmp_path)

    state = state_of(record)

    assert is_torchvision(record)
    assert list(state) == list(model.state_dict())
    assert all(np.array_equal(state[name].array, tensor) for name, tensor in model.state_dict().items())


# What is refused -----------------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.body = nn.Sequential(nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.conv1(x)))  # type: ignore[no-any-return]


class Doubled(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)  # type: ignore[no-any-return]


def _refused(model: nn.Module, folder: Path) -> Refused:
    return _refused_record(read(model, folder))


def _refused_record(record: BuiltObject) -> Refused:
    with pytest.raises(Refused) as caught:
        from_record(record)
    assert caught.value.hint
    return caught.value


def test_a_class_of_the_users_own_is_named_with_its_layers_and_the_line_that_uploads_it(tmp_path: Path) -> None:
    refused = _refused(Net(), tmp_path)

    assert refused.code == "own-class"
    assert f"{__name__}.Net" in refused.message
    assert "conv1: Conv2d, body: Sequential, body.0: ReLU, body.1: Flatten, fc: Linear" in refused.message
    assert "layerscope.upload(model, 'DATASET/MODEL/VERSION')" in refused.hint


def test_a_subclass_of_sequential_is_a_class_of_the_users_own(tmp_path: Path) -> None:
    assert _refused(nn.Sequential(Doubled(nn.ReLU())), tmp_path).code == "own-class"


def test_a_large_class_of_the_users_own_is_listed_in_a_short_message(tmp_path: Path) -> None:
    model = Net()
    model.body = nn.Sequential(*(nn.ReLU() for _ in range(200)))

    assert len(_refused(model, tmp_path).message) < 700


def test_a_layer_that_the_safe_form_does_not_know_is_named(tmp_path: Path) -> None:
    refused = _refused(nn.Sequential(nn.AdaptiveMaxPool3d(2)), tmp_path)

    assert refused.code == "unknown-module"
    assert "AdaptiveMaxPool3d" in refused.message


def _hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + 1


@pytest.mark.parametrize("where", ["model", "layer", "wrapper"])
def test_forward_hooks_are_refused_for_they_may_change_the_outputs(where: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    wrapped = nn.DataParallel(model)
    {"model": model, "layer": model[0], "wrapper": wrapped}[where].register_forward_hook(_hook)

    assert _refused(wrapped, tmp_path).code == "has-hooks"


def test_weight_norm_is_refused_with_the_line_that_makes_it_permanent(tmp_path: Path) -> None:
    with pytest.warns(FutureWarning):
        layer = torch.nn.utils.weight_norm(nn.Linear(4, 3))

    refused = _refused(nn.Sequential(layer), tmp_path)

    assert refused.code == "has-hooks"
    assert "torch.nn.utils.remove_weight_norm" in refused.hint


def test_backward_hooks_and_foreign_attributes_are_left_out_with_a_note(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].register_full_backward_hook(_hook)  # type: ignore[arg-type]
    model[0].nickname = "first"  # type: ignore[assignment]
    model.history = [1, 2]  # type: ignore[assignment]

    whole: Whole = from_record(read(model, tmp_path))

    assert difference(whole.module, model, images(2, 4)) == 0
    [note] = whole.notes
    assert re.search("0.nickname.*history", note)
    assert "_backward_hooks" in note


def _set_state(name: str, value: object) -> Callable[[BuiltObject], None]:
    return lambda record: record.state["_modules"]["0"].state.update({name: value})


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("patched-forward", _set_state("forward", Global("torch.nn.functional", "relu"))),
        ("patched-forward", _set_state("_conv_forward", Global("os", "system"))),
        ("patched-forward", _set_state("weight", 3)),
        ("patched-forward", _set_state("_compiled_call_impl", Global("os", "system"))),
        ("patched-forward", lambda record: record.state.update(forward=Global("os", "system"))),
        ("changed-layer", _set_state("transposed", True)),
        ("changed-layer", _set_state("_reversed_padding_repeated_twice", [2, 2, 2, 2])),
        ("bad-argument", _set_state("out_channels", 10**9)),
        ("bad-argument", _set_state("kernel_size", (3, 3, 3))),
        ("bad-argument", _set_state("stride", (0, 1))),
        ("bad-argument", _set_state("groups", True)),
        ("bad-argument", _set_state("groups", 3)),
        ("bad-argument", _set_state("padding_mode", "sideways")),
        ("bad-argument", _set_state("padding", Global("os", "system"))),
        ("shape-mismatch", _set_state("out_channels", 7)),
        ("missing-tensor", lambda record: record.state["_modules"]["0"].state["_parameters"].pop("weight")),
        ("bad-structure", _set_state("_parameters", None)),
        ("bad-structure", _set_state("_parameters", {"weight": 3, "bias": None})),
        ("bad-structure", lambda record: record.state["_modules"].update({"0": None})),
        ("bad-structure", lambda record: record.state["_modules"].update({"0": {}})),
        ("bad-structure", lambda record: setattr(record.state["_modules"]["0"], "args", (10**9, 10**9, 1))),
        ("bad-structure", lambda record: setattr(record.state["_modules"]["0"], "state", None)),
        (
            "bad-structure",
            lambda record: setattr(record.state["_modules"]["0"], "type", BuiltObject(Global("os", "system"))),
        ),
        ("own-class", lambda record: setattr(record.state["_modules"]["0"], "type", Global("os", "system"))),
        (
            "own-class",
            lambda record: setattr(record.state["_modules"]["0"], "type", Global("torch.nn.utils.x", "Conv2d")),
        ),
        ("bad-name", lambda record: record.state["_modules"].update({"a/b": record.state["_modules"].pop("0")})),
        ("bad-name", lambda record: record.state["_modules"].update({"forward": record.state["_modules"].pop("0")})),
        ("too-deep", lambda record: record.state["_modules"].update(again=record)),
    ],
)
def test_what_torch_would_not_have_written_is_refused(
    code: str, change: Callable[[BuiltObject], object], tmp_path: Path
) -> None:
    record: BuiltObject = read(nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect")), tmp_path)
    from_record(record)
    change(record)

    assert _refused_record(record).code == code


def test_a_tensor_that_a_layer_does_not_have_is_refused(tmp_path: Path) -> None:
    record: BuiltObject = read(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), tmp_path)
    layers = record.state["_modules"]
    layers["1"].state["_parameters"]["weight"] = layers["0"].state["_parameters"]["weight"]

    assert _refused_record(record).code == "unexpected-tensor"


def test_modules_shared_until_they_are_too_many_are_refused_at_once(tmp_path: Path) -> None:
    record: BuiltObject = read(nn.ReLU(), tmp_path)
    for _ in range(25):
        state = {"_parameters": {}, "_buffers": {}, "_modules": {"0": record, "1": record}}
        record = BuiltObject(Global("torch.nn.modules.container", "Sequential"), state=state)

    assert _refused_record(record).code == "too-many-modules"


def test_modules_nested_too_deep_are_refused(tmp_path: Path) -> None:
    model: nn.Module = nn.ReLU()
    for _ in range(40):
        model = nn.Sequential(model)

    assert _refused(model, tmp_path).code == "too-deep"


# What training leaves on a model ------------------------------------------------------------------------------------


def _small_resnet() -> nn.Module:
    return randomise(torchvision.models.shufflenet_v2_x0_5(num_classes=3))


def test_a_pruned_model_of_torchvision_is_read_with_its_weights_computed(tmp_path: Path) -> None:
    model = _small_resnet()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            prune.l1_unstructured(layer, "weight", 0.3)
    torch.save(model, tmp_path / "model.pt")
    found = rebuild(tmp_path / "model.pt")
    assert any("pruned" in note for note in found.notes)
    safe = assemble(found.graph, found.tensors.__getitem__)
    assert difference(safe, model.eval(), images(2, 3, 64, 64)) < 1e-5


@pytest.mark.parametrize("change", ["hook", "forward", "layer"])
def test_a_changed_model_of_torchvision_is_not_read_as_if_it_were_not(change: str, tmp_path: Path) -> None:
    model = _small_resnet()
    if change == "hook":
        model.fc.register_forward_hook(_doubled)  # type: ignore[union-attr, operator]
    elif change == "forward":
        model.fc.forward = abs  # type: ignore[union-attr, method-assign, assignment]
    else:
        model.conv1[0].transposed = True  # type: ignore[index, union-attr]
    torch.save(model, tmp_path / "model.pt")
    with pytest.raises(Refused) as refused:
        rebuild(tmp_path / "model.pt")
    assert refused.value.code in ("has-hooks", "patched-forward", "changed-layer")


def _doubled(module: nn.Module, given: object, answer: Tensor) -> Tensor:
    return 2 * answer


def test_the_hint_of_hooks_is_the_call_for_their_class(tmp_path: Path) -> None:
    for wrap, call in (
        (lambda one: prune.random_unstructured(one, "bias", 0.5), "prune.remove(layer, 'bias')"),
        (nn.utils.spectral_norm, "remove_spectral_norm(layer, 'weight')"),
    ):
        refused = _refused(nn.Sequential(nn.Flatten(), wrap(nn.Linear(4, 3))), tmp_path)
        assert refused.code == "has-hooks" and call in refused.hint and refused.hint.count("torch.nn.utils.") == 1
