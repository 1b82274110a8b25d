"""The race of bench_onnx: interleaved rounds, medians, ratios, PSNR and memory. Run by scripts/bench_onnx."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.contest import Contestant
from scripts.machine import machine

SCRIPTS = Path(__file__).parent
WAYS = {
    "diffusers": "diffusers",
    "ours": "onnxruntime",
    "ours OpenVINO f32": "openvino",
    "ours OpenVINO bf16": "openvino-bf16",
}


def contestants(work: Path, model: str, source: Path, side: int) -> dict[str, Contestant]:
    """Plain Diffusers first: the others are measured against it."""
    python = work.parent.parent
    entered = {}
    for name, way in WAYS.items():
        folder = source if way == "diffusers" else work / f"{model}-ours"
        command = (python / ".venv/bin/python", SCRIPTS / "onnx_contestants.py", way, folder, str(side))
        entered[name] = Contestant(f"{model} {name}", command, work)
    command = (
        python / ".venv-optimum/bin/python",
        SCRIPTS / "optimum_contestant.py",
        work / f"{model}-optimum",
        str(side),
    )
    entered["Optimum"] = Contestant(f"{model} Optimum", command, work)
    return entered


def race(entered: dict[str, Contestant], workload: str, rounds: int) -> dict[str, Any]:
    """Everyone in turn, `rounds` times. Medians, and the ratio of wall times to the first's."""
    costs: dict[str, list[dict[str, float]]] = {name: [] for name in entered}
    for _ in range(rounds):
        for name, contestant in entered.items():
            costs[name].append(contestant.run(workload))
    reference = _pictures(next(iter(entered.values())), workload)
    report = {}
    for name, contestant in entered.items():
        runs = costs[name]
        pictures = _pictures(contestant, workload)
        difference = np.abs(pictures - reference)
        report[name] = {
            "wall_s": statistics.median(run["wall_s"] for run in runs),
            "cpu_s": statistics.median(run["cpu_s"] for run in runs),
            "wall_runs_s": [round(run["wall_s"], 3) for run in runs],
            "memory_bytes": max(run["memory_bytes"] for run in runs),
            "psnr_db": psnr(difference),
            "largest_difference": int(difference.max()),
        }
    return report


def psnr(difference: Any) -> float | None:
    """Peak signal-to-noise ratio over all pictures, in dB; `None` where they are equal."""
    mean = float(np.square(difference).mean())
    return 10 * math.log10(255**2 / mean) if mean else None


def _pictures(contestant: Contestant, workload: str) -> Any:
    return np.fromfile(contestant.file(workload), dtype=np.uint8).astype(np.float64)


def show(title: str, ways: dict[str, Any], bases: tuple[str, ...]) -> None:
    print(f"\n{title}")
    for name, found in ways.items():
        ratios = "  ".join(f"{ways[base]['wall_s'] / found['wall_s']:5.2f}x {base}" for base in bases)
        likeness = "equal" if found["psnr_db"] is None else f"{found['psnr_db']:5.1f} dB"
        print(
            f"  {name:20} {found['wall_s']:7.3f} s wall  {found['cpu_s']:7.3f} s CPU  {ratios}"
            f"  {likeness}, {found['largest_difference']:2} of 255  {found['memory_bytes'] / 2**20:6.0f} MiB"
        )
        print(f"  {'':20} wall of each run: {found['wall_runs_s']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    work = options.work.resolve()
    report: dict[str, Any] = {"machine": machine()}
    shapes = SCRIPTS.parent / "backends" / "shapes_model"
    for model, source, side, workloads in (
        ("mid", work / "mid", 256, ("one",)),
        ("shapes", shapes, 128, ("one", "mixed")),
    ):
        entered = contestants(work, model, source, side)
        try:
            for workload in workloads:
                report[f"{model}, {workload}"] = race(entered, workload, options.rounds)
        finally:
            for contestant in entered.values():
                contestant.close()
    if options.json:
        print(json.dumps(report, indent=2))
        return
    print(report["machine"])
    for title, ways in report.items():
        if title != "machine":
            show(title, ways, ("diffusers", "Optimum"))


if __name__ == "__main__":
    main()
