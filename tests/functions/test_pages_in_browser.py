"""The pages in a real browser: with real products, hostile names, both themes, a narrow window, without scripts."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect
from torch import nn

from layerscope.export import page as exported
from layerscope.functions.analysis.inference import normalised
from layerscope.functions.query import answers
from layerscope.functions.query.page.model_data import ModelData
from layerscope.functions.query.page.model_page import model_page
from layerscope.functions.query.page.sections import general, product_text
from layerscope.functions.query.page_routes import headers
from layerscope.functions.runtime.services import Services, embedded, new_worker
from layerscope.functions.runtime.worker_pool import WorkerPool
from layerscope.packer import pack
from layerscope.schemas.identity import Identity
from layerscope.schemas.products import declared_products
from layerscope.stores import datasets
from layerscope.stores.datasets import PartArrays
from layerscope.stores.object_store import ObjectStore
from layerscope.training_log import sidecar
from tests.functions.analysed import ALL, Given, analyse
from tests.functions.runtime.served import browsing, served

pytestmark = pytest.mark.slow

CLASSES = ("<img src=x onerror=alert(1)>", '"><script>alert(2)</script>', "{{7*7}}' onload=alert(3) \u05d0\u05d1\u05d2")
LATE = "description"
WHOLE, HALF, REFUSED, LETTERS = "hostile/net/1", "hostile/net/half", "hostile/net/text", "letters/linear/1"
MEASURED = "hostile/measured/1"
# Themes differ in nothing but colours.
RULES: Mapping[str, Mapping[str, object]] = {"light": {}, "dark": {"runOnly": ["color-contrast"]}}
HISTORY = {"train_loss": [2.0, 1.0, 0.5], "test_loss": [2.0, 1.2, 0.9], "test_accuracy": [0.3, 0.5, 0.6]}


def analysed(services: Services, *given: Given) -> None:
    """Do so in a thread of its own: Playwright holds the event loop of this one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(analyse, services, *given).result()


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))


def trained(store: ObjectStore, scratch: Path) -> nn.Module:
    """Return a network that is right on most images of the dataset `hostile`, and not on all."""
    described = datasets.describe(store, "hostile")
    assert described is not None
    test = datasets.load(store, described, ("test",), scratch / "trained").part("test")
    pixels, labels = normalised(test.images, described, "cpu"), torch.tensor(test.labels)
    model = network()
    steps = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        steps.zero_grad()
        nn.functional.cross_entropy(model(pixels), labels).backward()
        steps.step()
    return model


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    made = embedded(tmp_path_factory.mktemp("system"))
    made.store.ensure_buckets()
    drawn = np.random.default_rng(0)
    for name, classes in (("hostile", CLASSES), ("letters", tuple("abcdefghijklmnopqrstuvwxyz"))):
        labels = np.arange(78, dtype=np.int64) % len(classes)
        pixels = drawn.integers(0, 200, (78, 12, 12, 3), np.uint8)
        pixels[:, :6, :6, 0] //= (1 + labels % 3)[:, None, None].astype(np.uint8)
        datasets.write(
            made.store, name, classes, {"test": PartArrays(pixels, labels), "probe": PartArrays(pixels, labels)}
        )
    torch.manual_seed(0)
    whole, again = pack(trained(made.store, made.scratch)), pack(network())
    letters = pack(nn.Sequential(nn.Flatten(), nn.Linear(432, 26)))
    analysed(
        made,
        Given(WHOLE, whole, dict([sidecar(HISTORY)])),
        Given(HALF, again, products=[name for name in ALL if name != LATE]),
        Given(MEASURED, pack(network()), products=("summary", "predictions", "evaluation")),
        Given(REFUSED, b"these are not weights\n"),
        Given(LETTERS, letters, products=("predictions", "evaluation", "confusion_matrix", "example_images")),
    )
    yield made


@pytest.fixture(scope="module")
def address(services: Services) -> Iterator[str]:
    with served(services) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as started:
        yield started


