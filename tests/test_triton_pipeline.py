"""The pipeline model in a real Triton server: the same pictures as in this process, and the same manners."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient

from tests.exports import Exports
from tests.onnx_doubles import Lanes, loaded, request
from tests.plain_pipelines import PICTURE
from tests.triton_requests import Answer, ask, connected
from tests.triton_servers import TritonServer

FIELDS: dict[str, Any] = {
    "prompt": "a red circle",
    "num_inference_steps": 4,
    "guidance_scale": 7.1,
    "seed": 1,
}
IMAGES = 8
LONG = {**FIELDS, "num_inference_steps": 150, "num_images_per_prompt": IMAGES}
TRIES = 5
PAINTED = {"image": PICTURE, "strength": 0.7}
STOPPED = re.compile(r"Stopped after (\d+) steps, (\d+) since it was unwanted: (\w+)")


@pytest.fixture
async def client(triton_server: TritonServer) -> AsyncIterator[InferenceServerClient]:
    async with connected(triton_server) as found:
        yield found


@pytest.mark.parametrize("model", ["sd15", "sd15-bls"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"negative_prompt": "blue", "num_images_per_prompt": 2},
        PAINTED,
        {**PAINTED, "mask_image": PICTURE},
    ],
    ids=["text", "two", "image", "mask"],
)
async def test_pictures_are_those_of_this_process(
    client: InferenceServerClient, exports: Exports, lanes: Lanes, model: str, more: dict[str, Any]
) -> None:
    fields = {**FIELDS, **more}
    answer = await ask(client, model, **fields)
    assert answer.error == ""
    backend = await loaded(lanes, exports("sd15"))
    generated = await backend.generate(request(**fields), lambda event: None, None)
    assert [answer.facts[picture.index]["seed"] for picture in generated.pictures] == [
        picture.seed for picture in generated.pictures
    ]
    for picture in generated.pictures:
        assert picture.image is not None
        assert answer.pictures[picture.index].tobytes() == picture.image.pixels


async def test_steps_and_previews_come_as_they_are_made(client: InferenceServerClient) -> None:
    answer = await ask(client, **FIELDS, previews=True)
    assert answer.steps == [(0, 1, 4), (0, 2, 4), (0, 3, 4), (0, 4, 4)]
    assert [preview.shape for preview in answer.previews] == [(8, 8, 3)] * 4
    assert list(answer.pictures) == [0]


async def test_who_wants_no_progress_gets_none(client: InferenceServerClient) -> None:
    answer = await ask(client, **FIELDS, progress=False)
    assert answer.steps == []
    assert list(answer.pictures) == [0]


async def test_what_is_left_out_is_the_models_default(client: InferenceServerClient) -> None:
    answer = await ask(client, prompt="a red circle")
    assert answer.steps[-1] == (0, 50, 50)
    assert answer.pictures[0].shape == (64, 64, 3)


async def test_requests_of_different_clients_share_batches(
    triton_server: TritonServer, client: InferenceServerClient
) -> None:
    asked = [{**FIELDS, "seed": seed, "num_inference_steps": 20 + seed} for seed in range(8)]
    alone = [await ask(client, **fields, reproducible=True) for fields in asked[:2]]
    async with connected(triton_server) as other:
        clients = [client, other] * 4
        answers = await asyncio.gather(
            *[ask(each, **fields) for each, fields in zip(clients, asked, strict=True)]
        )
    for answer in answers:
        assert answer.facts[0]["rows"] / answer.facts[0]["ticks"] > 3
    for one, among in zip(alone, answers, strict=False):
        assert _difference(one, among) <= 1


def _difference(one: Answer, other: Answer) -> int:
    return int(np.abs(one.pictures[0].astype(int) - other.pictures[0]).max())


# --- stopped


async def test_a_cancelled_request_stops_within_a_step(
    triton_server: TritonServer, client: InferenceServerClient
) -> None:
    answer, stop = await _stopped_soonest(triton_server, lambda: ask(client, **LONG, cancel_after=5))
    assert (len(answer.steps), stop.why) == (5, "CancelledError")
    assert stop.late <= IMAGES  # of each picture one


async def test_a_deadline_reaches_the_server(
    triton_server: TritonServer, client: InferenceServerClient
) -> None:
    answer, stop = await _stopped(triton_server, ask(client, **LONG, deadline_s=0.2))
    assert answer.error.startswith("deadline_exceeded: The deadline passed")
    assert stop.steps < IMAGES * LONG["num_inference_steps"]
    assert stop.why == "DeadlineExceededError"


async def test_a_client_that_is_gone_is_noticed(triton_server: TritonServer) -> None:
    async def leave() -> Answer:
        async with connected(triton_server) as client:
            begun = asyncio.Event()
            asking = asyncio.create_task(ask(client, **LONG, begun=begun))
            first = asyncio.create_task(begun.wait())
            await asyncio.wait([first, asking], return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
        return await asking

    _, stop = await _stopped_soonest(triton_server, leave)
    assert stop.why == "CancelledError"
    assert stop.late <= IMAGES  # of each picture one


class Stop(NamedTuple):
    """What the server's log says of a request that was not answered with pictures."""

    steps: int
    late: int
    why: str


async def _stopped_soonest(
    server: TritonServer, asking: Callable[[], Awaitable[Answer]]
) -> tuple[Answer, Stop]:
    """Of a few tries: steps take milliseconds, and on a busy machine the server's loop waits its turn."""
    for _ in range(TRIES):
        answer, stop = await _stopped(server, asking())
        if stop.late <= IMAGES:
            break
    return answer, stop


async def _stopped(server: TritonServer, asked: Awaitable[Answer]) -> tuple[Answer, Stop]:
    """The answer, and what the server's log then says of it."""
    before = len(await _stops(server.log))
    answer = await asked
    for _ in range(600):
        found = await _stops(server.log)
        if len(found) > before:
            return answer, found[before]
        await asyncio.sleep(0.05)
    raise AssertionError("the server did not stop")


async def _stops(log: Path) -> list[Stop]:
    found = STOPPED.findall(await asyncio.to_thread(log.read_text))
    return [Stop(int(steps), int(late), why) for steps, late, why in found]


# --- refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": " "}, "invalid_request_error: `prompt` is empty"),
        ({"prompt": b"\xff\xfe"}, "invalid_request_error: `prompt` is not UTF-8; encode it so."),
        ({"height": 96}, "no_route: "),
        ({"num_inference_steps": 9999}, "`num_inference_steps` may be at most 150"),
        ({"num_images_per_prompt": 99}, "`num_images_per_prompt` may be at most 8"),
        ({"scheduler": "Sana"}, "it has no scheduler 'Sana'"),
        ({"guidance_scale": float("nan")}, "invalid_request_error: `guidance_scale`"),
        ({"seed": -1}, "invalid_request_error: `seed`"),
        ({"mask_image": PICTURE}, "`mask_image` needs an `image`"),
        ({"image": np.zeros((0, 64, 3), np.uint8)}, "image"),
        ({"image": np.zeros((64, 64, 4), np.uint8)}, "image"),
        ({"seed": np.array([1, 2])}, "seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
async def test_a_wrong_request_is_one_sentence(
    client: InferenceServerClient, fields: dict[str, Any], words: str
) -> None:
    answer = await ask(client, **{**FIELDS, **fields})
    assert words in answer.error
    assert answer.pictures == {}
    assert (await ask(client, **FIELDS)).error == ""
