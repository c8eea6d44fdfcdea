"""What a model's sites put out for a few images: which of them have a row an image, and maps behind the activation too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from layerscope.functions.analysis.feature_maps.sites import Site
from layerscope.models.safe_form import SafeModel
from layerscope.models.safe_form.graph_module import tapped

Shapes = dict[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Shaped:
    """A site, the shape of one image's output, channels first, and whether it has a row an image; else the shape of all."""

    site: Site
    shape: tuple[int, ...]
    batched: bool


@contextmanager
def recorded(model: SafeModel, sites: Sequence[Site]) -> Iterator[Shapes]:
    """Note the shapes of what the sites put out, in the last forward pass inside."""
    shapes: Shapes = {}
    nodes = {node for site in sites for node in (site.node, site.behind)}
    with tapped(model, {node: _recorder(node, shapes) for node in nodes}):
        yield shapes


def shaped(site: Site, shapes: Shapes, images: int) -> Shaped:
    """Tell what a site put out for that many images; an activation without such maps is none, as a sum may broadcast."""
    shape = shapes[site.node]
    if not site.has_maps(shape, images):
        return Shaped(site, shape, batched=False)
    if not site.has_maps(shapes[site.behind], images):
        site = replace(site, behind=site.node, activation=None, activation_layer=None, through_sum=False)
    return Shaped(site, (site.channels, *site.positions(shape)), batched=True)


def _recorder(node: int, shapes: Shapes) -> Callable[[Any], None]:
    def record(value: Any) -> None:
        shapes[node] = tuple(value.shape) if isinstance(value, Tensor) else ()

    return record
