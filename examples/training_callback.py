"""Upload a version of a model every few epochs, from a training loop that goes on whatever happens to an upload.

    python examples/training_callback.py [DATASET/MODEL]

`Uploads` needs nothing of the loop but to be called after each epoch, so it fits into the callbacks of any framework.
"""

from __future__ import annotations

import copy
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import nn
from train_and_upload import images_and_labels, network, train

import layerscope

EPOCHS = 4
EVERY = 2

log = logging.getLogger("uploads")


class Uploads:
    """Uploads the model as the version `epoch-<N>` after each `every` epochs, with all that was measured until then.

    Uploads are made one after the other in a thread of their own, of a copy of the model, so that the training need not
    wait. One that fails is logged, and the next is tried. Leaving the `with` block waits for the last.
    """

    def __init__(self, model_name: str, every: int, at: str | None = None) -> None:
        self._model_name = model_name
        self._every = every
        self._at = at
        self._history: list[dict[str, float]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="uploads")

    def __call__(self, model: nn.Module, figures: dict[str, float]) -> None:
        """Take note of what was measured after an epoch, and upload the model if it is its turn."""
        self._history.append(figures)
        if len(self._history) % self._every == 0:
            name = f"{self._model_name}/epoch-{len(self._history)}"
            self._thread.submit(self._upload, copy.deepcopy(model).cpu(), name, list(self._history))

    def _upload(self, model: nn.Module, name: str, history: list[dict[str, float]]) -> None:
        try:
            layerscope.upload(model, name, history=history, at=self._at)
        except Exception as error:  # noqa: BLE001  no upload is worth a training
            log.warning("%s was not uploaded: %s", name, error)
        else:
            log.info("uploaded %s", name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()


def main(model_name: str = "digits/growing") -> None:
    """Train a network, and upload it every few epochs."""
    logging.basicConfig(format="%(message)s")
    log.setLevel(logging.INFO)
    torch.manual_seed(1)
    model = network()
    with Uploads(model_name, EVERY) as uploads:
        for figures in train(model, images_and_labels(), EPOCHS):
            print(f"epoch {figures['epoch']}: test accuracy {figures['test_accuracy']:.3f}", flush=True)
            uploads(model, figures)
        print("trained", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
