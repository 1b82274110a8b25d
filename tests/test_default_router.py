from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import router
import router.default
from router.errors import ConfigError
from router.lane import LaneStatistics
from router.types import Event
from tests.doubles import until

ROOT = Path(__file__).parent.parent
CONFIG = """
[[models.demo.instances]]
backend = "fake"
options = { load_s = 0.05, step_s = 0.002 }
"""


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "triptych.toml"
    place.write_text(CONFIG)
    monkeypatch.setenv("TRIPTYCH_CONFIG", str(place))
    yield place
    router.default.close()


def loaded_by(result: router.GenerateResult) -> bool:
    return result.timings.load_s > 0.02


def test_one_loaded_model_serves_any_number_of_loops_and_threads() -> None:
    first = asyncio.run(router.generate(prompt="a"))
    second = asyncio.run(router.generate(prompt="a"))
    third = router.generate_sync(prompt="a")
    with ThreadPoolExecutor(4) as threads:
        others = list(threads.map(lambda index: router.generate_sync(prompt=f"{index}"), range(8)))
    assert loaded_by(first)
    assert not any(loaded_by(result) for result in (second, third, *others))
    assert [thread.name for thread in threading.enumerate()].count("router") == 1


async def test_it_does_not_block_the_loop_that_asks() -> None:
    results = await asyncio.gather(*[router.generate(prompt=f"{index}") for index in range(3)])
    assert all(len(result.images) == 1 for result in results)


async def test_a_stream_crosses_the_threads_in_order() -> None:
    here = threading.get_ident()
    events: list[Event] = []
    async for event in router.stream(prompt="a", num_inference_steps=3):
        assert threading.get_ident() == here
        events.append(event)
    assert isinstance(events[0], router.Loading)
    assert [event.index for event in events if isinstance(event, router.Step)] == [1, 2, 3]
    assert isinstance(events[-1], router.Completed)


def lane_of_the_default() -> LaneStatistics:
    statistics = router.default.statistics()
    assert statistics is not None
    return statistics.lanes["cpu"]


async def test_cancelling_stops_the_work() -> None:
    await router.generate(prompt="first", num_inference_steps=1)
    task = asyncio.create_task(router.generate(prompt="a", num_inference_steps=150))
    await until(lambda: lane_of_the_default().ticks > 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: lane_of_the_default().running == 0)
    assert lane_of_the_default().ticks < 120
    await router.generate(prompt="next", num_inference_steps=1)


async def test_generate_sync_refuses_to_block_a_loop() -> None:
    with pytest.raises(router.RouterError, match=r"await router\.generate"):
        router.generate_sync(prompt="a")


def test_errors_come_across_and_the_next_is_served() -> None:
    with pytest.raises(router.InvalidRequestError) as caught:
        router.generate_sync(prompt="a", num_inference_steps=0)
    assert caught.value.param == "num_inference_steps"
    assert len(router.generate_sync(prompt="a").images) == 1


def test_a_wrong_configuration_is_read_again_when_it_is_mended(configured: Path) -> None:
    configured.write_text(CONFIG.replace("backend", "bakend"))
    with pytest.raises(ConfigError, match=r"demo\.instances"):
        router.generate_sync(prompt="a")
    configured.write_text(CONFIG)
    router.generate_sync(prompt="a")


@pytest.mark.parametrize("way", ["generate", "generate_sync"])
def test_closing_it_is_an_error_for_those_who_wait(way: str) -> None:
    def ask() -> router.GenerateResult:
        if way == "generate_sync":
            return router.generate_sync(prompt="a", num_inference_steps=150)
        return asyncio.run(router.generate(prompt="a", num_inference_steps=150))

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask)
        while getattr(router.default.statistics(), "running", 0) == 0:
            time.sleep(0.005)
        router.default.close()
        with pytest.raises(router.RouterError, match="closed"):
            waiting.result()


def test_after_close_the_next_request_starts_anew() -> None:
    with ThreadPoolExecutor(2) as threads:  # at once: whoever comes second waits for the first to enter
        assert all(map(loaded_by, threads.map(lambda _: router.generate_sync(prompt="a"), range(2))))
    router.default.close()
    assert "router" not in [thread.name for thread in threading.enumerate()]
    assert router.default.statistics() is None
    with ThreadPoolExecutor(2) as threads:
        assert all(map(loaded_by, threads.map(lambda _: router.generate_sync(prompt="a"), range(2))))


@pytest.mark.parametrize(
    "body",
    [
        "router.generate_sync(prompt='a')",
        "asyncio.run(asyncio.wait_for(router.generate(prompt='a', num_inference_steps=150), 0.2))",
        "threading.Thread(target=ask, daemon=True).start(); time.sleep(0.3)",
        "import router.default; router.default.close()",
    ],
    ids=["idle", "cancelled", "running", "never used"],
)
def test_the_process_ends_quickly_and_quietly(body: str, configured: Path) -> None:
    configured.write_text(CONFIG.replace("step_s = 0.002", "step_s = 0.1"))
    lines = [
        "import asyncio, contextlib, threading, time, router",
        "def ask():",
        "    with contextlib.suppress(router.RouterError):",
        "        router.generate_sync(prompt='a', num_inference_steps=150)",
        f"with contextlib.suppress(TimeoutError): {body}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=ROOT, capture_output=True, text=True, timeout=12
    )
    assert (done.returncode, done.stderr) == (0, "")
