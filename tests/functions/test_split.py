"""Split: its figures against PyTorch's own and by hand, and its proof against cuts that are made one by one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.analysis.inference import inference, normalised
from layerscope.functions.split import func
from layerscope.models import safe_form
from layerscope.models.safe_form.graph_module import assemble
from layerscope.models.safe_form.graph_nodes import Node, Ref
from layerscope.models.stages import certificate, cuts, functional, stage_of
from layerscope.models.stages.stage import START, StageModel, tensors
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.errors import Refused
from layerscope.schemas.products.split import Split
from layerscope.stores.datasets import Dataset, PartArrays

IMAGES = 20


def dataset(size: int = 12) -> Dataset:
    pixels = np.random.default_rng(3).integers(0, 256, (IMAGES, size, size, 1), np.uint8)
    described = DatasetDescription(
        name="small",
        classes=("cat", "dog", "ship"),
        shape=(size, size, 1),
        mean=(0.4,),
        std=(0.2,),
        parts={"test": {"sha256": "0" * 64, "images": 1}, "probe": {"sha256": "1" * 64, "images": IMAGES}},
    )
    return Dataset(described, {"probe": PartArrays(pixels, np.zeros(IMAGES, np.int64))})


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def safe(model: nn.Module) -> safe_form.SafeModel:
    return safe_form.build(safe_form.read(safe_form.pack(model.eval())))


def computed(model: nn.Module) -> Split:
    return func.compute(model=safe(model), dataset=dataset(), device="cpu")


def test_a_chain_of_layers_is_cut_after_each_and_the_figures_are_those_made_by_hand() -> None:
    found = computed(network())
    assert [cut.name for cut in found.cuts] == ["0", "1", "2", "3", "4"]
    assert [cut.bytes for cut in found.cuts] == [4 * 4 * 10 * 10] * 3 + [4 * 16] * 2
    assert [cut.values[0].shape for cut in found.cuts] == [(1, 4, 10, 10)] * 3 + [(1, 4, 2, 2), (1, 16)]
    assert [one.multiply_adds for one in found.segments] == [4 * 9 * 100, 0, 0, 0, 0, 16 * 3]
    # weights and biases, of float32; the normalisation counts its batches in a whole number of eight bytes
    assert [one.tensor_bytes for one in found.segments] == [4 * (36 + 4), 0, 4 * 16 + 8, 0, 0, 4 * (48 + 3)]
    assert found.input_bytes == 4 * 144
    assert (found.images, found.batch, found.device, found.threads) == (IMAGES, 16, "cpu", torch.get_num_threads())


def test_the_digest_is_of_the_outputs_of_the_whole_model() -> None:
    model, given = safe(network()), dataset()
    digest = hashlib.sha256()
    with inference():
        for start in range(0, IMAGES, 16):
            images = given.part("probe").images[start : start + 16]
            outputs = model(normalised(images, given.description, "cpu"))
            entry = {
                "name": "0",
                "shape": list(outputs.shape),
                "datatype": "FP32",
                "parameters": {"binary_data_size": outputs.numel() * 4, "strides": "3,1"},
            }
            digest.update(json.dumps(entry, sort_keys=True).encode() + outputs.numpy().tobytes())
    found = computed(network())
    assert found.equal and all(cut.equal for cut in found.cuts)
    assert found.sha256 == digest.hexdigest()


def test_the_proof_agrees_with_every_cut_made_alone() -> None:
    model = safe(network())
    graph = functional(model.safe_graph)
    places = list(cuts(graph))
    batch = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        proof = certificate.certify(model, graph, places, [batch])
        whole = model(batch)
        for cut, seen in zip(places, proof.cuts, strict=True):
            first = StageModel(stage_of(graph, START, cut), tensors(model).__getitem__)
            second = StageModel(stage_of(graph, cut), tensors(model).__getitem__)
            assert torch.equal(second(first((batch,)))[0], whole) is seen.is_equal is True


class Counting(nn.Module):
    """Outputs times a number that the model holds."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network(x) * self.count
        return scores


def test_a_model_that_answers_the_same_image_differently_has_no_proof() -> None:
    # Given a file in which that number grows with each run, as no model is packed but a file may say
    model = safe(Counting())
    *steps, count, product, output = model.safe_graph.nodes
    grown = Node("method", "add_", (Ref(len(steps)), 1.0))
    product = replace(product, args=(product.args[0], Ref(len(steps) + 1)))
    output = replace(output, args=(Ref(len(steps) + 2),))
    graph = replace(model.safe_graph, nodes=(*steps, count, grown, product, output))
    found = func.compute(model=assemble(graph, tensors(model).__getitem__), dataset=dataset(), device="cpu")
    assert not found.equal
    assert not found.headline()["equal"]


def test_the_number_of_images_follows_from_what_the_model_costs() -> None:
    assert func.affordable(images=100, multiply_adds=10, most=3 * func.RUNS * 10) == 3
    assert func.affordable(images=100, multiply_adds=10, most=1) == 1
    assert func.affordable(images=2, multiply_adds=10, most=10**6) == 2


def test_of_many_cuts_as_many_as_allowed_are_listed_evenly() -> None:
    layers = [nn.Identity() if k % 2 else nn.ReLU() for k in range(700)]
    found = computed(nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Flatten(), nn.Linear(200, 3)))
    assert len(found.cuts) == 256 and len(found.segments) == 257
    gaps = np.diff([cut.after for cut in found.cuts])
    assert set(gaps) == {2, 3}
    assert found.equal


def test_a_model_that_does_not_fit_its_dataset_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        computed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 3)))
    assert refused.value.code == "input-mismatch"


def test_a_model_that_would_gain_by_another_layout_is_cut_in_the_layout_of_its_file() -> None:
    layers = nn.Sequential(nn.Conv2d(1, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(512, 3))
    model = safe(layers)
    found = func.compute(model=model, dataset=dataset(), device="cpu")
    assert found.equal and len(found.cuts) == 3
    assert not model.get_submodule("1").weight.is_inference()
    assert model.get_submodule("1").weight.is_contiguous()


def test_the_same_model_has_the_same_split() -> None:
    assert computed(network()) == computed(network())
