"""What is stored: one module a product, inputs before what stands on them."""

from schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from schemas.products.evaluation import Calibration, ClassFigures, Evaluation, ReliabilityBin
from schemas.products.layer_vectors import Layer, LayerState, LayerVectors, Metric
from schemas.products.predictions import OutputKind, Predictions
from schemas.products.product import Declaration, Product, Row, declared_products, product_named, standing_on

__all__ = [
    "Calibration",
    "ClassFigures",
    "Confusion",
    "ConfusionMatrix",
    "Declaration",
    "Evaluation",
    "Layer",
    "LayerState",
    "LayerVectors",
    "Metric",
    "OutputKind",
    "Predictions",
    "Product",
    "ReliabilityBin",
    "Row",
    "declared_products",
    "product_named",
    "standing_on",
]
