"""The Jobs form over HTTP: hand in, look, fetch, take back; whose job it is, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router import images
from tests.jobs_doubles import picture_text, submitted, until
from tests.services import KEY, Service, fake_config, serving

OTHER_KEY = "another-key-of-the-tests-0123"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, fake_config(size=16)) as service:
        yield service


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For requests that leave nothing behind."""
    with serving(tmp_path_factory.mktemp("shared"), fake_config(size=16)) as service:
        yield service


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Service]:
    """One job at a time, which takes 15 seconds if nobody stops it."""
    with serving(
        tmp_path,
        fake_config(
            size=16,
            step_s=0.1,
            steps=150,
        ),
        jobs_running=1,
        jobs_waiting=2,
    ) as slow:
        yield slow
        for job in slow.http.get("/v1/jobs").json()["data"]:
            slow.http.delete(job["url"])


def refused(reply: httpx.Response, status: int, code: str) -> str:
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["code"] == code
    message: str = error["message"]
    return message


def test_a_job_is_accepted_made_and_fetched(service: Service) -> None:
    reply = service.post("/v1/jobs", prompt="a circle", num_images_per_prompt=2, seed=7)
    assert reply.status_code == 202
    assert reply.headers["location"] == reply.json()["url"]
    done = until(service, reply.json(), "done")
    assert [image["seed"] for image in done["images"]] == [7, 8]
    assert done["result_url"] == done["images"][0]["image_url"]
    assert done["meta"]["instance"] == "demo/fake"
    picture = service.http.get(done["images"][1]["image_url"])
    assert picture.headers["content-type"] == "image/png"
    assert images.decode(picture.content).height == 16
    alone = submitted(service, seed=8)
    alone = until(service, alone, "done")
    assert service.http.get(alone["result_url"]).content == picture.content


def test_a_job_edits_a_picture_and_writes_the_format_asked(service: Service) -> None:
    job = submitted(service, image=picture_text(), strength=0.5, output_format="webp", quality=80)
    assert "image" not in job["parameters"]
    done = until(service, job, "done")
    assert done["meta"]["task"] == "image-to-image"
    assert service.http.get(done["result_url"]).headers["content-type"] == "image/webp"


def test_a_seed_is_drawn_at_acceptance(service: Service) -> None:
    job = submitted(service)
    done = until(service, job, "done")
    assert done["seed"] == job["seed"] == done["meta"]["seed"]
    assert submitted(service)["seed"] != job["seed"]


def test_a_cancelled_job_ends_within_a_step_and_the_next_begins(slow: Service) -> None:
    first, second = submitted(slow), submitted(slow)
    until(slow, first, "running")
    assert until(slow, second, "queued")["position"] == 1
    cancelled = slow.http.delete(first["url"]).json()
    assert cancelled["state"] == "cancelled"
    until(slow, second, "running")
    assert slow.http.get(first["url"]).json()["state"] == "cancelled"
    assert slow.calls("generate") == 2


def test_an_ended_job_is_forgotten_on_demand(service: Service) -> None:
    done = until(service, submitted(service), "done")
    assert service.http.delete(done["url"]).json()["state"] == "done"
    refused(service.http.get(done["url"]), 404, "not_found")
    refused(service.http.get(done["result_url"]), 404, "not_found")
    refused(service.http.delete(done["url"]), 404, "not_found")


def test_pages_of_jobs(service: Service) -> None:
    ids = [submitted(service, f"{index}")["id"] for index in range(5)]
    first = service.http.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == [ids[4], ids[3]]
    assert first["has_more"]
    rest = service.http.get("/v1/jobs", params={"after": ids[3]}).json()
    assert [job["id"] for job in rest["data"]] == ids[2::-1]
    assert not rest["has_more"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "\u0663", "9" * 5000])
def test_a_wrong_limit_is_named(shared: Service, limit: str) -> None:
    reply = shared.http.get("/v1/jobs", params={"limit": limit})
    assert "`limit` must be" in refused(reply, 400, "invalid_request_error")


