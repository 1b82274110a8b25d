"""What goes wrong between the Triton backend and its servers: one sentence each, and nothing hangs."""

from __future__ import annotations

import asyncio
import socket

import grpc
import numpy as np
import pytest

from backends.triton import TritonBackend
from router.errors import (
    BackendUnavailableError,
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    LoadError,
    MemoryBudgetError,
    QueueFullError,
    RouterError,
)
from router.types import Event, ignore_event
from tests.doubles import until
from tests.triton_doubles import TritonDouble, mute_port
from tests.triton_instances import (
    SIDE,
    Lanes,
    begin,
    fake,
    generate,
    loaded,
    loaded_from,
    picture,
    remote,
    request,
    serving,
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_nobody_at_the_address():
    with pytest.raises(BackendUnavailableError, match=r"cannot be reached; start it, or correct `source`\.$"):
        await remote(f"grpc://127.0.0.1:{free_port()}/demo").probe()


async def test_who_takes_the_connection_and_never_speaks():
    async with mute_port() as port:
        with pytest.raises(BackendUnavailableError, match=f"The Triton server 127.0.0.1:{port} "):
            await remote(f"grpc://127.0.0.1:{port}/demo", connect_s=0.3).probe()


async def test_who_takes_questions_and_never_answers(lanes: Lanes):
    async with serving(lanes) as double:
        double.is_healthy.clear()
        with pytest.raises(BackendUnavailableError, match="accepts calls and does not answer; restart it"):
            await remote(double.url, connect_s=0.2).probe()


async def test_who_takes_a_request_and_falls_silent_for_good(lanes: Lanes):
    """Its health is asked for, and it does not answer that either."""
    async with serving(lanes) as double, loaded_from(double, silence_s=0.1, connect_s=0.2) as backend:
        work = begin(backend)
        double.answers.clear()
        double.is_healthy.clear()
        with pytest.raises(BackendUnavailableError, match="accepts calls and does not answer"):
            await work
        await until(lambda: double.cancelled)


async def test_who_is_well_and_never_answers_a_request(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double, silence_s=0.1, answer_s=0.3) as backend:
        double.answers.clear()
        with pytest.raises(BackendUnavailableError, match="has not answered this request for 0 s"):
            await generate(backend)


async def test_who_is_slow_is_waited_for(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double, silence_s=0.05) as backend:
        double.answers.clear()
        work = begin(backend)
        await asyncio.sleep(0.3)
        double.answers.set()
        assert (await work).pictures[0].image is not None


async def test_who_comes_up_late_is_found(lanes: Lanes):
    double = TritonDouble(fake(lanes))
    double.port = free_port()
    backend = remote(double.url)
    with pytest.raises(BackendUnavailableError):
        await backend.probe()
    await double.start()
    await backend.probe()
    await backend.load()
    assert (await generate(backend)).pictures[0].image is not None
    await backend.unload()
    await double.die()


async def test_who_dies_in_the_middle_and_comes_back(lanes: Lanes):
    async with serving(lanes, step_s=0.02) as double, loaded_from(double) as backend:
        steps: list[Event] = []
        asked = request(num_inference_steps=100, image=picture(), strength=1.0)
        work = asyncio.create_task(backend.generate(asked, steps.append, None))
        await until(lambda: steps)
        await double.die()
        with pytest.raises(BackendUnavailableError, match="The Triton server "):
            await work
        await double.start()
        generated = await asyncio.wait_for(until_made(backend), 10)
        assert generated is not None


async def until_made(backend: TritonBackend) -> object:
    """A connection that broke comes back by itself, in a moment."""
    while True:
        try:
            return await generate(backend, image=picture(), strength=1.0)
        except BackendUnavailableError:
            await asyncio.sleep(0.05)


async def test_a_restart_that_nobody_saw_costs_no_request(lanes: Lanes):
    """The new server knows none of the memory that the old one was shown."""
    async with serving(lanes) as double, loaded_from(double) as backend:
        await generate(backend, image=picture(), strength=1.0)
        double.regions.clear()
        generated = await generate(backend, image=picture(), strength=1.0)
        assert generated.pictures[0].image is not None
        assert double.regions


async def test_the_time_that_is_left_goes_along(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        await backend.generate(request(), ignore_event, 5.0)
        await backend.generate(request(), ignore_event, None)
        limited, unlimited = double.timeouts_us
        assert 4e6 < limited <= 5e6
        assert unlimited == 0  # which Triton takes for none


async def test_a_model_at_rest_is_refused_with_the_cure(lanes: Lanes):
    async with serving(lanes) as double:
        double.loaded = False
        with pytest.raises(
            BackendUnavailableError, match=r"at rest; load it there, or set `repository_control`"
        ):
            await remote(double.url).probe()


async def test_a_model_unloaded_under_our_feet(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.says = "Request for unknown model: 'demo' has no available versions"
        with pytest.raises(BackendUnavailableError, match="no longer has the model loaded"):
            await generate(backend)


async def test_a_model_that_is_none_of_ours(lanes: Lanes):
    async with serving(lanes) as double:
        for parameters, sentence in (
            ({}, r"is none of Triptych's, its parameter `triptych` is missing"),
            ({"triptych": "2"}, r"for version '2' of the contract, and this is '1'"),
            (
                {"triptych": "1", "capabilities": "{}"},
                r"`capabilities` of the Triton model 'demo' cannot be read",
            ),
        ):
            double.parameters = parameters
            with pytest.raises(LoadError, match=sentence):
                await remote(double.url).probe()


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ("queue_full: 64 requests wait.", QueueFullError),
        ("memory_budget: it ran out of device memory.", MemoryBudgetError),
        ("device_lost: the device failed.", DeviceLostError),
        ("generate_failed: it failed.", GenerateError),
        ("no_route: its graphs are made for 64x64.", GenerateError),
        ("Failed to process the request(s), message: load_failed: no file.", LoadError),
        ("cancelled: the server stops.", BackendUnavailableError),
        ("unexpected shape for input 'image' for model 'demo'. Expected [-1,-1,3], got [1]", GenerateError),
        ("Stub process 'demo_0_0' is not healthy.", BackendUnavailableError),
        ("something /secret/path/else", GenerateError),
    ],
)
async def test_what_the_server_says_is_the_error_that_it_means(
    lanes: Lanes, says: str, kind: type[RouterError]
):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.says = says
        with pytest.raises(kind) as caught:
            await generate(backend)
        assert type(caught.value) is kind
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("INTERNAL", "broke off the request"),
        ("UNKNOWN", "broke off the request"),
        ("CANCELLED", "stopped the request by itself"),
        ("UNAUTHENTICATED", "wants other credentials; correct `headers`"),
        ("PERMISSION_DENIED", "wants other credentials; correct `headers`"),
        ("UNIMPLEMENTED", "is no Triton server; correct `source`"),
    ],
)
async def test_a_stream_that_breaks_is_the_servers_fault(lanes: Lanes, status: str, sentence: str):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.breaks = grpc.StatusCode[status]
        with pytest.raises(BackendUnavailableError, match=sentence):
            await generate(backend)


