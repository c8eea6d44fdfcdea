"""Networks described as JSON blocks: the same as torch builds, matched to a state dict by keys or by order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from layerscope.models.formats.blocks import from_json, match, schema
from layerscope.models.formats.plain_safetensors import read_plain
from layerscope.models.formats.state_dicts import unwrap
from layerscope.models.safe_form.tracing import trace
from layerscope.models.safe_form.vocabulary import LAYERS
from layerscope.schemas.errors import Refused
from tests.models.formats.saving import difference, images, randomise, read


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


BLOCKS: list[dict[str, Any]] = [
    {"type": "Conv2d", "in_channels": 1, "out_channels": 4, "kernel_size": 3, "padding": "same", "bias": False},
    {"type": "BatchNorm2d", "num_features": 4},
    {"type": "ReLU", "inplace": True},
    {"type": "MaxPool2d", "kernel_size": [2, 2]},
    {
        "type": "Sequential",
        "blocks": [{"type": "Conv2d", "in_channels": 4, "out_channels": 4, "kernel_size": 3, "padding": [1, 1]}],
    },
    {"type": "GELU"},
    {"type": "Flatten"},
    {"type": "Linear", "in_features": 64, "out_features": 10},
]


class OneByOne(nn.Module):
    """The same network as the blocks, with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding="same", bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.bn1(self.conv1(x)).relu(), 2)
        x = nn.functional.gelu(self.conv2(x))
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def sequential() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding="same", bias=False), nn.BatchNorm2d(4), nn.ReLU(True), nn.MaxPool2d(2)),
        *(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1)), nn.GELU(), nn.Flatten(), nn.Linear(64, 10)),
    )


def network(blocks: object = BLOCKS) -> nn.Sequential:
    return from_json(json.dumps(blocks).encode())


def refused(blocks: object) -> Refused:
    with pytest.raises(Refused) as caught:
        from_json(blocks if isinstance(blocks, bytes) else json.dumps(blocks).encode())
    return caught.value


# Matching ------------------------------------------------------------------------------------------------------------


def test_the_state_dict_of_a_sequential_is_matched_by_its_keys(tmp_path: Path) -> None:
    model = randomise(sequential())
    shuffled = dict(reversed(model.state_dict().items()))

    ours, notes = match(network(), unwrap(read(shuffled, tmp_path)))

    assert difference(ours, model, images(2, 1, 8, 8)) == 0
    assert notes == ()
    trace(ours)


def test_a_state_dict_with_names_of_its_own_is_matched_by_order_and_shapes(tmp_path: Path) -> None:
    model = randomise(OneByOne())

    ours, notes = match(network(), unwrap(read({"model": model.state_dict()}, tmp_path)))

    assert difference(ours, model, images(2, 1, 8, 8)) == 0
    assert "order" in notes[0]


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    for model in (randomise(OneByOne()), randomise(sequential())):
        state = {key: tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")}

        ours, _ = match(network(), unwrap(read(state, tmp_path)))

        assert difference(ours, model, images(2, 1, 8, 8)) == 0


def test_a_safetensors_file_is_matched_by_keys_and_never_by_order(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = randomise(sequential())
    safetensors.torch.save_file(model.state_dict(), path)

    ours, _ = match(network(), unwrap(read_plain(path), ordered=False))

    assert difference(ours, model, images(2, 1, 8, 8)) == 0
    safetensors.torch.save_file(OneByOne().state_dict(), path)
    with pytest.raises(Refused, match="blocks-mismatch"):
        match(network(), unwrap(read_plain(path), ordered=False))


@pytest.mark.parametrize(
    ("index", "change", "code"),
    [
        (7, {"out_features": 11}, "shape-mismatch"),
        (7, {"bias": False}, "blocks-mismatch"),
        (0, {"bias": True}, "missing-tensor"),
    ],
)
def test_blocks_that_do_not_fit_keys_are_refused(index: int, change: dict[str, Any], code: str, tmp_path: Path) -> None:
    blocks = [block | (change if place == index else {}) for place, block in enumerate(BLOCKS)]

    with pytest.raises(Refused) as caught:
        match(network(blocks), unwrap(read(sequential().state_dict(), tmp_path)))

    assert caught.value.code == code
    assert f"{index}." in caught.value.message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda blocks: blocks[7].update(out_features=11), "(11, 64)"),
        (lambda blocks: blocks.pop(), "2 more tensors"),
        (lambda blocks: blocks.append({"type": "Linear", "in_features": 10, "out_features": 2}), "no more tensors"),
        (
            lambda blocks: blocks.pop(1),
            "'3.0.weight' (4, 4, 3, 3) should come next, and the file has 'bn1.weight' (4,)",
        ),
    ],
)
def test_blocks_that_do_not_fit_order_and_shapes_are_refused_with_the_first_difference(
    change: Any, says: str, tmp_path: Path
) -> None:
    blocks = json.loads(json.dumps(BLOCKS))
    change(blocks)

    with pytest.raises(Refused) as caught:
        match(network(blocks), unwrap(read(OneByOne().state_dict(), tmp_path)))

    assert caught.value.code == "blocks-mismatch"
    assert says in caught.value.message


# Building ------------------------------------------------------------------------------------------------------------


