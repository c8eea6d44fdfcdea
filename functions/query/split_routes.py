"""The route that plans how a model is split into stages, from its products `split` and `predictions`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.parameters import Name
from layerscope.functions.query.split_plan import (
    MOST_STAGES,
    Division,
    NoPlan,
    Wanted,
    divided,
    stages,
    whole_memory,
)
from layerscope.functions.runtime.services import Services
from layerscope.schemas.digests import digest
from layerscope.schemas.files import DATA
from layerscope.schemas.identity import Identity
from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.split import Split
from layerscope.schemas.split_plans import Advice, Goal, SplitPlan
from layerscope.stores.catalogue import Standing
from layerscope.stores.object_store import ObjectStore

MIB = 2**20
BITS = 8
Stages = Annotated[int | None, Query(ge=1, le=MOST_STAGES, description="how many; else as many as are best")]
MemoryMB = Annotated[float | None, Query(gt=0, le=2**20, description="MiB that one replica may use")]
LinkMbit = Annotated[float, Query(gt=0, le=10**6, description="megabits a second between stages")]
For = Annotated[Goal, Query(alias="for", description="latency of one image, or throughput of many")]


def routes(given: Callable[[], Services], errors: dict[int | str, dict[str, Any]]) -> APIRouter:
    """Return the routes; `given` returns what they need, once the function has started."""
    made = APIRouter(responses=errors)

    @made.get("/models/{dataset}/{model}/{version}/split", response_model=SplitPlan)
    async def split(
        dataset: Name,
        model: Name,
        version: Name,
        stages: Stages = None,
        memory_mb: MemoryMB = None,
        link_mbit: LinkMbit = 10_000,
        goal: For = "latency",
    ) -> SplitPlan:
        """Return the best division of a model into stages, or the advice not to split it, with the figures."""
        memory = None if memory_mb is None else int(memory_mb * MIB)
        wanted = Wanted(goal, stages, memory, link_mbit * 1e6 / BITS)
        return await asyncio.to_thread(planned, given().store, Identity(dataset, model, version), wanted)

    return made


def planned(store: ObjectStore, identity: Identity, wanted: Wanted) -> SplitPlan:
    """Return the plan that is asked for.

    Raises:
        Unanswerable: a product that it stands on is not there, or no division is what was asked for.
    """
    found = answers.standing(store, identity)
    split = Split.model_validate_json(answers.content(store, _product(found, "split").file(DATA)))
    measured = _product(found, "predictions")
    images = json.loads(answers.content(store, measured.file(DATA)))["images"]
    seconds = measured.seconds / max(1, images)
    try:
        division = divided(split, seconds, wanted)
    except NoPlan as error:
        hint = "ask for another number of stages, or for replicas of more memory"
        raise Unanswerable(409, "no-such-split", str(error), hint) from error
    advice, reason = _advised(split, seconds, division, wanted)
    return SplitPlan(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        content=measured.content,
        goal=wanted.goal,
        advice=advice,
        reason=reason,
        digest=digest({"content": measured.content, "after": [split.cuts[one].after for one in division.places]}),
        tensors=_tensors(found),
        device=measured.device,
        link_mbit=wanted.link_bytes_per_second * BITS / 1e6,
        memory_mb=None if wanted.memory_bytes is None else wanted.memory_bytes / MIB,
        whole_seconds=seconds,
        whole_memory_bytes=whole_memory(split),
        seconds=division.seconds,
        images_per_second=1 / max(division.longest, 1e-9),
        stages=stages(split, division, seconds, wanted),
    )


def _advised(split: Split, seconds: float, division: Division, wanted: Wanted) -> tuple[Advice, str]:
    """Say whether to split, by the one rule that holds on machines that are alike: only what does not fit is split."""
    whole, count = whole_memory(split), len(division.places) + 1
    if wanted.memory_bytes is None or whole <= wanted.memory_bytes:
        fits = (
            "No limit of memory was given" if wanted.memory_bytes is None else f"The whole model fits ({whole:,} bytes)"
        )
        if count == 1:
            return "do_not_split", f"{fits}, and nothing is faster for one image than the whole: {seconds:.3g} s."
        return "do_not_split", (
            f"{fits}: {count} replicas of the whole answer {count / max(seconds, 1e-9):.3g} images a second, {seconds:.3g} s "
            f"each; {count} stages answer {1 / max(division.longest, 1e-9):.3g} a second, {division.seconds:.3g} s each."
        )
    return "split", (
        f"The whole model needs {whole:,} bytes, and a replica has {wanted.memory_bytes:,}: {count} stages take "
        f"{division.seconds:.3g} s for one image instead of {seconds:.3g} s, and answer "
        f"{1 / max(division.longest, 1e-9):.3g} a second."
    )


def _product(found: Standing, name: str) -> Manifest:
    outcome = found.outcomes.get(name)
    if outcome is None or outcome.manifest is None or outcome.manifest.state == "refused":
        state = outcome.state if outcome else found.state
        reason = (
            outcome.refusal.message if outcome and outcome.refusal else f"Its product {name} is not there: {state}."
        )
        raise Unanswerable(409, f"{name}-{state}", reason, f"GET /models/{found.upload.identity.subject} says more")
    return outcome.manifest


def _tensors(found: Standing) -> str:
    """Return the digest of what a stage checks its tensors by; empty where that is not there."""
    outcome = found.outcomes.get("weight_sketch")
    manifest = outcome.manifest if outcome else None
    return manifest.file(DATA).sha256 if manifest is not None and manifest.state == "complete" else ""
