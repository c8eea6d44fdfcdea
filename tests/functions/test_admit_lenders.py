"""Checkpoints of a network of one's own: one version that has layers lends them to all that have its names and shapes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.admit import lenders
from layerscope.models import safe_form
from layerscope.schemas import keys
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.manifests import UploadRecord
from tests.functions.test_admit import System, running

pytestmark = pytest.mark.slow  # the worker imports torch and torchvision first


class Own(nn.Module):
    """A network whose forward no state dict tells: the same tensors might be used in many ways."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(width), nn.Linear(width, 10)
        self.register_buffer("scale", torch.full((), 3.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x) * self.scale)
        x = self.norm(self.second(x)) + x
        found: Tensor = self.last(x.amax((2, 3)))
        return found


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("system")) as made:
        yield made


def saved(value: Any, path: Path) -> bytes:
    torch.save(value, path)
    return path.read_bytes()


def own(seed: int, width: int = 6) -> Own:
    torch.manual_seed(seed)
    return Own(width).eval()


def packed(system: System, subject: str, network: nn.Module) -> UploadRecord:
    system.tell(system.put(subject, safe_form.pack(network), ".safetensors"))
    return system.record(subject)


def answers(system: System, record: UploadRecord, x: Tensor) -> Tensor:
    assert record.content is not None, record.refusal
    stored = system.store.get(keys.PRODUCTS, keys.blob(record.content))
    with torch.no_grad():
        answer: Tensor = safe_form.build(safe_form.read(stored))(x)
    return answer


def test_after_one_packed_version_twelve_epochs_are_what_torch_computes(system: System, tmp_path: Path) -> None:
    assert packed(system, "thumbnails/own/0", own(0)).state == "admitted"
    x = torch.randn(3, 1, 28, 28)
    for epoch in range(1, 13):
        network = own(epoch)
        record = system.admit(f"thumbnails/own/{epoch}", saved(network.state_dict(), tmp_path / "epoch.pt"))
        assert record.state == "admitted" and record.architecture.startswith("the layers of thumbnails/own/")
        assert any("same names and shapes" in note for note in record.notes)
        with torch.no_grad():
            assert torch.equal(answers(system, record, x), network(x))


def test_strangers_beside_the_network_are_left_out_and_named(system: System, tmp_path: Path) -> None:
    packed(system, "thumbnails/lit/0", own(0))
    network = own(1)
    state = {f"model.{name}": tensor for name, tensor in network.state_dict().items()}
    state |= {"criterion.weight": torch.ones(10), "metric.total": torch.zeros(())}
    checkpoint = {"epoch": 3, "state_dict": state, "pytorch-lightning_version": "2.5.0"}
    record = system.admit("thumbnails/lit/1", saved(checkpoint, tmp_path / "last.ckpt"))
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(answers(system, record, x), network(x))
    assert any("criterion.weight" in note and "metric.total" in note for note in record.notes)


def test_other_shapes_are_no_checkpoint_of_it(system: System, tmp_path: Path) -> None:
    packed(system, "thumbnails/wide/0", own(0))
    record = system.admit("thumbnails/wide/1", saved(own(1, 8).state_dict(), tmp_path / "wide.pt"))
    assert record.refusal is not None and record.refusal.code == "unknown-architecture"


def test_a_version_of_another_model_is_named(system: System, tmp_path: Path) -> None:
    packed(system, "thumbnails/teacher/1", own(0))
    upload = saved(own(5).state_dict(), tmp_path / "student.pt")
    alone = system.admit("thumbnails/student/1", upload)
    assert alone.refusal is not None and alone.refusal.code == "unknown-architecture"

    named = system.admit("thumbnails/student/2", upload, json.dumps("thumbnails/teacher/1").encode())
    assert named.architecture == "the layers of thumbnails/teacher/1"
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(answers(system, named, x), own(5)(x))


@pytest.mark.parametrize(
    ("like", "width", "code"),
    [("thumbnails/nobody/1", 6, "no-such-model"), ("thumbnails/lender/1", 8, "unlike-lender")],
)
def test_a_version_that_cannot_lend_is_told(system: System, tmp_path: Path, like: str, width: int, code: str) -> None:
    packed(system, "thumbnails/lender/1", own(0))
    upload = saved(own(1, width).state_dict(), tmp_path / "model.pt")
    record = system.admit(f"thumbnails/borrower/{width}", upload, json.dumps(like).encode())
    assert record.refusal is not None and record.refusal.code == code
    assert like in record.refusal.message


