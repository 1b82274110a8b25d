"""`triptych export tensorrt`: engines of an export for the GPU that is here, or the plan of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from router.cli.export import bars, numbers, package, told
from router.cli.failures import UsageError, reported
from router.cli.options import AsJson
from router.cli.output import print_json, print_line, print_note, print_table

REQUIRED = ("filelock", "numpy", "onnx", "onnxruntime")

_NOT_RUN = "building and comparing the engines: without `--dry-run`, on the GPU that they are for"


def tensorrt(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished export.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Of the engines. [default: DIR-tensorrt]"),
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of the export. Once for each. [default: all]"),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="N,N", help="Of the denoiser's engines. [default: all]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and plan; needs neither TensorRT nor a GPU.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Build nothing; compare the engines that are there again.")
    ] = False,
    optimization_level: Annotated[
        int, typer.Option(help="0 to 5; more is a longer search for faster kernels.")
    ] = 3,
    workspace_mib: Annotated[
        int | None, typer.Option(metavar="MIB", help="Scratch memory of a layer. [default: all of the GPU]")
    ] = None,
    hardware: Annotated[
        str, typer.Option(help="Runs on: exact (this GPU's model), same-compute-capability, ampere-plus.")
    ] = "exact",
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Later minor versions of TensorRT load them too.")
    ] = False,
    tf32: Annotated[bool, typer.Option("--tf32", help="Let float32 be multiplied in TF32.")] = False,
    timing_cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Kept from build to build. [default: beside the output]"),
    ] = None,
    device: Annotated[int, typer.Option(help="Number of the GPU.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace engines that are there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build TensorRT's engines of an export, one for each component and shape; each must equal its graph."""
    began = time.monotonic()
    with reported(as_json), told(as_json), bars(as_json) as progress:
        export = package("export.to_tensorrt", REQUIRED)
        if verify and (dry_run or output is None):
            raise UsageError("`--verify` compares engines that are there: name them with `--output`.")
        settings = export.EngineSettings(
            profiles=tuple(profile or ()),
            rows=numbers(rows),
            workspace_mib=workspace_mib,
            optimization_level=optimization_level,
            hardware=hardware,
            version_compatible=version_compatible,
            tf32=tf32,
            timing_cache=timing_cache,
        )
        options: dict[str, Any] = {"force": force, "progress": progress}
        if verify:
            _report_verified(export.verify_engines(folder, output, device=device, progress=progress), as_json)
        elif dry_run:
            _report_plan(export.dry_run(folder, output, settings, **options).described(), as_json)
        else:
            built = export.to_tensorrt(folder, output, settings, device=device, **options)
            _report_built(built.described(), time.monotonic() - began, as_json)


def _report_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plan | {"not_run": [_NOT_RUN]})
        return
    engines = plan["engines"]
    print_line(f"{plan['output']}: {len(engines)} engines, about {plan['weights_bytes']:,} bytes")
    columns = ("engine", "profile", "rows", "inputs", "outputs", "weights, bytes", "in and out, bytes")
    print_table(f"{plan['family']} from {plan['export']}", columns, [_row(engine) for engine in engines])
    for name, value in plan["largest_values"].items():
        print_line(f"  {name}: largest value in float16 {value:,.1f} of 65,504")
    print_line("The same by TensorRT's own tool, folders apart:")
    for engine in engines:
        print_line(engine["trtexec"])
    for note in (*plan["notes"], f"not run: {_NOT_RUN}"):
        print_note(note)


def _row(engine: dict[str, Any]) -> list[str]:
    return [
        engine["file"],
        ", ".join(engine["profiles"]),
        str(engine["rows"]),
        *("\n".join(_tensor(each) for each in engine[kind]) for kind in ("inputs", "outputs")),
        f"{engine['weights_bytes']:,}",
        f"{engine['io_bytes']:,}",
    ]


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['dtype']} [{', '.join(map(str, tensor['shape']))}]"


def _report_built(built: dict[str, Any], seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(built | {"seconds": round(seconds, 2)})
        return
    print_line(f"{len(built['engines'])} engines for {built['for']}, {seconds:.1f} s")
    for engine in built["engines"]:
        print_line(f"  {engine['file']}: {engine['size_bytes']:,} bytes, {_difference(engine['error'])}")
    print_line(f"  compared with {built['compared_with']}")


def _report_verified(errors: dict[str, float], as_json: bool) -> None:
    if as_json:
        print_json({"engines": errors})
        return
    for file, error in errors.items():
        print_line(f"{file}: {_difference(error)}")


def _difference(error: float) -> str:
    return f"largest difference from its graph {error:.1e}"
