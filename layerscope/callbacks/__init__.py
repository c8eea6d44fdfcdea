"""Uploads from a training as it goes: of any loop (`Uploads`), of Lightning's Trainer and of transformers' Trainer.

loop, or a framework's hooks ─ pack ─▶ Uploads ─ a thread of its own ─▶ client.upload
"""

from __future__ import annotations

from layerscope.callbacks.uploads import Uploads

__all__ = ["Uploads"]
