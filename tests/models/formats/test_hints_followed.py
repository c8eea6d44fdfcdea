"""Every refusal's hint is followed to its end: by what it says, word for word, a model is admitted, and no way leads elsewhere.

`CASES` has for each code of docs/refusals.md one thing that a user does and that is refused by it. Files that are merely
damaged are those of the hostile corpora: what helps is the model in memory.
"""

from __future__ import annotations

import io
import json
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnx
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from layerscope import packer
from layerscope.models import file_kinds, safe_form
from layerscope.models.formats.pickled import read_bytes, read_pickled
from layerscope.models.safe_form import costs, safetensors_file
from layerscope.schemas.errors import Refused
from layerscope.schemas.identity import KeyRefused, identify
from tests.models.formats import hostile, hostile_onnx, hostile_programs, hostile_traces, kinds
from tests.models.formats.following import Case, Desk, actions, run, ways
from tests.models.formats.onnx_files import exported
from tests.models.test_model_refusals import with_architecture, with_header
from tests.tables.graph_weights import weights
from tests.tables.library_outputs import RECORDED

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parents[3]
DOCUMENTED: Final = re.findall(
    r"`([^`]+)`", "".join(re.findall(r"^\| (`.+?) \|", (ROOT / "docs/refusals.md").read_text(), re.M))
)
CASES: dict[str, list[Case]] = {code: [] for code in DOCUMENTED}
ELSEWHERE: Final = {"no-such-model": "tests/functions/test_admit_lenders.py"}
"""Codes of what admit does with its store, and the tests that follow those hints."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def case(code: str, **more: Any) -> Callable[[Callable[[Desk], None]], Callable[[Desk], None]]:
    def enter(refused: Callable[[Desk], None]) -> Callable[[Desk], None]:
        CASES[code].append(Case(refused, **more))
        return refused

    return enter


def model(made: Callable[[], Any], images: tuple[int, ...] | None = None) -> Callable[[Desk], None]:
    """Return what puts another model on the desk, and images that it takes."""

    def put(desk: Desk) -> None:
        torch.manual_seed(7)
        desk.model = made()
        if images:
            desk.images = torch.rand(images, generator=torch.Generator().manual_seed(1))

    return put


def given(**said: Any) -> Callable[[Desk], None]:
    def put(desk: Desk) -> None:
        for name, value in said.items():
            setattr(desk, name, value)

    return put


def shuffle_net() -> nn.Module:
    return kinds.shuffle_net(3)


class Net(nn.Module):
    """A network for pictures of 28 × 28, with a step that stands in the way."""

    def __init__(self, step: Callable[[Any, Tensor], Any] = lambda self, x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 3)
        self.step = step
        self.register_buffer("count", torch.zeros(1))

    def scores(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Any:
        return self.step(self, self.scores(x))


class Around(nn.Module):
    """A module of the user's own around another."""

    def __init__(self, inner: nn.Module, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.inner = inner
        self.call = call

    def forward(self, images: Tensor) -> Any:
        return self.call(self.inner, images)


def pack(desk: Desk) -> None:
    desk.upload(desk.model)


PLAIN: Final = model(lambda: Net().eval())
"""What a user comes to who leaves out the step, or writes it otherwise."""


# Damaged files -------------------------------------------------------------------------------------------------------


def _file(make: Callable[[], Any]) -> Callable[[Desk], None]:
    return lambda desk: desk.written(made if isinstance(made := make(), bytes) else made.SerializeToString())


def _damaged() -> Iterator[tuple[str, Callable[[Desk], None]]]:
    """Yield one file of each corpus for each code that it has."""
    corpora: tuple[Mapping[str, tuple[Callable[[], Any], str | None]], ...]
    corpora = (hostile.CORPUS, hostile_programs.HOSTILE, hostile_onnx.HOSTILE)
    for make, code in (one for corpus in corpora for one in corpus.values()):
        if code:
            yield code, _file(make)


def _enter_damaged() -> None:
    seen: set[str] = set()
    for code, refused in _damaged():
        if code in DAMAGED and code not in seen:
            seen.add(code)
            CASES[code].append(Case(refused))


DAMAGED: Final = frozenset(
    {"bad-entry-name", "bad-opcode", "bad-pickle", "bad-program", "bad-shape", "bad-tensor", "bad-value", "big-endian"}
    | {"broken-archive", "compressed-entry", "duplicate-entry", "duplicate-key", "duplicate-name", "missing-entry"}
    | {
        "overlapping-entries",
        "pickled-weights",
        "too-deep",
        "too-large",
        "too-many-entries",
        "too-many-nodes",
    }
    | {"too-many-tensors", "too-much-code", "truncated", "undefined-value", "tensor-too-large", "too-many-modules"}
    | {"bad-json", "dtype-mismatch", "shape-mismatch", "computed-weight", "empty-file", "no-single-output"}
)
_enter_damaged()


@case("bad-code")
def _(desk: Desk) -> None:
    desk.written(hostile_traces.rewritten(hostile_traces.honest_archive(), hostile_traces.of("return x0")))


@case("bad-header")
def _(desk: Desk) -> None:
    desk.written(with_header(lambda header: header["__metadata__"].update(other=3)))


@case("bad-offsets")
def _(desk: Desk) -> None:
    desk.written(with_header(lambda header: None) + b"more")


@case("header-too-large")
def _(desk: Desk) -> None:
    raw = b'{"a":1}'.ljust(file_kinds.MAX_HEADER + 1)
    desk.written(struct.pack("<Q", len(raw)) + raw)


@case("not-safetensors")
def _(desk: Desk) -> None:
    if not desk.admitted:
        safetensors_file.read_header(io.BytesIO(bytes(3)), 3)


def _architecture(change: Callable[[Any], object]) -> Callable[[Desk], None]:
    return lambda desk: desk.written(with_architecture(change))


for _code, _change in {
    "bad-structure": lambda found: found.update(more=1),
    "unknown-version": lambda found: found.update(format="layerscope.graph.v9"),
    "undefined-layer": lambda found: found["nodes"][1].update(target="9"),
    "undefined-node": lambda found: found["nodes"][1].update(args=[{"node": 99}]),
    "undefined-tensor": lambda found: found["nodes"].insert(1, {"op": "tensor", "target": "9.weight"}),
    "unknown-operation": lambda found: found["nodes"][1].update(op="jump"),
    "unknown-function": lambda found: found["nodes"].insert(1, {"op": "function", "target": "os.system"}),
    "missing-tensor": lambda found: found["tensors"].append({"name": "x", "kind": "buffer"}),
    "unexpected-tensor": lambda found: found["tensors"].pop(),
}.items():
    CASES[_code].append(Case(_architecture(_change)))


# What it is ----------------------------------------------------------------------------------------------------------


@case("bad-key", words={"aws s3 mv the object to a key such as": lambda desk: desk.saved(kinds.digits())})
def _(desk: Desk) -> None:
    try:
        identify("net.pth")
    except KeyRefused as refused:
        raise Refused(refused.code, str(refused), refused.hint) from refused


def _read_as_safe_form(desk: Desk) -> None:
    """Read as the safe form what is another format, as `layerscope.models.load` may be asked to."""
    if desk.admitted == 0:
        safe_form.load(desk.folder / "file")


def _beginning(code: str, content: bytes) -> None:
    def before(desk: Desk) -> None:
        (desk.folder / "file").write_bytes(content)

    CASES[code].append(Case(_read_as_safe_form, before=before))


_beginning("no-architecture", safetensors.torch.save({"a": torch.ones(2)}))
_beginning("onnx-model", b"\x08\x08\x12\x01a")
_beginning("pickled-model", b"\x80\x02}.")


@case("not-onnx", before=model(kinds.digits))
def _(desk: Desk) -> None:
    desk.written(b"\x08\x01\x12\xd1\x83\x02\n\x00")


class Keras:
    """A model of Keras that can be exported as ONNX."""

    def export(self, path: str, *, format: str) -> None:
        assert format == "onnx"
        exported(kinds.digits(), kinds.images(), Path(path))


@case("keras-model", before=model(Keras))
def _(desk: Desk) -> None:
    with zipfile.ZipFile(desk.folder / "m.keras", "w") as archive:
        for name in ("assets/words.txt", "metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(zipfile.ZipInfo(name), b"{}")
    desk.admit(desk.folder / "m.keras")


for _code, _make in kinds.REFUSED.items():
    if _code in ("exported-program", "not-torch", "not-a-model", "unknown-format", "scripted-model"):
        CASES[_code].append(Case(lambda desk, make=_make: desk.admit(make(desk.folder).path)))


@case("external-data")
def _(desk: Desk) -> None:
    whole = onnx.load(exported(desk.model, desk.images, desk.folder / "exported.bin"))
    onnx.external_data_helper.convert_model_to_external_data(whole, location="weights.bin", size_threshold=0)
    onnx.save(whole, desk.folder / "model.onnx")
    desk.admit(desk.folder / "model.onnx")


@case("tar-era")
def _(desk: Desk) -> None:
    if not desk.admitted:
        read_bytes(memoryview(hostile.CORPUS["a-tar-archive"][0]()))


@case("quantised-model")
def _(desk: Desk) -> None:
    desk.admit(kinds.quantised(desk.folder).path)


@case("no-model")
def _(desk: Desk) -> None:
    desk.admit(kinds.optimiser(desk.folder).path)


@case("own-class", before=PLAIN)
def _(desk: Desk) -> None:
    desk.model.step = len  # what can be pickled
    torch.save(desk.model, desk.folder / "own.pt")
    desk.model.step = Net().step
    desk.admit(desk.folder / "own.pt")


@case("torchscript")
def _(desk: Desk) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(desk.model, desk.images)
    desk.upload(traced)


@case("torchscript")
def _(desk: Desk) -> None:
    read_pickled(kinds.traced(desk.model, desk.folder).path)


# What it belongs to --------------------------------------------------------------------------------------------------


@case("several-models", before=model(shuffle_net))
def _(desk: Desk) -> None:
    desk.saved([desk.model.state_dict(), torchvision.models.squeezenet1_1(num_classes=3).state_dict()])


class Settings:
    """What a training keeps beside its weights, of a class of its own."""


@case("several-models", before=model(shuffle_net))
def _(desk: Desk) -> None:
    other = torchvision.models.squeezenet1_1(num_classes=3).state_dict()
    desk.saved({"student": desk.model.state_dict(), "teacher": other, "settings": Settings()})


@case("several-models")
def _(desk: Desk) -> None:
    desk.saved({"a": desk.model, "b": nn.Sequential(nn.Flatten(), nn.Linear(784, 3))})


def _stored(desk: Desk) -> None:
    """Store a version of the model with its layers."""
    (desk.folder / "stored").mkdir()
    path = desk.folder / "stored" / "lender.safetensors"
    path.write_bytes(safe_form.pack(desk.model))
    desk.lenders, desk.blocks = (("digits/net/0", path),), kinds.BLOCKS


def _state_dict(desk: Desk, **said: Any) -> None:
    """Save the model's state dict, and send it with what is said of it."""
    torch.save(desk.model.state_dict(), desk.folder / "model.pt")
    desk.file = desk.folder / "model.pt"
    replace(desk, **{"lenders": (), "blocks": None, **said}).admit(desk.file)


@case("unknown-architecture", before=_stored)
def _(desk: Desk) -> None:
    _state_dict(desk)


@case("unknown-architecture", before=_stored)
def _(desk: Desk) -> None:
    _state_dict(desk, blocks=b'{"model_type": "vit"}')


@case("unknown-architecture", before=model(shuffle_net))
def _(desk: Desk) -> None:
    _state_dict(desk, architecture="shufflenet_v2_x0_6")


@case("unknown-architecture", before=model(shuffle_net))
def _(desk: Desk) -> None:
    _state_dict(desk, architecture="shufflenet_v2_x0_5+blurred")


@case("unknown-architecture")
def _(desk: Desk) -> None:
    desk.file = desk.folder / "model.pt"
    torch.save(_resnet26d(), desk.file)
    replace(desk, architecture="timm/resnet26dd").admit(desk.file)


def _resnet26d() -> dict[str, Tensor]:
    recorded = json.loads(RECORDED.read_text())["architectures"]["timm/resnet26d"]
    return weights(recorded["shapes"])


@case("architecture-mismatch", before=model(shuffle_net))
def _(desk: Desk) -> None:
    _state_dict(desk, architecture="resnet18")


@case("architecture-mismatch", before=model(shuffle_net))
def _(desk: Desk) -> None:
    _state_dict(desk, architecture="timm/resnet26d")


def small_images() -> nn.Module:
    made = torchvision.models.resnet18(num_classes=3)
    made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return made.eval()  # type: ignore[no-any-return]


@case("ambiguous-architecture", before=model(small_images))
def _(desk: Desk) -> None:
    _state_dict(desk)


def rescaling() -> nn.Module:
    made = torchvision.models.googlenet(num_classes=3, aux_logits=False, transform_input=True, init_weights=False)
    return made.eval()  # type: ignore[no-any-return]


@case("ambiguous-architecture", before=model(rescaling))
def _(desk: Desk) -> None:
    _state_dict(desk)


def other_head() -> nn.Module:
    made = kinds.shuffle_net(3)
    made.fc = nn.Sequential(nn.Linear(1024, 9), nn.Linear(8, 3))  # type: ignore[assignment]
    return made.eval()


@case("unknown-head", before=model(other_head), words={"From Python": model(shuffle_net)})
def _(desk: Desk) -> None:
    _state_dict(desk)


@case("duplicate-tensor", before=model(lambda: torchvision.models.densenet121(num_classes=3).eval()))
def _(desk: Desk) -> None:
    found = desk.model.state_dict()
    name = next(one for one in found if ".norm1." in one)
    found[name.replace("norm1", "norm.1")] = found[name]
    torch.save(found, desk.folder / "model.pt")
    desk.admit(desk.folder / "model.pt")


@case("several-lenders", before=_stored)
def _(desk: Desk) -> None:
    other = desk.folder / "stored" / "other.safetensors"
    other.write_bytes(safe_form.pack(nn.Sequential(*desk.model[:2], nn.GELU(), *desk.model[3:])))
    _state_dict(desk, lenders=(*desk.lenders, ("digits/net/9", other)))


@case("unlike-lender", before=_stored)
def _(desk: Desk) -> None:
    desk.model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    _state_dict(desk, lenders=desk.lenders, like="digits/net/0")


@case("unlike-lender", before=_stored)
def _(desk: Desk) -> None:
    """Send a network that has grown since its stored version; another one that is stored has all its layers."""
    desk.model = nn.Sequential(*desk.model, nn.Linear(10, 10))
    grown = desk.folder / "stored" / "grown.safetensors"
    grown.write_bytes(safe_form.pack(desk.model))
    earlier, desk.lenders = desk.lenders, (("digits/grown/1", grown),)
    _state_dict(desk, lenders=earlier)


# Lists of layers -----------------------------------------------------------------------------------------------------


def _blocks(change: Callable[[list[Any]], Any]) -> Callable[[Desk], None]:
    """Return what sends the model's state dict with a list of layers in which something is changed, until it is mended."""

    def refused(desk: Desk) -> None:
        blocks = json.loads(kinds.BLOCKS)
        if desk.blocks is None:
            blocks = change(blocks) or blocks
        _state_dict(desk, blocks=json.dumps(blocks).encode())

    return refused


for _code, _asks, _change in (
    ("bad-blocks", "Write a list such as", lambda blocks: {"blocks": blocks}),
    ("too-many-blocks", "Describe a smaller network", lambda blocks: blocks * 1_000),
    ("unknown-block", "Known types: ", lambda blocks: blocks[0].update(type="Conv9d")),
    ("unknown-argument", "Arguments of a Conv2d: ", lambda blocks: blocks[0].update(sides=4)),
    ("missing-argument", "Arguments of a Conv2d: ", lambda blocks: [{"type": "Conv2d"}, *blocks[1:]]),
    ("bad-argument", "Arguments of a Conv2d: ", lambda blocks: blocks[0].update(padding="?")),
    ("blocks-mismatch", "List the blocks in the order", lambda blocks: blocks.insert(0, blocks.pop())),
    ("blocks-mismatch", "Add the blocks", lambda blocks: blocks[:-1]),
):
    CASES[_code].append(Case(_blocks(_change), words={_asks: given(blocks=kinds.BLOCKS)}))


@case("bad-json", words={"Write a list such as": given(blocks=kinds.BLOCKS)})
def _(desk: Desk) -> None:
    _state_dict(desk, blocks=desk.blocks or b"[")


@case("blocks-mismatch", before=_stored)
def _(desk: Desk) -> None:
    tensors = {f"layer{name}": tensor for name, tensor in desk.model.state_dict().items()}
    safetensors.torch.save_file(tensors, desk.folder / "model.safetensors")
    desk.lenders = ()
    desk.admit(desk.folder / "model.safetensors")


# What is in it: models in memory -------------------------------------------------------------------------------------


def step(code: str, made: Callable[[Any, Tensor], Any], asks: str) -> None:
    """Enter a model with a step in the way, and what its user comes to who does as the hint asks."""
    CASES[code].append(Case(pack, before=model(lambda: Net(made).eval()), words={asks: PLAIN}))


OTHERWISE: Final = "Write that step of forward with others"
step("unknown-function", lambda self, x: torch.fft.fft(x).real, OTHERWISE)
step("unknown-method", lambda self, x: x.erfinv(), OTHERWISE)
step("unknown-attribute", lambda self, x: x + x.H.mean(), OTHERWISE)
step("bad-argument", lambda self, x: x.clamp(max=float("inf")), OTHERWISE)
step("random-in-eval", lambda self, x: functional.dropout(x), "Leave it out where self.training is False")
step("random-in-eval", lambda self, x: x + torch.randn_like(x), "in a model of a library, put a module of your own")
step("unregistered-module", lambda self, x: nn.ReLU()(x), "Create it in __init__ as self.NAME")
step("not-a-classifier", lambda self, x: x.argmax(1), "whose forward returns the class scores alone")
step("other-results", lambda self, x: x * 2 if type(x) is Tensor else x, OTHERWISE)


class Wasteful(Net):
    """A network that `torch.export` has to follow, and that makes a large tensor of numbers."""

    def forward(self, x: Tensor) -> Any:
        scores = self.scores(x)
        return scores + torch.zeros(2**23)[: scores.shape[1]] if scores.shape[1] == 3 else scores


@case("too-large-constant")
def _(desk: Desk) -> None:
    program = packer.exporting._exported(Wasteful().eval(), (1, 28, 28))
    desk.written(program)


class Picky(Net):
    """A network that branches on the values of the images, which `torch.export` does not follow."""

    def forward(self, x: Tensor) -> Any:
        return self.scores(x) if x.sum() > -1e9 else x


class Peeking(Net):
    """A network that asks where in memory the images lie, which none of those that `torch.export` computes with have."""

    def forward(self, x: Tensor) -> Any:
        return self.scores(x) if x.data_ptr() else x


def exported_by_us(desk: Desk) -> None:
    packer.exporting.pack(desk.model, (1, 28, 28))


CASES["not-exportable"] += [
    Case(exported_by_us, before=model(lambda: Picky().eval()), words={"Compute both ways": PLAIN}),
    Case(exported_by_us, before=model(lambda: Peeking().eval())),
]


class Branching(Net):
    """A network that branches on the size of the images."""

    def forward(self, x: Tensor) -> Any:
        if x.shape[1] != 1:
            raise ValueError("one channel")
        return self.scores(x)


@case("not-traceable", before=model(Branching), words={"neither branch nor loop": PLAIN})
def _(desk: Desk) -> None:
    pack(desk)


@case("wrong-example", before=model(Branching))
def _(desk: Desk) -> None:
    packer.exporting.pack(desk.model, (3, 5, 5))


class Scaled(Net):
    def forward(self, x: Tensor, scale: Any) -> Any:  # type: ignore[override]
        return self.scores(x) * scale


class Defaulted(Net):
    def forward(self, x: Tensor, scale: float = 2.0) -> Any:
        return self.scores(x) * scale


class Starred(Net):
    def forward(self, *inputs: Tensor) -> Any:
        return self.scores(inputs[0])


class Keyed(Net):
    def forward(self, **inputs: Tensor) -> Any:  # type: ignore[override]
        return self.scores(inputs["image"])


class Named(Net):
    def forward(self, batch: Any) -> Any:
        return self.scores(batch["image"])


def around(made: Callable[[], nn.Module], call: Callable[[Any, Tensor], Any]) -> Callable[[Desk], None]:
    return model(lambda: Around(made(), call).eval())


ALONE: Final = "whose forward takes the images alone"
for _code, _made, _words in (
    ("several-inputs", Scaled, {"a default": model(Defaulted), ALONE: around(Scaled, lambda inner, x: inner(x, 2.0))}),
    ("several-inputs", Starred, {"name the images": PLAIN, ALONE: around(Starred, lambda inner, x: inner(x))}),
    ("no-single-input", Keyed, {ALONE: around(Keyed, lambda inner, x: inner(image=x))}),
    ("no-single-input", Named, {ALONE: around(Named, lambda inner, x: inner({"image": x}))}),
):
    CASES[_code].append(Case(pack, model(_made), _words))


def two() -> nn.Module:
    return Net(lambda self, x: (x, x.softmax(1))).eval()


@case(
    "several-outputs",
    before=model(two),
    words={"whose forward returns the class scores alone": around(two, lambda inner, x: inner(x)[0])},
)
def _(desk: Desk) -> None:
    if isinstance(desk.model, Net):
        packer.pack(desk.model, example=desk.images)


@case("not-a-module")
def _(desk: Desk) -> None:
    if not desk.admitted:
        packer.pack(desk.model.state_dict())


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))


