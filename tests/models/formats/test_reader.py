"""The reader of pickled models: honest files bit for bit as torch reads them, hostile ones refused or inert, at once."""

from __future__ import annotations

import argparse
import collections
import io
import json
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerscope.models import formats
from layerscope.models.formats.filling import in_place
from layerscope.models.formats.pickle_values import BuiltObject, Global, StoredTensor
from layerscope.models.formats.pickled import Saved, read_pickled
from layerscope.models.formats.pickled.archive import Archive
from layerscope.schemas.errors import Refused
from tests.models.formats.hostile import CORPUS

ROOT = Path(__file__).parents[3]
LEGACY = {"_use_new_zipfile_serialization": False}
FORMS = pytest.mark.parametrize("form", [{}, LEGACY], ids=["zip", "legacy"])
MUTANTS = int(os.environ.get("LAYERSCOPE_MUTANTS", "0"))
Form = dict[str, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"),
        nn.Sequential(nn.BatchNorm2d(4), nn.GELU()),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def checkpoint() -> dict[str, Any]:
    model = network()
    optimiser = torch.optim.Adam(model.parameters())
    model(torch.randn(2, 1, 4, 4)).sum().backward()
    optimiser.step()
    return {"epoch": 3, "loss": 0.25, "model": model.state_dict(), "optimizer": optimiser.state_dict(), "done": None}


def saved(folder: Path, value: object, **form: Any) -> Path:
    path = folder / "model.pt"
    torch.save(value, path, **form)
    return path


def read(folder: Path, value: object, **form: Any) -> Saved:
    found = read_pickled(saved(folder, value, **form))
    assert found.container == ("legacy" if form.get("_use_new_zipfile_serialization") is False else "zip")
    return found


def assert_same(ours: Any, theirs: Any) -> None:
    """Check that `ours` says of each tensor, bit for bit, and of each number what torch's own reading says."""
    if isinstance(theirs, Tensor):
        assert isinstance(ours, StoredTensor)
        assert ours.shape == tuple(theirs.shape)
        assert ours.requires_grad == theirs.requires_grad
        assert ours.parameter == isinstance(theirs, nn.Parameter)
        assert ours.strides == theirs.stride()
        bits = theirs.detach().view(torch.uint16) if theirs.dtype == torch.bfloat16 else theirs.detach()
        assert ours.array.dtype == bits.numpy().dtype
        assert ours.array.tobytes() == bits.numpy().tobytes()
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs
        assert type(ours) is type(theirs)


# Honest files --------------------------------------------------------------------------------------------------------


@FORMS
def test_a_state_dict_is_read_as_torch_reads_it(tmp_path: Path, form: Form) -> None:
    found = read(tmp_path, network().state_dict(), **form)
    assert_same(found.root, torch.load(tmp_path / "model.pt", weights_only=True))
    assert found.foreign == ()


@FORMS
def test_a_checkpoint_is_read_as_torch_reads_it(tmp_path: Path, form: Form) -> None:
    found = read(tmp_path, checkpoint(), **form)
    assert_same(found.root, torch.load(tmp_path / "model.pt", weights_only=True))
    assert len(found.root["optimizer"]["state"]) == 6


@FORMS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, form: Form, protocol: int) -> None:
    value = {"weights": network().state_dict(), "set": {1, 2}, "frozen": [frozenset({"a"})], "bytes": b"\0\xff" * 200}
    value |= {"long": 2**70, "negative": -(2**40), "text": "Ä€𝄞" * 100, "tuple": (1, 2.5, (True, None), ())}
    found = read(tmp_path, value, pickle_protocol=protocol, **form)
    # set and frozenset are not among what torch reads in this mode
    theirs = torch.load(tmp_path / "model.pt", weights_only=False)
    assert_same(found.root, theirs)


