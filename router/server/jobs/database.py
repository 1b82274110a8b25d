"""open_database: the SQLite file of the jobs, made, checked and held by this process alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.errors import ConfigError

VERSION = 1
_APPLICATION = 0x54_72_4A_62  # "TrJb": tells our files from other programs'
_JOURNAL_BYTES = 64 * 1024**2  # what the write-ahead log is cut to when it was folded in

_SCHEMA = f"""
CREATE TABLE jobs (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT NOT NULL UNIQUE,
    owner           TEXT NOT NULL,
    state           TEXT NOT NULL DEFAULT 'queued'
                    CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    starts          INTEGER NOT NULL DEFAULT 0,
    parameters      TEXT NOT NULL,
    idempotency_key TEXT,
    digest          BLOB NOT NULL,
    bytes           INTEGER NOT NULL,
    created_at      REAL NOT NULL,
    started_at      REAL,
    ended_at        REAL,
    result          TEXT,
    error           TEXT
) STRICT;
CREATE UNIQUE INDEX repetitions ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX by_owner ON jobs (owner, number);
CREATE INDEX unfinished ON jobs (number) WHERE ended_at IS NULL;
CREATE INDEX ended ON jobs (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX sizes ON jobs (bytes);
CREATE TABLE pictures (
    job   INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    role  TEXT NOT NULL CHECK (role IN ('image', 'mask_image', 'result')),
    place INTEGER NOT NULL,
    data  BLOB NOT NULL,
    PRIMARY KEY (job, role, place)
) STRICT;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {VERSION};
"""


def open_database(path: Path) -> sqlite3.Connection:
    """The connection, for the thread that asks. Raises `ConfigError`; what is there is never changed then.

    Held exclusively: a second process is refused. Every commit is on the disk when it returns.
    """
    connection = None
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        _prepare(connection, path)
    except (OSError, sqlite3.Error, ConfigError) as exc:
        if connection is not None:
            connection.close()
        if isinstance(exc, ConfigError):
            raise
        raise ConfigError(_why_not(path, exc)) from exc
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    is_new = _check(connection, path)
    if is_new:
        connection.execute("PRAGMA auto_vacuum = FULL")  # counts before the first table only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
    if is_new:
        connection.executescript(f"BEGIN EXCLUSIVE; {_SCHEMA} COMMIT;")


def _check(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is empty. Raises `ConfigError` for one that is not ours, newer, or damaged."""
    application, version = _number(connection, "application_id"), _number(connection, "user_version")
    [(tables,)] = connection.execute("SELECT count(*) FROM sqlite_schema")
    if application == 0 and version == 0 and tables == 0:
        return True
    if application != _APPLICATION:
        raise ConfigError(f"{path} is a database of another program; move it away.")
    if version != VERSION:
        raise ConfigError(
            f"{path} has the form {version} of a newer Triptych, and this one reads {VERSION};"
            " update Triptych, or move the file away to begin with no jobs."
        )
    [(found,), *_] = connection.execute("PRAGMA quick_check(1)")
    if found != "ok":
        raise ConfigError(_damaged(path))
    return False


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    [(value,)] = connection.execute(f"PRAGMA {pragma}")
    return int(value)


def _why_not(path: Path, exc: OSError | sqlite3.Error) -> str:
    if isinstance(exc, OSError):
        return f"{path} cannot be opened ({exc.strerror}); correct it."
    kind = getattr(exc, "sqlite_errorname", "")
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is in use by another process; stop that one, or use another folder."
    if kind.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return _damaged(path)
    return f"{path} cannot be opened ({exc}); correct it."


def _damaged(path: Path) -> str:
    return f"{path} is damaged and was left as it is; restore it from a copy, or move it away."


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
