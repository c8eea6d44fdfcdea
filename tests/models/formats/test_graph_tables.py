"""State dicts of timm's and transformers' architectures, without either: what their own models answered is recorded."""

from __future__ import annotations

import argparse
import json
import random
import zipfile
from pathlib import Path
from typing import Any, Final

import pytest
import safetensors.torch
import torch
from torch import Tensor

from layerscope.models import formats, safe_form
from layerscope.models.formats.graph_tables import lookup, stored
from layerscope.models.formats.graph_tables.config_json import config_of
from layerscope.models.formats.rebuilt_model import Rebuilt
from layerscope.models.safe_form.graph_spec import from_json
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Refused
from tests.models.formats.watched import edited
from tests.tables.graph_weights import images, weights
from tests.tables.library_outputs import RECORDED

ARCHITECTURES: Final[dict[str, Any]] = json.loads(RECORDED.read_text())["architectures"]
SMALL: Final = "timm/ghostnet_100"
OURS: Final = "timm/resnetaa50"
"""Has the names and shapes of torchvision's resnet50."""
VIT: Final = "transformers/vit-tiny"


def saved(folder: Path, tensors: dict[str, Any]) -> Path:
    torch.save(tensors, folder / "model.pth")
    return folder / "model.pth"


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in ARCHITECTURES[name]["shapes"].items()}


def answers(rebuilt: Rebuilt, shape: Any) -> Tensor:
    content = safe_form.written(rebuilt.graph, rebuilt.tensors)
    with torch.no_grad():
        found: Tensor = safe_form.build(safe_form.read(content))(images(shape))
    return found


def config(name: str, **changed: Any) -> bytes:
    return json.dumps(ARCHITECTURES[name]["config"] | changed).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_state_dict_computes_what_the_librarys_own_model_does(tmp_path: Path, name: str) -> None:
    recorded = ARCHITECTURES[name]
    path = saved(tmp_path, weights(recorded["shapes"]))
    rebuilt = formats.rebuild(path, architecture=name)
    wanted = torch.tensor(recorded["outputs"])
    found = answers(rebuilt, recorded["input"])
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    # And it is found without its name, or the names to choose from are told
    names = lookup.names_of(shapes_of(name))
    if len(names) == 1 and name != OURS:
        assert formats.rebuild(path).graph == rebuilt.graph
    assert names


def test_the_classes_and_the_channels_are_those_of_the_state_dict(tmp_path: Path) -> None:
    changed = {"classifier.weight": (3, 1280), "classifier.bias": (3,), "conv_stem.weight": (16, 1, 3, 3)}
    rebuilt = formats.rebuild(saved(tmp_path, weights({**shapes_of(SMALL), **changed})))
    assert answers(rebuilt, (1, 64, 64)).shape == (2, 3)
    assert rebuilt.architecture.startswith(f"the layers of {SMALL} with its default settings (timm 1.")


def test_a_checkpoint_of_a_training_is_read_as_well(tmp_path: Path) -> None:
    expected = answers(formats.rebuild(saved(tmp_path, weights(shapes_of(SMALL)))), (3, 64, 64))
    wrapped = {f"module.{name}": tensor for name, tensor in weights(shapes_of(SMALL)).items()}
    rebuilt = formats.rebuild(saved(tmp_path, {"state_dict": wrapped, "epoch": 3}))
    assert rebuilt.training["epoch"] == 3
    assert torch.equal(answers(rebuilt, (3, 64, 64)), expected)


def test_what_torchvision_has_too_is_taken_as_its_own_and_the_others_are_told(tmp_path: Path) -> None:
    path = saved(tmp_path, weights(shapes_of(OURS)))
    rebuilt = formats.rebuild(path)
    assert rebuilt.architecture == "torchvision resnet50"
    (note,) = (one for one in rebuilt.notes if "timm/" in one)
    assert OURS in note and "--architecture timm/resnet" in note
    assert formats.rebuild(path, architecture=OURS).graph != rebuilt.graph


def several() -> dict[str, tuple[int, ...]]:
    """Return the shapes of an architecture that is not the only one of its names and shapes."""
    index = stored.index("timm")
    for digest, names in index.digests.items():
        recorded = [one for one in ARCHITECTURES if one.removeprefix("timm/") in names and one != OURS]
        if len(names) > 1 and recorded and index.places[names[0]].digest == digest:
            return shapes_of(recorded[0])
    pytest.skip("none that is recorded here is one of several")


