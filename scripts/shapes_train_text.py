"""The text encoder of the shapes model: it first learns to read, alone, before it guides the denoiser."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel

from scripts.shapes_lessons import FACTS, Lesson, LessonKind, lesson
from scripts.shapes_train_loop import Stage

WIDTH, LAYERS, HEADS, LENGTH = 128, 2, 4, 77
BATCH = 32
STEPS, RATE = 2000, 1e-3
NOISE = 0.5
"""Standard deviations added to the states: what is read must stand out."""
MIXTURE: dict[LessonKind, float] = {"centred": 0.3, "placed": 0.3, "pair": 0.4}


def text_encoder(tokenizer: Any) -> CLIPTextModel:
    """With new weights."""
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            max_position_embeddings=LENGTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # The gradient of the fused attention costs more on CPUs.
    encoder.set_attn_implementation("eager")
    return encoder


def tokens(tokenizer: Any, captions: Sequence[str]) -> Tensor:
    """int64 [captions, 77]."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, max_length=LENGTH)
    return torch.tensor(encoded.input_ids)


class Reading(nn.Module):
    """A text encoder, and a linear probe that must find all facts in each state after the caption's end."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        self.end: Any = encoder.config.eos_token_id
        self.probe = nn.Linear(WIDTH, sum(len(values) + 1 for values in FACTS.values()))

    def forward(self, ids: Tensor, facts: Tensor, noise: Tensor) -> Tensor:
        """The mean cross entropy over facts [captions, facts] and states."""
        states = self.encoder(ids).last_hidden_state + NOISE * noise
        ended = ids.eq(self.end)
        rows = ended.nonzero()[:, 0]
        guesses = self.probe(states[ended]).split([len(values) + 1 for values in FACTS.values()], dim=1)
        losses = [functional.cross_entropy(guess, facts[rows, i]) for i, guess in enumerate(guesses)]
        return torch.stack(losses).mean()


def facts(lessons: Sequence[Lesson]) -> Tensor:
    """What each lesson says, int64 [lessons, facts]: 0 is unsaid."""
    return torch.tensor(
        [
            [
                1 + list(values).index(lesson.says[fact]) if fact in lesson.says else 0
                for fact, values in FACTS.items()
            ]
            for lesson in lessons
        ]
    )


def draw_lessons(mixture: dict[LessonKind, float], count: int, chance: random.Random) -> list[Lesson]:
    kinds = chance.choices(list(mixture), list(mixture.values()), k=count)
    return [lesson(kind, chance) for kind in kinds]


@dataclass(frozen=True, slots=True)
class Captions:
    ids: Tensor
    facts: Tensor
    noise: Tensor


def reading_stage(tokenizer: Any, device: torch.device) -> Stage[Captions]:
    torch.manual_seed(1)
    reading = Reading(text_encoder(tokenizer)).to(device)

    def batches(step: int) -> list[Captions]:
        chance, generator = random.Random(f"reading {step}"), torch.Generator().manual_seed(step)
        lessons = draw_lessons(MIXTURE, BATCH, chance)
        ids = tokens(tokenizer, [each.caption for each in lessons])
        noise = torch.randn(BATCH, LENGTH, WIDTH, generator=generator)
        return [Captions(ids.to(device), facts(lessons).to(device), noise.to(device))]

    def loss(captions: Captions) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            found: Tensor = reading(captions.ids, captions.facts, captions.noise)
        return found

    return Stage("reading", reading, batches, loss, STEPS, RATE)
