"""Decoding on a CUDA stream of its own: finished pictures are made while the denoiser's next tick runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch.utils import _pytree as pytree

from backends._gather import BATCHED, Gathering
from backends._stand_in import RunsCalls
from router.call import Call
from router.errors import ConfigError
from router.model_folder import ModelFolder


class Streams(Protocol):
    """The stream of a lane's thread, on which the denoiser runs, and another one beside it."""

    def enter(self) -> None:
        """What the thread gives to the device goes to the other stream from now on."""
        ...

    def leave(self) -> None:
        """It goes to the lane's own again."""
        ...

    def catch_up(self) -> None:
        """The other one begins nothing new until all is done that the lane's own was given so far."""
        ...

    def keep(self, tensor: torch.Tensor) -> None:
        """Its memory is nobody else's until the other stream has done what it was given so far."""
        ...

    def finish(self) -> None:
        """The lane's own begins nothing new until all is done that the other one was given so far."""
        ...


class CudaStreams:
    """Of one device. Made and used on its lane's thread."""

    def __init__(self, device: str) -> None:
        self._own = torch.cuda.current_stream(device)
        self._other = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def enter(self) -> None:
        torch.cuda.set_stream(self._other)

    def leave(self) -> None:
        torch.cuda.set_stream(self._own)

    def catch_up(self) -> None:
        self._other.wait_stream(self._own)

    def keep(self, tensor: torch.Tensor) -> None:
        tensor.record_stream(self._other)

    def finish(self) -> None:
        self._own.wait_stream(self._other)


class Decoding(Gathering):
    """Gathers the calls of a VAE's decoder, and runs them on the other stream.

    Nobody waits on the host. The latents were made on the lane's stream, whose memory pool they are of.
    """

    def __init__(self, vae: torch.nn.Module, streams: Streams, *, row_limit: int) -> None:
        super().__init__(vae, row_limit=row_limit, method="decode")
        self.streams = streams

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        with beside(self.streams, [call.arguments.values for call in calls]):
            return super().__call__(calls)


class TaskCalls:
    """Stands for the lane where one task calls it: what follows a decode stays on the stream of the decode.

    So the picture's pixels and their copy to the host are made there, too, by code that knows of no stream.
    """

    def __init__(self, lane: RunsCalls, streams: Streams) -> None:
        self._lane = lane
        self._streams = streams

    def call(self, call: Call) -> Any:
        """As `Lane.call`; other tasks run meanwhile, on the lane's own stream."""
        self._streams.leave()
        made = self._lane.call(call)
        if isinstance(call.gather, Decoding):
            self._streams.enter()
        return made


@contextlib.contextmanager
def beside(streams: Streams, arguments: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Inside, work goes to the other stream, behind what made these arguments."""
    streams.catch_up()
    for leaf in pytree.tree_leaves(list(map(dict, arguments))):
        if isinstance(leaf, torch.Tensor):
            streams.keep(leaf)
    streams.enter()
    try:
        yield
    finally:
        streams.leave()


def check(folder: ModelFolder, instance: str) -> None:
    """Raise `ConfigError` for a model whose pictures are decoded, or waited for, within their tasks."""
    heavy = ("unet", "transformer", "controlnet", "vae")
    kinds = [kind for name, (_, kind) in folder.components().items() if name in heavy]
    strange = next((kind for kind in kinds if kind not in BATCHED), None)
    if strange is not None:
        raise ConfigError(
            f"{instance}: option `decode_stream` is true, but calls of {strange} are not gathered, and its"
            " pictures are waited for; drop it."
        )
