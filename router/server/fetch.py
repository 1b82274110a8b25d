"""Fetcher: picture files from addresses that clients name, where the operator allows it and nowhere else."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urljoin

import httpcore2
from pydantic import AnyUrl, TypeAdapter, UrlConstraints, ValidationError

from router.errors import InvalidRequestError
from router.server.checked_network import CheckedNetwork, ForbiddenAddressError, Resolve, resolve

MAX_REDIRECTS = 3

_MOST_AT_ONCE = 8
_ADDRESSES = 3  # of a host, for which there is time if none answers
_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "Accept": "image/png, image/jpeg, image/webp",
    "Accept-Encoding": "identity",
    "User-Agent": "triptych",
}
_FAILURES = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)

# The URL standard's own reading: `0x7f.1` is 127.0.0.1 here, as it is where one connects.
_URL: TypeAdapter[AnyUrl] = TypeAdapter(
    Annotated[AnyUrl, UrlConstraints(max_length=4096, allowed_schemes=list(_PORTS), host_required=True)]
)


class _Refused(Exception):
    """Its message is the end of a sentence."""


class Fetcher:
    """Asks the `hosts` (`name` or `name:port`) alone, wherever they are; without them, what is public.

    Of public ones the ports 80 and 443. No proxy of the environment is used.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        most_bytes: int,
        limit_s: float,
        *,
        resolve: Resolve = resolve,
        network: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """What comes after the star is the system's own where left out."""
        self._hosts = frozenset(hosts)
        self._most_bytes = most_bytes
        self._limit_s = limit_s
        trusted = [host.rpartition(":")[0] if _has_port(host) else host for host in hosts]
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls or httpcore2.default_ssl_context(),
            max_connections=_MOST_AT_ONCE,
            max_keepalive_connections=0,
            network_backend=CheckedNetwork([name.strip("[]") for name in trusted], resolve, network),
        )

    async def fetch(self, url: str, param: str) -> bytes:
        """The file at an http or https address. Raises `InvalidRequestError` with `param`."""
        try:
            async with asyncio.timeout(self._limit_s):
                return await self._follow(url)
        except _Refused as exc:
            raise _unfetched(param, str(exc)) from exc
        except ForbiddenAddressError as exc:
            raise _unfetched(param, "its host has no address that may be asked from here") from exc
        except TimeoutError as exc:
            raise _unfetched(param, f"it did not come within {self._limit_s:g} s") from exc
        except _FAILURES as exc:
            raise _unfetched(param, "its server cannot be reached, or broke off") from exc

    async def _follow(self, text: str) -> bytes:
        """Every address on the way is checked like the first."""
        for _ in range(MAX_REDIRECTS + 1):
            url = self._checked(text)
            found = await self._get(url)
            if isinstance(found, bytes):
                return found
            text = urljoin(str(url), found)
        raise _Refused(f"it was redirected more than {MAX_REDIRECTS} times")

    def _checked(self, text: str) -> AnyUrl:
        try:
            url = _URL.validate_python(text)
        except ValidationError as exc:
            raise _Refused("it is no http or https address") from exc
        if url.username or url.password:
            raise _Refused("there is a user name or a password in it; leave them out")
        if self._hosts and not {_authority(url), f"{url.host}:{url.port}"} & self._hosts:
            raise _Refused("its host is none of those in `server.image_hosts`")
        if not self._hosts and not _is_usual(url):
            raise _Refused("its port is not the usual one; only `server.image_hosts` can allow others")
        return url

    async def _get(self, url: AnyUrl) -> bytes | str:
        """The file, or where it is instead."""
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = (url.host or "").strip("[]")
        asked = httpcore2.URL(scheme=url.scheme, host=host, port=url.port, target=target)
        headers = [("Host", _authority(url)), *_HEADERS.items()]
        limits = {"timeout": {"connect": self._limit_s / _ADDRESSES}}
        async with self._pool.stream("GET", asked, headers=headers, extensions=limits) as response:
            found = {name.lower(): value.decode("latin-1") for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in found:
                return found[b"location"]
            if response.status != 200:
                raise _Refused(f"its server answered with status {response.status}")
            if found.get(b"content-encoding", "identity") != "identity":
                raise _Refused("it comes compressed, which was not asked for")
            return await self._read(response, found.get(b"content-length", "0"))

    async def _read(self, response: httpcore2.Response, announced: str) -> bytes:
        """All of the body, but no byte beyond what is allowed."""
        if int(announced) > self._most_bytes:
            raise _Refused(f"it has more than {self._most_bytes:,} bytes")
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > self._most_bytes:
                raise _Refused(f"it has more than {self._most_bytes:,} bytes")
        return bytes(data)


def _authority(url: AnyUrl) -> str:
    """As the Host header has it: the port stands in it where it is not the usual one."""
    return f"{url.host}" if _is_usual(url) else f"{url.host}:{url.port}"


def _is_usual(url: AnyUrl) -> bool:
    return url.port == _PORTS[url.scheme]


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def _unfetched(param: str, why: str) -> InvalidRequestError:
    return InvalidRequestError(f"The picture at `{param}` cannot be fetched: {why}.", param=param)
