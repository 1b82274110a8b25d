"""Shared memory between the Triton backend and its server: used where it can be, and never left behind."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tritonclient.grpc.aio import InferenceServerClient

from backends import _triton_region
from backends._triton_region import Region, orphans, sweep
from backends._triton_regions import Regions
from router.types import ignore_event
from tests.doubles import until
from tests.triton_doubles import TritonDouble
from tests.triton_instances import Lanes, begin, generate, loaded, loaded_from, picture, request, serving
from tests.triton_servers import TritonServer

_SHARED = Path("/dev/shm")


def ours() -> list[str]:
    return [name for name in os.listdir(_SHARED) if name.startswith(f"triptych_{os.getpid()}_client_")]


async def is_made(double: TritonDouble) -> None:
    """The name of a region goes a moment before it is there for the next."""

    def being_made() -> bool:
        return any(Regions._made.__qualname__ in repr(task.get_coro()) for task in asyncio.all_tasks())

    await until(lambda: double.regions and not ours() and not being_made())
    await asyncio.sleep(0)  # what is to be done after a task is done in the loop's next turn


async def test_pictures_go_and_come_by_memory_that_has_no_name_any_more(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        for _ in range(3):
            await generate(backend, image=picture(), mask_image=picture(), strength=1.0)
        assert double.by_region == 9
        assert len(double.regions) == 3  # used again and again
        assert ours() == []
    assert double.regions == {}


async def test_several_pictures_of_one_request_come_over_grpc(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        await generate(backend, num_images_per_prompt=2)
        assert double.by_region == 0


async def test_a_request_that_was_stopped_leaves_its_memory_to_nobody(lanes: Lanes):
    async with serving(lanes, step_s=0.05) as double, loaded_from(double) as backend:
        work = begin(backend)
        await until(lambda: double.seen)
        work.cancel()
        await asyncio.wait([work])
        await until(lambda: not double.regions)
        assert ours() == []


async def test_who_gives_up_while_memory_is_made_leaves_it_to_the_next(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.is_healthy.clear()
        work = begin(backend)
        await until(ours)
        work.cancel()
        await asyncio.wait([work])
        double.let_go()
        await is_made(double)
        await generate(backend)
        assert len(double.regions) == 1


async def test_a_server_that_cannot_open_it_is_served_over_grpc(
    lanes: Lanes, caplog: pytest.LogCaptureFixture
):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.shares_memory = False
        for _ in range(2):
            assert (await generate(backend, image=picture(), strength=1.0)).pictures[0].image is not None
        said = [record.message for record in caplog.records if record.levelno == logging.WARNING]
        assert len(said) == 1
        assert "pictures go over gRPC, not by shared memory" in said[0]
        assert ours() == []


async def test_a_machine_without_such_memory_is_served_over_grpc(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(_triton_region, "FOLDER", tmp_path / "nowhere")
    async with serving(lanes) as double, loaded_from(double) as backend:
        assert (await generate(backend)).pictures[0].image is not None
        assert double.by_region == 0


async def test_memory_that_the_server_does_not_find_twice_is_given_up(lanes: Lanes):
    async with serving(lanes) as double, loaded_from(double) as backend:
        double.forgets = True
        assert (await generate(backend)).pictures[0].image is not None
        assert (await generate(backend)).pictures[0].image is not None


async def test_large_pictures_are_the_same(lanes: Lanes):
    """Above the size from which copies are made in a thread."""
    for shared_memory in ("auto", "off"):
        async with serving(lanes) as double:
            backend = await loaded(double.url, shared_memory=shared_memory)
            asked = request(height=1024, width=1024, num_inference_steps=1)
            there = await backend.generate(asked, ignore_event, None)
            here = await double.backend.generate(asked, ignore_event, None)
            assert there.pictures == here.pictures
            await backend.unload()


@pytest.fixture
def left() -> str:
    """The name of what a killed process left; while it ran, nobody swept that."""
    script = "from backends._triton_region import Region; print(Region(4096).name, flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert name not in sweep()
        other.kill()
    assert (_SHARED / name).exists()
    return name


async def test_what_a_killed_client_left_is_swept_at_the_next_start(lanes: Lanes, left: str):
    async with serving(lanes) as double:
        double.regions[left] = mmap.mmap(-1, 4096)
        async with loaded_from(double):
            assert left not in double.regions
    assert left not in os.listdir(_SHARED)


def test_what_is_not_ours_is_not_swept():
    ours, elsewhere = Region(4096), "triptych_999999999_client_1_ab"
    assert orphans(["other", "triptych_999999999_other", elsewhere, ours.name]) == []
    ours.forget_name()


CLIENT = """
import asyncio, sys
from router.types import ignore_event
from tests.triton_instances import loaded, request

async def main():
    backend = await loaded(sys.argv[1])
    await backend.generate(request(), ignore_event, None)
    print("made", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture
def killed(triton_server: TritonServer) -> int:
    """The process id of a client of the real server, killed when it had made a picture."""
    command = [sys.executable, "-c", CLIENT, f"grpc://{triton_server.grpc}/sd15"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "made\n"
        client.kill()
    return client.pid


async def test_a_real_server_lets_go_of_what_a_killed_client_shared(triton_server: TritonServer, killed: int):
    mark = f"triptych_{killed}_"
    assert not [name for name in os.listdir(_SHARED) if name.startswith(mark)]
    async with InferenceServerClient(triton_server.grpc) as client:
        status = await client.get_system_shared_memory_status()
        assert [name for name in status.regions if name.startswith(mark)]
        backend = await loaded(f"grpc://{triton_server.grpc}/sd15")
        status = await client.get_system_shared_memory_status()
        assert not [name for name in status.regions if name.startswith(mark)]
        await backend.unload()
