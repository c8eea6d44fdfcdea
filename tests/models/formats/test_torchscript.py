"""Traces are read without torch.jit: same outputs, same layers, any batch; anything that is no plain trace is refused.

The reference is the model itself, or its trace as torch runs it; torch.jit only ever sees files that the test wrote.
"""

from __future__ import annotations

import io
import math
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.formats.torchscript import read_traced
from layerscope.models.safe_form.graph_module import SafeModel, assemble
from layerscope.models.safe_form.tracing import trace
from layerscope.schemas.errors import Refused
from tests.functions.networks import NETWORKS, images, randomise
from tests.models.formats.graph_layers import called, layers
from tests.models.formats.hostile_traces import HOSTILE, LONG, honest_archive, of, returning, rewritten
from tests.soon import soon

pytestmark = pytest.mark.slow

FAMILIES = {
    "resnet18": 64,
    "mobilenet_v3_small": 64,
    "squeezenet1_1": 64,
    "alexnet": 64,
    "vgg11_bn": 32,
    "mobilenet_v2": 64,
    "shufflenet_v2_x0_5": 64,
    "densenet121": 64,
    "googlenet": 96,
    "inception_v3": 96,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "mnasnet0_5": 64,
    "regnet_x_400mf": 64,
    "regnet_y_400mf": 64,
    "resnext50_32x4d": 64,
    "wide_resnet50_2": 64,
    "convnext_tiny": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vit_b_32": 64,
    "maxvit_t": 224,
}
"""One classifier of every family of torchvision, and the size of its images here."""
LARGE = frozenset(
    {"vgg11_bn", "inception_v3", "efficientnet_v2_s", "wide_resnet50_2", "swin_t", "vit_b_32", "maxvit_t"}
)
"""Those that take some seconds more; LAYERSCOPE_ALL_FAMILIES=1 reads them too."""
READ = [name for name in FAMILIES if os.environ.get("LAYERSCOPE_ALL_FAMILIES") or name not in LARGE]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)


