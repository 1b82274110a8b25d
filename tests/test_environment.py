"""Limits and defaults by environment, as who asks meets them: in Python, on the command line, over HTTP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from router.errors import InvalidRequestError
from router.router import BackendRouter
from router.settings import load_config
from router.types import GenerateResult
from tests.command_line import as_object, triptych
from tests.services import serving

LIMITS = {
    "TRIPTYCH_MAX_HEIGHT": "96",
    "TRIPTYCH_MAX_WIDTH": "104",
    "TRIPTYCH_MAX_STEPS": "5",
    "TRIPTYCH_MAX_GUIDANCE": "6",
    "TRIPTYCH_MAX_IMAGES": "2",
}
DEFAULTS = {"TRIPTYCH_DEFAULT_STEPS": "3", "TRIPTYCH_DEFAULT_GUIDANCE": "2.5"}


def set_all(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


async def generate(**fields: Any) -> GenerateResult:
    config = await asyncio.to_thread(load_config)
    async with BackendRouter(config) as router:
        return await router.generate(prompt="a", **fields)


def test_each_limit_of_the_environment_refuses_over_http(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, LIMITS)
    with serving(folder / "state", load_config()) as service:
        document = service.http.get("/api/v1/capabilities").json()["limits"]
        for field, value in (
            ("height", 104),
            ("width", 112),
            ("num_inference_steps", 6),
            ("guidance_scale", 6.5),
            ("num_images_per_prompt", 3),
        ):
            answer = service.post("/image/generate", prompt="a", **{field: value})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    asked = ("max_height", "max_width", "max_steps", "max_guidance", "max_images")
    assert [document[name] for name in asked] == [96, 104, 5, 6, 2]


async def test_a_limit_refuses_in_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch, LIMITS)
    with pytest.raises(InvalidRequestError, match="`num_inference_steps` may be at most 5, not 6"):
        await generate(num_inference_steps=6)


async def test_no_more_run_at_once_than_the_environment_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_all(monkeypatch, {"TRIPTYCH_CONCURRENCY": "2"})
    config = await asyncio.to_thread(load_config)
    async with BackendRouter(config) as router:
        ran = []
        results = [
            router.generate(prompt=f"{n}", on_event=lambda _: ran.append(_running(router))) for n in range(5)
        ]
        await asyncio.gather(*results)
    assert max(ran) == 2


def _running(router: BackendRouter) -> int:
    return sum(status.running for status in router.instances())


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"TRIPTYCH_DEFAULT_SIZE": "m"}, (48, 48)),
        ({"TRIPTYCH_DEFAULT_SIZE": "80x64"}, (80, 64)),
        ({"TRIPTYCH_DEFAULT_WIDTH": "96", "TRIPTYCH_DEFAULT_HEIGHT": "32"}, (96, 32)),
    ],
)
def test_defaults_of_the_environment_are_what_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: dict[str, str], expected: tuple[int, int]
) -> None:
    set_all(monkeypatch, DEFAULTS | size)
    (picture,) = as_object(triptych("generate", "a circle", "-o", "a.png", "--json"))["pictures"]
    parameters = picture["parameters"]
    assert (parameters["width"], parameters["height"]) == expected
    assert (parameters["num_inference_steps"], parameters["guidance_scale"]) == (3, 2.5)
    with serving(folder / "state", load_config()) as service:
        (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    assert (model["defaults"]["width"], model["defaults"]["height"]) == expected


async def test_sizes_by_name_and_ratio_in_python(folder: Path) -> None:
    by_name = (await generate(size="m")).request
    by_both = (await generate(size="l", aspect_ratio="16:9")).images[0]
    rounded = await generate(size="70x64", allow_adjustments=["size"])
    assert (by_name.height, by_name.width, by_name.size) == (48, 48, None)
    assert (by_both.height, by_both.width) == (48, 88)
    assert "from 64x70 to 64x72" in rounded.adjustments[0]
