"""The one place where an error becomes a sentence on stderr, an exit code and, with --json, an object."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from router.cli.options import in_options
from router.cli.output import print_error, print_json, print_note
from router.errors import BackendError, ConfigError, RequestCancelledError, RouterError

EXIT_CODES = (
    "Exit codes: 0 all is done; 1 a failure of model, device or disk; 2 wrong command line or configuration;"
    " 3 the request was refused; 4 overloaded or past its deadline; 5 a device failed that only a new"
    " process mends; 130 stopped by Ctrl-C."
)

_MAX_CAUSE = 300  # characters

_DETAILS = ("param", "instance", "rejections", "models", "retry_after_s", "findings")


class UsageError(RouterError):
    """The command line is wrong; the sentence names the option and the cure."""

    code = "usage_error"
    exit_code = 2


@contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Around a whole command: it leaves with an exit code, never with a traceback of ours."""
    try:
        yield
    except RouterError as exc:
        raise fail(exc, as_json) from exc
    except KeyboardInterrupt as exc:
        raise fail(RequestCancelledError("Stopped; nothing was left half done."), as_json) from exc


def fail(exc: RouterError, as_json: bool) -> typer.Exit:
    """Say what is wrong and return the exit to raise."""
    print_error(sentence_of(exc))
    if cause := cause_of(exc):
        print_note(f"underneath it was {cause}")
    if as_json:
        print_json({"error": describe(exc)})
    return typer.Exit(exc.exit_code)


def sentence_of(exc: RouterError) -> str:
    """In the words of the command line, but not where it tells of a key in a file."""
    return str(exc) if isinstance(exc, ConfigError) else in_options(str(exc))


def cause_of(exc: RouterError) -> str | None:
    """What the library itself said, on one line: a command has no log to look it up in."""
    cause: BaseException | None = exc if isinstance(exc, BackendError) else None
    while isinstance(cause, RouterError):
        cause = cause.__cause__
    if cause is None:
        return None
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:_MAX_CAUSE]


def describe(exc: RouterError) -> dict[str, Any]:
    """The error as an object: its code, its sentence, and what else it carries."""
    details = {name: getattr(exc, name, None) for name in _DETAILS} | {"cause": cause_of(exc)}
    return {"code": exc.code, "message": str(exc)} | {name: value for name, value in details.items() if value}
