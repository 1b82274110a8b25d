"""The machine that a figure is from, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPU_INFORMATION = Path("/proc/cpuinfo")
BFLOAT16 = ("avx512_bf16", "amx_bf16")


def machine() -> str:
    """Processor, cores, and whether it multiplies bfloat16 by itself."""
    lines = CPU_INFORMATION.read_text().splitlines() if CPU_INFORMATION.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    bfloat16 = [flag for flag in BFLOAT16 if flag in flags]
    return f"{name}, {os.cpu_count()} cores, {' and '.join(bfloat16) or 'no bfloat16 instructions'}"
