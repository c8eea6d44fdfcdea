"""Models that torch.fx cannot follow, and torch.export can: as people have them from libraries, in small."""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import layerscope
from layerscope.models import exporting, safe_form
from layerscope.models.formats.torchscript.created import created
from layerscope.schemas.errors import Refused

SHAPE = (1, 8, 8)


class Output(OrderedDict[str, Any]):
    """As models of transformers answer: a mapping whose entries are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, count, width = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, count, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind()
        heads = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + self.out(heads.transpose(1, 2).reshape(batch, count, width))


class Transformer(nn.Module):
    """Positions made in forward, a mask that is built and one that nobody uses, a loop over sizes, an answer with names."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 0.02)
        self.far = nn.Parameter(torch.randn(16) * 0.1)
        self.blocks = nn.ModuleList(Attention(16) for _ in range(2))
        self.head = nn.Linear(16, 3)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Output:
        if pixel_values.shape[1] != self.patches.in_channels:
            raise ValueError("the images have other channels")
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        count = x.shape[1]
        x = x + torch.arange(count)[None, :, None] / count * self.far
        torch.arange(x.shape[0]).unsqueeze(1)  # of each image, and of no use
        mask = (torch.arange(count)[:, None] - torch.arange(count)[None]).abs() < 4
        for block in self.blocks:
            x = block(x, mask)
        answer = Output(logits=self.head(x[:, 0]))
        if labels is not None:
            answer["loss"] = nn.functional.cross_entropy(answer.logits, labels)
        return answer


class Branching(nn.Module):
    """A branch on the size of the images, and padding that is worked out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % 2 == 0:
            images = nn.functional.pad(images, (0, 1, 0, 1))
        x = self.norm(self.first(images)).relu()
        return self.head(x.mean((2, 3)))


class Several(Branching):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, images: Tensor) -> Any:
        scores = super().forward(images)
        return {self.name: scores, "features": images.flatten(1)}


class Numbers(Branching):
    """Different tensors of numbers of one shape, one of them changed in place, and layers that nobody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, images: Tensor) -> Tensor:
        scores = super().forward(images)
        torch.sigmoid(self.aux(torch.zeros(2, 4)))
        shift = torch.zeros(3)
        shift[1:].add_(1)
        return scores * torch.full((3,), 2.0) + torch.ones(3) * 5 + torch.arange(3) - torch.arange(3, 6) + shift


class Answer(NamedTuple):
    features: Tensor
    logits: Tensor


class Named(Branching):
    def forward(self, images: Tensor) -> Any:
        return Answer(images.flatten(1), super().forward(images))


class Remembering(nn.Module):
    """A recurrent layer that does not begin with zeros."""

    def __init__(self, begin: float) -> None:
        super().__init__()
        self.rows = nn.GRU(8, 4, batch_first=True)
        self.head = nn.Linear(4, 3)
        self.begin = begin

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[1] != 1:
            raise ValueError("grey images only")
        begin = torch.full((1, images.shape[0], 4), self.begin)
        return self.head(self.rows(images[:, 0], begin)[0][:, -1])


def trained(model: nn.Module) -> nn.Module:
    torch.manual_seed(7)
    for one in model.parameters():
        nn.init.normal_(one, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    return model


def scores(model: nn.Module, images: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        answer = model(images)
    return answer if isinstance(answer, Tensor) else answer.logits if isinstance(answer, Answer) else answer["logits"]


@pytest.mark.parametrize(
    ("made", "example"),
    [
        (Transformer, SHAPE),
        (Branching, torch.zeros(1, *SHAPE)),
        (lambda: Several("logits"), list(SHAPE)),
        (Numbers, SHAPE),
        (Named, SHAPE),
    ],
    ids=["names", "branch", "several", "numbers", "named tuple"],
)
def test_a_model_that_fx_cannot_follow_computes_the_same(made: Any, example: Any) -> None:
    model = trained(made())
    with pytest.raises(Refused):
        safe_form.pack(model)
    content = layerscope.pack(model, example=example)
    rebuilt = safe_form.build(safe_form.read(content))
    for batch in (1, 2, 5, 17):
        images = torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))
        torch.testing.assert_close(rebuilt(images), scores(model, images), rtol=1e-5, atol=1e-6)


