"""A route that is known from another request is the one that `choose_route` would have said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.capabilities import Capabilities, Defaults
from router.config import InstanceConfig, Limits, ModelConfig, ModelDefaults
from router.errors import InvalidRequestError
from router.known_routes import MOST_KNOWN, KnownRoutes
from router.request import GenerateRequest
from router.routing import ModelView, Route, choose_route
from router.types import RawImage
from tests.doubles import capabilities

FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "prompt": st.sampled_from(["a", "b"]),
    "negative_prompt": st.sampled_from([None, "", "blurry", "grey"]),
    "seed": st.sampled_from([None, 1, 2]),
    "height": st.sampled_from([None, 64, 72, 96, 16384]),
    "size": st.sampled_from([None, "s", "l"]),
    "num_inference_steps": st.sampled_from([None, 1, 4, 200]),
    "guidance_scale": st.sampled_from([None, 0.0, 1.0, 5.0]),
    "num_images_per_prompt": st.sampled_from([1, 3]),
    "scheduler": st.sampled_from([None, "EulerDiscreteScheduler", "no such one"]),
    "preset": st.sampled_from([None, "fast"]),
    "previews": st.booleans(),
    "latents": st.booleans(),
    "reproducible": st.booleans(),
    "allow_adjustments": st.sampled_from([(), ("size",), ("scheduler", "size")]),
}


def able(**changes: Any) -> Capabilities:
    own = {"defaults": Defaults(64, 64, 20, guidance_scale=5.0), "schedulers": ("EulerDiscreteScheduler",)}
    return capabilities(**own | changes)


def view(**changes: Any) -> ModelView:
    instances = (InstanceConfig(name="m/0", backend="double"),)
    config = ModelConfig(name="m", instances=instances, defaults=ModelDefaults(negative_prompt="ugly"))
    return ModelView.of(config, {"m/0": able(**changes)})


VIEW = view()
LIMITS = Limits(max_steps=100, max_height=16384)


def chosen(request: GenerateRequest, seed: int = 7) -> Route:
    return choose_route(request, VIEW, LIMITS, seed=seed)


def ask(**fields: Any) -> GenerateRequest:
    return GenerateRequest.of(**{"prompt": "a"} | fields)


@given(st.fixed_dictionaries(dict(FIELDS)), st.fixed_dictionaries(dict(FIELDS)), st.data())
def test_what_is_known_is_what_would_be_chosen(
    first: dict[str, Any], second: dict[str, Any], data: st.DataObject
) -> None:
    alike = data.draw(st.sets(st.sampled_from(sorted(FIELDS))))
    second |= {name: first[name] for name in alike}
    known = KnownRoutes()
    try:
        one, other = ask(**first), ask(**second)
        known.keep(one, chosen(one))
        expected = chosen(other)
    except InvalidRequestError:
        return  # refused before it is routed, or for passing a limit
    found = known.find(other, 7)
    assert found is None or found == expected
    assert found is None or found.request.model_fields_set == expected.request.model_fields_set


def test_another_prompt_and_seed_go_the_same_way() -> None:
    known = KnownRoutes()
    known.keep(ask(seed=1), chosen(ask(seed=1)))
    other = ask(prompt="b", seed=2)
    assert known.find(other, 7) == chosen(other)
    without_seed = ask(prompt="b")
    assert known.find(without_seed, 7) == chosen(without_seed)


@pytest.mark.parametrize(
    "field", sorted(set(GenerateRequest.model_fields) - {"prompt", "seed", "mask_image"})
)
def test_every_other_field_tells_requests_apart(field: str) -> None:
    known = KnownRoutes()
    known.keep(ask(), chosen(ask()))
    assert known.find(ask(), 7) is not None
    assert known.find(ask().model_copy(update={field: RawImage(8, 8, bytes(192))}), 7) is None


def test_pictures_are_not_kept() -> None:
    known = KnownRoutes()
    request = ask(image=RawImage(64, 64, bytes(64 * 64 * 3)))
    known.keep(request, chosen(ask()))
    assert known.find(request, 7) is None


def test_a_request_that_cannot_be_told_from_others_is_routed_each_time() -> None:
    known = KnownRoutes()
    request = ask().model_copy(update={"loras": []})
    known.keep(request, chosen(request))
    assert known.find(request, 7) is None


def test_who_changes_what_he_got_changes_nobody_elses() -> None:
    known = KnownRoutes()
    refused = ask(scheduler="no such one")
    known.keep(refused, chosen(refused))
    found = known.find(refused, 7)
    assert found is not None
    assert isinstance(found.rejections, dict)
    found.rejections.clear()
    assert known.find(refused, 7) == chosen(refused)


def test_no_more_than_so_many_are_kept_and_no_prompt() -> None:
    known = KnownRoutes()
    for steps in range(1, MOST_KNOWN + 10):
        request = ask(prompt="a secret", negative_prompt="another secret", deadline_s=float(steps))
        known.keep(request, chosen(request))
    assert len(known._known) <= MOST_KNOWN
    assert "secret" not in repr(known._known)