def sparse() -> nn.Module:
    made = kinds.digits()
    made[5].weight = nn.Parameter(made[5].weight.detach().to_sparse())  # type: ignore[assignment]
    return made


def eighths() -> nn.Module:
    made = kinds.digits()
    made[5].weight = nn.Parameter(made[5].weight.detach().to(torch.float8_e4m3fn), requires_grad=False)  # type: ignore[assignment]
    return made


def nowhere(desk: Desk) -> None:
    torch.save(kinds.digits().state_dict(), desk.folder / "weights.pt")
    desk.model = kinds.digits().to("meta")


def pruned() -> nn.Module:
    made = kinds.digits()
    prune.random_unstructured(made[0], "weight", 0.5)
    prune.random_unstructured(made[5], "weight", 0.5)
    prune.random_unstructured(made[5], "bias", 0.5)
    return made


def spectral() -> nn.Module:
    made = kinds.digits()
    made[5] = nn.utils.spectral_norm(made[5])
    return made.eval()


def weight_normed() -> nn.Module:
    made = kinds.digits()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made[5] = nn.utils.weight_norm(made[5])
    return made


def parametrized() -> nn.Module:
    made = kinds.digits()
    parametrizations.orthogonal(made[5])
    parametrizations.weight_norm(made[0])
    return made.eval()


