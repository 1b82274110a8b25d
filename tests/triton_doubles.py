"""A Triton server in this process, over gRPC as the real one, that any backend stands behind.

For the faults that no real server has on demand. What it is a double of is tested beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import text_format
from pydantic import TypeAdapter
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc
from tritonclient.utils import (
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from router.backend import Backend
from router.capabilities import Capabilities
from router.errors import RouterError
from router.request import GenerateRequest
from router.types import Event, RawImage, Step

CONFIG = Path(__file__).parents[1] / "model_repository" / "pipeline" / "config.pbtxt"
NOT_FIELDS = {"progress"}


class TritonDouble(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Serves one model, made by `backend`. Every fault is an attribute that a test sets."""

    def __init__(self, backend: Backend, model: str = "demo") -> None:
        self.backend = backend
        self.model = model
        self.parameters = {"triptych": "1"}
        self.loaded = True
        self.others: dict[str, str] = {}
        """Further models of its repository, with their states."""
        self.says: str | None = None
        """Answers every request with this error."""
        self.breaks: grpc.StatusCode | None = None
        """Ends the stream of every request with this status."""
        self.questions = 0
        """How often it was asked what the model can do."""
        self.loads = True
        """Whether the model can be loaded."""
        self.answers = asyncio.Event()
        """While it is not set, requests get no response after those that they have had."""
        self.answers.set()
        self.is_healthy = asyncio.Event()
        """While it is not set, questions get no answer."""
        self.is_healthy.set()
        self.shares_memory = True
        self.forgets = False
        """Takes shared memory, and never finds it again."""
        self.spoils: dict[str, np.ndarray[Any, Any] | None] = {}
        """Outputs to put in the place of the right ones; `None` leaves one out."""
        self.seen: list[GenerateRequest] = []
        self.headers: list[dict[str, str]] = []
        self.timeouts_us: list[int] = []
        self.by_region = 0
        """Pictures that came or went by shared memory."""
        self.cancelled = 0
        self.regions: dict[str, mmap.mmap] = {}
        self.port = 0
        self._server: grpc.aio.Server | None = None

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}/{self.model}"

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        """On the port that it had before, if it had one."""
        capabilities = await self.backend.probe()
        self.parameters.setdefault("capabilities", TypeAdapter(Capabilities).dump_json(capabilities).decode())
        self._server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        place = f"127.0.0.1:{self.port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, credentials)
        await self._server.start()

    def let_go(self) -> None:
        """Whoever waits for an answer gets it."""
        self.answers.set()
        self.is_healthy.set()

    async def die(self) -> None:
        """Every connection breaks, and what it knew is gone."""
        if self._server is not None:
            await self._server.stop(None)
        self.regions.clear()
        self._server = None

    # The questions.

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        await self.is_healthy.wait()
        self.headers.append(dict(context.invocation_metadata()))
        return service_pb2.ServerMetadataResponse(name="triton", version="0.0.1")

    async def ModelReady(self, request: Any, context: Any) -> Any:
        await self.is_healthy.wait()
        return service_pb2.ModelReadyResponse(ready=self.loaded and request.name == self.model)

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        self.questions += 1
        await self.is_healthy.wait()
        if request.name != self.model or not self.loaded:
            words = f"Request for unknown model: '{request.name}' is not found"
            await context.abort(grpc.StatusCode.NOT_FOUND, words)
        config = text_format.Parse(CONFIG.read_text(), model_config_pb2.ModelConfig(name=self.model))
        for name, value in self.parameters.items():
            config.parameters[name].string_value = value
        return service_pb2.ModelConfigResponse(config=config)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        models = {self.model: "READY" if self.loaded else "UNAVAILABLE"} | self.others
        response = service_pb2.RepositoryIndexResponse()
        for name, state in models.items():
            response.models.add(name=name, state=state)
        return response

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        if not self.loads:
            await context.abort(
                grpc.StatusCode.INTERNAL, f"failed to load '{request.model_name}', no such file"
            )
        self.loaded = True
        return service_pb2.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        self.loaded = False
        return service_pb2.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        response = service_pb2.SystemSharedMemoryStatusResponse()
        for name in self.regions:
            response.regions[name].name = name
        return response

    async def SystemSharedMemoryRegister(self, request: Any, context: Any) -> Any:
        await self.is_healthy.wait()
        if not self.shares_memory:
            words = f"Unable to open shared memory region: '{request.key}'"
            await context.abort(grpc.StatusCode.INTERNAL, words)
        descriptor = os.open(f"/dev/shm{request.key}", os.O_RDWR)
        self.regions[request.name] = mmap.mmap(descriptor, request.byte_size)
        os.close(descriptor)
        return service_pb2.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        self.regions.pop(request.name, None)
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    # The pictures.

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.headers.append(dict(context.invocation_metadata()))
        if self.breaks is not None:
            await context.abort(self.breaks, "broken")
        try:
            async for request in requests:
                async for outputs in self._responses(request):
                    await self.answers.wait()
                    yield self._response(request, outputs)
        except RouterError as exc:
            yield service_pb2.ModelStreamInferResponse(error_message=f"{exc.code}: {exc}")
        except LookupError as exc:
            yield service_pb2.ModelStreamInferResponse(error_message=str(exc.args[0]))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def _responses(self, message: Any) -> AsyncIterator[dict[str, np.ndarray[Any, Any]]]:
        if self.says is not None:
            raise LookupError(self.says)
        self.timeouts_us.append(message.parameters["timeout"].int64_param)
        inputs = self._inputs(message)
        request = GenerateRequest.of(**{name: inputs[name] for name in inputs.keys() - NOT_FIELDS})
        self.seen.append(request)
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        work = asyncio.create_task(self.backend.generate(request, events.put_nowait, None))
        work.add_done_callback(lambda _: events.put_nowait(None))
        try:
            while (event := await events.get()) is not None:
                if inputs["progress"] and isinstance(event, Step):
                    yield _of_step(event)
            generated = work.result()
        finally:
            work.cancel()
            await asyncio.wait([work])
        for picture in generated.pictures:
            facts: dict[str, Any] = {"seed": picture.seed, "ticks": generated.ticks, "rows": generated.rows}
            if picture.error is not None:
                facts["error"] = {"code": picture.error.code, "message": str(picture.error)}
            outputs = {"index": np.array([picture.index], np.int32), "facts": _text(json.dumps(facts))}
            if picture.image is not None:
                outputs["picture"] = _array(picture.image)
            yield outputs

    def _inputs(self, message: Any) -> dict[str, Any]:
        contents = iter(message.raw_input_contents)
        found = {}
        for each in message.inputs:
            place = each.parameters["shared_memory_region"].string_param
            size = each.parameters["shared_memory_byte_size"].int64_param
            content = self._region(place)[:size] if place else next(contents)
            if each.datatype == "BYTES":
                found[each.name] = deserialize_bytes_tensor(content)[0].decode()
            elif len(each.shape) == 3:
                found[each.name] = RawImage(each.shape[0], each.shape[1], content)
            else:
                found[each.name] = np.frombuffer(content, triton_to_np_dtype(each.datatype)).item()
        return found

    def _response(self, message: Any, outputs: dict[str, Any]) -> Any:
        response = service_pb2.ModelStreamInferResponse()
        offered = {
            each.name: each.parameters["shared_memory_region"].string_param for each in message.outputs
        }
        for name, array in (outputs | {k: v for k, v in self.spoils.items() if k in outputs}).items():
            if array is None:
                continue
            is_text = array.dtype == np.object_
            content = serialize_byte_tensor(array).item() if is_text else array.tobytes()
            if offered[name]:
                self._region(offered[name])[: len(content)] = content
                content = b""
            response.infer_response.outputs.add(
                name=name, datatype=np_to_triton_dtype(array.dtype), shape=array.shape
            )
            response.infer_response.raw_output_contents.append(content)
        return response

    def _region(self, name: str) -> mmap.mmap:
        if name not in self.regions or self.forgets:
            raise LookupError(f"Unable to find shared memory region: '{name}'")
        self.by_region += 1
        return self.regions[name]


def _of_step(step: Step) -> dict[str, Any]:
    outputs = {"progress": np.array([step.picture, step.index, step.total], np.int32)}
    return outputs if step.preview is None else outputs | {"preview": _array(step.preview)}


def _array(image: RawImage) -> np.ndarray[Any, Any]:
    return np.frombuffer(image.pixels, np.uint8).reshape(image.height, image.width, 3)


def _text(text: str) -> np.ndarray[Any, Any]:
    return np.array([text.encode()], np.object_)


@contextlib.asynccontextmanager
async def mute_port() -> AsyncIterator[int]:
    """A port that takes connections and never says a word."""

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
