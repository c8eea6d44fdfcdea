"""`layerscope.open`: one stored model version to read in Python, from the system that the commands are about."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, overload

import httpx
import numpy as np
from numpy.typing import NDArray

from layerscope import client, stored_products
from layerscope.notebook_view import card
from layerscope.schemas.errors import LayerscopeError
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.confusion_matrix import ConfusionMatrix
from layerscope.schemas.products.example_images import ExampleImages
from layerscope.schemas.products.findings import Findings
from layerscope.schemas.products.product import Product
from layerscope.schemas.queries import ProductState
from layerscope.stored_products import kind_of
from layerscope.systems import Located, locate

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")
ProductT = TypeVar("ProductT", bound=Product)


class StoredModel:
    """One stored model version, to be read. Each look asks the system anew, so products that come later are seen.

    Raises, of every method and property:
        NotThere: what is asked for is not there (yet); the message says what to do.
        NoSystem: nobody answers.
        QueryFailed: the system answers with an error.
    """

    def __init__(self, system: Located, identity: Identity) -> None:
        self._system = system
        self.identity = identity

    @property
    def name(self) -> str:
        """Return `DATASET/MODEL/VERSION`."""
        return self.identity.subject

    @property
    def products(self) -> dict[str, ProductState]:
        """Return the state of each product by its name: complete, computing, refused or failed."""
        answer = self._asked(lambda query: stored_products.model(query, self.identity))
        return {name: line.state for name, line in answer.products.items()}

    @overload
    def product(self, which: type[ProductT]) -> ProductT: ...

    @overload
    def product(self, which: str) -> Product: ...

    def product(self, which: str | type[Product]) -> Product:
        """Return a product by its name, or by its class in `layerscope.schemas.products`, with arrays and pictures."""
        kind = kind_of(which) if isinstance(which, str) else which
        return self._asked(lambda query: stored_products.product(query, self.identity, kind))

    def array(self, product: str, name: str) -> NDArray[Any]:
        """Return one array of a product, such as `outputs` of `predictions`, without the rest of it."""
        kind = kind_of(product)
        return self._asked(lambda query: stored_products.array(query, self.identity, kind, name))

    @property
    def predictions(self) -> pandas.DataFrame:
        """Return what the model answers, one row a test image, in the order of the test part.

        Columns: `label` and `predicted`, the number of a class, -1 where the outputs are not finite; `label_name` and
        `predicted_name`; `right`; `confidence` and `own`, the probabilities of the predicted and of the true class.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "predictions are a pandas DataFrame, and pandas is not installed: pip install pandas; without it, "
                "array('example_images', 'predicted') has the answers as NumPy"
            ) from error
        found = self.product(ExampleImages)
        names = np.array([*found.classes, None], dtype=object)  # -1 is the last one
        columns = {
            "label": found.labels,
            "label_name": names[found.labels],
            "predicted": found.predicted,
            "predicted_name": names[found.predicted],
            "right": found.labels == found.predicted,
            "confidence": found.confidence,
            "own": found.own,
        }
        return pandas.DataFrame(columns, index=pandas.RangeIndex(len(found.labels), name="image"))

    @property
    def findings(self) -> tuple[str, ...]:
        """Return what is wrong with the model in words, most costly first; nothing where no rule found anything."""
        return _words(self.product(Findings))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, C) of an image of the test part, which are counted from 0."""
        return self._asked(lambda query: stored_products.pixels(query, self.identity, index))

    def __repr__(self) -> str:
        return f"<stored model {self.name}>"

    def _repr_html_(self) -> str | None:
        """Return what a notebook shows; None where the system does not answer."""
        try:
            answer = self._asked(lambda query: stored_products.model(query, self.identity))
        except LayerscopeError:
            return None
        found = self._there(Findings)
        return card(answer, _words(found) if found else (), self._repr_png_())

    def _repr_png_(self) -> bytes | None:
        """Return the picture of the confusion matrix; None where there is none."""
        found = self._there(ConfusionMatrix)
        return found.heatmap if found else None

    def _there(self, kind: type[ProductT]) -> ProductT | None:
        try:
            return self.product(kind)
        except LayerscopeError:  # what a notebook shows is what is there; whoever asks for it is told why it is not
            return None

    def _asked(self, ask: Callable[[httpx.AsyncClient], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with client.querying(self._system) as query:
                return await ask(query)

        return client.finished(asked())


def open_model(name: str, *, at: str | None = None) -> StoredModel:
    """Return a stored model version, `DATASET/MODEL/VERSION`, to be read.

    Args:
        name: as it was uploaded.
        at: URL or directory of the system; without it the one that the commands are about: by LAYERSCOPE_URL, in the
            nearest `.layerscope`, or the one that `up` or `demo` made last.

    Raises:
        ValueError: the name is not of that form.
        NotThere: there is no such model; the message names those that are called almost so.
        NoSystem: there is no such system, or it does not answer.
    """
    found = StoredModel(locate(at), Identity.parse(name))
    _ = found.products
    return found


def _words(found: Findings) -> tuple[str, ...]:
    said = [one.texts[0] for one in found.findings]
    return tuple(f"{one.title.rstrip('.')}. {one.text} {one.action}".strip() for one in said)