def patched() -> nn.Module:
    made = PatchedNet().eval()
    made.forward = made.scores  # type: ignore[method-assign]
    return made


class PatchedNet(Net):
    """A network whose forward may be taken off."""


def _sent_and_saved(code: str, made: Callable[[Desk], None], saved_code: str | None = None) -> None:
    """Enter a model that is refused from Python and, if it can be saved whole, as a file."""
    CASES[code].append(Case(pack, before=made))
    if saved_code is not None:
        CASES[saved_code].append(Case(lambda desk: desk.saved(desk.model), before=made))


_sent_and_saved("not-initialised", model(lazy), "not-initialised")
_sent_and_saved("unknown-dtype", model(sparse), "unread-tensor")
_sent_and_saved("unknown-dtype", model(eighths), "unread-tensor")
_sent_and_saved("unknown-dtype", nowhere, "unread-tensor")
_sent_and_saved("has-hooks", model(pruned), "has-hooks")
_sent_and_saved("has-hooks", model(spectral), "has-hooks")
_sent_and_saved("has-hooks", model(weight_normed))
_sent_and_saved("parametrized", model(parametrized))
_sent_and_saved("patched-forward", model(patched))


@case("not-initialised", before=model(lazy))
def _(desk: Desk) -> None:
    desk.saved(desk.model.state_dict())


