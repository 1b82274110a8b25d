"""TritonBackend: a model that Triton servers run, asked over gRPC.

    [[models.shapes.instances]]
    backend = "triton"
    source = "grpc://gpu-1:8001/shapes"
    options = { replicas = ["grpc://gpu-2:8001"] }

It is asynchronous from end to end: no lane, and no thread but for files and for copying large pictures.
The servers' own lanes gather the requests of all clients. `export.to_triton` writes the model there.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterator

from backends import _triton_options
from backends._options import read_options
from backends._triton_answer import Answer
from backends._triton_errors import RegionsLostError
from backends._triton_exchange import Exchange
from backends._triton_model import ServedModel
from backends._triton_options import TritonOptions
from backends._triton_parcel import Parcel
from backends._triton_server import Server, least_loaded
from router.backend import Lanes
from router.capabilities import Capabilities
from router.config import InstanceConfig
from router.errors import BackendError, BackendUnavailableError, ConfigError, LoadError
from router.request import GenerateRequest
from router.types import Generated, OnEvent, ignore_event

__all__ = ["TritonBackend", "TritonOptions"]


class TritonBackend:
    """One instance: one model on one server, or on several."""

    def __init__(self, instance: InstanceConfig, lanes: Lanes | None = None) -> None:
        self.name = instance.name
        self.options = read_options(TritonOptions, instance)
        self._instance = instance
        addresses = _triton_options.addresses(instance, self.options)
        self.model = addresses[0].model
        settings = _triton_options.settings(instance, self.options, addresses)
        self.servers = tuple(Server(address, self.model, settings) for address in addresses)

    async def probe(self) -> Capabilities:
        """What the first server that answers can do; others that are away are named in the notes.

        A server knows a model's capabilities only while it is loaded: with `repository_control` the
        first probe loads it.
        """
        failed = await self._each(Server.probe)
        served = self._served()
        assert served is not None
        failed |= self._suspect_others_than(served)
        found = served.capabilities
        if self._instance.dtype not in ("auto", found.dtype):
            raise ConfigError(
                f"{self.name}: `dtype` is {self._instance.dtype!r}, but the model there is in {found.dtype};"
                " use `auto`, or write the model there in that dtype."
            )
        notes = (*self._notes(), *map(str, failed.values()), *found.notes)
        return dataclasses.replace(found, device=f"triton:{self.servers[0].address.name}", notes=notes)

    async def load(self) -> None:
        try:
            await asyncio.gather(*(server.open() for server in self.servers))
            await self._each(lambda server: server.greet(self._served()))
        except BaseException:
            await self._close()
            raise

    async def generate(
        self, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        """As `Backend.generate`. A server that fails as such is passed over for the next of the instance.

        When cancelled it tells the server, which stops at its next step, and does not wait for that.
        """
        clock = asyncio.get_running_loop().time
        ends_at = None if deadline_s is None else clock() + deadline_s
        error: BackendError | None = None
        for server in self._in_turn():
            left_s = None if ends_at is None else max(0.0, ends_at - clock())
            try:
                with server.busy(request.num_images_per_prompt):
                    if server.is_suspect:
                        await server.greet(self._served())
                    return await self._ask(server, request, on_event, left_s)
            except (BackendUnavailableError, LoadError) as exc:
                error = exc
        assert error is not None
        raise error

    async def unload(self) -> None:
        try:
            if self.options.repository_control:
                await asyncio.gather(*map(self._unload_model, self.servers))
        finally:
            await self._close()

    async def _ask(
        self, server: Server, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        """One request to one server, again where only the shared memory was in the way."""
        for remedy in (server.regions.forget, server.regions.switch_off):
            try:
                return await self._exchange(server, request, on_event, deadline_s)
            except RegionsLostError:
                remedy()
        return await self._exchange(server, request, on_event, deadline_s)

    async def _exchange(
        self, server: Server, request: GenerateRequest, on_event: OnEvent, deadline_s: float | None
    ) -> Generated:
        assert server.served is not None
        exchange = Exchange(
            server.connection,
            self.model,
            instance=self.name,
            silence_s=self.options.silence_s,
            answer_s=self.options.answer_s,
            deadline_s=deadline_s,
        )
        progress = on_event is not ignore_event
        async with Parcel(request, server.served.inputs, server.regions, progress=progress) as parcel:
            answer = Answer(request, on_event, self.name, parcel.from_region())
            await exchange.run(parcel.inputs, list(parcel.outputs.values()), answer)
            return answer.complete()

    def _in_turn(self) -> Iterator[Server]:
        """The servers, the least loaded first; those that failed are looked at again meanwhile."""
        left = list(self.servers)
        for server in left:
            if len(left) > 1:
                server.check_again(self._served())
        while left:
            server = least_loaded(left)
            left.remove(server)
            yield server

    def _served(self) -> ServedModel | None:
        """What the first server that was ever asked serves: all others must serve the same."""
        return next((server.served for server in self.servers if server.served is not None), None)

    async def _each(self, ask: Callable[[Server], Awaitable[None]]) -> dict[Server, BackendError]:
        """Ask all at once. The errors of those that failed; raises the first if all did."""
        outcomes = await asyncio.gather(*map(ask, self.servers), return_exceptions=True)
        failed: dict[Server, BackendError] = {}
        for server, outcome in zip(self.servers, outcomes, strict=True):
            if isinstance(outcome, BackendError):
                failed[server] = outcome
                server.suspect(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        if len(failed) == len(self.servers):
            raise failed[self.servers[0]]
        return failed

    def _suspect_others_than(self, expected: ServedModel) -> dict[Server, BackendError]:
        """The errors of the servers that answered, but make other pictures."""
        others = [each for each in self.servers if each.served and not each.served.is_like(expected)]
        errors: dict[Server, BackendError] = {server: server.another_model() for server in others}
        for server, error in errors.items():
            server.suspect(error)
        return errors

    async def _unload_model(self, server: Server) -> None:
        with contextlib.suppress(BackendUnavailableError):  # who is away holds nothing
            await server.connection.unload_model(self.model, self.options.load_s)

    async def _close(self) -> None:
        await asyncio.gather(*(server.close() for server in self.servers))

    def _notes(self) -> Iterator[str]:
        for server in self.servers:
            if server.version:
                yield f"Triton {server.version} at {server.address.name}"
        for field in ("device", "row_limit"):
            if getattr(self._instance, field) not in ("auto", None):
                yield f"`{field}` is the server's affair and has no effect here"
