"""TritonOptions, and what an instance's configuration means: which servers, and how they are connected to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr

from backends._triton_address import Address
from backends._triton_connection import Settings
from router.config import InstanceConfig
from router.errors import ConfigError

_Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_HEADER = re.compile(r"[a-z0-9_.-]+(?<!-bin)")
_TLS = ("root_certificates", "certificate_chain", "private_key")


class TritonOptions(BaseModel):
    """The settings of a Triton instance. `source` is its first server and the model's name there."""

    model_config = ConfigDict(extra="forbid")

    replicas: tuple[str, ...] = ()
    """Further servers of the same model, `grpc://HOST:PORT` each; the least loaded one is asked."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Sent with every call (gRPC metadata), a credential mostly; names in lower case."""
    root_certificates: Path | None = None
    """PEM file to check a `grpcs` server's certificate with; `None` is what gRPC trusts by itself."""
    certificate_chain: Path | None = None
    """PEM file of our own certificate, where the server wants one; with `private_key`."""
    private_key: Path | None = None
    max_message_bytes: Annotated[ByteSize, Field(ge=1 << 20, lt=1 << 31)] = ByteSize(1 << 26)
    """Of one message in either direction; a 4096x4096 picture is 48 MiB."""
    shared_memory: Literal["auto", "off"] = "auto"
    """`auto` hands pictures to and from a server on a loopback address without gRPC carrying them."""
    repository_control: bool = False
    """Load and unload the model on the servers, for all their clients. Else it must be loaded there."""
    connect_s: _Seconds = 5.0
    """For a connection, and for the answer to a simple question."""
    silence_s: _Seconds = 10.0
    """After so long without a response the server is asked whether it is still there."""
    answer_s: _Seconds = 300.0
    """Most seconds between two responses, even of a server that says it is well."""
    load_s: _Seconds = 300.0
    """For loading and unloading the model, with `repository_control`."""


def addresses(instance: InstanceConfig, options: TritonOptions) -> tuple[Address, ...]:
    """Those of `source` and `replicas`; the first has the model. Raises `ConfigError`."""
    if not instance.source:
        raise ConfigError(f"{instance.name}: `source` is missing; write grpc://HOST:8001/MODEL.")
    found = tuple(_addresses(instance, options))
    if not found[0].model:
        raise ConfigError(
            f"{instance.name}: `source` is {instance.source!r}, which names no model;"
            " write it behind the port, grpc://HOST:8001/MODEL."
        )
    names = [address.name for address in found]
    if len(set(names)) < len(names):
        raise ConfigError(f"{instance.name}: option `replicas` names a server twice; name each once.")
    return found


def settings(instance: InstanceConfig, options: TritonOptions, servers: tuple[Address, ...]) -> Settings:
    """How all of them are connected to. Raises `ConfigError` for what does not go together."""
    given = [option for option in _TLS if getattr(options, option) is not None]
    if given and not any(server.secure for server in servers):
        raise ConfigError(f"{instance.name}: option `{given[0]}` is for TLS; write grpcs:// in `source`.")
    if (options.certificate_chain is None) != (options.private_key is None):
        raise ConfigError(
            f"{instance.name}: options `certificate_chain` and `private_key` go together; give both."
        )
    return Settings(
        instance=instance.name,
        max_message_bytes=options.max_message_bytes,
        connect_s=options.connect_s,
        load_s=options.load_s if options.repository_control else None,
        share_memory=options.shared_memory == "auto",
        headers=_headers(instance, options),
        root_certificates=options.root_certificates,
        certificate_chain=options.certificate_chain,
        private_key=options.private_key,
    )


def _addresses(instance: InstanceConfig, options: TritonOptions) -> Iterator[Address]:
    first = Address.of(instance.source, f"{instance.name}: `source`")
    yield first
    for index, url in enumerate(options.replicas):
        where = f"{instance.name}: option `replicas.{index}`"
        replica = Address.of(url, where)
        if replica.model not in ("", first.model):
            raise ConfigError(f"{where} has model {replica.model!r}, `source` has {first.model!r}; drop it.")
        yield replica


def _headers(instance: InstanceConfig, options: TritonOptions) -> dict[str, str]:
    """Values are secrets and stand in no sentence."""
    found = {name: value.get_secret_value() for name, value in options.headers.items()}
    for name, value in found.items():
        if not _HEADER.fullmatch(name):
            raise ConfigError(
                f"{instance.name}: option `headers` has {name!r}; a name has lower-case letters, digits,"
                " `-`, `_` and `.` only, and does not end in `-bin`."
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(f"{instance.name}: option `headers.{name}` has characters beyond ASCII.")
    return found
