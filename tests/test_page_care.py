"""The page in a browser: signing in, being read by machines, small screens, and its pure modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import DONE, READY, TIMES, fake_model, generate, serving

KEY = "0123456789abcdef"

OpenPage = Callable[..., Page]

CONTRAST = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const over = (colour, ground) => {
        canvas.fillStyle = ground; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
        return `rgb(${r}, ${g}, ${b})`;
    };
    const light = (colour) => {
        const [r, g, b] = colour.match(/\\d+/g).map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const groundOf = (node) => {
        const chain = [];
        for (let at = node; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
        return chain.reduce((ground, colour) => over(colour, ground), "white");
    };
    const low = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        const isOff = node.closest(":disabled, .off") || node.matches(":disabled + *");
        if (!own || isOff || node.closest(".unseen, .skip") || !node.checkVisibility()) continue;
        const ground = groundOf(node);
        const [one, other] = [light(over(getComputedStyle(node).color, ground)), light(ground)];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        const words = node.textContent.trim().slice(0, 30);
        if (ratio < 4.5) low.push(`${node.tagName} ${words}: ${ratio.toFixed(2)}`);
    }
    return low;
}"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("state"), (fake_model("quick"),)) as address:
        yield address


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("state"), (fake_model("quick"),), keys=(KEY,)) as address:
        yield address


def test_a_service_with_a_key_asks_for_it_once(locked: str, open_page: OpenPage) -> None:
    page = open_page(locked, until="#sign-in[open]")
    page.fill("#api-key", "not the key that is wanted".replace(" ", "-"))
    page.keyboard.press("Enter")
    expect(page.locator("#sign-in-error")).to_have_text("That key is not known here.")
    page.fill("#api-key", KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(READY)
    generate(page, "behind the door")
    expect(page.locator(".tile img")).to_have_js_property("naturalWidth", 64)
    page.reload()
    page.wait_for_selector(READY)
    expect(page.locator("#sign-in")).to_be_hidden()
    assert page.evaluate("localStorage.getItem('triptych.key')") is None
    page.click("#sign-out")
    expect(page.locator("#sign-in")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('triptych.key')") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(service: str, open_page: OpenPage, scheme: str) -> None:
    page = open_page(service, color_scheme=scheme)
    page.click("#generate")
    expect(page.locator("#prompt-error")).not_to_be_empty()
    generate(page, "x")
    assert page.evaluate(CONTRAST) == []
    page.click(".tile .open")
    assert page.evaluate(CONTRAST) == []


def test_every_control_has_a_name_and_every_picture_words(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    generate(page, "a named thing")
    controls = page.locator(
        "button:visible, input:visible, select:visible, textarea:visible, a[href]:visible"
    )
    assert controls.count() > 20
    for control in controls.all():
        expect(control).to_have_accessible_name(re.compile(r"\S"))
    expect(page.locator(".tile img")).to_have_attribute("alt", re.compile("^a named thing, seed"))
    expect(page.get_by_role("main")).to_be_visible()
    expect(page.get_by_role("article", name="a named thing")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "en")


def test_a_phone_shows_all_without_scrolling_sideways(service: str, open_page: OpenPage) -> None:
    page = open_page(service, screen={"width": 360, "height": 740}, has_touch=True)
    page.set_viewport_size({"width": 360, "height": 740})
    expect(page.locator("#num_inference_steps")).to_be_hidden()
    expect(page.locator("#settings-shown")).to_have_text(f"quick · 64 {TIMES} 64 · 4 steps")
    page.click("summary")
    expect(page.locator("#num_inference_steps")).to_be_visible()
    generate(page, "a_very_long_word_" * 20)
    expect(page.locator(DONE)).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_nothing_moves_for_those_who_asked_for_that(service: str, open_page: OpenPage) -> None:
    page = open_page(service, reduced_motion="reduce")
    page.route("**/events", lambda route: None)
    page.fill("#prompt", "x")
    page.click("#generate")
    expect(page.locator(".progress .bar")).to_be_visible()
    assert page.evaluate("document.getAnimations().length") == 0


def module(page: Page, code: str) -> Any:
    """What a function of the page's own modules gives."""
    return page.evaluate(f"async () => {{ {code} }}")


def test_events_are_read_whatever_the_pieces_they_come_in(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    events = module(
        page,
        r"""
        const { readEvents } = await import("/page/events.js");
        const text = ': hello\n\nevent: step\ndata: {"words":\ndata: "Größe"}\n\ndata: 1\r\n\r\nevent: cut';
        const bytes = new TextEncoder().encode(text);
        const body = new ReadableStream({
            start(controller) {
                for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
                controller.close();
            },
        });
        const found = [];
        for await (const event of readEvents(body)) found.push(event);
        return found;
        """,
    )
    assert events == [{"kind": "step", "data": {"words": "Größe"}}, {"kind": "message", "data": 1}]


def test_sizes_are_the_services_own_without_doubles(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    presets = module(
        page,
        """
        const { presetsOf } = await import("/page/size.js");
        const sized = (preset, width) => ({ preset, width, height: 64, ratio: "1:1" });
        return presetsOf([sized("s", 32), sized("m", 64), sized("l", 64)]);
        """,
    )
    assert presets == [{"label": "S", "width": 32, "height": 64}, {"label": "L", "width": 64, "height": 64}]


def test_the_oldest_runs_make_room_and_those_under_way_stay(service: str, open_page: OpenPage) -> None:
    page = open_page(service)
    kept = module(
        page,
        """
        const { Store } = await import("/page/store.js");
        const store = await Store.open();
        const run = { fields: {}, source: null, pictures: [], facts: null, failure: "" };
        for (let at = 0; at < 302; at += 1) {
            const state = at === 0 ? "underway" : "done";
            await store.keep({ ...run, id: `${at}`, createdAt: at, state });
        }
        const ids = (await store.all()).map(({ id }) => id);
        return [ids.length, ids.includes("0"), ids.includes("1"), ids[0]];
        """,
    )
    assert kept == [301, True, False, "301"]  # 300, and the one that is not ended


def test_a_run_that_is_deleted_while_it_is_being_kept_stays_deleted(
    service: str, open_page: OpenPage
) -> None:
    page = open_page(service)
    left = module(
        page,
        """
        const { Store } = await import("/page/store.js");
        const store = await Store.open();
        const run = { fields: {}, source: null, pictures: [], facts: null, failure: "", state: "done" };
        const runs = ["a", "b"].map((id, at) => ({ ...run, id, createdAt: at }));
        await Promise.all([...runs.map((each) => store.keep(each)), store.remove(["a", "b"])]);
        return (await store.all()).length;
        """,
    )
    assert left == 0
