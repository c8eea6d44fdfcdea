"""Images in parts: no byte is lost, copied or out of place, and both stages compute at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from layerscope.functions.stage.chain import Chain
from layerscope.functions.stage.messages import NotUnderstood, Spent, StageRequest, Tensors, read_answer
from layerscope.functions.stage.micro_batches import divided, joined, spent_by
from layerscope.models.stages.wire import received, sent
from layerscope.schemas.errors import Refused, Unavailable
from tests.functions.bucket import services

CONTENT = "0" * 64


def tensors(value: Tensor) -> Tensors:
    one = sent("v0", value)
    return Tensors((one.entry,), (one.content,))


def tensor(value: Tensors) -> Tensor:
    found = received(value.entries[0], bytearray(value.contents[0]))
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (1, 3), (3, 3), (5, 1)])
def test_parts_are_the_images_and_together_all_of_them(count: int, size: int, memory_format: Any) -> None:
    batch = torch.randn(count, 3, 4, 5).to(memory_format=memory_format)
    parts = divided(tensors(batch), size)
    for found, expected in zip(map(tensor, parts), batch.split(size), strict=True):
        assert torch.equal(found, expected) and found.is_contiguous(memory_format=memory_format)
    whole = joined(parts)
    assert torch.equal(tensor(whole), batch) and tensor(whole).is_contiguous(memory_format=memory_format)


def test_no_byte_of_the_images_is_copied() -> None:
    given = tensors(torch.randn(4, 3))
    assert all(part.contents[0].obj is given.contents[0].obj for part in divided(given, 1))


@pytest.mark.parametrize(
    "given",
    [
        tensors(torch.randn(3, 4).t()),  # the images lie across each other
        tensors(torch.empty(0, 3)),
        Tensors((*tensors(torch.ones(2)).entries,) * 2, (*tensors(torch.ones(2)).contents,) * 2),
    ],
)
def test_what_cannot_be_divided_is_told(given: Tensors) -> None:
    with pytest.raises(NotUnderstood):
        divided(given, 2)


def test_outputs_that_have_no_row_for_each_image_are_refused() -> None:
    with pytest.raises(Refused, match="depends on how many"):
        joined([tensors(torch.ones(2, 3)), tensors(torch.ones(2, 4))])
    number = sent("v1", 3)
    with pytest.raises(Refused, match="a row for each image"):
        joined([Tensors((number.entry,), (number.content,))])


def test_what_parts_cost_is_added_up_stage_by_stage() -> None:
    assert spent_by([Spent((1.0, 2.0), (10, 1)), Spent((3.0, 4.0), (20, 2))]) == Spent((4.0, 6.0), (30, 3))


class Watched(Chain):
    """A chain whose parts only wait, and that counts how many do at once."""

    most = now = begun = 0

    async def _computed(self, request: StageRequest, until: float, behind: Any) -> tuple[Tensors, Spent]:
        self.begun += 1
        number = self.begun
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1
        if number == 4 and request.id == "fails":
            raise Unavailable("the fourth")
        return request.inputs, Spent((0.0,), (1,))


def asked(folder: Path, id_: str) -> tuple[Watched, Mapping[str, str] | Exception, bytes]:
    async def ask() -> tuple[Watched, Mapping[str, str] | Exception, bytes]:
        chain = Watched(services(folder), ())
        request = StageRequest(CONTENT, (5,), "", 0, id_, tensors(torch.arange(40.0).view(20, 2)), micro_batch=1)
        try:
            return chain, *await chain.answer(request, float("inf"))
        except Unavailable as error:
            return chain, error, b""
        finally:
            chain.stop()

    return asyncio.run(ask())


def test_as_many_parts_are_under_way_as_there_are_stages_and_one_more(tmp_path: Path) -> None:
    chain, headers, body = asked(tmp_path, "good")
    assert chain.most == 3 and chain.begun == 20
    assert isinstance(headers, Mapping)
    outputs, _ = read_answer(headers, memoryview(body))
    assert torch.equal(tensor(outputs), torch.arange(40.0).view(20, 2))


def test_after_a_part_that_failed_no_other_is_begun(tmp_path: Path) -> None:
    chain, error, _ = asked(tmp_path, "fails")
    assert isinstance(error, Unavailable) and str(error) == "the fourth"
    assert chain.begun < 10
