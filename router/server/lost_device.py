"""A lost device and the process: where the operator wants it, the service ends for its supervisor."""

from __future__ import annotations

import asyncio

from router.errors import DeviceLostError
from router.router import BackendRouter

LOOK_S = 1.0


async def device_lost(router: BackendRouter) -> DeviceLostError:
    """Wait until a lane has lost its device, and return the error that says so."""
    while True:
        for lane in router.statistics().lanes.values():
            if lane.lost:
                return DeviceLostError(lane.lost)
        await asyncio.sleep(LOOK_S)
