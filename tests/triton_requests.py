"""A plain client of a pipeline model, over NVIDIA's own library: what a test asks, and what came back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.grpc.aio import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from router.types import RawImage
from tests.triton_servers import TritonServer

_NUMPY = {str: np.object_, bytes: np.object_, bool: np.bool_, int: np.int32, float: np.float64}
_WIDE = {"seed": np.int64}


@dataclass
class Answer:
    """All responses of one request, in order of arrival; `error` is what ended it, if anything."""

    steps: list[tuple[int, ...]] = field(default_factory=list)
    previews: list[np.ndarray[Any, Any]] = field(default_factory=list)
    pictures: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    error: str = ""

    def take(self, response: Any) -> None:
        names = {output.name for output in response.get_response().outputs}
        found = {name: response.as_numpy(name) for name in names}
        if "progress" in found:
            self.steps.append(tuple(found["progress"].tolist()))
        if "preview" in found:
            self.previews.append(found["preview"])
        if "index" in found:
            index = int(found["index"][0])
            self.facts[index] = json.loads(found["facts"][0])
            if "picture" in found:
                self.pictures[index] = found["picture"]


@asynccontextmanager
async def connected(server: TritonServer) -> AsyncIterator[InferenceServerClient]:
    client = InferenceServerClient(server.grpc)
    try:
        yield client
    finally:
        await client.close()


async def ask(
    client: InferenceServerClient,
    model: str = "sd15",
    *,
    deadline_s: float | None = None,
    cancel_after: int | None = None,
    begun: asyncio.Event | None = None,
    **fields: Any,
) -> Answer:
    """One request. `cancel_after` cancels it after so many steps, `begun` is set after the first."""
    timeout = None if deadline_s is None else int(deadline_s * 1e6)

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {
            "model_name": model,
            "inputs": [tensor(name, value) for name, value in fields.items()],
            "enable_empty_final_response": True,
            "timeout": timeout,
        }

    answer, stream = Answer(), client.stream_infer(requests())
    try:
        async for response, error in stream:
            if error is not None:
                answer.error = str(error.message())
                break
            answer.take(response)
            if begun is not None:
                begun.set()
            if cancel_after is not None and len(answer.steps) >= cancel_after:
                stream.cancel()
                break
            if response.get_response().parameters["triton_final_response"].bool_param:
                break
    except (InferenceServerException, asyncio.CancelledError) as exc:
        answer.error = str(exc)
    return answer


def tensor(name: str, value: Any) -> InferInput:
    """A field of a request as the input of that name."""
    if isinstance(value, RawImage):
        value = np.frombuffer(value.pixels, np.uint8).reshape(value.height, value.width, 3)
    if not isinstance(value, np.ndarray):
        kind = _WIDE.get(name, _NUMPY[type(value)])
        value = np.array([value.encode() if isinstance(value, str) else value], kind)
    found = InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
    found.set_data_from_numpy(value)
    return found
