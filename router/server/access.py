"""Access: who may ask for what. Keys, and where a request comes from.

| path | without a key | how a browser proves it |
|---|---|---|
| `/`, `/page/*`, `/health`, `/healthz`, `/readyz`, `/openapi.json` | yes | |
| `/outputs/*`, a job's `events`, `images`, `latents` | no | a signed link, from the reply that named it |
| everything else, `/metrics` too | no | the header, set by a page's own script |
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from router.server.errors import ForbiddenError, UnauthorizedError
from router.server.settings import ServerSettings

ANONYMOUS = "anonymous"
LINK = "link"
"""Who came by a signed link, which is good for that one path."""

_OPEN = frozenset({"/", "/health", "/healthz", "/readyz", "/openapi.json"})
_OPEN_FOLDERS = ("/page/",)
_SIGNED = re.compile(r"/outputs/.+|/v1/jobs/[^/]+/(events|(images|latents)/[0-9]+)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?")
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Access:
    """Checks every request before its body is read. Pure: no clock, no file, no network."""

    def __init__(self, settings: ServerSettings) -> None:
        digests = [_digest(key.get_secret_value()) for key in settings.keys]
        self._keys = {digest: f"key-{digest.hex()[:8]}" for digest in digests}
        public = urlsplit(settings.public_url)
        self._hosts = {name.lower() for name in (*settings.hosts, settings.host, "localhost")}
        self._hosts |= {public.hostname} if public.hostname else set()
        self._origins = frozenset(settings.origins)
        self._checks_host = not settings.keys or bool(settings.hosts)

    @property
    def has_keys(self) -> bool:
        return bool(self._keys)

    def check_source(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise `ForbiddenError` for a host name that is not ours, or another site's page.

        An IP address as host name cannot be rebound, so it passes. A page's requests carry its
        origin, form posts among them; a program's carry none.
        """
        host = headers.get("host", "")
        if self._checks_host and not self._knows_host(host):
            raise ForbiddenError("This service is not called by that host name; `server.hosts` lists more.")
        origin = headers.get("origin")
        if origin is not None:
            if origin not in self._origins and urlsplit(origin).netloc != host:
                raise ForbiddenError("Pages of that origin may not call; `server.origins` lists who may.")
        elif method in _CHANGES and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ForbiddenError("Pages of another site may not call; `server.origins` lists who may.")

    def identify(self, path: str, headers: Mapping[str, str]) -> str:
        """The name of the key that came along. Raises `UnauthorizedError` where one is wanted."""
        if not self._keys:
            return ANONYMOUS
        name = self._named(headers)
        if name is None and not is_open(path):
            raise UnauthorizedError(
                "This address wants an API key, and none that is known came along; send the header"
                " `Authorization: Bearer <key>` or `X-API-Key: <key>`."
            )
        return name or ANONYMOUS

    def _named(self, headers: Mapping[str, str]) -> str | None:
        """Compared in constant time, with every key."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        digest, found = _digest(given), None
        for known, name in self._keys.items():
            if hmac.compare_digest(known, digest):
                found = name
        return found

    def _knows_host(self, host: str) -> bool:
        matched = _HOST.fullmatch(host)
        if matched is None:
            return False
        name = matched[1].strip("[]").lower()
        return name in self._hosts or _is_address(name)


def is_open(path: str) -> bool:
    """Whether everybody may read it."""
    return path in _OPEN or path.startswith(_OPEN_FOLDERS)


def takes_links(path: str) -> bool:
    """Whether a signed link may take the place of the key."""
    return _SIGNED.fullmatch(path) is not None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
