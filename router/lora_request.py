"""LoRAs in a request: each once, and as the set that decides who shares a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from router.errors import InvalidRequestError

if TYPE_CHECKING:
    from router.request import GenerateRequest

MAX_LORAS = 16
MAX_WEIGHT = 100.0

LoraSet: TypeAlias = tuple[tuple[str, float], ...]
"""Names and weights, in the order in which they are added up."""


def check_loras(request: GenerateRequest) -> None:
    """Raise `InvalidRequestError` for a name that stands twice."""
    seen: set[str] = set()
    for lora in request.loras:
        if lora.name in seen:
            raise InvalidRequestError(
                f"`loras` names {lora.name[:40]!r} twice; name it once, with one `weight`.", param="loras"
            )
        seen.add(lora.name)


def lora_set(request: GenerateRequest) -> LoraSet:
    """What is applied: equal sets share batches, however they were written. A weight of 0 adds nothing.

    Sums of floats depend on their order, so the order of a `reproducible` request is kept.
    """
    applied = [(lora.name, lora.weight) for lora in request.loras if lora.weight]
    return tuple(applied if request.reproducible else sorted(applied))


def lora_of(text: str) -> dict[str, object]:
    """`NAME` or `NAME:WEIGHT` as a command line has it. Raises `InvalidRequestError`."""
    name, colon, weight = text.rpartition(":")
    if not colon:
        return {"name": text}
    try:
        return {"name": name, "weight": float(weight)}
    except ValueError as exc:
        raise InvalidRequestError(
            f"`loras` has {text[:40]!r}; write NAME or NAME:WEIGHT, such as ink:0.8.", param="loras"
        ) from exc
