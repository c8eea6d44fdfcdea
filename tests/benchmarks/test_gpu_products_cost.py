"""All products that run the demo's largest network, against the floor, in CPU seconds of one run.

The floor is what cannot be left out: each product's forward passes, and for pictures and their controls forward and backward
passes with torch's own Adam on their pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch

from layerscope.demo.networks import NETWORKS
from layerscope.functions.activation_maximization import func as activation_maximization
from layerscope.functions.activation_maximization.objectives import scores_of
from layerscope.functions.analysis.inference import Classifier, fit
from layerscope.functions.analysis.searched_images import BATCH
from layerscope.functions.feature_activation import func as feature_activation
from layerscope.functions.feature_activation.stream import batch_size
from layerscope.functions.layer_vectors import func as layer_vectors
from layerscope.functions.predictions import func as predictions
from layerscope.functions.preprocessing import func as preprocessing
from layerscope.functions.preprocessing.ways import ways
from layerscope.models.safe_form import SafeModel
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.activation_maximization import ActivationMaximization
from layerscope.schemas.products.predictions import Predictions
from layerscope.schemas.products.preprocessing import Preprocessing
from layerscope.stores.datasets import Dataset
from tests.benchmarks.digits_networks import digits_dataset, safe

pytestmark = pytest.mark.benchmark

LIMIT = 1.25
PRODUCTS = (predictions, layer_vectors, feature_activation, activation_maximization, preprocessing)
PICTURES = 10 + 24  # classes, and channels of the last convolution
SHIFTS = 4
FEWEST_ROUNDS, MOST_ROUNDS = 3, 8  # the shortest run of each way settles, also on a busy machine


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def largest() -> SafeModel:
    """Return the demo's network with the most parameters, new: a product may lay weights out anew."""
    torch.manual_seed(0)
    made = [network.make() for network in NETWORKS]
    return safe(max(made, key=lambda model: sum(one.numel() for one in model.parameters())))


def forward_passes(classifier: Classifier, dataset: Dataset) -> None:
    """Run what the products look at: the test part three times, some of it in every way, the probe part, and pictures."""
    test, probe = dataset.part("test").images, dataset.part("probe").images
    classifier.outputs(test, Predictions.declared.parameters["batch"])
    classifier.outputs(test, batch_size(test))
    classifier.outputs(probe, len(probe))
    batch, some = Preprocessing.declared.parameters["batch"], test[: Preprocessing.declared.parameters["images"]]
    for images in (some, *(way.images for way in ways(some, dataset.description))):
        classifier.outputs(images, batch)
    for _ in ("pictures", "controls"):
        classifier.outputs(test, BATCH)
    classifier.outputs(test[: (3 + SHIFTS) * PICTURES], 128)


def optimisation_steps(model: SafeModel, classifier: Classifier, dataset: Dataset) -> None:
    """Raise the scores of all classes and channels by the pixels of a batch, for the pictures and for their controls."""
    scores = scores_of(classifier, model, dataset.part("test").images)
    assert scores.layer is not None
    targets = torch.arange(10 + scores.layer.channels)[:, None]
    assert len(targets) == PICTURES
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()  # what `fit` laid out anew is barred from autograd
    torch.set_flush_denormal(True)
    for _ in ("pictures", "controls"):
        pixels = torch.zeros(PICTURES, 1, 28, 28).requires_grad_()
        optimiser = torch.optim.Adam([pixels], lr=0.1, maximize=True)
        for _ in range(ActivationMaximization.declared.parameters["steps"]):
            optimiser.zero_grad()
            scores(pixels).gather(1, targets).sum().backward()
            optimiser.step()
    torch.set_flush_denormal(False)


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def test_every_product_on_a_gpu_is_measured_here() -> None:
    on_gpu = {product.declared.name for product in declared_products() if product.declared.on_gpu}
    assert on_gpu == {module.__name__.split(".")[-2] for module in PRODUCTS}


def test_all_products_that_run_the_model_take_at_most_a_quarter_more_than_their_passes_and_steps() -> None:
    dataset = digits_dataset()
    images, described = dataset.part("test").images, dataset.description
    plain, ascending = largest(), largest().requires_grad_(False)
    classifier, climbing = fit(plain, images, described, "cpu"), fit(ascending, images, described, "cpu")
    optimisation_steps(ascending, climbing, dataset)  # what the first run of all sets up
    ways: dict[str, Callable[[], object]] = {
        "forward passes": lambda: forward_passes(classifier, dataset),
        "optimisation steps": lambda: optimisation_steps(ascending, climbing, dataset),
    }
    models = {module: largest() for module in PRODUCTS}
    for module in PRODUCTS:
        name = module.__name__.split(".")[-2]
        ways[name] = lambda module=module: module.compute(model=models[module], dataset=dataset, device="cpu")
    shortest = dict.fromkeys(ways, float("inf"))
    for done in range(1, MOST_ROUNDS + 1):
        shortest = {name: min(best, seconds(ways[name])) for name, best in shortest.items()}
        floor = shortest["forward passes"] + shortest["optimisation steps"]
        ratio = (sum(shortest.values()) - floor) / floor
        print(f"{ratio:.2f} of the floor: { ({name: round(best, 3) for name, best in shortest.items()}) }")
        if ratio <= LIMIT and done >= FEWEST_ROUNDS:
            break
    assert ratio <= LIMIT
