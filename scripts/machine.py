"""The machine that a figure is from, in one line; and its cores kept from falling asleep."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
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


@contextlib.contextmanager
def cores_awake() -> Iterator[None]:
    """A process of the idle class on each core: it takes what nobody wants, and so no core sleeps.

    A sleeping core of a virtual machine answers tens of microseconds late. Linux alone.
    """
    spin = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()
