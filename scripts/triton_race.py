"""The race of bench_triton: one model in this process, and in a Triton server in several ways, in turns."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.to_triton import TritonSettings, to_triton
from router import BackendRouter, InstanceConfig, ModelConfig, RouterConfig
from router.config import Limits
from scripts.contest import mixed, one_stream
from scripts.machine import machine

SIDE = 128
DIRECT = "in this process"
OWN, BLS = "shapes", "shapes-bls"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that is ready, and all processes of it."""

    address: str
    pid: int

    def cpu_s(self) -> float:
        """Of the server and its stubs, which are of its process group."""
        return sum(_cpu_s(stat) for stat in _stats() if int(stat[2]) == self.pid)


def _stats() -> Iterator[list[str]]:
    """The fields of /proc/PID/stat from the third on: proc_pid_stat(5)."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield (process / "stat").read_text().rpartition(")")[2].split()


def _cpu_s(stat: Sequence[str]) -> float:
    return (int(stat[11]) + int(stat[12])) / _TICKS


@contextlib.contextmanager
def started(work: Path) -> Iterator[Server]:
    """With the pipeline that runs its graphs itself, and the one that calls the component models."""
    repository = work / "repository"
    shutil.rmtree(repository, ignore_errors=True)
    shutil.rmtree(work / "own", ignore_errors=True)
    to_triton(work / "shapes", repository, TritonSettings(name=BLS, device="cpu", components="triton"))
    to_triton(work / "shapes", work / "own", TritonSettings(name=OWN, device="cpu"))
    (work / "own" / OWN).rename(repository / OWN)
    ports = [f"--{name}-port=0" for name in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "scripts.triton_start", str(repository), *ports]
    with (work / "server.log").open("w") as log:
        script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert script.stdout is not None
        word, *facts = script.stdout.readline().split() or [""]
        if word != "ready":
            raise SystemExit(f"The server did not start; see {work / 'server.log'}.")
        found = dict(fact.split("=") for fact in facts)
        yield Server(found["grpc"], int(found["pid"]))
    finally:
        script.terminate()
        script.wait()


def contestants(work: Path, address: str) -> dict[str, InstanceConfig]:
    def triton(model: str, shared_memory: str) -> InstanceConfig:
        options = {"shared_memory": shared_memory}
        return InstanceConfig(backend="triton", source=f"grpc://{address}/{model}", options=options)

    return {
        DIRECT: InstanceConfig(backend="onnxruntime", source=str(work / "shapes"), device="cpu"),
        "Triton, gRPC": triton(OWN, "off"),
        "Triton, shared memory": triton(OWN, "auto"),
        "Triton, BLS components": triton(BLS, "off"),
    }


@contextlib.asynccontextmanager
async def entered(instances: dict[str, InstanceConfig]) -> AsyncIterator[dict[str, BackendRouter]]:
    async with contextlib.AsyncExitStack() as stack:
        routers = {}
        for name, instance in instances.items():
            models = (ModelConfig(name="shapes", instances=(instance,)),)
            config = RouterConfig(models=models, default_model="shapes", limits=Limits(concurrency=16))
            routers[name] = await stack.enter_async_context(BackendRouter(config))
        yield routers


async def race(work: Path, server: Server, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    async with entered(contestants(work, server.address)) as routers:
        equal = await _pictures(routers)
        found["equal"] = {name: picture == equal[DIRECT] for name, picture in equal.items()}
        found["one"] = await _rounds(routers, server, one_stream(SIDE), rounds)
        found["mixed"] = await _rounds(routers, server, mixed(SIDE, 16), rounds)
    return found


async def _pictures(routers: dict[str, BackendRouter]) -> dict[str, bytes]:
    (request,) = one_stream(SIDE)
    return {name: (await each.generate(**request)).images[0].pixels for name, each in routers.items()}


async def _rounds(
    routers: dict[str, BackendRouter], server: Server, requests: list[dict[str, Any]], rounds: int
) -> dict[str, Any]:
    """Everybody's turn in each round, in another order each time; the first round does not count."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in routers}
    for _ in range(rounds + 1):
        for name in random.sample(list(routers), len(routers)):
            runs[name].append(await _run(routers[name], server, requests))
    return {name: _summed(each[1:], runs[DIRECT][1:], len(requests)) for name, each in runs.items()}


async def _run(router: BackendRouter, server: Server, requests: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds of wall and of CPU time, the server's included."""
    cpu, wall = time.process_time() + server.cpu_s(), time.perf_counter()
    await asyncio.gather(*[router.generate(**request) for request in requests])
    wall = time.perf_counter() - wall
    return wall, time.process_time() + server.cpu_s() - cpu


def _summed(
    runs: Sequence[tuple[float, float]], direct: Sequence[tuple[float, float]], pictures: int
) -> dict[str, Any]:
    ratios = [mine[0] / its[0] for mine, its in zip(runs, direct, strict=True)]
    walls = [wall for wall, _ in runs]
    return {
        "p50_s": statistics.median(walls),
        "pictures_per_s": pictures / statistics.median(walls),
        "cpu_s": statistics.median(cpu for _, cpu in runs),
        "ratio": statistics.median(ratios),
        "interval": interval(ratios),
        "walls_s": walls,
    }


def interval(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """Of the median, 95 %, by the bootstrap."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def show(found: dict[str, Any]) -> None:
    print(f"{found['machine']}; {found['rounds']} rounds; shipped model, 128x128")
    for kind, title in (("one", "one request of 8 steps"), ("mixed", "16 mixed requests at once")):
        print(f"\n{title:28}{'p50 s':>8}{'pictures/s':>12}{'CPU s':>8}{'beside the first':>26}")
        for name, each in found[kind].items():
            low, high = each["interval"]
            print(
                f"{name:28}{each['p50_s']:8.3f}{each['pictures_per_s']:12.2f}{each['cpu_s']:8.2f}"
                f"{each['ratio']:12.3f} ({low:.3f} to {high:.3f})"
            )
    others = [name for name, same in found["equal"].items() if not same]
    print(f"\nPictures: {'all equal, bit by bit' if not others else 'not equal: ' + ', '.join(others)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with started(arguments.work) as server:
        found = asyncio.run(race(arguments.work, server, arguments.rounds))
    print(json.dumps(found)) if arguments.json else show(found)


if __name__ == "__main__":
    main()
