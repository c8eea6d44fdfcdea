"""The rules, which of them apply, and the order of what they find. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from layerscope.functions.findings.answers import (
    accuracy_at_chance,
    agreed,
    constant_answer,
    labels_permuted,
    outputs_not_finite,
)
from layerscope.functions.findings.balance import rare_in_test, rare_in_train
from layerscope.functions.findings.confidence import miscalibrated
from layerscope.functions.findings.confusions import (
    class_absorbs_errors,
    classes_never_answered,
    confused_pairs,
    weak_classes,
)
from layerscope.functions.findings.duplicates import near_duplicates, near_duplicates_in_train
from layerscope.functions.findings.evidence import Evidence, Found, NotChecked, Rule
from layerscope.functions.findings.labels import labels_conflict, labels_suspect, test_images_in_train
from layerscope.functions.findings.layers import channels_constant, channels_dead, layers_dead
from layerscope.functions.findings.preparation import prepared_otherwise
from layerscope.functions.findings.segments import weak_segment
from layerscope.functions.findings.training import trained_wrongly_long
from layerscope.schemas.products.findings import Check, FindingKind

RULES: Final = (
    Rule(("outputs_not_finite",), outputs_not_finite),
    Rule(("constant_answer",), constant_answer),
    Rule(("labels_permuted",), labels_permuted),
    Rule(("prepared_otherwise",), prepared_otherwise),
    Rule(("accuracy_at_chance",), accuracy_at_chance),
    Rule(("classes_never_answered",), classes_never_answered, of_meaning=True),
    Rule(("class_absorbs_errors",), class_absorbs_errors, of_meaning=True),
    Rule(("weak_classes",), weak_classes, of_meaning=True),
    Rule(("confused_pairs",), confused_pairs, of_meaning=True),
    Rule(("weak_segment",), weak_segment, of_meaning=True),
    Rule(("labels_suspect",), labels_suspect, of_meaning=True),
    Rule(("labels_conflict",), labels_conflict),
    Rule(("test_images_in_train",), test_images_in_train),
    Rule(("near_duplicates",), near_duplicates),
    Rule(("near_duplicates_in_train",), near_duplicates_in_train),
    Rule(("test_imbalanced",), rare_in_test),
    Rule(("train_imbalanced",), rare_in_train),
    Rule(("overfitted", "undertrained"), trained_wrongly_long),
    Rule(("layers_dead",), layers_dead),
    Rule(("channels_dead",), channels_dead),
    Rule(("channels_constant",), channels_constant),
    Rule(("overconfident", "underconfident"), miscalibrated, of_meaning=True),
)
"""Of equal cost, the earlier comes first."""

EXPLAINED: Final[dict[FindingKind, frozenset[FindingKind]]] = {
    "prepared_otherwise": frozenset(
        {
            "accuracy_at_chance",
            "classes_never_answered",
            "class_absorbs_errors",
            "weak_classes",
            "confused_pairs",
            "weak_segment",
            "labels_suspect",
            "layers_dead",
            "channels_dead",
            "channels_constant",
            "overconfident",
            "underconfident",
        }
    ),
    "labels_permuted": frozenset({"accuracy_at_chance", "labels_suspect"}),
    "class_absorbs_errors": frozenset({"confused_pairs"}),
    "classes_never_answered": frozenset({"weak_classes", "class_absorbs_errors", "confused_pairs"}),
    "labels_conflict": frozenset({"labels_suspect"}),
    "layers_dead": frozenset({"channels_dead", "channels_constant"}),
}
"""What is not said beside a finding, being what it leads to."""

NO_MEANING: Final = "the answers agree with the labels no more than by chance"
OTHER_ORDER: Final = "the labels are in another order"


def look(evidence: Evidence) -> tuple[list[Found], list[Check], bool]:
    """Apply every rule; return what was found, most costly first, what became of each, and whether answers mean something."""
    means_something = agreed(evidence).means_something
    found: dict[FindingKind, Found] = {}
    skipped: dict[FindingKind, str] = {}
    for rule in RULES:
        if rule.of_meaning and ("labels_permuted" in found or not means_something):
            reason = OTHER_ORDER if "labels_permuted" in found else NO_MEANING
            skipped |= dict.fromkeys(rule.kinds, reason)
            continue
        result = rule.look(evidence)
        if isinstance(result, NotChecked):
            skipped |= dict.fromkeys(rule.kinds, result.reason)
        elif result is not None:
            found[result.kind] = result
    told = {kind: one for kind, one in found.items() if kind not in _explained(found)}
    return sorted(told.values(), key=lambda one: -one.cost), list(_checks(told, skipped)), means_something


def _explained(found: dict[FindingKind, Found]) -> set[FindingKind]:
    explained = {kind for one in found for kind in EXPLAINED.get(one, ())}
    if "confused_pairs" in found and "weak_classes" in found:
        pairs, weak = found["confused_pairs"], found["weak_classes"]
        fewer, more = sorted((pairs.figures["forth"], pairs.figures["back"]))
        if set(weak.classes) <= set(pairs.classes):
            explained.add("weak_classes" if fewer > more / 3 else "confused_pairs")  # mutual, or of one of them
    both = [found[kind] for kind in ("outputs_not_finite", "prepared_otherwise") if kind in found]
    if len(both) > 1:  # numbers that overflow do so less in another scale, and in the right scale not at all
        explained.add(min(both, key=lambda one: one.cost).kind)
    return explained


def _checks(found: dict[FindingKind, Found], skipped: dict[FindingKind, str]) -> Iterator[Check]:
    for rule in RULES:
        for kind in rule.kinds:
            if kind in found:
                yield Check(kind=kind, state="found")
            elif kind in skipped:
                yield Check(kind=kind, state="not_checked", reason=skipped[kind])
            else:
                yield Check(kind=kind, state="clear")
