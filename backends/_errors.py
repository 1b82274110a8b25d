"""The one table from the libraries' exceptions to ours, for the backends' edge."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator

from backends import _shortage
from router.cause import log_cause
from router.errors import DeviceLostError, GenerateError, LoadError, MemoryBudgetError, RouterError
from router.request import GenerateRequest

_LOG = logging.getLogger("router.backends")

_LOST = (
    "illegal memory access",
    "misaligned address",
    "illegal instruction",
    "invalid program counter",
    "hardware stack error",
    "device-side assert",
    "unspecified launch failure",
    "the launch timed out",
    "ECC error",
    "NVLink error",
    "operation not supported on global/shared address space",
    "CUDA error: unknown error",
)
"""What CUDA says once its state in this process is beyond repair: CUDA Runtime API, error codes."""

_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Failed to allocate memory",  # ONNX Runtime
    "bad_alloc",
)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether a library says that the device had not the memory."""
    return isinstance(exc, MemoryError) or _says(exc, _MEMORY)


def is_device_lost(exc: BaseException) -> bool:
    """Whether no further call can succeed on the device in this process."""
    return isinstance(exc, DeviceLostError) or _says(exc, _LOST)


@contextlib.contextmanager
def losses_heard(instance: str) -> Iterator[None]:
    """Around device work that is no model call: the lane hears of a lost device by `DeviceLostError`."""
    try:
        yield
    except RuntimeError as exc:
        if not is_device_lost(exc):
            raise
        raise DeviceLostError(_lost_sentence(instance)) from exc


def as_router_error(exc: Exception, instance: str, request: GenerateRequest) -> RouterError:
    """Ours as it is; a library's as the class that says what can be done about it.

    Raises `DeviceLostError` instead of returning it, so that the lane hears of it.
    """
    if isinstance(exc, RouterError):
        forget_frames(exc)
        return exc
    log_cause(_LOG, "a picture failed", exc, instance, (request.prompt, request.negative_prompt))
    forget_frames(exc)
    if is_device_lost(exc):
        raise DeviceLostError(_lost_sentence(instance)) from exc
    error: RouterError
    if is_out_of_memory(exc):
        error = MemoryBudgetError(_shortage_sentence(exc, instance, request))
    else:
        error = GenerateError(f"{instance} failed with {type(exc).__name__}; see its log.")
        error.instance = instance
    error.__cause__ = exc
    return error


def as_load_error(exc: Exception, instance: str) -> LoadError:
    """What a library raised while a model was loaded, in one sentence; its own words are in the log."""
    log_cause(_LOG, "a model could not be loaded", exc, instance)
    forget_frames(exc)
    said = f"{instance} could not load its model ({type(exc).__name__}); see its log."
    if is_out_of_memory(exc):
        said = f"{instance} found too little memory to load its model; choose a smaller `dtype`."
    return LoadError(said, instance=instance)


def forget_frames(exc: BaseException | None) -> None:
    """Let go of what the frames of an exception and its causes hold, tensors mostly; their lines stay."""
    seen = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        traceback.clear_frames(exc.__traceback__)
        exc = exc.__cause__ or exc.__context__


def _shortage_sentence(exc: Exception, instance: str, request: GenerateRequest) -> str:
    size, numbers = f"{request.width}x{request.height}", _shortage.told(exc)
    return (
        f"{instance} ran out of device memory with a picture of {size}, run by itself and in halves too"
        f"{numbers and f' ({numbers})'}; ask for a smaller picture."
    )


def _lost_sentence(instance: str) -> str:
    return f"The device of {instance} failed; restart the process."


def _says(exc: BaseException, phrases: tuple[str, ...]) -> bool:
    return isinstance(exc, RuntimeError) and any(phrase in str(exc) for phrase in phrases)
