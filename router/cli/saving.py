"""What the commands write: picture files with their records, latents beside them, and the report of it."""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from router import images
from router.cli.failures import describe, fail
from router.cli.files import choose_output, format_of, numbered, write
from router.cli.options import parameters_of
from router.cli.output import print_json, print_line, print_note
from router.contact_sheet import contact_sheet
from router.errors import InvalidRequestError, RouterError
from router.types import GenerateResult, Picture, RawImage

METADATA_KEY = "triptych"
"""The text chunk that holds the effective parameters as JSON."""


@dataclasses.dataclass(frozen=True)
class Made:
    """One picture, and the record that makes it again."""

    image: RawImage
    seed: int
    record: dict[str, Any]
    result: GenerateResult
    latents: bytes | None


def made_of(result: GenerateResult) -> list[Made]:
    """The pictures that succeeded."""
    return [
        Made(picture.image, picture.seed, _record(result, picture), result, picture.latents)
        for picture in result.pictures
        if picture.image is not None
    ]


def _record(result: GenerateResult, picture: Picture) -> dict[str, Any]:
    """What makes this one picture again, and who made it."""
    alone = result.request.model_copy(update={"seed": picture.seed, "num_images_per_prompt": 1})
    fingerprint = picture.fingerprint
    return {
        "task": alone.task,
        "reference_mode": alone.reference_mode,
        "parameters": parameters_of(alone),
        **({"enhancement": result.enhancement.as_dict()} if result.enhancement else {}),
        "instance": result.instance,
        "backend": result.backend,
        "adjustments": list(result.adjustments),
        "notes": list(result.notes),
        **({"fingerprint": base64.b64encode(fingerprint).decode()} if fingerprint else {}),
    }


def save(
    pictures: Sequence[Made], output: Path | None, latents: Path | None = None
) -> tuple[dict[str, Any], list[RouterError]]:
    """Write the files: what was written, for people and programs alike, and why others were not."""
    chosen = choose_output(output, pictures[0].seed, len(pictures))
    saved: dict[str, Any] = {"pictures": [], "sheet": None}
    unsaved = []
    beside = numbered(latents, len(pictures)) if latents else [None] * len(pictures)
    for path, place, made in zip(numbered(chosen, len(pictures)), beside, pictures, strict=True):
        try:
            saved["pictures"].append(_save_one(path, place, made))
        except RouterError as exc:  # the others are worth having
            unsaved.append(exc)
    if len(pictures) > 1:
        try:
            _write(chosen, contact_sheet([made.image for made in pictures]), {})
            saved["sheet"] = str(chosen)
        except RouterError as exc:
            unsaved.append(exc)
    return saved, unsaved


def _save_one(path: Path, latents: Path | None, made: Made) -> dict[str, Any]:
    started = time.perf_counter()
    _write(path, made.image, {METADATA_KEY: json.dumps(made.record)})
    timings = dataclasses.replace(made.result.timings, encode_s=time.perf_counter() - started)
    saved = {"file": str(path), **made.record, "timings": dataclasses.asdict(timings)}
    if latents is not None and made.latents is not None:
        write(latents, made.latents)
        saved["latents"] = str(latents)
    return saved


def _write(path: Path, image: RawImage, metadata: dict[str, str]) -> None:
    try:
        data = images.encode(image, format_of(path), metadata=metadata)
    except InvalidRequestError as exc:
        if exc.param != "metadata":
            raise
        print_note(f"{path} is saved without its parameters: {exc}")
        data = images.encode(image, format_of(path))
    write(path, data)


def report(saved: dict[str, Any], errors: Sequence[RouterError], as_json: bool) -> None:
    """Raises `typer.Exit` where some pictures were not made."""
    exits = [fail(error, as_json=False) for error in errors]
    if as_json:
        print_json(saved | {"errors": [describe(error) for error in errors]})
    else:
        _print(saved)
    if exits:
        raise exits[0]


def _print(saved: dict[str, Any]) -> None:
    for note in dict.fromkeys(
        note for each in saved["pictures"] for note in each["adjustments"] + each["notes"]
    ):
        print_note(note)
    for prompt in dict.fromkeys(
        each["enhancement"]["prompt"] for each in saved["pictures"] if "enhancement" in each
    ):
        print_note(f"The prompt became: {prompt}")
    for each in saved["pictures"]:
        print_line(f"{each['file']}: {_facts(each)}")
    if saved["sheet"]:
        print_line(f"{saved['sheet']}: all pictures on one sheet")


def _facts(saved: dict[str, Any]) -> str:
    parameters, timings = saved["parameters"], saved["timings"]
    stages = ", ".join(
        f"{name.removesuffix('_s')} {seconds:.2f} s"
        for name, seconds in timings.items()
        if seconds or name != "enhance_s"  # few ask for that
    )
    size = f"{parameters['width']}x{parameters['height']}"
    return f"seed {parameters['seed']}, {size}, made by {saved['instance']} ({stages})"
