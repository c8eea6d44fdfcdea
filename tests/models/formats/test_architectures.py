"""A state dict alone: every torchvision classifier is known by it, and what is not known is refused with its nearest."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

from layerscope.models import safe_form
from layerscope.models.formats.architectures import body_digest, build_known, filled, recognise
from layerscope.models.formats.architectures.known_modules import make, own_shapes
from layerscope.models.formats.architectures.table import FAMILIES, family_of
from layerscope.models.safe_form.tracing import trace
from layerscope.schemas.errors import Refused
from tests.functions.networks import Tutorial, randomise

pytestmark = pytest.mark.slow

torchvision = pytest.importorskip("torchvision")

NAMES: Final = sorted(name for family in FAMILIES for name in family.members)
ENDS: Final = ((1000, 3), (10, 3), (10, 1))
"""The classes and channels of a state dict: torchvision's own, of a new head, of a new head and a new stem."""
SMALLEST: Final = sorted(min(family.members, key=lambda name: family.members[name][0]) for family in FAMILIES)
RESCALING: Final = ("googlenet", "inception_v3")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)


def state_of(name: str, *, classes: int, channels: int) -> dict[str, Tensor]:
    """Return a state dict of this architecture with other ends; its tensors take no memory."""
    options = {"num_classes": classes} | ({"aux_logits": True} if name in RESCALING else {})
    stem = f"{family_of(name).stem}.weight"
    state = make(name, **options).state_dict()
    shapes = {key: tensor.shape for key, tensor in state.items()}
    shapes[stem] = torch.Size((shapes[stem][0], channels, *shapes[stem][2:]))
    return {key: torch.zeros((), dtype=state[key].dtype).expand(shape) for key, shape in shapes.items()}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def rebuilt(state: Mapping[str, Tensor], named: str | None = None) -> nn.Module:
    return filled(recognise(shapes_of(state), named), state)


def refusal(shapes: Mapping[str, tuple[int, ...]], named: str | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        recognise(shapes, named)
    assert caught.value.hint
    return caught.value


def check_recognised(name: str, classes: int, channels: int) -> None:
    state = state_of(name, classes=classes, channels=channels)
    named = f"{name}-transform_input" if name in RESCALING and channels == 3 else None

    known = recognise(shapes_of(state), named)

    assert (known.name, known.num_classes, known.in_channels) == (name, classes, channels)
    assert bool(known.notes) == (channels != 3)
    trace(filled(known, state))


def check_same_outputs(ours: nn.Module, theirs: nn.Module, size: int, channels: int = 3) -> None:
    batch = torch.randn(2, channels, size, size)
    with torch.no_grad():
        expected = theirs.eval()(batch)
        assert torch.equal(ours.eval()(batch), expected)
        packed = safe_form.build(safe_form.read(safe_form.pack(ours)))
        assert float((packed(batch) - expected).abs().max() / expected.abs().max()) <= 1e-6


# Every classifier ----------------------------------------------------------------------------------------------------


def test_the_table_has_every_classifier_of_torchvision() -> None:
    assert sorted(torchvision.models.list_models(module=torchvision.models)) == NAMES
    digests = [digest for family in FAMILIES for _, digest in family.members.values()]
    assert len(set(digests)) == len(digests)


def test_the_table_is_that_of_the_installed_torchvision() -> None:
    found = {name: body_digest(own_shapes(make(name)), family_of(name)) for name in NAMES}

    assert found == {name: row for family in FAMILIES for name, row in family.members.items()}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_classifier_of_each_family_is_known_whatever_its_classes_and_channels(name: str) -> None:
    for classes, channels in ENDS:
        check_recognised(name, classes, channels)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SMALLEST])
def test_every_other_classifier_is_known_by_its_state_dict(name: str) -> None:
    check_recognised(name, *ENDS[-1])  # the head and the stem are its family's


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "mnasnet0_5"])
def test_a_rebuilt_classifier_gives_the_same_outputs(name: str) -> None:
    theirs = randomise(torchvision.models.get_model(name, num_classes=10))

    ours = rebuilt(theirs.state_dict())

    assert list(ours.state_dict()) == list(theirs.state_dict())
    check_same_outputs(ours, theirs, 64)


@pytest.mark.parametrize(
    "name", ["densenet121", "efficientnet_b0", "shufflenet_v2_x1_0", "swin_t", "swin_v2_t", "convnext_tiny"]
)
def test_a_rebuilt_classifier_of_other_families_gives_the_same_outputs(name: str) -> None:
    theirs = torchvision.models.get_model(name, num_classes=10)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)  # what is fresh hides what is lost

    check_same_outputs(rebuilt(theirs.state_dict()), theirs, 64)


def test_a_vision_transformer_is_of_the_image_size_of_its_positions() -> None:
    theirs = randomise(torchvision.models.vit_b_32(num_classes=10, image_size=64))

    known = recognise(own_shapes(theirs))

    assert known.image_size == 64
    check_same_outputs(filled(known, theirs.state_dict()), theirs, 64)


