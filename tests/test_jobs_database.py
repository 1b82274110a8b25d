"""The file of the jobs: one process at a time, and nothing is touched that is damaged, newer or another's."""

from __future__ import annotations

import hashlib
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from router.errors import ConfigError
from router.server.jobs.database import open_database
from router.server.jobs.limits import JobLimits
from router.server.jobs.store import JobStore
from tests.jobs_doubles import draft

OPEN = """
import sys, pathlib
from router.server.jobs.database import open_database
open_database(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a few jobs in it, closed."""
    path = tmp_path / "jobs.sqlite"
    store = JobStore(path, JobLimits())
    for index in range(40):
        store.accept(draft(f"{index}" * 1000))
    store.close()
    return path


def refused(path: Path) -> str:
    """The sentence; the file is the same afterwards."""
    before = hashlib.sha256(path.read_bytes()).digest()
    with pytest.raises(ConfigError) as caught:
        open_database(path)
    assert hashlib.sha256(path.read_bytes()).digest() == before
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_damaged_file_is_left_as_it_is(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * 4096 * 3)
    assert "is damaged and was left as it is; restore it" in refused(path)


def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    path.write_text("Not a database at all. " * 1000)
    assert "is damaged and was left as it is" in refused(path)


def test_a_cut_off_file_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])
    assert "is damaged and was left as it is" in refused(path)


def test_a_newer_form_is_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    assert "has the form 7 of a newer Triptych, and this one reads 1; update Triptych" in refused(path)


def test_another_programs_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    assert "is a database of another program" in refused(path)


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be opened \(No such file"):
        open_database(tmp_path / "nowhere" / "jobs.sqlite")


def test_a_second_process_is_refused(path: Path) -> None:
    store = JobStore(path, JobLimits())
    command = [sys.executable, "-c", OPEN, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    store.close()
    assert "is in use by another process; stop that one" in done.stderr
    assert subprocess.run(command, check=False).returncode == 0


def test_nobody_else_may_read_the_prompts(path: Path) -> None:
    store = JobStore(path, JobLimits())
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    store.close()


def test_every_commit_is_on_the_disk(path: Path) -> None:
    connection = open_database(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    connection.close()
