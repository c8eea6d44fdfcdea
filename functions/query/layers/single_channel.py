"""One channel of a layer: its strongest images, where it responds on the first, the picture made for it. Blocking."""

from __future__ import annotations

import numpy as np

from layerscope.functions.query import answers
from layerscope.functions.query.answers import Unanswerable
from layerscope.functions.query.layers.layer_health import ChannelHealth
from layerscope.functions.query.layers.layer_rows import ACTIVATION, Call, Row, layer_path
from layerscope.functions.query.layers.microscope import MADE, RANKINGS, Microscope, microscope
from layerscope.functions.query.layers.single_layer import finite
from layerscope.schemas.identity import Identity
from layerscope.schemas.layers import ChannelAnswer, LaidOver, MadePicture, Strongest
from layerscope.stores.object_store import ObjectStore


def channel(store: ObjectStore, identity: Identity, name: str, number: int) -> ChannelAnswer:
    """Return all that is known of one channel.

    Raises:
        Unanswerable: as of `layer`; or the layer has no such channel, or none at all.
    """
    scope = microscope(store, identity)
    call = scope.call(name)
    if (why := scope.why_no_channels(call)) is not None:
        raise Unanswerable(409, "no-channels", why, f"GET {layer_path(identity, name)} says more")
    row = scope.rows.activations[call]
    if number >= row["channels"]:
        said = f"{name} has {row['channels']} channels, counted from 0."
        answers.unknown("channel", said, f"GET {layer_path(identity, name)} lists them")
    norms = scope.norms(row)
    over, no_map = _map(scope, row, number)
    made, no_picture = _made(scope, call, number)
    described = scope.description
    return ChannelAnswer(
        dataset=identity.dataset,
        model=identity.model,
        version=identity.version,
        layer=name,
        type=row["type"],
        channel=number,
        channels=row["channels"],
        signs=ChannelHealth.of(row).signs(number),
        activation=row["activation"],
        shape=row["activation_shape"],
        norm=finite(norms[number]),
        place=1 + int((norms > norms[number]).sum()) if np.isfinite(norms[number]) else None,
        rankings=tuple(Strongest(by=by, images=scope.ranked(row, [number], by)[0]) for by in RANKINGS),
        image_size=described.shape[:2] if described else None,
        map=over,
        map_reason=no_map,
        made=made,
        made_reason=no_picture,
        outdated=scope.outdated(ACTIVATION, *([MADE] if made else [])),
        previous=number - 1 if number else None,
        next=number + 1 if number + 1 < row["channels"] else None,
    )


def _map(scope: Microscope, row: Row, channel: int) -> tuple[LaidOver | None, str | None]:
    """Return where the channel responds on its strongest image, or why that is not kept."""
    shown = next((one for one in row["shown"] if one["channel"] == channel), None)
    if shown is None or shown["map"] is None:
        if len(row["activation_shape"]) == 1:
            return None, "The layer has no positions, so there is no map: each unit is one number an image."
        return None, f"Maps are kept of the {len(row['shown'])} channels of this layer with the largest norm."
    found = shown["map"]
    sheet = scope.sheet(ACTIVATION, "maps.png", found["place"])
    return LaidOver(image=found["image"], low=found["low"], high=found["high"], map=sheet), None


def _made(scope: Microscope, call: Call, channel: int) -> tuple[MadePicture | None, str | None]:
    """Return the picture that was made for the channel, or why there is none."""
    if MADE not in scope.products:
        return None, "The pictures that are made by optimisation are not there (yet)."
    data = scope.products[MADE].data
    layer = data["layer"]
    if layer is None or (layer["name"], layer["call"]) != call:
        return None, "Pictures are made for the channels of the last convolution only."
    one = next((one for one in data["channels"] if one["target"] == channel), None)
    if one is None:
        return None, f"Pictures are made for the first {len(data['channels'])} channels of this layer."
    control = one.get("control")  # of earlier recipes there is none
    return MadePicture(
        picture=scope.sheet(MADE, "pictures.png", one["place"]),
        control=scope.sheet(MADE, "controls.png", control["place"]) if control else None,
        control_score=control["score"] if control else None,
        measured=layer["measured"],
        score=one["score"],
        nearest_score=one["nearest_score"],
        caveat=data["caveat"],
    ), None
