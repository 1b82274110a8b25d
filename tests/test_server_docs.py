"""docs/service.md: every setting stands in it, and the addresses in it exist."""

from __future__ import annotations

import re
from pathlib import Path

from router.router import BackendRouter
from router.server.app import create_app
from router.server.settings import ServerSettings
from tests.services import fake_config

TEXT = (Path(__file__).parent.parent / "docs/service.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_table() -> None:
    table = TEXT.partition("## Settings")[2]
    named = set(re.findall(r"`([a-z_]+)`", table))
    missing = [
        name for name in ServerSettings.model_fields if name not in named and not name.startswith("jobs_")
    ]
    assert missing == []


def test_every_address_is_served() -> None:
    served = set(create_app(BackendRouter(fake_config()), ServerSettings()).openapi()["paths"])
    rows = [line for line in TEXT.splitlines() if line.startswith(("| `POST", "| `GET"))]
    addresses = [
        word for line in rows for word in re.findall(r"`(?:POST |GET )?(/[^`]*)`", line.split("|")[1])
    ]
    known = {re.sub(r"\{[^}]*\}.*", "", path) for path in served}
    assert addresses
    assert [path for path in addresses if re.sub(r"\{[^}]*\}.*", "", path) not in known] == []
