"""What the OpenAPI document says of bodies and replies; FastAPI cannot see it, as bodies are read by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from router.server.outputs import MEDIA_TYPES

_DIALECT = "openapi-3.1"


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str
    details: dict[str, Any] | None = None


class ErrorBody(BaseModel):
    """What every error reply holds."""

    error: ErrorDetail


class _Schema(GenerateJsonSchema):
    """Pictures, which are values of ours, are base64 text on the wire."""

    def is_instance_schema(self, schema: core_schema.IsInstanceSchema) -> JsonSchemaValue:
        return {"type": "string", "contentEncoding": "base64", "description": "PNG, JPEG or WebP."}


def json_body(form: type[BaseModel], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """`openapi_extra` of an address that takes this form as JSON."""
    return {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema_of(form, without)}},
        }
    }


def schema_of(form: type[BaseModel], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The JSON schema of a form, whole: definitions are put where they are used."""
    schema = form.model_json_schema(schema_generator=_Schema, mode="validation")
    definitions = schema.pop("$defs", {})
    for name in without:
        schema["properties"].pop(name)
    inlined: dict[str, Any] = _inlined(schema, definitions)
    return inlined


def form_body(form: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of an address that takes this form as multipart."""
    content = {"multipart/form-data": {"schema": schema_of(form)}}
    return {"requestBody": {"required": True, "content": content}}


def either_body(form: type[BaseModel], json: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of an address that takes multipart or JSON."""
    either = form_body(form)
    either["requestBody"]["content"] |= json_body(json)["requestBody"]["content"]
    return either


def event_stream() -> dict[int | str, dict[str, Any]]:
    """`responses` of an address that may answer with server-sent events."""
    event = {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}
    return {200: {"content": {"text/event-stream": {"schema": event}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` for these statuses, in one form."""
    return {status: {"model": ErrorBody} for status in statuses}


def picture_reply(
    description: str, headers: Mapping[str, str] | None = None
) -> dict[int | str, dict[str, Any]]:
    """`responses` of an address that answers with a picture's bytes."""
    content = {media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()}
    described = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in (headers or {}).items()
    }
    return {200: {"description": description, "content": content, "headers": described}}


def file_reply(description: str, media_type: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of an address that answers with another file's bytes."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {200: {"description": description, "content": content}}


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(value, definitions) for value in schema]
    return schema
