"""The bodies of OpenAI's form, for the OpenAPI document alone; `openai_fields` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from router.images import Format
from router.request import MAX_PROMPT_CHARACTERS, GenerateRequest
from router.server.openai_fields import MAX_PARTIAL_IMAGES, OURS

_Size = Annotated[str, Field(pattern=r"^([sml]|[0-9]{1,9}x[0-9]{1,9}|auto)$")]
_Binary = Annotated[str, Field(json_schema_extra={"format": "binary"})]


class _Known(BaseModel, extra="forbid"):
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = 1
    size: _Size | None = "auto"
    response_format: Literal["b64_json", "url"] | None = "b64_json"
    output_format: Format | None = "png"
    output_compression: Annotated[int, Field(ge=1, le=100)] | None = None
    """The quality, 1 to 100, of a jpeg or webp."""
    user: str | None = None
    safety_identifier: str | None = None
    quality: Literal["auto"] | None = "auto"
    background: Literal["auto", "opaque"] | None = "auto"
    moderation: Literal["auto"] | None = "auto"


class _Prompted(_Known):
    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS)]
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = 0


class _Edited(_Prompted):
    image: _Binary
    mask: _Binary | None = None


class _Url(BaseModel, extra="forbid"):
    image_url: str
    """A data URL, or where the operator allows it an http or https one."""


class _EditedByUrl(_Prompted):
    images: Annotated[list[_Url], Field(min_length=1, max_length=1)]
    mask: _Url | None = None


class _Varied(_Known):
    image: _Binary


def _with_ours(name: str, form: type[BaseModel]) -> type[BaseModel]:
    """The form with those of our own fields that it has no word for."""
    fields = GenerateRequest.model_fields
    ours: dict[str, Any] = {field: (fields[field].annotation, fields[field]) for field in sorted(OURS)}
    made: type[BaseModel] = create_model(name, __base__=form, **ours)
    return made


Generation = _with_ours("Generation", _Prompted)
Edit = _with_ours("Edit", _Edited)
EditByUrl = _with_ours("EditByUrl", _EditedByUrl)
Variation = _with_ours("Variation", _Varied)
