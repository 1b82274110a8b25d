"""What can go wrong in an export. The message is one sentence that names the cure."""

from __future__ import annotations

from collections.abc import Sequence

from router.errors import RouterError


class ExportError(RouterError):
    """The export was begun and could not be finished; nothing stands under its name."""

    code = "export_failed"


class UnsupportedExportError(ExportError):
    """What was asked for cannot be exported: family, profile, dtype, opset, output. Nothing was begun."""

    code = "unsupported_export"
    exit_code = 2


class GateError(ExportError):
    """The export is not as its source, or cannot run where it must; `findings` is all that is wrong."""

    code = "gate_failed"

    def __init__(self, message: str, findings: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


def refuse(findings: Sequence[str]) -> None:
    """Raise `GateError` if there are any: the first as its sentence, all of them beside it."""
    if findings:
        more = f" ({len(findings) - 1} more findings.)" if len(findings) > 1 else ""
        raise GateError(findings[0] + more, findings)