def _changed(to: Callable[[Tensor], Tensor]) -> Callable[[Desk], None]:
    def refused(desk: Desk) -> None:
        desk.saved(
            {name: to(tensor) if tensor.dim() > 1 else tensor for name, tensor in desk.model.state_dict().items()}
        )

    return refused


CASES["unread-tensor"].append(Case(_changed(Tensor.to_sparse), before=model(shuffle_net)))
CASES["unread-tensor"].append(Case(_changed(lambda one: one.to(torch.float8_e5m2)), before=model(shuffle_net)))


@case("unknown-dtype")
def _(desk: Desk) -> None:
    tensors = {"weight": torch.ones(2).to(torch.float8_e4m3fn)}
    safetensors.torch.save_file(tensors, desk.folder / "eighths.safetensors")
    desk.admit(desk.folder / "eighths.safetensors")


@case("unknown-dtype")
def _(desk: Desk) -> None:
    desk.saved({"weight": torch.ones(2, dtype=torch.complex64)})


def hooked() -> nn.Module:
    made = kinds.digits()
    made.handle = made[0].register_forward_hook(lambda *_: None)  # type: ignore[assignment]
    return made


@case(
    "has-hooks", before=model(hooked), words={"Call remove() on the handles": lambda desk: desk.model.handle.remove()}
)
def _(desk: Desk) -> None:
    pack(desk)


