"""What `query` answers about splitting a model: which stages, what they cost, and whether to split at all."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerscope.schemas.queries import Answer

Goal = Literal["latency", "throughput"]
Advice = Literal["split", "do_not_split"]


class StagePlan(Answer):
    """One stage of a plan; bytes and seconds are for one image."""

    begins: str = Field(description="the cut before it; for the first stage, `input`")
    ends: str = Field(description="the cut after it; for the last stage, `output`")
    after: int | None = Field(description="of the cut after it, as in the product `split`; null: the output")
    steps: int
    multiply_adds: int
    tensor_bytes: int = Field(description="of its weights")
    memory_bytes: int = Field(description="of its weights, and of what it receives and sends")
    seconds: float = Field(description="its share of the model's measured seconds, by multiply-adds")
    sends_bytes: int = Field(description="0: it is the last")
    hop_seconds: float = Field(description="to send that over the link, and for the hop itself")


class SplitPlan(Answer):
    """The best division of a model into stages on machines that are alike, and what speaks against it."""

    dataset: str
    model: str
    version: str
    content: str
    goal: Goal
    advice: Advice
    reason: str = Field(description="the advice in a sentence, with its figures")
    digest: str = Field(description="of the content and its cuts: what a request for a stage names")
    tensors: str = Field(description="SHA-256 of the data of `weight_sketch`, likewise; empty: it is not there")
    device: str = Field(description="on which the seconds were measured")
    link_mbit: float
    memory_mb: float | None = Field(description="that one replica may use; null: no limit was given")
    whole_seconds: float = Field(description="measured, for one image of the test set in batches")
    whole_memory_bytes: int
    seconds: float = Field(description="for one image through all stages")
    images_per_second: float = Field(description="with every stage at work: by its slowest stage or hop")
    stages: tuple[StagePlan, ...]
