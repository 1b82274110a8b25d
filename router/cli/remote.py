"""Remote: a running service, asked over HTTP. It follows no redirect, which could lead the key away."""

from __future__ import annotations

import http.client
import ssl
from email.message import Message
from typing import IO, TypeVar
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from router.cli.failures import UsageError
from router.errors import RouterError

_ANSWER_S = 5.0
_MOST_BYTES = 16 * 1024**2

Form = TypeVar("Form", bound=BaseModel)


class RemoteError(RouterError):
    """The service did not answer as one of this version does."""

    code = "unreachable"


class Remote:
    """Blocking, one question at a time; each opens a connection of its own."""

    def __init__(self, url: str, key: str = "") -> None:
        """Raises `UsageError` for what is no address of a service."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"`--url` is {url[:80]!r}; write it as http://localhost:8000.")
        if not (key.isascii() and key.isprintable()):
            raise UsageError("`--key` has characters that no key has; copy it again.")
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opener = request.build_opener(_Stay)

    def get(self, path: str, form: type[Form]) -> Form:
        """What is at this path, in its form. Raises `RemoteError` with one sentence."""
        asked = request.Request(self.url + path, headers=self._headers)
        try:
            with self._opener.open(asked, timeout=_ANSWER_S) as answer:
                return form.model_validate_json(answer.read(_MOST_BYTES))
        except HTTPError as exc:
            exc.close()
            raise RemoteError(self._refused(exc.code, path)) from exc
        except (URLError, OSError, http.client.HTTPException) as exc:
            raise RemoteError(self._unreachable(exc)) from exc
        except ValidationError:
            raise RemoteError(self._other(path)) from None

    def _refused(self, status: int, path: str) -> str:
        if status == 401:
            return f"The service at {self.url} knows no such API key; give one of its keys with `--key`."
        if status == 403:
            return f"The service at {self.url} is not called by that host name; `server.hosts` lists others."
        if status == 404:
            return f"What answers at {self.url} has no {path}: an older service, or another program."
        return f"The service at {self.url} answered {status}; its log says why."

    def _unreachable(self, exc: Exception) -> str:
        reason = exc.reason if isinstance(exc, URLError) else exc
        if isinstance(reason, TimeoutError):
            return f"The service at {self.url} did not answer within {_ANSWER_S:.0f} s; look at its log."
        if isinstance(reason, ssl.SSLError):
            return f"There is no trusted TLS at {self.url} ({reason.reason}); correct `--url` or certificate."
        said = getattr(reason, "strerror", None) or type(reason).__name__
        return (
            f"No service answers at {self.url} ({said}); start it with `triptych serve`, or give its `--url`."
        )

    def _other(self, path: str) -> str:
        return f"What answers at {self.url}{path} is no Triptych service, or one of another version."


class _Stay(request.HTTPRedirectHandler):
    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> request.Request | None:
        return None