def test_a_checkpoint_that_came_before_its_layers_is_read_when_it_is_put_again(system: System, tmp_path: Path) -> None:
    upload = saved(own(3).state_dict(), tmp_path / "early.pt")
    assert system.admit("thumbnails/early/1", upload).state == "refused"
    packed(system, "thumbnails/early/0", own(0))
    system.tell("thumbnails/early/1.pt")  # told once more, but not put again
    assert system.record("thumbnails/early/1").state == "refused"
    assert system.admit("thumbnails/early/1", upload).architecture == "the layers of thumbnails/early/0"
    assert system.admit("thumbnails/early/1", upload).state == "admitted"


def test_a_refusal_that_was_told_twice_in_its_second_is_not_read_again(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = system.store.head

    def in_whole_seconds(bucket: str, key: str) -> Any:  # as S3 answers
        found = head(bucket, key)
        return found and replace(found, modified=found.modified.replace(microsecond=0))

    monkeypatch.setattr(system.store, "head", in_whole_seconds)
    first = system.admit("thumbnails/told/1", saved(own(1).state_dict(), tmp_path / "1.pt"))
    system.tell("thumbnails/told/1.pt")
    assert first.state == "refused" and system.record("thumbnails/told/1") == first


def test_a_lender_with_too_much_of_its_own_is_left_as_it_is(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lenders, "MOST_BYTES", 0)
    content = packed(system, "thumbnails/heavy/0", own(0)).content
    assert content is not None
    before = system.store.head(keys.PRODUCTS, keys.blob(content))
    upload = saved(own(1).state_dict(), tmp_path / "1.pt")
    refused = system.admit("thumbnails/heavy/1", upload, b'"thumbnails/heavy/0"').refusal
    assert refused is not None and refused.code == "unlike-lender"
    assert system.store.head(keys.PRODUCTS, keys.blob(content)) == before


def test_layers_that_differ_where_tensors_do_not_are_not_chosen_from(system: System, tmp_path: Path) -> None:
    class Other(Own):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    packed(system, "thumbnails/two/0", own(0))
    packed(system, "thumbnails/two/1", Other().eval())
    upload = saved(own(1).state_dict(), tmp_path / "2.pt")
    refused = system.admit("thumbnails/two/2", upload).refusal
    assert refused is not None and refused.code == "several-lenders" and "--like thumbnails/two/" in refused.hint
    named = system.admit("thumbnails/two/3", upload, b'"thumbnails/two/0"')
    assert named.architecture == "the layers of thumbnails/two/0"


def test_a_damaged_lender_is_passed_over_and_one_that_is_named_is_made_again(system: System, tmp_path: Path) -> None:
    whole, broken = packed(system, "thumbnails/dented/0", own(0)), packed(system, "thumbnails/dented/1", own(1))
    assert whole.content is not None and broken.content is not None
    system.store.put(keys.PRODUCTS, keys.blob(broken.content), b'\x10\0\0\0\0\0\0\0{"not": whole}..')
    upload = saved(own(2).state_dict(), tmp_path / "2.pt")
    assert system.admit("thumbnails/dented/2", upload).architecture == "the layers of thumbnails/dented/0"
    with pytest.raises(Unavailable, match="is damaged"):
        system.admit("thumbnails/dented/3", upload, b'"thumbnails/dented/1"')
    there = system.store.head(keys.PRODUCTS, keys.blob(broken.content))
    assert there is not None and there.size == 0


def test_refused_versions_hide_no_lender(system: System, tmp_path: Path) -> None:
    packed(system, "thumbnails/hidden/0", own(0))
    for number in range(1, 12):
        record = system.admit(f"thumbnails/hidden/{number}", saved({"x": torch.ones(number)}, tmp_path / "x.pt"))
        assert record.state == "refused"
    record = system.admit("thumbnails/hidden/12", saved(own(1).state_dict(), tmp_path / "12.pt"))
    assert record.architecture == "the layers of thumbnails/hidden/0"


def test_counters_that_torch_once_did_not_store_may_be_missing(system: System, tmp_path: Path) -> None:
    packed(system, "thumbnails/older/0", own(0))
    state = {name: one for name, one in own(1).state_dict().items() if "num_batches" not in name}
    record = system.admit("thumbnails/older/1", saved(state, tmp_path / "1.pt"))
    x = torch.randn(2, 1, 28, 28)
    with torch.no_grad():
        assert torch.equal(answers(system, record, x), own(1)(x))


def test_tied_tensors_that_came_apart_are_another_network(system: System, tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(10, 10), nn.Linear(10, 10)
            self.two.weight = self.one.weight
            self.begin = nn.Conv2d(1, 10, 3)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.two(torch.relu(self.one(self.begin(x).mean((2, 3)))))
            return found

    packed(system, "thumbnails/tied/0", Tied().eval())
    tied, apart = Tied().state_dict(), Tied().state_dict()
    apart["two.weight"] = apart["two.weight"] + 1
    assert system.admit("thumbnails/tied/1", saved(tied, tmp_path / "1.pt")).state == "admitted"
    refused = system.admit("thumbnails/tied/2", saved(apart, tmp_path / "2.pt")).refusal
    assert refused is not None and refused.code == "unknown-architecture"


def test_a_model_that_can_never_run_is_refused_and_one_for_other_images_is_not(system: System, tmp_path: Path) -> None:
    class Misfit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(5, 10)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(self.conv(x).mean((2, 3)))  # 4 features for a layer of 5
            return found

    graph, tensors = safe_form.trace(Misfit())
    system.tell(system.put("thumbnails/misfit/1", safe_form.written(graph, tensors), ".safetensors"))
    refused = system.record("thumbnails/misfit/1").refusal
    assert refused is not None and refused.code == "cannot-run" and "(1, 28, 28)" in refused.message

    larger = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 30 * 30, 10))
    assert packed(system, "thumbnails/larger/1", larger).state == "admitted"


