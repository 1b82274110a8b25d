"""For the tests of the page: the distribution's Chromium, and a service in a thread of this process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.router import BackendRouter

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_LIMIT_MS = 20_000
_START_S = 20.0
_EXPECTED = "Failed to load resource"  # the browser's own line for every 4xx

READY = "html[data-ready]"
DONE = ".run[data-state=done]"
TIMES = "\N{MULTIPLICATION SIGN}"


def fake_model(name: str, **options: Any) -> ModelConfig:
    return ModelConfig(
        name=name, instances=(InstanceConfig(name=f"{name}/fake", backend="fake", options=options),)
    )


@contextmanager
def serving(folder: Path, models: tuple[ModelConfig, ...], **settings: Any) -> Iterator[str]:
    """The address of a service of its own, which ends with the block."""
    import uvicorn

    from router.server.app import create_app
    from router.server.settings import ServerSettings

    router = BackendRouter(RouterConfig(models=models, default_model=models[0].name))
    app = create_app(router, ServerSettings(state=folder, grace_s=5, notice_s=0, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started:
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline, "the service does not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Not of the session: while Playwright's own loop lives, no async test can run."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        sentence = f"The page's tests need a browser, and none of {', '.join(_NAMES)} is installed."
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=_LIMIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address as a new visitor. A mistake in the page fails the test, a broken policy too."""
    problems: list[str] = []
    contexts = []

    def visit(address: str, *, until: str = READY, **options: Any) -> Page:
        contexts.append(chromium.new_context(viewport={"width": 1280, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(_LIMIT_MS)
        page.on("pageerror", lambda error: problems.append(f"{error}"))
        page.on("console", lambda said: problems.append(said.text) if _is_problem(said) else None)
        page.goto(address)
        page.wait_for_selector(until)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def _is_problem(said: Any) -> bool:
    return said.type in ("error", "warning") and not said.text.startswith(_EXPECTED)


def generate(page: Page, prompt: str) -> None:
    """Ask for a picture, and wait until it is there."""
    from playwright.sync_api import expect

    before = page.locator(DONE).count()
    page.fill("#prompt", prompt)
    page.click("#generate")
    expect(page.locator(DONE)).to_have_count(before + 1)


def pixel(page: Page, selector: str, across: float = 0.5, down: float = 0.5) -> list[int]:
    """Red, green and blue of a picture of the page; the place in parts of its sides."""
    return page.evaluate(  # type: ignore[no-any-return]
        """async ([selector, across, down]) => {
            const image = document.querySelector(selector);
            await image.decode();
            const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const [x, y] = [across * canvas.width, down * canvas.height].map(Math.floor);
            return [...context.getImageData(x, y, 1, 1).data.slice(0, 3)];
        }""",
        [selector, across, down],
    )
