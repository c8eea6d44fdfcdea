"""One layer and one channel: against torch by hand, with planted faults; what is not there is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from layerscope.functions.activation_maximization.func import compute as made_for
from layerscope.functions.analysis.inference import normalised
from layerscope.functions.example_images.func import compute as shown
from layerscope.functions.feature_activation.func import compute as activated
from layerscope.functions.layer_vectors.func import compute as compared
from layerscope.functions.predictions.func import compute as predicted
from layerscope.functions.query.layers.layer_health import ChannelHealth, signs
from layerscope.functions.runtime.services import Services
from layerscope.functions.summary.func import compute as summarised
from layerscope.models import safe_form
from layerscope.schemas.datasets import DatasetDescription
from layerscope.schemas.identity import Identity
from layerscope.stores import datasets
from layerscope.stores.datasets import Dataset, PartArrays, channel_statistics
from tests.functions.asking import get
from tests.functions.bucket import Bucket, services
from tests.functions.test_pages import page, text_of

pytestmark = pytest.mark.slow

CLASSES = ("ant", "bee", "cat")
NET, BARE = Identity("insects", "net", "1"), Identity("insects", "bare", "1")
PATH = f"/models/{NET.subject}/layers"
DEAD, CONSTANT, HIDDEN = 1, 4, 20
IMAGES = 60


def part() -> PartArrays:
    random = np.random.default_rng(0)
    return PartArrays(random.integers(0, 255, (IMAGES, 12, 10, 3), np.uint8), np.arange(IMAGES, dtype=np.int64) % 3)


class Network(nn.Module):
    """A network whose first convolution has a dead channel and a constant one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, HIDDEN, 3)
        self.act = nn.ReLU()
        self.mix = nn.Conv2d(HIDDEN, HIDDEN, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.again = nn.Conv2d(HIDDEN, 40, 2)
        self.flat = nn.Flatten()
        self.hidden = nn.Linear(40, 6)
        self.sign = nn.Tanh()
        self.head = nn.Linear(6, 3)
        assert self.stem.bias is not None
        with torch.no_grad():
            self.stem.weight[[DEAD, CONSTANT]] = 0
            self.stem.bias[DEAD], self.stem.bias[CONSTANT] = -1, 0.5
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.pool(self.mix(self.act(self.stem(x)))))
        found: Tensor = self.head(self.sign(self.hidden(self.flat(x))))
        return found


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Services:
    made = services(tmp_path_factory.mktemp("system"))
    datasets.write(made.store, "insects", CLASSES, {"test": part(), "probe": part().take(np.arange(12))})
    bucket, bare = Bucket(made.store, NET), Bucket(made.store, BARE)
    bucket.admit()
    described = bucket.facts.dataset
    assert described is not None
    model = safe_form.build(safe_form.read(safe_form.pack(Network())))
    dataset = Dataset(described, {"test": part(), "probe": part().take(np.arange(12))})
    bucket.write(summarised(model, "cpu", described.shape))
    bucket.write(compared(model, dataset, "cpu"))
    bucket.write(activated(model, dataset, "cpu"))
    outputs = predicted(model, dataset, "cpu")
    bucket.write(outputs)
    bucket.write(shown(outputs, dataset))
    bucket.write(made_for(model, dataset, "cpu"))
    bucket.refuse_rest()
    bare.admit(content=b"others")
    return made


def stem_output() -> np.ndarray:
    """Return what the first convolution puts out for every test image, by torch."""
    mean, std = channel_statistics(part().images)
    description = DatasetDescription(name="insects", classes=CLASSES, shape=(12, 10, 3), mean=mean, std=std, parts={})
    with torch.inference_mode():
        found: np.ndarray = Network().stem(normalised(part().images, description, "cpu")).numpy()
    return found


def test_a_layer_is_told_with_what_it_is_and_costs(given: Services) -> None:
    found = get(given, f"{PATH}/stem")
    module = Network().stem
    assert (found["layer"], found["type"], found["called"]) == ("stem", "Conv2d", True)
    assert (found["input"], found["output"]) == ([3, 12, 10], [HIDDEN, 10, 8])
    assert found["parameters"] == sum(one.numel() for one in module.parameters())
    assert found["parameters_in_all"] == sum(one.numel() for one in Network().parameters())
    assert found["multiply_adds"] == 10 * 8 * HIDDEN * 27
    assert found["arguments"] == {"in_channels": 3, "kernel_size": 3, "out_channels": HIDDEN}
    assert (found["previous"], found["next"]) == (None, "act")
    assert found["similar"] == f"{PATH}/stem/similar"
    assert found["health"]["state"] == "ok"
    plain = get(given, f"{PATH}/act")
    assert (plain["parameters"], plain["health"], plain["similar"]) == (0, None, None)
    assert plain["channels"] is None and "ranked for convolutions" in plain["channels_reason"]