@case("changed-layer")
def _(desk: Desk) -> None:
    made = kinds.digits()
    made[3].dilation, made[0].transposed = 1, True  # type: ignore[assignment]
    desk.saved(made)


@case("unknown-module", before=model(lambda: nn.ModuleDict({"scores": kinds.digits()})))
def _(desk: Desk) -> None:
    desk.saved(desk.model)


def with_transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(28, 2, 16, batch_first=True)
    return nn.Sequential(
        nn.Flatten(1, 2), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Flatten(), nn.Linear(784, 3)
    ).eval()


@case("unknown-module", before=model(with_transformer))
def _(desk: Desk) -> None:
    desk.saved(desk.model)


@case("bad-name")
def _(desk: Desk) -> None:
    made = kinds.digits()
    made._modules["training"] = made._modules.pop("3")
    desk.saved(made)


# What is in it: traces, programs, ONNX -------------------------------------------------------------------------------


def _traced(desk: Desk) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(desk.model, desk.images, check_trace=False), desk.folder / "traced.pt")
    desk.admit(desk.folder / "traced.pt")


def traced(code: str, made: Callable[[Any, Tensor], Any], asks: str = "From Python") -> None:
    CASES[code].append(Case(_traced, before=model(lambda: Net(made).eval()), words={asks: PLAIN}))


