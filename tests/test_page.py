"""What is served at `/`, without a browser."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from router.config import RouterConfig
from router.router import BackendRouter
from router.server.app import create_app
from router.server.settings import ServerSettings
from tests.browser import fake_model

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "router" / "server" / "page"
FILES = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
TEXTS = {name: data.decode("utf-8") for name, data in FILES.items()}
KEY = "0123456789abcdef"


@pytest.fixture
def client(tmp_path: Path) -> httpx.AsyncClient:
    """Of a service with a key: the page itself wants none."""
    config = RouterConfig(models=(fake_model("m"),), default_model="m")
    app: FastAPI = create_app(BackendRouter(config), ServerSettings(state=tmp_path, keys=(KEY,)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def test_the_page_comes_without_a_key_and_with_a_strict_policy(client: httpx.AsyncClient) -> None:
    reply = await client.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in reply.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert (await client.get("/api/v1/capabilities")).status_code == 401


async def test_every_file_comes_with_its_type_and_is_not_sent_twice(client: httpx.AsyncClient) -> None:
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "html": "text/html"}
    for name in FILES:
        reply = await client.get(f"/page/{name}")
        assert reply.content == FILES[name], name
        assert reply.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])
        again = await client.get(f"/page/{name}", headers={"If-None-Match": reply.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fpage.py", "%2fetc%2fpasswd", "main.js%00"])
async def test_there_is_nothing_beside_the_files(client: httpx.AsyncClient, name: str) -> None:
    reply = await client.get(f"/page/{name}")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    page = TEXTS["index.html"]
    assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:", page)
    assert re.findall(r"<script[^>]*>", page) == ['<script type="module" src="/page/main.js">']
    for name, text in TEXTS.items():
        foreign = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|innerHTML|insertAdjacentHTML|\beval\(", foreign), name


def test_what_the_files_name_is_there_and_every_file_is_named() -> None:
    links = re.findall(r'(?:src|href)="/page/([^"#]+)', TEXTS["index.html"])
    imports = [name for text in TEXTS.values() for name in re.findall(r'from "\./([^"]+)"', text)]
    assert {*links, *imports} == {*FILES} - {"index.html"}
    symbols = set(re.findall(r'<symbol id="([^"]+)"', TEXTS["icons.svg"]))
    assert symbols == set(re.findall(r"icons\.svg#([a-z]+)", TEXTS["index.html"]))


def test_the_files_are_part_of_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["router.server"]
    assert "router.server" in settings["packages"]
    assert [name for name in FILES if not any(fnmatch(f"page/{name}", each) for each in patterns)] == []


def test_every_field_that_the_script_looks_for_is_in_the_page() -> None:
    page = TEXTS["index.html"]
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    wanted = {id for text in TEXTS.values() for id in re.findall(r'byId\("([^"]+)"', text)}
    assert wanted
    assert wanted <= set(ids)
    labels = re.findall(r'<label for="([^"]+)"', page)
    assert set(labels) <= set(ids)
