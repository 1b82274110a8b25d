"""Sessions: all graphs of one component. Any number of rows runs on those that were made for the shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch

from backends._session import Session

ROWLESS = frozenset({"img_ids", "txt_ids"})
"""Inputs of FLUX whose first axis counts tokens; every other first axis counts rows."""

Tensors: TypeAlias = Mapping[str, torch.Tensor]
_Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


class Sessions:
    """Runs rows on the smallest graph that holds them, padded; more than the largest holds, in parts.

    A static graph has one number of rows, its *bucket*. What it computes for a row does not depend on
    the other rows, so a picture depends on the bucket at most.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._ladders: dict[_Shapes, list[tuple[int | None, Session]]] = {}
        self.inputs = self._sessions[0].inputs

    def run(self, feeds: Mapping[str, torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """The outputs by name, floating ones as float32. `feeds` may be of any dtype; `None` is left out.

        Raises `RuntimeError` where no graph takes what is fed.
        """
        given = {name: tensor for name, tensor in feeds.items() if tensor is not None}
        rows = next(tensor.shape[0] for name, tensor in given.items() if _has_rows(name, tensor))
        ladder = self._ladder(given, rows)
        most = ladder[-1][0] or rows
        if rows <= most:
            return _run_padded(ladder, given, rows)
        parts = [
            _run_padded(ladder, _rows(given, start, start + most), min(most, rows - start))
            for start in range(0, rows, most)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _ladder(self, feeds: Tensors, rows: int) -> list[tuple[int | None, Session]]:
        """The graphs for these shapes with their buckets, the smallest first; `None` takes any rows."""
        shapes = tuple(
            (name, tuple(tensor.shape[1:] if _has_rows(name, tensor) else tensor.shape))
            for name, tensor in feeds.items()
        )
        if shapes not in self._ladders:
            found = [(bucket_of(session), session) for session in self._sessions if _fits(session, feeds)]
            if not found:
                raise RuntimeError(f"no graph takes {dict(shapes)}")
            self._ladders[shapes] = sorted(found, key=lambda step: step[0] or 0)
        return self._ladders[shapes]


def bucket_of(session: Session) -> int | None:
    """The rows that the graph was made for; `None` where it takes any number."""
    return next(spec.shape[0] for name, spec in session.inputs.items() if spec.shape and name not in ROWLESS)


def _fits(session: Session, feeds: Tensors) -> bool:
    """Whether the graph takes these tensors, their rows apart."""
    if feeds.keys() != session.inputs.keys():
        return False
    bucket = bucket_of(session)
    for name, tensor in feeds.items():
        shape = tuple(tensor.shape)
        if _has_rows(name, tensor) and bucket is not None:
            shape = (bucket, *shape[1:])
        if not session.inputs[name].takes(shape):
            return False
    return True


def _run_padded(
    ladder: Sequence[tuple[int | None, Session]], feeds: Tensors, rows: int
) -> dict[str, torch.Tensor]:
    bucket, session = next(step for step in ladder if step[0] is None or step[0] >= rows)
    padding = (bucket or rows) - rows
    outputs = session.run(
        {
            name: _padded(name, tensor, padding).to(session.inputs[name].dtype)
            for name, tensor in feeds.items()
        }
    )
    return {name: _as_float32(tensor[:rows]) for name, tensor in outputs.items()}


def _padded(name: str, tensor: torch.Tensor, padding: int) -> torch.Tensor:
    """With its last row repeated: a row of zeros could make numbers that are slow or not finite."""
    if not padding or not _has_rows(name, tensor):
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(padding, *tensor.shape[1:])])


def _rows(feeds: Tensors, start: int, end: int) -> dict[str, torch.Tensor]:
    return {name: tensor[start:end] if _has_rows(name, tensor) else tensor for name, tensor in feeds.items()}


def _has_rows(name: str, tensor: torch.Tensor) -> bool:
    return tensor.ndim > 0 and name not in ROWLESS


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
