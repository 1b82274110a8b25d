"""StateFolder: what outlives the process, its lock, and the secret that signs links."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from router.errors import ConfigError
from router.server.links import SECRET_BYTES

_LOCK = "lock"
_SECRET = "link-secret"


class StateFolder:
    """One process at a time: the lock is the kernel's, and ends with the process however it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = b""
        self._lock: int | None = None

    def open(self) -> None:
        """Take the folder. Blocks. Raises `ConfigError` where another process has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.secret = _kept_secret(self.folder / _SECRET)
        except BlockingIOError as exc:
            self.close()
            raise ConfigError(
                f"`server.state` {self.folder} is in use by another process; stop that one, or give"
                " this one a folder of its own (TRIPTYCH_SERVER_STATE)."
            ) from exc
        except OSError as exc:
            self.close()
            raise ConfigError(
                f"`server.state` {self.folder} cannot be used ({exc.strerror}); correct it."
            ) from exc

    def close(self) -> None:
        """Let the folder go."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _kept_secret(path: Path) -> bytes:
    """The secret of earlier runs, so that their links stay good; a new one the first time."""
    with contextlib.suppress(FileNotFoundError):
        secret = path.read_bytes()
        if len(secret) == SECRET_BYTES:
            return secret
        path.unlink()
    secret = secrets.token_bytes(SECRET_BYTES)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as stream:
        stream.write(secret)
    return secret
