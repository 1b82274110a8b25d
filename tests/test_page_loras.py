"""The page's picker of LoRAs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser import fake_model, generate, serving


def test_the_page_offers_a_models_loras(tmp_path: Path, open_page: Callable[..., Page]) -> None:
    with serving(tmp_path, (fake_model("able", loras=["ink", "oil"]), fake_model("plain"))) as address:
        page = open_page(address)
        page.get_by_role("spinbutton", name="Weight of oil").fill("0.5")
        generate(page, "a fox")
        page.locator(".run .open").first.click()
        expect(page.locator("#viewer-list")).to_contain_text("oil (0.5)")
        page.locator("#viewer-close").click()
        page.locator("#model").select_option("plain")
        expect(page.locator("#loras")).to_be_hidden()
        generate(page, "a fox without ink")
