"""Freed memory stays with the process between ticks, and goes back to the system after a model."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import torch
from backends._allocator import give_back_freed_memory, keep_freed_memory

def faults(count=8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(6 * 2**20)  # 24 MiB
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // count

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

keep_freed_memory()
faults()
print(faults())
held = resident()
give_back_freed_memory()
print(held - resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the rules are glibc's")
def test_freed_memory_is_used_again_without_faults_and_given_back_when_told() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    faults, given_back = map(int, ran.stdout.split())
    assert faults < 100  # 6144 pages, each of them touched
    assert given_back > 20 * 2**20