def test_building_takes_no_memory() -> None:
    known = recognise(shapes_of(state_of("vit_h_14", classes=10, channels=3)))

    module = build_known(known)

    assert {tensor.device.type for tensor in module.parameters()} == {"meta"}
    assert not module.training


# Old files -----------------------------------------------------------------------------------------------------------


def test_batch_norms_saved_without_counters_count_from_zero() -> None:
    theirs = randomise(torchvision.models.resnet18(num_classes=10))
    state = {key: tensor for key, tensor in theirs.state_dict().items() if not key.endswith("num_batches_tracked")}

    ours = rebuilt(state)

    assert int(ours.get_submodule("bn1").num_batches_tracked) == 0
    check_same_outputs(ours, theirs, 64)


def test_the_old_names_of_densenets_are_known() -> None:
    theirs = torchvision.models.densenet121(num_classes=10)
    old = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")
    state = {old.sub(r"\1.\2.", key): tensor for key, tensor in theirs.state_dict().items()}
    assert state.keys() != theirs.state_dict().keys()

    check_same_outputs(rebuilt(state), theirs, 32)


def test_the_old_names_of_vision_transformers_are_known() -> None:
    state = state_of("vit_b_32", classes=10, channels=3)
    old = {key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): state[key] for key in state}
    assert old.keys() != state.keys()

    assert list(rebuilt(old).state_dict()) == list(state)


def test_a_tensor_under_both_its_names_is_refused() -> None:
    shapes = own_shapes(make("densenet121"))
    shapes["features.denseblock1.denselayer1.norm.1.weight"] = (64,)

    assert refusal(shapes).code == "duplicate-tensor"


# Replaced layers -----------------------------------------------------------------------------------------------------


HEADS: Final[Mapping[str, Callable[[int], nn.Module]]] = {
    "linear": lambda inputs: nn.Linear(inputs, 7),
    "without bias": lambda inputs: nn.Linear(inputs, 7, bias=False),
    "dropout": lambda inputs: nn.Sequential(nn.Dropout(0.3), nn.Linear(inputs, 7)),
    "two": lambda inputs: nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 7)),
    "norm": lambda inputs: nn.Sequential(
        nn.Dropout(), nn.Linear(inputs, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 7)
    ),
}


@pytest.mark.parametrize(
    "head", ["two", *(pytest.param(head, marks=pytest.mark.slow) for head in HEADS if head != "two")]
)
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["last", "whole"])
def test_a_replaced_head_is_known_by_its_keys(head: str, whole: bool) -> None:
    theirs = torchvision.models.mobilenet_v3_small(num_classes=10)
    if whole:
        theirs.classifier = HEADS[head](576)
    else:
        theirs.classifier[3] = HEADS[head](1024)
    randomise(theirs)

    known = recognise(own_shapes(theirs))

    assert known.num_classes == 7
    assert bool(known.notes) == (head in ("two", "norm"))
    check_same_outputs(filled(known, theirs.state_dict()), theirs, 64)


@pytest.mark.parametrize(
    "head",
    [
        nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(512, 7)),
        nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Dropout(), nn.Identity(), nn.Linear(8, 7)),
        nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 7)),
        nn.Sequential(nn.Linear(512, 7), nn.BatchNorm1d(7)),
        nn.Sequential(nn.Sequential(nn.Linear(512, 7))),
        nn.Linear(513, 7),
        nn.Bilinear(512, 512, 7),
        nn.Identity(),
    ],
    ids=["leading", "gap", "two gaps", "norm last", "nested", "features", "bilinear", "none"],
)
def test_a_head_that_keys_do_not_tell_is_refused(head: nn.Module) -> None:
    model = make("resnet18")
    model.fc = head

    refused = refusal(own_shapes(model))

    assert refused.code == "unknown-head"
    assert "'fc" in refused.message


def test_a_stem_for_one_channel_may_have_got_a_bias() -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, 7, 2, 3)
    randomise(theirs)

    ours = rebuilt(theirs.state_dict())

    check_same_outputs(ours, theirs, 64, channels=1)


def test_a_stem_for_small_images_has_to_be_named() -> None:
    theirs = torchvision.models.resnet18(num_classes=10)
    theirs.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    theirs.maxpool = nn.Identity()
    randomise(theirs)

    refused = refusal(own_shapes(theirs))
    assert refused.code == "ambiguous-architecture"
    assert "--architecture resnet18+cifar_stem" in refused.hint
    check_same_outputs(rebuilt(theirs.state_dict(), "resnet18+cifar_stem"), theirs, 32, channels=1)
    assert refusal(own_shapes(make("resnet18")), "resnet18+cifar_stem").code == "architecture-mismatch"