def test_where_several_have_the_same_names_the_user_chooses_and_the_hint_works(tmp_path: Path) -> None:
    shapes = several()
    path = saved(tmp_path, weights(shapes))
    with pytest.raises(Refused) as refused:
        formats.rebuild(path)
    assert refused.value.code == "ambiguous-architecture"
    assert all(one in refused.value.message for one in lookup.names_of(shapes)[:8])
    chosen = refused.value.hint.rpartition("--architecture ")[2]
    assert formats.rebuild(path, architecture=chosen).architecture.startswith(f"the layers of {chosen} ")


def test_a_name_that_is_unknown_or_another_ones_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, weights(shapes_of(SMALL)))
    with pytest.raises(Refused, match=r"is none of the .* architectures of timm") as refused:
        formats.rebuild(path, architecture="timm/ghostnet_1000")
    assert "timm/ghostnet_100" in refused.value.hint
    with pytest.raises(Refused, match=r"are not those of timm/resnet26d"):
        formats.rebuild(path, architecture="timm/resnet26d")
    with pytest.raises(Refused) as unknown:
        formats.rebuild(saved(tmp_path, weights(shapes_of(SMALL)) | {"another.weight": torch.zeros(3)}))
    assert unknown.value.code == "unknown-architecture"


def test_the_config_of_transformers_is_held_against_what_is_known(tmp_path: Path) -> None:
    path = saved(tmp_path, weights(shapes_of(VIT)))
    rebuilt = formats.rebuild(path, blocks=config(VIT))
    assert rebuilt.graph == formats.rebuild(path, architecture=VIT).graph
    # What decides nothing may differ, what decides outputs not
    assert (
        formats.rebuild(path, blocks=config(VIT, hidden_dropout_prob=0.3, torch_dtype="float16")).graph == rebuilt.graph
    )
    for changed in ({"num_attention_heads": 6}, {"layer_norm_eps": 1e-6}, {"hidden_act": "relu"}):
        with pytest.raises(Refused) as refused:
            formats.rebuild(path, blocks=config(VIT, **changed))
        assert refused.value.code == "architecture-mismatch"
        assert next(iter(changed)) in refused.value.message and "layerscope.upload" in refused.value.hint
    with pytest.raises(Refused, match=r"config\.json") as another:
        formats.rebuild(path, blocks=config("transformers/resnet-18"))
    assert another.value.code == "architecture-mismatch"
    with pytest.raises(Refused, match=r"config\.json says that this is a 'vit'"):
        formats.rebuild(saved(tmp_path, weights({"a.weight": (3, 3)})), blocks=config(VIT))


@pytest.mark.slow
@pytest.mark.parametrize(("library", "most", "fewest"), [("timm", 2 * 2**20, 400), ("transformers", 2**20, 40)])
def test_a_table_is_whole_and_small(library: str, most: int, fewest: int) -> None:
    index = stored.index(library)
    assert stored.path(library).stat().st_size <= most
    assert len(index.places) >= fewest
    with zipfile.ZipFile(stored.path(library)) as file:
        assert file.testzip() is None
        entries = set(file.namelist())
        families = {place.family for place in index.places.values()}
        assert {one for one in entries if one.endswith(".json")} == {stored.INDEX, *(f"{one}.json" for one in families)}
        used = set()
        for family in sorted(families):
            for row in json.loads(file.read(f"{family}.json")):
                graph = from_json(canonical_json(row["graph"]))
                constants = {one.name for one in graph.weights if one.kind == "constant" and one.same_as is None}
                assert row["constants"].keys() == constants
                used |= {entry for _, _, entry in row["constants"].values()}
        assert used == {one for one in entries if one.startswith(stored.TENSORS)}
    for digest, names in index.digests.items():
        assert all(index.places[name].digest == digest for name in names)


@pytest.mark.parametrize("more", [{"mean": (1, 3, 1, 1)}, {"blocks.0.0.extra.weight": (16, 16, 1, 1)}])
def test_a_state_dict_with_more_in_it_is_another_network(more: dict[str, tuple[int, ...]], tmp_path: Path) -> None:
    path = saved(tmp_path, weights({**shapes_of(SMALL), **more}))
    for named in (None, SMALL):
        with pytest.raises(Refused):
            formats.rebuild(path, architecture=named)


