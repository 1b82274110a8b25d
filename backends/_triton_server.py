"""Server: one Triton server of an instance. What it serves, whether it is well, what it has in hand."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence

from backends._triton_address import Address
from backends._triton_connection import Connection, NotLoadedError, Settings
from backends._triton_model import ServedModel
from backends._triton_regions import Regions
from router.errors import BackendError, BackendUnavailableError, LoadError

_LOG = logging.getLogger("router.backends")

_REST_S = 5.0
"""A server that failed is not asked for its health again before."""


class Server:
    """Between `open` and `close` it has a connection, which comes back by itself when the server does."""

    def __init__(self, address: Address, model: str, settings: Settings) -> None:
        self.address = address
        self.version = ""
        self.served: ServedModel | None = None
        """`None` until it was asked."""
        self.is_suspect = False
        """Whether it failed last time; then it is asked for its health before it gets work."""
        self.in_hand = 0
        """Pictures that it was asked for and has not given."""
        self.last_used = 0.0
        self.connection = Connection(address, settings)
        self.regions = Regions(settings.instance)
        self._model = model
        self._settings = settings
        self._failed_at = 0.0
        self._checking: asyncio.Task[None] | None = None

    async def probe(self) -> None:
        """Ask what it serves over a connection of its own, which waits out no other's back-off."""
        async with Connection(self.address, self._settings) as connection:
            version = await connection.version()
            self.served = await self._described(connection)
            self.version = version

    async def open(self) -> None:
        self.connection = await Connection(self.address, self._settings).__aenter__()

    async def greet(self, expected: ServedModel | None) -> None:
        """Make sure that it is there, ready, and serves what the others do. Raises `BackendError`."""
        served = await self._described(self.connection, load=True)
        if expected is not None and not served.is_like(expected):
            raise self.another_model()
        await self.connection.check_ready(self._model)
        if self._settings.share_memory and self.address.is_local:
            await self.regions.begin(self.connection)
        self.served = served
        self.is_suspect = False

    def another_model(self) -> LoadError:
        return LoadError(
            f"The Triton server {self.address.name} serves another model {self._model!r} than the"
            " instance's first server; write it there again from the same export.",
            instance=self._settings.instance,
        )

    async def close(self) -> None:
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.wait([self._checking])
        await self.regions.close()
        await self.connection.__aexit__(None, None, None)

    @contextlib.contextmanager
    def busy(self, pictures: int) -> Iterator[None]:
        """While it works on so many pictures. Where it fails as a server it becomes a suspect."""
        self.in_hand += pictures
        self.last_used = time.monotonic()
        try:
            yield
        except BackendUnavailableError as exc:
            self.suspect(exc)
            raise
        finally:
            self.in_hand -= pictures

    def suspect(self, error: BackendError) -> None:
        """It failed as a server, and is asked for its health before it gets work again."""
        if not self.is_suspect:
            _LOG.warning("%s: %s", self._settings.instance, error)
        self.is_suspect = True
        self._failed_at = time.monotonic()

    def check_again(self, expected: ServedModel | None) -> None:
        """Ask a suspect for its health, meanwhile; nobody waits for it."""
        rested = time.monotonic() - self._failed_at >= _REST_S
        if self.is_suspect and rested and (self._checking is None or self._checking.done()):
            self._checking = asyncio.create_task(self._check(expected))

    async def _check(self, expected: ServedModel | None) -> None:
        try:
            await self.greet(expected)
        except BackendError as exc:
            self.suspect(exc)

    async def _described(self, connection: Connection, *, load: bool = False) -> ServedModel:
        """What it serves. A model at rest is loaded if that is ours to do, and for `load` or yet unknown."""
        try:
            return await connection.describe(self._model)
        except NotLoadedError:
            if self._settings.load_s is None:
                raise
            if self.served is not None and not load:
                return self.served
        await connection.load_model(self._model, self._settings.load_s)
        return await connection.describe(self._model)

    def __repr__(self) -> str:
        state = "suspect" if self.is_suspect else "well"
        return f"<Server {self.address.name} {state}, {self.in_hand} pictures in hand>"


def least_loaded(servers: Sequence[Server]) -> Server:
    """A suspect only where there is no other; of equals the one that has rested longest."""
    return min(servers, key=lambda server: (server.is_suspect, server.in_hand, server.last_used))
