"""The page in a browser: presets fill in the settings, and a setting that is changed leaves its preset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser import fake_model, generate, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = fake_model("quick", schedulers=["DDIM", "EulerDiscrete", "LCM"])
    with serving(tmp_path_factory.mktemp("state"), (model,)) as address:
        yield address


def test_a_preset_is_chosen_and_left(service: str, open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page(service)
    page.select_option("#preset", "lightning")
    expect(page.locator("#num_inference_steps")).to_have_value("4")
    expect(page.locator("#guidance_scale")).to_have_value("0")
    expect(page.locator("#scheduler")).to_have_value("euler trailing")
    expect(page.locator("#preset-about")).to_contain_text("SDXL Lightning")
    expect(page.locator("#preset option[value=turbo]")).to_be_disabled()
    generate(page, "a circle")
    meta = httpx.get(f"{service}/v1/jobs").json()["data"][0]["meta"]["parameters"]
    assert (meta["preset"], meta["scheduler"], meta["guidance_scale"]) == ("lightning", "euler trailing", 0)
    page.locator("#num_inference_steps").fill("6")
    expect(page.locator("#preset")).to_have_value("")
    page.select_option("#scheduler", "euler karras")
    generate(page, "a circle")
    meta = httpx.get(f"{service}/v1/jobs").json()["data"][0]["meta"]["parameters"]
    assert (meta.get("preset"), meta["scheduler"], meta["num_inference_steps"]) == (None, "euler karras", 6)
