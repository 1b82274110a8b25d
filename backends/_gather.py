"""Gathering: many calls of one module joined along the batch axis, run once, and split again.

Which arguments have a batch axis is known by name, per class, from the library's own `forward`
signatures. Guessing it from shapes is wrong: FLUX `img_ids` of a 64x64 picture have 16 rows, and so
may the batch. A class that is not in the table runs its calls one by one.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import operator
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from backends._joining import (
    concatenate,
    has_rows,
    joined_timesteps,
    padded,
    split,
    timestep_dtype,
    timestep_rows,
)
from backends._lane_errors import as_lane_error
from router.call import Call

BATCHED: Mapping[str, frozenset[str]] = {
    "UNet2DConditionModel": frozenset(
        {
            "sample",
            "timestep",
            "encoder_hidden_states",
            "class_labels",
            "timestep_cond",
            "attention_mask",
            "encoder_attention_mask",
            "added_cond_kwargs.text_embeds",
            "added_cond_kwargs.time_ids",
            "added_cond_kwargs.image_embeds",
            "down_block_additional_residuals",
            "mid_block_additional_residual",
        }
    ),
    "SD3Transformer2DModel": frozenset(
        {"hidden_states", "timestep", "encoder_hidden_states", "pooled_projections"}
    ),
    "FluxTransformer2DModel": frozenset(
        {"hidden_states", "timestep", "encoder_hidden_states", "pooled_projections", "guidance"}
    ),
    "CLIPTextModel": frozenset({"input_ids", "attention_mask"}),
    "CLIPTextModelWithProjection": frozenset({"input_ids", "attention_mask"}),
    "T5EncoderModel": frozenset({"input_ids", "attention_mask"}),
    "AutoencoderKL": frozenset({"z"}),
}
"""Class name -> the arguments of its call whose first axis is the batch; `.` goes into a mapping."""

UNUSED: Mapping[str, frozenset[str]] = {"AutoencoderKL": frozenset({"generator"})}
"""Arguments that a class takes and does not use; they would only keep calls apart."""

CHANNELS_LAST: Mapping[str, str] = {"AutoencoderKL": "z"}
"""Class name -> the argument that shared calls lay out with the channels last, on the CPU.

All of the decoder follows. For a single row torch then takes convolutions a fifth faster.
"""

_ROW_COUNTERS = ("sample", "hidden_states", "input_ids", "z")
_SCALAR_PER_ROW = "timestep"
_PLAIN = (str, int, float, torch.dtype, type(None))
"""Of these `==` is a plain truth; of tensors and arrays it is not."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of one call, by name, as the pipeline gave them."""

    values: Mapping[str, Any]
    rows: int
    device: torch.device | None


