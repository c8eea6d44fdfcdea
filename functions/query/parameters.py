"""What the routes of `query` take: names in the path, and what else several of them are asked with."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from layerscope.schemas.identity import NAME_PATTERN

Name = Annotated[str, Path(pattern=f"^{NAME_PATTERN}$")]
Subject = Annotated[
    str, Query(pattern=f"^{NAME_PATTERN}/{NAME_PATTERN}/{NAME_PATTERN}$", description="DATASET/MODEL/VERSION")
]
Part = Annotated[str, Path(max_length=512)]
K = Annotated[int, Query(ge=1, le=100, description="how many hits")]
MinAccuracy = Annotated[float | None, Query(ge=0, le=1, description="only models at least this accurate")]