traced("unknown-operator", lambda self, x: x.topk(2).values, OTHERWISE)
traced("random-in-eval", lambda self, x: functional.dropout(x), "Leave it out where self.training is False")
traced("several-outputs", lambda self, x: (x, x + 1), "whose forward returns the class scores alone")
traced("changes-itself", lambda self, x: x + self.count.add_(1))
traced("fixed-batch", lambda self, x: x.reshape(2, 1, -1).flatten(1), "Write the batch as -1 or x.shape[0]")


@case("frozen-trace", before=PLAIN)
def _(desk: Desk) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.trace(desk.model, desk.images)), desk.folder / "frozen.pt")
    desk.admit(desk.folder / "frozen.pt")


@case("depends-on-batch")
def _(desk: Desk) -> None:
    desk.written(hostile_onnx.HOSTILE["one answer for all"][0]().SerializeToString())


@case("cannot-run", before=PLAIN)
def _(desk: Desk) -> None:
    desk.shape = (28, 28, 1)
    found = json.loads(json.dumps({"op": "method", "target": "reshape", "args": [{"node": 0}, 7, 7, 7, 7]}))
    if desk.admitted:
        return
    desk.written(with_architecture(lambda architecture: _into(architecture, found)))


def _into(architecture: Any, node: Any) -> None:
    """Put a step between the images and the first layer."""
    nodes = json.loads(json.dumps(architecture["nodes"]))
    for one in nodes[1:]:
        one["args"] = [{"node": arg["node"] + 1} for arg in one["args"]]
    architecture["nodes"] = [nodes[0], node, *nodes[1:]]


