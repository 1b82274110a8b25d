"""The page in a browser: pictures to start from, the gallery, keys alone, and what a model cannot do."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from router import images
from router.types import RawImage
from tests.browser import DONE, READY, TIMES, fake_model, generate, serving

WIDE = RawImage(60, 120, bytes([250, 200, 40]) * 7200)
DROP = """([selector, kind, data]) => {
    const transfer = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    transfer.items.add(new File([bytes], "given.png", { type: "image/png" }));
    const event = kind === "paste"
        ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
        : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true });
    document.querySelector(selector).dispatchEvent(event);
}"""

PICTURES = ("image", "mask_image")

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    plain = fake_model(
        "plain", profiles=["64x64", "96x96", "64x112"], tasks=["text-to-image"], negative_prompt=False
    )
    with serving(tmp_path_factory.mktemp("state"), (fake_model("quick"), plain)) as address:
        yield address


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "given.png"
    path.write_bytes(images.encode(WIDE, "png"))
    return path


def newest(service: str) -> dict[str, Any]:
    """The facts of the last job's result."""
    job: dict[str, Any] = httpx.get(f"{service}/v1/jobs").json()["data"][0]
    meta: dict[str, Any] = job["meta"]
    return meta


def colour(image: RawImage, row: int, column: int) -> tuple[int, ...]:
    start = (row * image.width + column) * 3
    return tuple(image.pixels[start : start + 3])


def test_a_chosen_picture_is_started_from_in_its_own_shape(
    service: str, open_page: OpenPage, picture: Path
) -> None:
    page = open_page(service)
    page.set_input_files("#source-file", picture)
    expect(page.locator("#source-note")).to_contain_text(f"120 {TIMES} 60")
    expect(page.get_by_role("radio", name="Picture")).to_be_checked()
    told = httpx.get(f"{service}/api/v1/sizes", params={"model": "quick", "aspect_ratio": "2:1"}).json()
    own = told["sizes"][-1]
    expect(page.locator("#size-shown")).to_have_text(f"{own['width']} {TIMES} {own['height']}")
    page.locator("#strength").fill("0.5")
    generate(page, "warmer")
    facts = newest(service)
    assert facts["task"] == "image-to-image"
    assert facts["parameters"]["strength"] == 0.5
    assert facts["parameters"]["width"] == 2 * facts["parameters"]["height"]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(
    service: str, open_page: OpenPage, picture: Path, kind: str
) -> None:
    page = open_page(service)
    page.evaluate(DROP, ["#feed", kind, base64.b64encode(picture.read_bytes()).decode()])
    expect(page.locator("#source-note")).to_contain_text(f"120 {TIMES} 60")
    page.click("#source-remove")
    expect(page.locator("#drop")).to_be_visible()


