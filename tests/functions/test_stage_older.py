"""The older interface, as its users called it: two curl sessions, one server or several, the class of the whole model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from layerscope.functions.analysis.inference import inference, normalised
from layerscope.functions.split import func as split
from layerscope.functions.stage.messages import NotUnderstood, Tensors
from layerscope.functions.stage.older import Asked, class_of, read_query
from layerscope.functions.weight_sketch import func as weight_sketch
from layerscope.models import safe_form
from layerscope.schemas.identity import Identity
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from tests.functions.bucket import Bucket, services
from tests.functions.test_stage import Replica, Wide

WHO = Identity("pictures", "net", "1")
MODEL = WHO.subject


@dataclass(frozen=True)
class Stored:
    """A model in a bucket, with the pictures that it is asked about, as files, and as the model is given them."""

    folder: Path
    model: nn.Module
    cuts: int
    files: list[Path]
    inputs: list[Tensor]


def stored(folder: Path, network: nn.Module, size: int, channels: int, pictures: int = 3) -> Stored:
    given = services(folder / "bucket")
    random = np.random.default_rng(0)
    probe = PartArrays(random.integers(0, 255, (8, size, size, channels), np.uint8), np.arange(8, dtype=np.int64))
    datasets.write(given.store, WHO.dataset, tuple(f"c{k}" for k in range(10)), {"test": probe, "probe": probe})
    packed = safe_form.pack(network.eval())
    bucket = Bucket(given.store, WHO)
    bucket.admit(packed)
    model = safe_form.build(safe_form.read(packed))
    described = bucket.facts.dataset
    assert described is not None
    dataset = datasets.load(given.store, described, ("probe",), given.scratch / "parts")
    made = split.compute(model=model, dataset=dataset, device="cpu")
    bucket.write(made)
    bucket.write(weight_sketch.compute(model, "cpu"))
    files, inputs = [], []
    for number in range(pictures):
        path = folder / f"{number}.png"
        pixels = random.integers(0, 255, (size, size, channels), np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(path)
        files.append(path)
        inputs.append(normalised(pixels[None], described, "cpu"))
    return Stored(folder / "bucket", model, len(made.cuts), files, inputs)


@pytest.fixture
def small(tmp_path: Path) -> Stored:
    torch.manual_seed(0)
    return stored(tmp_path, Wide(), 12, 1)


@asynccontextmanager
async def servers(given: Stored, count: int, model: str = MODEL) -> AsyncIterator[list[str]]:
    """Serve as many of the older servers, which may send to each other only; yields their addresses, HOST:PORT."""
    running: list[Replica] = []
    addresses: list[str] = []
    for number in range(count):
        one = services(given.folder)
        made = Replica(type(one)(one.store, one.vectors, one.cache, one.log, given.folder / f".{number}"), ())
        made.function.attach(made.function._chain._services, (), model, frozenset())  # type: ignore[union-attr]
        running.append(made)
        addresses.append((await made.started()).removeprefix("http://"))
    for made in running:
        made.function._older._allowed = frozenset(addresses)  # type: ignore[union-attr]
    try:
        yield addresses
    finally:
        for made in running:
            await made.end()


async def curl(*arguments: str) -> tuple[int, Any]:
    """Return the status and the JSON that curl is answered with."""
    made = await asyncio.create_subprocess_exec(
        "curl", "-s", "--noproxy", "*", "-w", "\n%{http_code}", *arguments, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await made.communicate()
    body, _, status = answer.decode().rpartition("\n")
    return int(status), json.loads(body)


def whole(given: Stored) -> list[int]:
    with inference():
        return [int(given.model(one).argmax()) for one in given.inputs]


async def predicted(address: str, given: Stored) -> list[Any]:
    return [(await curl("-F", f"file=@{path}", f"http://{address}/predict"))[1] for path in given.files]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_server_and_two_and_three_answer_with_the_class_of_the_whole(small: Stored) -> None:
    async def asked() -> None:
        async with servers(small, 3) as (one, two, three):
            status, said = await curl(f"http://{one}/configure?start=0&end={small.cuts + 1}&nextaddr=None")
            assert (status, said["start"], said["end"], said["model"]) == (200, 0, None, MODEL)
            assert await predicted(one, small) == whole(small)
            await curl(f"http://{one}/configure?start=0&end=3&nextaddr={two}")
            await curl(f"http://{two}/configure?start=3&end=99&nextaddr=None")
            assert await predicted(one, small) == whole(small)
            await curl(f"http://{two}/configure?start=3&end=5&nextaddr={three}")
            await curl(f"http://{three}/configure?start=5&end=99&nextaddr=None")
            assert await predicted(one, small) == whole(small)

    asyncio.run(asked())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_two_sessions_of_the_original_with_a_resnet_50(tmp_path: Path) -> None:
    torch.manual_seed(0)
    given = stored(tmp_path, resnet50(num_classes=10), 64, 3)

    async def asked() -> None:
        async with servers(given, 2) as (one, two):
            await curl(f"http://{one}/configure?start=0&end=21&nextaddr=None")
            assert await predicted(one, given) == whole(given)
            await curl(f"http://{one}/configure?start=0&end=10&nextaddr={two}")
            await curl(f"http://{two}/configure?start=10&end=21&nextaddr=None")
            assert await predicted(one, given) == whole(given)

    asyncio.run(asked())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_cannot_be_configured_or_answered_is_told_why(small: Stored) -> None:
    async def asked() -> None:
        async with servers(small, 2, model="") as (one, two):
            picture = ("-F", f"file=@{small.files[0]}")
            at = f"http://{one}/configure"
            for words, expected, says in (
                ("start=0&end=3", 400, "no model is named"),
                (f"start=0&end=3&model={MODEL}&nextaddr=127.0.0.1:1", 403, "Nothing is sent to 127.0.0.1:1"),
                (f"start=0&end=999&model={MODEL}&nextaddr={two}", 404, "There is no cut 999"),
                ("start=0&end=3&model=pictures/none/1", 404, "There is no model pictures/none/1"),
                (f"start=3&end=3&model={MODEL}", 400, "there are no layers"),
            ):
                status, said = await curl(f"{at}?{words}")
                assert (status, says in said["error"]) == (expected, True), said
            status, said = await curl(*picture, f"http://{one}/predict")
            assert status == 409 and "has not been told" in said["error"]
            await curl(f"{at}?start=2&end=9&model={MODEL}")
            status, said = await curl(*picture, f"http://{one}/predict")
            assert status == 409 and "begins at cut 2" in said["error"]
            # the one behind was told to begin elsewhere
            await curl(f"{at}?start=0&end=4&nextaddr={two}&model={MODEL}")
            await curl(f"http://{two}/configure?start=5&end=9&nextaddr=None&model={MODEL}")
            status, said = await curl(*picture, f"http://{one}/predict")
            assert status == 409 and "go on where the one before ended" in said["error"]
            await curl(f"{at}?start=0&end=9&model={MODEL}")
            status, said = await curl("--data-binary", "GIF89a", f"http://{one}/predict")
            assert status == 415 and "a GIF" in said["error"]
            status, said = await curl("-X", "POST", f"{at}?start=0&end=9&model={MODEL}")
            assert status == 400 and "asked by GET" in said["error"]

    asyncio.run(asked())


def test_a_query_is_read_as_the_older_system_wrote_it() -> None:
    assert read_query("start=0&end=10&nextaddr=host:44444", MODEL) == Asked(WHO, 0, 10, "host:44444")
    assert read_query("start=10&end=21&nextaddr=None", MODEL) == Asked(WHO, 10, 21, None)
    assert read_query("start=0&end=1", MODEL).address is None
    for query in ("", "start=0", "start=-1&end=3", "start=0&end=x", "start=0&end=3&layers=4", "start=0&end=3&model=x"):
        with pytest.raises(NotUnderstood):
            read_query(query, MODEL)


def test_outputs_that_are_not_finite_have_no_class() -> None:
    def outputs(*numbers: float) -> Tensors:
        content = np.array(numbers, "<f4").tobytes()
        return Tensors(({"datatype": "FP32", "shape": [1, len(numbers)]},), (memoryview(content),))

    assert class_of(outputs(0.0, 2.0, 2.0)) == 1
    assert class_of(outputs(0.0, float("nan"))) is None
    assert class_of(outputs(0.0, float("inf"))) is None
