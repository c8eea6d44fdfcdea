"""Every count of test images on a model's page opens exactly these images: with few classes, and with many."""

from __future__ import annotations

import html as markup
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from layerscope.functions.confusion_matrix.func import compute as counted
from layerscope.functions.evaluation.func import compute as evaluated
from layerscope.functions.example_images.func import compute as shown
from layerscope.functions.findings.func import compute as judged
from layerscope.functions.runtime.services import Services
from layerscope.schemas.identity import Identity
from layerscope.schemas.products.predictions import Predictions
from layerscope.stores import datasets
from layerscope.stores.datasets import Dataset, PartArrays
from tests.functions.asking import get, index, run
from tests.functions.bucket import Bucket, services
from tests.functions.test_pages import page, text_of

pytestmark = pytest.mark.slow

WHO = Identity("shapes", "net", "1")
IMAGES = 1_200
LINK = re.compile(r'<a [^>]*?href="(/models/[^"]*?/images(?:\?[^"]*)?)"[^>]*>(.*?)</a>', re.DOTALL)


def model(directory: Path, classes: int, lost: tuple[int, ...] = ()) -> Services:
    """Store a model with mistakes and doubtful labels, and all that is said of its answers; `lost` images have none."""
    made = services(directory)
    random = np.random.default_rng(classes)
    names = tuple(f"kind {k} & more/{k}" for k in range(classes))
    labels = random.integers(0, classes, IMAGES)
    part = PartArrays(random.integers(0, 255, (IMAGES, 4, 4, 1), np.uint8), labels)
    datasets.write(made.store, WHO.dataset, names, {"test": part, "probe": part.take(np.arange(8))})
    bucket = Bucket(made.store, WHO)
    bucket.admit()
    outputs = random.normal(0, 1, (IMAGES, classes))
    outputs[np.arange(IMAGES), np.where(random.uniform(size=IMAGES) < 0.93, labels, (labels + 1) % classes)] += 9
    outputs[list(lost)] = np.nan
    predictions = Predictions(
        outputs=outputs.astype(np.float32), output_kind="logits", images=IMAGES, non_finite=len(lost)
    )
    assert bucket.facts.dataset is not None
    dataset = Dataset(bucket.facts.dataset, {"test": part})
    evaluation = evaluated(predictions, dataset)
    bucket.write(predictions)
    for product in (evaluation, counted(predictions, dataset), shown(predictions, dataset)):
        bucket.write(product)
    bucket.write(judged(predictions, evaluation, None, None, None, None, dataset))
    bucket.refuse_rest()
    index(made, WHO)
    return made


def links(written: str) -> Iterator[tuple[str, int]]:
    """Yield every link to test images, and the count that it is on, or else that it tells."""
    for link, inside in LINK.findall(written):
        number = re.search(r"[\d,]+", text_of(re.sub(r"<title>.*?</title>", "", inside)))
        if number is not None:
            yield markup.unescape(link), int(number[0].replace(",", ""))
        else:  # a bar, of which the title tells
            said = re.search(r"([\d,]+) images?</title>", inside)
            assert said, inside
            yield markup.unescape(link), int(said[1].replace(",", ""))


async def totals(client: httpx.AsyncClient, paths: Sequence[str]) -> list[int]:
    answers = [await client.get(f"{one}{'&' if '?' in one else '?'}limit=1") for one in paths]
    return [one.json()["total"] for one in answers]


@pytest.mark.parametrize(("classes", "lost"), [(4, (3, 77)), (4, ()), (40, ())])
def test_every_count_of_images_on_the_page_opens_them(tmp_path: Path, classes: int, lost: tuple[int, ...]) -> None:
    made = model(tmp_path, classes, lost)
    written = page(made, f"/models/{WHO.subject}")
    found = list(links(written))
    opened = run(made, lambda client: totals(client, [link for link, _ in found]))
    assert [(link, n) for (link, _), n in zip(found, opened, strict=True)] == found
    kinds = ("correct=true", "correct=false", "finite=false" if lost else "above=", "predicted=", "finding=")
    assert all(any(kind in link for link, _ in found) for kind in kinds)
    assert any(link.endswith("/images") and number == IMAGES for link, number in found)
    # and none stands there without a link, but in texts, which are made elsewhere
    left = LINK.sub("", written)
    left = re.sub(
        r'<p class="lead">.*?</p>|<section aria-labelledby="findings">.*?</section>', "", left, flags=re.DOTALL
    )
    left = re.sub(r'<a href="#cell[^>]*>.*?</a>|<strong>Yes, as far as.*?</strong>', "", left, flags=re.DOTALL)
    assert not re.search(r"\d (?:test )?images?\b", text_of(left))
    numbers = re.findall(r'<td class="(?:right|wrong)[^"]*">(\d[\d,]*)</td>', left)
    numbers += re.findall(r"<dt>Test images</dt><dd>(\d[\d,]*)</dd>", left)
    assert numbers == []
    # a cell that is on this page opens there, and there all of its images
    cells = dict(re.findall(r'<a href="#(cell-\d+-\d+)"[^>]*>([\d,]+)</a>', written))
    for name, number in cells.items():
        cell = written.partition(f'id="{name}"')[2].partition("</section>")[0]
        assert next(n for _, n in links(cell)) == int(number.replace(",", ""))


@pytest.mark.parametrize(("lost", "kind"), [((3, 77), "outputs_not_finite"), ((), "labels_suspect")])
def test_a_finding_opens_all_of_its_images_however_many(tmp_path: Path, lost: tuple[int, ...], kind: str) -> None:
    made = model(tmp_path, 4, lost)
    data = get(made, f"/models/{WHO.subject}/products/findings")["data"]
    opened = {}
    for one in data["findings"]:
        pages, cursor = [], "0"
        while cursor is not None:
            answer = get(made, f"/models/{WHO.subject}/images", finding=one["kind"], limit=50, cursor=cursor)
            pages += [image["index"] for image in answer["images"]]
            cursor = answer["next"]
        assert len(pages) == answer["total"] == one["total"]
        assert pages[: len(one["images"])] == one["images"] and len(one["images"]) == min(60, one["total"])
        opened[one["kind"]] = pages
    assert opened[kind] == list(lost) if lost else len(opened[kind]) > 60


def test_findings_of_an_earlier_recipe_open_the_images_that_they_kept() -> None:
    from layerscope.functions.query.images.answered_images import _all_of

    older = [{"kind": "weak_classes", "images": [5, 3]}]
    assert _all_of(None, (), older, 0).tolist() == [5, 3]  # type: ignore[arg-type]


def test_pages_of_images_lead_back_one_by_one(tmp_path: Path) -> None:
    made = model(tmp_path, 4)
    path = f"/models/{WHO.subject}/images?correct=true&limit=20"
    seen = []
    for _ in range(3):
        written = page(made, path)
        seen.append(re.findall(r'/images/(\d+)"', written))
        following = re.search(r'rel="next" href="([^"]*)"', written)
        assert following is not None
        path = markup.unescape(following[1])
    back = []
    written = page(made, path)
    for _ in range(3):
        before = re.search(r'rel="prev" href="([^"]*)"', written)
        assert before is not None
        written = page(made, markup.unescape(before[1]))
        back.append(re.findall(r'/images/(\d+)"', written))
    assert back == seen[::-1]
    assert 'rel="prev"' not in written
