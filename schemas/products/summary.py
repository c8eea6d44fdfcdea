"""The product `summary`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from layerscope.schemas.files import JsonText, PythonSource, Svg
from layerscope.schemas.manifests import Headline
from layerscope.schemas.products.product import Declaration, Product, ProductPart

Shape = tuple[int, ...]


class TensorFigures(ProductPart):
    """The values of one parameter of a layer; null: none of them is finite. To six digits."""

    name: str = Field(description="of the parameter in its layer, as `weight`")
    shape: Shape
    mean: float | None
    deviation: float | None = Field(description="standard deviation")
    lowest: float | None
    highest: float | None
    zeros: float = Field(description="share of its values that are exactly 0")
    non_finite: int = Field(description="values that are NaN or infinite; the others are what is told of")


class SummaryLayer(ProductPart):
    """One call of a layer, one tensor that the model itself holds, or one function that multiplies."""

    name: str = Field(description="of the layer or tensor in the model, or of the function")
    type: str = Field(description="class of the layer, `Parameter`, or `function`")
    call: int | None = Field(description="how many calls of the same layer came before; null: never called")
    arguments: dict[str, Any] = Field(description="of the constructor, without defaults")
    input: Shape | None = Field(
        description="without the axis of the batch; null where it is not known or not one tensor"
    )
    output: Shape | None = Field(description="likewise")
    parameters: int = Field(description="those that no row above has counted")
    multiply_adds: int | None = Field(description="for one image; null where no image shape is known")
    learns: Literal["trainable", "frozen", "partly"] | None = Field(description="null: without parameters")
    weights: tuple[TensorFigures, ...] = Field(
        default=(), description="of its own parameters that no row above has told of"
    )


class Summary(Product):
    """What a model is made of: layers and what they cost, its code, and a diagram."""

    declared: ClassVar = Declaration(
        "summary", recipe=2, reads_model=True, takes_shape=True, parameters={"most_layers": 2000, "most_boxes": 110}
    )

    input: Shape | None = Field(description="height, width, channels of an image; null: there is no such dataset")
    kind: str = Field(description="class of the whole model, as who wrote it named it")
    shapes_missing: str | None = Field(description="why there are neither shapes nor multiply-adds; null: there are")
    parameters: int = Field(description="shared and tied ones once")
    trainable: int
    frozen: int
    shared: int = Field(description="of the parameters, those that have several names")
    buffers: int = Field(description="numbers that are kept and not learnt")
    tensor_bytes: int = Field(description="of parameters and buffers in memory, as float32")
    multiply_adds: int | None = Field(
        description="for one image: convolutions, products of matrices, attention, recurrence"
    )
    activation_bytes: int | None = Field(description="of all values alive at once for one image, at the peak")
    steps: int = Field(description="nodes of the graph, input and output included")
    layers: tuple[SummaryLayer, ...] = Field(description="in the order of the forward pass; those never called last")
    layers_left_out: int = Field(description="rows beyond `most_layers`; the totals count them")
    form: Literal["blocks", "graph"] = Field(description="what architecture.json holds: a list of layers, or the graph")
    constants_left_out: tuple[str, ...] = Field(
        description="constants that are in no state_dict and too large for the source; fill them in after it is run"
    )
    architecture: JsonText
    source: PythonSource
    diagram: Svg

    def headline(self) -> Headline:
        """Return the class of the model, and the sizes by which models are compared."""
        return {
            "kind": self.kind,
            "parameters": self.parameters,
            "trainable": self.trainable,
            "multiply_adds": self.multiply_adds,
            "layers": len({layer.name for layer in self.layers if layer.type not in ("Parameter", "function")}),
        }
