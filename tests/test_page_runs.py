"""The page in a browser: from the prompt to the picture, and whatever happens on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from router.config import InstanceConfig, ModelConfig
from tests.browser import DONE, READY, fake_model, generate, pixel, serving

SHAPES = ModelConfig(
    name="shapes",
    instances=(InstanceConfig(name="shapes/cpu", backend="diffusers", source="shipped:shapes"),),
)
SLOW = fake_model("slow", step_s=0.04, steps=100)
BROKEN = fake_model("broken", faults=[{"at": "step", "error": "generate_failed", "times": 0}])

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = (fake_model("quick", step_s=0.03, steps=12), SLOW, BROKEN, SHAPES)
    with serving(tmp_path_factory.mktemp("state"), models) as address:
        yield address


def test_the_shipped_model_follows_the_prompt_and_the_page_says_who_made_it(
    service: str, open_page: OpenPage
) -> None:
    page = open_page(service)
    page.select_option("#model", "shapes")
    page.fill("#num_inference_steps", "8")
    generate(page, "a red circle on a white background")
    red, green, blue = pixel(page, ".tile img")
    assert red > 150
    assert max(green, blue) < 110
    assert min(pixel(page, ".tile img", 0.03, 0.03)) > 180
    facts = page.locator(".run .facts")
    expect(facts).to_contain_text("shapes/cpu")
    expect(facts).to_contain_text("8 steps")
    assert re.search(r"shapes/cpu\s·\s[0-9.]+\ss\s·", facts.inner_text())


def test_preview_and_progress_move_while_the_picture_is_made(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.evaluate(
        """() => {
            window.seen = { previews: new Set(), parts: [], words: [] };
            new MutationObserver(() => {
                const tile = document.querySelector(".tile");
                const source = tile?.querySelector("img").src;
                if (source?.startsWith("data:")) window.seen.previews.add(source);
                const part = tile?.querySelector("[role=progressbar]").getAttribute("aria-valuenow");
                if (part) window.seen.parts.push(Number(part));
            }).observe(document.getElementById("runs"), { subtree: true, childList: true, attributes: true });
        }"""
    )
    generate(page, "anything")
    seen = page.evaluate("() => ({ previews: window.seen.previews.size, parts: window.seen.parts })")
    assert seen["previews"] >= 3
    assert seen["parts"] == sorted(seen["parts"])
    assert len(set(seen["parts"])) >= 3
    expect(page.locator(".tile .progress")).to_be_hidden()
    expect(page.locator("#announcer")).to_contain_text("1 picture ready: quick/fake")


def test_cancel_stops_the_work_and_says_so(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.select_option("#model", "slow")
    page.fill("#prompt", "never finished")
    page.click("#generate")
    expect(page.locator(".tile .words")).to_contain_text("Step")
    page.click(".run .cancel")
    expect(page.locator(".run")).to_have_attribute("data-state", "cancelled")
    expect(page.locator(".run .error")).to_have_text("Cancelled.")
    assert httpx.get(f"{service}/v1/jobs").json()["data"][0]["state"] == "cancelled"
    expect(page.locator("#service")).not_to_contain_text("running")


def test_a_reload_loses_nothing_of_what_is_under_way(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.select_option("#model", "slow")
    page.fill("#num_inference_steps", "40")
    page.fill("#prompt", "patience")
    page.click("#generate")
    expect(page.locator(".tile .words")).to_contain_text("Step")
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator(".run .prompt")).to_have_text("patience")
    page.wait_for_selector(DONE)
    expect(page.locator(".tile img")).to_have_js_property("naturalWidth", 64)


def test_a_wrong_value_is_named_beside_its_field_in_the_services_words(
    service: str, open_page: OpenPage
) -> None:
    page = open_page(service)
    page.click("#generate")
    prompt = page.locator("#prompt")
    expect(page.locator("#prompt-error")).to_contain_text("prompt is empty")
    expect(prompt).to_be_focused()
    expect(prompt).to_have_attribute("aria-invalid", "true")
    expect(prompt).to_have_accessible_description(
        "prompt is empty; only a request with an image may leave it out."
    )
    page.fill("#prompt", "x")
    page.fill("#num_inference_steps", "9999")
    page.click("#generate")
    expect(page.locator("#num_inference_steps-error")).to_contain_text("150")
    expect(page.locator("#num_inference_steps")).to_be_focused()
    expect(page.locator("#prompt-error")).to_be_empty()
    expect(page.locator(".run")).to_have_count(0)


def test_many_runs_at_once_leave_a_connection_for_cancel(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.select_option("#model", "slow")
    page.fill("#prompt", "one of many")
    for count in range(1, 8):
        page.click("#generate")
        expect(page.locator(".run")).to_have_count(count)
    page.locator(".run .cancel").first.click()
    expect(page.locator(".run").first).to_have_attribute("data-state", "cancelled")
    for button in reversed(page.locator(".run .cancel:visible").all()):
        button.click()
    expect(page.locator(".run[data-state=cancelled]")).to_have_count(7)


def test_a_failed_run_says_why_and_can_be_tried_again(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.select_option("#model", "broken")
    page.fill("#prompt", "x")
    page.click("#generate")
    expect(page.locator(".run")).to_have_attribute("data-state", "failed")
    expect(page.locator(".run .error")).to_contain_text("the fault planted at 'step'")
    expect(page.locator("#announcer")).to_contain_text("Failed:")


def test_several_pictures_run_side_by_side_and_each_can_be_saved(
    service: str, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(service)
    page.fill("#num_images_per_prompt", "3")
    page.fill("#seed", "41")
    generate(page, "Three of a kind!")
    expect(page.locator(".tile")).to_have_count(3)
    with page.expect_download() as download:
        page.locator(".tile .download").nth(1).click()
    assert download.value.suggested_filename == "three-of-a-kind-42.png"
    path = tmp_path / "saved.png"
    download.value.save_as(path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_service_that_is_away_is_named_and_comes_back(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    page.fill("#prompt", "x")
    page.route("**/v1/jobs", lambda route: route.abort())
    page.click("#generate")
    expect(page.locator("#form-error")).to_contain_text("cannot be reached")
    page.unroute("**/v1/jobs")
    generate(page, "x")
    expect(page.locator("#form-error")).to_be_empty()


def test_a_lost_connection_is_taken_up_again(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.url)
        if len(lost) == 1:
            route.abort()
        else:
            route.continue_()

    page.route("**/events", lose)
    page.fill("#prompt", "x")
    page.click("#generate")
    expect(page.locator(".tile .words")).to_contain_text("Connection lost")
    page.wait_for_selector(DONE)
    assert len(lost) == 2
