"""`triptych top`: lanes, queues, memory and the newest requests of a running service, live."""

from __future__ import annotations

import time
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from router.cli.failures import reported
from router.cli.options import AsJson
from router.cli.output import STDOUT, print_json
from router.cli.remote import Remote, RemoteError
from router.cli.top_tables import tables_of
from router.server.settings import ServerSettings, load_server_settings
from router.server.stand import RecordDocument, Records, Statistics

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Snapshot(NamedTuple):
    """One look at the service."""

    statistics: Statistics
    records: list[RecordDocument]


def top(
    ctx: typer.Context,
    url: Annotated[
        str | None, typer.Option("--url", help="Of the service; else `server.host` and `server.port`.")
    ] = None,
    key: Annotated[
        str, typer.Option("--key", help="One of its API keys; without --url the first of `server.keys`.")
    ] = "",
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=3600, help="Seconds from look to look.")
    ] = 1.0,
    requests: Annotated[int, typer.Option("--requests", min=1, max=1000, help="The newest to show.")] = 12,
    once: Annotated[bool, typer.Option("--once", help="Look once and print.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show lanes, queues, memory and the newest requests of a running service; Ctrl-C ends it."""
    with reported(as_json):
        remote = _remote(ctx, url, key)
        snapshot = _look(remote, requests)
        if as_json:
            print_json(_described(remote, snapshot))
        elif once or not STDOUT.is_terminal:
            STDOUT.print(_shown(remote, snapshot))
        else:
            _watch(remote, snapshot, every, requests)


def _watch(remote: Remote, snapshot: Snapshot, every: float, requests: int) -> None:
    """Until Ctrl-C. A service that goes away meanwhile is waited for."""
    fault, before = "", snapshot
    try:
        with Live(_shown(remote, snapshot), console=STDOUT, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                try:
                    before, snapshot, fault = snapshot, _look(remote, requests), ""
                except RemoteError as exc:
                    fault = str(exc)
                live.update(_shown(remote, snapshot, before, fault), refresh=True)
    except KeyboardInterrupt:
        return


def _look(remote: Remote, requests: int) -> Snapshot:
    statistics = remote.get("/api/v1/statistics", Statistics)
    return Snapshot(statistics, remote.get(f"/api/v1/records?limit={requests}", Records).records)


def _described(remote: Remote, snapshot: Snapshot) -> dict[str, Any]:
    records = [record.model_dump() for record in snapshot.records]
    return {"url": remote.url, "statistics": snapshot.statistics.model_dump(), "records": records}


def _shown(remote: Remote, snapshot: Snapshot, before: Snapshot | None = None, fault: str = "") -> Group:
    """Rates are those since `before`; without it, since the start of the service."""
    earlier = before.statistics if before else None
    title = Text(f"triptych {snapshot.statistics.version} at {remote.url}", style="bold")
    parts = [title, *tables_of(snapshot.statistics, earlier, snapshot.records)]
    return Group(*([Text(fault, style="red")] if fault else []), *parts)


def _remote(ctx: typer.Context, url: str | None, key: str) -> Remote:
    """The configured keys go to the configured service alone."""
    if url is not None:
        return Remote(url, key)
    settings = load_server_settings(ctx.obj)
    first = next((each.get_secret_value() for each in settings.keys), "")
    return Remote(_url_of(settings), key or first)


def _url_of(settings: ServerSettings) -> str:
    host = _EVERYWHERE.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port or 8000}"
