"""What kept answers of an enhancer of prompts bring: a new prompt against a known one, on a fake backend."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from router.config import InstanceConfig, ModelConfig, RouterConfig
from router.enhancer import EnhanceConfig
from router.router import BackendRouter
from scripts.machine import machine
from tests.pipeline_layout import TOKENIZERS


async def measure(repeats: int) -> dict[str, Any]:
    """A picture of the fake backend with a new prompt each time, and with one that is known."""
    with tempfile.TemporaryDirectory() as folder:
        config = EnhanceConfig(kind="transformers", source=str(_writer(Path(folder))), max_tokens=60)
        fake = ModelConfig(name="m", instances=(InstanceConfig(name="m/fake", backend="fake"),))
        router_config = RouterConfig(models=(fake,), default_model="m", enhance=config)
        seconds: dict[bool, list[float]] = {False: [], True: []}
        async with BackendRouter(router_config) as router:
            await router.generate(prompt="warm", enhance=True)
            for index in range(repeats):
                for known in (False, True):
                    started = time.perf_counter()
                    await router.generate(prompt=f"a red circle {index}", enhance=True)
                    seconds[known].append(time.perf_counter() - started)
            found = router.statistics().enhancements
    new, known = (statistics.median(seconds[kept]) for kept in (False, True))
    return {
        "machine": machine(),
        "what": "a GPT-2 of 15 million parameters, 60 tokens",
        "new_s": new,
        "known_s": known,
        "ratio": new / known,
        "runs": {"new": seconds[False], "known": seconds[True]},
        "answers": str(found),
    }


def _writer(folder: Path) -> Path:
    """A text-generation model of the size of a small prompt writer, with random weights."""
    vocabulary = json.loads((TOKENIZERS / "clip" / "vocab.json").read_text())
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(vocabulary), n_embd=384, n_layer=8, n_head=6))
    words = {index for text, index in vocabulary.items() if text.isascii() and text[:1].isalpha()}
    with torch.no_grad():
        for index in set(vocabulary.values()) - words:
            model.get_output_embeddings().weight[index] = 0
    model.save_pretrained(folder)
    shutil.copytree(TOKENIZERS / "clip", folder, dirs_exist_ok=True)
    return folder
