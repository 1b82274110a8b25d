"""The local enhancer: tiny text-generation models with random weights, made here."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from backends.enhance_transformers import TransformersEnhancer
from router.enhancer import EnhanceConfig
from router.errors import ConfigError, EnhanceError
from router.registry import resolve_enhancer
from tests.doubles import Double, begin, router_of, until
from tests.miniatures import CLIP_END, CLIP_START, CLIP_VOCABULARY
from tests.pipeline_layout import TOKENIZERS

CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}say: "
WINDOW = 256


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that goes on writing, as prompt models made of GPT-2 do."""
    folder = tmp_path_factory.mktemp("writer")
    config = GPT2Config(
        vocab_size=CLIP_VOCABULARY,
        n_positions=WINDOW,
        n_embd=32,
        n_layer=2,
        n_head=2,
        bos_token_id=CLIP_START,
        eos_token_id=CLIP_END,
    )
    return _saved(GPT2LMHeadModel(config), folder)


@pytest.fixture(scope="module")
def chatter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has a chat template."""
    folder = tmp_path_factory.mktemp("chatter")
    config = LlamaConfig(
        vocab_size=CLIP_VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=WINDOW,
        bos_token_id=CLIP_START,
        eos_token_id=CLIP_END,
    )
    _saved(LlamaForCausalLM(config), folder)
    (folder / "chat_template.jinja").write_text(CHAT)
    return folder


def _saved(model: Any, folder: Path) -> Path:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.5)
        for token in _no_words():
            model.get_output_embeddings().weight[token] = 0  # never the likeliest
    model.save_pretrained(folder)
    shutil.copytree(TOKENIZERS / "clip", folder, dirs_exist_ok=True)
    return folder


def _no_words() -> list[int]:
    """Bytes and marks, of which an answer would be no text."""
    vocabulary = json.loads((TOKENIZERS / "clip" / "vocab.json").read_text())
    return [
        token
        for text, token in vocabulary.items()
        if not (text.isascii() and text.removesuffix("</w>").isalpha())
    ]


async def opened(folder: Path, **settings: Any) -> TransformersEnhancer:
    config = EnhanceConfig(**{"kind": "transformers", "source": str(folder), "max_tokens": 12} | settings)
    enhancer = await asyncio.to_thread(TransformersEnhancer, config)
    await enhancer.open()
    return enhancer


async def test_one_without_a_chat_template_goes_on_writing(writer: Path) -> None:
    assert resolve_enhancer("transformers") is TransformersEnhancer  # type: ignore[comparison-overlap]
    enhancer = await opened(writer)
    written = await enhancer.enhance("a red circle", 0)
    assert written.startswith("a red circle")
    assert len(written) > len("a red circle")
    assert await enhancer.enhance("a red circle", 1) == written  # the likeliest words know no seed
    assert await enhancer.enhance("a blue star", 0) != written


async def test_drawn_words_go_by_the_seed_alone(writer: Path) -> None:
    enhancer = await opened(writer, temperature=1.5)
    first = await enhancer.enhance("a red circle", 1)
    torch.manual_seed(99)  # the process's own generator has no part in it
    assert await enhancer.enhance("a red circle", 1) == first
    assert await enhancer.enhance("a red circle", 2) != first


async def test_one_with_a_chat_template_is_given_the_instruction(chatter: Path) -> None:
    enhancer = await opened(chatter, max_tokens=200, instruction="paint")
    asked = enhancer._tokenizer.decode(enhancer._ids("a red circle")[0])
    assert asked.replace(" ", "").strip() == "system:paintuser:aredcirclesay:"
    other = await opened(chatter, max_tokens=200, instruction="say it loud")
    outcomes = []
    for each in (enhancer, other):
        try:
            outcomes.append(await each.enhance("a red circle", 0))
        except EnhanceError as exc:  # random weights need not know where to end
            outcomes.append(str(exc))
    assert all("a red circle" not in outcome[:12] for outcome in outcomes)


async def test_an_answer_that_was_cut_is_a_failure(chatter: Path) -> None:
    enhancer = await opened(chatter, max_tokens=1)
    with pytest.raises(EnhanceError, match=r"cut off at its end; raise `enhance\.max_tokens`"):
        await enhancer.enhance("a red circle", 0)


async def test_a_prompt_beyond_its_own_window_is_refused(writer: Path) -> None:
    enhancer = await opened(writer)
    with pytest.raises(EnhanceError, match=f"tokens for the enhancer, whose model holds {WINDOW}"):
        await enhancer.enhance("red " * WINDOW, 0)
    assert await enhancer.enhance("a red circle", 0)


async def test_in_the_router_it_runs_beside_the_loop_and_stops_at_a_word(
    writer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard in conftest.py sees to the loop; the model's thread is let on word by word."""
    config = EnhanceConfig(kind="transformers", source=str(writer), max_tokens=200)
    a = Double()
    words: list[int] = []
    async with router_of(a, enhance=config) as router:
        result = await router.generate(prompt="a red circle", enhance=True)
        assert result.enhancement is not None
        assert a.seen[0].prompt == result.enhancement.prompt != "a red circle"
        model = router._enhancements._opening.result()._model  # type: ignore[union-attr]
        plain = model.forward

        def counted(*args: Any, **kwargs: Any) -> Any:
            words.append(1)
            return plain(*args, **kwargs)

        monkeypatch.setattr(model, "forward", counted)
        running = begin(router, "a blue star", enhance=True)
        await until(lambda: len(words) > 2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        made = len(words)
        assert made < 190
        await asyncio.sleep(0.01)
        assert len(words) == made  # its thread has ended


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"source": ""}, "`enhance.source` must be the folder of a text-generation model"),
        ({"source": "/nowhere"}, "`enhance.source` must be the folder of a text-generation model"),
        ({"model": "gpt"}, "`enhance.model` has no meaning for a local model"),
        ({"key_variable": "KEY"}, "`enhance.key_variable` has no meaning for a local model"),
    ],
)
def test_a_wrong_setting_is_named(writer: Path, settings: dict[str, str], says: str) -> None:
    config = EnhanceConfig(**{"kind": "transformers", "source": str(writer)} | settings)
    with pytest.raises(ConfigError, match=says):
        TransformersEnhancer(config)


async def test_pickles_are_never_read_and_damage_is_told(writer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(writer, tmp_path / "copy")
    config = EnhanceConfig(kind="transformers", source=str(folder))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EnhanceError, match="model 'copy' cannot be loaded"):
        await (await asyncio.to_thread(TransformersEnhancer, config)).open()
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"holds no \.safetensors file, and nothing else is read"):
        await asyncio.to_thread(TransformersEnhancer, config)


async def test_code_in_the_folder_is_not_run(writer: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(writer, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('it was run')")
    enhancer = await asyncio.to_thread(
        TransformersEnhancer, EnhanceConfig(kind="transformers", source=str(folder))
    )
    with pytest.raises(EnhanceError, match="cannot be loaded"):
        await enhancer.open()