# What it would cost --------------------------------------------------------------------------------------------------


@case("file-too-large")
def _(desk: Desk) -> None:
    path = desk.folder / "large.pt"
    path.write_bytes(b"PK\3\4")
    os.truncate(path, 2**32)
    try:
        desk.admit(path)
    finally:
        path.unlink()


def _limited(**limits: Any) -> Callable[[Desk], None]:
    def refused(desk: Desk) -> None:
        replace(desk, **({"shape": (28, 28, 1)} | limits)).upload(desk.model)

    return refused


def uploaded(desk: Desk) -> None:
    """Upload the model where nothing stands in its way any more: a smaller one, a larger limit, another dataset."""
    desk.upload(desk.model)


CASES["too-much-memory"].append(
    Case(_limited(memory=2**20), words={"ask the operator for larger limits": uploaded, "smaller": uploaded})
)


@case("too-much-computation", words={"smaller": uploaded, "ask the operator": uploaded})
def _(desk: Desk) -> None:
    model = safe_form.build(safe_form.read(safe_form.pack(desk.model)), "meta")
    costs.check(costs.measure(model, (1, 28, 28), 64), costs.CostBudget(2**40, 1000))


@case(
    "input-mismatch",
    words={"Upload it under the dataset that it was trained on": uploaded},
)
def _(desk: Desk) -> None:
    costs.measure(safe_form.build(safe_form.read(safe_form.pack(desk.model)), "meta"), (3, 5, 5), 2)


