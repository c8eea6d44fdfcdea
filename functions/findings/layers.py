"""Rules over layers and channels that tell no image from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from layerscope.functions.findings.evidence import Evidence, Found, NotChecked
from layerscope.schemas.products.feature_activation import LayerChannels
from layerscope.schemas.products.findings import FindingKind

DEAD_SHARE: Final = 0.25
FEWEST_DEAD: Final = 4
"""Networks that train well have a dead or constant channel here and there; so many in one layer are its capacity."""


def layers_dead(evidence: Evidence) -> Found | NotChecked | None:
    """Layers that answer every probe image alike, or with numbers that are not finite."""
    if evidence.layer_vectors is None:
        return NotChecked("this model has no layers that can be compared")
    layers = evidence.layer_vectors.layers
    dead = [one for one in layers if one.state in ("constant", "non_finite")]
    if not dead:
        return None
    figures = {"layers": len(dead), "of": len(layers), "not_finite": sum(one.state == "non_finite" for one in dead)}
    names = tuple(one.id for one in dead)
    return Found("layers_dead", 0.0, figures, "layer_vectors", layers=names, way=dead[0].state)


def channels_dead(evidence: Evidence) -> Found | NotChecked | None:
    """Convolutions of which a quarter of the channels is never above 0 on any test image, behind the activation."""
    convolutions = _convolutions(evidence)
    if not convolutions:
        return NotChecked("this model has no convolutions")
    return _many("channels_dead", [(one, len(one.dead)) for one in convolutions if one.activation])


def channels_constant(evidence: Evidence) -> Found | NotChecked | None:
    """Convolutions of which a quarter of the channels is the same everywhere on all test images, and not for being dead."""
    convolutions = _convolutions(evidence)
    if not convolutions:
        return NotChecked("this model has no convolutions")
    return _many("channels_constant", [(one, len(set(one.constant) - set(one.dead))) for one in convolutions])


def _convolutions(evidence: Evidence) -> list[LayerChannels]:
    """Return the layers that are judged. Of linear ones nothing is said.

    Of 256 units behind one, in networks with dropout that have 0.97 of digits right, half are dead.
    """
    every = evidence.feature_activation.layers if evidence.feature_activation else ()
    return [one for one in every if one.type != "Linear"]


def _many(kind: FindingKind, layers: Sequence[tuple[LayerChannels, int]]) -> Found | None:
    """Return what is found of the layers that have many such channels, the worst first."""
    found = [(one, n) for one, n in layers if n >= max(FEWEST_DEAD, DEAD_SHARE * one.channels)]
    if not found:
        return None
    worst, most = max(found, key=lambda pair: (pair[1] / pair[0].channels, pair[1]))
    ordered = (worst, *(one for one, _ in found if one is not worst))
    figures = {
        "layers": len(found),
        "many": most,
        "channels": worst.channels,
        "in_all": sum(n for _, n in found),
    }
    names = tuple(one.name if one.call == 0 else f"{one.name}:{one.call}" for one in ordered)
    return Found(kind, 0.0, figures, "feature_activation", layers=names)
