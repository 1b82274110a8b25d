"""The page in a browser: a prompt is enhanced where the service can, and the result shows what it became."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from router import images
from router.config import RouterConfig
from router.types import RawImage
from tests import browser
from tests.browser import fake_model, generate
from tests.enhancer_doubles import _forget_enhancers, loud  # noqa: F401 -- a fixture


@pytest.fixture(scope="module")
def enhancing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    patch = pytest.MonkeyPatch()

    def with_enhancer(**fields: object) -> RouterConfig:
        return RouterConfig.model_validate({**fields, "enhance": loud()})

    patch.setattr(browser, "RouterConfig", with_enhancer)
    with browser.serving(tmp_path_factory.mktemp("state"), (fake_model("quick"),)) as address:
        patch.undo()
        yield address


def test_the_box_has_the_prompt_enhanced(enhancing: str, open_page: Callable[..., Page]) -> None:
    page = open_page(enhancing)
    expect(page.locator("#enhance")).not_to_be_checked()
    page.check("#enhance")
    generate(page, "a red circle")
    expect(page.locator(".run .enhanced")).to_have_text("A RED CIRCLE")
    expect(page.locator(".run .prompt")).to_have_text("a red circle")
    page.uncheck("#enhance")
    generate(page, "a blue star")
    jobs = httpx.get(f"{enhancing}/v1/jobs").json()["data"]
    assert [job["meta"]["parameters"]["prompt"] for job in jobs] == ["a blue star", "A RED CIRCLE"]
    page.locator(".run .again").nth(1).click()
    expect(page.locator("#enhance")).to_be_checked()
    page.reload()
    page.wait_for_selector(browser.READY)
    expect(page.locator("#enhance")).to_be_checked()  # as it was left


def test_there_is_no_box_without_an_enhancer(open_page: Callable[..., Page], tmp_path: Path) -> None:
    with browser.serving(tmp_path, (fake_model("quick"),)) as address:
        page = open_page(address)
        for name in ("enhance", "prompt_weighting", "long_prompt"):  # the fake reads no weights either
            expect(page.locator(f"#{name}")).to_be_hidden()
        generate(page, "a red circle")
        expect(page.locator(".run .enhanced")).to_be_hidden()


def test_an_exact_copy_has_no_fuller_prompt(
    enhancing: str, open_page: Callable[..., Page], tmp_path: Path
) -> None:
    (tmp_path / "given.png").write_bytes(images.encode(RawImage(64, 64, bytes(64 * 64 * 3))))
    page = open_page(enhancing)
    page.check("#enhance")
    page.set_input_files("#source-file", tmp_path / "given.png")
    page.check("#exact_copy")
    expect(page.locator("#enhance")).to_be_disabled()
    with page.expect_request("**/v1/jobs") as request:
        generate(page, "a hat")
    assert request.value.post_data_json["enhance"] is False
    page.uncheck("#exact_copy")
    expect(page.locator("#enhance")).to_be_enabled()
    expect(page.locator("#enhance")).to_be_checked()
