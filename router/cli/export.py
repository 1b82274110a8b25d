"""`triptych export`: graphs of a model, made and compared with it, ahead of deployment.

The package that exports is reached by import string, as backends are.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from router.cli.failures import EXIT_CODES, UsageError, reported
from router.cli.options import AsJson
from router.cli.output import STDERR, print_json, print_line, print_note
from router.errors import BackendUnavailableError, RouterError
from router.manifest import Manifest, ParityRecord

_PARAMETERS = (
    *("dtype", "force", "opset", "output", "profile", "rows", "runtime", "text_length", "against"),
    *("components", "concurrency", "engines", "name", "queue", "threads"),
    *("device", "hardware", "optimization_level", "workspace_mib"),
)
"""Those that an export's sentences name."""

REQUIRED = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "onnxruntime")

app = typer.Typer(
    name="export", help="Make graphs of a model, and compare them with it.", no_args_is_help=True
)


@app.command(epilog=EXIT_CODES)
def onnx(
    source: Annotated[str, typer.Argument(help="A model folder in Diffusers' layout, or a hub id.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the export goes.")],
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="In pixels; or square, portrait, landscape. Once for each size. [default: the model's own]",
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    rows: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="Rows of the denoiser's graphs. [default: 2,8; FLUX 1,4]"),
    ] = None,
    text_length: Annotated[
        int | None, typer.Option(help="Tokens for T5. [default: as the pipeline: SD3 256, FLUX 512]")
    ] = None,
    opset: Annotated[int, typer.Option(help="18 to 23; bfloat16 needs 22.")] = 20,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Must know every operator: onnxruntime, openvino, tensorrt. [default: onnxruntime]"
        ),
    ] = None,
    for_optimum: Annotated[
        bool, typer.Option("--for-optimum", help="A scalar timestep, as Optimum feeds a UNet.")
    ] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Leave the number of rows open.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Export a model to ONNX, compare it with its source, and keep it only if it is the same."""
    began = time.monotonic()
    with reported(as_json), told(as_json), bars(as_json) as progress:
        manifest: Manifest = package("export.to_onnx").to_onnx(
            source,
            output,
            sizes=profile or (),
            dtype=dtype,
            rows=numbers(rows),
            text_length=text_length,
            opset=opset,
            for_optimum=for_optimum,
            dynamic_batch=dynamic_batch,
            runtimes=runtime or ("onnxruntime",),
            force=force,
            progress=progress,
        )
    _report(output, manifest, time.monotonic() - began, as_json)


@app.command(epilog=EXIT_CODES)
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A finished export.")],
    against: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="The model folder or hub id it was made from.")
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to draw the pictures of both, and their differences."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check an export's hashes and graphs, and with --against everything beside its source again."""
    began = time.monotonic()
    with reported(as_json), told(as_json), bars(as_json) as progress:
        if sheet and not against:
            raise UsageError("`--sheet` draws the export beside its source; name that with `--against`.")
        verified = package("export.verify").verify(folder, against, sheet=sheet, progress=progress)
    manifest = verified.manifest.model_copy(update={"parity": verified.parity})
    _report(folder, manifest, time.monotonic() - began, as_json, not_run=verified.not_run)


class _Progress:
    """One bar for each stage, with what it is at and for how long."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._at = 0

    def begin(self, stage: str, total: int) -> None:
        for each in self._bars.task_ids:
            self._bars.update(each, completed=self._bars.tasks[each].total, state="done")
            self._bars.stop_task(each)
        self._task = self._bars.add_task(stage, total=total, state="")
        self._at = -1

    def step(self, name: str) -> None:
        self._at += 1
        self._bars.update(self._task, completed=self._at, state=name)

    def note(self, sentence: str) -> None:
        print_note(sentence)


@contextmanager
def bars(quiet: bool) -> Iterator[_Progress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Bars(*columns, console=STDERR, transient=True, disable=quiet or not STDERR.is_terminal) as drawn:
        yield _Progress(drawn)


@contextmanager
def told(as_json: bool) -> Iterator[None]:
    """All that a gate found, before the sentence that sums it up; in the words of the command line."""
    try:
        yield
    except RouterError as exc:
        for finding in () if as_json else getattr(exc, "findings", ()):
            print_note(_in_options(finding))
        exc.args = (_in_options(str(exc)),)
        raise


def _in_options(sentence: str) -> str:
    for name in _PARAMETERS:
        sentence = sentence.replace(f"`{name}`", f"`--{name.replace('_', '-')}`")
    return sentence


def package(name: str, required: Sequence[str] = REQUIRED, extra: str = "export") -> Any:
    """The module of the package `export`. Raises `BackendUnavailableError` where a library is missing."""
    lacking = [module for module in required if importlib.util.find_spec(module) is None]
    if lacking:
        raise BackendUnavailableError(f"Exports need {', '.join(lacking)}; pip install 'triptych[{extra}]'.")
    return importlib.import_module(name)


def numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in (text or "").split(",") if text)
    except ValueError as exc:
        raise UsageError(
            f"`--rows` is {text!r}; write numbers with commas between them, such as 2,8."
        ) from exc


def _report(
    output: Path, manifest: Manifest, seconds: float, as_json: bool, *, not_run: Sequence[str] = ()
) -> None:
    if as_json:
        described = manifest.model_dump(
            mode="json", include={"family", "profiles", "parity", "runtimes", "opset"}
        )
        made = {"output": str(output), "seconds": round(seconds, 2), "not_run": list(not_run)}
        print_json(made | described)
        return
    megabytes = sum(record.size_bytes for record in manifest.files.values()) / 1e6
    sizes = ", ".join(profile.name for profile in manifest.profiles)
    print_line(f"{output}: {manifest.family} at {sizes}, {megabytes:,.1f} MB, {seconds:.1f} s")
    if manifest.parity:
        _print_parity(manifest.parity)
    for each in not_run:
        print_note(f"not checked without `--against`: {each}")


def _print_parity(parity: ParityRecord) -> None:
    for name, error in parity.components.items():
        print_line(f"  {name}: largest difference {error:.1e}, allowed {parity.max_component_error:.0e}")
    worst = min(parity.pictures, key=lambda picture: math.inf if picture.psnr_db is None else picture.psnr_db)
    found = "equal" if worst.psnr_db is None else f"{worst.psnr_db:.1f} dB"
    print_line(
        f"  {len(parity.pictures)} whole pictures: the worst is {found}, allowed {parity.min_psnr_db:g} dB"
    )
