"""CheckedNetwork: connections to addresses that were looked up here, checked, and are then the ones used."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import httpcore2

from router.server.public_addresses import is_public

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port -> the IP addresses of that name. Raises `OSError` where there are none."""


class ForbiddenAddressError(Exception):
    """The host has no address, or one that is not to be reached from here."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """As the system does it: its resolver, its hosts file."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Looks a name up once and connects to what it has checked, so that no second answer is believed.

    Host header and the name in the certificate stay those of the host. The `trusted` hosts may be
    anywhere.
    """

    def __init__(
        self,
        trusted: Iterable[str] = (),
        resolve: Resolve = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._trusted = frozenset(trusted)
        self._resolve = resolve
        self._network = network or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore2's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Raises `ForbiddenAddressError`, and what httpcore2 raises."""
        refused: Exception = ForbiddenAddressError()
        for address in await self._addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                refused = exc
        raise refused

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        """All of them, or none: a name with one foot inside is not trusted with the other."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as exc:
            raise ForbiddenAddressError from exc
        if host not in self._trusted and not all(map(is_public, addresses)):
            raise ForbiddenAddressError
        return addresses