def test_the_same_key_and_body_is_the_same_job(service: Service) -> None:
    headers = {"Idempotency-Key": "order-1"}
    first = service.http.post("/v1/jobs", json={"prompt": "a", "num_inference_steps": 2}, headers=headers)
    again = service.http.post("/v1/jobs", json={"num_inference_steps": 2, "prompt": "a"}, headers=headers)
    assert again.status_code == 202
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["seed"] == first.json()["seed"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    other = service.http.post("/v1/jobs", json={"prompt": "b"}, headers=headers)
    assert "use a new key" in refused(other, 422, "idempotency_key_reused")
    assert len(service.http.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_a_wrong_idempotency_key_is_named(shared: Service, key: str) -> None:
    reply = shared.http.post("/v1/jobs", json={"prompt": "a"}, headers={"Idempotency-Key": key})
    assert "`Idempotency-Key` must be" in refused(reply, 400, "invalid_request_error")


def test_no_more_jobs_wait_than_may(slow: Service) -> None:
    until(slow, submitted(slow), "running")
    submitted(slow), submitted(slow)
    reply = slow.post("/v1/jobs", prompt="one too many")
    assert "2 jobs wait" in refused(reply, 429, "queue_full")
    assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("fields", "status", "word"),
    [
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "a", "model": "other"}, 404, "other"),
        ({"prompt": "a", "scheduler": "Unknown"}, 400, "Unknown"),
        ({"prompt": "a", "colour": "red"}, 400, "colour"),
        ({"prompt": "a", "image": "not base64"}, 400, "image"),
        ({"prompt": "a", "image": 7}, 400, "image"),
        ({"prompt": "a", "output_format": "gif"}, 400, "output_format"),
        ({"prompt": "a", "quality": 50}, 400, "quality"),
        ({"prompt": "a", "seed": -1}, 400, "seed"),
        ({"prompt": "a", "seed": 10**50}, 400, "seed"),
    ],
)
def test_what_can_never_be_served_is_not_accepted(
    shared: Service, fields: dict[str, Any], status: int, word: str
) -> None:
    reply = shared.post("/v1/jobs", **fields)
    assert reply.status_code == status
    assert word in reply.json()["error"]["message"]
    assert shared.http.get("/v1/jobs").json()["data"] == []


@pytest.mark.parametrize("index", ["1", "-1", "x", "%00", "99999999999999999999"])
def test_no_other_pictures_than_those_made(service: Service, index: str) -> None:
    done = until(service, submitted(service), "done")
    reply = service.http.get(f"{done['url']}/images/{index}")
    assert "no such picture" in refused(reply, 404, "not_found")


def test_a_job_belongs_to_its_key(tmp_path: Path) -> None:
    bearer = {"Authorization": f"Bearer {KEY}"}
    other = {"X-API-Key": OTHER_KEY}
    with serving(tmp_path, fake_config(size=16), headers=bearer, keys=(KEY, OTHER_KEY)) as service:
        done = until(service, submitted(service), "done")
        plain = done["result_url"].partition("?")[0]
        with httpx.Client(base_url=service.url) as stranger:
            for path in (done["url"], f"{done['url']}/events", plain):
                refused(stranger.get(path, headers=other), 404, "not_found")
                refused(stranger.get(path), 401, "invalid_api_key")
            refused(stranger.delete(done["url"], headers=other), 404, "not_found")
            assert stranger.get("/v1/jobs", headers=other).json()["data"] == []
            assert stranger.get(done["result_url"]).content.startswith(b"\x89PNG")  # the signed link
            assert "event: done" in stranger.get(done["events_url"]).text
            refused(
                stranger.get(done["url"] + "?" + done["events_url"].partition("?")[2]), 401, "invalid_api_key"
            )
        assert service.http.get(done["url"]).json()["state"] == "done"


def test_pictures_asked_as_jobs_count_in_the_minute(tmp_path: Path) -> None:
    with serving(tmp_path, fake_config(size=16), pictures_per_minute=3) as service:
        headers = {"Idempotency-Key": "order-1"}
        for _ in range(3):  # of which two are repetitions
            body = {"prompt": "a", "num_images_per_prompt": 2}
            assert service.http.post("/v1/jobs", json=body, headers=headers).status_code == 202
        reply = service.post("/v1/jobs", prompt="a", num_images_per_prompt=2)
        refused(reply, 429, "rate_limit_exceeded")
        assert len(service.http.get("/v1/jobs").json()["data"]) == 1


def test_jobs_are_counted_for_prometheus(slow: Service) -> None:
    until(slow, submitted(slow), "running")
    submitted(slow)
    text = slow.http.get("/metrics").text
    assert 'triptych_jobs{state="running"} 1.0' in text
    assert 'triptych_jobs{state="queued"} 1.0' in text
