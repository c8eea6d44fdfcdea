"""The ways in which a Milvus server can find the nearest layers: a setting, and what `stores/milvus_collections.py` makes."""

from __future__ import annotations

from typing import Literal

VectorIndex = Literal["FLAT", "HNSW", "IVF_FLAT"]
"""Exactly; by a graph (Malkov and Yashunin, arXiv 1603.09320); by cells (Jégou et al., TPAMI 2011), which miss some."""
