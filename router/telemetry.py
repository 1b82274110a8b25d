"""Telemetry of the libraries beneath us, switched off: nothing that runs here calls anybody by itself.

ONNX Runtime's wheels and OpenVINO's both send usage events to their makers from the moment they are
imported, and Diffusers imports ONNX Runtime where it finds it. An application that has set the variable,
or imported the library, has decided for itself, and is left alone.
"""

from __future__ import annotations

import os
import sys
from typing import cast


def switch_off() -> None:
    """Before the first import of the libraries. For the whole process."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    # `None` makes its import fail; OpenVINO then takes its own empty stub.
    cast("dict[str, object]", sys.modules).setdefault("openvino_telemetry", None)