# Auxiliary heads and rescaled input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("auxiliary", "rescaled"), [(True, True), (True, False), (False, True)])
def test_googlenet_has_to_be_named_with_or_without_its_rescaling(auxiliary: bool, rescaled: bool) -> None:
    theirs = torchvision.models.googlenet(
        num_classes=10, aux_logits=auxiliary, transform_input=rescaled, init_weights=False
    )
    randomise(theirs)

    refused = refusal(own_shapes(theirs))
    assert refused.code == "ambiguous-architecture"
    assert "googlenet+transform_input" in refused.hint
    check_same_outputs(rebuilt(theirs.state_dict(), f"googlenet{'-+'[rescaled]}transform_input"), theirs, 64)


def test_auxiliary_heads_may_have_other_classes() -> None:
    state = state_of("inception_v3", classes=10, channels=1)
    state["fc.weight"], state["fc.bias"] = torch.zeros(4, 2048), torch.zeros(4)

    known = recognise(shapes_of(state))

    assert (known.num_classes, known.auxiliary_classes) == (4, 10)
    trace(filled(known, state))


# What the user names -------------------------------------------------------------------------------------------------


def test_a_name_is_checked_against_the_tensors() -> None:
    shapes = own_shapes(make("resnet18", num_classes=10))

    assert recognise(shapes, "torchvision.models.resnet18").name == "resnet18"
    refused = refusal(shapes, "resnet34")
    assert refused.code == "architecture-mismatch"
    assert "resnet34: 'layer1.2.conv1.weight' is missing" in refused.message


@pytest.mark.parametrize("named", ["ResNet18", "resnet-18", "__class__", "", "x" * 500, "resnet18+transform_input"])
def test_a_name_that_is_none_is_answered_with_one_that_is(named: str) -> None:
    refused = refusal(own_shapes(make("resnet18")), named)

    assert refused.code == "unknown-architecture"
    assert any(name in refused.hint for name in NAMES)
    assert len(refused.message) < 400


# Refusals ------------------------------------------------------------------------------------------------------------


def test_an_unknown_state_dict_is_answered_with_the_nearest_architecture_and_what_differs() -> None:
    shapes = own_shapes(make("resnet34"))
    shapes["layer2.0.conv1.weight"] = (128, 64, 5, 5)
    shapes["attention.weight"] = (3,)

    refused = refusal(shapes)

    assert refused.code == "unknown-architecture"
    assert (
        "nearest is resnet34: 'layer2.0.conv1.weight' has the shape (128, 64, 5, 5), not (128, 64, 3, 3)"
        in refused.message
    )
    assert "'attention.weight' is one too many" in refused.message
    assert "--architecture blocks.json" in refused.hint


@pytest.mark.parametrize("shapes", [{}, own_shapes(Tutorial()), {"conv1.weight": ()}, {"fc.weight": (10, 512)}])
def test_a_state_dict_of_anything_else_is_refused(shapes: dict[str, tuple[int, ...]]) -> None:
    refused = refusal(shapes)

    assert refused.code == "unknown-architecture"
    assert "--architecture blocks.json" in refused.hint


def changes(shapes: dict[str, tuple[int, ...]]) -> dict[str, dict[str, Any]]:
    return {
        "missing": {key: shape for key, shape in shapes.items() if key != "layer3.1.bn2.running_var"},
        "wrong stem": shapes | {"conv1.weight": (64, 3, 5, 5)},
        "no channels": shapes | {"conv1.weight": (64,)},
        "stem's bias": shapes | {"conv1.bias": (63,)},
        "counter's shape": shapes | {"bn1.num_batches_tracked": (2,)},
        "counter of nothing": shapes | {"conv1.num_batches_tracked": ()},
        "head's bias": shapes | {"fc.bias": (9,)},
        "extra": shapes | {"layer5.weight": (1,)},
    }


@pytest.mark.parametrize("change", list(changes({})))
def test_a_state_dict_that_would_not_load_strictly_is_refused(change: str) -> None:
    refused = refusal(changes(own_shapes(make("resnet18", num_classes=10)))[change])

    assert refused.code == "unknown-architecture"
    assert "resnet18" in refused.message


def test_positions_that_are_no_square_of_patches_are_refused() -> None:
    shapes = own_shapes(make("vit_b_32"))
    for positions in ((1, 51, 768), (1, 0, 768), (1, 1, 768), (1, 50, 768, 1)):
        assert refusal(shapes | {"encoder.pos_embedding": positions}).code == "unknown-architecture"


def test_whole_numbers_are_no_weights() -> None:
    state = state_of("squeezenet1_1", classes=10, channels=3)
    state["classifier.1.bias"] = torch.zeros(10, dtype=torch.int8)
    known = recognise(shapes_of(state))

    with pytest.raises(Refused) as caught:
        filled(known, state)

    assert caught.value.code == "dtype-mismatch"


def test_half_precision_is_kept_for_the_safe_form() -> None:
    theirs = torchvision.models.squeezenet1_1(num_classes=10).half()

    packed = safe_form.read(safe_form.pack(rebuilt(theirs.state_dict())))

    assert {entry.dtype for entry in packed.header.tensors.values()} == {"F16"}
    assert sum(math.prod(entry.shape) for entry in packed.header.tensors.values()) == sum(
        parameter.numel() for parameter in theirs.parameters()
    )
