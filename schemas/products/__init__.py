"""What is stored: one module a product, inputs before what stands on them."""

from schemas.products.activation_maximization import (
    ActivationMaximization,
    ChannelLayer,
    ClassPicture,
    OptimisedPicture,
)
from schemas.products.confusion_matrix import Confusion, ConfusionMatrix
from schemas.products.description import (
    Confidence,
    DescribedConfusion,
    Description,
    DescriptionFacts,
    DescriptionText,
    Language,
)
from schemas.products.evaluation import Calibration, ClassFigures, Evaluation, ReliabilityBin
from schemas.products.example_images import ConfusedPair, ExampleCell, ExampleImage, ExampleImages
from schemas.products.feature_activation import (
    ActivationMap,
    ChannelExamples,
    Convolution,
    ConvolutionState,
    FeatureActivation,
    Strongest,
)
from schemas.products.layer_vectors import Layer, LayerState, LayerVectors, Metric
from schemas.products.predictions import OutputKind, Predictions
from schemas.products.product import Declaration, Product, Row, declared_products, product_named, standing_on
from schemas.products.sprites import Place, SheetImage
from schemas.products.summary import Summary, SummaryLayer
from schemas.products.training_history import HistorySource, TrainingEpoch, TrainingHistory, TrainingPoint

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
    "ReliabilityBin",
    "Row",
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
