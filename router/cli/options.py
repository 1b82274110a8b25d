"""The options that say what is asked for, and the requests they stand for."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_type_hints

import typer

from router.errors import InvalidRequestError
from router.lora_request import lora_of
from router.request import GenerateRequest

AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")
]

_OPTIONS = {
    "allow_adjustments": "--allow",
    "aspect_ratio": "--aspect",
    "guidance_scale": "--guidance",
    "num_images_per_prompt": "--n",
    "num_inference_steps": "--steps",
    "deadline_s": "--deadline",
    "mask_image": "--mask",
    "negative_prompt": "--negative-prompt",
    "refiner_start": "--refiner-start",
    "reference_strength": "--reference-strength",
    "exact_copy": "--exact-copy",
    "long_prompt": "--long-prompt",
    "loras": "--lora",
    "prompt_weighting": "--prompt-weighting",
} | {
    name: f"--{name}"
    for name in (
        *(
            "enhance",
            "image",
            "latents",
            "model",
            "preset",
            "size",
            "reproducible",
            "scale",
            "scheduler",
            "seed",
            "strength",
        ),
    )
}
"""Field of the request -> the option that sets it."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line asks for. The fields are named as those of `GenerateRequest`."""

    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT", help="What to paint; several prompts run side by side."),
    ] = None
    negative_prompt: Annotated[
        str | None, typer.Option(_OPTIONS["negative_prompt"], help="What not to paint.")
    ] = None
    enhance: Annotated[
        bool | None,
        typer.Option("--enhance/--no-enhance", help="Have a fuller prompt made first; else as configured."),
    ] = None
    long_prompt: Annotated[
        str | None,
        typer.Option(_OPTIONS["long_prompt"], metavar="refuse|chunk", help="One beyond the model's window."),
    ] = None
    prompt_weighting: Annotated[
        bool, typer.Option(_OPTIONS["prompt_weighting"], help="(word:1.3) in the prompts is a weight.")
    ] = False
    model: Annotated[str | None, typer.Option(_OPTIONS["model"], help="A configured model.")] = None
    size: Annotated[
        str | None,
        typer.Option(
            "--size", metavar="s|m|l|WIDTHxHEIGHT", help="l is the model's own; 1024x768 is landscape."
        ),
    ] = None
    aspect_ratio: Annotated[
        str | None,
        typer.Option(_OPTIONS["aspect_ratio"], metavar="WIDTH:HEIGHT", help="Shape of --size: 16:9."),
    ] = None
    num_inference_steps: Annotated[
        int | None, typer.Option(_OPTIONS["num_inference_steps"], help="Denoising steps.")
    ] = None
    guidance_scale: Annotated[
        float | None, typer.Option(_OPTIONS["guidance_scale"], help="How closely the prompt is followed.")
    ] = None
    num_images_per_prompt: Annotated[
        int, typer.Option(_OPTIONS["num_images_per_prompt"], "-n", help="Pictures of each prompt.")
    ] = 1
    seed: Annotated[
        int | None, typer.Option(_OPTIONS["seed"], help="Picture i of a prompt is made with seed + i - 1.")
    ] = None
    image: Annotated[
        Path | None, typer.Option(_OPTIONS["image"], help="A picture to start from: PNG, JPEG or WebP.")
    ] = None
    mask_image: Annotated[
        Path | None, typer.Option(_OPTIONS["mask_image"], help="Where to paint --image anew: white.")
    ] = None
    strength: Annotated[
        float | None, typer.Option(_OPTIONS["strength"], help="0 keeps --image, 1 ignores it.")
    ] = None
    reference_strength: Annotated[
        float | None, typer.Option(_OPTIONS["reference_strength"], help="1 keeps --image, 0 ignores it.")
    ] = None
    exact_copy: Annotated[
        bool, typer.Option(_OPTIONS["exact_copy"], help="--image again, as near as the model codes it.")
    ] = False
    scheduler: Annotated[
        str | None, typer.Option(_OPTIONS["scheduler"], help="A Diffusers class, or as in: dpm++ 2m karras.")
    ] = None
    loras: Annotated[
        list[str] | None,
        typer.Option(_OPTIONS["loras"], metavar="NAME[:WEIGHT]", help="A configured LoRA; may be repeated."),
    ] = None
    preset: Annotated[
        str | None, typer.Option(_OPTIONS["preset"], help="lcm, turbo, lightning, fast, high; or your own.")
    ] = None
    refiner_start: Annotated[
        float | None, typer.Option(_OPTIONS["refiner_start"], help="Share of steps before the refiner: 0.8.")
    ] = None
    allow_adjustments: Annotated[
        list[str] | None,
        typer.Option(_OPTIONS["allow_adjustments"], help="What may be changed to serve it: size, scheduler."),
    ] = None
    deadline_s: Annotated[
        float | None, typer.Option(_OPTIONS["deadline_s"], help="Give up after this many seconds.")
    ] = None
    reproducible: Annotated[
        bool, typer.Option(_OPTIONS["reproducible"], help="Bit-equal pictures whatever else runs.")
    ] = False
    latents: Annotated[
        Path | None,
        typer.Option(_OPTIONS["latents"], metavar="FILE", help="Write the latents here, as safetensors."),
    ] = None

    def requests(self) -> list[GenerateRequest]:
        """One request for each prompt. Raises `InvalidRequestError`; reads and decodes the pictures."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        prompts = given.pop("prompts") or [""]
        given["allow_adjustments"] = given["allow_adjustments"] or ()
        given["loras"] = [lora_of(text) for text in self.loras or ()]
        given["latents"] = self.latents is not None
        for name in ("image", "mask_image"):
            given[name] = read_picture(given[name], name)
        first = GenerateRequest.of(prompt=prompts[0], **given)
        pictures = {"image": first.image, "mask_image": first.mask_image}  # decoded once
        others = [GenerateRequest.of(prompt=prompt, **given | pictures) for prompt in prompts[1:]]
        return [first, *others]


def asking(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command that takes `asked: Asked` the fields of `Asked` as options."""
    names = [field.name for field in dataclasses.fields(Asked)]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        asked = Asked(**{name: given.pop(name) for name in names})
        command(asked=asked, **given)

    parameters = [*_parameters(Asked), *(each for each in _parameters(command) if each.name != "asked")]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def parameters_of(request: GenerateRequest) -> dict[str, Any]:
    """The request as plain values under its own field names, without its pictures."""
    return request.model_dump(mode="json", exclude={"image", "mask_image"}, exclude_none=True)


def in_options(sentence: str) -> str:
    """The sentence in the words of the command line: `num_inference_steps` is `--steps` here."""
    for field, option in _OPTIONS.items():
        sentence = sentence.replace(f"`{field}`", f"`{option}`")
    for side in ("height", "width"):
        sentence = sentence.replace(f"`{side}`", f"`--size` ({side})")
    return sentence


def _parameters(function: Callable[..., Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[name])


def read_picture(path: Path | None, param: str, option: str = "") -> bytes | None:
    """The file behind an option. Raises `InvalidRequestError` in the words of the command line."""
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InvalidRequestError(
            f"`{option or _OPTIONS[param]}` is {str(path)!r}, which cannot be read ({exc.strerror});"
            " correct the path.",
            param=param,
        ) from exc
