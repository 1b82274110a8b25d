"""Facts of a result, as they go out with the pictures: one form for JSON, one for headers."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from router.request import GenerateRequest
from router.server import latents
from router.server.errors import body_of
from router.types import GenerateResult, Timings

_PICTURES = {"image", "mask_image"}
_WORDS = {"prompt", "negative_prompt"}
_STAGES = tuple(field.name for field in dataclasses.fields(Timings))
_MAX_HEADER_CHARACTERS = 4000
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")


def parameters_of(request: GenerateRequest) -> dict[str, Any]:
    """The effective request under its own field names, without its pictures."""
    return request.model_dump(mode="json", exclude=_PICTURES, exclude_none=True)


def facts_of(result: GenerateResult, encode_s: float) -> dict[str, Any]:
    """Everything needed to make the pictures again, and how it went.

    `encode_s` are the seconds that writing the pictures took, which the router does not know.
    """
    return {
        "model": result.request.model,
        "task": result.request.task,
        "reference_mode": result.reference_mode,
        "instance": result.instance,
        "backend": result.backend,
        "seed": result.request.seed,
        "seeds": list(result.seeds),
        **({"fingerprints": latents.fingerprints(result)} if result.request.latents else {}),
        "parameters": parameters_of(result.request),
        "enhancement": result.enhancement.as_dict() if result.enhancement else None,
        "adjustments": list(result.adjustments),
        "notes": list(result.notes),
        "attempts": [dataclasses.asdict(attempt) for attempt in result.attempts],
        "timings": timings_of(result, encode_s),
        "ticks": result.ticks,
        "rows": result.rows,
        "errors": [
            {"index": picture.index, "seed": picture.seed, **body_of(picture.error)["error"]}
            for picture in result.pictures
            if picture.error is not None
        ],
    }


def timings_of(result: GenerateResult, encode_s: float) -> dict[str, float]:
    """Seconds by stage, to the microsecond."""
    stages = {name: round(getattr(result.timings, name), 6) for name in _STAGES}
    return {**stages, "encode_s": round(encode_s, 6)}


def headers_of(result: GenerateResult, encode_s: float) -> dict[str, str]:
    """The facts as headers of raw bytes: ASCII, and of the prompts only one that was made here."""
    parameters = result.request.model_dump_json(exclude=_PICTURES | _WORDS, exclude_none=True)
    stages = timings_of(result, encode_s).items()
    enhancement, untold = _enhancement_header(result)
    told = [*result.notes, *untold]
    notes = {"X-Triptych-Notes": json.dumps(told)} if told else {}
    return {
        "X-Triptych-Seed": f"{result.request.seed}",
        "X-Triptych-Model": _ascii(result.request.model or ""),
        "X-Triptych-Instance": _ascii(result.instance),
        "X-Triptych-Backend": _ascii(result.backend),
        "X-Triptych-Reference-Mode": result.reference_mode,
        "X-Triptych-Parameters": _ascii(parameters),
        "X-Triptych-Adjustments": json.dumps(list(result.adjustments)),
        "Server-Timing": ", ".join(f"{name.removesuffix('_s')};dur={s * 1000:.3f}" for name, s in stages),
        **enhancement,
        **notes,
    }


def _enhancement_header(result: GenerateResult) -> tuple[dict[str, str], list[str]]:
    """Original and enhanced prompt, as far as proxies let headers of that length pass; else a note."""
    if result.enhancement is None:
        return {}, []
    text = json.dumps(result.enhancement.as_dict())
    if len(text) > _MAX_HEADER_CHARACTERS:
        return {}, ["The prompt was enhanced, and is too long for a header; POST /api/v1/generate tells it."]
    return {"X-Triptych-Enhancement": text}, []


def _ascii(text: str) -> str:
    """Other characters by their codes, as JSON escapes them."""
    return text if text.isascii() else _BEYOND_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
