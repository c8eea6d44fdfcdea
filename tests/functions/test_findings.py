"""Findings: each planted fault is found and named with its figures, sound models are left alone, and no number is made up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from torch import nn

from layerscope.functions.analysis.chance import agreement
from layerscope.functions.evaluation.func import compute as evaluated
from layerscope.functions.feature_activation.func import compute as activated
from layerscope.functions.findings import english, korean
from layerscope.functions.findings.balance import rare_in_test, rare_in_train
from layerscope.functions.findings.confidence import temperature
from layerscope.functions.findings.duplicates import hashes, nearest
from layerscope.functions.findings.evidence import Evidence, Found, NotChecked
from layerscope.functions.findings.labels import digests
from layerscope.functions.findings.layers import channels_constant, channels_dead
from layerscope.functions.findings.rules import EXPLAINED, RULES
from layerscope.functions.predictions.func import compute as predicted
from layerscope.schemas.products.findings import Finding, FindingKind, Findings
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores.datasets import PartArrays
from tests.benchmarks.digits_networks import safe
from tests.functions.planted_faults import BESIDES, PLANTED, SEEDS, UNTRAINED, described, noisy, others, sound

pytestmark = pytest.mark.slow

KINDS: Final = tuple(kind for rule in RULES for kind in rule.kinds)
DATASETS: Final = ("grey", "colours")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def told(findings: Findings) -> list[FindingKind]:
    return [one.kind for one in findings.findings]


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_of_a_sound_model_nothing_wrong_is_said(dataset: str, seed: int) -> None:
    findings = sound(dataset, seed).findings()
    assert told(findings) == []
    assert findings.answers_mean_something
    assert findings.summary[0].title == "Nothing wrong was found"
    assert findings.summary[1].title == "잘못된 점을 찾지 못했습니다"
    checked = [one.kind for one in findings.checks if one.state == "clear"]
    assert [one.kind for one in findings.checks] == list(KINDS)
    skipped = {one.kind: one.reason for one in findings.checks if one.state == "not_checked"}
    assert set(checked) | set(skipped) == set(KINDS)
    assert all("too few to tell" in why or "no training log" in why for why in skipped.values())


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_with_any_seed(dataset: str, name: str) -> None:
    kind, plant = PLANTED[name]
    for seed in SEEDS:
        findings = plant(sound(dataset, seed), seed).findings()
        assert kind in told(findings), (seed, told(findings), findings.checks)
        assert set(told(findings)) - {kind} <= BESIDES.get(name, frozenset()), (seed, told(findings))
        costs = [one.cost for one in findings.findings]
        assert costs == sorted(costs, reverse=True)
        for one in findings.findings:
            no_number_is_made_up(one)


def test_of_sound_networks_that_no_threshold_was_chosen_by_few_are_accused() -> None:
    alarms, networks, accused = Counter[FindingKind](), 0, 0
    for name, case in others():
        found = told(case.findings())
        alarms.update(found)
        networks, accused = networks + 1, accused + bool(found)
        if found:
            print(f"\n{name}: {', '.join(found)}", end="")
    planted = Counter(kind for kind, _ in PLANTED.values())
    print(f"\n{'kind':26}{'planted':>8}{'false alarms':>14}, in {networks} sound networks")
    for kind in KINDS:
        print(f"{kind:26}{len(DATASETS) * len(SEEDS) * planted[kind]:8}{alarms[kind]:14}")
    assert networks >= 20
    assert accused <= 3  # 2, when the table of docs/findings.md was made
    assert max(alarms.values(), default=0) <= 2


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_untrained_network_is_said_to_know_nothing_and_no_more(dataset: str, seed: int) -> None:
    findings = UNTRAINED(sound(dataset, seed), seed).findings()
    assert {"constant_answer", "accuracy_at_chance", "classes_never_answered"} & set(told(findings))
    unfounded: set[FindingKind] = {
        "labels_suspect",
        "labels_permuted",
        "prepared_otherwise",
        "confused_pairs",
        "weak_classes",
    }
    assert not unfounded & set(told(findings))


def test_shuffled_labels_leave_nothing_to_say_of_confidence_and_confusions() -> None:
    kind, plant = PLANTED["labels shuffled"]
    findings = plant(sound("grey", 1), 1).findings()
    assert told(findings) == [kind]
    unsaid = {one.kind: one.reason for one in findings.checks if one.state == "not_checked"}
    for one in ("overconfident", "confused_pairs", "weak_classes", "labels_suspect"):
        assert unsaid[one] == "the answers agree with the labels no more than by chance"


@pytest.mark.parametrize("dataset", DATASETS)
def test_of_wrong_labels_most_are_found_and_most_that_are_found_are_wrong(dataset: str) -> None:
    _, plant = PLANTED["2 % of wrong labels"]
    counts = Counter[str]()
    for seed in SEEDS:
        case = sound(dataset, seed)
        (finding,) = (one for one in plant(case, seed).findings().findings if one.kind == "labels_suspect")
        planted = set(noisy(seed, len(case.dataset.part("test"))).tolist())
        counts += Counter(right=len(planted & set(finding.images)), found=len(finding.images), planted=len(planted))
    precision, recall = counts["right"] / counts["found"], counts["right"] / counts["planted"]
    print(f"\n{dataset}: of 2 % wrong labels precision {precision:.2f}, recall {recall:.2f}")
    assert precision > 0.6
    assert recall > 0.8


def test_the_way_in_which_images_were_prepared_is_named() -> None:
    kind, plant = PLANTED["images inverted"]
    (finding,) = (one for one in plant(sound("grey", 1), 1).findings().findings if one.kind == kind)
    assert "inverted (255 minus the pixel)" in finding.texts[0].text
    assert finding.figures["accuracy_then"] > 0.9 > finding.figures["accuracy"]


def test_a_shift_of_labels_is_told_from_another_order() -> None:
    _, shifted = PLANTED["labels shifted"]
    _, swapped = PLANTED["two labels swapped"]
    case = sound("grey", 1)
    (one,) = (one for one in shifted(case, 2).findings().findings if one.kind == "labels_permuted")
    assert one.texts[0].title == "Its labels are shifted by +2"
    (other,) = (one for one in swapped(case, 2).findings().findings if one.kind == "labels_permuted")
    assert other.texts[0].title == "Its labels are in another order: 2 classes are exchanged"
    assert set(other.classes) == {2, 6}


def test_every_kind_is_planted_and_has_its_sentences() -> None:
    assert {kind for kind, _ in PLANTED.values()} == set(KINDS)
    assert list(english.SENTENCES) == list(korean.SENTENCES)
    assert set(english.SENTENCES) == set(KINDS)
    assert {kind for kinds in EXPLAINED.values() for kind in kinds} < set(KINDS)


def test_the_page_about_findings_lists_every_rule_in_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
    listed = [one for row in re.findall(r"^\| (`.+?) \|", page, re.MULTILINE) for one in re.findall(r"`(\w+)`", row)]
    assert listed == list(KINDS)
    assert f"Of {len(PLANTED)} planted faults" in page


def test_units_of_linear_layers_that_networks_do_without_are_no_finding() -> None:
    case = sound("grey", 1)
    torch.manual_seed(0)
    hidden = nn.Linear(784, 64)
    model = nn.Sequential(nn.Flatten(), hidden, nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        hidden.weight[:32], hidden.bias[:32] = 0, -1
    activation = activated(safe(model), case.dataset, "cpu")
    assert len(activation.layers[0].dead) >= 32
    outputs = predicted(safe(model), case.dataset, "cpu")
    evidence = Evidence(outputs, evaluated(outputs, case.dataset), case.dataset, feature_activation=activation)
    assert channels_dead(evidence) == channels_constant(evidence) == NotChecked("this model has no convolutions")


@pytest.mark.parametrize("seed", range(4))
def test_chance_is_what_shuffled_answers_come_to(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = random.choice(6, 300, p=random.dirichlet(np.ones(6)))
    answers = random.choice(6, 300, p=random.dirichlet(np.ones(6)))
    support, answered = np.bincount(labels, minlength=6), np.bincount(answers, minlength=6)
    found = agreement(support.tolist(), answered.tolist(), int((labels == answers).sum()), 1.0)
    dealt = np.array([(random.permutation(answers) == labels).mean() for _ in range(20_000)])
    assert found.chance == pytest.approx(dealt.mean(), abs=4 * dealt.std() / 140)
    assert found.deviation == pytest.approx(dealt.std(), rel=0.03)


def test_a_temperature_is_that_of_the_least_cross_entropy() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(0, 4, (600, 5))
    labels = np.array([random.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in logits / 2.5])
    tensor, true = torch.tensor(logits), torch.tensor(labels)
    losses = {t: float(torch.nn.functional.cross_entropy(tensor / t, true)) for t in np.geomspace(0.5, 8, 4_001)}
    assert temperature(logits, labels) == pytest.approx(min(losses, key=lambda t: losses[t]), rel=2e-3)


def test_images_are_equal_where_their_pixels_are() -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), np.uint8)
    same, other = images.copy(), images.copy()
    other[0, 0, 0, 0] ^= 1
    assert digests(same) == digests(images)
    assert [a == b for a, b in zip(digests(other), digests(images), strict=True)] == [False, True, True]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_hash_tells_of_each_step_between_areas_whether_it_is_upwards(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 255, (5, 72, 144, channels), np.uint8)
    found = hashes(images)
    for image, words in zip(images, found, strict=True):
        grey = image @ np.array([0.2126, 0.7152, 0.0722]) if channels == 3 else image[..., 0].astype(float)
        across = grey.reshape(8, 9, 9, 16).mean(axis=(1, 3))
        down = grey.reshape(9, 8, 8, 18).mean(axis=(1, 3))
        steps = (np.diff(across, axis=1) > 0).ravel(), (np.diff(down, axis=0) > 0).ravel()
        bits = [np.unpackbits(np.array([one]).view(np.uint8)).astype(bool) for one in words]
        assert all(np.array_equal(a, b) for a, b in zip(bits, steps, strict=True))


def test_each_copy_has_its_original_as_the_nearest_and_no_image_itself() -> None:
    random = np.random.default_rng(1)
    images = np.repeat(np.repeat(random.integers(0, 255, (80, 8, 8, 3), np.uint8), 4, axis=1), 4, axis=2)
    copies = np.clip(images[:20] * 0.97 + random.normal(0, 2, images[:20].shape), 0, 255).astype(np.uint8)
    looked, near, distance, typical = nearest(
        np.concatenate([images, copies]), np.concatenate([images, copies]), same=True
    )
    assert near[80:].tolist() == list(range(20)) and near[:20].tolist() == list(range(80, 100))
    assert not np.any(near == looked)
    apart = images[:20].astype(float) - copies
    assert distance[80:] == pytest.approx(np.sqrt((apart**2).mean(axis=(1, 2, 3))), rel=1e-5)
    assert distance[80:].max() < 0.1 * typical < distance[20:80].min()


@pytest.mark.parametrize(
    ("counts", "rare"),
    [
        ((100, 100, 100, 100), ()),
        ((300, 100, 100, 90), ()),  # as street numbers are
        ((400, 400, 400, 12), (3,)),
        ((400, 400, 400, 45), ()),  # more than a tenth of an even share
        ((8, 8, 8, 0), ()),  # of so few images chance explains it
    ],
)
def test_a_class_is_rare_below_a_tenth_of_an_even_share(counts: tuple[int, ...], rare: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(4), counts)
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    dataset = described("d", {"test": PartArrays(images, labels), "train": PartArrays(images, labels)}, (0.5,), (1.0,))
    outputs = np.eye(10, dtype=np.float32)[labels]
    predictions = Predictions(outputs=outputs, output_kind="logits", images=len(labels), non_finite=0)
    evidence = Evidence(predictions, evaluated(predictions, dataset), dataset)
    for rule in (rare_in_test, rare_in_train):
        found = rule(evidence)
        assert (found.classes if isinstance(found, Found) else ()) == rare


def no_number_is_made_up(finding: Finding) -> None:
    """Look at each numeral outside of quotation marks: it is a figure, or one rounded, in per cent or less one."""
    known = [Decimal(repr(one)) for one in finding.figures.values()]
    constants = {"0", "1", "255", "0.5", "0.485", "0.456", "0.406", "0.229", "0.224", "0.225"}  # of preparations
    for text in finding.texts:
        plain = re.sub(r"‘[^‘’]*’", "", f"{text.title} {text.text} {text.action}")
        for numeral in _numerals(plain):
            value = Decimal(numeral)
            step = Decimal(1).scaleb(value.as_tuple().exponent)  # type: ignore[arg-type]
            near = [abs(one * scale - value) <= step / 2 for one in known for scale in (1, 100)]
            less_one = any(one - 1 == value for one in known)
            assert any(near) or less_one or numeral in constants, (finding.kind, numeral, text.text, finding.figures)


def _numerals(text: str) -> Iterator[str]:
    for found in re.findall(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", text):
        yield found.replace(",", "")
