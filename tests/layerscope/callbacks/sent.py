"""What a training uploads, seen where it would leave for a system: by the version, the packed model and its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layerscope.models import safe_form
from layerscope.schemas.identity import Identity
from layerscope.systems import Located


@dataclass
class Sent:
    """Takes the place of `client.upload`; what was sent last under a name stands, as in a bucket."""

    versions: dict[str, bytes] = field(default_factory=dict)
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    async def __call__(
        self,
        system: Located,
        identity: Identity,
        content: bytes,
        extension: str,
        say: Any,
        *,
        sidecars: Mapping[str, bytes],
    ) -> None:
        self.order.append(identity.subject)
        self.versions[identity.subject] = content
        for ending, one in sidecars.items():
            assert ending == ".history.json"
            self.logs[identity.subject] = [
                {name: value for name, value in row.items() if value is not None} for row in json.loads(one)["epochs"]
            ]

    def weight(self, subject: str) -> float:
        """Return the one weight by which tests tell moments of a training apart."""
        model = safe_form.build(safe_form.read(self.versions[subject]))
        return float(next(model.parameters()).detach().flatten()[0])


class Counting(nn.Module):
    """A classifier of images of 2 × 2 whose first weight counts the epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.last = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.last(self.flat(images))
        return scores

    def train_an_epoch(self) -> None:
        with torch.no_grad():
            self.last.weight[0, 0] += 1

    @classmethod
    def untrained(cls) -> Counting:
        made = cls()
        with torch.no_grad():
            made.last.weight.zero_()
        return made
