"""Log: what TensorRT says while it works. Its errors become part of ours; the rest is for `logging`."""

from __future__ import annotations

import logging

import tensorrt

_LOG = logging.getLogger("router.export")
_MAX_SAID = 300  # characters of TensorRT's own sentence


class Log(tensorrt.ILogger):  # type: ignore[misc]
    """Must outlive every object of TensorRT that it was given to."""

    def __init__(self) -> None:
        super().__init__()
        self._error = ""

    def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
        kinds = tensorrt.ILogger.Severity
        if severity in (kinds.INTERNAL_ERROR, kinds.ERROR):
            self._error = " ".join(msg.split())[:_MAX_SAID]
            _LOG.error("TensorRT: %s", msg)
        elif severity == kinds.WARNING:
            _LOG.warning("TensorRT: %s", msg)

    def last_error(self) -> str:
        return f"{self._error.rstrip('.')}." if self._error else "it does not say why."
