"""A product or function is whole only if every place that must know of it does; each test here names what is missing."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from layerscope.dataplane import resources
from layerscope.dataplane.resources import Subscription, System
from layerscope.events.cloudevent import compose
from layerscope.events.topics import ANNOUNCE_GROUP, DEAD_LETTERS, EVENTS, S3_RAW, TOPICS, trigger_group
from layerscope.functions.__main__ import names
from layerscope.functions.replay.backlog import wakes
from layerscope.functions.replay.func import PING
from layerscope.functions.runtime.handler import EventFunction, ProductFunction
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas.events import (
    EventData,
    ModelAdmitted,
    ModelUploaded,
    ProductRefused,
    ProductRequested,
    ProductWritten,
)
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Product
from layerscope.systems import MANIFESTS

ROOT = Path(__file__).parents[1]
PRODUCTS = [one.declared.name for one in declared_products()]
WITHOUT_TRIGGER = {"announce", "query", "replay"}  # fed by a KafkaSource, by people, and by two sources
SERVING_SECONDS = 600.0


@pytest.fixture(scope="module")
def system() -> System:
    return resources.load(MANIFESTS)


def test_every_product_has_its_function() -> None:
    assert set(PRODUCTS) <= set(names())


@pytest.mark.parametrize("name", names())
def test_every_folder_is_a_function_that_func_can_build(name: str) -> None:
    folder = ROOT / "functions" / name
    described = yaml.safe_load((folder / "func.yaml").read_text())
    assert (described["name"], described["runtime"], described["invoke"]) == (name.replace("_", "-"), "python", "http")
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "function"
    assert re.match(r"layerscope(\[compute\])? @ \{root:uri\}/\.\./\.\.$", project["project"]["dependencies"][0])
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"] == {"func.py": "function/__init__.py"}
    made = importlib.import_module(f"layerscope.functions.{name}.func").new()
    for method in ("handle", "start", "stop", "alive", "ready"):
        assert callable(getattr(made, method))
    assert importlib.import_module(f"layerscope.functions.{name}").__doc__


@pytest.mark.parametrize("product", declared_products(), ids=PRODUCTS)
def test_compute_takes_what_the_schema_declares(product: type[Product]) -> None:
    declared = product.declared
    made = importlib.import_module(f"layerscope.functions.{declared.name}.func").new()
    assert isinstance(made, ProductFunction)
    assert made.product is product
    expected = {one.declared.name for one in declared.inputs}
    expected |= {"dataset"} if declared.parts else set()
    expected |= {"model", "device"} if declared.reads_model else set()
    expected |= {"shape"} if declared.takes_shape else set()
    expected |= {"sidecars"} if declared.sidecars else set()
    assert set(inspect.signature(made.maths).parameters) == expected


@pytest.mark.parametrize("name", names())
def test_every_function_has_its_services(name: str, system: System) -> None:
    service = system.services[name.replace("_", "-")]
    assert service.function == name
    if name in PRODUCTS:
        (product,) = (one for one in declared_products() if one.declared.name == name)
        assert (service.gpus == 1) == product.declared.on_gpu
        assert service.limit_seconds is not None


def triggers_of(name: str, system: System) -> list[Subscription]:
    lanes = [""] if name == "index" else ["", "-replay"]
    wanted = [name.replace("_", "-") + lane for lane in lanes]
    return [one for one in system.triggers if one.name in wanted]


@pytest.mark.parametrize("name", sorted(set(names()) - WITHOUT_TRIGGER))
def test_every_function_has_a_live_and_a_replay_trigger(name: str, system: System) -> None:
    triggers = triggers_of(name, system)
    assert len(triggers) == (1 if name == "index" else 2)
    for trigger in triggers:
        assert trigger.group == trigger_group(trigger.namespace, trigger.name)
        assert trigger.delivery.dead_letter_topic == DEAD_LETTERS
        assert trigger.delivery.retry > 0


def test_no_trigger_is_left_over(system: System) -> None:
    known = {one.name for name in names() for one in triggers_of(name, system)}
    assert {one.name for one in system.triggers} == known


WHO = {"dataset": "d", "model": "m", "version": "1"}
TOLD: list[EventData] = [
    ModelUploaded(bucket="models", key="d/m/1.pth", etag="e"),
    ModelAdmitted(**WHO, key="d/m/1.pth", etag="e", content="c" * 64),
    *(ProductRequested(**WHO, product=name) for name in [*PRODUCTS, "index"]),
    *(ProductWritten(**WHO, product=name, content="c" * 64, address="r1-a") for name in PRODUCTS),
    *(
        ProductRefused(**WHO, product=name, content="c" * 64, address="r1-a", refusal={"code": "c", "message": "m"})
        for name in PRODUCTS
    ),
]


@pytest.mark.parametrize("name", sorted(set(names()) - WITHOUT_TRIGGER - {"index"}))
@pytest.mark.parametrize("data", TOLD, ids=lambda one: f"{one.type}-{getattr(one, 'product', '')}")
def test_triggers_let_through_what_the_code_says_wakes_the_function(name: str, data: EventData, system: System) -> None:
    for lane in ("", "replay"):
        event = compose(data, source="/tests", subject="d/m/1", **({"lane": lane} if lane else {}))
        passed = [one.name for one in triggers_of(name, system) if one.filter.matches(event.attributes())]
        expected = [name.replace("_", "-") + ("-replay" if lane else "")] if wakes(name, event) else []
        assert passed == expected


@pytest.mark.parametrize("name", ["announce", "dead-letters"])
def test_sources_feed_what_the_code_expects(name: str, system: System) -> None:
    (source,) = (one for one in system.sources if one.name == name)
    if name == "announce":
        assert (source.topic, source.group, source.service) == (S3_RAW, ANNOUNCE_GROUP, "announce")
        assert source.delivery.dead_letter_topic == DEAD_LETTERS
    else:
        assert (source.topic, source.service) == (DEAD_LETTERS, "replay")


def test_the_timer_wakes_replay_every_minute(system: System) -> None:
    (ping,) = system.pings
    assert (ping.service, ping.period_seconds) == ("replay", 60)
    assert PING == "dev.knative.sources.ping"


def test_topics_are_those_of_the_code(system: System) -> None:
    assert dict(system.topics) == {topic.name: topic.partitions for topic in TOPICS}


def test_a_trigger_waits_longer_than_the_calls_it_can_have_in_flight_take(system: System) -> None:
    partitions = {topic.name: topic.partitions for topic in TOPICS}[EVENTS]
    for trigger in system.triggers:
        service = system.services[trigger.service]
        if service.limit_seconds is None:
            continue
        in_flight = partitions if trigger.ordered else 99
        at_once = service.concurrency or 99
        replicas = max(service.min_scale, 1) * at_once
        needed = service.limit_seconds * (in_flight / replicas + 1)
        assert needed < trigger.delivery.timeout_seconds <= SERVING_SECONDS, trigger.name
        assert trigger.delivery.timeout_seconds <= service.timeout_seconds <= SERVING_SECONDS, trigger.name


def test_the_readme_lists_every_setting_function_and_product() -> None:
    readme = (ROOT / "README.md").read_text()
    settings = {name.upper() for name in Settings.model_fields}
    assert settings - set(re.findall(r"`([A-Z0-9_]+)`", readme)) == set()
    assert set(names()) - set(re.findall(r"`([a-z_]+)`", readme)) == set()


def test_every_function_answers_as_one() -> None:
    for name in names():
        made = importlib.import_module(f"layerscope.functions.{name}.func").new()
        assert name == "query" or isinstance(made, EventFunction)
