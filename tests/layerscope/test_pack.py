"""Packing from the command line: a module and an object in it, by name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from layerscope.models import safe_form
from layerscope.packer import load_object, pack, pack_object
from layerscope.schemas.errors import Refused

SOURCE = """
import torch
from torch import nn

torch.manual_seed(5)
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

def trained():
    return model

class Zoo:
    small = model

class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        if x.shape[1] != 3:
            raise ValueError("three channels")
        return self.fc(self.conv(x).mean((2, 3)))

branching = Branching()

number = 3

def counted():
    return number

def failing():
    raise OSError("no weights here")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder with a module of the user's own; returns the module's name."""
    name = f"my_network_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / "wants_another.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.mark.parametrize("path", ["model", "trained", "Zoo.small"])
def test_a_model_is_found_by_name_or_made_by_calling(project: str, path: str) -> None:
    model = load_object(f"{project}:{path}")

    assert isinstance(model, nn.Sequential)
    batch = torch.rand(2, 1, 4, 4)
    assert torch.equal(safe_form.build(safe_form.read(pack(model)))(batch), model(batch))


@pytest.mark.parametrize("target", ["", "model.pth", "my_module", ":model", "my_module:", "a/b:c", "m:f()", "m:a:b"])
def test_a_target_of_another_form_is_refused_with_an_example(target: str) -> None:
    with pytest.raises(Refused) as caught:
        load_object(target)

    assert caught.value.code == "bad-target"
    assert "layerscope pack my_module:model" in caught.value.hint


def test_a_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        load_object("no_such_module_anywhere.at_all:model")

    assert caught.value.code == "module-not-found"
    assert "no_such_module_anywhere/at_all.py" in caught.value.hint


def test_a_module_that_misses_another_says_which(project: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        load_object("wants_another:model")


def test_an_object_that_is_not_there_is_refused_with_those_that_are(project: str) -> None:
    with pytest.raises(Refused) as caught:
        load_object(f"{project}:net")

    assert caught.value.code == "object-not-found"
    assert "model" in caught.value.hint
    assert "trained" in caught.value.hint


@pytest.mark.parametrize("path", ["number", "counted"])
def test_an_object_that_is_no_model_is_refused(project: str, path: str) -> None:
    with pytest.raises(Refused) as caught:
        load_object(f"{project}:{path}")

    assert caught.value.code == "not-a-module"
    assert "int" in caught.value.message


def test_an_error_in_the_users_own_function_is_left_as_it_is(project: str) -> None:
    with pytest.raises(OSError, match="no weights here"):
        load_object(f"{project}:failing")


def test_on_the_command_line_images_are_said_on_the_command_line(project: str) -> None:
    with pytest.raises(Refused) as caught:
        pack_object(f"{project}:branching")
    assert f"layerscope pack {project}:branching --input 3x224x224" in caught.value.hint
    assert "example=" not in caught.value.hint
    assert pack_object(f"{project}:branching", "3x12x12")
