"""A double of Triton's own module for Python models, which its stub alone has."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

FINAL = 1


class Error(Exception):
    UNKNOWN, INTERNAL, INVALID_ARG, UNAVAILABLE, CANCELLED = range(5)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code


class Tensor:
    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self._array


@dataclass
class Response:
    output_tensors: list[Tensor] = field(default_factory=list)
    error: Error | None = None


TRITON = SimpleNamespace(
    Tensor=Tensor, InferenceResponse=Response, TritonError=Error, TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL
)


class Sender:
    """Keeps what is sent; `cancelled` is the client's doing."""

    def __init__(self) -> None:
        self.responses: list[Response] = []
        self.ended = threading.Event()
        self.cancelled = False

    def send(self, response: Response | None = None, flags: int = 0) -> None:
        assert not self.ended.is_set(), "sent after the end"
        if response is not None:
            self.responses.append(response)
        if flags == FINAL:
            self.ended.set()

    def is_cancelled(self) -> bool:
        return self.cancelled

    def names(self) -> list[list[str]]:
        return [[tensor.name() for tensor in response.output_tensors] for response in self.responses]

    @property
    def error(self) -> str:
        """What it ended with, once it has."""
        assert self.ended.wait(10)
        return str(self.responses[-1].error or "")


class Request:
    def __init__(self, *, timeout: int = 0, **fields: Any) -> None:
        self.sender = Sender()
        self._timeout = timeout
        self._tensors = [Tensor(name, _array(value)) for name, value in fields.items()]

    def inputs(self) -> list[Tensor]:
        return self._tensors

    def get_response_sender(self) -> Sender:
        return self.sender

    def timeout(self) -> int:
        return self._timeout


def _array(value: Any) -> np.ndarray[Any, Any]:
    if isinstance(value, np.ndarray):
        return value
    return np.array([value.encode() if isinstance(value, str) else value])


def arguments(folder: str, **parameters: str) -> dict[str, str]:
    """What Triton gives to `initialize`."""
    config = {
        "name": "model",
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    return {"model_config": json.dumps(config), "model_repository": folder, "model_version": "1"}
