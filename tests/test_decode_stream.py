"""Decoding beside the denoiser's runs: which stream each piece of work goes to, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from backends import _decode_stream, _pictures
from backends.diffusers import DiffusersBackend
from router.errors import ConfigError, DeviceLostError, MemoryBudgetError, RequestCancelledError
from router.types import Generated
from tests.diffusers_doubles import Lanes, generate, loaded, make
from tests.miniatures import Family, miniature

OPTIONS = {"decode_stream": True}


class Streams:
    """Both streams of a device: remembers what was asked of them, and on which one the thread is."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.kept: list[torch.Tensor] = []
        self.on = "own"

    def enter(self) -> None:
        self.on = "other"

    def leave(self) -> None:
        self.on = "own"

    def catch_up(self) -> None:
        self.told.append(f"catch up on {self.on}")

    def keep(self, tensor: torch.Tensor) -> None:
        self.kept.append(tensor)
        self.told.append("keep")

    def finish(self) -> None:
        self.told.append(f"finish on {self.on}")

    def telling(self, name: str, function: Any) -> Any:
        def told(*args: Any, **values: Any) -> Any:
            self.told.append(f"{name} on {self.on}")
            return function(*args, **values)

        return told


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Stand for those of CUDA, on a CPU."""
    made = Streams()
    monkeypatch.setattr(_decode_stream, "CudaStreams", lambda device: made)
    monkeypatch.setattr("backends._speed.check_device", lambda *told: None)
    monkeypatch.setattr(_pictures, "begin", made.telling("copy", _pictures.begin))
    return made


async def watched(lanes: Lanes, source: Path, streams: Streams, **fields: Any) -> DiffusersBackend:
    """A backend whose denoiser and decoder say on which stream they run."""
    backend = await loaded(lanes, source, options=OPTIONS, **fields)
    backend.never_waits = True  # as on CUDA
    for name, gathering in backend._gatherings.items():
        if name in ("unet", "transformer", "vae"):
            named = "decode" if name == "vae" else "denoise"
            gathering._function = streams.telling(named, gathering._function)
    return backend


def pixels(made: Generated) -> bytes:
    image = made.pictures[0].image
    assert image is not None
    return image.pixels


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux"])
async def test_a_picture_is_decoded_and_copied_on_the_other_stream(
    family: Family, miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    source = miniature(family, miniatures)
    backend = await watched(lanes, source, streams)
    made = await generate(backend, num_inference_steps=2)
    after = streams.told[streams.told.index("catch up on own") :]
    assert after == ["catch up on own", "keep", "decode on other", "copy on other"]
    assert set(streams.told[: -len(after)]) == {"denoise on own"}
    assert streams.on == "own"
    plain = await loaded(lanes, source)
    assert pixels(made) == pixels(await generate(plain, num_inference_steps=2))


async def test_the_latents_are_what_is_kept(miniatures: Path, lanes: Lanes, streams: Streams) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    await generate(backend)
    assert [tuple(each.shape) for each in streams.kept] == [(1, 4, 8, 8)]


async def test_the_denoiser_goes_on_beside_it_on_its_own_stream(
    miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    short, long = generate(backend, num_inference_steps=1), generate(backend, num_inference_steps=4, seed=2)
    await short
    await long
    first = streams.told.index("copy on other")
    assert "denoise on own" in streams.told[first:]
    assert not [told for told in streams.told if told in ("denoise on other", "decode on own", "copy on own")]


async def test_several_pictures_are_decoded_together_and_copied_one_by_one(
    miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    made = await generate(backend, num_images_per_prompt=3)
    after = streams.told[streams.told.index("catch up on own") :]
    expected = ["catch up on own", *["keep"] * 3, "decode on other", *["copy on other"] * 3]
    assert after == expected
    assert len(made.pictures) == 3


class Failing:
    """A decoder that raises, once or always."""

    def __init__(self, decode: Any, said: Sequence[str]) -> None:
        self.decode = decode
        self.said = list(said)

    def __call__(self, **values: Any) -> Any:
        if self.said:
            raise RuntimeError(self.said.pop(0))
        return self.decode(**values)


async def test_want_of_memory_in_a_decode_is_contained(
    miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    vae = backend._gatherings["vae"]
    failing = vae._function = Failing(vae._function, ["CUDA out of memory."])
    made = await generate(backend, num_images_per_prompt=2)
    assert [picture.error for picture in made.pictures] == [None, None]
    failing.said = ["CUDA out of memory."] * 2
    with pytest.raises(MemoryBudgetError):
        await generate(backend)
    assert streams.on == "own"
    failing.said = []
    assert pixels(await generate(backend))


async def test_a_device_that_is_lost_in_a_decode_is_told_to_the_lane(
    miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    vae = backend._gatherings["vae"]
    vae._function = Failing(vae._function, ["CUDA error: an illegal memory access was encountered"])
    with pytest.raises(DeviceLostError):
        await generate(backend)
    assert backend.lane.statistics().lost
    assert streams.on == "own"


async def test_who_is_stopped_before_the_decode_leaves_the_stream_as_it_was(
    miniatures: Path, lanes: Lanes, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)

    def stopped(*calls: Any) -> Any:
        raise RequestCancelledError("The caller cancelled the request.")

    monkeypatch.setattr("backends._pipeline.only_image", stopped)
    with pytest.raises(RequestCancelledError):
        await generate(backend)
    assert streams.on == "own"


async def test_what_is_let_go_is_not_anothers_before_it_was_read(
    miniatures: Path, lanes: Lanes, streams: Streams
) -> None:
    backend = await watched(lanes, miniature("sd15", miniatures), streams)
    await backend.unload()
    assert streams.told[-1] == "finish on own"


async def test_both_stages_are_promised(miniatures: Path, lanes: Lanes, streams: Streams) -> None:
    found = await make(lanes, miniature("sd15", miniatures), options=OPTIONS).probe()
    assert found.footprint.overlapped
    assert "decoding on a stream of its own" in found.notes
    plain = await make(lanes, miniature("sd15", miniatures)).probe()
    assert not plain.footprint.overlapped
    assert dict(found.conditions)["settings"] != dict(plain.conditions)["settings"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": OPTIONS}, "`decode_stream` is CUDA's, and `device` is 'cpu'; drop it"),
        ({"options": {**OPTIONS, "offload": "model"}}, "`decode_stream` and `offload` do not go together"),
    ],
)
async def test_where_it_cannot_be_it_is_refused(
    fields: dict[str, Any], words: str, miniatures: Path, lanes: Lanes
) -> None:
    with pytest.raises(ConfigError, match=words):
        await make(lanes, miniature("sd15", miniatures), **fields).probe()


async def test_a_decoder_whose_calls_are_not_gathered_is_refused(
    miniatures: Path, lanes: Lanes, streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {kind: names for kind, names in _decode_stream.BATCHED.items() if kind != "AutoencoderKL"}
    monkeypatch.setattr(_decode_stream, "BATCHED", known)
    with pytest.raises(ConfigError, match="calls of AutoencoderKL are not gathered"):
        await make(lanes, miniature("sd15", miniatures), options=OPTIONS).probe()
