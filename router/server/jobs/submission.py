"""From a body to a draft, checked and with its seed drawn; and from what was stored back to the request."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any

from router import images
from router.errors import InvalidRequestError
from router.request import GenerateRequest
from router.server.jobs.job import Draft, digest_of
from router.server.picture_urls import FIELDS
from router.server.pictures import Encoding, encoding_of, file_of

_PICTURES = ("image", "mask_image")
_WRITTEN = ("output_format", "quality")
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SEED_BITS = 32


def claim(owner: str, body: Mapping[str, Any], idempotency_key: str) -> Draft:
    """What a repetition is known by, and nothing else. Large bodies take time: call it in a thread."""
    return Draft(owner, {}, idempotency_key=idempotency_key, digest=digest_of(body))


def read(
    owner: str,
    body: Mapping[str, Any],
    idempotency_key: str | None,
    max_pixels: int,
    fetched: Mapping[str, bytes] | None = None,
) -> tuple[Draft, GenerateRequest]:
    """The draft, and the request that it is for. Decodes pictures: call it in a thread.

    `fetched` are the files at the addresses in `body`, by the fields that hold those. Raises
    `InvalidRequestError` with the field's name.
    """
    if idempotency_key is not None and not _KEY.fullmatch(idempotency_key):
        raise InvalidRequestError(
            "`Idempotency-Key` must be 1 to 255 visible ASCII characters.", param="Idempotency-Key"
        )
    files = {name: file_of(body[name], name) for name in _PICTURES if body.get(name) is not None}
    files |= fetched or {}
    fields = {name: value for name, value in body.items() if name not in {*_PICTURES, *FIELDS}}
    if fields.get("seed") is None:
        fields["seed"] = secrets.randbits(_SEED_BITS)
    request, _ = _request_of(fields, files, max_pixels)
    written = {name: body[name] for name in _WRITTEN if body.get(name) is not None}
    parameters = request.model_dump(mode="json", exclude=set(_PICTURES), exclude_unset=True) | written
    stored = {FIELDS.get(name, name): file for name, file in files.items()}
    return Draft(owner, parameters, stored, idempotency_key, digest_of(body)), request


def restore(parameters: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[GenerateRequest, Encoding]:
    """The request of a stored job, and how its pictures are to be written. Call it in a thread."""
    return _request_of(parameters, files, images.MAX_PIXELS)


def _request_of(
    fields: Mapping[str, Any], files: Mapping[str, bytes], max_pixels: int
) -> tuple[GenerateRequest, Encoding]:
    plain = {name: value for name, value in fields.items() if name not in _WRITTEN}
    encoding = encoding_of(fields.get("output_format"), fields.get("quality"))
    decoded = {
        FIELDS.get(name, name): images.decode(file, max_pixels=max_pixels, param=name)
        for name, file in files.items()
    }
    return GenerateRequest.of(**plain, **decoded), encoding
