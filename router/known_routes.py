"""KnownRoutes: the routes of requests that differ from a new one in prompt and seed alone."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Mapping
from operator import itemgetter
from typing import Any, Final

from router.request import GenerateRequest
from router.routing import Route

MOST_KNOWN: Final = 256

_CARRIED: Final = frozenset({"prompt", "negative_prompt", "seed", "image", "mask_image"})
"""What routing hands on and does not read; of a negative prompt it reads whether there is one."""
_READ: Final = itemgetter(*[name for name in GenerateRequest.model_fields if name not in _CARRIED])


class KnownRoutes:
    """Of one view of a model: `choose_route` is pure, so where one went, others like it go.

    Requests with a picture are not known: its size counts, too. No prompt is kept.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[Mapping[str, Any], Route]] = {}

    def find(self, request: GenerateRequest, seed: int) -> Route | None:
        """The route of another like this one, with this one's prompt and seed; `seed` is for one without."""
        try:
            known = self._known.get(_key(request))
        except TypeError:  # a list from `model_copy`, say, which checks nothing
            return None
        if known is None or request.image is not None:
            return None
        filled, route = known
        if request.seed is None:
            filled = {**filled, "seed": seed}
        return Route(
            route.model,
            request.model_copy(update=filled),
            route.candidates,
            dict(route.rejections),
            route.adjustments,
            route.notes,
            route.estimates,
            route.temporary,
        )

    def keep(self, request: GenerateRequest, route: Route) -> None:
        """`route` is what `choose_route` has just said, while every instance was available."""
        if request.image is not None:
            return
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        asked, named = dict(request), route.request.model_fields_set - request.model_fields_set
        filled = {name: value for name, value in route.request if name in named or value is not asked[name]}
        filled.pop("seed", None)  # each has its own
        unnamed = route.request.model_copy(update={"prompt": "", "negative_prompt": None})
        with contextlib.suppress(TypeError):  # as above
            self._known[_key(request)] = filled, dataclasses.replace(route, request=unnamed)


def _key(request: GenerateRequest) -> Hashable:
    return request.negative_prompt is None, _READ(request.__dict__)
