"""A request for which the device has no room: refused with the size that fits, and made so only by leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.errors import NoRouteError
from router.router import BackendRouter
from tests.command_line import as_object, configure, triptych
from tests.services import Service, fake_config, serving

WEIGHTS = 1_000_000
ROOM = {"device_memory_bytes": WEIGHTS + 2 * 128 * 128 * 100}
"""For a guided picture of 128x128."""
ASKED: dict[str, Any] = {"prompt": "a circle", "height": 256, "width": 256}
CHANGED = "The size was changed from 256x256 to 128x128 (height x width), the nearest that can be served."
REFUSED = (
    "256x256 needs 14,107,200 bytes on cpu, which has 4,276,800 (weights 1 MB, denoising 13.1 MB by formula,"
    " decoding 0 bytes by formula); 128x128 fits."
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("room"), fake_config(**ROOM)) as service:
        yield service


async def test_it_is_refused_with_the_numbers_and_the_size_that_fits() -> None:
    async with BackendRouter(fake_config(**ROOM)) as router:
        with pytest.raises(NoRouteError) as caught:
            await router.generate(**ASKED)
        assert caught.value.rejections == {"demo/fake": REFUSED}


async def test_with_leave_it_is_made_smaller_and_the_result_says_so() -> None:
    async with BackendRouter(fake_config(**ROOM)) as router:
        result = await router.generate(**ASKED, allow_adjustments=["size"])
    assert (result.images[0].height, result.images[0].width) == (128, 128)
    assert result.adjustments == (CHANGED,)
    assert (result.request.height, result.request.width) == (128, 128)


async def test_the_aspect_ratio_is_kept() -> None:
    async with BackendRouter(fake_config(**ROOM)) as router:
        result = await router.generate(prompt="a circle", height=256, width=512, allow_adjustments=["size"])
    assert (result.images[0].height, result.images[0].width) == (88, 176)


async def test_what_fits_is_not_touched() -> None:
    async with BackendRouter(fake_config(**ROOM)) as router:
        result = await router.generate(prompt="a circle", height=128, width=128, allow_adjustments=["size"])
    assert result.adjustments == ()


async def test_where_the_weights_alone_are_too_much_no_leave_helps() -> None:
    async with BackendRouter(fake_config(device_memory_bytes=WEIGHTS - 1)) as router:
        with pytest.raises(NoRouteError, match="no size fits"):
            await router.generate(**ASKED, allow_adjustments=["size"])


def test_the_reply_says_from_what_to_what(service: Service) -> None:
    refused = service.post("/api/v1/generate", **ASKED)
    assert refused.status_code == 400
    assert REFUSED in refused.json()["error"]["message"]
    made = service.post("/api/v1/generate", **ASKED, allow_adjustments=["size"]).json()
    assert made["meta"]["adjustments"] == [CHANGED]
    assert (made["meta"]["parameters"]["height"], made["meta"]["parameters"]["width"]) == (128, 128)


def test_the_reply_in_bytes_says_it_in_a_header(service: Service) -> None:
    made: httpx.Response = service.post("/generate", **ASKED, allow_adjustments=["size"])
    assert made.status_code == 200, made.text
    assert json.loads(made.headers["X-Triptych-Adjustments"]) == [CHANGED]


def test_explain_has_the_numbers_over_http(service: Service) -> None:
    said = service.post("/api/v1/explain", **ASKED).json()
    estimate = said["estimates"]["demo/fake"]
    assert (estimate["needed_bytes"], estimate["budget_bytes"]) == (14_107_200, 4_276_800)
    assert said["rejections"] == {"demo/fake": REFUSED}


def test_the_capabilities_document_has_what_it_takes(service: Service) -> None:
    (model,) = service.http.get("/api/v1/capabilities").json()["models"]
    assert model["instances"][0]["memory"] == {
        "weights_bytes": WEIGHTS,
        "row_bytes_per_pixel": 100,
        "decode_bytes_per_pixel": 0,
        "measured": [],
        "overlapped": False,
        "budget_bytes": ROOM["device_memory_bytes"],
    }


def test_the_command_line_says_both(folder: Path) -> None:
    options = f"options = {{ device_memory_bytes = {ROOM['device_memory_bytes']} }}\n"
    configure(folder, f'[[models.demo.instances]]\nbackend = "fake"\n{options}')
    refused = triptych("generate", "a circle", "--size", "256x256")
    assert refused.exit_code == 3
    assert "128x128 fits" in refused.stderr
    made = triptych("generate", "a circle", "--size", "256x256", "--allow", "size", "-o", "a.png")
    assert made.exit_code == 0
    assert CHANGED in made.stderr
    (kept,) = as_object(
        triptych("generate", "a circle", "--size", "256x256", "--allow", "size", "-o", "b.png", "--json")
    )["pictures"]
    assert kept["adjustments"] == [CHANGED]
