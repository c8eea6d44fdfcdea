"""Product fields that are files of their own: arrays, pictures and text, named after the field, next to `data.json`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field, GetCoreSchemaHandler, SkipValidation
from pydantic_core import CoreSchema, core_schema

DATA: Final = "data.json"
DATA_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class FileKind:
    """Marks a field that is stored as a file with this extension and media type."""

    extension: str
    media_type: str
    is_text: bool = False


NPY: Final = FileKind("npy", "application/x-npy")
PNG: Final = FileKind("png", "image/png")
SVG: Final = FileKind("svg", "image/svg+xml", is_text=True)
PYTHON: Final = FileKind("py", "text/x-python; charset=utf-8", is_text=True)
JSON: Final = FileKind("json", DATA_TYPE, is_text=True)


class _IsArray:
    """Takes NumPy arrays as they are."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.is_instance_schema(np.ndarray)


Array = Annotated[np.ndarray[Any, np.dtype[Any]], SkipValidation, _IsArray, NPY, Field(exclude=True, repr=False)]
Picture = Annotated[bytes, PNG, Field(exclude=True, repr=False)]
Svg = Annotated[str, SVG, Field(exclude=True, repr=False)]
PythonSource = Annotated[str, PYTHON, Field(exclude=True, repr=False)]
JsonText = Annotated[str, JSON, Field(exclude=True, repr=False)]
