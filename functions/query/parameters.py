"""What the routes of `query` take: names in the path, what a search is narrowed to, and what else several are asked with."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator, Field

from layerscope.functions.query.similarity.filters import Built, Filters, LeftOut
from layerscope.schemas.alike import Family
from layerscope.schemas.datasets import ProbeName
from layerscope.schemas.identity import NAME_PATTERN

Name = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$")]
SubjectName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}/{NAME_PATTERN}/{NAME_PATTERN}$")]
Subject = Annotated[SubjectName, Query(description="DATASET/MODEL/VERSION")]
Part = Annotated[str, Path(max_length=512)]
K = Annotated[int, Query(ge=1, le=100, description="how many hits")]

Share = Annotated[float, Field(ge=0, le=1)]
Blank = BeforeValidator(lambda given: None if given == "" else given)  # as forms send what is left empty
DatasetName = Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
OnDataset = Annotated[DatasetName | None, Blank, Query(alias="dataset", description="only models on this dataset")]
SameDataset = Annotated[bool, Query(description="only models on the asked model's dataset")]
OtherDatasets = Annotated[bool, Query(description="only models on other datasets than the asked model's")]
OverProbe = Annotated[
    ProbeName | None,
    Blank,
    Query(
        description="own: over the probe images of the dataset; common: over those that all datasets of one image shape "
        "share. Left out: own, unless other datasets are asked for"
    ),
]
MinAccuracy = Annotated[Share | None, Blank, Query(description="only models at least this accurate")]
MaxAccuracy = Annotated[Share | None, Blank, Query(description="only models at most this accurate")]
Better = Annotated[bool, Query(description="only models more accurate than the asked one")]
Architecture = Annotated[
    Built | None,
    Blank,
    Query(description="same: only models of the same layers, by types and shapes in order; other: no such"),
]
OfFamily = Annotated[Family | None, Blank, Query(description="only models of this family, by their weights")]
MinDepth = Annotated[Share | None, Blank, Query(description="0: a model's first layer, 1: its last")]
MaxDepth = Annotated[Share | None, Blank, Query(description="likewise")]
LeaveOut = Annotated[
    LeftOut,
    Query(description="version: the asked model version itself; model: all its versions; nothing: it finds itself"),
]


def model_filters(
    on_dataset: OnDataset = None,
    same_dataset: SameDataset = False,
    min_accuracy: MinAccuracy = None,
    max_accuracy: MaxAccuracy = None,
    better: Better = False,
    architecture: Architecture = None,
    leave_out: LeaveOut = "version",
    other_datasets: OtherDatasets = False,
) -> Filters:
    """Return which models count."""
    return Filters(
        dataset=on_dataset,
        same_dataset=same_dataset,
        min_accuracy=min_accuracy,
        max_accuracy=max_accuracy,
        better=better,
        architecture=architecture,
        leave_out=leave_out,
        other_datasets=other_datasets,
    )
