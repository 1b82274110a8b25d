"""What `triptych top` shows: how instances, lanes and memory stand, and how the newest requests went."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from router.errors import InvalidRequestError
from router.record import facts_of
from router.router import BackendRouter
from router.server.documents import errors
from router.server.front import front_of
from router.server.stand import InstanceState, LaneState, Records, Statistics
from router.statistics import InstanceStatus

routes = APIRouter(tags=["operation"])

_MOST = 10_000
_NUMBER = {"type": "integer", "minimum": 1, "maximum": _MOST}
_LIMIT = {
    "parameters": [{"name": "limit", "in": "query", "description": "The newest so many.", "schema": _NUMBER}]
}


@routes.get("/api/v1/statistics", response_model=Statistics, responses=errors(401))
async def statistics(request: Request) -> Response:
    """How it stands now; wants the key where there are keys."""
    front = front_of(request)
    facts = {"version": version("triptych"), "at": time.time(), "started_at": front.started_at}
    jobs = {"jobs_waiting": front.jobs.waiting, "jobs_running": front.jobs.running}
    return JSONResponse({**facts, **jobs, **_stand_of(front.router)})


@routes.get("/api/v1/records", response_model=Records, responses=errors(400, 401), openapi_extra=_LIMIT)
async def records(request: Request) -> Response:
    """How the newest requests went; wants the key where there are keys."""
    kept = front_of(request).router.records()[: _limit_of(request)]
    return JSONResponse({"records": [facts_of(record) for record in kept]})


def _limit_of(request: Request) -> int:
    given = request.query_params.get("limit", f"{_MOST}")
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:9]) <= _MOST):
        raise InvalidRequestError(f"`limit` must be a whole number from 1 to {_MOST:,}.", param="limit")
    return int(given)


def _stand_of(router: BackendRouter) -> dict[str, Any]:
    found = router.statistics()
    return {
        "running": found.running,
        "served": found.served,
        "failed": found.failed,
        "cancelled": found.cancelled,
        "instances": [_instance(status) for status in found.instances],
        "lanes": [
            {name: getattr(lane, name) for name in LaneState.model_fields} for lane in found.lanes.values()
        ],
        "devices": [
            {"name": device, "promised_bytes": promised, "budget_bytes": found.budget_bytes[device]}
            for device, promised in found.promised_bytes.items()
        ],
    }


def _instance(status: InstanceStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in InstanceState.model_fields}
