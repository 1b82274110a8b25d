"""PipelineModel: the pipeline model that Triton's Python backend runs, with all its requests on one router.

Triton's thread comes with requests and gets `execute` back at once; everything else happens on a loop of
its own, so that requests of different clients share batches here as they do in any other process.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backends._stub_loop import LoopThread
from backends._stub_requests import PROGRESS, read_fields
from backends._stub_responses import Responses
from backends._stub_settings import PipelineSettings
from backends._stub_watch import Watch
from router.errors import LoadError, RequestCancelledError, RouterError
from router.router import BackendRouter

_LOG = logging.getLogger("router.triton")


class PipelineModel:
    """Loads in the constructor: a server that says ready has a model in memory. Raises `RouterError`."""

    def __init__(self, arguments: Mapping[str, str], triton: Any) -> None:
        config = json.loads(arguments["model_config"])
        version = Path(arguments["model_repository"], arguments["model_version"])
        self._triton = triton
        self._settings = PipelineSettings.read(config)
        self._loop = LoopThread(config["name"])
        try:
            self._router = self._loop.run(self._entered(config["name"], version))
        except BaseException:
            self._loop.end()
            raise

    def execute(self, requests: Sequence[Any]) -> None:
        """Hand the requests over; each is answered through its own sender."""
        for request in requests:
            responses = Responses(self._triton, request.get_response_sender())
            try:
                fields = read_fields(request.inputs())
            except RouterError as exc:
                responses.error(exc)
                continue
            if request.timeout():
                fields["deadline_s"] = request.timeout() / 1e6
            self._loop.begin(self._answer(fields, responses))

    def finalize(self) -> None:
        """Stop what runs, with an answer for each, and unload."""
        self._loop.end(self._router.__aexit__(None, None, None))

    async def _entered(self, name: str, version: Path) -> BackendRouter:
        router = await BackendRouter(self._settings.router_config(name, version)).__aenter__()
        try:
            (status,) = await router.probe()
            if status.error:
                raise LoadError(status.error, instance=name)
            await router.load()
        except BaseException as exc:
            await router.__aexit__(type(exc), exc, exc.__traceback__)
            raise
        return router

    async def _answer(self, fields: dict[str, Any], responses: Responses) -> None:
        """The whole life of one request; it ends with exactly one final response."""
        watch = Watch(responses, progress=fields.pop(PROGRESS, True))
        try:
            with watch:
                result = await self._router.generate(on_event=watch.on_event, **fields)
            responses.result(result)
        except RouterError as exc:
            responses.error(exc)
        except asyncio.CancelledError:
            responses.error(RequestCancelledError("The request was cancelled."))
        except Exception as exc:  # noqa: BLE001 -- the edge: a client must not wait for ever
            _LOG.warning("A request failed here", exc_info=exc)
            responses.error(RouterError(f"The server failed with {type(exc).__name__}; see its log."))
