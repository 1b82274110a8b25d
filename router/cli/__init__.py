"""The command line: `triptych generate`, `serve` and so on. typer and rich live here alone."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from router.cli.backends import backends
from router.cli.check import check
from router.cli.explain import explain
from router.cli.export import app as export_app
from router.cli.export_tensorrt import tensorrt
from router.cli.export_triton import triton
from router.cli.failures import EXIT_CODES, UsageError, fail
from router.cli.generate import generate
from router.cli.models import models
from router.cli.serve import serve
from router.cli.top import top
from router.cli.upscale import upscale

app = typer.Typer(
    name="triptych",
    help="Pictures from prompts, by whichever backend can make them.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"triptych {version('triptych')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Instead of TRIPTYCH_CONFIG or ./triptych.toml."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = config


for _command in (generate, upscale, explain, models, backends, check, serve, top):
    app.command(epilog=EXIT_CODES)(_command)
for _command in (tensorrt, triton):
    export_app.command(epilog=EXIT_CODES)(_command)
app.add_typer(export_app)


def main() -> None:
    """What the `triptych` script runs."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):  # what they would say here is no news to a user
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    logging.getLogger("router").addHandler(logging.NullHandler())  # results and errors say it all
    if "--json" in sys.argv:
        sys.exit(_run_for_a_program())
    app(prog_name="triptych")


def _run_for_a_program() -> Any:
    """The exit code; a wrong command line too is told as one object on stdout."""
    try:
        return app(prog_name="triptych", standalone_mode=False)
    except typer.TyperException as exc:
        return fail(UsageError(exc.format_message()), as_json=True).exit_code