def test_every_layer_is_reached_from_the_one_before_it(given: Services) -> None:
    seen: list[str] = []
    name: Any = "stem"
    while name is not None:
        found = get(given, f"{PATH}/{name}")
        assert found["previous"] == (seen[-1] if seen else None)
        seen.append(name)
        name = found["next"]
    assert seen == [name for name, _ in Network().named_children()]


@pytest.mark.parametrize("by", ["positive", "raw", "maximum"])
def test_all_channels_are_listed_by_pages_with_their_strongest_images(given: Services, by: str) -> None:
    maps = stem_output()
    active = np.maximum(maps, 0)
    scores = {
        "positive": np.sqrt(np.square(active).sum((2, 3))),
        "raw": np.sqrt(np.square(maps).sum((2, 3))),
        "maximum": active.max((2, 3)),
    }[by]
    lines: list[Any] = []
    cursor: str | None = "0"
    while cursor is not None:
        found = get(given, f"{PATH}/stem", by=by, limit=7, cursor=cursor)["channels"]
        lines += found["lines"]
        cursor = found["next"]
    assert [one["channel"] for one in lines] == list(range(HIDDEN))
    for one in lines:
        truth = scores[:, one["channel"]]
        images = [image["index"] for image in one["images"]]
        np.testing.assert_allclose([image["score"] for image in one["images"]], np.sort(truth)[::-1][:9], rtol=1e-4)
        np.testing.assert_allclose(truth[images], np.sort(truth)[::-1][:9], rtol=1e-4)
        labels = [CLASSES[index % 3] for index in images]
        assert [image["label_name"] for image in one["images"]] == labels
        assert all(
            f"/datasets/insects/images/{image['index']}.png?sha256=" in image["picture"] for image in one["images"]
        )


def test_dead_and_constant_channels_are_marked_and_no_others(given: Services) -> None:
    found = get(given, f"{PATH}/stem")
    marked = {one["channel"]: one["signs"] for one in found["channels"]["lines"] if one["signs"]}
    assert marked == {DEAD: ["dead"], CONSTANT: ["constant"]}
    assert [one["kind"] for one in found["signs"]] == ["channels_dead", "channels_constant"]
    for only, channel in (("dead", DEAD), ("constant", CONSTANT)):
        narrowed = get(given, f"{PATH}/stem", only=only)["channels"]
        assert [one["channel"] for one in narrowed["lines"]] == [channel]
    assert get(given, f"{PATH}/stem", only="not_finite")["channels"]["total"] == 0
    assert get(given, f"{PATH}/mix")["signs"] == []


def test_the_strongest_channels_come_first_where_that_is_asked_for(given: Services) -> None:
    strongest = np.sqrt(np.square(np.maximum(stem_output(), 0)).sum((2, 3))).max(0)
    lines = get(given, f"{PATH}/stem", sort="strongest")["channels"]["lines"]
    assert [one["channel"] for one in lines] == np.argsort(-strongest, kind="stable").tolist()
    np.testing.assert_allclose([one["norm"] for one in lines], np.sort(strongest)[::-1], rtol=1e-4, atol=1e-6)


def test_a_channel_has_its_rankings_its_map_and_its_neighbours(given: Services) -> None:
    maps = np.maximum(stem_output(), 0)
    norms = np.sqrt(np.square(maps).sum((2, 3)))
    channel = int(np.argsort(-norms.max(0))[2])
    found = get(given, f"{PATH}/stem/channels/{channel}")
    assert (found["place"], found["channels"], found["shape"]) == (3, HIDDEN, [HIDDEN, 10, 8])
    assert [one["by"] for one in found["rankings"]] == ["positive", "raw", "maximum"]
    first = found["rankings"][0]["images"][0]["index"]
    assert first == found["map"]["image"] == int(norms[:, channel].argmax())
    assert found["map"]["high"] == pytest.approx(float(maps[first, channel].max()), rel=1e-4)
    assert (found["map"]["map"]["place"]["w"], found["map"]["map"]["place"]["h"]) == (8, 10)
    assert found["image_size"] == [12, 10]
    assert (found["previous"], found["next"]) == (channel - 1, channel + 1)
    assert found["made"] is None and "last convolution" in found["made_reason"]
    weakest = get(given, f"{PATH}/stem/channels/{DEAD}")
    assert (weakest["signs"], weakest["map"]) == (["dead"], None)
    assert "16 channels" in weakest["map_reason"]


