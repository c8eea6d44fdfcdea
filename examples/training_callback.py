"""Upload a version of a model every other epoch, from a training loop of one's own.

    python examples/training_callback.py [DATASET/MODEL]

For Lightning and for transformers' Trainer there are callbacks: `layerscope.callbacks.lightning` and `.transformers`.
"""

from __future__ import annotations

import logging
import sys

import torch
from train_and_upload import images_and_labels, network, train

from layerscope.callbacks import Uploads

EPOCHS = 4


def main(model_name: str = "digits/growing") -> None:
    """Train a network, and upload it as it grows."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("layerscope.callbacks").setLevel(logging.INFO)
    torch.manual_seed(1)
    model = network()
    with Uploads(model_name, every=2) as uploads:  # best="test_accuracy" would keep the best one as well
        for figures in train(model, images_and_labels(), EPOCHS):
            print(f"epoch {figures['epoch']}: test accuracy {figures['test_accuracy']:.3f}", flush=True)
            uploads(model, figures)
        print("trained", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
