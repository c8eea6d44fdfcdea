"""A function that fails for everyone takes nobody until a trial succeeds; a model that fails alone harms nobody."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import httpx
import pytest
from prometheus_client import REGISTRY

from layerscope.events.cloudevent import compose
from layerscope.functions.admit.func import Admit
from layerscope.functions.runtime.circuit import FAILURES, LONGEST_PAUSE_SECONDS, PAUSE_SECONDS, Circuit
from layerscope.functions.runtime.handler import ProductFunction
from layerscope.functions.runtime.http_server import application
from layerscope.functions.runtime.services import Services, embedded
from layerscope.schemas import keys
from layerscope.schemas.errors import CircuitOpen, Ignored, Refused, SetAside, Unavailable, WorkFailed
from layerscope.schemas.events import ModelUploaded
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.evaluation import Evaluation
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import product_store
from layerscope.stores.datasets import Dataset
from layerscope.stores.product_store import Making
from tests.functions.runtime.test_handler import System, event, post

BUG = WorkFailed("the computation raised KeyError")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit("evaluation", clock)


def attempt(circuit: Circuit, subject: str, error: Exception | None = None) -> None:
    with circuit.trying(subject):
        if error is not None:
            raise error


def fail(circuit: Circuit, *subjects: str, error: Exception = BUG) -> None:
    for subject in subjects:
        with pytest.raises(type(error)):
            attempt(circuit, subject, error)


def models(number: int) -> list[str]:
    return [f"digits/m{place}/1" for place in range(number)]


def test_after_several_models_in_a_row_it_takes_no_more_and_says_why(circuit: Circuit) -> None:
    fail(circuit, *models(FAILURES))
    with pytest.raises(CircuitOpen, match=f"failed for {FAILURES} models in a row .*KeyError.*next trial is in 30 s"):
        attempt(circuit, "digits/new/1")
    assert circuit.reason is not None
    assert REGISTRY.get_sample_value("layerscope_circuit_open", {"function": "evaluation"}) == 1


def test_fewer_failures_a_success_between_them_or_one_model_that_fails_for_ever_do_not_open_it(
    circuit: Circuit,
) -> None:
    fail(circuit, *models(FAILURES - 1))
    attempt(circuit, "digits/good/1")
    fail(circuit, *models(FAILURES - 1))
    fail(circuit, *["digits/m0/1"] * 3 * FAILURES)
    assert circuit.reason is None
    attempt(circuit, "digits/good/1")


@pytest.mark.parametrize(
    "error",
    [
        Refused("odd", "It is odd."),
        Ignored("superseded"),
        Unavailable("the store is down"),
        SetAside("five attempts"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_is_no_failure_of_the_function_does_not_open_it(circuit: Circuit, error: Exception) -> None:
    fail(circuit, *models(3 * FAILURES), error=error)
    assert circuit.reason is None


def test_a_refusal_is_the_answer_of_a_function_that_works(circuit: Circuit) -> None:
    fail(circuit, *models(FAILURES - 1))
    fail(circuit, "digits/odd/1", error=Refused("odd", "It is odd."))
    fail(circuit, *models(FAILURES - 1))
    assert circuit.reason is None


def test_after_the_pause_one_trial_is_let_through_and_closes_it(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, *models(FAILURES))
    clock.now += PAUSE_SECONDS + 1
    assert circuit.reason is None  # or no trial would ever be sent
    with circuit.trying("digits/new/1"), pytest.raises(CircuitOpen, match="being tried"):
        attempt(circuit, "digits/another/1")
    attempt(circuit, "digits/another/1")
    fail(circuit, "digits/m0/1")
    assert circuit.reason is None
    assert REGISTRY.get_sample_value("layerscope_circuit_open", {"function": "evaluation"}) == 0


def test_a_trial_that_fails_opens_it_for_longer_up_to_a_limit(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, *models(FAILURES))
    pauses = []
    for place in range(8):
        pause = circuit._until - clock.now
        clock.now += pause - 1
        fail(circuit, "digits/early/1", error=CircuitOpen("its pause is not over"))
        clock.now += 2
        pauses.append(pause)
        fail(circuit, f"digits/trial{place}/1")
    assert pauses[:3] == [PAUSE_SECONDS, 2 * PAUSE_SECONDS, 4 * PAUSE_SECONDS]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_what_was_under_way_as_it_opened_does_not_lengthen_the_pause(circuit: Circuit, clock: Clock) -> None:
    with pytest.raises(WorkFailed), circuit.trying("digits/slow/1"):
        fail(circuit, *models(FAILURES))
        raise BUG
    clock.now += PAUSE_SECONDS + 1
    assert circuit.reason is None


def test_a_trial_that_ends_in_circumstances_leaves_the_next_one_its_turn(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, *models(FAILURES))
    clock.now += PAUSE_SECONDS + 1
    fail(circuit, "digits/new/1", error=Unavailable("the store is down"))
    attempt(circuit, "digits/new/1")


def test_a_model_that_has_not_failed_is_tried_before_those_that_have(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, *models(FAILURES))
    with pytest.raises(CircuitOpen):
        attempt(circuit, "digits/good/1")
    clock.now += PAUSE_SECONDS + 1
    with pytest.raises(CircuitOpen, match="has not failed"):
        attempt(circuit, "digits/m0/1")
    attempt(circuit, "digits/good/1")
    fail(circuit, "digits/m0/1")


def test_one_that_does_not_come_back_for_its_trial_holds_it_up_no_longer_than_a_pause(
    circuit: Circuit, clock: Clock
) -> None:
    fail(circuit, *models(FAILURES))
    with pytest.raises(CircuitOpen):
        attempt(circuit, "digits/gone/1")
    clock.now += 2 * PAUSE_SECONDS + 1
    attempt(circuit, "digits/m0/1")


# Over HTTP ------------------------------------------------------------------------------------------------------------


def test_a_host_of_one_is_not_ready_and_one_of_several_is_while_another_works(services: Services) -> None:
    async def readiness(*functions: ProductFunction) -> httpx.Response:
        transport = httpx.ASGITransport(app=application(*functions))
        async with httpx.AsyncClient(transport=transport, base_url="http://host") as caller:
            return await caller.get("/health/readiness")

    async def scenario() -> None:
        broken, works = ProductFunction(ConfusionMatrix, _never), ProductFunction(Evaluation, _never)
        for one in (broken, works):
            one.attach(services)
        fail(broken.circuit, *models(FAILURES))
        alone, both = await readiness(broken), await readiness(broken, works)
        assert (alone.status_code, both.status_code) == (503, 200)
        assert "failed for 5 models in a row" in alone.text
        assert "confusion_matrix: confusion_matrix failed for 5 models" in both.text
        fail(works.circuit, *models(FAILURES))
        assert (await readiness(broken, works)).status_code == 503
        for one in (broken, works):
            one.stop()

    asyncio.run(scenario())


def with_a_bug(predictions: Predictions, dataset: Dataset) -> ConfusionMatrix:
    raise KeyError("for every model")


@pytest.mark.slow
def test_the_model_that_opens_it_is_answered_500_and_the_next_503_with_the_reason_but_what_is_there_is_told(
    tmp_path: Path,
) -> None:
    async def answers(system: System) -> list[httpx.Response]:
        function = ProductFunction(ConfusionMatrix, with_a_bug)
        function.attach(system.services)
        try:
            fail(function.circuit, *models(FAILURES - 1))
            found = [await post(function, event()), await post(function, event())]
            assert function.ready()[0] is False
            made = ConfusionMatrix(
                classes=("a", "b"),
                counts=((1, 0), (0, 1)),
                rates=((1, 0), (0, 1)),
                left_out=0,
                most_confused=(),
                heatmap=b"",
            )
            product_store.write(system.services.store, made, system.facts, Making())
            return [*found, await post(function, event())]
        finally:
            function.stop()

    system = System(tmp_path)
    system.predict()
    bug, turned_away, there = asyncio.run(answers(system))
    assert (bug.status_code, bug.headers["kne-errorclass"]) == (500, "WorkFailed")
    assert (turned_away.status_code, turned_away.headers["kne-errorclass"]) == (503, "CircuitOpen")
    assert "confusion_matrix failed for 5 models in a row (the computation raised KeyError)" in turned_away.text
    assert there.status_code == 200


@pytest.mark.slow
def test_admit_has_one_too(tmp_path: Path) -> None:
    async def answer(system: System) -> httpx.Response:
        function = Admit()
        function.attach(system.services)
        try:
            fail(function.circuit, *models(FAILURES))
            system.services.store.put(keys.MODELS, "digits/new/1.pth", b"an upload")
            data = ModelUploaded(bucket=keys.MODELS, key="digits/new/1.pth", etag="e")
            return await post(function, compose(data, source="/tests", subject="digits/new/1"))
        finally:
            function.stop()

    found = asyncio.run(answer(System(tmp_path)))
    assert (found.status_code, found.headers["kne-errorclass"]) == (503, "CircuitOpen")


def _never(**_: object) -> ConfusionMatrix:
    raise AssertionError


@pytest.fixture
def services(tmp_path: Path) -> Services:
    return embedded(tmp_path)
