"""The outputs folder: whole files, limits of size and age, and what a killed process left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.server.outputs import Outputs
from tests.doubles import Clock

PICTURE = b"picture" * 100


async def outputs(folder: Path, clock: Clock, most_bytes: int = 10_000, most_age_s: float = 60.0) -> Outputs:
    made = Outputs(folder, most_bytes, most_age_s, clock)
    await asyncio.to_thread(made.open)
    return made


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_picture_is_kept_under_an_id_nobody_guesses(tmp_path: Path) -> None:
    kept = await outputs(tmp_path, Clock())
    first, second = [await kept.keep(PICTURE, "png", {"seed": 1}) for _ in range(2)]
    assert first.id != second.id
    assert len(first.id) == 22
    assert kept.find(first.id) == first
    assert await kept.image(first) == PICTURE
    assert b'"seed": 1' in (await kept.meta(first) or b"")
    assert kept.find("../" + first.id) is None


async def test_the_oldest_go_where_too_much_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    kept = await outputs(tmp_path, clock, most_bytes=2_000)
    made = [await kept.keep(PICTURE, "png", {}) for _ in range(4)]
    assert [kept.find(each.id) is not None for each in made] == [False, False, True, True]
    assert files(tmp_path) == sorted(f"{each.id}.{end}" for each in made[2:] for end in ("png", "json"))


async def test_what_is_too_old_is_gone_at_once_and_removed_later(tmp_path: Path) -> None:
    clock = Clock()
    kept = await outputs(tmp_path, clock)
    old = await kept.keep(PICTURE, "webp", {})
    clock.now += 61
    assert kept.find(old.id) is None
    new = await kept.keep(PICTURE, "webp", {})
    assert files(tmp_path) == sorted([f"{new.id}.json", f"{new.id}.webp"])


@pytest.mark.may_block
async def test_another_process_finds_what_was_kept_and_removes_what_was_not_finished(tmp_path: Path) -> None:
    clock = Clock()
    made = await (await outputs(tmp_path, clock)).keep(PICTURE, "jpeg", {})
    (tmp_path / "images" / "unfinished.png.part").write_bytes(b"half")
    (tmp_path / "images" / "notes.txt").write_bytes(b"somebody's")
    found = (await outputs(tmp_path, clock)).find(made.id)
    assert found is not None
    assert (found.format, found.bytes) == ("jpeg", made.bytes)
    assert files(tmp_path) == sorted([f"{made.id}.jpeg", f"{made.id}.json", "notes.txt"])


@pytest.mark.may_block
async def test_a_file_that_was_removed_by_hand_is_not_there(tmp_path: Path) -> None:
    kept = await outputs(tmp_path, Clock())
    made = await kept.keep(PICTURE, "png", {})
    (tmp_path / "images" / f"{made.id}.png").unlink()
    assert await kept.image(made) is None


@pytest.mark.may_block
async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"server\.outputs"):
        await outputs(tmp_path / "file", Clock())
