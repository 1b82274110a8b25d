"""Connection: one gRPC channel to one Triton server, and what is asked of the server besides pictures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from backends._triton_address import Address
from backends._triton_errors import server_error, status_of
from backends._triton_model import ServedModel
from router.errors import BackendUnavailableError, ConfigError, GenerateError, LoadError

_FIRST_RETRY_MS, _LAST_RETRY_MS = 100, 2_000
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Settings:
    """How servers are connected to."""

    instance: str
    max_message_bytes: int
    connect_s: float
    """For a connection, and for the answer to a simple question."""
    load_s: float | None
    """For loading the model, where that is ours to do."""
    share_memory: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    root_certificates: Path | None = None
    certificate_chain: Path | None = None
    private_key: Path | None = None


class NotLoadedError(BackendUnavailableError):
    """The server has the model in its repository, but not in use."""


class Connection:
    """Entered on the event loop it is used on; every failure is one of ours."""

    def __init__(self, address: Address, settings: Settings) -> None:
        self.address = address
        self._settings = settings
        self._client: InferenceServerClient | None = None

    async def __aenter__(self) -> Connection:
        credentials = await asyncio.to_thread(_credentials, self._settings) if self.address.secure else None
        self._client = InferenceServerClient(
            f"dns:///{self.address.name}", creds=credentials, channel_args=self._channel_arguments()
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.close()

    @property
    def headers(self) -> dict[str, str]:
        return dict(self._settings.headers)

    @property
    def client(self) -> InferenceServerClient:
        assert self._client is not None, "it was never entered"
        return self._client

    async def version(self) -> str:
        """The server's own, such as `2.51.0`."""
        metadata = await self._ask(self.client.get_server_metadata)
        return str(metadata.version)[:20]

    async def describe(self, model: str) -> ServedModel:
        """Raises `LoadError` for a model not there or none of ours, `NotLoadedError` for one at rest."""
        try:
            response = await self._call(self.client.get_model_config, model)
        except InferenceServerException as exc:
            if "unknown model" in status_of(exc)[1].lower():
                raise await self._not_served(model) from exc
            raise self._error(exc) from exc
        return ServedModel.of(response.config, self._settings.instance)

    async def check_ready(self, model: str) -> None:
        """Raises `BackendUnavailableError` where the server or its model is not ready."""
        if not await self._ask(self.client.is_model_ready, model):
            raise NotLoadedError(
                f"The Triton server {self.address.name} has its model {model!r} not ready;"
                " load it there, or set `repository_control`.",
                instance=self._settings.instance,
            )

    async def load_model(self, model: str, limit_s: float) -> None:
        try:
            await self._ask(self.client.load_model, model, limit_s=limit_s)
        except GenerateError as exc:
            raise LoadError(
                f"The Triton server {self.address.name} could not load model {model!r}; see its log.",
                instance=self._settings.instance,
            ) from exc

    async def unload_model(self, model: str, limit_s: float) -> None:
        """Returns when the server has let go of it."""
        await self._ask(self.client.unload_model, model)
        async with asyncio.timeout(limit_s):
            while (await self._models()).get(model) in ("READY", "UNLOADING", "LOADING"):  # noqa: ASYNC110
                await asyncio.sleep(_POLL_S)

    async def register(self, name: str, size: int) -> None:
        """Show the server a shared memory region. Raises the client's own exception where it cannot."""
        await self._call(self.client.register_system_shared_memory, name, f"/{name}", size)

    async def unregister(self, name: str) -> None:
        await self._call(self.client.unregister_system_shared_memory, name)

    async def regions(self) -> list[str]:
        """Names of the shared memory regions that the server knows."""
        status = await self._call(self.client.get_system_shared_memory_status)
        return list(status.regions)

    async def _not_served(self, model: str) -> BackendUnavailableError | LoadError:
        """Why the server knows no configuration of the model."""
        models, server, instance = await self._models(), self.address.name, self._settings.instance
        if model in models:
            return NotLoadedError(
                f"The Triton server {server} has model {model!r} at rest; load it there,"
                " or set `repository_control`.",
                instance=instance,
            )
        known = ", ".join(sorted(models)) or "none"
        return LoadError(
            f"The Triton server {server} has no model {model!r}; it has: {known}.", instance=instance
        )

    async def _models(self) -> dict[str, str]:
        """Model -> state, of everything in the server's repository."""
        index = await self._ask(self.client.get_model_repository_index)
        return {each.name: each.state for each in index.models}

    async def _ask(self, method: Callable[..., Any], *arguments: Any, limit_s: float | None = None) -> Any:
        try:
            return await self._call(method, *arguments, limit_s=limit_s)
        except (InferenceServerException, grpc.RpcError) as exc:
            raise self._error(exc) from exc

    async def _call(self, method: Callable[..., Any], *arguments: Any, limit_s: float | None = None) -> Any:
        limit_s = self._settings.connect_s if limit_s is None else limit_s
        return await method(*arguments, headers=self.headers, client_timeout=limit_s)

    def _error(self, exc: Exception) -> Any:
        return server_error(exc, self._settings.instance, self.address.name)

    def _channel_arguments(self) -> list[tuple[str, int]]:
        most = self._settings.max_message_bytes
        return [
            ("grpc.max_send_message_length", most),
            ("grpc.max_receive_message_length", most),
            ("grpc.use_local_subchannel_pool", 1),  # else a new channel waits out an old one's back-off
            ("grpc.initial_reconnect_backoff_ms", _FIRST_RETRY_MS),
            ("grpc.max_reconnect_backoff_ms", _LAST_RETRY_MS),
            ("grpc.min_reconnect_backoff_ms", int(self._settings.connect_s * 1000)),  # limit of one attempt
            ("grpc.enable_http_proxy", int(not self.address.is_local)),
        ]


def _credentials(settings: Settings) -> grpc.ChannelCredentials:
    """Blocking: reads files."""
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings, "root_certificates"),
        private_key=_read(settings, "private_key"),
        certificate_chain=_read(settings, "certificate_chain"),
    )


def _read(settings: Settings, option: str) -> bytes | None:
    file: Path | None = getattr(settings, option)
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as exc:
        raise ConfigError(
            f"{settings.instance}: option `{option}` is {file.name!r}, which cannot be read; correct it."
        ) from exc