def test_layers_and_weights_keep_their_names() -> None:
    model = trained(Transformer())
    graph = safe_form.read(layerscope.pack(model, example=SHAPE)).graph
    assert {node.target for node in graph.nodes if node.operation == "layer"} == {
        "patches",
        "head",
        *(f"blocks.{at}.{layer}" for at in range(2) for layer in ("norm", "qkv", "out")),
    }
    assert {one.name for one in graph.weights if one.kind == "parameter"} == {
        name for name, _ in model.named_parameters()
    }


def test_the_model_stays_as_it_was() -> None:
    model = trained(Branching()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layerscope.pack(model, example=SHAPE)
    assert model.training and "forward" not in vars(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "declared",
    [
        {"pretrained_cfg": {"input_size": (1, 8, 8)}},
        {"config": SimpleNamespace(num_channels=1, image_size=8)},
        {"config": SimpleNamespace(num_channels=1, image_size=[8, 8])},
    ],
)
def test_a_model_that_says_which_images_it_takes_needs_no_example(declared: dict[str, Any]) -> None:
    model = trained(Branching())
    vars(model).update(declared)
    assert exporting.declared_shape(model) == SHAPE
    assert layerscope.pack(model) == layerscope.pack(trained(Branching()), example=SHAPE)


@pytest.mark.parametrize(
    "declared",
    [
        {},
        {"pretrained_cfg": {}},
        {"config": SimpleNamespace()},
        {"config": SimpleNamespace(num_channels=3, image_size="?")},
    ],
)
def test_one_that_does_not_is_asked_for_and_the_hint_leads_to_a_model(declared: dict[str, Any]) -> None:
    model = trained(Branching())
    vars(model).update(declared)
    assert exporting.declared_shape(model) is None
    with pytest.raises(Refused) as refused:
        layerscope.pack(model)
    call = refused.value.hint.partition(": ")[2].partition(". Or:")[0]
    assert call == "layerscope.upload(model, 'DATASET/MODEL/VERSION', example=images)"
    assert layerscope.pack(model, example=torch.zeros(2, *SHAPE))


def test_of_several_tensors_none_is_guessed() -> None:
    with pytest.raises(Refused) as refused:
        layerscope.pack(trained(Several("probabilities")), example=SHAPE)
    assert refused.value.message.endswith("The model answers with 2 tensors, and calls none of them logits.")


def test_images_that_the_model_does_not_take_are_said_to_be_the_reason() -> None:
    with pytest.raises(Refused) as refused:
        layerscope.pack(trained(Branching()), example=(3, 8, 8))
    assert "The model fails on 2 images of the shape (3, 8, 8)" in refused.value.message
    assert "example=" in refused.value.hint


def test_a_recurrent_layer_that_begins_elsewhere_is_not_taken_for_one_that_begins_with_zeros() -> None:
    with pytest.raises(Refused):
        layerscope.pack(trained(Remembering(0.5)), example=SHAPE)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("arange", [0, 1, 5e-324]),
        ("arange", [0, 2**40]),
        ("arange", [-(2**53), 2**53, 1]),
        ("full", [[2**30, 2**30], 0]),
        ("zeros", [[2**23]]),
        ("zeros", [[0, 2**53]]),
    ],
)
def test_a_program_that_makes_very_large_tensors_of_numbers_is_refused(name: str, given: list[Any]) -> None:
    with pytest.raises(Refused) as refused:
        created(name, given, {})
    assert refused.value.code == "too-large-constant"