def test_what_is_no_picture_is_refused_beside_the_field(
    service: str, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(service)
    (tmp_path / "note.png").write_text("no picture")
    page.set_input_files("#source-file", tmp_path / "note.png")
    expect(page.locator("#image-error")).to_contain_text("no picture that this browser can read")


def test_a_painted_mask_makes_it_inpainting_and_undo_takes_it_back(
    service: str, open_page: OpenPage, picture: Path
) -> None:
    page = open_page(service)
    page.set_input_files("#source-file", picture)
    box = page.locator("#mask").bounding_box()
    assert box
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    with page.expect_request("**/v1/jobs") as request:
        generate(page, "a hat")
    assert newest(service)["task"] == "inpainting"
    sent = {name: images.decode(base64.b64decode(request.value.post_data_json[name])) for name in PICTURES}
    height, width = sent["mask_image"].height, sent["mask_image"].width
    assert (height, width) == (sent["image"].height, sent["image"].width)
    assert colour(sent["image"], 2, 2) == (250, 200, 40)
    assert colour(sent["mask_image"], height // 2, width // 2) == (255, 255, 255)
    assert (
        colour(sent["mask_image"], 2, width // 2) == colour(sent["mask_image"], height // 2, 2) == (0, 0, 0)
    )
    page.click("#mask-undo")
    expect(page.locator("#mask-undo")).to_be_disabled()
    generate(page, "a hat")
    assert newest(service)["task"] == "image-to-image"


def test_a_mask_can_be_painted_with_keys(service: str, open_page: OpenPage, picture: Path) -> None:
    page = open_page(service)
    page.set_input_files("#source-file", picture)
    expect(page.locator("#mask")).to_be_visible()
    page.focus("#mask")
    for key in ("ArrowRight", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(page.locator("#mask-undo")).to_be_enabled()
    generate(page, "a hat")
    assert newest(service)["task"] == "inpainting"


def test_an_exact_copy_settles_what_the_form_asks_beside_it(
    service: str, open_page: OpenPage, picture: Path
) -> None:
    page = open_page(service)
    page.set_input_files("#source-file", picture)
    page.check("#exact_copy")
    for name in ("strength", "guidance_scale", "negative_prompt", "num_inference_steps"):
        expect(page.locator(f"#{name}")).to_be_disabled()
    with page.expect_request("**/v1/jobs") as request:
        generate(page, "a hat")
    assert request.value.post_data_json["exact_copy"] is True
    assert newest(service)["reference_mode"] == "copy"
    page.uncheck("#exact_copy")
    expect(page.locator("#strength")).to_be_enabled()
    generate(page, "a hat")
    assert newest(service)["reference_mode"] == "modify"


def test_the_gallery_outlives_a_reload_and_use_again_makes_the_same_picture(
    service: str, open_page: OpenPage, picture: Path
) -> None:
    page = open_page(service)
    page.set_input_files("#source-file", picture)
    page.fill("#num_inference_steps", "7")
    generate(page, "first")
    first = newest(service)["parameters"]
    page.click("#source-remove")
    page.fill("#num_inference_steps", "9")
    generate(page, "second")
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator(DONE)).to_have_count(2)
    expect(page.locator(".run .prompt")).to_have_text(["second", "first"])
    page.locator(".run .again").nth(1).click()
    expect(page.locator("#prompt")).to_have_value("first")
    expect(page.locator("#prompt")).to_be_focused()
    expect(page.locator("#source-note")).to_be_visible()
    page.click("#generate")
    expect(page.locator(DONE)).to_have_count(3)
    assert newest(service)["parameters"] == first


def test_deleted_runs_come_back_if_it_was_a_mistake(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    generate(page, "one")
    generate(page, "two")
    page.click("#delete-all")
    expect(page.locator(".run")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()
    page.click("#toast-undo")
    expect(page.locator(".run .prompt")).to_have_text(["two", "one"])
    page.locator(".run .delete").first.click()
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator(".run .prompt")).to_have_text(["one"])


def test_the_seed_is_another_each_time_unless_it_is_kept(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    seeds = []
    for _ in range(2):
        generate(page, "x")
        seeds.append(newest(service)["seed"])
    page.check("#keep")
    for _ in range(2):
        generate(page, "x")
        seeds.append(newest(service)["seed"])
    assert len(set(seeds[:3])) == 3
    assert seeds[2] == seeds[3]
    page.click("#dice")
    assert page.input_value("#seed") != f"{seeds[3]}"


def test_everything_is_done_with_keys_alone(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the pictures")).to_be_focused()
    while not page.evaluate("document.activeElement.id === 'prompt'"):
        page.keyboard.press("Tab")
    page.keyboard.type("by keys")
    while not page.evaluate("document.activeElement.name === 'ratio'"):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="16:9")).to_be_checked()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(DONE)
    while not page.evaluate("document.activeElement.matches('.tile .open')"):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    viewer = page.get_by_role("dialog", name="Picture")
    expect(viewer).to_contain_text("quick/fake")
    expect(viewer).to_contain_text("by keys")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(page.locator(".tile .open")).to_be_focused()


def test_the_viewer_goes_from_picture_to_picture(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    generate(page, "older")
    generate(page, "newer")
    page.locator(".tile .open").first.click()
    expect(page.locator("#viewer-prompt")).to_have_text("newer")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-prompt")).to_have_text("older")
    page.click("#viewer-start")
    expect(page.locator("#source-note")).to_contain_text(f"64 {TIMES} 64")


def test_sizes_are_chosen_by_shape_and_name(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    expect(page.get_by_role("radio", name="L", exact=True)).to_be_checked()
    page.get_by_role("radio", name="16:9").check()
    page.get_by_role("radio", name="M", exact=True).check()
    expect(page.locator("#size-shown")).to_have_text(f"72 {TIMES} 40")
    generate(page, "wide")
    parameters = newest(service)["parameters"]
    assert (parameters["width"], parameters["height"]) == (72, 40)


def test_what_a_model_cannot_do_is_disabled_with_the_reason(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.fill("#guidance_scale", "1")
    expect(page.locator("#negative_prompt")).to_be_disabled()
    expect(page.locator("#negative_prompt-why")).to_have_text("It needs Guidance above 1.")
    page.select_option("#model", "plain")
    expect(page.locator("#negative_prompt-why")).to_contain_text("is not a parameter of this model")
    expect(page.locator("#source-file")).to_be_disabled()
    expect(page.locator("#image-why")).to_contain_text("it does text-to-image, not image-to-image")
    ratios = page.locator("#ratios input:enabled")
    assert [ratio.get_attribute("value") for ratio in ratios.all()] == ["1:1", "16:9"]
    generate(page, "x")
    assert newest(service)["parameters"]["model"] == "plain"
