"""Fetching pictures: from a real server, and from nowhere that a client must not reach through us."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from router.errors import InvalidRequestError
from router.server.checked_network import resolve
from router.server.fetch import Fetcher
from tests.picture_servers import PHOTO, PUBLIC, Internet, Names, PictureServer, picture_server

ANYWHERE = {"pictures.example": [[PUBLIC]]}


@pytest.fixture
async def server() -> AsyncIterator[PictureServer]:
    async with picture_server() as server:
        yield server


def listed(server: PictureServer, *others: str, most_bytes: int = 100_000, limit_s: float = 5) -> Fetcher:
    return Fetcher([server.authority, *others], most_bytes, limit_s)


def public(names: Names, network: Internet, **others: Any) -> Fetcher:
    return Fetcher([], 100_000, 5, resolve=names, network=network, **others)


async def refused(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        await fetcher.fetch(url, "image_url")
    assert caught.value.param == "image_url"
    assert "`image_url`" in str(caught.value)
    return str(caught.value)


# --- what may be


async def test_a_listed_host_is_fetched_from_wherever_it_is(server: PictureServer) -> None:
    fetcher = listed(server)
    for path in ("/photo.png", "/photo.png?size=large&of=ü#part"):
        assert await fetcher.fetch(f"http://{server.authority}{path}", "image_url") == PHOTO
    assert server.hosts() == [server.authority] * 2
    assert "Accept-Encoding: identity" in server.asked[0]


async def test_the_connection_goes_to_the_address_that_was_checked(server: PictureServer) -> None:
    """A second look at the name, which would say something else, is never taken."""
    names, network = Names({"pictures.example": [[PUBLIC], ["127.0.0.1"]]}), Internet(server)
    assert await public(names, network).fetch("http://pictures.example/photo.png", "image_url") == PHOTO
    assert (names.asked, network.connected) == (["pictures.example"], [(PUBLIC, 80)])
    assert server.hosts() == ["pictures.example"]


async def test_a_public_address_may_stand_for_a_name(server: PictureServer) -> None:
    network = Internet(server)
    url = "http://[2606:2800:220:1::1]/photo.png"
    assert await public(Names({}), network).fetch(url, "image_url") == PHOTO
    assert (network.connected, server.hosts()) == ([("2606:2800:220:1::1", 80)], ["[2606:2800:220:1::1]"])


async def test_the_next_address_is_tried_where_one_does_not_answer(server: PictureServer) -> None:
    names, network = Names({"pictures.example": [["1.1.1.1", PUBLIC]]}), Internet(server, ["1.1.1.1"])
    assert await public(names, network).fetch("http://pictures.example/photo.png", "image_url") == PHOTO
    assert [address for address, _ in network.connected] == ["1.1.1.1", PUBLIC]


@pytest.mark.parametrize("to", ["/photo.png", "photo.png", "http://pictures.example/photo.png"])
async def test_redirects_are_followed(server: PictureServer, to: str) -> None:
    server.redirect("/moved", to, 308)
    fetcher = public(Names(ANYWHERE), Internet(server))
    assert await fetcher.fetch("http://pictures.example/moved", "image_url") == PHOTO


async def test_a_certificate_is_checked_for_the_name_of_the_host() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("pictures.example").configure_cert(theirs)
    authority.configure_trust(ours)
    async with picture_server(theirs) as server:
        names = Names(ANYWHERE | {"other.example": [[PUBLIC]]})
        fetcher, network = public(names, Internet(server), tls=ours), Internet(server)
        assert await fetcher.fetch("https://pictures.example/photo.png", "image_url") == PHOTO
        assert "cannot be reached" in await refused(fetcher, "https://other.example/photo.png")
        strangers = public(names, network)
        assert "cannot be reached" in await refused(strangers, "https://pictures.example/photo.png")
    assert (network.connected, server.hosts()) == ([(PUBLIC, 443)], ["pictures.example"])


# --- where from


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/photo.png",
        "http://0.0.0.0/photo.png",
        "http://0/photo.png",
        "http://2130706433/photo.png",
        "http://0x7f.1/photo.png",
        "http://0177.0.0.1/photo.png",
        "http://\uff11\uff12\uff17.0.0.1/photo.png",
        "http://%31%32%37.0.0.1/photo.png",
        "http://[::1]/photo.png",
        "http://[::ffff:127.0.0.1]/photo.png",
        "http://[64:ff9b::7f00:1]/photo.png",
        "http://[2002:7f00:1::]/photo.png",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost/photo.png",
        "http://localhost./photo.png",
    ],
)
async def test_inner_addresses_are_refused_however_they_are_written(server: PictureServer, url: str) -> None:
    network = Internet(server)
    said = await refused(Fetcher([], 100_000, 5, resolve=resolve, network=network), url)
    assert "no address that may be asked" in said
    assert network.connected == []


@pytest.mark.parametrize("answer", [["10.0.0.1"], ["::ffff:10.0.0.1"], [PUBLIC, "10.0.0.1"], []])
async def test_names_of_inner_addresses_are_refused(server: PictureServer, answer: list[str]) -> None:
    network = Internet(server)
    said = await refused(
        public(Names({"inner.example": [answer]}), network), "http://inner.example/photo.png"
    )
    unknown = await refused(public(Names({}), network), "http://unknown.example/photo.png")
    assert said == unknown  # who asks does not learn which names there are inside
    assert network.connected == []


@pytest.mark.parametrize(
    "to", ["http://inner.example/photo.png", "http://127.0.0.1/photo.png", "//10.0.0.1/a"]
)
async def test_a_redirect_inside_is_refused(server: PictureServer, to: str) -> None:
    server.redirect("/moved", to)
    names, network = Names(ANYWHERE | {"inner.example": [["192.168.0.1"]]}), Internet(server)
    said = await refused(public(names, network), "http://pictures.example/moved")
    assert "no address that may be asked" in said
    assert network.connected == [(PUBLIC, 80)]


async def test_a_redirect_is_looked_up_again(server: PictureServer) -> None:
    server.redirect("/moved", "/photo.png")
    names, network = Names({"pictures.example": [[PUBLIC], ["10.0.0.1"]]}), Internet(server)
    await refused(public(names, network), "http://pictures.example/moved")
    assert network.connected == [(PUBLIC, 80)]


async def test_what_is_not_listed_is_refused_by_redirect_too(server: PictureServer) -> None:
    server.redirect("/moved", "http://other.example/photo.png")
    fetcher = listed(server)
    for url in ("http://127.0.0.1/photo.png", f"http://{server.authority}/moved"):
        assert "`server.image_hosts`" in await refused(fetcher, url)


async def test_other_ports_want_to_be_listed(server: PictureServer) -> None:
    fetcher = public(Names(ANYWHERE), Internet(server))
    assert "port" in await refused(fetcher, "http://pictures.example:8080/photo.png")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://pictures.example/photo.png", "no http or https address"),
        ("file:///etc/passwd", "no http or https address"),
        ("//pictures.example/photo.png", "no http or https address"),
        ("http://", "no http or https address"),
        ("photo.png", "no http or https address"),
        ("http://pictures.example/" + "a" * 5000, "no http or https address"),
        ("http://user:password@pictures.example/photo.png", "user name or a password"),
        ("http://user@pictures.example/photo.png", "user name or a password"),
        ("http://" + "a" * 64 + ".example/", "no address that may be asked"),
    ],
)
async def test_what_is_no_plain_address_is_refused(server: PictureServer, url: str, said: str) -> None:
    assert said in await refused(Fetcher([], 100_000, 5, network=Internet(server)), url)


@pytest.mark.parametrize(
    "to", ["ftp://pictures.example/a", "file:///etc/passwd", "http://u:p@pictures.example/a"]
)
async def test_a_redirect_to_no_plain_address_is_refused(server: PictureServer, to: str) -> None:
    server.redirect("/moved", to)
    await refused(public(Names(ANYWHERE), Internet(server)), "http://pictures.example/moved")
    assert len(server.asked) == 1


# --- how much


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/announced", "more than 100,000 bytes"),
        ("/endless", "more than 100,000 bytes"),
        ("/compressed", "comes compressed"),
        ("/missing", "status 404"),
        ("/cut", "broke off"),
        ("/nonsense", "broke off"),
    ],
)
async def test_what_is_too_much_or_broken_is_refused(server: PictureServer, path: str, said: str) -> None:
    assert said in await refused(listed(server), f"http://{server.authority}{path}")


async def test_redirects_in_a_circle_end(server: PictureServer) -> None:
    said = await refused(listed(server), f"http://{server.authority}/circle")
    assert "redirected more than 3 times" in said
    assert len(server.asked) == 4


async def test_what_does_not_come_in_time_is_refused(server: PictureServer) -> None:
    fetcher = listed(server, limit_s=0.05)
    assert "did not come within 0.05 s" in await refused(fetcher, f"http://{server.authority}/silent")


async def test_a_server_that_is_not_there_is_one_sentence() -> None:
    fetcher = Fetcher(["127.0.0.1:1"], 1000, 5)
    assert "cannot be reached" in await refused(fetcher, "http://127.0.0.1:1/photo.png")


async def test_after_failures_there_is_room_for_the_next(server: PictureServer) -> None:
    fetcher = listed(server)
    for _ in range(9):  # more than may be at once
        await refused(fetcher, f"http://{server.authority}/endless")
    assert await fetcher.fetch(f"http://{server.authority}/photo.png", "image_url") == PHOTO
