"""Side by side in one run: each way to make pictures is a process of its own, and they take turns.

Own processes, because the ways need different library versions, and because two thread pools in one
process slow each other down. Whoever's turn it is not waits in a read, and takes no CPU. Standard
library only: contestants of several environments import it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("red", "blue", "green", "yellow", "purple", "orange")
SHAPES = ("circle", "square", "star", "heart", "ring")

Run = Callable[[str], Any]
"""`run("one")` or `run("mixed")` makes the pictures of that workload, as [count, height, width, 3] uint8."""


def one_stream(side: int) -> list[dict[str, Any]]:
    """One picture of 8 steps with guidance: two rows of the denoiser at each."""
    return [_request("a red circle on a white background", side, steps=8, guidance=5.0, seed=7)]


def mixed(side: int, count: int = 8) -> list[dict[str, Any]]:
    """Requests of which no two need be alike: 4 to 12 steps, guidance 1 to 7.5."""
    draw = random.Random(0)
    return [
        _request(
            f"a {draw.choice(COLOURS)} {draw.choice(SHAPES)} on a white background",
            side,
            steps=draw.randint(4, 12),
            guidance=draw.choice((1.0, 2.0, 3.5, 5.0, 7.5)),
            seed=seed,
        )
        for seed in range(count)
    ]


def _request(prompt: str, side: int, *, steps: int, guidance: float, seed: int) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "height": side,
        "width": side,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "seed": seed,
    }


def compete(make: Callable[[], Run]) -> None:
    """The contestant's side: load, say so, then make pictures whenever a line names a workload."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    run = make()
    answers.write(json.dumps({"memory_bytes": memory_bytes()}) + "\n")
    for line in sys.stdin:
        workload, file = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        pictures = run(workload)
        cost = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        pictures.tofile(file)
        answers.write(json.dumps(cost | {"memory_bytes": memory_bytes()}) + "\n")


def memory_bytes() -> int:
    """Proportional set size of this process, in bytes."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class Contestant:
    """The benchmark's side of one process."""

    def __init__(self, name: str, command: Sequence[str | Path], pictures: Path) -> None:
        self.name = name
        self._pictures = pictures / name.replace(" ", "-")
        self._log = self._pictures.with_suffix(".log").open("w")
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.loaded = self._answer()

    def run(self, workload: str) -> dict[str, float]:
        """Let it make the pictures of this workload; its seconds of wall and CPU time, and its bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([workload, str(self.file(workload))]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def file(self, workload: str) -> Path:
        return self._pictures.with_suffix(f".{workload}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._log.close()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            log = Path(self._log.name).read_text()[-2000:]
            raise SystemExit(f"The contestant {self.name!r} ended:\n{log}")
        answer: dict[str, float] = json.loads(line)
        return answer