@pytest.mark.parametrize(
    ("name", "given", "kwargs"),
    [
        ("full", [[1] * 70, 0], {}),
        ("zeros", [[-1]], {}),
        ("zeros", [3], {}),
        ("arange", [0, 3, 0], {}),
        ("arange", [], {}),
        ("full", [[2], 1], {"dtype": 99}),
        ("scalar_tensor", [math.inf], {}),
        ("arange", [2**60], {}),
    ],
)
def test_what_makes_no_tensor_is_left_to_be_unknown(name: str, given: list[Any], kwargs: dict[str, Any]) -> None:
    assert created(name, given, kwargs) is None


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("arange", [5]),
        ("arange", [2, 7]),
        ("arange", [1.5, 4, 0.5]),
        ("arange", [7, 2, -2]),
        ("arange", [3, 3]),
        ("full", [[2, 3], 7]),
        ("full", [[2], True]),
        ("full", [[], 0.5]),
        ("ones", [[2, 2]]),
        ("zeros", [[0, 3]]),
        ("scalar_tensor", [3]),
    ],
)
def test_tensors_of_numbers_are_those_of_torch(name: str, given: list[Any]) -> None:
    made = created(name, given, {})
    assert made is not None
    theirs = getattr(torch, name)(*given)
    assert (made.array.dtype, made.shape) == (theirs.numpy().dtype, tuple(theirs.shape))
    assert (made.array == theirs.numpy()).all()


class Deciding(Branching):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if images.sum() > 0 else super().forward(-images)


def test_a_model_that_decides_by_what_it_sees_is_refused_with_both_reasons() -> None:
    with pytest.raises(Refused) as refused:
        layerscope.pack(trained(Deciding()), example=SHAPE)
    assert refused.value.code == "not-traceable"
    assert (
        "images.sum() > 0" in refused.value.message and "torch.export does not take the model" in refused.value.message
    )
    assert "torch.where" in refused.value.hint


@pytest.mark.parametrize("example", [(8, 8), (1, 8, 8, 8), torch.zeros(8, 8), (1, 0, 8), (1.0, 8, 8)])
def test_an_example_that_is_no_images_is_said_to_be_none(example: Any) -> None:
    with pytest.raises(ValueError, match="neither images"):
        layerscope.pack(Branching(), example=example)


class Normed(nn.Module):
    """A network that norms a weight by its own statistics, as architectures without batch norms do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(SHAPE[0], 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        weight = self.conv.weight
        normed = nn.functional.batch_norm(weight.reshape(1, 4, -1), None, None, training=True).reshape(weight.shape)
        return self.fc(nn.functional.conv2d(x, normed, self.conv.bias).relu().mean((2, 3)))


def test_a_weight_that_is_normed_is_no_chance(tmp_path: Path) -> None:
    model = trained(Normed())
    with pytest.raises(Refused) as refused:
        layerscope.pack(model)
    assert refused.value.code == "not-traceable" and "random" not in refused.value.message
    images = torch.rand(3, *SHAPE)
    (tmp_path / "packed").write_bytes(layerscope.pack(model, example=images))
    with torch.no_grad():
        assert torch.allclose(safe_form.load(tmp_path / "packed")(images), model(images), atol=1e-6)


def test_a_forward_that_was_set_on_the_object_is_followed(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(SHAPE[0] * SHAPE[1] * SHAPE[2], 3)).eval()
    plain = model[1].forward
    model[1].forward = lambda given: 2 * plain(given)  # type: ignore[method-assign, assignment]
    with pytest.raises(Refused, match="patched-forward"):
        layerscope.pack(model)
    images = torch.rand(2, *SHAPE)
    (tmp_path / "packed").write_bytes(layerscope.pack(model, example=images))
    with torch.no_grad():
        assert torch.allclose(safe_form.load(tmp_path / "packed")(images), model(images), atol=1e-6)


def test_a_compiled_part_is_the_part(tmp_path: Path) -> None:
    inner = nn.Linear(SHAPE[0] * SHAPE[1] * SHAPE[2], 3)
    model = nn.Sequential(nn.Flatten(), torch.compile(inner)).eval()  # type: ignore[arg-type]
    assert layerscope.pack(model) == layerscope.pack(nn.Sequential(nn.Flatten(), inner).eval())
    assert model[1]._orig_mod is inner  # type: ignore[union-attr]


def test_what_failed_is_never_the_way_out() -> None:
    class Best(Branching):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x).topk(2).values

    for example in (None, SHAPE):
        with pytest.raises(Refused) as refused:
            layerscope.pack(trained(Best()), example=example)
        assert "example=" not in refused.value.hint and "Write that step of forward with others" in refused.value.hint
