"""What every test starts from: offline, an environment without our variables, a loop nobody may block."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster

from router.lane import Lane

# The fixtures `open_page`, `folder`, `exports`, `triton_server`, `everywhere`.
pytest_plugins = [
    "tests.browser",
    "tests.command_line",
    "tests.exports",
    "tests.triton_servers",
    "tests.triton_everywhere",
]

# The model libraries read these once, when a test first imports them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # the test models are tiny: more threads only wait for each other
)
for _name in [name for name in os.environ if name.startswith("TRIPTYCH_")]:
    del os.environ[_name]
_CACHE = tempfile.TemporaryDirectory(prefix="triptych-cache-")
os.environ["TRIPTYCH_CACHE"] = _CACHE.name  # nothing of a test is kept for the next


@pytest.fixture(scope="session")
def _guard() -> BlockBuster:
    return BlockBuster(scanned_modules=["router", "backends"])


@pytest.fixture(autouse=True)
def loop_is_not_blocked(request: pytest.FixtureRequest, _guard: BlockBuster) -> Iterator[None]:
    """Fails an async test in which our code sleeps, reads files or waits for a lock on the event loop.

    `@pytest.mark.may_block` lets a test through that has a reason to.
    """
    if not inspect.iscoroutinefunction(request.function) or request.node.get_closest_marker("may_block"):
        yield
        return
    _guard.activate()
    try:
        yield
    finally:
        _guard.deactivate()


@pytest.fixture
async def lanes() -> AsyncIterator[Callable[[str], Lane]]:
    """What backends get as `lanes`: device -> the one lane that owns it. Closed after the test."""
    made: dict[str, Lane] = {}

    def lane_of(device: str) -> Lane:
        if device not in made:
            made[device] = Lane(device)
        return made[device]

    yield lane_of
    for lane in made.values():
        await asyncio.to_thread(lane.close)


@pytest.fixture
async def lane(lanes: Callable[[str], Lane]) -> Lane:
    """A lane of no device in particular."""
    return lanes("test")


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which `miniature(family, folder)` keeps what it has built."""
    return tmp_path_factory.mktemp("miniatures")


@pytest.fixture
def model_folder(miniatures: Path, tmp_path: Path) -> Path:
    """A miniature model that a test may damage."""
    from tests.miniatures import miniature

    return Path(shutil.copytree(miniature("sd15", miniatures), tmp_path / "model"))
