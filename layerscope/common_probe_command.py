"""`layerscope datasets renew-common`: the images on which classes are compared, chosen again from the datasets of now."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from layerscope import client, systems
from layerscope.console import say
from layerscope.options import At
from layerscope.schemas.datasets import CommonProbe
from layerscope.schemas.errors import NotFound
from layerscope.stores import common_probe
from layerscope.stores.dataset_names import no_dataset
from layerscope.systems import Embedded


def renew_common(
    name: Annotated[str, typer.Argument(help="a dataset; all of its image shape share one set")], at: At = None
) -> None:
    """Choose the common probe images of a dataset's image shape again, from all datasets of that shape.

    What the models on these datasets are compared by across datasets is then missing, and made again on the new images.
    """
    system = systems.locate(at)
    store = client.object_store(system)
    try:
        renewed = common_probe.renew(store, name)
    except NotFound as error:
        raise no_dataset(store, name) from error
    names = [one.name for one in renewed]
    say(f"{', '.join(names)}: common probe images from {'all of these' if len(names) > 1 else 'it alone'}")
    if isinstance(system, Embedded):
        asyncio.run(client.settle(system, say))


def advice(common: CommonProbe, name: str) -> str:
    """Say that the images on which models are compared across datasets have none of a dataset, and what changes that."""
    return (
        f"the {common.images} common probe images of its shape are from {', '.join(common.sources)}: "
        f"`layerscope datasets renew-common {name}` chooses them from {name} as well, and what models of "
        "that shape are compared by across datasets is then made again"
    )