async def test_a_model_that_cannot_be_loaded(lanes: Lanes):
    async with serving(lanes) as double:
        double.loaded = double.loads = False
        with pytest.raises(LoadError, match="could not load model 'demo'; see its log"):
            await remote(double.url, repository_control=True).probe()


async def test_a_refused_field_is_named(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.says = "invalid_request_error: `prompt` has 300 tokens with its marks; shorten it."
        with pytest.raises(InvalidRequestError, match="300 tokens") as caught:
            await generate(backend)
        assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    ("spoils", "sentence"),
    [
        ({"picture": np.zeros((8, SIDE, 3), np.uint8)}, "8x64"),
        ({"picture": np.zeros((SIDE, SIDE, 4), np.uint8)}, r"shape \[64, 64, 4\]"),
        ({"picture": np.zeros((SIDE, SIDE, 3), np.float32)}, "dtype float32"),
        ({"picture": None}, "neither a picture nor its error"),
        ({"index": np.array([1], np.int32)}, "a picture 1 that was not asked for"),
        ({"index": None}, "0 of 1 pictures"),
        ({"facts": np.array([b"\xff{"], np.object_)}, "`facts` that cannot be read"),
        ({"facts": np.array([b"[]"], np.object_)}, "`facts` that are no object"),
        ({"progress": np.zeros(2, np.int32)}, "`progress` that is not three"),
    ],
)
async def test_an_answer_of_another_form_is_refused(lanes: Lanes, spoils: dict[str, object], sentence: str):
    async with serving(lanes) as double, loaded_from(double, shared_memory="off") as backend:
        double.spoils = spoils  # type: ignore[assignment]
        with pytest.raises(GenerateError, match=sentence):
            await backend.generate(request(), lambda event: None, None)


async def test_one_picture_that_failed_leaves_the_others(lanes: Lanes):
    fault = {"at": "generate", "error": "memory_budget"}
    async with serving(lanes, faults=[fault]) as double, loaded_from(double) as backend:
        generated = await generate(backend, num_images_per_prompt=3)
        failed = [picture.error for picture in generated.pictures if picture.error is not None]
        assert len(failed) == 1
        assert isinstance(failed[0], MemoryBudgetError)


async def test_an_input_that_the_model_lacks_is_not_left_out(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        assert backend.servers[0].served is not None
        del backend.servers[0].served.inputs["strength"]  # type: ignore[attr-defined]
        with pytest.raises(GenerateError, match="no input for `strength`"):
            await generate(backend, image=picture(), strength=0.5)


async def test_a_message_beyond_the_limit_says_which(lanes: Lanes):
    async with serving(lanes, size=1024) as double:
        backend = await loaded(double.url, max_message_bytes="1MiB", shared_memory="off")
        with pytest.raises(GenerateError, match="raise `max_message_bytes`"):
            await backend.generate(request(height=1024, width=1024), ignore_event, None)
        await backend.unload()
