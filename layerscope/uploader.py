"""`layerscope.upload`: from a module in the user's process to its analysis."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from layerscope import client
from layerscope.packer import image_of, pack
from layerscope.schemas.identity import Identity
from layerscope.sidecars import input_file
from layerscope.systems import locate
from layerscope.training_log import Logged, sidecar


def upload(
    model: nn.Module,
    name: str,
    *,
    history: Logged | None = None,
    at: str | None = None,
    example: Tensor | Sequence[int] | None = None,
) -> None:
    """Pack a module into the safe form and put it into the bucket, which is all that its analysis needs.

    Args:
        model: any module that `torch.fx` can trace, or `torch.export`; it is not changed.
        name: `DATASET/MODEL/VERSION`.
        history: what was logged in training: lists by figure, `{"train_loss": […], "test_accuracy": […]}`; one mapping an
            epoch; or the path of a log (CSV, JSON, JSON lines, or a TensorBoard event file).
        at: URL or directory of the system; by default LAYERSCOPE_URL, or the one that `up` or `demo` made last.
        example: images that the model takes, or the shape of one, (channels, height, width), where it does not say itself.

    Raises:
        Refused: the module cannot be packed; the message names the node in the way, the hint says what to do.
        ValueError: the name is not of that form, nothing in the history is a loss or an accuracy, or the example is no
            images.
        NoSystem: there is no such system.
    """
    identity = Identity.parse(name)
    sidecars = {} if history is None else dict([sidecar(history)])
    if example is not None:
        sidecars |= input_file(image_of(example))
    sending = client.upload(
        locate(at), identity, pack(model, example=example), ".safetensors", lambda _: None, sidecars=sidecars
    )
    client.finished(sending)
