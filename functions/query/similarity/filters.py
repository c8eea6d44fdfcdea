"""What a search for layers or classes may be narrowed to: as it is asked, as the index takes it, and in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from layerscope.schemas.identity import Identity
from layerscope.stores.index_rows import RowFilter

Built = Literal["same", "other"]
LeftOut = Literal["version", "model", "nothing"]


@dataclass(frozen=True, slots=True)
class Filters:
    """Which layers, or classes, count. Bounds are inclusive; `better` means a test accuracy above the asked model's."""

    dataset: str | None = None
    same_dataset: bool = False
    min_accuracy: float | None = None
    max_accuracy: float | None = None
    better: bool = False
    architecture: Built | None = None
    min_depth: float | None = None
    max_depth: float | None = None
    leave_out: LeftOut = "version"
    other_datasets: bool = False


EVERY_LAYER: Final = Filters()


@dataclass(frozen=True, slots=True)
class Asker:
    """The model whose layer is asked about: its test accuracy where it is known, and the digest of its layers."""

    identity: Identity
    test_accuracy: float | None
    architecture: str


def excluded(filters: Filters, asker: Asker) -> str:
    """Return the subject whose rows never count; empty for none."""
    return "" if filters.leave_out == "nothing" else asker.identity.subject


def row_filter(filters: Filters, asker: Asker) -> RowFilter:
    """Return what the index is asked for besides; where the asker's accuracy is unknown nothing counts as better."""
    identity = asker.identity
    without = f"{identity.dataset}/{identity.model}" if filters.leave_out == "model" else None
    known = 1.0 if asker.test_accuracy is None else asker.test_accuracy
    return RowFilter(
        without_model=identity.dataset if filters.other_datasets else without,
        dataset=identity.dataset if filters.same_dataset else filters.dataset,
        min_accuracy=filters.min_accuracy,
        max_accuracy=filters.max_accuracy,
        above_accuracy=known if filters.better else None,
        architecture=asker.architecture if filters.architecture == "same" else None,
        not_architecture=asker.architecture if filters.architecture == "other" else None,
        min_depth=filters.min_depth,
        max_depth=filters.max_depth,
    )


def contradiction(filters: Filters, asker: Asker) -> str | None:
    """Say why nothing can meet these filters, whatever is stored; None where something could."""
    subject, dataset = asker.identity.subject, asker.identity.dataset
    if filters.better and asker.test_accuracy is None:
        return f"The test accuracy of {subject} is not known, so no model can be said to be better."
    if filters.same_dataset and filters.dataset not in (None, dataset):
        return f"same_dataset asks for {dataset} and dataset for {filters.dataset}; leave one of them out."
    if filters.other_datasets and (filters.same_dataset or filters.dataset == dataset):
        return f"other_datasets leaves {dataset} out, and the other condition asks for it; leave one of them out."
    for name, least, most in (
        ("accuracy", filters.min_accuracy, filters.max_accuracy),
        ("depth", filters.min_depth, filters.max_depth),
    ):
        if least is not None and most is not None and least > most:
            return f"min_{name} {least:g} is above max_{name} {most:g}."
    return None


def in_words(filters: Filters, asker: Asker) -> tuple[str, ...]:
    """Name the conditions that are asked for, each as it would end "layers of models …" or "classes of models …"."""
    return tuple(_words(filters, asker))


def _words(filters: Filters, asker: Asker) -> Iterator[str]:
    dataset = asker.identity.dataset if filters.same_dataset else filters.dataset
    if dataset is not None:
        yield f"on the dataset {dataset}"
    if filters.other_datasets:
        yield f"on other datasets than {asker.identity.dataset}"
    if filters.min_accuracy is not None:
        yield f"with a test accuracy of at least {filters.min_accuracy:g}"
    if filters.max_accuracy is not None:
        yield f"with a test accuracy of at most {filters.max_accuracy:g}"
    if filters.better:
        yield f"with a test accuracy above {asker.test_accuracy:g}"
    if filters.architecture is not None:
        yield f"of {'the same' if filters.architecture == 'same' else 'another'} architecture"
    if filters.min_depth is not None or filters.max_depth is not None:
        yield f"at a depth from {filters.min_depth or 0:g} to {1 if filters.max_depth is None else filters.max_depth:g}"
    if filters.leave_out == "model":
        yield f"other than every version of {asker.identity.dataset}/{asker.identity.model}"
