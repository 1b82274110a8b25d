"""No library beneath us calls its maker: ONNX Runtime's and OpenVINO's telemetry is off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MODULES = ("backends._ort_session", "backends._openvino_session", "export.sessions", "backends.diffusers")


def run(home: Path, code: str, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "CI"))}
    kept.pop("ORT_DISABLE_TELEMETRY", None)
    environment = kept | {"HOME": str(home), "HF_HUB_OFFLINE": "1"} | variables
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout


def test_importing_what_we_run_leaves_no_trace_of_telemetry(tmp_path: Path) -> None:
    run(tmp_path, f"import {', '.join(MODULES)}")
    found = [file for file in tmp_path.rglob("*") if "onnxruntime" in file.name or "openvino" in file.name]
    assert found == []


def test_an_application_that_has_decided_is_left_alone(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        "import backends, os; print(os.environ['ORT_DISABLE_TELEMETRY'])",
        ORT_DISABLE_TELEMETRY="0",
    )
    assert said.strip() == "0"
