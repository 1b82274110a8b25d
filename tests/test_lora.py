"""LoRAs known by their headers: family, width, what fits which model, and why another does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.errors import ConfigError, InvalidRequestError
from router.lora import Lora, LoraAbility, LoraError, LoraFacts, find_loras
from router.lora_fit import LoraFit, loras_of
from router.lora_names import diffusers_name
from router.lora_request import lora_of, lora_set
from router.model_folder import ModelFolder
from router.request import GenerateRequest
from router.single_file import open_model
from tests import headers
from tests.loras import save_kohya, save_lora
from tests.miniatures import miniature
from tests.single_files import single_file

ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = "lora_unet_" + ATTENTION.replace(".", "_")


def pair(
    module: str, width: int, *, out: int = 32, rank: int = 4, ends: str = "AB"
) -> dict[str, tuple[int, ...]]:
    names = {"AB": ("lora_A", "lora_B"), "kohya": ("lora_down", "lora_up"), "old": ("lora.down", "lora.up")}[
        ends
    ]
    return {f"{module}.{names[0]}.weight": (rank, width), f"{module}.{names[1]}.weight": (out, rank)}


def lora(folder: Path, shapes: dict[str, tuple[int, ...]], name: str = "ink") -> Lora:
    return Lora.read(name, headers.checkpoint(folder / f"{name}.safetensors", shapes))


@pytest.mark.parametrize(
    ("module", "ends", "width", "family"),
    [
        (f"unet.{ATTENTION}", "AB", 768, "stable-diffusion"),
        (f"unet.{ATTENTION}", "old", 1024, "stable-diffusion-2"),
        (KOHYA, "kohya", 2048, "stable-diffusion-xl"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", "kohya", 2048, "stable-diffusion-xl"),
        (ATTENTION, "AB", 768, "stable-diffusion"),
        ("transformer.transformer_blocks.0.attn.to_q", "AB", 1536, "stable-diffusion-3"),
        ("transformer.transformer_blocks.0.attn.to_q", "AB", 3072, "flux"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "kohya", 3072, "flux"),
        (f"unet.{ATTENTION}", "AB", 32, ""),
    ],
)
def test_family_and_width_are_read_off_the_header(
    module: str, ends: str, width: int, family: str, tmp_path: Path
) -> None:
    facts = lora(tmp_path, pair(module, width, ends=ends, rank=8)).facts()
    assert (facts.width, facts.family, facts.rank) == (width, family, 8)
    assert facts.size_bytes == 2 * 8 * (width + 32)
    assert facts.parameters == 8 * ((3 if "qkv" in module else 1) * width + 32)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({**pair(KOHYA, 768, ends="kohya"), f"{KOHYA}.dora_scale": (32, 1)}, "is a DoRA"),
        ({f"{KOHYA}.hada_w1_a": (4, 4)}, "is a LyCORIS"),
        ({"lora_te_text_model.lora_magnitude_vector": (4,)}, "is a DoRA"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}, "is no LoRA"),
        ({f"{KOHYA}.alpha": ()}, "holds no matrices"),
        ({f"{KOHYA}.lora_down.weight": (4, 768)}, "lacks one of the two matrices"),
        ({**pair(KOHYA, 768, ends="kohya"), f"{KOHYA}.lora_up.weight": (32, 3)}, "do not go together"),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(
    shapes: dict[str, tuple[int, ...]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(LoraError, match=sentence):
        lora(tmp_path, shapes)


def test_pickles_and_damaged_files_are_refused_with_their_cure(tmp_path: Path) -> None:
    whole = headers.checkpoint(tmp_path / "whole.safetensors", pair(f"unet.{ATTENTION}", 32)).read_bytes()
    (tmp_path / "short.safetensors").write_bytes(whole[:-8])
    (tmp_path / "text.safetensors").write_text("not a LoRA")
    (tmp_path / "old.ckpt").write_bytes(b"PK\x03\x04")
    (tmp_path / "hidden.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    for name, sentence in {
        "short": "is cut short",
        "text": "is damaged",
        "old": "is a pickle, which can run code",
        "hidden": "is a pickle under another name",
    }.items():
        with pytest.raises(LoraError, match=sentence):
            Lora.read(name, find_loras([str(tmp_path)])[name])


def test_names_are_those_of_files_or_of_the_folders_that_diffusers_saved_into(tmp_path: Path) -> None:
    (tmp_path / "oil").mkdir()
    for file in ("ink.safetensors", "oil/pytorch_lora_weights.safetensors", "notes.txt"):
        (tmp_path / file).write_bytes(b"")
    assert set(find_loras([str(tmp_path)])) == {"ink", "oil"}
    (tmp_path / "more").mkdir()
    (tmp_path / "more/ink.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match="two LoRAs called 'ink'"):
        find_loras([str(tmp_path), str(tmp_path / "more")])
    with pytest.raises(ConfigError, match="is no folder"):
        find_loras([str(tmp_path / "absent")])


@pytest.mark.parametrize(
    ("family", "shapes", "sentence"),
    [
        ("sd15", pair(f"unet.{ATTENTION}", 32), ""),
        ("sd15", pair(KOHYA, 32, ends="kohya"), ""),
        ("sd15", pair("lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k", 32, ends="kohya"), ""),
        ("sd15", pair(f"unet.{ATTENTION}", 2048), "width 2048 (stable-diffusion-xl), and this model's is 32"),
        (
            "sd15",
            pair(f"unet.{ATTENTION}", 32, out=64),
            "from 32 to 64 wide, and this model's goes from 32 to 32",
        ),
        ("sd15", pair("unet.down_blocks.7.resnets.0.conv1", 32), "1 of 1 layers that this model has not"),
        ("sd15", pair("transformer.transformer_blocks.0.attn.to_q", 3072), "changes a transformer (flux)"),
        ("sd15", pair("text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj", 32), "has not"),
        ("sd15", pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 32, ends="kohya"), ""),
        (
            "sd15",
            pair("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 64, ends="kohya"),
            "64 to 32 wide",
        ),
        ("sd3", pair("transformer.transformer_blocks.0.attn.to_q", 32), ""),
        ("sd3", pair("lora_unet_transformer_blocks_0_attn_to_q", 32, ends="kohya"), "is in kohya's layout"),
        ("sd3", pair("text_encoder_3.encoder.block.0.layer.0.SelfAttention.q", 64), "a T5EncoderModel"),
        ("flux", pair("lora_unet_double_blocks_0_img_attn_qkv", 32, out=96, ends="kohya"), ""),
        ("flux", pair("lora_unet_double_blocks_5_img_attn_qkv", 32, out=96, ends="kohya"), "has not"),
        ("flux", pair("transformer.transformer_blocks.0.attn.to_q", 64), "attention of width 64"),
    ],
)
def test_a_lora_fits_where_the_model_has_its_layers_at_their_widths(
    family: str, shapes: dict[str, tuple[int, ...]], sentence: str, miniatures: Path, tmp_path: Path
) -> None:
    names = {"sd15": "stable-diffusion", "sd3": "stable-diffusion-3", "flux": "flux"}
    model = ModelFolder(miniature(family, miniatures), "m")  # type: ignore[arg-type]
    why = LoraFit(model, names[family]).why_not(lora(tmp_path, shapes))
    assert sentence in why
    assert bool(why) == bool(sentence)


def test_an_unfit_one_is_listed_with_its_reason_and_refused_with_those_that_fit(
    miniatures: Path, tmp_path: Path
) -> None:
    headers.checkpoint(tmp_path / "ink.safetensors", pair(f"unet.{ATTENTION}", 32))
    headers.checkpoint(tmp_path / "oil.safetensors", pair(f"unet.{ATTENTION}", 2048))
    (tmp_path / "wax.safetensors").write_bytes(b"1")
    facts = loras_of(ModelFolder(miniature("sd15", miniatures), "m"), "stable-diffusion", [str(tmp_path)])
    loras = LoraAbility(facts, most=2)
    assert loras.names == ("ink",)
    assert loras.why_not(["oil"]) == (
        "LoRA 'oil' was made for text of width 2048 (stable-diffusion-xl), and this model's is 32"
        " (stable-diffusion); those that fit: ink."
    )
    assert (loras.why_not(["wax"]) or "").startswith("LoRA 'wax' is cut short")
    assert loras.why_not(["../oil"]) == "it has no LoRA '../oil'; it has ink."
    assert loras.why_not(["ink", "oil", "wax"]) == "`loras` names 3, and it holds 2 at once; name fewer."
    assert loras.why_not(["ink"]) is None
    assert LoraAbility((LoraFacts("ink"),), none="no.").why_not(["ink"]) == "no."
    many = LoraAbility(tuple(LoraFacts(f"ink{index}") for index in range(25)))
    assert (many.why_not(["oil"]) or "").endswith("ink18, ink19 and 5 more.")


def test_a_checkpoint_of_one_file_is_compared_by_its_published_names(
    miniatures: Path, tmp_path: Path
) -> None:
    file = single_file("sd15", miniatures)
    fit = LoraFit(open_model(file, "m"), "stable-diffusion")
    made = [
        save_lora(tmp_path, "ours", "sd15", miniatures),
        save_kohya(tmp_path, "kohya", "sd15", miniatures),
    ]
    assert [fit.why_not(Lora.read(each.stem, each)) for each in made] == ["", ""]
    assert "has not" in fit.why_not(lora(tmp_path, pair("unet.down_blocks.7.resnets.0.conv1", 32)))


@pytest.mark.parametrize(
    ("published", "own"),
    [
        ("input_blocks_1_1_proj_in", "down_blocks_0_attentions_0_proj_in"),
        ("input_blocks_3_0_op", "down_blocks_0_downsamplers_0_conv"),
        ("input_blocks_4_0_in_layers_2", "down_blocks_1_resnets_0_conv1"),
        (
            "middle_block_1_transformer_blocks_9_attn1_to_q",
            "mid_block_attentions_0_transformer_blocks_9_attn1_to_q",
        ),
        ("output_blocks_2_2_conv", "up_blocks_0_upsamplers_0_conv"),
        ("output_blocks_5_1_norm", "up_blocks_1_attentions_2_norm"),
        ("time_embed_0", "time_embedding_linear_1"),
        ("down_blocks_1_attentions_0_proj_in", "down_blocks_1_attentions_0_proj_in"),
        ("single_blocks_3_modulation_lin", "single_transformer_blocks_3_norm_linear"),
    ],
)
def test_published_layers_are_named_as_diffusers_names_them(published: str, own: str) -> None:
    assert diffusers_name(published, layers_per_block=2) == own


def test_a_set_of_loras_is_the_same_however_it_was_written() -> None:
    def asked(*loras: tuple[str, float], **fields: object) -> GenerateRequest:
        given = [{"name": name, "weight": weight} for name, weight in loras]
        return GenerateRequest.of(prompt="x", loras=given, **fields)

    assert lora_set(asked(("b", 1.0), ("a", -0.5), ("c", 0.0))) == (("a", -0.5), ("b", 1.0))
    assert lora_set(asked(("b", 1.0), ("a", -0.5), reproducible=True)) == (("b", 1.0), ("a", -0.5))
    with pytest.raises(InvalidRequestError, match="names 'a' twice"):
        asked(("a", 1.0), ("a", 0.5))
    with pytest.raises(InvalidRequestError, match=r"loras\.0\.weight"):
        asked(("a", 101.0))
    with pytest.raises(InvalidRequestError, match="`loras` is a list, but must have at most 16 entries"):
        asked(*((f"a{index}", 1.0) for index in range(17)))
    assert lora_of("ink") == {"name": "ink"}
    assert lora_of("a:b:-0.5") == {"name": "a:b", "weight": -0.5}
    with pytest.raises(InvalidRequestError, match="NAME:WEIGHT"):
        lora_of("ink:strong")