@case("unknown-cost", words={"Choose by position instead of by value": lambda desk: desk.upload(Net().eval())})
def _(desk: Desk) -> None:
    chosen = Net(lambda self, x: x[x.sum(1) > 0]).eval()
    costs.measure(safe_form.build(safe_form.read(safe_form.pack(chosen)), "meta"), (1, 28, 28), 2)


# Following -----------------------------------------------------------------------------------------------------------


def test_every_code_has_a_hint_that_is_followed() -> None:
    assert sorted(code for code, cases in CASES.items() if not cases and code not in ELSEWHERE) == []
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


def _desk(one: Case, folder: Path) -> Desk:
    folder.mkdir()
    os.chdir(folder)
    desk = Desk(folder)
    if one.before is not None:
        one.before(desk)
    return desk


def _refusal(one: Case, desk: Desk) -> Refused:
    with pytest.raises(Refused) as caught:
        one.refused(desk)
    assert not desk.admitted
    return caught.value


@pytest.mark.parametrize(
    ("code", "one"),
    [pytest.param(code, one, id=f"{code}-{at}") for code, cases in CASES.items() for at, one in enumerate(cases)],
)
def test_each_way_of_a_hint_leads_to_a_model(
    code: str, one: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = _refusal(one, _desk(one, tmp_path / "first"))
    assert refused.code == code, refused
    assert [words for words in one.words if words not in refused.hint] == []
    for number, way in enumerate(ways(refused.hint)):
        desk = _desk(one, tmp_path / f"way{number}")
        assert _refusal(one, desk).hint == refused.hint
        asked = [done for words, done in one.words.items() if words in way]
        for done in asked:
            done(desk)
        sent = [run(action, desk) for action in actions(way)]
        assert asked or sent, f"nothing in this says what to do: {way}"
        if not any(sent) and not desk.admitted:
            one.refused(desk)  # mended, it is no more
        assert desk.admitted, way
