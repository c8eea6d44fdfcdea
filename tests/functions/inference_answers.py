"""Who is asked behind `query`: an HTTP service that answers as it is told."""

from __future__ import annotations

import httpx

from layerscope.schemas.explanations import ExplanationAnswer
from layerscope.schemas.inference import PredictionAnswer

ANSWER = PredictionAnswer.model_validate(
    {
        "dataset": "digits",
        "model": "net",
        "version": "1",
        "content": "0" * 64,
        "device": "cpu",
        "predicted": {"index": 1, "name": "<b>one", "output": 2.0, "probability": 0.75},
        "classes": [
            {"index": 1, "name": "<b>one", "output": 2.0, "probability": 0.75},
            {"index": 0, "name": "zero", "output": 1.0, "probability": 0.25},
        ],
        "output_kind": "logits",
        "read": {
            "format": "PNG",
            "width": 9,
            "height": 9,
            "mode": "L",
            "steps": ["resized"],
            "shape": [8, 8, 1],
            "mean": [0.5],
            "std": [0.25],
            "picture": "data:image/png;base64,AA==",
        },
        "nearest": {
            "layer": "fc",
            "features": 4,
            "searched": 10,
            "test_images": 20,
            "images": [
                {
                    "index": 3,
                    "distance": 0.5,
                    "label": 0,
                    "label_name": "zero",
                    "predicted": None,
                    "predicted_name": None,
                    "picture": "/datasets/digits/images/3.png",
                    "page": "/models/digits/net/1/images/3",
                }
            ],
        },
        "map": None,
        "map_reason": "The product is still being computed.",
        "seconds": {"reading": 0.1, "loading": 0.2, "computing": 0.3},
    }
)

EXPLANATION = ExplanationAnswer.model_validate(
    {
        "dataset": "digits",
        "model": "net",
        "version": "1",
        "content": "0" * 64,
        "recipe": 1,
        "index": 3,
        "label": 0,
        "label_name": "<b>zero",
        "predicted": 1,
        "predicted_name": "one",
        "nearest": {
            "layer": "fc",
            "features": 4,
            "searched": 10,
            "test_images": 20,
            "images": [
                {
                    "index": 5,
                    "distance": 0.5,
                    "label": 0,
                    "label_name": "<b>zero",
                    "predicted": 1,
                    "predicted_name": "one",
                    "picture": "/datasets/digits/images/5.png?sha256=00",
                    "page": "/models/digits/net/1/images/5",
                }
            ],
        },
        "attribution": {
            "method": "grad_cam",
            "layer": "conv",
            "call": 0,
            "steps": None,
            "height": 7,
            "width": 7,
            "classes": [
                {
                    "label": 1,
                    "name": "one",
                    "is_predicted": True,
                    "is_true": False,
                    "low": -1.0,
                    "high": 2.0,
                    "picture": "data:image/png;base64,AA==",
                    "control": {
                        "correlations": [0.25],
                        "mean": 0.25,
                        "picture": "data:image/png;base64,AA==",
                        "depends_on_weights": True,
                        "says": "It depends.",
                    },
                }
            ],
        },
        "device": "cpu",
    }
)


class Inference:
    """Who is asked behind `query`: it keeps what it was sent, and answers as it is told."""

    def __init__(self, status: int = 200, content: bytes | None = None) -> None:
        self.status = status
        self.content = ANSWER.model_dump_json().encode() if content is None else content
        self.requests: list[httpx.Request] = []

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://gpu/inference", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(self.status, content=self.content)