@FORMS
def test_every_dtype_and_layout_is_read_bit_for_bit(tmp_path: Path, form: Form) -> None:
    whole = torch.arange(24.0).reshape(4, 6)
    value = {str(dtype): whole.to(dtype) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)}
    value |= {str(dtype): whole.to(dtype) for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)}
    value |= {"bool": whole > 5, "scalar": torch.tensor(2.5), "nothing": torch.empty(0, 3), "transposed": whole.T}
    value |= {"part": whole[1:3, ::2], "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
    value |= {
        "expanded": torch.tensor([1.0, 2.0]).expand(5, 2),
        "nan": torch.tensor([float("nan"), float("-inf"), -0.0]),
    }
    value |= {"parameter": nn.Parameter(whole), "frozen": nn.Parameter(whole, requires_grad=False)}
    value |= {"grad": torch.ones(2, requires_grad=True)}
    found = read(tmp_path, value, **form)
    assert_same(found.root, torch.load(tmp_path / "model.pt", weights_only=True))


@FORMS
def test_tied_tensors_share_storage_offset_shape_and_strides(tmp_path: Path, form: Form) -> None:
    weight = torch.randn(3, 4)
    found = read(tmp_path, {"a": weight, "b": weight.view(3, 4), "c": weight[1:]}, **form).root
    place = [(tensor.storage, tensor.offset, tensor.shape, tensor.strides) for tensor in found.values()]
    assert place[0] == place[1] != place[2]
    assert place[0][0] == place[2][0]


@FORMS
def test_a_whole_model_is_records_with_names_states_and_parameters(tmp_path: Path, form: Form) -> None:
    model = network()
    root = read(tmp_path, model, **form).root
    assert root.type == Global("torch.nn.modules.container", "Sequential")
    assert list(root.state["_modules"]) == ["0", "1", "2", "3", "4"]
    convolution = root.state["_modules"]["0"]
    assert convolution.type.dotted == "torch.nn.modules.conv.Conv2d"
    assert convolution.state["padding"] == "same"
    assert_same(convolution.state["_parameters"]["weight"], model[0].weight)
    nested = root.state["_modules"]["1"].state["_modules"]["0"]
    assert_same(nested.state["_buffers"]["running_var"], model[1][0].running_var)


class OwnNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = network()


@FORMS
def test_objects_of_own_classes_are_named_and_inert(tmp_path: Path, form: Form) -> None:
    options = argparse.Namespace(rate=0.1)
    found = read(
        tmp_path, {"model": OwnNetwork(), "options": options, "best": np.float64(0.5), "path": Path("x")}, **form
    )
    own = f"{OwnNetwork.__module__}.OwnNetwork"
    assert {own, "argparse.Namespace"} < set(found.foreign)
    assert found.root["model"].type.dotted == own
    assert isinstance(found.root["options"], BuiltObject)
    assert found.root["options"].state == {"rate": 0.1}
    assert isinstance(found.root["best"], BuiltObject)


@FORMS
def test_plain_types_of_python_and_torch_become_plain_data(tmp_path: Path, form: Form) -> None:
    value = {
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, b=[2]),
        "counter": collections.Counter("abb"),
        "deque": collections.deque([1, 2], 5),
        "bytes": b"\0\x80\xff",
        "bytearray": bytearray(b"xyz"),
        "size": torch.Size([2, 3]),
        "cpu": torch.device("cpu"),
        "cuda": torch.device("cuda", 1),
        "dtype": torch.float32,
    }
    found = read(tmp_path, value, **form)
    assert found.root == {
        "ordered": {"a": 1},
        "default": {"b": [2]},
        "counter": {"a": 1, "b": 2},
        "deque": [1, 2],
        "bytes": b"\0\x80\xff",
        "bytearray": b"xyz",
        "size": (2, 3),
        "cpu": "cpu",
        "cuda": "cuda:1",
        "dtype": Global("torch", "float32"),
    }


@FORMS
def test_marks_on_parameters_are_dropped(tmp_path: Path, form: Form) -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.no_decay = True  # type: ignore[attr-defined]
    plain = torch.zeros(3)
    plain.mark = "x"  # type: ignore[attr-defined]
    found = read(tmp_path, {"weight": weight, "plain": plain}, **form)
    assert found.root["weight"].parameter
    assert found.root["plain"].shape == (3,)
    assert found.foreign == ()


def test_a_tensor_is_the_mapped_file_and_what_is_written_there_nobody_else_sees(tmp_path: Path) -> None:
    array = read(tmp_path, {"weight": torch.ones(1000)}).root["weight"].array
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    assert not array.flags.owndata
    array[:] = 2
    assert file.read_bytes() == before


