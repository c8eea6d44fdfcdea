"""Products that others stand on, as this process has read them: several functions ask for the same within moments.

What a manifest names by digests is always the same, so nothing here goes stale; what is lost of it meanwhile, repair finds.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from layerscope.schemas.manifests import Manifest
from layerscope.schemas.products.product import Product
from layerscope.stores import product_store
from layerscope.stores.object_store import ObjectStore

MOST_BYTES: Final = 32 * 2**20
"""Of files, as they are stored; a product that has more than a quarter of it is not kept."""

_Place = tuple[str, ...]


class KeptInputs:
    """Keeps what was asked for last; safe in threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep nothing yet."""
        self._most = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[_Place, tuple[Product, int]] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, store: ObjectStore, product: type[Product], complete: Manifest) -> Product:
        """Return the product that a manifest names; it must not be changed.

        Raises:
            Damaged: its bytes are lost, or are something else.
        """
        place = (product.declared.name, *(part for one in complete.files for part in (one.name, one.sha256)))
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place][0]
        found = product_store.load(store, product, complete)
        self._keep(place, found, sum(one.size for one in complete.files))
        return found

    def _keep(self, place: _Place, found: Product, size: int) -> None:
        with self._lock:
            if place in self._kept or size > self._most // 4:
                return
            self._kept[place] = found, size
            self._bytes += size
            while self._bytes > self._most:
                _, (_, gone) = self._kept.popitem(last=False)
                self._bytes -= gone
