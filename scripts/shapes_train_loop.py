"""The loop that every stage of the training runs in: rate, average of the weights, checkpoints, progress."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]

WARM_UP = 200
"""Steps in which the rate rises to its peak."""
FALL = 0.3
"""Of the steps, at the end: the rate falls to nothing."""
CORES = 2
"""Each with a part of every batch."""
AVERAGE = 0.998
"""Of the averaged weights that stays at each step."""
CHECKPOINT_STEPS = 200
RECENT = 100
"""Steps whose mean loss is shown."""


Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Stage(Generic[Batch]):
    """What is trained, and how.

    The batches of a step depend on nothing but its number; their losses are computed beside each other,
    each on a thread and a core of its own.
    """

    name: str
    module: nn.Module
    batches: Callable[[int], Sequence[Batch]]
    loss: Callable[[Batch], Tensor]
    steps: int
    rate: float


def train(stage: Stage[Any], folder: Path) -> nn.Module:
    """Trains the stage to its end and gives back its averaged copy.

    Goes on from the checkpoint in the folder if there is one: the same weights come out as without a break.
    With fewer or more steps than before too, as long as the rate does not fall yet.
    """
    # One thread for each part, not all for one: where another process takes a core, the gradients of
    # convolutions would wait for it in a busy loop, and a step would take eight times as long.
    with ThreadPoolExecutor(CORES, initializer=torch.set_num_threads, initargs=(1,)) as threads:
        course = _Course.start(stage, threads)
        file = folder / f"{stage.name}.checkpoint"
        if file.is_file():
            course.load(file)
        for step in _progress(course):
            course.advance(step)
            if course.step % CHECKPOINT_STEPS == 0 or course.step == stage.steps:
                course.save(file)
        return course.average


def rate_at(step: int, steps: int) -> float:
    """The part of the peak rate: rises, stays, and falls straight to (almost) nothing."""
    left = (steps - step) / (FALL * steps)
    return min(1.0, (step + 1) / WARM_UP, left)


@dataclass(slots=True)
class _Course:
    stage: Stage[Any]
    weights: list[nn.Parameter]
    average: nn.Module
    optimizer: torch.optim.Optimizer
    threads: ThreadPoolExecutor
    step: int = 0
    recent: float = 0.0

    @classmethod
    def start(cls, stage: Stage[Any], threads: ThreadPoolExecutor) -> _Course:
        weights = [weight for weight in stage.module.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=stage.rate, betas=(0.9, 0.99), weight_decay=0.01)
        average = copy.deepcopy(stage.module).requires_grad_(False).eval()
        return cls(stage, weights, average, optimizer, threads)

    def advance(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.stage.rate * rate_at(step, self.stage.steps)
        loss = self._differentiate(step)
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self._average(step)
        self.step = step + 1
        self.recent += (loss - self.recent) / min(self.step, RECENT) if self.recent else loss

    def _differentiate(self, step: int) -> float:
        """Sets the gradients to their mean over the step's batches; the mean loss."""
        results = list(self.threads.map(self._gradients, self.stage.batches(step)))
        for weight, *gradients in zip(self.weights, *(found for _, found in results), strict=True):
            weight.grad = torch.stack(gradients).mean(dim=0)
        return sum(loss for loss, _ in results) / len(results)

    def _gradients(self, batch: Any) -> tuple[float, tuple[Tensor, ...]]:
        loss = self.stage.loss(batch)
        return float(loss.detach()), torch.autograd.grad(loss, self.weights)

    def _average(self, step: int) -> None:
        old: list[Tensor] = list(self.average.parameters())
        new = [weight.detach() for weight in self.stage.module.parameters()]
        kept = min(AVERAGE, (step + 1) / (step + 10))
        torch._foreach_lerp_(old, new, 1 - kept)

    def save(self, file: Path) -> None:
        """Whole or not at all: a process that is killed leaves the checkpoint before."""
        state = {name: part.state_dict() for name, part in self._parts().items()} | {"step": self.step}
        fresh = file.with_suffix(".fresh")
        with fresh.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)

    def load(self, file: Path) -> None:
        state = torch.load(file, map_location="cpu", weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.step = int(state["step"])

    def _parts(self) -> dict[str, Any]:
        return {"module": self.stage.module, "average": self.average, "optimizer": self.optimizer}


def _progress(course: _Course) -> Iterator[int]:
    """The steps that are left, with a bar; where nobody watches, a line each half minute."""
    stage, done = course.stage, course.step
    seconds = 1 if os.isatty(2) else 30
    with tqdm(desc=stage.name, total=stage.steps, initial=done, mininterval=seconds, unit="step") as bar:
        for step in range(done, stage.steps):
            yield step
            bar.set_postfix(loss=f"{course.recent:.4f}", refresh=False)
            bar.update()
