"""`triptych export triton`: a Triton model repository from an export."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from router.cli.export import package, told
from router.cli.failures import reported
from router.cli.options import AsJson
from router.cli.output import print_json, print_line

REQUIRED = ("torch", "diffusers", "transformers", "onnx", "onnxruntime", "tritonclient")


def triton(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished export.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="REPO", help="The repository; it must not be there.")
    ],
    runtime: Annotated[
        str, typer.Option(help="What runs the components in the server: python, onnxruntime, tensorrt.")
    ] = "python",
    name: Annotated[str | None, typer.Option(help="Of the model. [default: that of the export]")] = None,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; several times for several.")
    ] = None,
    components: Annotated[
        str, typer.Option(help="own: the pipeline runs its graphs itself; triton: by the component models.")
    ] = "own",
    engines: Annotated[
        Path | None, typer.Option(metavar="DIR", help="tensorrt: the folder of the engines.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of the server: auto, cpu, cuda:0.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of one model. [default: all cores]")
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Requests in progress at once.")] = 16,
    queue: Annotated[int, typer.Option(help="Requests that may wait for them.")] = 64,
    site_packages: Annotated[
        str, typer.Option(metavar="DIR", help="Where the server's Python finds Triptych, if not by itself.")
    ] = "",
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Take an export that was never compared.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a Triton model repository: the whole pipeline as one model, and each component as one more."""
    began = time.monotonic()
    with reported(as_json), told(as_json):
        export = package("export.to_triton", REQUIRED, "export,triton")
        settings = export.TritonSettings(
            name=name or folder.resolve().name,
            runtime=runtime,
            profiles=tuple(profile or ()),
            components=components,
            engines=engines,
            device=device,
            threads=threads,
            concurrency=concurrency,
            queue=queue,
            site_packages=site_packages,
            unverified=unverified,
        )
        models = export.to_triton(folder, output, settings)
    seconds = time.monotonic() - began
    if as_json:
        print_json({"output": str(output), "models": list(models), "seconds": round(seconds, 3)})
        return
    print_line(f"{output}: {', '.join(models)}, {seconds:.1f} s")