HOSTILE_CONFIGS: Final[dict[str, bytes]] = {
    "a list without an end": b"[" * 100_000,
    "lists as deep as Python goes": b"[" * 5_000 + b"]" * 5_000,
    "tables without an end": b'{"a":' * 100_000,
    "tables as deep as Python goes": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "deep beside the kind": b'{"model_type": "vit", "hidden_act": ' + b"[" * 400 + b"]" * 400 + b"}",
    "no number": b'{"model_type": "vit", "hidden_act": NaN}',
    "a number beyond all": b'{"model_type": "vit", "hidden_act": 1e999}',
    "a number of many digits": b'{"model_type": "vit", "hidden_act": ' + b"9" * 5_000 + b"}",
    "a key twice": b'{"model_type": "vit", "model_type": "swin"}',
    "another encoding": '{"model_type": "vit"}'.encode("utf-16"),
    "broken text": b'{"model_type": "\xff"}',
    "half a character": b'{"model_type": "\\ud800", "hidden_act": "\\ud800"}',
    "a table for a word": b'{"model_type": "vit", "hidden_act": {"__class__": ["os.system"]}}',
    "too long": b'{"model_type": "vit", "x": "' + b"x" * 2**21 + b'"}',
    "nothing": b"{}",
    "a number": b"7",
    "no bytes": b"",
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_a_hostile_config_is_refused_with_a_sentence(name: str, tmp_path: Path) -> None:
    path = saved(tmp_path, weights(shapes_of(VIT)))
    with pytest.raises(Refused) as caught:
        formats.rebuild(path, blocks=HOSTILE_CONFIGS[name])
    assert caught.value.message.endswith(".") and caught.value.message.isascii() and caught.value.hint


def test_mutants_of_a_config_are_read_or_refused() -> None:
    honest, shapes = config(VIT), shapes_of(VIT)
    outcomes = {"read": 0, "refused": 0}
    for seed in range(1_000):
        chance = random.Random(seed)
        raw = edited(honest, chance)
        try:
            said = config_of(raw)
            lookup.lender(shapes, None, said)
            lookup.names_of({name: shape for name, shape in shapes.items() if chance.random() < 0.9}, said)
        except Refused:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
    assert min(outcomes.values()) > 50


SAID: Final[list[tuple[dict[str, Any], str]]] = [
    ({"arch": "resnetaa50", "epoch": 9}, OURS),
    ({"args": argparse.Namespace(model="resnetaa50", lr=0.1)}, OURS),
    ({"config": {"model": {"name": "timm/resnetaa50.d_in12k"}}}, OURS),
    ({"arch": "resnet50"}, "torchvision resnet50"),
    ({"args": argparse.Namespace(arch="torchvision.models.resnet50")}, "torchvision resnet50"),
    ({"model_name": "vgg16"}, ""),
    ({"args": {"model": "mine"}}, ""),
    ({"note": "resnetaa50"}, ""),
    ({}, ""),
]
"""What lies beside a state dict in a checkpoint, and what it settles; nothing: torchvision's is taken, with a note."""


@pytest.mark.slow
@pytest.mark.parametrize(("beside", "wanted"), SAID)
def test_where_names_and_shapes_are_those_of_several_the_file_itself_may_tell(
    beside: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    state = weights(shapes_of(OURS))
    rebuilt = formats.rebuild(saved(tmp_path, {"state_dict": state, **beside}))
    notes = " ".join(rebuilt.notes)
    assert (wanted or "torchvision resnet50") in rebuilt.architecture
    assert ("The file calls its model" in notes) == bool(wanted)
    assert ("--architecture timm/resnetaa50" in notes) == (not wanted)
    if wanted == OURS:
        assert formats.rebuild(saved(tmp_path, state), architecture=OURS).graph == rebuilt.graph


@pytest.mark.slow
def test_a_file_that_calls_its_model_by_two_names_is_refused_with_both(tmp_path: Path) -> None:
    path = saved(
        tmp_path, {"state_dict": weights(shapes_of(OURS)), "arch": "resnet50", "args": {"model": "resnetaa50"}}
    )
    with pytest.raises(Refused) as caught:
        formats.rebuild(path)
    assert caught.value.code == "ambiguous-architecture"
    assert "timm/resnet50" in caught.value.message and OURS in caught.value.message
    assert formats.rebuild(path, architecture="resnet50").architecture == "torchvision resnet50"


@pytest.mark.slow
def test_the_metadata_of_safetensors_tell_as_well(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(weights(shapes_of(OURS)), path, {"format": "pt", "architecture": "resnetaa50"})
    assert OURS in formats.rebuild(path).architecture
