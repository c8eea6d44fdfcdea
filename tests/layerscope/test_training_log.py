"""A training's log, from `layerscope.upload` or from any S3 client, early or late, to the model's training history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from torch import nn

import layerscope
from layerscope import embedded, systems
from layerscope.schemas import keys

MODEL = "unknown-dataset/net"  # what needs a dataset is refused, so that little is computed
KERAS = {"loss": [0.9, 0.4], "val_loss": [0.8, 0.6], "val_accuracy": [0.5, 0.75], "lr": [0.1, 0.1]}
CSV = b"epoch,val_acc\n1,0.5\n2,0.25\n"
LINES = b'{"epoch": 1, "train_loss": 1.5}\n{"epoch": 2, "train_loss": 0.25}\n'


def network() -> nn.Module:
    torch.set_num_threads(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


async def history(query: httpx.AsyncClient, version: str) -> dict[str, Any]:
    found: dict[str, Any] = (await query.get(f"/models/{MODEL}/{version}/products/training_history")).json()
    return found


@pytest.mark.slow
def test_what_upload_was_given_is_the_models_history(tmp_path: Path) -> None:
    systems.make_embedded(tmp_path)
    layerscope.upload(network(), f"{MODEL}/1", history=KERAS, at=str(tmp_path))

    async def asked() -> dict[str, Any]:
        async with embedded.reading(tmp_path) as query:
            return await history(query, "1")

    found = asyncio.run(asked())
    assert (found["state"], found["data"]["source"]) == ("complete", "history")
    assert [(one["train_loss"], one["test_accuracy"]) for one in found["data"]["epochs"]] == [(0.9, 0.5), (0.4, 0.75)]
    assert {one["name"] for one in found["files"]} == {"curves.svg", "data.json"}


@pytest.mark.slow
def test_a_log_may_come_before_its_model_after_it_and_unnoticed(tmp_path: Path) -> None:
    content = layerscope.pack(network())

    async def seen() -> list[dict[str, Any]]:
        async with asyncio.timeout(200), embedded.running(tmp_path, lambda _: None) as running:
            await running.put(f"{MODEL}/early.history.csv", CSV)
            await running.put(f"{MODEL}/early.safetensors", content)
            await running.put(f"{MODEL}/late.safetensors", content)
            await running.settle()
            found = [await history(running.query, "early"), await history(running.query, "late")]

            await running.put(f"{MODEL}/late.history.csv", CSV)
            await running.plane.idle()  # its own notification, without the timer
            found.append(await history(running.query, "late"))

            running.services.store.remove(keys.MODELS, f"{MODEL}/late.history.csv")
            running.services.store.put(keys.MODELS, f"{MODEL}/late.history.jsonl", LINES)  # notified of neither
            await running.settle()
            return [*found, await history(running.query, "late")]

    early, without, late, unnoticed = asyncio.run(seen())
    assert (early["state"], early["data"]["best_by_accuracy"]["epoch"]) == ("complete", 1)
    assert (without["state"], without["refusal"]["code"]) == ("refused", "no-history")
    assert (late["state"], late["data"]["source"]) == ("complete", "history_csv")
    assert (unnoticed["state"], unnoticed["data"]["source"]) == ("complete", "history_jsonl")
    assert unnoticed["data"]["last"]["train_loss"] == 0.25


def test_functions_of_the_package_stay_functions() -> None:
    for _ in range(2):
        assert callable(layerscope.upload) and callable(layerscope.pack)
