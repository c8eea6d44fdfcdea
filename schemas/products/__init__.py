"""What is stored: one module a product, inputs before what stands on them."""

from layerscope.schemas.products.activation_maximization import (
    ActivationMaximization,
    ChannelLayer,
    ClassPicture,
    OptimisedPicture,
)
from layerscope.schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from layerscope.schemas.products.description import (
    Confidence,
    DescribedConfusion,
    Description,
    DescriptionFacts,
    DescriptionText,
    Language,
)
from layerscope.schemas.products.evaluation import Calibration, ClassFigures, Evaluation, ReliabilityBin
from layerscope.schemas.products.example_images import ConfusedPair, ExampleCell, ExampleImage, ExampleImages
from layerscope.schemas.products.feature_activation import (
    ActivationMap,
    ChannelExamples,
    Convolution,
    ConvolutionState,
    FeatureActivation,
    Strongest,
)
from layerscope.schemas.products.layer_vectors import Layer, LayerState, LayerVectors, Metric
from layerscope.schemas.products.predictions import OutputKind, Predictions
from layerscope.schemas.products.product import (
    Declaration,
    Product,
    ProductPart,
    declared_products,
    product_named,
    standing_on,
)
from layerscope.schemas.products.sprites import Place, SheetImage
from layerscope.schemas.products.summary import Summary, SummaryLayer
from layerscope.schemas.products.training_history import HistorySource, TrainingEpoch, TrainingHistory, TrainingPoint

__all__ = [
    "ActivationMap",
    "ActivationMaximization",
    "Calibration",
    "ChannelExamples",
    "ChannelLayer",
    "ClassFigures",
    "ClassPicture",
    "Confidence",
    "ConfusedPair",
    "Confusion",
    "ConfusionMatrix",
    "Convolution",
    "ConvolutionState",
    "Declaration",
    "DescribedConfusion",
    "Description",
    "DescriptionFacts",
    "DescriptionText",
    "Evaluation",
    "ExampleCell",
    "ExampleImage",
    "ExampleImages",
    "FeatureActivation",
    "HistorySource",
    "Language",
    "Layer",
    "LayerState",
    "LayerVectors",
    "Metric",
    "OptimisedPicture",
    "OutputKind",
    "Place",
    "Predictions",
    "Product",
    "ProductPart",
    "ReliabilityBin",
    "SheetImage",
    "Strongest",
    "Summary",
    "SummaryLayer",
    "TrainingEpoch",
    "TrainingHistory",
    "TrainingPoint",
    "declared_products",
    "product_named",
    "standing_on",
]
