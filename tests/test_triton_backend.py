"""The Triton backend, first on a double of the server and then, by the same tests, on a real one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from backends.onnxruntime import OnnxRuntimeBackend
from backends.triton import TritonBackend
from router.backend import Backend
from router.config import InstanceConfig
from router.errors import DeadlineExceededError, LoadError
from router.lane import Lane
from router.types import Event, RawImage, Step, ignore_event
from tests.triton_instances import STEPS, fake, loaded, picture, request, serving
from tests.triton_servers import TritonServer


@dataclass(frozen=True)
class Served:
    """A model behind a server, and the same model in this process."""

    url: str
    _here: Backend

    async def here(self) -> Backend:
        """Loaded; which takes seconds, where that is real too."""
        await self._here.load()
        return self._here


@pytest.fixture(params=["double", "server"])
def server(request: pytest.FixtureRequest) -> TritonServer | None:
    """The real one, or `None` for a double."""
    if request.param == "double":
        return None
    started: TritonServer = request.getfixturevalue("triton_server")
    return started


@pytest.fixture
async def served(server: TritonServer | None, lanes: Callable[[str], Lane]) -> AsyncIterator[Served]:
    if server is not None:
        yield await served_by_triton(server, lanes)
        return
    async with serving(lanes, step_s=0.02) as double:
        yield Served(double.url, fake(lanes, step_s=0.02))


async def served_by_triton(server: TritonServer, lanes: Callable[[str], Lane]) -> Served:
    source = server.repository / "sd15" / "1" / "export"
    options = {"unverified": True}
    instance = InstanceConfig(
        name="here", backend="onnxruntime", source=str(source), device="cpu", options=options
    )
    here = OnnxRuntimeBackend(instance, lanes)
    await here.probe()
    return Served(f"grpc://{server.grpc}/sd15", here)


@pytest.fixture
async def remote(served: Served) -> AsyncIterator[TritonBackend]:
    backend = await loaded(served.url)
    yield backend
    await backend.unload()
    assert await left_in_memory(served) == []


async def left_in_memory(served: Served) -> list[str]:
    """What this process has left on the machine, or registered at the server."""
    ours = f"triptych_{os.getpid()}_client_"
    async with InferenceServerClient(served.url.split("/")[2]) as client:
        status = await client.get_system_shared_memory_status()
    names = [*status.regions, *os.listdir("/dev/shm")]
    return [name for name in names if name.startswith(ours)]


async def test_it_can_do_what_the_model_can(served: Served, remote: TritonBackend):
    there, here = await remote.probe(), await served._here.probe()
    for fact in (
        "family",
        "pipeline",
        "tasks",
        "defaults",
        "dtype",
        "profiles",
        "schedulers",
        "size_multiple",
    ):
        assert getattr(there, fact) == getattr(here, fact)
    assert there.device == f"triton:{served.url.split('/')[2]}"
    assert there.notes[0].startswith("Triton ")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_images_per_prompt": 2, "negative_prompt": "grün, 緑", "scheduler": "EulerDiscrete"},
        {"image": picture(), "strength": 0.7},
        {"image": picture(), "mask_image": picture(200), "strength": 0.9},
    ],
)
async def test_pictures_are_those_that_the_model_makes_here(served: Served, fields: dict[str, object]):
    asked = request(**fields)
    here = await (await served.here()).generate(asked, ignore_event, None)
    for shared_memory in ("auto", "off"):
        remote = await loaded(served.url, shared_memory=shared_memory)
        there = await remote.generate(asked, ignore_event, None)
        assert there.pictures == here.pictures
        assert there.rows >= there.ticks >= STEPS - 2
        await remote.unload()


async def test_steps_and_previews_come_as_they_are_done(remote: TritonBackend):
    events: list[Event] = []
    await remote.generate(request(previews=True, num_images_per_prompt=2), events.append, None)
    steps = [event for event in events if isinstance(event, Step)]
    for index in (0, 1):
        assert [step.index for step in steps if step.picture == index] == list(range(1, STEPS + 1))
    assert all(step.total == STEPS and step.preview is not None for step in steps)


async def begun(remote: TritonBackend) -> asyncio.Task[object]:
    """A request of many steps that is at work."""
    at_work = asyncio.Event()
    asked = request(num_inference_steps=140)
    work = asyncio.create_task(remote.generate(asked, lambda event: at_work.set(), None))
    await asyncio.wait_for(at_work.wait(), 30)
    return work


async def stopped(remote: TritonBackend) -> bool:
    """Whether a request has the server for itself, which it cannot while another takes its 140 steps."""
    for _ in range(3):
        generated = await remote.generate(request(), ignore_event, None)
        if generated.rows <= 2 * generated.ticks:
            return True
    return False


async def test_who_cancels_stops_the_server(remote: TritonBackend):
    work = await begun(remote)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert await stopped(remote)


async def test_the_deadline_stops_the_server(remote: TritonBackend):
    asked = request(num_inference_steps=140)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await remote.generate(asked, ignore_event, None)
    with pytest.raises(DeadlineExceededError, match="longer `deadline_s`"):
        await remote.generate(asked, ignore_event, (loop.time() - began) / 4)
    assert await stopped(remote)


async def test_requests_at_once_share_batches(served: Served, remote: TritonBackend):
    asked = [
        request(prompt=f"circle {index}", seed=index, num_inference_steps=STEPS + index) for index in range(8)
    ]
    there = await asyncio.gather(*(remote.generate(each, ignore_event, None) for each in asked))
    assert max(generated.rows / generated.ticks for generated in there) > 3
    loaded = await served.here()
    here = await asyncio.gather(*(loaded.generate(each, ignore_event, None) for each in asked))
    for one, other in zip(there, here, strict=True):
        assert one.pictures[0].seed == other.pictures[0].seed
        assert difference(one.pictures[0].image, other.pictures[0].image) <= 1


def difference(one: RawImage | None, other: RawImage | None) -> int:
    assert one is not None
    assert other is not None
    return max(abs(a - b) for a, b in zip(one.pixels, other.pixels, strict=True))


async def test_a_model_that_is_not_there_is_told_from_those_that_are(served: Served):
    name = served.url.rpartition("/")[2]
    with pytest.raises(LoadError, match=rf"has no model '{name}x'; it has: .*{name}"):
        await loaded(served.url + "x")
