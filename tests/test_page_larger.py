"""The page in a browser: a finished picture is made larger, where the service has a model that does that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.browser import DONE, TIMES, fake_model, generate, serving

OpenPage = Callable[..., Page]


def test_a_picture_is_made_larger_from_the_viewer(tmp_path: Path, open_page: OpenPage) -> None:
    upscaler = fake_model("large", tasks=["upscale"], scales=[4])
    with serving(tmp_path, (fake_model("quick"), upscaler)) as address:
        page = open_page(address)
        assert page.locator("#model option").all_text_contents() == ["quick"]
        generate(page, "a hat")
        page.locator(f"{DONE} .open").first.click()
        expect(page.locator("#viewer-larger")).to_have_text(f"4 {TIMES} as large")
        page.click("#viewer-larger")
        expect(page.locator(DONE)).to_have_count(2)
        job = httpx.get(f"{address}/v1/jobs").json()["data"][0]
    assert (job["meta"]["task"], job["meta"]["model"]) == ("upscale", "large")
    assert job["meta"]["parameters"]["height"] == 256


def test_without_such_a_model_there_is_no_such_button(tmp_path: Path, open_page: OpenPage) -> None:
    with serving(tmp_path, (fake_model("quick"),)) as address:
        page = open_page(address)
        generate(page, "a hat")
        page.locator(f"{DONE} .open").first.click()
        expect(page.locator("#viewer-start")).to_be_visible()
        expect(page.locator("#viewer-larger")).to_be_hidden()
