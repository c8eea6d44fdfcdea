"""`doctor --deep` names each damaged object and no other, and repair then makes it again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from layerscope.schemas import keys
from layerscope.schemas.addresses import manifest_key
from layerscope.schemas.digests import canonical_json
from layerscope.schemas.errors import Unavailable
from layerscope.schemas.health import RepairHealth
from layerscope.schemas.manifests import Manifest, Refusal, RefusedKey, StoredJson
from layerscope.schemas.notifications import Notification
from layerscope.schemas.products.layer_vectors import LayerVectors
from layerscope.schemas.replays import Acceptance, DeadLetterRecord, Ending, Plan, Selection
from layerscope.stores import datasets, dead_letters, uploads
from layerscope.stores.inspection import INSPECTED, damaged
from layerscope.stores.replays import runs
from tests.functions.stored_models import Stored, said


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN, LETTER = "20260301T000000-0badcafe", "0" * 32
PARTS = ("plan", "progress", "end", "accepted", "cancel", "accept")
OPERATED = (
    *(f"run's {part}" for part in PARTS),
    "beside",
    "letter",
    "discarded",
    "refused key",
    "health",
    "notification",
)

BY_HAND = {one for one in OPERATED if one != "refused key"}


def operated(stored: Stored) -> list[tuple[str, StoredJson]]:
    """Return what operators and replay have written: keys and objects."""
    plan = Plan(selection=Selection(), entries=())
    run = runs.begin(stored.store, plan, rate=1, in_flight=1)
    stored.store.remove(keys.PRODUCTS, keys.replay(run.id, "plan"))
    run = run.model_copy(update={"id": RUN})
    letter = DeadLetterRecord(id=LETTER, function="summary", subject="a/b/1", type="t", reason="r", first=NOW, last=NOW)
    return [
        (keys.replay(RUN, "plan"), run),
        (keys.replay(RUN, "progress"), runs.progress(stored.store, run)),
        (keys.replay(RUN, "end"), Ending(state="finished", ended=NOW)),
        (keys.replay(RUN, "accepted"), Acceptance(at=NOW, replaced=0, equal=0)),
        (keys.dead_letter(LETTER), letter),
        (keys.discarded(LETTER), dead_letters.discard(stored.store, letter, "why")),
        (keys.notification(LETTER), Notification(state="told", subject="a/b/1", event="e", by="me", at=NOW)),
        (keys.refused_key("a b.pth"), RefusedKey(key="a b.pth", refusal=Refusal(code="c", message="m"))),
    ]


def test_every_place_of_the_products_that_a_key_can_have_is_inspected() -> None:
    told = {name: one for name, one in vars(keys).items() if name.isupper() and isinstance(one, str)}
    inside = [one for one in told.values() if one not in keys.BUCKETS]
    assert len(inside) >= 8
    assert [one for one in inside if not one.startswith(tuple(INSPECTED))] == []


def test_what_a_test_damages_is_of_every_place(stored: Stored) -> None:
    looked_at = {key for bucket, key in places(stored).values() if bucket == keys.PRODUCTS}
    assert [one for one in INSPECTED if not any(key.startswith(one) for key in looked_at)] == []


@pytest.mark.parametrize(
    ("key", "other", "fault"),
    [
        (keys.dead_letter("1" * 32), keys.dead_letter(LETTER), "is the DeadLetterRecord of something else"),
        (keys.replay(RUN.replace("2026", "2025"), "plan"), keys.replay(RUN, "plan"), "is the Run of something else"),
        ("replays/mine/plan.json", keys.replay(RUN, "plan"), "is of no run"),
    ],
)
def test_what_lies_in_the_place_of_another_is_named(stored: Stored, key: str, other: str, fault: str) -> None:
    places(stored)
    stored.store.put(keys.PRODUCTS, key, stored.store.get(keys.PRODUCTS, other))
    assert [(one.key, one.fault) for one in damaged(stored.store)] == [(key, fault)]


def test_progress_that_is_not_of_its_plan_is_named(stored: Stored) -> None:
    place = places(stored)["run's progress"][1]
    stored.store.put(keys.PRODUCTS, place, b'{"states":"..","updated":"2026-01-01T00:00:00Z"}')
    assert [one.fault for one in damaged(stored.store)] == ["is the Progress of something else"]


def places(stored: Stored) -> dict[str, tuple[str, str]]:
    """Return an object of each kind: bucket and key."""
    identity = stored.identities[0]
    bucket = stored.bucket(identity)
    upload = uploads.current(stored.store, identity)
    description = datasets.describe(stored.store, "tiny")
    assert upload is not None and description is not None
    manifest = manifest_key(LayerVectors, bucket.facts)
    bucket.fail(LayerVectors)
    complete = Manifest.from_bytes(stored.store.get(keys.PRODUCTS, manifest))
    for key, one in (*operated(stored), (keys.REPAIR_HEALTH, RepairHealth(last_good=NOW))):
        stored.store.put(keys.PRODUCTS, key, one.to_bytes())
    for part in ("cancel", "accept"):
        stored.store.put(keys.PRODUCTS, keys.replay(RUN, part), canonical_json({"at": NOW.isoformat()}))
    beside = keys.beside(RUN, manifest)
    stored.store.put(keys.PRODUCTS, beside, complete.to_bytes())
    return {
        **{f"run's {part}": (keys.PRODUCTS, keys.replay(RUN, part)) for part in PARTS},
        "beside": (keys.PRODUCTS, beside),
        "letter": (keys.PRODUCTS, keys.dead_letter(LETTER)),
        "discarded": (keys.PRODUCTS, keys.discarded(LETTER)),
        "refused key": (keys.PRODUCTS, keys.refused_key("a b.pth")),
        "health": (keys.PRODUCTS, keys.REPAIR_HEALTH),
        "notification": (keys.PRODUCTS, keys.notification(LETTER)),
        "record": (keys.PRODUCTS, upload.record_key),
        "manifest": (keys.PRODUCTS, manifest),
        "failure": (keys.PRODUCTS, keys.failure(manifest)),
        "blob": (keys.PRODUCTS, keys.blob(complete.file("cka.npy").sha256)),
        "description": (keys.DATASETS, keys.dataset_description("tiny")),
        "part": (keys.DATASETS, keys.dataset_part("tiny", description.parts["test"].sha256)),
    }


def test_of_a_sound_store_nothing_is_said(stored: Stored) -> None:
    places(stored)
    assert list(damaged(stored.store)) == []


@pytest.mark.parametrize("kind", ["record", "manifest", "failure", "blob", "description", "part", *OPERATED])
@pytest.mark.parametrize("how", ["empty", "cut short", "other bytes", "not to be had"])
def test_what_is_damaged_is_named(stored: Stored, kind: str, how: str) -> None:
    bucket, key = places(stored)[kind]
    good = stored.store.get(bucket, key)
    if how == "not to be had" and kind == "description":
        return  # of which the rest depends
    bad = {"empty": b"", "cut short": good[:-1], "other bytes": b"X" * len(good)}.get(how)
    if bad is None:
        stored.store.unreadable.add(key)
    else:
        stored.store.put(bucket, key, bad)
    (found,) = damaged(stored.store)
    assert (found.bucket, found.key) == (bucket, key)
    assert ("datasets add" in found.mended_by) == (bucket == keys.DATASETS)
    assert ("repair makes it again" in found.mended_by) == (bucket == keys.PRODUCTS and kind not in BY_HAND)


def test_a_blob_of_the_right_size_and_other_bytes_is_made_again_after_it(stored: Stored) -> None:
    bucket, key = places(stored)["blob"]
    stored.store.put(bucket, key, b"X" * len(stored.store.get(bucket, key)))
    stored.index(*stored.identities)
    assert "blob lost" not in {one.reason for one in stored.missing(thorough=True)}
    list(damaged(stored.store))
    stored.store.remove(keys.PRODUCTS, places(stored)["failure"][1])
    stored.index(*stored.identities)
    assert said(stored.missing(thorough=True)) == [("layer_vectors", stored.identities[0].subject, "blob lost")]


def test_a_store_that_is_down_is_not_sound(stored: Stored) -> None:
    stored.store.is_down = True
    with pytest.raises(Unavailable):
        list(damaged(stored.store))
