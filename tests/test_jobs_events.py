"""The events of a job: the present first, then all of it, whoever reads how slowly."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from router import images
from router.server.jobs import routes
from router.server.jobs.feed import MAX_UNREAD, Feed, Progress
from router.types import Loading, Queued, RawImage, Step
from tests.jobs_doubles import previewing_config, submitted, until
from tests.services import Service, fake_config, serving

LIMIT_S = 20


def events_of(text: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, id and data of each."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append((lines["event"], lines["id"], json.loads(lines["data"])))
    return found


def read(service: Service, job: dict[str, Any], **headers: str) -> list[tuple[str, str, dict[str, Any]]]:
    reply = service.http.get(job["events_url"], headers=headers, timeout=LIMIT_S)
    assert reply.headers["content-type"].startswith("text/event-stream")
    return events_of(reply.text)


def test_a_job_from_the_queue_to_its_end(tmp_path: Path) -> None:
    config = fake_config(size=16, step_s=0.02, load_s=0.05)
    with serving(tmp_path, config, jobs_running=1) as service:
        submitted(service, "before")
        job = submitted(service, "after", num_images_per_prompt=2)
        events = read(service, job)
        done = service.http.get(job["url"]).json()
    names = [name for name, _, _ in events]
    assert names[0] == "queued"
    assert events[0][2] == {"id": job["id"], "state": "queued", "position": 1}
    assert names[1] == "running"
    assert names[-1] == "done"
    steps = [data for name, _, data in events if name == "step"]
    assert [(step["index"], step["total"]) for step in steps if step["picture"] == 1][-1] == (4, 4)
    assert all(step["preview"] is None for step in steps)
    assert events[-1][2] == done
    assert len({id for _, id, _ in events}) == len(events)


def test_the_load_is_told(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(size=16, load_s=0.3)) as service:
        events = read(service, submitted(service))
    told = {"state": "loading", "instance": "demo/fake", "elapsed_s": 0.0, "expected_s": None}
    assert ("loading", told) in [
        (name, {key: value for key, value in data.items() if key != "id"}) for name, _, data in events
    ]


def test_previews_come_with_the_steps_of_a_job_that_asked_for_them(tmp_path: Path) -> None:
    with serving(tmp_path, previewing_config(step_s=0.01, load_s=0.1)) as service:
        job = submitted(service, previews=True)
        steps = [data for name, _, data in read(service, job) if name == "step"]
    assert [step["index"] for step in steps] == [1, 2, 3, 4]
    for step in steps:
        assert images.decode(base64.b64decode(step["preview"])).pixels[0] == step["index"]


def test_whoever_comes_late_hears_the_end(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(size=16)) as service:
        done = until(service, submitted(service), "done")
        assert [(name, data) for name, _, data in read(service, done)] == [("done", done)]
        (_, last, _) = read(service, done)[0]
        again = service.http.get(done["events_url"], headers={"Last-Event-ID": last})
        assert again.status_code == 204  # which tells an EventSource not to come again
        (event,) = read(service, done, **{"Last-Event-ID": "3"})
        assert event[0] == "done"


def test_a_cancelled_job_ends_its_events(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(size=16, step_s=0.1, steps=150)) as service:
        job = submitted(service)
        with service.http.stream("GET", job["events_url"], timeout=LIMIT_S) as reply:
            chunks = reply.iter_text()
            next(chunks)
            httpx.delete(service.url + job["url"])
            last = events_of("".join(chunks))[-1]
    assert last[0] == "cancelled"
    assert last[2]["state"] == "cancelled"


def test_a_reader_who_does_not_read_holds_nothing_up(tmp_path: Path) -> None:
    """It takes not one byte of the previews, and the job is done and the service ends all the same."""
    with serving(tmp_path, previewing_config(steps=150)) as service:
        address = urlsplit(service.url)
        stuck = [socket.create_connection((address.hostname, address.port)) for _ in range(8)]
        jobs = [submitted(service, f"{index}", num_images_per_prompt=8, previews=True) for index in range(4)]
        for index, connection in enumerate(stuck):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            path = jobs[index % 4]["events_url"]
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        for job in jobs:
            until(service, job, "done")
        for connection in stuck:
            connection.close()


def test_a_quiet_stream_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_PING_S", 0.02)
    with serving(tmp_path, fake_config(size=16, load_s=0.3)) as service:
        text = service.http.get(submitted(service)["events_url"], timeout=LIMIT_S).text
    assert ": still here\n\n" in text
    assert events_of(text)[-1][0] == "done"


def test_a_reader_who_left_is_forgotten(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(size=16, step_s=0.1, steps=150)) as service:
        job = submitted(service)
        with service.http.stream("GET", job["events_url"], timeout=LIMIT_S) as reply:
            chunks = reply.iter_text()  # kept, as it closes the connection when it is dropped
            next(chunks)
            feed = service.front.jobs._runner.feed(job["id"])
            assert feed is not None
            assert len(feed._unread) == 1
        ends = time.monotonic() + LIMIT_S
        while feed._unread:
            assert time.monotonic() < ends
            time.sleep(0.005)
        httpx.delete(service.url + job["url"])


# The feed itself.


async def test_a_feed_tells_the_present_then_what_comes() -> None:
    feed = Feed(Progress("queued", 3))
    heard = asyncio.create_task(all_of(feed))
    await asyncio.sleep(0)
    feed.hear(Queued("a", 1))
    feed.hear(Queued("a", 1))  # nothing new
    feed.hear(Loading("a"))
    feed.hear(Step(0, 1, 4, RawImage(1, 1, bytes(3))))
    feed.end()
    told = await heard
    assert told[:3] == [Progress("queued", 3), Progress("queued", 1), Progress("loading", instance="a")]
    assert [progress.step and progress.step.index for progress in told[3:]] == [1]
    assert await all_of(feed) == [told[-1]]  # over: the last that was known


async def test_a_slow_reader_misses_steps_but_not_the_last() -> None:
    feed = Feed(Progress("running"))
    reading = feed.follow()
    await anext(reading)
    for index in range(1000):
        feed.hear(Step(0, index, 1000))
    feed.end()
    told = [progress async for progress in reading]
    assert len(told) == MAX_UNREAD - 1
    assert told[-1] == Progress("running", step=Step(0, 999, 1000))


async def all_of(feed: Feed) -> list[Any]:
    return [news async for news in feed.follow()]