def traced(model: nn.Module, x: Tensor, path: Path) -> Any:
    """Trace a model to a file, and return the trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; its files stay
        made = torch.jit.trace(model, x, check_trace=False)
        made.save(str(path))
    return made


def rebuilt(model: Rebuilt) -> SafeModel:
    return assemble(model.graph, model.tensors.__getitem__)


def assert_close(actual: Tensor, expected: Tensor, relative: float = 1e-6) -> None:
    assert actual.shape == expected.shape
    assert expected.isfinite().all()
    assert float((actual - expected).abs().max()) <= relative * max(1.0, float(expected.abs().max()))


# The same model ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_a_trace_computes_what_the_model_does_for_any_batch(name: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()
    traced(model, images(name, 2), tmp_path / "model.pt")

    safe = rebuilt(read_traced(tmp_path / "model.pt"))

    with torch.no_grad():
        for count in (1, 2, 5):
            x = images(name, count)
            assert_close(safe(x), model(x))


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"attention", "plain"}))
def test_layers_are_called_by_the_names_and_in_the_order_of_the_packed_model(name: str, tmp_path: Path) -> None:
    model = randomise(NETWORKS[name]()).eval()
    packed, _ = trace(model)
    traced(model, images(name, 2), tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt").graph

    assert called(read) == called(packed)
    assert {name: layers(read)[name] for name in layers(packed)} == layers(packed)


def test_every_layer_that_a_trace_tells_apart_gets_its_arguments_back(tmp_path: Path) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, (3, 5), stride=(2, 1), padding=(1, 2), padding_mode="circular"),
        nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=2, bias=False),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2),
        nn.InstanceNorm2d(6),
        nn.BatchNorm2d(6, eps=1e-3, affine=False),
        nn.GroupNorm(3, 6, affine=False),
        nn.Hardtanh(-2, 2, inplace=True),
        nn.Upsample(size=(9, 9), mode="bicubic", align_corners=False),
        nn.Upsample(scale_factor=1.5),
        nn.ConstantPad2d((1, 0, 2, -1), 0.5),
        nn.ReplicationPad2d(1),
        nn.AdaptiveAvgPool2d((None, 16)),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.PixelUnshuffle(2),
        nn.CELU(0.7),
        nn.Flatten(),
        nn.LayerNorm(96, bias=False),
        nn.GLU(),
        nn.Threshold(0.1, -1.0),
        nn.Identity(),
        nn.Linear(48, 10, bias=False),
    ).eval()
    x = torch.rand(2, 1, 16, 16)
    packed, _ = trace(model)
    traced(model, x, tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt")

    ours, theirs = layers(read.graph), layers(packed)
    assert ours == {name: theirs[name] for name in ours}
    assert list(ours) == list(theirs)
    assert called(read.graph) == called(packed)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model(x))


def _torchvision(name: str) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name.startswith("vit"):
        options["image_size"] = FAMILIES[name]
    model: nn.Module = models.get_model(name, num_classes=10, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.rand_like(module.weight) * 0.2 - 0.1
            module.running_var = torch.rand_like(module.weight) + 0.5
    return model.eval()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "squeezenet1_1" else pytest.mark.slow) for name in READ]
)
def test_a_traced_torchvision_classifier_computes_what_it_did(name: str, tmp_path: Path) -> None:
    model = _torchvision(name)
    size = FAMILIES[name]
    x = torch.rand(2, 3, size, size)
    original = traced(model, x, tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt")

    safe = rebuilt(read)
    other = torch.rand(3, 3, size, size)
    with torch.no_grad():
        assert_close(safe(x), original(x))
        assert_close(safe(other), model(other), 1e-5)
    weighted = ("Conv2d", "Linear")
    packed, _ = trace(model)
    kinds = {name: kind for name, (kind, _) in layers(packed).items()}
    assert [name for name in called(read.graph) if kinds[name] in weighted] == [
        name for name in called(packed) if kinds[name] in weighted
    ]
    print(f"{name}: {len(called(read.graph))} calls of layers")


# What tracing fixes --------------------------------------------------------------------------------------------------


class Fixed(nn.Module):
    """A shape whose batch is a number by the time torch sees it."""

    def __init__(self, shape: Callable[[Tensor], list[int]], width: int = 108) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.fc = nn.Linear(width, 10)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).view(self.shape(x)))


@pytest.mark.parametrize("shape", [lambda x: [len(x), -1], lambda x: [len(x), 108]], ids=["open", "whole"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_batch_that_was_fixed_by_tracing_is_free_again(
    batch: int, shape: Callable[[Tensor], list[int]], tmp_path: Path
) -> None:
    model = Fixed(shape).eval()
    traced(model, torch.rand(batch, 1, 8, 8), tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt")

    x = torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model(x))
    assert read.notes == (f"The trace was made for batches of {batch}; the model takes any now.",)


def test_a_batch_that_cannot_be_freed_is_refused(tmp_path: Path) -> None:
    traced(Fixed(lambda x: [len(x), 3, -1], 36), torch.rand(4, 1, 8, 8), tmp_path / "model.pt")
    with pytest.raises(Refused) as caught:
        read_traced(tmp_path / "model.pt")
    assert caught.value.code == "fixed-batch"
    assert "[4, 3, -1]" in caught.value.message


@pytest.mark.parametrize(
    "side",
    [
        lambda x: int(x.shape[1] ** 0.5),
        lambda x: int((x.shape[1] * 1.0) ** 0.5),
        lambda x: int(math.sqrt(x.shape[1])),
        lambda x: int(x.shape[1] / 4),
    ],
)
def test_whole_numbers_of_sizes_stay_whole(side: Callable[[Tensor], int], tmp_path: Path) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = x.reshape(x.shape[0], 16, -1)
            x = x.reshape(x.shape[0], side(x), -1, x.shape[2])
            found: Tensor = self.fc(x.mean(3).flatten(1))
            return found

    model = Patches().eval()
    traced(model, torch.rand(2, 1, 8, 8), tmp_path / "model.pt")
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert_close(rebuilt(read_traced(tmp_path / "model.pt"))(x), model(x))


def test_a_frozen_trace_has_no_layers_and_is_refused_with_the_way_to_have_them(tmp_path: Path) -> None:
    model = randomise(NETWORKS["residual"]()).eval()
    made = traced(model, images("residual", 2), tmp_path / "model.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(made).save(str(tmp_path / "frozen.pt"))

    with pytest.raises(Refused, match="has no layers") as caught:
        read_traced(tmp_path / "frozen.pt")

    assert caught.value.code == "frozen-trace" and "torch.jit.trace(" in caught.value.hint
    assert read_traced(tmp_path / "model.pt").graph.weights  # what the hint says leads to


def test_a_model_that_counts_its_calls_is_read_and_one_that_answers_by_them_is_refused(tmp_path: Path) -> None:
    class Counting(nn.Module):
        def __init__(self, answers: bool) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(3))
            self.answers = answers

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            return x * self.calls if self.answers else x * 2

    traced(Counting(False).eval(), torch.rand(2, 3), tmp_path / "model.pt")
    with torch.no_grad():
        assert_close(rebuilt(read_traced(tmp_path / "model.pt"))(torch.ones(4, 3)), torch.full((4, 3), 2.0))
    traced(Counting(True).eval(), torch.rand(2, 3), tmp_path / "model.pt")
    with pytest.raises(Refused) as caught:
        read_traced(tmp_path / "model.pt")
    assert caught.value.code == "changes-itself"


def test_a_trace_made_in_training_is_the_model_in_eval_mode(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout2d(0.4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.drop(self.norm(self.conv(x)))
            return functional.dropout(x, 0.5, self.training).mean((2, 3))

    model = randomise(Net())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    made = traced(model.train(), torch.rand(4, 1, 8, 8), tmp_path / "model.pt")
    made.load_state_dict(before)
    made.save(str(tmp_path / "model.pt"))
    model.load_state_dict(before)

    read = read_traced(tmp_path / "model.pt")

    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model.eval()(x))
    assert "training mode" in read.notes[0]
    assert called(read.graph) == ["conv", "norm", "drop"]


def test_a_layer_of_another_forward_stays_what_it_computes(tmp_path: Path) -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(x, self.weight - self.weight.mean(), self.bias)

    Standardised.__module__, Standardised.__qualname__ = "torch.nn.modules.conv", "Conv2d"
    model = nn.Sequential(Standardised(1, 2, 3), nn.Flatten()).eval()
    traced(model, torch.rand(2, 1, 5, 5), tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt")

    x = torch.rand(3, 1, 5, 5)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model(x))
    assert called(read.graph) == ["1"]


def test_an_identity_whose_input_is_not_told_is_named(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.skip = nn.Conv2d(1, 1, 3, padding=1), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) + self.skip(x)).flatten(1)

    model = Net().eval()
    traced(model, torch.rand(2, 1, 5, 5), tmp_path / "model.pt")

    read = read_traced(tmp_path / "model.pt")

    assert read.notes == ("A trace does not tell what passes through an Identity: skip.",)
    x = torch.rand(3, 1, 5, 5)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model(x))


# Hostile archives ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def honest() -> bytes:
    return honest_archive()


def test_the_honest_archive_is_read_and_rewriting_it_keeps_it(honest: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(rewritten(honest, of("weight = self.weight", "return torch.mul(x, weight)")))
    x = torch.rand(4, 3)
    changed = rebuilt(read_traced(path))
    (tmp_path / "honest.pt").write_bytes(honest)
    with torch.no_grad():
        assert torch.equal(changed(x), rebuilt(read_traced(tmp_path / "honest.pt"))(x))
        assert torch.equal(changed(x), x * changed.weight)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in HOSTILE]
)
def test_a_hostile_archive_is_refused_in_time(name: str, honest: bytes, tmp_path: Path) -> None:
    code, expected = HOSTILE[name]
    path = tmp_path / "model.pt"
    path.write_bytes(honest)
    read_traced(path)  # whatever Python imports when first used is imported now
    path.write_bytes(rewritten(honest, code))

    with soon():
        if not expected:
            read_traced(path)
        else:
            with pytest.raises(Refused) as caught:
                read_traced(path)
            assert caught.value.code == expected
            assert len(caught.value.message) < 400
            assert caught.value.hint


class Around(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x)
        return result


def edited(model: nn.Module, x: Tensor, path: Path, edit: Callable[[str], str]) -> None:
    """Trace a model to a file in which each class has other code."""
    traced(model, x, path)
    made = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                content = old.read(name)
                new.writestr(name, edit(content.decode()) if name.endswith(".py") else content)
    path.write_bytes(made.getvalue())


def test_a_layer_is_not_made_with_arguments_beyond_their_limits(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.LSTM(4, 4, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.inner(x)[0]
            return result

    edited(
        Net().eval(), torch.rand(2, 3, 4), tmp_path / "model.pt", lambda text: text.replace(" 2, 0.", " 999999999, 0.")
    )

    with soon(), pytest.raises(Refused, match="num_layers=999999999"):
        read_traced(tmp_path / "model.pt")


def test_layers_that_differ_are_made_a_few_times_only(tmp_path: Path) -> None:
    def many(text: str) -> str:
        """Give the layer many forwards, each with another number, and call all of them."""
        if "(inner)" in text:
            calls = (f"x = (inner).forward{number}(x, )\n    " for number in range(1_100))
            return text.replace("return (inner).forward(x, )", "".join(calls) + "return x")
        head, _, body = text.partition("  def forward(")
        forwards = (f"  def forward{number}({body.replace('0.25', f'0.{1_000 + number}')}" for number in range(1_100))
        return head + "".join(forwards)

    edited(Around(nn.LayerNorm(3, eps=0.25)).eval(), torch.rand(2, 3), tmp_path / "model.pt", many)

    with soon(), pytest.raises(Refused) as caught:
        read_traced(tmp_path / "model.pt")

    assert caught.value.code == "too-many-modules"


def test_modules_that_hold_each_other_are_refused(honest: bytes, tmp_path: Path) -> None:
    made = io.BytesIO()
    endless = b"\x80\x02c__torch__\nNet\nq\x00)\x81q\x01}q\x02(X\x01\x00\x00\x00aq\x03h\x01ub."
    with zipfile.ZipFile(io.BytesIO(honest)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            code = (
                of("return (self.a).forward(x, )").encode() if name.endswith("/code/__torch__.py") else old.read(name)
            )
            new.writestr(name, endless if name.endswith("/data.pkl") else code)
    (tmp_path / "model.pt").write_bytes(made.getvalue())
    with pytest.raises(Refused) as caught:
        read_traced(tmp_path / "model.pt")
    assert caught.value.code == "bad-code"


def test_an_operator_that_is_not_known_is_named(honest: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(rewritten(honest, returning("torch.fft_fft(x)")))
    with pytest.raises(Refused, match=r"torch\.fft_fft"):
        read_traced(tmp_path / "model.pt")


# Steps of people's own models ---------------------------------------------------------------------------------------


class Stepping(nn.Module):
    """A small network whose last step is given."""

    def __init__(self, step: Any) -> None:
        super().__init__()
        self.conv, self.fc, self.step = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 5), step

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.step(self, x, y, self.fc(y.mean((2, 3))))


def flattened(self: Any, x: Tensor, y: Tensor, scores: Tensor) -> Tensor:
    y, features = y.mean((2, 3), keepdim=True), 1
    for size in y.size()[1:]:
        features *= size
    return self.fc(y.view(-1, features))  # type: ignore[no-any-return]


STEPS: dict[str, Any] = {
    "sizes multiplied in place": flattened,
    "zeros of the batch": lambda self, x, y, scores: torch.cat([scores, torch.zeros(x.shape[0], 2)], 1),
    "whole zeros": lambda self, x, y, scores: scores + torch.zeros(x.size(0), 5, dtype=torch.int64),
    "ones": lambda self, x, y, scores: scores * torch.ones(x.size(0), 1),
    "full": lambda self, x, y, scores: scores + torch.full((x.size(0), 5), 2.5),
    "full of whole numbers": lambda self, x, y, scores: scores + torch.full((x.size(0), 1), 3),
    "zeros of numbers": lambda self, x, y, scores: scores + torch.zeros(5),
    "a range of numbers": lambda self, x, y, scores: scores + torch.arange(5) / 2,
    "a range of a size": lambda self, x, y, scores: scores + (y * torch.arange(x.shape[-1])).sum((1, 2, 3))[:, None],
    "a range between sizes": lambda self, x, y, scores: scores + torch.arange(x.shape[2], x.shape[2] + 5),
    "a range as floats": lambda self, x, y, scores: scores + torch.arange(y.shape[1] + 1, dtype=torch.float32),
    "not": lambda self, x, y, scores: scores * ~(scores > 0),
    "a table of scores": lambda self, x, y, scores: {"features": y.mean((2, 3)), "logits": scores},
    "a row of one": lambda self, x, y, scores: (scores,),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_of_peoples_own_models_are_read_for_any_batch(name: str, tmp_path: Path) -> None:
    model = randomise(Stepping(STEPS[name])).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, torch.rand(2, 3, 6, 7), check_trace=False, strict=False).save(str(tmp_path / "model.pt"))
    safe = rebuilt(read_traced(tmp_path / "model.pt"))
    with torch.no_grad():
        for count in (1, 2, 5):
            x = torch.rand(count, 3, 6, 7)
            expected = model(x)
            expected = expected["logits"] if isinstance(expected, dict) else expected
            assert_close(safe(x), expected[0] if isinstance(expected, tuple) else expected)


class Beginning(nn.Module):
    """An LSTM that is given its zeros, as tutorials do."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(8, 6, 2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        zeros = [torch.zeros(2, x.size(0), 6).to(x.device) for _ in range(2)]
        return self.fc(self.lstm(x[:, 0], tuple(zeros))[0][:, -1])