def test_a_unit_without_positions_has_images_and_no_map(given: Services) -> None:
    found = get(given, f"{PATH}/hidden/channels/2")
    assert (found["type"], found["shape"], found["map"]) == ("Linear", [6], None)
    assert "one number an image" in found["map_reason"]
    assert [len(one["images"]) for one in found["rankings"]] == [9, 9, 9]
    told = text_of(page(given, f"{PATH}/hidden/channels/2"))
    assert "Unit 2 of layer hidden (Linear)" in told and "none: one number an image" in told
    assert "6 units." in text_of(page(given, f"{PATH}/hidden"))
    assert "neither" not in told and get(given, f"{PATH}/head")["channels"] is None


def test_a_channel_of_the_last_convolution_has_the_picture_made_for_it(given: Services) -> None:
    found = get(given, f"{PATH}/again/channels/5")["made"]
    assert found["measured"] == "again" and "does not prove" in found["caveat"]
    beyond = get(given, f"{PATH}/again/channels/39")
    assert beyond["made"] is None and "first 32 channels" in beyond["made_reason"]


def test_what_is_not_there_is_said_with_what_was_meant(given: Services) -> None:
    wrong = get(given, f"{PATH}/stam", 404)
    assert (wrong["code"], wrong["hint"]) == ("no-such-layer", "did you mean stem?")
    assert "they begin: stem, act" in get(given, f"{PATH}/features.12", 404)["hint"]
    beyond = get(given, f"{PATH}/stem/channels/20", 404)
    assert beyond["code"] == "no-such-channel" and "20 channels, counted from 0" in beyond["message"]
    assert get(given, f"{PATH}/act/channels/0", 409)["code"] == "no-channels"
    computing = get(given, f"/models/{BARE.subject}/layers/stem", 409)
    assert computing["code"] == "layers-computing"
    assert get(given, "/models/insects/nobody/1/layers/stem", 404)["code"] == "no-such-model"


def test_the_pages_say_the_same(given: Services) -> None:
    told = page(given, f"{PATH}/stem")
    assert "Layer stem (Conv2d)" in text_of(told)
    assert "1 of 20 channels has no response above 0 on any test image: it is dead." in text_of(told)
    assert f'href="{PATH}/stem/channels/{DEAD}"' in told
    healthy = text_of(page(given, f"{PATH}/again"))
    assert "dead." not in healthy and "No activation follows this layer" in healthy
    channel = page(given, f"{PATH}/stem/channels/{DEAD}")
    assert "It is dead" in text_of(channel)
    assert f'rel="next" href="{PATH}/stem/channels/{DEAD + 1}"' in channel
    assert "did you mean stem?" in text_of(page(given, f"{PATH}/stam", 404))
    assert f'href="{PATH}/stem#channels"' in page(given, f"/models/{NET.subject}")


HEALTHY: dict[str, Any] = {"state": "ok", "input_like": False}
ALIVE: dict[str, Any] = {"state": "ok", "type": "Conv2d", "channels": 8, "dead": [], "constant": [], "non_finite": []}


@pytest.mark.parametrize(
    ("health", "activation", "kinds"),
    [
        (HEALTHY, ALIVE, []),
        (None, None, []),
        (HEALTHY, {**ALIVE, "state": "unbatched", "dead": [1]}, []),
        ({**HEALTHY, "state": "non_finite"}, ALIVE, ["not_finite"]),
        ({**HEALTHY, "state": "constant"}, {**ALIVE, "dead": [0], "constant": [0]}, ["constant", "channels_dead"]),
        (HEALTHY, {**ALIVE, "non_finite": [2]}, ["channels_not_finite"]),
        (HEALTHY, {**ALIVE, "dead": [0, 1], "constant": [0, 1, 2]}, ["channels_dead", "channels_constant"]),
        ({**HEALTHY, "state": "unbatched"}, None, ["unbatched"]),
        ({**HEALTHY, "input_like": True}, ALIVE, ["input_like"]),
    ],
)
def test_a_sign_is_there_for_what_the_products_say_and_for_nothing_else(
    health: dict[str, Any] | None, activation: dict[str, Any] | None, kinds: list[str]
) -> None:
    assert [one.kind for one in signs(health, activation)] == kinds


def test_a_dead_channel_is_not_also_called_constant() -> None:
    health = ChannelHealth.of({"dead": [0], "constant": [0, 1], "non_finite": [2]})
    assert [health.signs(k) for k in range(4)] == [("dead",), ("constant",), ("not_finite",), ()]
