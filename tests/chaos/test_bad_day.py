"""The promise on bad days: everything uploaded is analysed, once, and equal to a fault-free run, whatever happens meanwhile.

A seed decides what happens and when; it is printed, and `LAYERSCOPE_CHAOS_SEED` runs it again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from layerscope.functions.replay.func import Replay
from layerscope.functions.replay.missing import missing
from layerscope.functions.runtime.services import connect
from layerscope.functions.runtime.settings import Settings
from layerscope.schemas import keys
from layerscope.stores.outcomes.known import KnownOutcomes
from tests.chaos import faults
from tests.chaos.faults import FAULTS, Sufferer
from tests.chaos.ledger import Ledger, outcomes
from tests.small_networks import PRODUCTS, tiny
from tests.stack import RealStack, eventually

UPLOADS = int(os.environ.get("LAYERSCOPE_CHAOS_UPLOADS", "100"))
BREAKDOWNS = int(os.environ.get("LAYERSCOPE_CHAOS_FAULTS", "30"))
SEED = int(os.environ.get("LAYERSCOPE_CHAOS_SEED", "13"))
UNANNOUNCED = int(os.environ.get("LAYERSCOPE_CHAOS_UNANNOUNCED", "10"))
CONTENTS = 4
SETTLE_SECONDS = 1800 + 4 * UPLOADS  # a busy machine takes long; what is lost would take for ever

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(2 * SETTLE_SECONDS)]


@pytest.fixture(scope="module")
def models() -> list[bytes]:
    return [tiny(seed) for seed in range(CONTENTS)]


@pytest.fixture(scope="module")
def fault_free(stack: RealStack, models: list[bytes]) -> list[dict[str, Any]]:
    """Return the outcomes of each content when nothing happens to it."""
    calm = Ledger(stack, models)
    for number in range(CONTENTS):
        calm.put(f"digits/calm/{number}", number)
    calm.settle(SETTLE_SECONDS)
    return [outcomes(stack, f"digits/calm/{number}") for number in range(CONTENTS)]


@pytest.fixture
def one(stack: RealStack) -> Iterator[Sufferer]:
    with faults.sufferer(stack, SEED) as made:
        yield made


def test_nothing_is_lost_nor_made_twice_on_a_bad_day(
    one: Sufferer, models: list[bytes], fault_free: list[dict[str, Any]]
) -> None:
    stack, chance = one.stack, one.chance
    # Given uploads, some overwritten and some removed, and faults at random places among them
    ledger = Ledger(stack, models)
    chosen = chance.choices(list(FAULTS), weights=list(FAULTS.values()), k=BREAKDOWNS)
    due = sorted(((chance.uniform(1, UPLOADS), number) for number in range(BREAKDOWNS)), reverse=True)
    said = []
    for number in range(UPLOADS):
        while due and due[-1][0] <= number:
            said.append(chosen[due.pop()[1]](one))
        ledger.put(f"digits/bad-day-{SEED}/{number}", number)
        if number % 20 == 7:
            ledger.put(f"digits/bad-day-{SEED}/{number}", number + 1)
        if number % 25 == 11:
            ledger.remove(f"digits/bad-day-{SEED}/{number}")
        time.sleep(chance.uniform(0, 0.5))
    said += [chosen[number](one) for _, number in reversed(due)]
    print(f"\nseed {SEED}: {len(ledger.held)} uploads, {len(said)} faults\n  " + "\n  ".join(said))
    # Then every one that still exists is complete
    print(f"  drained {ledger.settle(SETTLE_SECONDS):.0f} s after the last upload")
    # And what was damaged unseen is found by those who look at everything
    swept(stack)
    ledger.settle(SETTLE_SECONDS)
    # And nothing is lost, made twice, half written or other than without faults
    differing, checked = Counter[str](), set[str]()
    for subject, number in ledger.held.items():
        found = outcomes(stack, subject, checked)
        current = {name: found.get(name) for name in fault_free[number]}
        differing[subject] += current != fault_free[number]
    assert +differing == Counter()
    assert {name.partition(" ")[2] for name in fault_free[0]} == PRODUCTS
    listed = {f"{m['dataset']}/{m['model']}/{m['version']}" for m in every_model(stack)}
    assert ledger.held.keys() <= listed
    assert not ledger.removed & listed


def swept(stack: RealStack) -> None:
    """Look at every object until nothing is missing, as the rounds of an hour do bit by bit."""
    replay = Replay()
    replay.attach(connect(Settings.read(stack.stack.function_environment())))
    services = replay.services

    def nothing_is_missing() -> bool:
        asks = list(missing(services.store, services.vectors, KnownOutcomes(), ask_failed=True, thorough=True))
        asyncio.run(replay.ask(asks))
        return not asks

    try:
        eventually(nothing_is_missing, seconds=SETTLE_SECONDS, every=5)
    finally:
        services.vectors.close()
        services.log.close()


def every_model(stack: RealStack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = stack.query.get("/models", params={"cursor": cursor} if cursor else None).raise_for_status().json()
        found += page["models"]
        cursor = page["next"]
        if cursor is None:
            return found


def test_uploads_that_were_never_announced_are_all_found(one: Sufferer, models: list[bytes]) -> None:
    stack = one.stack
    given = one.s3.get_bucket_notification_configuration(Bucket=keys.MODELS)
    given.pop("ResponseMetadata")
    # Given uploads of which the store tells nobody
    ledger = Ledger(stack, models)
    one.s3.put_bucket_notification_configuration(Bucket=keys.MODELS, NotificationConfiguration={})
    try:
        for number in range(UNANNOUNCED):
            ledger.put(f"digits/unannounced/{number}", number)
    finally:
        one.s3.put_bucket_notification_configuration(Bucket=keys.MODELS, NotificationConfiguration=given)
    start = time.monotonic()
    # Then each of them is asked for, and computed
    waiting = set(ledger.held)
    while waiting:
        waiting -= {s for s in waiting if _is_known(stack, s)}
        assert time.monotonic() - start < SETTLE_SECONDS
        time.sleep(1)
    print(f"\n{UNANNOUNCED} uploads without a notification: all found within {time.monotonic() - start:.0f} s")
    ledger.settle(SETTLE_SECONDS)


def _is_known(stack: RealStack, subject: str) -> bool:
    return any(stack.store.list(keys.PRODUCTS, f"{keys.UPLOADS}{subject}/"))
