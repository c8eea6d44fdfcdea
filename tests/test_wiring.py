"""A product or function is whole only if every place that must know of it does; each test here names what is missing.

What is a matter of files is in `wiring.py`, and is tested with things taken away from a copy.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerscope.dataplane import manifests
from layerscope.dataplane.resources import Subscription, System
from layerscope.events.cloudevent import compose
from layerscope.events.topics import ANNOUNCE_GROUP, DEAD_LETTERS, EVENTS, S3_RAW, TOPICS, trigger_group
from layerscope.functions.replay.func import PING
from layerscope.functions.runtime.backlog import wakes
from layerscope.functions.runtime.handler import EventFunction, ProductFunction
from layerscope.schemas.events import (
    EventData,
    ModelAdmitted,
    ModelUploaded,
    ProductRefused,
    ProductRequested,
    ProductWritten,
)
from layerscope.schemas.products import declared_products
from layerscope.schemas.products.product import Declaration
from layerscope.systems import MANIFESTS
from tests import wiring
from tests.wiring import PRODUCTS

ROOT = Path(__file__).parents[1]
NAMES = wiring.functions(ROOT)
ASKED = ("inference", "query", "stage")  # over HTTP, by query, by people, and by other stages
WITHOUT_TRIGGER = ("announce", "replay", *ASKED)  # fed by a KafkaSource, by two sources, and not by events
TRIGGERED = [name for name in NAMES if name not in WITHOUT_TRIGGER]
ONE_TRIGGER = ("index", "notify")  # for all lanes
SERVING_SECONDS = 600.0
RELEASE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.fixture(scope="module")
def system() -> System:
    return manifests.load(MANIFESTS)


@pytest.mark.parametrize("lacking", wiring.CHECKS)
def test_nothing_is_missing(lacking: Callable[[Path], Iterator[str]]) -> None:
    found = list(lacking(ROOT))
    assert not found, "\n".join(["", *found])


def made(name: str) -> Any:
    return importlib.import_module(f"layerscope.functions.{name}.func").new()


def test_every_folder_is_a_function_that_func_can_build() -> None:
    for name in NAMES:
        folder = ROOT / "functions" / name
        described = yaml.safe_load((folder / "func.yaml").read_text())
        kind = (described["name"], described["runtime"], described["invoke"])
        assert kind == (name.replace("_", "-"), "python", "http")
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        assert project["project"]["name"] == "function"
        wheel = rf"layerscope(\[compute\])?=={re.escape(RELEASE)}; python_version >= '3.11'"
        assert re.fullmatch(wheel, *project["project"]["dependencies"]), name
        included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
        assert included == {"func.py": "function/__init__.py"}, name
        assert importlib.import_module(f"layerscope.functions.{name}").__doc__, name


def test_every_function_answers_events_or_is_asked_over_http() -> None:
    for name in NAMES:
        assert name in ASKED or isinstance(made(name), EventFunction), name
        for method in ("handle", "start", "stop", "alive", "ready"):
            assert callable(getattr(made(name), method)), name


def test_a_function_has_torch_where_its_product_reads_the_model() -> None:
    for product in declared_products():
        text = (ROOT / "functions" / product.declared.name / "pyproject.toml").read_text()
        assert ("layerscope[compute]" in text) == product.declared.reads_model, product.declared.name


def arguments(declared: Declaration) -> list[str]:
    """Return what `compute` of a product takes."""
    kinds = [
        (declared.parts or declared.optional_parts, ["dataset"]),
        (declared.reads_model, ["model", "device"]),
        (declared.takes_shape, ["shape"]),
        (declared.sidecars, ["sidecars"]),
    ]
    return [one.declared.name for one in declared.stands_on] + [
        name for given, names in kinds if given for name in names
    ]


def test_compute_takes_what_the_schema_declares() -> None:
    for product in declared_products():
        name = product.declared.name
        function = made(name)
        assert isinstance(function, ProductFunction), name
        assert function.product is product, name
        assert sorted(inspect.signature(function.maths).parameters) == sorted(arguments(product.declared)), name


def test_what_a_product_can_do_without_stands_on_nothing() -> None:
    """Only an event brings what waits for it back, and what is ruled out by its own inputs has none."""
    for product in declared_products():
        assert [one for one in product.declared.optional if one.declared.stands_on] == [], product.declared.name
        assert not set(product.declared.optional) & set(product.declared.inputs), product.declared.name


def test_every_function_has_its_services(system: System) -> None:
    for name in NAMES:
        assert system.services[name.replace("_", "-")].functions == (name,)
    for product in declared_products():
        service = system.services[product.declared.name.replace("_", "-")]
        assert service.on_gpu == product.declared.on_gpu, product.declared.name
        assert service.limit_seconds is not None, product.declared.name


def triggers_of(name: str, system: System) -> list[Subscription]:
    wanted = [name.replace("_", "-") + lane for lane in lanes(name)]
    return [one for one in system.triggers if one.name in wanted]


def lanes(name: str) -> tuple[str, ...]:
    return ("",) if name in ONE_TRIGGER else ("", "-replay")


def test_every_function_has_a_trigger_a_lane_and_no_trigger_is_left_over(system: System) -> None:
    expected = [name.replace("_", "-") + lane for name in TRIGGERED for lane in lanes(name)]
    assert sorted(one.name for one in system.triggers) == sorted(expected)
    for trigger in system.triggers:
        assert trigger.group == trigger_group(trigger.namespace, trigger.name), trigger.name
        assert trigger.delivery.dead_letter_topic == DEAD_LETTERS, trigger.name
        assert trigger.delivery.retry > 0, trigger.name


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


def test_triggers_let_through_what_the_code_says_wakes_the_function(system: System) -> None:
    for data, lane in [(data, lane) for data in TOLD for lane in ("", "replay")]:
        event = compose(data, source="/tests", subject="d/m/1", **({"lane": lane} if lane else {}))
        for name in [one for one in TRIGGERED if one not in ONE_TRIGGER]:
            passed = [one.name for one in triggers_of(name, system) if one.filter.matches(event.attributes())]
            expected = [name.replace("_", "-") + ("-replay" if lane else "")] if wakes(name, event) else []
            assert passed == expected, (name, data, lane)


def test_sources_feed_what_the_code_expects(system: System) -> None:
    announce, dead_letters = sorted(system.sources, key=lambda one: one.name)
    assert (announce.topic, announce.group, announce.service) == (S3_RAW, ANNOUNCE_GROUP, "announce")
    assert announce.delivery.dead_letter_topic == DEAD_LETTERS
    assert (dead_letters.topic, dead_letters.service) == (DEAD_LETTERS, "replay")


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
