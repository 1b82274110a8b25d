"""Where a request's time went, the first probe's included."""

from __future__ import annotations

import asyncio

from router import BackendRouter, Capabilities
from tests.doubles import Double, config_of, resolve_to


class SlowToProbe(Double):
    """Its probe takes as long as the import of a model library."""

    async def probe(self) -> Capabilities:
        await asyncio.sleep(0.05)
        return await super().probe()


async def test_the_first_probe_is_in_the_timings_of_who_waited_for_it() -> None:
    double = SlowToProbe("a")
    async with BackendRouter(config_of(double), resolve=resolve_to(double)) as router:
        first = (await router.generate(prompt="a circle")).timings
        second = (await router.generate(prompt="a circle")).timings
    assert first.route_s >= 0.05
    assert first.total_s >= first.route_s + first.generate_s
    assert second.route_s < first.route_s
