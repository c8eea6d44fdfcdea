"""`layerscope check` on better, equal and worse versions: exit status, figures against NumPy, the JUnit file, sentences."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from layerscope import check_command
from layerscope.check_command import NotJudged, check
from layerscope.datasets.digits import digits
from layerscope.functions.runtime.services import Services, embedded
from layerscope.junit_report import Case, report
from layerscope.required_figures import OF_CHANGE, OWN, Change, change
from layerscope.requirement import parse
from layerscope.stores import datasets
from layerscope.systems import NoSystem, Remote
from tests.functions.analysed import Given
from tests.functions.runtime.served import served
from tests.layerscope.linear_versions import MEASURED, Weights, analysed, inputs, system, trained, without_eight
from tests.stack import ROOT, layerscope

BASE, BETTER, EQUAL, WORSE, WAITING = (f"digits/linear/{version}" for version in range(1, 6))
NO_WORSE = ("accuracy>=0.84", "broken<=10", "difference>=0")
FOUND_BY = ("findings", "preprocessing", "layer_vectors", "feature_activation", "training_history")


@pytest.mark.parametrize(
    ("text", "figure", "of_class", "operator", "bound"),
    [
        ("accuracy>=0.95", "accuracy", None, ">=", 0.95),
        (" broken <= 10 ", "broken", None, "<=", 10),
        ("accuracy[ship] > .5", "accuracy", "ship", ">", 0.5),
        ("accuracy[a]>=1]==1e-3", "accuracy", "a]>=1", "==", 0.001),
        ("difference>=-0.01", "difference", None, ">=", -0.01),
        ("errors<5", "errors", None, "<", 5),
    ],
)
def test_a_requirement_is_read(text: str, figure: str, of_class: str | None, operator: str, bound: float) -> None:
    found = parse(text)
    assert (found.figure, found.of_class, found.operator, found.bound) == (figure, of_class, operator, bound)
    assert found.text == text.strip()


@pytest.mark.parametrize(
    "text", ["", "accuracy", "accuracy>=", "accuracy=>0.9", "accuracy=0.9", "a>=nan", "a>=0.9 %", "[8]>1"]
)
def test_what_is_no_requirement_is_refused_with_one_that_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no requirement.*'accuracy>=0\.95'"):
        parse(text)


@pytest.mark.parametrize(
    ("operator", "of_less_same_more"),
    [
        (">=", (False, True, True)),
        ("<=", (True, True, False)),
        ("==", (False, True, False)),
        (">", (False, False, True)),
        ("<", (True, False, False)),
    ],
)
def test_each_operator_is_what_it_says(operator: str, of_less_same_more: tuple[bool, ...]) -> None:
    required = parse(f"errors{operator}10")
    assert tuple(required.holds(value) for value in (9, 10, 11)) == of_less_same_more


def test_an_answer_that_is_not_finite_is_wrong_and_no_other_answer_than_one_that_is_not_either() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    before, after = np.array([0, -1, 0, -1, 2]), np.array([-1, 0, 2, -1, 2])
    found = change(labels, before, after)
    assert found == Change(images=5, fixed=1, broken=1, different=3)
    assert (found.churn, found.difference) == (0.6, 0)


def test_a_junit_file_has_what_it_is_given_whatever_that_is() -> None:
    hostile = "accuracy[<&\"'>]\x00\x1b]]>\ud800>=1"
    cases = [Case("accuracy>=0.9", "passed"), Case(hostile, "failure", hostile), Case("x", "error", "why é")]
    began = datetime(2026, 1, 2, 3, 4, 5, 678, timezone(timedelta(hours=9)))
    root = ElementTree.fromstring(report("digits/net/1", cases, seconds=1.25, at=began, properties={"against": "1"}))
    (suite,) = root
    counts = {"tests": "3", "failures": "1", "errors": "1", "skipped": "0", "time": "1.250"}
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    assert root.attrib == {"name": "layerscope check", **counts}
    assert suite.attrib == {"name": "digits/net/1", "timestamp": "2026-01-01T18:04:05", **counts}
    assert [one.attrib for one in suite.iter("property")] == [{"name": "against", "value": "1"}]
    passed, failed, error = suite.iter("testcase")
    assert len(passed) == 0 and passed.attrib == {"name": "accuracy>=0.9", "classname": "digits/net/1", "time": "0"}
    cleaned = "accuracy[<&\"'>]\ufffd\ufffd]]>\ufffd>=1"
    assert (failed.attrib["name"], failed[0].tag, failed[0].attrib["message"]) == (cleaned, "failure", cleaned)
    assert (error[0].tag, error[0].text) == ("error", "why é")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Services, dict[str, Weights]]:
    """Return a system in which one version is followed by a better, an equal and a worse one, and one not analysed."""
    directory = tmp_path_factory.mktemp("system")
    services, description = system(directory)
    base = trained(description, 20)
    given = {BASE: base, BETTER: trained(description, 200), EQUAL: base, WORSE: without_eight(base)}
    products = {name: (*MEASURED, *(FOUND_BY if name == WORSE else ())) for name in given}
    part = digits()["test"].take(np.arange(40))
    three = datasets.PartArrays(part.images, part.labels % 2)  # nobody is of the third class
    datasets.write(services.store, "three", ("even", "odd", "neither"), {"test": three, "probe": three})
    analysed(
        services,
        *(Given(name, one.packed(), products=products[name]) for name, one in given.items()),
        Given(WAITING, base.packed(), products=()),
        Given("digits/text/1", b"these are no weights", products=()),
        Given("three/linear/1", Weights(base.weight[:3], base.bias[:3]).packed(), products=MEASURED),
    )
    return directory, services, given


@pytest.fixture(scope="module")
def directory(versions: tuple[Path, Services, dict[str, Weights]]) -> str:
    return str(versions[0])


def by_hand(given: dict[str, Weights], description: datasets.DatasetDescription, name: str) -> dict[str, float]:
    """Return every figure of a version, with the base before it, from weights and images."""
    part = digits()["test"]
    outputs = {one: given[one].outputs(inputs(part.images, description)) for one in (BASE, name)}
    before, after = (outputs[one].argmax(1) for one in (BASE, name))
    now = outputs[name]
    shares = np.exp(now - now.max(1, keepdims=True))
    sure = (shares / shares.sum(1, keepdims=True)).max(1)
    right, was = after == part.labels, before == part.labels
    within = [(sure > k / 15) & (sure <= (k + 1) / 15) for k in range(15)]
    gaps = [abs(right[one].mean() - sure[one].mean()) * one.mean() for one in within if one.any()]
    top = np.argsort(-now, axis=1)[:, :5]
    return {
        "accuracy": right.mean(),
        "errors": (~right).sum(),
        "accuracy[8]": right[part.labels == 8].mean(),
        "top5_accuracy": (top == part.labels[:, None]).any(1).mean(),
        "ece": sum(gaps),
        "fixed": (right & ~was).sum(),
        "broken": (was & ~right).sum(),
        "churn": (before != after).mean(),
        "difference": right.mean() - was.mean(),
    }


def judged(at: str, name: str, *require: str, against: str | None = "1") -> dict[str, float]:
    asked = check_command.question(name, against, require, 0)
    found = asyncio.run(check_command.judge(check_command.systems.locate(at), asked))
    return {one.figure: one.value for one in found}


EVERY = ("accuracy", "errors", "accuracy[8]", "top5_accuracy", "ece", "fixed", "broken", "churn", "difference")


@pytest.mark.slow
@pytest.mark.parametrize("name", [BETTER, EQUAL, WORSE])
def test_every_figure_is_what_numpy_finds(versions: tuple[Path, Services, dict[str, Weights]], name: str) -> None:
    directory, services, given = versions
    description = datasets.describe(services.store, "digits")
    assert description is not None
    found = judged(str(directory), name, *(f"{one}>=0" for one in EVERY))
    wanted = by_hand(given, description, name)
    assert found == pytest.approx(wanted, abs=1e-5)
    for one in ("errors", "fixed", "broken"):
        assert found[one] == wanted[one]
    # The versions are what they are called, or the rest of this file shows little.
    assert {BETTER: found["difference"] > 0.05, EQUAL: found["churn"] == 0, WORSE: found["broken"] > 10}[name]


@pytest.mark.slow
def test_the_exit_status_tells_a_better_an_equal_and_a_worse_version(directory: str, tmp_path: Path) -> None:
    def run(name: str, *more: str) -> Any:
        required = [word for one in NO_WORSE for word in ("--require", one)]
        return layerscope("check", name, "--against", "1", *required, *more, "--at", directory)

    better = run(BETTER, "--json")
    assert better.returncode == 0, better.stderr
    told = json.loads(better.stdout)
    assert (told["holds"], told["against"], told["version"]) == (True, BASE, "2")
    assert [one["requirement"] for one in told["requirements"]] == list(NO_WORSE)
    equal = run(EQUAL)
    assert equal.returncode == 0 and "3 of 3 requirements hold" in equal.stdout, equal.stderr
    file = tmp_path / "junit.xml"
    worse = run(WORSE, "--junit", str(file))
    assert worse.returncode == 1 and "no" in worse.stdout and str(file) in worse.stderr
    suite = ElementTree.parse(file).getroot()[0]
    outcomes = [(one.attrib["name"], [said.tag for said in one]) for one in suite.iter("testcase")]
    assert outcomes == [(one, ["failure"]) for one in NO_WORSE]
    unknown = layerscope(
        "check", "digits/linaer/1", "--require", "accuracy>=0.5", "--junit", str(file), "--at", directory
    )
    assert unknown.returncode == 2 and f"did you mean {BASE}" in unknown.stderr.replace("\n", " ")
    suite = ElementTree.parse(file).getroot()[0]
    assert (suite.attrib["errors"], suite.attrib["failures"]) == ("1", "0")


def test_the_documentation_lists_every_figure() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    table = page.partition("| figure | what it is |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"`(.+?)`", " ".join(rows))) == sorted((*OWN, *OF_CHANGE))


@pytest.mark.slow
def test_findings_are_counted(directory: str) -> None:
    found = judged(directory, WORSE, "findings>=1", against=None)
    stored = json.loads(layerscope("show", WORSE, "--at", directory, "--json").stdout)
    assert found["findings"] == stored["products"]["findings"]["headline"]["findings"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "require", "against", "said"),
    [
        ("digits/linear", "accuracy>=0.5", None, "'digits/linear' is not DATASET/MODEL/VERSION"),
        (BASE, "accuracy~0.5", None, "'accuracy~0.5' is no requirement"),
        (BASE, "acuracy>=0.5", None, "did you mean accuracy. there are accuracy, .*; with --against also broken"),
        (BASE, "broken<=1", None, "is about two versions: give the other with --against"),
        (BASE, "ece[8]<=1", None, "of the figures only accuracy is"),
        (BASE, "accuracy>=95", None, "a share, from 0 to 1: 0.95 is 95 %"),
        (BASE, "errors<=-1", None, "a number of them, 0 or more"),
        (BASE, "accuracy[ten]>=0.5", None, "has no class 'ten'. its classes.* begin: 0, 1"),
        (BASE, "findings<=1", None, r"not there yet \(computing\): `layerscope why .*--wait SECONDS waits"),
        (WAITING, "accuracy>=0.5", None, f"evaluation of {WAITING} is not there yet .*--wait SECONDS waits"),
        (BETTER, "broken<=1", "5", f"example_images of {WAITING} is not there yet"),
        (BETTER, "broken<=1", "9", "There is no model digits/linear/9: did you mean digits/linear/"),
        (BETTER, "broken<=1", "three/linear/1", "are on different datasets"),
        ("digits/text/1", "accuracy>=0.5", None, "for the upload was refused"),
        ("three/linear/1", "top5_accuracy>=0.5", None, "fewer than six classes; it has accuracy, accuracy.CLASS., ece, "),
        ("three/linear/1", "accuracy[neither]>=0.5", None, "no test image is of the class 'neither'"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_said_with_what_to_do(
    directory: str, name: str, require: str, against: str | None, said: str
) -> None:
    with pytest.raises(NotJudged, match=said):
        check(name, [require], against, at=directory)


@pytest.mark.slow
def test_it_is_waited_for_what_is_being_computed_and_no_longer(
    directory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotJudged, match=r"it was waited for 0\.2 s"):
        check(WAITING, ["accuracy>=0.5"], wait=0.2, at=directory)
    check(BETTER, ["accuracy>=0.5"], wait=0.2, at=directory)  # others of its products do not come
    assert "evaluation: complete" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_no_failed_requirement(directory: str, tmp_path: Path) -> None:
    with pytest.raises(NotJudged, match="give --junit another file"):
        check(BETTER, ["accuracy>=0.5"], junit=tmp_path / "none" / "junit.xml", at=directory)


@pytest.mark.slow
def test_a_system_elsewhere_is_asked_by_its_url(
    versions: tuple[Path, Services, dict[str, Weights]], directory: str, tmp_path: Path
) -> None:
    required = [f"{one}>=0" for one in EVERY]
    with served(versions[1]) as url:
        assert judged(url, WORSE, *required) == judged(directory, WORSE, *required)
    file = tmp_path / "junit.xml"
    with pytest.raises(NoSystem, match="nobody answers"):
        check(WORSE, ["accuracy>=0.5"], junit=file, at=url)
    assert ElementTree.parse(file).getroot()[0].attrib["errors"] == "1"
    assert Remote(url) == check_command.systems.locate(url)


@pytest.mark.slow
def test_versions_on_other_test_images_are_not_compared(
    versions: tuple[Path, Services, dict[str, Weights]], tmp_path: Path
) -> None:
    given = versions[2]
    services, _ = system(tmp_path)
    analysed(services, Given(BASE, given[BASE].packed(), products=MEASURED))
    parts = digits()
    datasets.write(services.store, "digits", tuple("0123456789"), {**parts, "test": parts["test"].take(np.arange(99))})
    again = embedded(tmp_path)  # a loop of its own for each, so a worker of its own
    analysed(again, Given(BETTER, given[BETTER].packed(), products=MEASURED))
    with pytest.raises(
        NotJudged, match=f"example_images of {BASE} is being made again, and only an older one is there"
    ):
        check(BETTER, ["broken<=1"], "1", at=str(tmp_path))
    check(BETTER, ["accuracy>=0.5"], at=str(tmp_path))
