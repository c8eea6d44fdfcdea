"""What neighbours cost with many layers stored: looked up, searched in full beside NumPy's product, a model added.

`LAYERSCOPE_TEST_LAYERS=100000` measures another number of layers; the ratios must hold for any.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from layerscope.stores.index_rows import EVERY_ROW, LayerRow, RowFilter, Vector
from layerscope.stores.mirrored_rows import BLOCK, MirroredRows

pytestmark = pytest.mark.benchmark

LAYERS = int(os.environ.get("LAYERSCOPE_TEST_LAYERS", "20000"))
DIMENSION, OF_MODEL = 4_950, 50
LOOKUPS = 500
PLAIN = 20_000
"""Rows of which NumPy has a second copy to multiply with; of more, its time is taken in proportion."""


def seconds(call: Callable[[], object], times: int) -> list[float]:
    """Return the seconds that this thread's processor took for each of some calls."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        call()
        found.append(time.thread_time() - began)
    return sorted(found)


def model(rng: np.random.Generator, name: str, centres: Vector) -> list[LayerRow]:
    """A model's layers around some of the directions that all have in common, as the layers of real models are."""
    vectors = centres[rng.integers(0, len(centres), OF_MODEL)] + rng.standard_normal(
        (OF_MODEL, DIMENSION), dtype=np.float32
    ) / np.float32(60)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [LayerRow(f"{name}#{i}", name, f"l{i}", i, 0.5, v, i / OF_MODEL, "a") for i, v in enumerate(vectors)]


def test_a_lookup_a_full_search_and_a_new_model_cost_what_they_should(record_property: Callable[..., None]) -> None:
    rng, rows = np.random.default_rng(0), MirroredRows(DIMENSION)
    centres = rng.standard_normal((200, DIMENSION), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    began = time.perf_counter()
    for at in range(LAYERS // OF_MODEL):
        rows.put(f"d/net/{at}", model(rng, f"d/net/{at}", centres), listed=False)
    filled = time.perf_counter() - began
    plain = np.concatenate(rows._blocks[: -(-PLAIN // BLOCK)])[: min(LAYERS, PLAIN)]
    scale = LAYERS / len(plain)
    asked = [plain[at] for at in rng.integers(0, len(plain), 60)]

    product = seconds(lambda: plain @ asked[0], 15)
    product = [scale * one for one in product]
    turns = iter(asked * 20)
    full = seconds(
        lambda: rows.search(next(turns)[None], k=200, excluding="d/net/0", where=RowFilter(min_accuracy=0.1)), 15
    )
    for one in asked:
        rows.search(one[None], k=10, excluding="", where=EVERY_ROW)
    before = rows.searched
    lookup = seconds(lambda: rows.search(next(turns)[None], k=10, excluding="d/net/0", where=EVERY_ROW), LOOKUPS)
    assert rows.searched == before  # nothing was searched

    batch = model(rng, "d/net/x", centres)
    fifty = np.stack([row.vector for row in batch])
    gemm = seconds(lambda: fifty @ plain.T, 3)
    added = seconds(lambda: rows.put("d/net/x", batch), 1)
    gone = seconds(lambda: rows.put("d/net/x", []), 1)
    told = {
        "layers": LAYERS,
        "fill_s": filled,
        "product_ms": 1e3 * product[0],
        "full_ms": 1e3 * full[0],
        "full_ratio": full[0] / product[0],
        "lookup_p50_ms": 1e3 * lookup[LOOKUPS // 2],
        "lookup_p99_ms": 1e3 * lookup[LOOKUPS * 99 // 100],
        "add_50_s": added[0],
        "add_ratio": added[0] / gemm[0] / scale,
        "remove_50_s": gone[0],
        "memory_mb": rows.nbytes / 2**20,
    }
    for name, value in told.items():
        record_property(name, value)
        print(f"{name}: {value:.3f}")
    assert full[0] <= 4 * product[0]
    assert lookup[LOOKUPS // 2] <= product[0] / 2
    assert lookup[LOOKUPS * 99 // 100] <= product[0] / scale / 10  # 2 ms where 20,000 rows take the product 20 ms
    assert rows.nbytes <= 1.3 * plain.nbytes * scale
