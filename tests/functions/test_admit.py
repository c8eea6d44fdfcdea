"""Admit: what an upload came to, of what its file says and of what its user says of it, beside it and later."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.events.cloudevent import CloudEvent, compose
from layerscope.events.memory import MemoryLog
from layerscope.functions.admit.func import Admit
from layerscope.functions.runtime.asgi import EventFunction
from layerscope.functions.runtime.services import Limits, Services, new_worker
from layerscope.functions.runtime.worker_pool import WorkerPool
from layerscope.functions.training_history.func import new as new_history
from layerscope.models import safe_form
from layerscope.models.sandbox import landlock
from layerscope.schemas import keys
from layerscope.schemas.errors import Ignored, WorkFailed
from layerscope.schemas.events import ModelAdmitted, ModelUploaded, ProductRequested
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import UploadRecord
from layerscope.schemas.products.training_history import TrainingHistory
from layerscope.stores import datasets, product_store, uploads
from layerscope.stores.cache import MemoryCache
from layerscope.stores.datasets import PartArrays
from tests.models import confined
from tests.models.formats import kinds
from tests.models.formats.kinds import REFUSED, Upload
from tests.stores.described_store import DescribedStore
from tests.stores.exact_vector_store import NumpyStore

pytestmark = pytest.mark.slow  # the worker imports torch and torchvision first

F = TypeVar("F", bound=EventFunction)
SMALL_MEMORY = 24
"""MiB: enough for 64 pictures of 28 × 28, not for as many of 224 × 224."""


class System:
    """A bucket and the functions that look at its uploads, with one worker among them."""

    def __init__(self, directory: Path, runner: asyncio.Runner, workers: WorkerPool) -> None:
        self.directory = directory
        self.runner = runner
        self.store = DescribedStore(directory)
        self.store.ensure_buckets()
        self._services = Services(
            self.store,
            NumpyStore(),
            MemoryCache(),
            MemoryLog(),
            directory / ".scratch",
            workers=workers,
            reading_workers=workers,
        )
        self.admitting = self.attached(Admit())
        self.history = self.attached(new_history())
        for name, size in (("thumbnails", 28), ("photos", 224)):
            part = PartArrays(np.zeros((4, size, size, 1), np.uint8), np.arange(4, dtype=np.int64))
            datasets.write(self.store, name, tuple("0123456789"), {"test": part, "probe": part})

    def attached(self, function: F, memory_mb: int = 8_192, *, shared: bool = True) -> F:
        services = dataclasses.replace(self._services, limits=Limits(60, memory_mb, "cpu"))
        if not shared:
            services = dataclasses.replace(services, workers=None, reading_workers=None)

        async def attach() -> None:
            function.attach(services)

        self.runner.run(attach())
        return function

    def put(self, subject: str, upload: Upload | bytes, ending: str = ".pt") -> str:
        content = upload if isinstance(upload, bytes) else upload.path.read_bytes()
        self.store.put(keys.MODELS, subject + ending, content)
        return subject + ending

    def tell(self, key: str, by: Admit | None = None, *, is_missing: bool = False) -> CloudEvent:
        """Tell admit of an object, as announce does (`is_missing`: as repair does), and return its answer."""
        subject, origin = key.rpartition("/")[0] + "/1", "missing" if is_missing else "notification"
        uploaded = ModelUploaded.model_validate({"bucket": keys.MODELS, "key": key, "etag": "e", "origin": origin})
        event = compose(uploaded, source="/tests", subject=subject)
        return self.runner.run((by or self.admitting).respond(event))

    def record(self, subject: str) -> UploadRecord:
        upload = uploads.current(self.store, Identity.parse(subject))
        assert upload is not None
        found = uploads.record(self.store, upload)
        assert found is not None
        return found

    def admit(self, subject: str, upload: Upload | bytes, beside: bytes | None = None) -> UploadRecord:
        key = self.put(subject, upload)
        if beside is not None:
            self.put(subject, beside, ".architecture.json")
        self.tell(key)
        return self.record(subject)


@contextmanager
def running(directory: Path) -> Iterator[System]:
    """Yield a system with a worker that reads uploads, until it is left."""
    torch.set_num_threads(1)
    with asyncio.Runner() as runner:
        limits, scratch = Limits(60, 8_192, "cpu"), directory / ".scratch"
        made = System(directory, runner, WorkerPool(1, lambda: new_worker(limits, scratch)))
        yield made
        for function in (made.admitting, made.history):
            function.stop()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("system")) as made:
        yield made


def test_a_state_dict_is_admitted_with_the_blocks_beside_it(system: System, tmp_path: Path) -> None:
    network = kinds.digits()
    record = system.admit("digits/blocks/1", kinds.state_dict(network, tmp_path), kinds.BLOCKS)
    assert record.state == "admitted"
    assert record.architecture == "the blocks given with it"
    assert record.content is not None
    stored = system.store.get(keys.PRODUCTS, keys.blob(record.content))
    assert stored == safe_form.pack(network)
    assert record.content_size == len(stored)


def test_a_state_dict_is_admitted_with_the_name_beside_it(system: System, tmp_path: Path) -> None:
    upload = kinds.state_dict(kinds.shuffle_net(), tmp_path)
    record = system.admit("digits/named/1", upload, json.dumps("shufflenet_v2_x0_5").encode())
    assert (record.state, record.architecture) == ("admitted", "torchvision shufflenet_v2_x0_5")
    assert record.architecture_given == "shufflenet_v2_x0_5"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_a_name_that_an_editor_put_a_mark_before_is_read(system: System, tmp_path: Path, mark: bytes) -> None:
    upload = kinds.state_dict(kinds.shuffle_net(), tmp_path)
    record = system.admit(f"digits/marked{len(mark)}/1", upload, mark + b'"shufflenet_v2_x0_5"\n')
    assert (record.state, record.architecture_given) == ("admitted", "shufflenet_v2_x0_5")


def test_the_marker_of_an_empty_folder_is_left_alone(system: System) -> None:
    with pytest.raises(Ignored, match="marks a folder"):
        system.tell("digits/")
    assert not list(system.store.list(keys.PRODUCTS, keys.refused_key("digits/")))


def test_what_lies_beside_a_model_is_believed_over_what_its_tensors_look_like(system: System, tmp_path: Path) -> None:
    upload = kinds.state_dict(kinds.shuffle_net(), tmp_path)
    record = system.admit("digits/misnamed/1", upload, b'"resnet18"')
    assert record.refusal is not None
    assert record.refusal.code == "architecture-mismatch"
    assert "resnet18" in record.refusal.message


def test_a_sidecar_that_comes_later_has_a_refused_upload_admitted(system: System, tmp_path: Path) -> None:
    upload = kinds.state_dict(kinds.digits(), tmp_path)
    before = system.admit("digits/late/1", upload)
    assert before.refusal is not None
    assert before.refusal.code == "unknown-architecture"
    assert "--architecture" in before.refusal.hint

    answer = system.tell(system.put("digits/late/1", kinds.BLOCKS, ".architecture.json"))

    assert answer.type == ModelAdmitted.type
    assert system.record("digits/late/1").state == "admitted"


def test_blocks_of_another_network_are_refused_and_corrected(system: System, tmp_path: Path) -> None:
    upload = kinds.state_dict(kinds.digits(), tmp_path)
    wrong = kinds.BLOCKS.replace(b'"out_features": 10', b'"out_features": 9')
    before = system.admit("digits/corrected/1", upload, wrong)
    assert before.state == "refused"
    system.tell(system.put("digits/corrected/1", kinds.BLOCKS, ".architecture.json"))
    assert system.record("digits/corrected/1").state == "admitted"


@pytest.mark.parametrize("beside", [b"[", b'[{"type": "Conv3d"}]', b'[{"type": "system"}]', b"\xff\xfe", b"{}", b""])
def test_a_sidecar_that_says_nothing_of_use_is_a_refusal(system: System, tmp_path: Path, beside: bytes) -> None:
    record = system.admit("digits/odd/1", kinds.state_dict(kinds.digits(), tmp_path), beside)
    assert record.refusal is not None
    assert record.refusal.code in {
        "bad-json",
        "bad-blocks",
        "unknown-block",
        "missing-argument",
        "unknown-architecture",
    }
    assert record.refusal.hint


def test_what_would_need_too_much_memory_for_its_datasets_images_is_refused_with_the_numbers(
    system: System, tmp_path: Path
) -> None:
    small = system.attached(Admit(), SMALL_MEMORY)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    upload = kinds.whole(network, tmp_path)
    for dataset in ("thumbnails", "photos", "unknown"):
        system.tell(system.put(f"{dataset}/pooled/1", upload), by=small)
    assert system.record("thumbnails/pooled/1").state == "admitted"
    assert system.record("unknown/pooled/1").state == "admitted"
    refusal = system.record("photos/pooled/1").refusal
    assert refusal is not None
    assert refusal.code == "too-much-memory"
    # At the peak, 64 images of 1 × 224 × 224 floats are alive, and of each two outputs of 8 × 222 × 222: before and
    # after the ReLU.
    peak = 64 * 4 * (1 * 224 * 224 + 2 * 8 * 222 * 222)
    assert f"{SMALL_MEMORY} MiB are allowed" in refusal.message
    assert f"{-(-peak // 2**20)} for its activations" in refusal.message


def test_figures_of_a_checkpoint_become_the_training_history(system: System, tmp_path: Path) -> None:
    record = system.admit("digits/checkpoint/1", kinds.checkpoint(kinds.digits(), tmp_path), kinds.BLOCKS)
    assert record.training is not None
    assert json.loads(system.store.get(keys.PRODUCTS, keys.blob(record.training))) == kinds.FIGURES
    assert record.notes == ("The weights are those under ['model_state_dict'] of the checkpoint.",)
    facts = uploads.facts(system.store, record)

    who = {"dataset": "digits", "model": "checkpoint", "version": "1"}
    asked = ProductRequested(**who, product="training_history")
    system.runner.run(system.history.respond(compose(asked, source="/tests", subject="digits/checkpoint/1")))

    manifest = product_store.manifest(system.store, TrainingHistory, facts)
    assert manifest is not None
    assert manifest.refusal is None
    product = product_store.load(system.store, TrainingHistory, manifest)
    assert isinstance(product, TrainingHistory)
    assert product.source == "checkpoint"
    assert (product.last.epoch, product.last.train_loss, product.last.test_accuracy) == (7, 0.25, 0.9)


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_is_stored_with_its_code_a_sentence_and_a_hint(system: System, tmp_path: Path, code: str) -> None:
    subject = f"digits/{code}/1"
    record = system.admit(subject, REFUSED[code](tmp_path))
    assert (record.state, record.content) == ("refused", None)
    assert record.refusal is not None
    assert record.refusal.code == code
    assert record.refusal.message.endswith(".")
    assert record.refusal.hint
    assert str(tmp_path) not in record.refusal.message + record.refusal.hint


def test_a_worker_in_scratch_leaves_nothing_there(system: System, tmp_path: Path) -> None:
    system.admit("digits/tidy/1", kinds.state_dict(kinds.digits(), tmp_path), kinds.BLOCKS)
    system.admit("digits/untidy/1", b"no model")
    assert list(system.admitting.services.uploads.iterdir()) == []


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
def test_a_worker_of_its_own_has_the_uploads_and_nothing_else(system: System) -> None:
    admit = system.attached(Admit(), shared=False)
    key = system.put("digits/outside/1", b"a model")
    try:
        inside = admit.services.uploads / "inside"
        assert system.runner.run(admit.compute("test", "a work", confined.write, str(inside))) == "written"
        for outside in (admit.services.scratch / "elsewhere", system.directory / keys.MODELS / key):
            with pytest.raises(WorkFailed, match="PermissionError"):
                system.runner.run(admit.compute("test", "a work", confined.write, str(outside)))
    finally:
        admit.stop()


def test_an_upload_is_read_once(system: System, tmp_path: Path) -> None:
    record = system.admit("digits/once/1", kinds.whole(kinds.digits(), tmp_path))
    system.tell("digits/once/1.pt")
    assert system.record("digits/once/1") == record


def test_the_same_bytes_with_another_architecture_in_their_metadata_are_read_again(
    system: System, tmp_path: Path
) -> None:
    upload = kinds.state_dict(kinds.shuffle_net(), tmp_path)
    key = system.put("digits/metadata/1", upload)
    outcomes = {}
    for named in ("resnet18", "shufflenet_v2_x0_5", "resnet18"):
        system.store.described[key] = {"architecture": named}
        system.tell(key)
        record = system.record("digits/metadata/1")
        assert outcomes.setdefault(named, record) == record  # what was read before is not read again
        assert record.architecture_given == named
    assert outcomes["shufflenet_v2_x0_5"].state == "admitted"
    assert outcomes["resnet18"].refusal is not None


def test_a_record_that_an_earlier_version_stored_without_metadata_in_its_key_is_taken_over(
    system: System, tmp_path: Path
) -> None:
    upload = kinds.state_dict(kinds.shuffle_net(), tmp_path)
    key = system.put("digits/earlier/1", upload)
    system.store.described[key] = {"architecture": "shufflenet_v2_x0_5"}
    system.tell(key)
    record = system.record("digits/earlier/1")
    current = uploads.current(system.store, Identity.parse("digits/earlier/1"))
    assert current is not None
    system.store.remove(keys.PRODUCTS, current.record_key)
    plain = dataclasses.replace(current, given={}).record_key
    system.store.put(keys.PRODUCTS, plain, record.model_copy(update={"seconds": 12.5}).to_bytes())
    system.tell(key)
    assert system.record("digits/earlier/1").seconds == 12.5


@pytest.mark.parametrize("damage", [None, b"", b"cut short"])
def test_an_upload_whose_safe_form_is_lost_is_read_again_when_that_is_asked_for(
    system: System, tmp_path: Path, damage: bytes | None
) -> None:
    record = system.admit("digits/lost/1", kinds.whole(kinds.digits(), tmp_path))
    assert record.content is not None
    place = keys.blob(record.content)
    good = system.store.get(keys.PRODUCTS, place)
    if damage is None:
        system.store.remove(keys.PRODUCTS, place)
    else:
        system.store.put(keys.PRODUCTS, place, damage)
    system.tell("digits/lost/1.pt", is_missing=True)
    assert system.store.get(keys.PRODUCTS, place) == good
    assert system.record("digits/lost/1") == record


def test_a_record_that_cannot_be_read_is_replaced(system: System, tmp_path: Path) -> None:
    record = system.admit("digits/unreadable/1", kinds.whole(kinds.digits(), tmp_path))
    upload = uploads.current(system.store, Identity.parse("digits/unreadable/1"))
    assert upload is not None
    system.store.put(keys.PRODUCTS, upload.record_key, b"{")
    system.tell("digits/unreadable/1.pt")
    again = system.record("digits/unreadable/1")
    assert (again.state, again.content, again.etag) == (record.state, record.content, record.etag)
