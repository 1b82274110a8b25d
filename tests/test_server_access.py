"""Who is let in: keys, where a request comes from, signed links, quotas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from router.errors import RouterError
from router.server.access import Access
from router.server.errors import ForbiddenError, RateLimitError, UnauthorizedError
from router.server.links import Links
from router.server.quotas import Quotas
from router.server.settings import ServerSettings
from tests.doubles import Clock
from tests.services import KEY, Service, serving

PROMPT = {"prompt": "a red circle"}
OTHER_KEY = "another-key-of-the-tests-987"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two keys, asked with none."""
    with serving(tmp_path_factory.mktemp("locked"), keys=(KEY, OTHER_KEY), pictures_per_minute=5) as service:
        yield service


# --- keys


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/openapi.json"])
def test_these_are_for_everybody(locked: Service, path: str) -> None:
    assert locked.http.get(path).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/generate"),
        ("POST", "/api/v1/generate"),
        ("POST", "/api/v1/explain"),
        ("POST", "/image/generate"),
        ("POST", "/v1/images/generations"),
        ("POST", "/v1/images/edits"),
        ("GET", "/v1/models"),
        ("GET", "/v1/jobs"),
        ("GET", "/api/v1/capabilities"),
        ("GET", "/metrics"),
        ("GET", "/outputs/images/AAAAAAAAAAAAAAAAAAAAAA.png"),
        ("GET", "/nothing"),
    ],
)
def test_everything_else_wants_a_key(locked: Service, method: str, path: str) -> None:
    answer = locked.http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"X-API-Key": OTHER_KEY}],
)
def test_either_key_opens_in_either_header(locked: Service, headers: dict[str, str]) -> None:
    assert locked.http.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": f"Basic {KEY}"}, {"Authorization": KEY}, {"X-API-Key": KEY[:-1]}, {"X-API-Key": ""}],
)
def test_nothing_else_opens(locked: Service, headers: dict[str, str]) -> None:
    assert locked.http.get("/v1/models", headers=headers).status_code == 401


def test_a_kept_picture_is_read_by_its_link_or_with_the_key(locked: Service) -> None:
    key = {"X-API-Key": KEY}
    made = locked.http.post("/api/v1/generate", json=PROMPT, headers=key).json()
    link, plain = made["image_url"], made["image_url"].partition("?")[0]
    assert locked.http.get(link).content.startswith(b"\x89PNG")
    assert locked.http.get(plain, headers=key).content.startswith(b"\x89PNG")
    assert locked.http.get(plain).status_code == 401
    assert locked.http.get(made["meta_url"]).json()["parameters"]["prompt"] == PROMPT["prompt"]
    assert (
        locked.http.get(made["meta_url"].partition("?")[0] + "?" + link.partition("?")[2]).status_code == 401
    )
    assert locked.http.post(link).status_code == 401


def test_a_key_has_its_share_of_each_minute(locked: Service) -> None:
    headers = {"X-API-Key": OTHER_KEY}
    many = PROMPT | {"num_images_per_prompt": 4}
    first, second = (locked.http.post("/api/v1/generate", json=many, headers=headers) for _ in range(2))
    assert first.status_code == 200
    assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(second.headers["retry-after"]) <= 60


# --- links


def test_a_link_is_for_one_path_until_it_expires() -> None:
    clock = Clock()
    links = Links(60.0, clock=clock)
    query = dict(httpx.URL(links.sign("/outputs/a")).params)
    assert links.holds("/outputs/a", query)
    assert not links.holds("/outputs/b", query)
    assert not links.holds("/outputs/a", query | {"expires": f"{int(query['expires']) + 1}"})
    assert not links.holds("/outputs/a", {})
    assert not Links(60.0, clock=clock).holds("/outputs/a", query)
    clock.now += 61
    assert not links.holds("/outputs/a", query)


# --- quotas


def test_requests_in_progress_are_counted_by_key() -> None:
    quotas = Quotas(1, None)
    with quotas.held("a", 1):
        with pytest.raises(RateLimitError, match="1 requests"), quotas.held("a", 1):
            pass
        with quotas.held("b", 1):
            pass
    with quotas.held("a", 1):
        pass


def test_pictures_are_free_again_after_a_minute() -> None:
    clock = Clock()
    quotas = Quotas(None, 4, clock)
    quotas.charge("a", 3)
    clock.now += 20
    with pytest.raises(RateLimitError) as caught:
        quotas.charge("a", 2)
    assert caught.value.retry_after_s == 40
    quotas.charge("a", 1)
    clock.now += 40
    quotas.charge("a", 3)


# --- where it comes from


def source(headers: dict[str, str], method: str = "POST", **settings: object) -> RouterError | None:
    try:
        Access(ServerSettings(**settings)).check_source(method, headers)  # type: ignore[arg-type]
    except ForbiddenError as exc:
        return exc
    return None


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:80", "[::1]:8000", "10.1.2.3"])
def test_addresses_and_localhost_are_its_names(host: str) -> None:
    assert source({"host": host}) is None


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "localhost:80@evil", "a b"])
def test_other_names_are_refused_where_no_key_is_wanted(host: str) -> None:
    assert source({"host": host}) is not None
    assert source({"host": host}, keys=(KEY,)) is None
    assert source({"host": host}, keys=(KEY,), hosts=("pictures.example",)) is not None


def test_listed_names_and_that_of_the_public_url_are_its_own() -> None:
    assert source({"host": "pictures.example"}, hosts=("pictures.example",)) is None
    assert source({"host": "pictures.example:443"}, public_url="https://pictures.example") is None


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"origin": "http://localhost:8000"}, True),
        ({"origin": "https://page.example"}, True),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
    ],
)
def test_pages_of_other_origins_are_refused_unless_listed(headers: dict[str, str], passes: bool) -> None:
    found = source({"host": "localhost:8000"} | headers, origins=("https://page.example",))
    assert (found is None) == passes


def test_a_listed_origin_gets_its_headers_and_no_other_does(tmp_path: Path) -> None:
    page = {"Origin": "https://page.example"}
    with serving(tmp_path, origins=("https://page.example",), keys=(KEY,)) as service:
        asks = page | {"Access-Control-Request-Method": "POST"}
        asks |= {"Access-Control-Request-Headers": "authorization,content-type"}
        preflight = service.http.options("/api/v1/generate", headers=asks)
        refused = service.http.get("/v1/models", headers=page)
        foreign = service.http.get("/healthz", headers={"Origin": "https://evil.example"})
    assert (preflight.status_code, refused.status_code, foreign.status_code) == (200, 401, 403)
    assert preflight.headers["access-control-allow-origin"] == page["Origin"]
    assert refused.headers["access-control-allow-origin"] == page["Origin"]
    assert "access-control-allow-origin" not in foreign.headers


def test_unknown_keys_are_told_nothing_of_known_ones() -> None:
    with pytest.raises(UnauthorizedError) as caught:
        Access(ServerSettings(keys=(KEY,))).identify("/generate", {"x-api-key": "wrong"})  # type: ignore[arg-type]
    assert KEY[:6] not in str(caught.value)
    assert "wrong" not in str(caught.value)
