"""What a job looks like on the wire: its JSON, and its events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from router.server import pictures
from router.server.documents import ErrorDetail
from router.server.jobs.feed import News, Progress
from router.server.jobs.job import Job
from router.server.links import Links
from router.server.pictures import Encoding
from router.types import Step

LAST_EVENT = "end"
"""The id of the last event of every job. A client that has it needs no other."""

Shown = Literal["queued", "loading", "running", "done", "failed", "cancelled"]


class StepDocument(BaseModel):
    """The last step that was made, of picture `picture`: `index` of `total`."""

    picture: int
    index: int
    total: int


class PictureDocument(BaseModel):
    index: int
    seed: int
    image_url: str
    latents_url: str | None = None
    """Where `latents` were asked for."""


class JobDocument(BaseModel):
    """A job. Times are seconds since the epoch."""

    object: Literal["job"] = "job"
    id: str
    state: Shown
    position: int | None = None
    """While it is queued: 1 is next."""
    step: StepDocument | None = None
    parameters: dict[str, Any]
    """What was asked, with the seed that was drawn; `meta` has what it became."""
    seed: int
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    url: str
    events_url: str
    result_url: str | None = None
    """The first picture."""
    images: list[PictureDocument] = []
    meta: dict[str, Any] | None = None
    error: ErrorDetail | None = None


class JobPage(BaseModel):
    """Newest first; the next page is that `after` the last one's id."""

    object: Literal["list"] = "list"
    data: list[JobDocument]
    has_more: bool


def document(job: Job, progress: Progress | None, links: Links) -> JobDocument:
    """`progress` is what this process knows of an unfinished job."""
    path = f"/v1/jobs/{job.id}"
    images = _images(job, links)
    return JobDocument(
        id=job.id,
        state=progress.state if progress else job.state,
        position=progress.position if progress else None,
        step=_step(progress.step) if progress else None,
        parameters=dict(job.parameters),
        seed=job.parameters["seed"],
        created_at=job.created_at,
        started_at=job.started_at,
        ended_at=job.ended_at,
        url=path,
        events_url=links.sign(f"{path}/events"),
        result_url=images[0].image_url if images else None,
        images=images,
        meta=None if job.result is None else dict(job.result),
        error=None if job.error is None else ErrorDetail(**job.error),
    )


async def event(id: str, number: int, news: News, links: Links) -> bytes:
    """One server-sent event. Its name is the state, or `step`, which may carry a preview."""
    if isinstance(news, Job):
        return _event(news.state, LAST_EVENT, document(news, None, links).model_dump(mode="json"))
    told: dict[str, Any] = {"id": id, "state": news.state}
    if news.step is not None:
        name, told = "step", told | await _with_preview(news.step)
    elif news.state == "queued":
        name, told = "queued", told | {"position": news.position}
    elif news.state == "loading":
        far = {"elapsed_s": news.elapsed_s, "expected_s": news.expected_s}
        name, told = "loading", told | {"instance": news.instance, **far}
    else:
        name = "running"
    return _event(name, f"{number}", told)


async def _with_preview(step: Step) -> dict[str, Any]:
    """`preview` is the base64 text of a PNG file, for a job that asked for `previews`."""
    text = None
    if step.preview is not None:
        [text] = await pictures.encode_text([step.preview], Encoding())
    return {"picture": step.picture, "index": step.index, "total": step.total, "preview": text}


def _event(name: str, id: str, data: Mapping[str, Any]) -> bytes:
    return f"event: {name}\nid: {id}\ndata: {json.dumps(data)}\n\n".encode()


def _step(step: Step | None) -> StepDocument | None:
    return None if step is None else StepDocument(picture=step.picture, index=step.index, total=step.total)


def _images(job: Job, links: Links) -> list[PictureDocument]:
    """Those that were made; `meta.errors` has the others."""
    if job.result is None:
        return []
    failed = {error["index"] for error in job.result["errors"]}
    path, has_latents = f"/v1/jobs/{job.id}", "fingerprints" in job.result
    return [
        PictureDocument(
            index=index,
            seed=seed,
            image_url=links.sign(f"{path}/images/{index}"),
            latents_url=links.sign(f"{path}/latents/{index}") if has_latents else None,
        )
        for index, seed in enumerate(job.result["seeds"])
        if index not in failed
    ]