@FORMS
def test_quantised_complex_and_sparse_tensors_are_not_taken(tmp_path: Path, form: Form) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch warns of it, once
        quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    for tensor, code in ((quantised, "quantised-model"), (torch.ones(2, dtype=torch.complex64), "unknown-dtype")):
        with pytest.raises(Refused) as refused:
            read(tmp_path, {"weight": tensor}, **form)
        assert refused.value.code == code
    sparse = read(tmp_path, {"weight": torch.eye(3).to_sparse()}, **form)
    assert isinstance(sparse.root["weight"], BuiltObject)
    assert "torch._utils._rebuild_sparse_tensor" in sparse.foreign


def test_python_rezipping_without_compression_is_the_same_model(tmp_path: Path) -> None:
    path = saved(tmp_path, network().state_dict())
    again = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(again, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    (tmp_path / "again.pt").write_bytes(again.getvalue())
    assert_same(read_pickled(tmp_path / "again.pt").root, torch.load(path, weights_only=True))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("traced")
    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.save(torch.jit.trace(network().eval(), torch.zeros(1, 1, 4, 4)), folder / "traced.pt")
    yield folder


def test_the_pickles_and_code_of_torchscript_are_read_as_records_and_text(traced: Path) -> None:
    archive = Archive.open(traced / "traced.pt")
    assert archive.is_torchscript
    root = archive.pickle("data.pkl")
    assert root.type.module.startswith("__torch__.torch.nn.modules.container")
    assert_same(root.state["0"].state["bias"], network()[0].bias.detach().requires_grad_())
    assert archive.pickle("constants.pkl") == ()
    # torch mangles the name of a class that was scripted before in this process: flatten/___torch_mangle_0.py.
    (code,) = (
        name
        for name in archive.names
        if name.startswith("code/__torch__/torch/nn/modules/flatten") and name.endswith(".py")
    )
    assert "def forward" in archive.text(code)
    with pytest.raises(Refused, match="torchscript"):
        read_pickled(traced / "traced.pt")


def test_a_deflated_text_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    from tests.models.formats.hostile import Record as Zipped
    from tests.models.formats.hostile import zip_of

    for size in (10, 2**22, 2**31):
        path = tmp_path / "bomb.pt"
        path.write_bytes(zip_of(Zipped("a/code/bomb.py", bytes(2**24), 8, size=size)))
        with pytest.raises(Refused, match=r"broken-archive|too-large"):
            Archive.open(path).text("code/bomb.py")


def test_the_reader_imports_neither_torch_nor_an_unpickler() -> None:
    script = (
        "import sys, layerscope.models.formats.pickled; assert 'torch' not in sys.modules; "
        "import ast, pathlib; root = pathlib.Path('models/formats'); "
        "names = ['pickle_values', *(f'pickled/{n}' for n in 'opcodes machine calls tensors archive legacy reader'.split())]; "
        "found = [a.name for n in names for node in ast.walk(ast.parse((root / f'{n}.py').read_text())) "
        "if isinstance(node, ast.Import) for a in node.names]; "
        "assert not {'pickle', 'torch', 'importlib', 'zipfile'} & set(found), found"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=60, check=True)


def test_the_reader_is_small_enough_to_audit() -> None:
    folder = ROOT / "models/formats"
    assert sum(code_lines(path) for path in (folder / "pickle_values.py", *folder.glob("pickled/*.py"))) <= 830


def code_lines(path: Path) -> int:
    """Count the lines that hold code: no blank lines, comments or docstrings."""
    import ast
    import tokenize

    source = path.read_text()
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {k for token in tokens if token.type not in skipped for k in range(token.start[0], token.end[0] + 1)}
    texts = [
        range(node.lineno, (node.end_lineno or 0) + 1)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return len(lines - {k for text in texts for k in text})


# Hostile files -------------------------------------------------------------------------------------------------------


def watched(*arguments: object, timeout: float = 280) -> list[Any]:
    command = [sys.executable, "-m", "tests.models.formats.watched", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def read_corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("corpus")
    for name, (make, _) in CORPUS.items():
        (folder / f"{name}.pt").write_bytes(make())
    return {found["name"]: found for found in watched("corpus", folder)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_is_refused_or_inert_and_does_nothing(read_corpus: dict[str, Any], name: str) -> None:
    found, code = read_corpus[name], CORPUS[name][1]
    assert found["violations"] == []
    assert found["seconds"] < 3
    assert found["mebibytes"] < 512
    if code is None:
        assert found["outcome"] == "read", found
        assert name in HARMLESS or found["foreign"]
    else:
        assert found["outcome"] == "refused", found
        assert found["code"] in code.split("|")
        assert found["message"].endswith(".")
        assert found["hint"]


HARMLESS = {"a-module-in-itself", "linear-of-200000-squared", "tensor-by-size"}
"""Nothing but torch's own layers and tensors is named in these."""


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 40


def test_the_audit_hook_fires_for_all_that_a_payload_could_do() -> None:
    (fired,) = watched("fire")
    silent = [act for act, violations in fired.items() if not violations]
    assert silent == []
    assert any("os.getpid" in text or "pickle.find_class" in text for text in fired["pickle"])


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest")
    value: dict[str, Any] = {"whole": network(), "state": network().state_dict(), "checkpoint": checkpoint()}
    value["tied"] = {"a": network()[0].weight, "size": torch.Size([1]), "set": {1}, "bool": torch.tensor([True])}
    for name, content in value.items():
        torch.save(content, folder / f"{name}.zip.pt")
        torch.save(content, folder / f"{name}.legacy.pt", **LEGACY)
        torch.save(content, folder / f"{name}.4.pt", pickle_protocol=4)
    return folder


def test_honest_files_are_read_with_nothing_but_opening_and_mapping_them(honest: Path) -> None:
    for found in watched("corpus", honest):
        assert found["outcome"] == "read"
        assert found["tensors"] > 0
        assert found["violations"] == []


def test_the_pickles_of_torchscript_are_inert(traced: Path, tmp_path: Path) -> None:
    (found,) = watched("torchscript", traced)
    assert (found["outcome"], found["violations"]) == ("read", [])
    for name, (make, _) in CORPUS.items():
        if name.startswith("torchscript"):
            (tmp_path / f"{name}.pt").write_bytes(make())
    hostile = watched("torchscript", tmp_path)
    assert [(found["outcome"], found["violations"]) for found in hostile] == [("read", [])] * 2


def check_mutants(folder: Path, count: int, timeout: float) -> dict[str, Any]:
    (found,) = watched("mutants", folder, count, timeout=timeout)
    assert found["bad"] == []
    assert found["seconds"] < 3
    assert found["mebibytes"] < 512
    assert sum(found["outcomes"].values()) == count
    assert found["outcomes"]["read"] > count / 100  # else the mutants never come past the door
    return dict(found)


@pytest.mark.slow
def test_five_thousand_mutants_are_read_or_refused(honest: Path) -> None:
    found = check_mutants(honest, 5_000, timeout=280)
    assert len(found["outcomes"]) > 10


@pytest.mark.slow
@pytest.mark.skipif(not MUTANTS, reason="LAYERSCOPE_MUTANTS says how many; 100000 take some minutes")
@pytest.mark.timeout(3600)
def test_many_more_mutants_are_read_or_refused(honest: Path) -> None:
    print(check_mutants(honest, MUTANTS, timeout=3500))


def test_mutants_of_a_length_reach_every_field_of_the_zip64_end(tmp_path: Path) -> None:
    whole = saved(tmp_path, {"weight": torch.ones(3)}).read_bytes()
    path = tmp_path / "changed.pt"
    for place in range(len(whole) - 98, len(whole)):
        path.write_bytes(whole[:place] + struct.pack("B", whole[place] ^ 0xFF) + whole[place + 1 :])
        if place in range(len(whole) - 98 + 12, len(whole) - 98 + 16):  # who wrote it, and what it takes to read
            read_pickled(path)
            continue
        with pytest.raises(Refused):
            read_pickled(path)


def test_as_many_numbers_as_people_have_are_read_as_keys(tmp_path: Path) -> None:
    names = {k: f"class {k}" for k in range(21_843)}  # as those of ImageNet-21k
    states = {id(tmp_path) + 80 * k: {"step": k} for k in range(3_000)}  # as an optimiser of torch 1.5 has them
    assert read(tmp_path, {"names": names, "state": states}).root == {"names": names, "state": states}


def test_a_model_is_not_changed_by_what_becomes_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)}, file)
    blocks = b'[{"type": "Linear", "in_features": 4, "out_features": 3}]'
    kept = formats.rebuild(file, blocks=blocks)
    with in_place():
        shown = formats.rebuild(file, blocks=blocks)
    torch.save({"0.weight": torch.zeros(3, 4), "0.bias": torch.zeros(3)}, file)
    assert all(bool((one == 1).all()) for one in kept.tensors.values())
    assert kept.tensors.keys() == shown.tensors.keys()
