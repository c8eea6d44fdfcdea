"""What runs a model, in a real browser: the field for pictures, and what an answer stands on; by keyboard, without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, FileChooser, Page, expect

from layerscope.datasets.digits import CLASSES, digits
from layerscope.embedded import WaitingInference
from layerscope.functions.query.page.picture_field import picture_field
from layerscope.functions.runtime.services import embedded, new_worker
from layerscope.functions.runtime.worker_pool import WorkerPool
from layerscope.schemas.datasets import DatasetDescription
from layerscope.stores import datasets
from tests.functions.analysed import Given, analyse
from tests.functions.pictures import encoded
from tests.functions.runtime.served import browsing, served
from tests.small_networks import tiny

pytestmark = pytest.mark.slow

WHO = "digits/tiny/1"
PATIENCE = 120_000  # ms: the worker starts with the first picture


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    made = embedded(tmp_path_factory.mktemp("system"))
    made.store.ensure_buckets()
    datasets.write(made.store, "digits", CLASSES, digits())
    with ThreadPoolExecutor(1) as thread:  # Playwright holds the event loop of this one
        thread.submit(
            analyse, made, Given(WHO, tiny(0), products=("predictions", "feature_activation", "example_images"))
        ).result()
    # Workers belong to one event loop, and that of `analyse` is gone.
    workers = WorkerPool(1, lambda: new_worker(made.limits, made.scratch))
    inference = WaitingInference(replace(made, workers=workers, reading_workers=workers))
    with served(made, inference.client) as found:
        yield found
        inference.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as started:
        yield started


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "digit.png"
    path.write_bytes(encoded(digits()["test"].images[0, ..., 0]))
    return path


def opened(browser: Browser, address: str, *, scripts: bool = True) -> tuple[Page, list[str]]:
    page = browser.new_context(java_script_enabled=scripts).new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"{address}/models/{WHO}")
    return page, faults


def violations(page: Page) -> list[str]:
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in Axe().run(page).response["violations"]]


def test_by_keyboard_a_picture_is_chosen_and_its_class_is_said(browser: Browser, address: str, picture: Path) -> None:
    page, faults = opened(browser, address)
    chosen: list[FileChooser] = []
    # Listened for from the start: what Chromium is told to hand over only at the key may come after the key.
    page.on("filechooser", partial(list.append, chosen))
    assert violations(page) == []
    field = page.get_by_label("Picture", exact=True)
    for _ in range(60):
        page.keyboard.press("Tab")
        if field.evaluate("one => one === document.activeElement"):
            break
    expect(field).to_be_focused()
    with page.expect_file_chooser(timeout=PATIENCE):
        page.keyboard.press("Enter")
    (chooser,) = chosen
    chooser.set_files(picture)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    status = page.locator("section.asking [role=status]")
    expect(status).to_have_text(re.compile(r"^\d .*%, by tiny version 1$"), timeout=PATIENCE)
    answered = page.locator("section.asking .answered")
    expect(answered.get_by_role("heading", name="The nearest test images")).to_be_visible()
    expect(answered).to_contain_text("not resized")
    assert answered.locator("img").evaluate_all("all => all.map((one) => one.naturalWidth)")[0] == 28
    assert violations(page) == []
    assert faults == []


def test_what_is_drawn_is_asked_about_and_a_broken_file_is_answered_with_a_sentence(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    page, faults = opened(browser, address)
    canvas = page.locator("canvas.drawn")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20, steps=8)
    page.mouse.up()
    lit = "one => [...one.getContext('2d').getImageData(14, 0, 1, 28).data].filter((v, i) => i % 4 === 0 && v > 200).length"
    assert canvas.evaluate(lit) > 15
    page.get_by_role("button", name="Ask about the drawing").click()
    status = page.locator("section.asking [role=status]")
    expect(status).to_have_text(re.compile(r"%, by tiny version 1$"), timeout=PATIENCE)
    page.get_by_role("button", name="Clear the drawing").click()
    assert canvas.evaluate(lit) == 0
    assert faults == []
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"GIF89a and so on")
    page.get_by_label("Picture", exact=True).set_input_files(broken)
    page.get_by_role("button", name="Ask the model").click()
    expect(status).to_have_text("By its first bytes, this is a GIF.", timeout=PATIENCE)


def test_without_scripts_the_form_leads_to_a_page(browser: Browser, address: str, picture: Path) -> None:
    page, _ = opened(browser, address, scripts=False)
    expect(page.locator("canvas.drawn")).to_be_hidden()
    page.get_by_label("Picture", exact=True).set_input_files(picture)
    page.get_by_role("button", name="Ask the model").click(timeout=PATIENCE)
    expect(page.get_by_role("heading", name="How the picture was read")).to_be_visible(timeout=PATIENCE)
    assert page.locator("h1").inner_text().endswith("by tiny version 1")


def test_small_grey_images_can_be_drawn_on_their_own_ground() -> None:
    def field(shape: tuple[int, int, int], mean: float) -> tuple[bool, bool]:
        channels = shape[2]
        described = DatasetDescription(
            name="d", classes=("a",), shape=shape, mean=(mean,) * channels, std=(1.0,) * channels, parts={}
        )
        made = picture_field(described)
        return made.drawn, made.dark

    assert field((32, 32, 1), 0.1) == (True, True)
    assert field((28, 20, 1), 0.9) == (True, False)
    assert field((33, 32, 1), 0.1)[0] is False
    assert field((32, 32, 3), 0.1)[0] is False


IMAGE = f"/models/{WHO}/images/4"


def test_what_an_answer_stands_on_comes_into_the_page_by_keyboard(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800})
    page, faults = context.new_page(), []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address + IMAGE)
    link = page.get_by_role("link", name="Ask the model")
    link.focus()
    page.keyboard.press("Enter")
    section = page.locator("#explained")
    expect(section.get_by_role("status")).to_have_text("The model has answered.", timeout=PATIENCE)
    assert page.url == address + IMAGE
    expect(section.get_by_role("heading", name="Where the image speaks for a class")).to_be_visible()
    expect(section).to_contain_text("of this architecture with new weights")
    shown = section.locator("img").evaluate_all("all => all.map((one) => one.naturalWidth)")
    assert len(shown) >= 7 and set(shown) == {28}
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert violations(page) == []
    section.locator("ul.images a").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(re.compile(r"Test image \d+"))
    assert page.url != address + IMAGE
    assert faults == []
    context.close()


def test_without_scripts_the_link_leads_to_a_page_of_its_own(browser: Browser, address: str) -> None:
    for width, scheme in ((400, "light"), (1400, "dark")):
        context = browser.new_context(
            java_script_enabled=False,
            viewport={"width": width, "height": 800},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        page = context.new_page()
        page.goto(address + IMAGE)
        page.get_by_role("link", name="Ask the model").click(timeout=PATIENCE)
        expect(page.get_by_role("heading", level=1)).to_contain_text("stands on", timeout=PATIENCE)
        assert page.url == f"{address}{IMAGE}/explained"
        context.close()
        seen = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()  # type: ignore[arg-type]
        seen.goto(f"{address}{IMAGE}/explained")
        assert violations(seen) == []
        assert seen.evaluate("document.documentElement.scrollWidth") <= width
        seen.context.close()


def test_of_an_image_that_is_not_there_a_sentence_is_shown(browser: Browser, address: str) -> None:
    page = browser.new_context().new_page()
    answer = page.goto(f"{address}/models/{WHO}/images/9999/explained")
    assert answer is not None and answer.status == 404
    expect(page.locator("main")).to_contain_text("The test part has")
    page.context.close()
