"""The tables from what gRPC, Triton and the server's model say to our errors, one sentence each."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import grpc
from tritonclient.utils import InferenceServerException

from router.errors import (
    BackendError,
    BackendUnavailableError,
    DeadlineExceededError,
    DeviceLostError,
    GenerateError,
    InvalidRequestError,
    LoadError,
    MemoryBudgetError,
    OverloadedError,
    QueueFullError,
    RequestCancelledError,
    RouterError,
)
from router.request import GenerateRequest

_LOG = logging.getLogger("router.backends")

_MOST_CHARACTERS = 500  # of a sentence that a server wrote

_HOUSE: dict[str, type[RouterError]] = {
    error.code: error
    for error in (
        BackendUnavailableError,
        DeadlineExceededError,
        DeviceLostError,
        GenerateError,
        InvalidRequestError,
        LoadError,
        MemoryBudgetError,
        OverloadedError,
        QueueFullError,
    )
}
"""Codes that the server's model writes before its sentence."""
_HOUSE |= {"no_route": GenerateError}  # refused by the server alone: another instance may do it

_SAID = re.compile(rf"(?:^|message: |\s)({'|'.join([*_HOUSE, RequestCancelledError.code])}): (.+)", re.DOTALL)

_GRPC: Mapping[str, str] = {
    "UNAVAILABLE": "cannot be reached; start it, or correct `source`",
    "DEADLINE_EXCEEDED": "accepts calls and does not answer; restart it",
    "CANCELLED": "stopped the request by itself; it may be shutting down",
    "UNAUTHENTICATED": "wants other credentials; correct `headers`",
    "PERMISSION_DENIED": "wants other credentials; correct `headers`",
    "UNIMPLEMENTED": "speaks gRPC, but is no Triton server; correct `source`",
}
_BROKEN = ("INTERNAL", "UNKNOWN", "ABORTED", "DATA_LOSS")
"""How a stream of responses ends that was cut; what goes wrong with a request comes as a response."""
"""Status of a call -> what is wrong with the server."""


def server_error(exc: Exception, instance: str, server: str) -> RouterError:
    """What a failed call says of server or request; its own words are in the log."""
    code, words = status_of(exc)
    _LOG.info("%s: the Triton server %s answered %s: %s", instance, server, code, words)
    if code in _GRPC:
        return BackendUnavailableError(f"The Triton server {server} {_GRPC[code]}.", instance=instance)
    if code in _BROKEN and isinstance(exc, grpc.RpcError):
        return BackendUnavailableError(
            f"The Triton server {server} broke off the request.", instance=instance
        )
    if code == "RESOURCE_EXHAUSTED":
        return GenerateError(
            f"A message of the Triton server {server} passes a size limit; raise `max_message_bytes`,"
            " or ask for fewer or smaller pictures.",
            instance=instance,
        )
    return answered_error(words, instance, server)


class RegionsLostError(GenerateError):
    """The server does not know the shared memory that it was shown: it was started again since."""


_ANSWERS: Mapping[str, tuple[type[RouterError], str]] = {
    "shared memory": (RegionsLostError, "cannot use our shared memory; set option `shared_memory` to `off`"),
    "unknown model": (BackendUnavailableError, "no longer has the model loaded; load it there"),
    "no available versions": (BackendUnavailableError, "no longer has the model loaded; load it there"),
    "stub process": (BackendUnavailableError, "lost the model's process; see its log"),
    "unexpected shape": (GenerateError, "takes inputs of other shapes; write the model again"),
    "unexpected datatype": (GenerateError, "takes inputs of other dtypes; write the model again"),
    "unexpected inference input": (GenerateError, "takes other inputs; write the model again"),
    "unexpected inference output": (GenerateError, "has other outputs; write the model again"),
    "exceeds maximum": (GenerateError, "allows smaller requests only; raise its limit"),
}
"""What Triton itself says within its answers -> what is wrong."""


def answered_error(words: str, instance: str, server: str) -> RouterError:
    """An error that came as an answer: the model's own sentence, or Triton's, which stays in the log."""
    said = _SAID.search(words)
    if said is None:
        _LOG.warning("%s: the Triton server %s answered: %s", instance, server, words)
        return _triton_error(words.lower(), instance, server)
    code, sentence = said[1], said[2].strip()
    if code == RequestCancelledError.code:
        return BackendUnavailableError(f"The Triton server {server} {_GRPC['CANCELLED']}.", instance=instance)
    return house_error(code, sentence, instance)


def house_error(code: str, sentence: str, instance: str) -> RouterError:
    """The error of this code, as the server's model raised it."""
    kind, sentence = _HOUSE.get(code, GenerateError), sentence[:_MOST_CHARACTERS]
    if kind is InvalidRequestError:
        return InvalidRequestError(sentence, param=_field_in(sentence))
    return _with_instance(kind(sentence), instance)


def _triton_error(words: str, instance: str, server: str) -> RouterError:
    found = [answer for phrase, answer in _ANSWERS.items() if phrase in words]
    kind, sentence = found[0] if found else (GenerateError, "failed on this request; see its log")
    return _with_instance(kind(f"The Triton server {server} {sentence}."), instance)


def _with_instance(error: RouterError, instance: str) -> RouterError:
    if isinstance(error, BackendError):
        error.instance = instance
    return error


def status_of(exc: Exception) -> tuple[str, str]:
    """The gRPC status without its class's name, and the words that came with it."""
    if isinstance(exc, grpc.RpcError):
        return exc.code().name, exc.details() or ""
    assert isinstance(exc, InferenceServerException)
    return str(exc.status()).rpartition(".")[2], exc.message() or ""


def _field_in(sentence: str) -> str | None:
    """The field that our own sentences name first, in backticks."""
    named = re.search(r"`(\w+)`", sentence)
    return named[1] if named and named[1] in GenerateRequest.model_fields else None
