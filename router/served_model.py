"""ServedModel: a public name, its instances, and what probing has found out about them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from router.config import Limits, ModelConfig
from router.errors import ConfigError, RouterError
from router.instance import Instance
from router.known_routes import KnownRoutes
from router.preset import RequestPreset
from router.request import GenerateRequest
from router.routing import NONE_UNAVAILABLE, ModelView, Predict, Route, choose_route
from router.types import Rejections


class ServedModel:
    """Knows what routing needs: the view, and which instances cannot be used now."""

    def __init__(self, config: ModelConfig, instances: Sequence[Instance]) -> None:
        self.config = config
        self.instances: Mapping[str, Instance] = {instance.name: instance for instance in instances}
        self.view: ModelView | None = None
        """`None` until every instance was probed once."""
        self._known_routes = KnownRoutes()
        self.config_error: ConfigError | None = None
        """A wrong configuration is not passed over: the model serves when it is mended."""

    def on_probed(self) -> None:
        """Look again at what is known; rare."""
        instances = self.instances.values()
        if all(instance.is_probed for instance in instances):
            known = {each.name: each.capabilities for each in instances if each.capabilities is not None}
            self.view, self._known_routes = ModelView.of(self.config, known), KnownRoutes()
        wrong = [each.error for each in instances if isinstance(each.error, ConfigError)]
        self.config_error = wrong[0] if wrong else None

    def begin_probes(self) -> list[asyncio.Task[None]]:
        """Probe what was never probed and what is due again. All probes in progress."""
        return [each.probe() for each in self.instances.values() if each.wants_probe]

    def unavailable(self) -> Rejections:
        """A sentence for each instance that cannot be used now; those that are due are probed meanwhile."""
        closed = [instance for instance in self.instances.values() if instance.breaker.is_open]
        if not closed:
            return NONE_UNAVAILABLE
        self.begin_probes()
        return {instance.name: instance.breaker.why_not() or "" for instance in closed}

    def choose_route(
        self,
        request: GenerateRequest,
        limits: Limits,
        *,
        seed: int,
        predict: Predict | None,
        presets: Mapping[str, RequestPreset],
    ) -> Route:
        """As in `routing`, once there is a view. `limits` and `presets` are always the same ones."""
        assert self.view is not None
        unavailable = self.unavailable()
        by_request_alone = not unavailable and predict is None
        if by_request_alone and (known := self._known_routes.find(request, seed)) is not None:
            return known
        route = choose_route(
            request,
            self.view,
            limits,
            seed=seed,
            unavailable=unavailable,
            predict=predict,
            presets=presets,
        )
        if by_request_alone:
            self._known_routes.keep(request, route)
        return route

    def sole_error(self) -> RouterError | None:
        """Why the only instance failed its probe, in the class of the backend's own error."""
        if len(self.instances) > 1:
            return None
        return next(iter(self.instances.values())).error

    def __repr__(self) -> str:
        return f"<ServedModel {self.config.name!r} [{', '.join(self.instances)}]>"
