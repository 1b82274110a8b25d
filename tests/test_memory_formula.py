"""What the formulas say of models of the published sizes, before anything of them is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backends._footprint import MemorySettings, footprint
from router.footprint import Demand, Estimate, Footprint
from router.model_folder import ModelFolder
from tests.command_line import as_object, configure, triptych
from tests.miniatures import miniature
from tests.published_models import published_model

MEGAPIXEL = 1024 * 1024
GUIDED = Demand(rows=2, pictures=1, pixels=MEGAPIXEL)
GB = 10**9


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


def of(
    name: str, models: Path, dtype: torch.dtype = torch.float16, settings: MemorySettings | None = None
) -> Footprint:
    folder = models / name if (models / name).exists() else published_model(name, models)
    return footprint(ModelFolder(folder, "photo"), dtype, settings or MemorySettings())


def test_a_megapixel_of_sdxl_takes_gigabytes_not_hundreds(models: Path) -> None:
    """An earlier system estimated 263 GB for it, and made 432x432 of every 1024x1024."""
    estimate = Estimate.of(of("sdxl", models), GUIDED, budget_bytes=12 * GB)
    assert 6.8 * GB < estimate.weights_bytes < 7.1 * GB
    assert 0.9 * GB < estimate.denoise_bytes < 1.2 * GB
    assert 3.2 * GB < estimate.decode_bytes < 4.5 * GB  # in float32
    assert estimate.fits


def test_the_command_line_tells_it_and_keeps_the_size(models: Path, folder: Path) -> None:
    published = models / "sdxl" if (models / "sdxl").exists() else published_model("sdxl", models)
    configure(
        folder,
        f'[device_memory]\ncpu = "10GB"\n[[models.photo.instances]]\nbackend = "diffusers"\ndevice = "cpu"\n'
        f'dtype = "bfloat16"\nsource = "{published}"\n',
    )
    (route,) = as_object(triptych("explain", "a photograph", "--json"))["routes"]
    assert route["candidates"] == ["photo/diffusers"]
    assert (route["parameters"]["height"], route["parameters"]["width"]) == (1024, 1024)
    estimate = route["estimates"]["photo/diffusers"]
    assert 9 * GB < estimate["needed_bytes"] < 10 * GB
    assert estimate["measured"] == []


@pytest.mark.parametrize(
    ("name", "rows", "least", "most"),
    [("sd15", 2, 0.5, 1.2), ("sdxl", 2, 0.3, 1.2), ("sd35-medium", 2, 0.33, 0.7), ("flux", 1, 0.48, 1.0)],
)
def test_the_denoisers_of_all_families_take_what_was_counted_and_somewhat_more(
    name: str, rows: int, least: float, most: float, models: Path
) -> None:
    """`least` is what scripts/count_workspace counts for one megapixel in 16 bits."""
    taken = of(name, models).denoise_bytes([Demand(rows, 1, MEGAPIXEL)])
    assert least * GB < taken < most * GB


def test_width_of_the_dtype_counts_and_the_vae_has_its_own(models: Path) -> None:
    half, whole = of("sdxl", models), of("sdxl", models, torch.float32)
    assert whole.weights_bytes == 2 * half.weights_bytes
    assert whole.row_bytes_per_pixel == 2 * half.row_bytes_per_pixel
    assert whole.decode_bytes_per_pixel == half.decode_bytes_per_pixel  # SDXL's VAE decodes in float32
    bfloat = of("sdxl", models, torch.bfloat16)
    assert bfloat.decode_bytes_per_pixel * 2 == whole.decode_bytes_per_pixel
    narrow = of("sdxl", models, settings=MemorySettings(vae_dtype=torch.float16))
    assert narrow.decode_bytes_per_pixel * 2 == half.decode_bytes_per_pixel


def test_offload_leaves_the_largest_part_on_the_device(models: Path) -> None:
    model = of("sdxl", models, settings=MemorySettings(offload="model"))
    assert 5.1 * GB < model.weights_bytes < 5.2 * GB  # the UNet
    layer = of("sdxl", models, settings=MemorySettings(offload="sequential"))
    assert layer.weights_bytes < 0.3 * GB


def test_tiles_bound_what_a_large_picture_takes_to_decode(models: Path) -> None:
    tiled = of("sdxl", models, settings=MemorySettings(vae_tiling=True))
    large = Demand(rows=2, pictures=1, pixels=4 * MEGAPIXEL)
    assert tiled.decode_bytes([large]) == tiled.decode_bytes([GUIDED])
    assert of("sdxl", models).decode_bytes([large]) == 4 * tiled.decode_bytes([GUIDED])


def test_pictures_decoded_together_count_unless_in_slices(models: Path) -> None:
    four = Demand(rows=8, pictures=4, pixels=512 * 512)
    together = of("sd15", models, settings=MemorySettings(decode_limit=4))
    assert together.decode_bytes([four]) == 4 * of("sd15", models).decode_bytes([four])


def test_what_t5_keeps_in_float32_is_counted(miniatures: Path) -> None:
    folder = ModelFolder(miniature("sd3", miniatures), "small")
    kept = sum(tensor.elements for name, tensor in folder.tensors("text_encoder_3").items() if ".wo." in name)
    half, bfloat = (
        footprint(folder, dtype, MemorySettings()).weights_bytes for dtype in (torch.float16, torch.bfloat16)
    )
    assert half - bfloat == 2 * kept > 0


def test_a_fingerprint_is_of_tensors_and_configurations(models: Path, model_folder: Path) -> None:
    before = ModelFolder(model_folder, "a").fingerprint()
    assert ModelFolder(model_folder, "b").fingerprint() == before
    config = model_folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 1', '"layers_per_block": 3'))
    assert ModelFolder(model_folder, "a").fingerprint() != before
