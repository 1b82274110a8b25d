"""The file of what was measured: kept from process to process, written as a whole, ignored when damaged."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from router.footprint import Peak, Workspace
from router.measured import FILE_NAME, MeasuredStore, default_cache

SDXL = (("model", "abc"), ("device", "NVIDIA H200"), ("dtype", "float16"))
FOUND = Workspace(denoise=Peak(2, 1024 * 1024, 10**9), decode=Peak(1, 1024 * 1024, 3 * 10**9))


async def keep(folder: Path, **fields: object) -> None:
    store = MeasuredStore(folder)
    store.keep(SDXL, FOUND, load_s=12.5)
    await store.close()


async def test_what_one_process_measured_the_next_one_knows(tmp_path: Path) -> None:
    await keep(tmp_path / "cache")
    known = await MeasuredStore(tmp_path / "cache").find(SDXL)
    assert known is not None
    assert (known.workspace, known.load_s) == (FOUND, 12.5)
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [FILE_NAME]


async def test_what_was_chosen_is_kept_beside_it(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    store.keep(SDXL, FOUND, 12.5, (("attention of unet", "cudnn"),))
    await store.close()
    known = await MeasuredStore(tmp_path).find(SDXL)
    assert known is not None
    assert (known.workspace, known.choices) == (FOUND, {"attention of unet": "cudnn"})


async def test_another_device_or_dtype_knows_nothing(tmp_path: Path) -> None:
    await keep(tmp_path)
    for name, value in (("device", "NVIDIA L4"), ("dtype", "bfloat16"), ("model", "abd")):
        other = tuple({**dict(SDXL), name: value}.items())
        assert await MeasuredStore(tmp_path).find(other) is None


async def test_without_conditions_nothing_is_kept(tmp_path: Path) -> None:
    store = MeasuredStore(tmp_path)
    store.keep((), FOUND, None)
    assert await store.find(()) is None
    await store.close()
    assert not await asyncio.to_thread((tmp_path / FILE_NAME).exists)


async def test_without_a_folder_it_is_known_to_this_process_alone() -> None:
    store = MeasuredStore(None)
    store.keep(SDXL, FOUND, None)
    known = await store.find(SDXL)
    assert known is not None
    assert known.workspace == FOUND
    await store.close()


async def test_two_processes_keep_what_the_other_wrote(tmp_path: Path) -> None:
    first, second = MeasuredStore(tmp_path), MeasuredStore(tmp_path)
    await first.find(SDXL)
    await second.find(SDXL)
    first.keep(SDXL, FOUND, None)
    await first.close()
    second.keep((("model", "other"),), Workspace(), 1.0)
    await second.close()
    third = MeasuredStore(tmp_path)
    assert await third.find(SDXL) is not None
    assert await third.find((("model", "other"),)) is not None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"version": 2, "entries": []}',
        '{"version": 1, "entries": [{"workspace": 3}]}',
        '{"version": 1, "entries": [{"workspace": {"denoise": {"rows": 0, "pixels": 1, "bytes": 1}}}]}',
    ],
)
async def test_a_damaged_file_is_told_ignored_and_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    store = MeasuredStore(tmp_path)
    assert await store.find(SDXL) is None
    assert store.fault.startswith("measured.json in the cache folder is not used (it is damaged")
    assert str(tmp_path) not in store.fault
    store.keep(SDXL, FOUND, None)
    await store.close()
    assert len(json.loads((tmp_path / FILE_NAME).read_text())["entries"]) == 1


async def test_a_folder_that_cannot_be_written_is_told_and_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    store = MeasuredStore(tmp_path / "cache" / "deeper")
    store.keep(SDXL, FOUND, None)
    await store.close()
    assert "correct `memory.cache`" in store.fault


def test_the_cache_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    assert default_cache({"XDG_CACHE_HOME": "/var/cache"}) == Path("/var/cache/triptych")
    assert default_cache({}) == Path("/home/anna/.cache/triptych")
