"""`layerscope demo`: train, upload, wait, show; in one process over one directory, by the same path as on a cluster."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from layerscope import client
from layerscope.demo.networks import NETWORKS, Network, measure, train
from layerscope.embedded import Running, running
from layerscope.packer import pack
from layerscope.schemas import keys
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products
from layerscope.schemas.queries import LayerList, ModelAnswer, SimilarAnswer
from layerscope.stores import datasets
from layerscope.terminal import percent
from layerscope.training_log import sidecar

DATASET = "digits"


class Showcase:
    """One run of the demo over a directory, telling of its progress on a console."""

    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._start = time.monotonic()
        self._identities = [Identity(DATASET, one.name, one.version) for one in NETWORKS]

    async def run(self) -> bool:
        """Run it; True: every product is complete."""
        self._tell(f"a system in one process; its buckets are folders of {self._directory}")
        self._tell("starting the functions; those that run models import torch, which takes a moment")
        async with running(self._directory, self._tell) as system:
            description = datasets.describe(system.services.store, DATASET)
            assert description is not None, "initialise has made it"
            cache = system.services.scratch / "datasets"
            given = datasets.load(system.services.store, description, ("train", "test"), cache)
            for network, identity in zip(NETWORKS, self._identities, strict=True):
                model, log = await asyncio.to_thread(self._trained, network, given, description)
                if log:
                    ending, content = sidecar(log)
                    await system.put(keys.sidecar(identity, ending), content)
                await system.put(keys.upload(identity), pack(model))
                self._tell(f"uploaded {keys.upload(identity)}: nothing else is called")
            settling = asyncio.create_task(system.settle())
            printed: set[tuple[str, str]] = set()
            while not settling.done():
                await asyncio.wait([settling], timeout=0.5)
                await self._print_products(system, printed)
            await settling
            return await self._show(system)

    def _trained(
        self, network: Network, given: datasets.Dataset, description: DatasetDescription
    ) -> tuple[torch.nn.Module, list[dict[str, float]]]:
        """Train a network; return it with what was measured after each epoch."""
        torch.set_num_threads(1)  # small networks train no faster with more, and far slower on a busy machine
        epochs = train(network, given.part("train"), description)
        _, model = next(epochs)
        log = []
        for epoch, _ in epochs:
            figures: dict[str, float] = {"epoch": epoch}
            for name in ("train", "test"):
                loss, accuracy = measure(model, given.part(name), description)
                figures |= {f"{name}_loss": loss, f"{name}_accuracy": accuracy}
            log.append(figures)
            self._tell(f"{network.name}/{network.version}: trained {epoch} of {network.epochs} epochs on digits")
        return model, log

    async def _print_products(self, system: Running, printed: set[tuple[str, str]]) -> None:
        """Tell of each product that came since."""
        for identity in self._identities:
            for name, line in (await self._model(system, identity)).products.items():
                if line.state != "computing" and (identity.subject, name) not in printed:
                    printed.add((identity.subject, name))
                    self._tell(f"{identity.subject}: {name} {line.state}")

    async def _show(self, system: Running) -> bool:
        """Print the table of models; True: every product is complete."""
        table = Table("model", "accuracy", "layer", "most like", "of", "score", box=None, header_style="dim")
        complete = 0
        for identity in self._identities:
            answer = await self._model(system, identity)
            complete += sum(line.state == "complete" for line in answer.products.values())
            evaluation = answer.products["evaluation"].headline.get("accuracy")
            accuracy = percent(evaluation) if isinstance(evaluation, float) else ""
            for row, (layer, hit) in enumerate(await self._hits(system, identity)):
                first = (identity.subject, accuracy) if row == 0 else ("", "")
                table.add_row(*first, layer, *hit)
        self._console.print(table)
        # Of the network that was not trained there is no training history.
        wanted = len(self._identities) * len(declared_products()) - sum(one.epochs == 0 for one in NETWORKS)
        last = self._identities[0].subject
        self._console.print(
            Text(f"layerscope show {last}\nlayerscope similar {last} 4\nlayerscope serve", style="cyan")
        )
        self._console.print(f"{complete} of {wanted} products complete in {time.monotonic() - self._start:.0f} s")
        return complete == wanted

    async def _hits(self, system: Running, identity: Identity) -> list[tuple[str, tuple[str, str, str]]]:
        """Return each layer with the most similar one of another model: its name, its model, the score."""
        path = client.model_path(identity, "layers")
        rows = []
        for line in LayerList.model_validate(await client.get(system.query, path)).layers:
            found = await client.get(system.query, client.model_path(identity, "layers", line.layer, "similar"), k=1)
            answer = SimilarAnswer.model_validate(found)
            if answer.hits:
                hit = answer.hits[0]
                rows.append((line.layer, (hit.layer, f"{hit.model}/{hit.version}", f"{hit.score:.2f}")))
            else:
                rows.append((line.layer, ("close to the input" if line.input_like else "none", "", "")))
        return rows

    async def _model(self, system: Running, identity: Identity) -> ModelAnswer:
        return ModelAnswer.model_validate(await client.get(system.query, client.model_path(identity)))

    def _tell(self, line: str) -> None:
        self._console.print(f"{time.monotonic() - self._start:5.1f} s  {line}", markup=False)