class Seen:
    """A page, and everything that went wrong on it."""

    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.faults.append(message.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _dismiss(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    yield Seen(context)
    context.close()


def paths() -> list[str]:
    similar = f"/models/{WHOLE}/layers/0/similar"
    return [
        *(f"/models/{subject}" for subject in (WHOLE, REFUSED, LETTERS)),  # of the last, not all is computed
        f"/models/{WHOLE}/images",
        f"/models/{WHOLE}/images?correct=false&sort=least_sure",
        f"/models/{WHOLE}/images/0",
        f"/models/{WHOLE}/images/1?limit=1",
        "/models",
        "/datasets/hostile",
        "/datasets/hostile?per=model&cost=parameters",
        "/datasets/letters?q=nothing",
        "/models/hostile/net",
        "/models/hostile/net?label=0",
        "/models/letters/linear",
        "/refusals",
        f"/compare?a={WHOLE}&b={HALF}",
        f"/compare?a={WHOLE}&b={REFUSED}",
        f"{similar}?metric=cka",
        f"{similar}/description?metric=cka&other={HALF}&other_layer=0",
        f"/models/{WHOLE}/layers/0",
        f"/models/{WHOLE}/layers/4",
        f"/models/{WHOLE}/layers/0/channels/0",
    ]


def violations(page: Page, rules: Mapping[str, object] | None = None) -> list[tuple[str, str]]:
    found = Axe().run(page, options={"resultTypes": ["violations"], **(rules or {})}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_fits_a_narrow_window_and_breaks_no_rule_of_its_policy(
    browser: Browser, address: str, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    for path in paths():
        seen = Seen(context)
        answer = seen.page.goto(address + path)
        assert answer is not None and answer.status == 200, path
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400, path
        assert violations(seen.page, RULES[scheme]) == [], path
        assert seen.faults == [], path
        seen.page.close()
    context.close()


def test_names_that_are_markup_are_shown_as_they_are(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    for name in CLASSES:
        expect(seen.page.locator("#confusions ~ .scroll tbody").get_by_role("rowheader", name=name)).to_be_visible()
    assert seen.page.locator("img[onerror], img[src=x], main script").count() == 0
    assert seen.faults == []


def test_a_cell_of_the_confusion_matrix_opens_its_images_by_keyboard(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    cell = seen.page.locator(".matrix td.wrong a").first
    target = seen.page.locator(cell.get_attribute("href") or "")
    expect(target).to_be_hidden()
    cell.focus()
    seen.page.keyboard.press("Enter")
    expect(target).to_be_visible()
    pictures = target.get_by_role("img")
    assert pictures.count() >= 1
    expect(pictures.first).to_be_in_viewport()
    seen.page.keyboard.press("Tab")
    expect(target.get_by_role("link").first).to_be_focused()  # the count, which opens all of them
    seen.page.keyboard.press("Tab")
    expect(target.get_by_role("link", name="Close")).to_be_focused()
    seen.page.keyboard.press("Enter")
    expect(target).to_be_hidden()


def test_a_thumbnail_is_the_test_image_pixel_for_pixel(seen: Seen, address: str, services: Services) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    seen.page.wait_for_load_state("networkidle")
    picture = seen.page.locator(".card .sprite")
    index = int(re.findall(r"Test image (\d+)", picture.get_attribute("aria-label") or "")[0])
    described = datasets.describe(services.store, "hostile")
    assert described is not None
    image = datasets.load(services.store, described, ("test",), services.scratch / "d").part("test").images[index]
    box = picture.bounding_box()
    assert box is not None and (box["width"], box["height"]) == (108, 108)  # nine times as large: whole pixels
    shot, top, left = _pixels(picture.screenshot()), box["y"] % 1, box["x"] % 1
    for part in (2, 4.5, 7):  # of the nine: a pixel has one colour all over
        rows, columns = (np.array([int(start + 9 * at + part) for at in range(12)]) for start in (top, left))
        assert np.array_equal(shot[np.ix_(rows, columns)], image)


def _pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_thumbnails_cost_one_request_a_sheet_and_none_when_seen_again(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    seen.page.wait_for_load_state("networkidle")
    assert seen.page.locator(".sprite").count() > 50
    pictures = [url for url in seen.requests if ".png" in url]
    assert len(pictures) == seen.page.locator(".sheets image, main img[src*='.png']").count() >= 5
    assert [url for url in pictures if pictures.count(url) > 1] == []
    answers = [seen.page.request.get(url) for url in pictures]
    assert {answer.headers["cache-control"] for answer in answers} == {"public, max-age=31536000, immutable"}
    assert {answer.headers["content-type"] for answer in answers} == {"image/png"}


def test_a_layer_opens_by_keyboard_and_shows_its_images_and_the_layers_like_it(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    layer = seen.page.locator("#layer-4 summary")
    layer.focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#layer-4 table")).to_contain_text(HALF)
    first = seen.page.locator("#layer-0")
    first.locator("summary").click()
    expect(first.get_by_role("img", name="Activation map of channel").first).to_be_visible()
    expect(first.get_by_role("img", name="Picture made for channel 0")).to_be_visible()
    assert seen.faults == []


def test_a_box_of_the_diagram_leads_to_its_layer_by_keyboard(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    boxes = seen.page.locator("#diagram svg a")
    assert boxes.evaluate_all("all => all.map(one => one.getAttribute('href').split('/').pop())") == list("01234")
    expect(seen.page.locator(".legend")).to_contain_text(
        "some of its channels or units are dead, constant or not finite"
    )
    boxes.nth(3).focus()
    seen.page.keyboard.press("Tab")
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_contain_text("Layer 4 (Linear)")
    assert seen.faults == []


def test_channels_are_gone_through_by_keyboard_from_the_layer_that_has_them(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}/layers/0")
    first = seen.page.get_by_role("link", name="Channel 0")
    first.focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_contain_text("Channel 0 of layer 0 (Conv2d)")
    expect(seen.page.get_by_role("img", name="with the map of channel 0 laid over it")).to_be_visible()
    expect(seen.page.get_by_role("img", name="Picture made for channel 0")).to_be_visible()
    expect(seen.page.get_by_role("img", name="The control of the picture for channel 0")).to_be_visible()
    seen.page.get_by_role("link", name="Channel 1").focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_role("heading", level=1)).to_contain_text("Channel 1 of layer 0 (Conv2d)")
    seen.page.wait_for_load_state("networkidle")
    pictures = seen.page.locator("main img").evaluate_all("all => all.map(one => one.naturalWidth)")
    assert len(pictures) >= 27 and set(pictures) == {12}
    assert seen.faults == []


def test_a_half_computed_page_completes_by_itself_and_keeps_what_is_open(
    seen: Seen, address: str, services: Services
) -> None:
    seen.page.goto(f"{address}/models/{HALF}")
    expect(seen.page.locator("#waiting")).to_contain_text(LATE)
    seen.page.locator("#layer-0 summary").click()
    chosen = {"name": "mine.png", "mimeType": "image/png", "buffer": b"not looked at before it is asked about"}
    seen.page.get_by_label("Picture", exact=True).set_input_files(chosen)
    seen.page.get_by_label("Picture", exact=True).focus()
    # The workers of the services belong to the event loop that first used them.
    fresh = replace(services, workers=WorkerPool(1, lambda: new_worker(services.limits, services.scratch)))
    analysed(fresh, Given(HALF, b"", products=(LATE,), is_there=True))
    expect(seen.page.get_by_text("This model gets")).to_be_visible(timeout=15_000)
    expect(seen.page.locator("#waiting")).to_have_count(0)
    expect(seen.page.locator("#news")).to_have_text("All is there.")
    assert seen.page.locator("#layer-0").get_attribute("open") is not None
    expect(seen.page.get_by_label("Picture", exact=True)).to_be_focused()
    assert seen.page.get_by_label("Picture", exact=True).evaluate("one => one.files[0].name") == "mine.png"
    assert seen.faults == []


def test_without_scripts_everything_is_there(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/models/{WHOLE}")
    page.locator(".matrix td a").first.click()
    expect(page.locator(".cell:target").get_by_role("img").first).to_be_visible()
    page.locator("#layer-4 summary").click()
    page.locator("#layer-4").get_by_role("link", name="Layers of other models").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Layers like 4")
    page.get_by_role("link", name="in words").first.click()
    expect(page.locator("main")).to_contain_text("Written from the figures by a template")
    context.close()


def test_two_models_are_chosen_in_the_list_and_compared(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models")
    seen.page.get_by_label(f"compare {WHOLE}").check()
    seen.page.get_by_label(f"compare {HALF}").check()
    seen.page.get_by_role("button", name="Compare").click()
    expect(seen.page.get_by_role("row", name="Accuracy").first).to_contain_text("%")
    expect(seen.page.get_by_role("table", name="Similarity of the layers")).to_be_visible()
    assert seen.faults == []


def test_models_are_found_in_the_leaderboard_and_compared_without_scripts(browser: Browser, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/models")
    page.get_by_role("link", name="hostile", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Leaderboard of hostile")
    page.get_by_role("link", name="Parameters", exact=True).click()
    expect(page.get_by_role("columnheader", name="Parameters")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("searchbox", name="Name").fill("net")
    page.get_by_role("button", name="Show").click()
    assert "sort=parameters" in page.url and "q=net" in page.url
    page.get_by_label(f"compare {WHOLE}").check()
    page.get_by_label(f"compare {HALF}").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("row", name="Accuracy").first).to_contain_text("%")
    context.close()


def test_a_point_of_the_scatter_leads_to_its_model_by_keyboard(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/datasets/hostile?cost=parameters")
    best = seen.page.locator(".scatter a:not([tabindex])").first
    best.focus()
    seen.page.keyboard.press("Enter")
    expect(seen.page.get_by_label("Where you are").get_by_role("link", name="hostile")).to_be_visible()
    assert seen.faults == []


def test_one_goes_from_version_to_version_and_to_all_of_them(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{WHOLE}")
    seen.page.get_by_role("link", name="version half →").click()
    expect(seen.page.get_by_role("link", name="← version 1")).to_be_visible()
    seen.page.get_by_label("Where you are").get_by_role("link", name="net").click()
    expect(seen.page.get_by_role("table")).to_contain_text("It is the first version.")
    seen.page.get_by_label("Only class").select_option(index=1)
    seen.page.get_by_role("button", name="Show").click()
    expect(seen.page.locator("h1")).to_contain_text(CLASSES[0])
    assert seen.faults == []


def test_a_refused_upload_says_why_and_what_to_do(seen: Seen, address: str) -> None:
    seen.page.goto(f"{address}/models/{REFUSED}")
    expect(seen.page.get_by_text("This is text, not a model.")).to_be_visible()
    expect(seen.page.get_by_text("What to do:")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_product_without_a_template_has_its_headline_pictures_and_files_on_the_page(
    browser: Browser, address: str, services: Services, scheme: str
) -> None:
    def made() -> str:
        view = answers.everything(services.store, Identity.parse(WHOLE))
        data = ModelData(view, lambda file: file.url, partial(answers.content, services.store))
        return model_page(data, [general(product) for product in declared_products()])

    with ThreadPoolExecutor(1) as threads:
        html = threads.submit(made).result()
    context = browser.new_context(viewport={"width": 400, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    seen = Seen(context)
    where = f"{address}/models/{WHOLE}"
    sent = {**headers(), "content-type": "text/html"}
    seen.page.route(where, lambda route: route.fulfill(body=html, headers=sent))
    seen.page.goto(where)
    seen.page.wait_for_load_state("networkidle")
    texts = [product_text(product) for product in declared_products()]
    files = [f"{text.title}: {file}" for text in texts for file, _ in text.pictures]
    widths = seen.page.locator("img").evaluate_all("all => all.map(one => [one.alt, one.naturalWidth > 0])")
    assert widths == [[file, True] for file in files]
    assert seen.page.get_by_role("heading", name="Layer vectors").is_visible()
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert violations(seen.page, RULES[scheme]) == []
    assert seen.faults == []
    context.close()


def test_an_exported_page_needs_nothing_but_its_file(
    browser: Browser, services: Services, address: str, tmp_path: Path
) -> None:
    async def made() -> str:
        async with httpx.AsyncClient(base_url=address) as query:
            return await exported(services.store, query, Identity.parse(WHOLE))

    file = tmp_path / "page.html"
    with ThreadPoolExecutor(1) as threads:  # playwright has a loop running in this one
        file.write_text(threads.submit(lambda: asyncio.run(made())).result(), encoding="utf-8")
    context = browser.new_context(offline=True)
    seen = Seen(context)
    seen.page.goto(file.as_uri())
    assert {url.partition(":")[0] for url in seen.requests} <= {"file", "data"}
    picture = seen.page.locator(".card .sprite")
    assert len(np.unique(_pixels(picture.screenshot()).reshape(-1, 3), axis=0)) > 50
    seen.page.locator(".matrix td a").first.click()
    expect(seen.page.locator(".cell:target").get_by_role("img").first).to_be_visible()
    assert violations(seen.page) == []
    links = seen.page.locator("a").evaluate_all("found => found.map(one => one.getAttribute('href'))")
    assert links and all(link.startswith("#") for link in links)
    assert seen.faults == []
    context.close()
