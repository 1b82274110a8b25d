"""TransformersEnhancer: prompts enhanced by a text-generation model in a local folder."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from backends._building import BUILDING
from backends._quiet import quiet
from backends._thread import on_a_thread_of_its_own, to_its_end
from router.enhancer import EnhanceConfig
from router.errors import ConfigError, EnhanceError


class TransformersEnhancer:
    """One model, one prompt at a time, each on a thread of its own. Weights are safetensors alone.

    A model whose tokenizer has a chat template is given the instruction and answers with a prompt;
    one without goes on writing at the end of the user's.
    """

    def __init__(self, config: EnhanceConfig) -> None:
        self._config = config
        self._folder = _folder(config)
        self._turn = asyncio.Lock()
        self._model: Any = None
        self._tokenizer: Any = None

    async def open(self) -> None:
        try:
            self._tokenizer, self._model = await on_a_thread_of_its_own(self._read)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as exc:
            raise EnhanceError(
                f"The enhancer's model {self._folder.name!r} cannot be loaded ({type(exc).__name__});"
                " put a whole text-generation model there."
            ) from exc

    async def enhance(self, prompt: str, seed: int) -> str:
        stop = threading.Event()
        async with self._turn:
            return await to_its_end(lambda: self._write(prompt, seed, stop), stop.set, name="enhance")

    async def close(self) -> None:
        self._model = self._tokenizer = None

    # On a thread of its own.

    def _read(self) -> tuple[Any, Any]:
        settings: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with BUILDING, quiet():
            tokenizer = AutoTokenizer.from_pretrained(self._folder, **settings)
            model: Any = AutoModelForCausalLM.from_pretrained(
                self._folder, use_safetensors=True, dtype=self._config.dtype, **settings
            )
        return tokenizer, model.to(self._config.device).eval()

    @torch.no_grad()
    def _write(self, prompt: str, seed: int, stop: threading.Event) -> str:
        ids = self._ids(prompt).to(self._config.device)  # [1, tokens]
        self._check_window(ids.shape[1])
        written = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=self._generation(),
            logits_processor=_drawing(self._config.temperature, seed),
            stopping_criteria=StoppingCriteriaList([_Stopped(stop)]),
        )[0, ids.shape[1] :]
        text: str = self._tokenizer.decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        if not self._chats:
            return prompt + text
        if len(written) >= self._config.max_tokens and int(written[-1]) not in self._ends():
            raise EnhanceError("The enhancer's answer was cut off at its end; raise `enhance.max_tokens`.")
        return text

    @property
    def _chats(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def _ids(self, prompt: str) -> torch.Tensor:
        if not self._chats:
            ids: torch.Tensor = self._tokenizer(prompt, return_tensors="pt").input_ids
            return ids
        messages = [
            {"role": "system", "content": self._config.instruction},
            {"role": "user", "content": prompt},
        ]
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = self._tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
        return ids

    def _check_window(self, count: int) -> None:
        window = getattr(self._model.config, "max_position_embeddings", None)
        if window is not None and count + self._config.max_tokens > window:
            raise EnhanceError(
                f"The prompt has {count} tokens for the enhancer, whose model holds {window} with the"
                f" {self._config.max_tokens} of `enhance.max_tokens`; shorten the prompt, or lower those."
            )

    def _generation(self) -> GenerationConfig:
        """The likeliest word each time; where words are drawn, a processor has drawn them before."""
        ends = sorted(self._ends())
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self._config.max_tokens,
            do_sample=False,
            num_beams=1,
            eos_token_id=ends or None,
            pad_token_id=self._tokenizer.pad_token_id or (ends[0] if ends else 0),
        )

    def _ends(self) -> set[int]:
        """Tokens that end an answer, as the model's own settings and its tokenizer say."""
        own = self._model.generation_config.eos_token_id
        named = own if isinstance(own, list) else [own]
        return {end for end in [*named, self._tokenizer.eos_token_id] if end is not None}


class _Stopped(StoppingCriteria):
    """Ends the writing after the word in hand, when nobody waits for it any more."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **others: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), self._stop.is_set(), device=input_ids.device)


class _Gumbel(LogitsProcessor):
    """Noise under which the likeliest word is a drawn one: argmax(logits / T + Gumbel) ~ softmax(logits / T).

    The library draws from the process's one generator, which other threads use too; this has its own.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self._temperature = temperature
        self._generator = torch.Generator("cpu").manual_seed(seed)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(scores.shape, generator=self._generator).clamp_min_(1e-20)
        noise = -torch.log(-torch.log(uniform)).to(scores.device)
        return scores.float() / self._temperature + noise


def _drawing(temperature: float, seed: int) -> LogitsProcessorList:
    return LogitsProcessorList([_Gumbel(temperature, seed)] if temperature else [])


def _folder(config: EnhanceConfig) -> Path:
    for name in ("model", "key_variable"):
        if getattr(config, name):
            raise ConfigError(f"`enhance.{name}` has no meaning for a local model; leave it out.")
    folder = Path(config.source)
    if not config.source or not (folder / "config.json").is_file():
        raise ConfigError(
            "`enhance.source` must be the folder of a text-generation model, with its config.json."
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"`enhance.source` {folder.name!r} holds no .safetensors file, and nothing else is read;"
            " convert its weights."
        )
    return folder