def test_a_recurrent_layer_that_is_given_zeros_is_that_layer(tmp_path: Path) -> None:
    model = randomise(Beginning()).eval()
    traced(model, torch.rand(2, 1, 8, 8), tmp_path / "model.pt")
    read = read_traced(tmp_path / "model.pt")
    assert [module.kind for module in read.graph.modules if module.arguments is not None] == ["LSTM", "Linear"]
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert_close(rebuilt(read)(x), model(x))


def test_dropout_that_stays_on_in_eval_mode_is_refused_and_of_training_is_told(tmp_path: Path) -> None:
    model = Stepping(lambda self, x, y, scores: functional.dropout(scores))
    traced(model.eval(), torch.rand(2, 3, 6, 7), tmp_path / "model.pt")
    with pytest.raises(Refused, match="random-in-eval"):
        read_traced(tmp_path / "model.pt")
    traced(model.train(), torch.rand(2, 3, 6, 7), tmp_path / "model.pt")
    assert "training mode" in read_traced(tmp_path / "model.pt").notes[0]


@pytest.mark.parametrize(
    "result", ['{"a": x, "b": x}', '{"a": {"b": x}}', '{"a": x for x in x}', "{x: x}", "{x, x}", "{**x}", '[{"a": x}]']
)
def test_a_table_stands_nowhere_else(result: str, honest: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(rewritten(honest, of(f"return {result}")))
    with pytest.raises(Refused) as refused:
        read_traced(tmp_path / "model.pt")
    assert refused.value.code in ("several-outputs", "bad-code", "scripted-model")


def test_a_size_that_was_changed_in_place_is_not_used_as_it_was_before(honest: bytes, tmp_path: Path) -> None:
    lines = ("a = ops.prim.NumToTensor(torch.size(x, 0))", "b = torch.mul_(a, 2)", "return torch.mul(x, int(a))")
    (tmp_path / "model.pt").write_bytes(rewritten(honest, of(*lines)))
    with pytest.raises(Refused, match="changed in place"):
        read_traced(tmp_path / "model.pt")
