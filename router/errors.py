"""Every exception of the house. The message is one sentence that names the cure.

| class | HTTP status | code | exit code |
|---|---|---|---|
| RouterError | 500 | internal_error | 1 |
| ConfigError | 500 | config_error | 2 |
| InvalidRequestError | 400 | invalid_request_error | 3 |
| ModelNotFoundError | 404 | model_not_found | 3 |
| NoRouteError | 400 | no_route | 3 |
| OverloadedError | 503 | overloaded | 4 |
| QueueFullError | 429 | queue_full | 4 |
| MemoryBudgetError | 503 | memory_budget | 4 |
| DeadlineExceededError | 504 | deadline_exceeded | 4 |
| RequestCancelledError | 499 | cancelled | 130 |
| BackendError | 502 | backend_error | 1 |
| BackendUnavailableError | 503 | backend_unavailable | 1 |
| DeviceLostError | 503 | device_lost | 5 |
| LoadError | 502 | load_failed | 1 |
| GenerateError | 502 | generate_failed | 1 |
| EnhanceError | 502 | enhance_failed | 1 |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class RouterError(Exception):
    """Base of all: one `except RouterError` sees everything that this house raises."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1


class ConfigError(RouterError):
    """The configuration is wrong; the sentence names the file, the key, the value and the cure."""

    code = "config_error"
    exit_code = 2


class InvalidRequestError(RouterError):
    """The request can be served by nobody; `param` is the field to change."""

    status = 400
    code = "invalid_request_error"
    exit_code = 3

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(RouterError):
    """No model of that name is configured; `models` lists those that are."""

    status = 404
    code = "model_not_found"
    exit_code = 3

    def __init__(self, name: str, models: tuple[str, ...]) -> None:
        known = ", ".join(models) if models else "none"
        super().__init__(f"There is no model {name!r}; the configured models are: {known}.")
        self.param = "model"
        self.models = models


class NoRouteError(RouterError):
    """Every instance of the model refused; `rejections` holds one sentence for each."""

    status = 400
    code = "no_route"
    exit_code = 3

    def __init__(self, model: str, rejections: Mapping[str, str]) -> None:
        why = " ".join(f"{instance}: {sentence}" for instance, sentence in rejections.items())
        super().__init__(f"No instance of model {model!r} can serve this request. {why}".rstrip())
        self.model = model
        self.rejections = dict(rejections)


class OverloadedError(RouterError):
    """Nothing is wrong with the request, but it must come again after `retry_after_s` seconds."""

    status = 503
    code = "overloaded"
    exit_code = 4

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFullError(OverloadedError):
    """As many requests wait as may wait; the retry time comes from measured speed."""

    status = 429
    code = "queue_full"


class MemoryBudgetError(OverloadedError):
    """The device has not the bytes for this request now."""

    code = "memory_budget"


class DeadlineExceededError(RouterError):
    """The deadline passed before the picture was ready; the work on it has been stopped."""

    status = 504
    code = "deadline_exceeded"
    exit_code = 4


class RequestCancelledError(RouterError):
    """The caller gave up. Never logged as a failure, never counted by a breaker."""

    status = 499
    code = "cancelled"
    exit_code = 130


class BackendError(RouterError):
    """A backend failed; `instance` says which, `__cause__` is the library's own exception."""

    status = 502
    code = "backend_error"

    def __init__(self, message: str, *, instance: str = "") -> None:
        super().__init__(message)
        self.instance = instance


class BackendUnavailableError(BackendError):
    """The backend cannot be reached or used now: library missing, server down, breaker open."""

    status = 503
    code = "backend_unavailable"


class DeviceLostError(BackendUnavailableError):
    """The device failed in a way that only a new process mends (a poisoned CUDA context, say)."""

    code = "device_lost"
    exit_code = 5


class LoadError(BackendError):
    """The model's files could not be loaded."""

    code = "load_failed"


class GenerateError(BackendError):
    """The model was loaded, but this picture failed."""

    code = "generate_failed"


class EnhanceError(RouterError):
    """The prompt could not be enhanced, and the configuration says that this is an error."""

    status = 502
    code = "enhance_failed"