class Digests:
    """Content hashes of the tensors that are not joined, computed once for each tensor of a task.

    They enter the key as content, because comparing values at each tick would make a GPU wait.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[torch.Tensor, bytes]] = {}

    def of(self, tensor: torch.Tensor) -> bytes:
        held, digest = self._known.get(id(tensor), (None, b""))
        if held is not tensor:
            content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest = hashlib.blake2b(content.numpy().tobytes(), digest_size=16).digest()
            self._known[id(tensor)] = (tensor, digest)
        return digest


def batched_arguments(module: Any) -> frozenset[str]:
    """What the module itself says, as modules over sessions do; else what is known of its class."""
    said: frozenset[str] | None = getattr(module, "batched_arguments", None)
    return BATCHED.get(type(module).__name__, frozenset()) if said is None else said


class Gathering:
    """The `Gather` of one module, or of one of its methods.

    `row_limit` bounds the rows of a run. A run is padded to the smallest of `row_buckets` that holds
    it, if there are any: for compiled and captured modules, which know only these row counts.
    `compiled` runs in the module's place. A module whose class is not in `BATCHED` shares nothing.
    `urgent` calls go before the older ones of other modules. `room` says for how many rows of such
    latents there is memory at this moment, where that is known.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        row_limit: int,
        row_buckets: Sequence[int] = (),
        method: str = "forward",
        compiled: Callable[..., Any] | None = None,
        urgent: bool = False,
        room: Callable[[torch.Tensor], int | None] | None = None,
    ) -> None:
        self.row_limit = min(row_limit, max(row_buckets)) if row_buckets else row_limit
        self._row_buckets = sorted(row_buckets)
        self._urgent = urgent
        self._room = room
        self._halves: dict[Hashable, int] = {}
        self.stage = "decode" if method == "decode" else "text" if urgent else "steps"
        """What its runs are called in a timeline."""
        plain = module if method == "forward" else getattr(module, method)
        self._function = plain if compiled is None else compiled
        self._compiled = compiled is not None
        self._names = tuple(inspect.signature(getattr(module, method)).parameters)
        self._batched = batched_arguments(module)
        self._unused = UNUSED.get(type(module).__name__, frozenset())
        self._channels_last = CHANNELS_LAST.get(type(module).__name__, "")

    def call(self, args: Sequence[Any], kwargs: Mapping[str, Any], digests: Digests, *, share: bool) -> Call:
        """One call as the lane takes it. `share=False`: it joins no other."""
        given = dict(zip(self._names, args, strict=False)) | dict(kwargs)
        values = {name: value for name, value in given.items() if name not in self._unused}
        counter = next((values[name] for name in _ROW_COUNTERS if values.get(name) is not None), None)
        rows, device = (1, None) if counter is None else (int(counter.shape[0]), counter.device)
        share = share and bool(self._batched)
        key: Hashable = object()
        if share:
            parts = [self._key(name, values[name], rows, digests) for name in sorted(values)]
            key = (id(self), *parts)
            if self._channels_last in values and device == torch.device("cpu"):
                latents = values[self._channels_last]
                values[self._channels_last] = latents.contiguous(memory_format=torch.channels_last)
        made = Call(key, rows, self, Arguments(values, rows, device), self._urgent)
        if self._room is not None and counter is not None:
            made.room = functools.partial(self._room, counter)
        return made

    def __call__(self, calls: Sequence[Call]) -> Sequence[Any]:
        """A single call that finds too little memory is run again in halves, and so from then on."""
        taken: list[Arguments] = [call.arguments for call in calls]
        rows, key = sum(arguments.rows for arguments in taken), calls[0].key
        limit = self._halves.get(key, self.row_limit)
        try:
            return self._run_joined(taken, rows, limit)
        except MemoryError:
            if len(calls) > 1 or rows < 2 or limit < rows or not self._batched:
                raise
        # Outside of `except`: a traceback would hold what the failed run had allocated.
        limit = (rows + 1) // 2
        if isinstance(key, tuple):  # else it is of this call alone
            self._halves[key] = limit
        return self._run_joined(taken, rows, limit)

    def _run_joined(self, taken: list[Arguments], rows: int, limit: int) -> Sequence[Any]:
        try:
            device = taken[0].device
            fits = self._bucket(rows) == rows <= limit and not self._is_uniform(device)
            if len(taken) == 1 and (fits or not self._batched):
                return [self._function(**taken[0].values)]
            values = {
                name: self._join(name, [(a.values[name], a.rows) for a in taken], device)
                for name in taken[0].values
            }
            return split(self._run(values, rows, limit), [arguments.rows for arguments in taken])
        except RuntimeError as exc:
            error = as_lane_error(exc)
            if error is exc:  # its own cause, it would hold itself and its frames
                raise
            raise error from exc

    def _run(self, values: dict[str, Any], rows: int, limit: int) -> Any:
        """Run all rows, in slices of at most `limit`."""
        if rows <= limit:
            return self._run_padded(values, rows)
        parts = []
        for start in range(0, rows, limit):
            end = min(start + limit, rows)
            part = self._changed(values, rows, operator.itemgetter(slice(start, end)))
            parts.append(self._run_padded(part, end - start))
        return concatenate(parts)

    def _run_padded(self, values: dict[str, Any], rows: int) -> Any:
        bucket = self._bucket(rows)
        if bucket == rows:
            return self._function(**values)
        whole = self._changed(values, rows, lambda tensor: padded(tensor, bucket))
        return split(self._function(**whole), [rows, bucket - rows])[0]

    def widened(self, call: Call, rows: int) -> Call:
        """A call with this many rows, all the first one of `call`; for the warm-up."""
        arguments: Arguments = call.arguments
        joined = {
            name: self._join(name, [(value, arguments.rows)], arguments.device)
            for name, value in arguments.values.items()
        }
        values = self._changed(joined, arguments.rows, lambda tensor: padded(tensor[:1], rows))
        return Call(object(), rows, self, Arguments(values, rows, arguments.device))

    def _is_uniform(self, device: torch.device | None) -> bool:
        """Whether a call that is alone gets its arguments in the form of joined ones, too.

        A compiler knows that form only, and on a GPU it takes the timestep there without waiting.
        """
        return self._compiled or (device is not None and device.type != "cpu")

    def _bucket(self, rows: int) -> int:
        return next((bucket for bucket in self._row_buckets if bucket >= rows), rows)

    def _changed(
        self, values: Mapping[str, Any], rows: int, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> dict[str, Any]:
        """The same arguments with other rows; what the module broadcasts stays whole."""

        def changed(tensor: torch.Tensor) -> torch.Tensor:
            return change(tensor) if has_rows(tensor, rows) else tensor

        return {name: self._map(name, value, changed) for name, value in values.items()}

    def _map(self, path: str, value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        if isinstance(value, Mapping):
            return {name: self._map(f"{path}.{name}", part, change) for name, part in value.items()}
        if path not in self._batched:
            return value
        return pytree.tree_map_only(torch.Tensor, change, value)

    def _join(self, path: str, parts: list[tuple[Any, int]], device: torch.device | None) -> Any:
        """The values of one argument, of all calls, as one. Unbatched ones are equal: the key says so."""
        first = parts[0][0]
        if isinstance(first, Mapping):
            return {
                name: self._join(f"{path}.{name}", [(value[name], rows) for value, rows in parts], device)
                for name in first
            }
        if path not in self._batched or first is None:
            return first
        if path == _SCALAR_PER_ROW:
            return joined_timesteps([timestep_rows(value, rows) for value, rows in parts], device)
        return concatenate([value for value, _ in parts])

    def _key(self, path: str, value: Any, rows: int, digests: Digests) -> Hashable:
        """What must be equal for two calls to be joined, of one argument."""
        if isinstance(value, Mapping):
            return path, *(self._key(f"{path}.{name}", value[name], rows, digests) for name in sorted(value))
        if path in self._batched:
            if path == _SCALAR_PER_ROW:
                return path, timestep_dtype(value)
            leaves = pytree.tree_leaves(value)
            return path, *(_shape_key(leaf, rows) for leaf in leaves)
        if isinstance(value, torch.Tensor):
            return path, value.dtype, tuple(value.shape), digests.of(value)
        return path, _plain(value)


def _plain(value: Any) -> Hashable:
    """The value where it can be compared; else what equals nothing, so that the call runs alone."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value if isinstance(value, _PLAIN) else object()


def _shape_key(leaf: Any, rows: int) -> Hashable:
    if not isinstance(leaf, torch.Tensor):
        return _plain(leaf)
    if not has_rows(leaf, rows):
        return object()  # broadcast by the module: only it knows how
    return leaf.dtype, leaf.device, tuple(leaf.shape[1:])