@pytest.mark.parametrize("dataset", ["thumbnails", "nobody-knows"])
def test_a_size_that_was_only_tried_is_no_reason_to_refuse(system: System, dataset: str) -> None:
    class Strips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(16 * 16, 10)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(nn.functional.max_pool2d(self.conv(x), 2).reshape(-1, 256))
            return found  # for 8 x 8 images; of others it makes several rows each

    class Far(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.fc(self.conv(x).select(2, 60).mean(2))
            return found  # for images of 61 rows at least

    assert packed(system, f"{dataset}/strips/1", Strips()).state == "admitted"
    assert packed(system, f"{dataset}/far/1", Far()).state == "admitted"


def test_answers_without_scores_are_refused(system: System) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(784, 10)

        def forward(self, x: Tensor) -> Any:
            return self.fc(x.flatten(1)).argmax(1)

    system.tell(system.put("thumbnails/argmax/1", safe_form.written(*safe_form.trace(Last())), ".safetensors"))
    record = system.record("thumbnails/argmax/1")
    assert record.refusal is not None and record.refusal.code == "not-a-classifier"


def test_nothing_is_admitted_before_it_has_run(system: System) -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(7, 7, 7, 7)

    tall = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(997 * 3, 2))  # for 5 x 999 pixels alone
    for name, model in (("never", Never()), ("tall", tall)):
        content = safe_form.written(*safe_form.trace(model))
        system.tell(system.put(f"nobody-knows/{name}/1", content, ".safetensors"))
        refused = system.record(f"nobody-knows/{name}/1").refusal
        assert refused is not None and refused.code == "cannot-run" and "--input" in refused.hint
        for number, said in enumerate((b'"1x5x999"\n', b"1x5x998", b'"many"'), 2):  # what the hint says, and otherwise
            subject = f"nobody-knows/{name}/{number}"
            system.put(subject, said, ".input.json")
            system.tell(system.put(subject, content, ".safetensors"))
            record = system.record(subject)
            assert (record.state == "admitted") == (name == "tall" and number == 2)
            if record.refusal is not None:
                assert record.refusal.code == ("bad-shape" if number == 4 else "cannot-run")


def test_an_exported_program_is_run_on_images_of_its_own_size(system: System, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 31, 10)).eval()
    program = torch.export.export(model, (torch.rand(2, 3, 16, 33),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, tmp_path / "wide.pt2")
    system.tell(system.put("nobody-knows/wide/1", (tmp_path / "wide.pt2").read_bytes(), ".pt2"))
    record = system.record("nobody-knows/wide/1")
    assert record.state == "admitted"
    x = torch.rand(4, 3, 16, 33)
    with torch.no_grad():
        assert torch.allclose(answers(system, record, x), model(x), atol=1e-6)
