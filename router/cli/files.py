"""Where pictures are written: names, formats, and files that are whole or not there."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path

from router.cli.failures import UsageError
from router.errors import RouterError
from router.images import Format

_FORMATS: dict[str, Format] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}


def format_of(path: Path) -> Format:
    """The picture format that a file name asks for."""
    return _FORMATS[path.suffix.lower()]


def check_output(path: Path | None) -> None:
    """Raises `UsageError` before any work is done for a file that could not be written after it."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"`-o` is {str(path)!r}, a folder; name a file in it, such as picture.png.")
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"`-o` is {str(path)!r}; end it with one of {', '.join(_FORMATS)}.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        fault = "may not be written to" if path.parent.is_dir() else "does not exist"
        raise UsageError(f"`-o` is in the folder {str(path.parent)!r}, which {fault}; choose another.")


def check_latents(path: Path | None) -> None:
    """The same for the file of the latents."""
    if path is None:
        return
    if path.suffix != ".safetensors" or path.is_dir():
        raise UsageError(f"`--latents` is {str(path)!r}; name a file that ends with .safetensors.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"`--latents` is in the folder {str(path.parent)!r}, which is not there for writing."
        )


def choose_output(output: Path | None, seed: int, count: int) -> Path:
    """The file asked for, else `triptych-SEED.png` or, where that is taken, `triptych-SEED_2.png`, ..."""
    if output is not None:
        return output
    for number in itertools.count(1):
        chosen = Path(f"triptych-{seed}.png" if number == 1 else f"triptych-{seed}_{number}.png")
        if not any(path.exists() for path in (chosen, *numbered(chosen, count))):
            return chosen
    raise AssertionError("unreachable")


def numbered(output: Path, count: int) -> list[Path]:
    """`out.png` itself for one picture; `out-1.png`, `out-2.png`, ... beside it for several."""
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}-{number}{output.suffix}") for number in range(1, count + 1)]


def write(path: Path, data: bytes) -> None:
    """The file appears whole, in the place of an older one, or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as exc:
        raise RouterError(f"{path} cannot be written ({exc.strerror}); free the place or use `-o`.") from exc
    finally:
        with suppress(OSError):
            partial.unlink()
