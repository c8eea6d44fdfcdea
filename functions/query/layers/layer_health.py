"""What the products say of a layer's health: signs, the worst first, by the same rules on every page and in the diagram."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from layerscope.schemas.layers import ChannelSign, Sign

Row = Mapping[str, Any]


def signs(health: Row | None, activation: Row | None) -> tuple[Sign, ...]:
    """Return what is wrong with a layer, or to bear in mind.

    Args:
        health: its row of `layer_vectors`; None where it has none.
        activation: its row of `feature_activation`, likewise.
    """
    return *_broken(health), *_of_channels(activation), *_special(health)


@dataclass(frozen=True, slots=True)
class ChannelHealth:
    """Which channels of a layer are dead, constant or not finite, by its row of `feature_activation`."""

    dead: frozenset[int]
    constant: frozenset[int]
    not_finite: frozenset[int]

    @classmethod
    def of(cls, activation: Row) -> ChannelHealth:
        """Return those of a layer."""
        return cls(*(frozenset(activation[name]) for name in ("dead", "constant", "non_finite")))

    def signs(self, channel: int) -> tuple[ChannelSign, ...]:
        """Return what is wrong with one channel; one that is dead is constant as well, which is not said."""
        found: list[ChannelSign] = []
        if channel in self.not_finite:
            found.append("not_finite")
        if channel in self.dead:
            found.append("dead")
        elif channel in self.constant:
            found.append("constant")
        return tuple(found)


def _broken(health: Row | None) -> Iterator[Sign]:
    state = health["state"] if health else "ok"
    if state == "non_finite":
        text = "Its responses to the probe images are not all finite: there is a NaN, an infinity or an overflow."
        yield Sign(kind="not_finite", short="not finite", text=text)
    if state == "constant":
        text = "It tells no probe image from another: its responses are all alike, or without any pattern among them."
        yield Sign(kind="constant", short="constant", text=text)


def _of_channels(activation: Row | None) -> Iterator[Sign]:
    if activation is None or activation["state"] != "ok":
        return
    of, what = activation["channels"], channels_called(activation["type"])
    channels = ChannelHealth.of(activation)
    if broken := len(channels.not_finite):
        text = f"{_counted(broken, of, what)} a NaN or an infinity on some test image."
        yield Sign(kind="channels_not_finite", short=f"{broken} of {of} {what} not finite", text=text)
    if dead := len(channels.dead):
        text = f"{_counted(dead, of, what)} no response above 0 on any test image: {'it is' if dead == 1 else 'they are'} dead."
        yield Sign(kind="channels_dead", short=f"{dead} of {of} {what} dead", text=text)
    if alike := len(channels.constant - channels.dead):
        text = f"{_counted(alike, of, what)} the same response everywhere on all test images."
        yield Sign(kind="channels_constant", short=f"{alike} of {of} {what} constant", text=text)


def _special(health: Row | None) -> Iterator[Sign]:
    if health and health["state"] == "unbatched":
        text = "The first axis of its output is not the images, so its responses cannot be told apart by image."
        yield Sign(kind="unbatched", short="not by image", text=text)
    if health and health["input_like"]:
        text = "It passes the images on: too little is left of its responses once what they share with the pixels is taken out."
        yield Sign(kind="input_like", short="close to the input", text=text)


def channels_called(layer_type: str) -> str:
    """Return what the channels of a layer are called: units, where they are the outputs of a linear layer."""
    return "units" if layer_type == "Linear" else "channels"


def _counted(count: int, of: int, what: str) -> str:
    return f"{count:,} of {of:,} {what} {'has' if count == 1 else 'have'}"
