"""`triptych serve`: the HTTP service."""

from __future__ import annotations

from typing import Annotated

import typer

from router.cli.failures import reported
from router.cli.tracing import TraceFile, traced
from router.errors import ConfigError
from router.router import BackendRouter
from router.settings import load_config

_LIBRARIES = frozenset({"fastapi", "prometheus_client", "python_multipart", "starlette", "uvicorn"})


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, typer.Option(help="Address to listen on, instead of `server.host`.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of `server.port`; 0 takes a free one.")
    ] = None,
    trace: TraceFile = None,
) -> None:
    """Serve pictures over HTTP: OpenAI's Images API, the native API, health and metrics.

    SIGTERM or Ctrl-C lets running work come to its end; a second one stops at once.
    """
    with reported(as_json=False):
        try:
            from router.server import log, run
            from router.server.settings import load_server_settings
        except ModuleNotFoundError as exc:
            library = (exc.name or "").partition(".")[0]
            if library not in _LIBRARIES:
                raise
            raise ConfigError(
                f"The HTTP service needs {library}, which is missing: pip install 'triptych[server]'"
            ) from exc
        given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
        settings = load_server_settings(ctx.obj, given=given)
        log.set_up(settings.log)
        run.run(BackendRouter(traced(load_config(ctx.obj), trace)), settings)