def test_a_residual_block_adds_its_input(tmp_path: Path) -> None:
    inner = [{"type": "Linear", "in_features": 4, "out_features": 4}, {"type": "Tanh"}]
    model = randomise(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))

    ours, _ = match(network([{"type": "Residual", "blocks": inner}]), unwrap(read(model.state_dict(), tmp_path)))

    batch = images(3, 4)
    assert torch.equal(ours(batch), batch + model(batch))
    trace(ours)


def test_what_is_not_given_is_what_torch_takes_itself() -> None:
    required = {
        "in_channels": 2, "out_channels": 2, "kernel_size": 2, "in_features": 3, "in1_features": 2, "in2_features": 2,
        "out_features": 2, "num_embeddings": 3, "embedding_dim": 2, "embed_dim": 4, "num_heads": 2, "input_size": 2,
        "hidden_size": 3, "num_features": 2, "num_groups": 1, "num_channels": 2, "normalized_shape": [3], "size": 2,
        "dim": 1, "unflattened_size": [1, 2], "norm_type": 2, "output_size": 2, "upscale_factor": 2, "groups": 1,
        "downscale_factor": 2, "threshold": 1, "value": 2,
    }  # fmt: skip
    definitions = schema()["$defs"]
    padding = {"ZeroPad1d": 2, "ReflectionPad1d": 2}
    for kind in LAYERS:
        given = {name: required[name] for name in definitions[kind]["required"] if name not in ("type", "padding")}
        if "padding" in definitions[kind]["required"]:
            given["padding"] = [1] * padding.get(kind, 4)

        [ours] = network([{"type": kind, **given}])

        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        assert repr(ours) == repr(getattr(nn, kind)(**plain))


def test_the_schema_says_what_torch_takes_and_the_vocabulary_allows() -> None:
    definitions = schema()["$defs"]

    assert set(definitions) == {*LAYERS, "Sequential", "Residual"}
    convolution = definitions["Conv2d"]
    assert convolution["required"] == ["type", "in_channels", "out_channels", "kernel_size"]
    assert convolution["additionalProperties"] is False
    properties = convolution["properties"]
    assert properties["bias"] == {"default": True, "title": "Bias", "type": "boolean"}
    assert properties["padding_mode"]["enum"] == ["circular", "reflect", "replicate", "zeros"]
    assert {"enum": ["same", "valid"]} in properties["padding"]["anyOf"]
    assert definitions["Dropout"]["properties"]["p"]["type"] == "number"
    assert definitions["ZeroPad2d"]["properties"]["padding"]["minItems"] == 4


# Refusing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks", "code", "message", "hint"),
    [
        ([{"type": "Convolution"}], "unknown-block", "Block '0' is a 'Convolution'", "Conv2d, "),
        ([{"kind": "ReLU"}], "unknown-block", "has no type", "ReLU"),
        (
            [{"type": "ReLU"}, {"type": "ReLU", "slope": 1}],
            "unknown-argument",
            "Block '1' (ReLU) has 'slope'",
            "inplace",
        ),
        ([{"type": "Flatten", "__class__": 1}], "unknown-argument", "__class__", "start_dim"),
        ([{"type": "Linear", "in_features": 3}], "missing-argument", "lacks out_features", "in_features, out_features"),
        ([{"type": "ReLU", "inplace": "yes"}], "bad-argument", "inplace='yes'", "inplace"),
        (
            [{"type": "Linear", "in_features": 10**8, "out_features": 10**8}],
            *("bad-argument", "in_features=100000000", "bias"),
        ),
        (
            [{"type": "Conv2d", "in_channels": 3, "out_channels": 4, "kernel_size": 3, "groups": 2}],
            *("bad-argument", "Block '0' (Conv2d) cannot be made", "groups"),
        ),
        (
            [{"type": "Residual", "blocks": [{"type": "ReLU"}, {"type": "Sequential", "blocks": [{"type": "X"}]}]}],
            *("unknown-block", "Block '0.1.0' is a 'X'", "Residual"),
        ),
        ([{"type": "Residual"}], "missing-argument", "lacks blocks", "blocks"),
        ([], "bad-blocks", "", "784"),
        ({"type": "ReLU"}, "bad-blocks", "", "784"),
        ([3], "bad-blocks", "", "784"),
        (b"{", "bad-json", "", ""),
        (b'[{"type": "ReLU", "type": "Tanh"}]', "bad-json", "twice", ""),
        ([{"type": "ReLU"}] * 1001, "too-many-blocks", "1000", ""),
        (b" " * 2**21, "too-many-blocks", "bytes", ""),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_a_block_is_refused_with_what_can(blocks: object, code: str, message: str, hint: str) -> None:
    found = refused(blocks)

    assert found.code == code
    assert message in found.message
    assert hint in found.hint
    assert len(found.message) < 500


def test_blocks_too_deep_in_one_another_are_refused() -> None:
    for depth in (13, 900):
        raw = b'[{"type":"Sequential","blocks":' * depth + b'[{"type":"ReLU"}]' + b"}]" * depth

        assert refused(raw).code in ("too-many-blocks", "bad-json")


def test_the_example_in_the_hint_is_read() -> None:
    hint = refused([]).hint

    assert len(from_json(hint[hint.index("[") :].encode())) == 2
