"""Address: where a Triton server is and which of its models is meant, read from a URL."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from router.errors import ConfigError

_SHOWN = 200  # characters of a wrong URL in a sentence


@dataclass(frozen=True, slots=True)
class Address:
    """One server's gRPC port. `model` is empty where the URL names none."""

    host: str
    port: int
    secure: bool
    model: str = ""

    @classmethod
    def of(cls, url: str, where: str) -> Address:
        """Read `grpc://HOST:PORT/MODEL`, `grpcs` for TLS. Raises `ConfigError` that begins with `where`."""
        where = f"{where} is {_without_password(url)!r}"
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as exc:
            raise ConfigError(f"{where}, whose host or port cannot be read; write grpc://HOST:8001.") from exc
        _check(parts, where)
        if port is None or not port:
            raise ConfigError(f"{where}, which has no port; add it, Triton's for gRPC is `:8001`.")
        return cls(parts.hostname or "", port, parts.scheme == "grpcs", parts.path.strip("/"))

    @property
    def name(self) -> str:
        """For sentences and logs: `host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether it is this machine by its very name, so that memory might be shared."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _check(parts: SplitResult, where: str) -> None:
    if parts.scheme in ("http", "https"):
        raise ConfigError(f"{where}, Triton's HTTP port; give its gRPC port as grpc://HOST:8001.")
    if parts.scheme not in ("grpc", "grpcs"):
        raise ConfigError(f"{where}, which lacks its scheme; write grpc://HOST:PORT, or grpcs:// for TLS.")
    if not parts.hostname:
        raise ConfigError(f"{where}, which names no host; write {parts.scheme}://HOST:8001.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"{where}; a URL has host, port and model only, secrets belong in `headers`.")
    if "/" in parts.path.strip("/"):
        raise ConfigError(
            f"{where}, whose path names more than one model; write {parts.scheme}://HOST:PORT/MODEL."
        )


def _without_password(url: str) -> str:
    """What comes before an `@` may be a secret."""
    head, at, tail = url[:_SHOWN].rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else tail
