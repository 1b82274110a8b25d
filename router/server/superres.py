"""POST /superres: a picture made larger. The same as any native form with `scale`, bytes in the reply."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from router.errors import InvalidRequestError
from router.request import Adjustment
from router.server import documents, native
from router.server.body import read_json
from router.server.front import front_of
from router.server.native import REFUSALS, Addressed, Written

routes = APIRouter(tags=["native"])

_SCALE = 4


class SuperresRequest(Written, Addressed):
    """What there is to say of a larger picture. `image` is base64 text, of a PNG, JPEG or WebP file."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})] | None = None
    scale: Literal[2, 4] = 4
    model: str | None = None
    """`None` is the first configured model that can do it."""
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    allow_adjustments: tuple[Adjustment, ...] = ()
    """`upscaler`: Lanczos resampling may do where no model can; `X-Triptych-Adjustments` says so."""


_FIELDS = frozenset(SuperresRequest.model_fields) - {"mask_image_url"}


@routes.post(
    "/superres",
    responses={
        **documents.picture_reply("The picture's bytes; the facts are in the headers."),
        **REFUSALS,
    },
    openapi_extra=documents.json_body(SuperresRequest, without=("mask_image_url",)),
    response_class=Response,
)
async def superres(request: Request) -> Response:
    """Make a picture larger, by a configured model that does that."""
    fields = _read(await read_json(request))
    result, encoding = await native.made(request, fields)
    return await native.as_bytes(front_of(request), result, encoding)


def _read(body: dict[str, Any]) -> dict[str, Any]:
    """Raises `InvalidRequestError` for a field of other forms, and where there is no picture."""
    unknown = next((name for name in body if name not in _FIELDS), None)
    if unknown is not None:
        raise InvalidRequestError(
            f"There is no field `{unknown[:40]}` here; the fields are {', '.join(sorted(_FIELDS))}.",
            param=unknown[:40],
        )
    if body.get("image") is None and body.get("image_url") is None:
        raise InvalidRequestError(
            "`image` is missing; send one as base64, or its `image_url`.", param="image"
        )
    return {"scale": _SCALE, **{name: value for name, value in body.items() if value is not None}}
