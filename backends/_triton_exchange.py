"""Exchange: one request on one server. Sends it, hears the responses one by one, and stops it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from tritonclient.grpc import InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from backends._triton_answer import Answer
from backends._triton_connection import Connection
from backends._triton_errors import answered_error, server_error, status_of
from router.errors import BackendUnavailableError, DeadlineExceededError, RouterError


class Exchange:
    """Whatever ends it, nothing is left running here, and the server is told to stop."""

    def __init__(
        self,
        connection: Connection,
        model: str,
        *,
        instance: str,
        silence_s: float,
        answer_s: float,
        deadline_s: float | None,
    ) -> None:
        self._connection = connection
        self._model = model
        self._instance = instance
        self._silence_s = silence_s
        self._answer_s = answer_s
        self._deadline_s = deadline_s

    async def run(
        self, inputs: list[InferInput], outputs: list[InferRequestedOutput], answer: Answer
    ) -> None:
        """Returns when the server has said all that it has to say."""
        stream = self._connection.client.stream_infer(
            self._one(inputs, outputs), stream_timeout=self._deadline_s, headers=self._connection.headers
        )
        reading: asyncio.Future[Any] | None = None
        try:
            while True:
                reading = asyncio.ensure_future(_next(stream))
                await self._hear(reading)
                response = reading.result()
                if response is None:
                    return
                result, error = response
                if error is not None:
                    raise self._said(error)
                await answer.take(result)
        except (InferenceServerException, grpc.RpcError) as exc:
            raise self._failed(exc) from exc
        finally:
            stream.cancel()
            if reading is not None and not reading.done():
                await asyncio.wait([reading])

    async def _one(self, inputs: list[InferInput], outputs: list[InferRequestedOutput]) -> AsyncIterator[Any]:
        timeout_us = None if self._deadline_s is None else max(1, int(self._deadline_s * 1e6))
        yield {"model_name": self._model, "inputs": inputs, "outputs": outputs, "timeout": timeout_us}

    async def _hear(self, reading: asyncio.Future[Any]) -> None:
        """Wait for the next response; a silent server is asked whether it is still there."""
        silent_s = 0.0
        while not (await asyncio.wait([reading], timeout=self._silence_s))[0]:
            silent_s += self._silence_s
            if silent_s >= self._answer_s:
                raise BackendUnavailableError(
                    f"The Triton server {self._connection.address.name} is ready, but has not answered this"
                    f" request for {silent_s:.0f} s; restart it, or raise `answer_s`.",
                    instance=self._instance,
                )
            await self._connection.check_ready(self._model)

    def _said(self, error: InferenceServerException) -> RouterError:
        return answered_error(status_of(error)[1], self._instance, self._connection.address.name)

    def _failed(self, exc: Exception) -> RouterError:
        if status_of(exc)[0] == "DEADLINE_EXCEEDED":
            return DeadlineExceededError(
                f"The deadline passed while the Triton server {self._connection.address.name} was at work;"
                " give the request a longer `deadline_s`."
            )
        return server_error(exc, self._instance, self._connection.address.name)


async def _next(stream: Any) -> Any:
    """The next response, `None` at the end."""
    return await anext(stream, None)
