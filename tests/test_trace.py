"""The timeline: which requests shared which tick, in Chrome's Trace Event Format, bounded and whole."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from router.call import Call
from router.config import RouterConfig, WatchConfig
from router.request_id import REQUEST_ID
from router.router import BackendRouter
from router.settings import load_config
from router.task import Task
from router.trace import Request, Span, Trace
from tests.command_line import DEMO, configure, triptych
from tests.services import fake_config

ROOT = Path(__file__).parent.parent


def watched(path: Path, **options: Any) -> RouterConfig:
    return fake_config(**options).model_copy(update={"watch": WatchConfig(trace=path)})


def check_form(document: dict[str, Any]) -> None:
    """What "Trace Event Format" asks of the events that are used here."""
    json.dumps(document, allow_nan=False)
    assert document["displayTimeUnit"] in ("ms", "ns")
    for event in document["traceEvents"]:
        assert event["ph"] in "MXbe"
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            assert set(event["args"]) <= {"name", "sort_index"}
        else:
            assert event["ts"] >= 0
            assert event["cat"]
        if event["ph"] == "X":
            assert event["dur"] >= 0
    for row in rows_of(document).values():
        check_nesting(row)
    check_threads(document)


def check_nesting(row: list[dict[str, Any]]) -> None:
    """Of one category and id: in the order of time, and the last begun ends first."""
    open_names = []
    assert [event["ts"] for event in row] == sorted(event["ts"] for event in row)
    for event in row:
        if event["ph"] == "b":
            open_names.append(event["name"])
        else:
            assert open_names.pop() == event["name"]
    assert open_names == []


def check_threads(document: dict[str, Any]) -> None:
    """Complete events of one thread do not overlap, and the thread has a name."""
    named = {event["tid"] for event in document["traceEvents"] if event["name"] == "thread_name"}
    for thread in named:
        ticks = [event for event in ticks_of(document) if event["tid"] == thread]
        for one, following in itertools.pairwise(ticks):
            assert one["ts"] + one["dur"] <= following["ts"] + 0.002  # rounded to nanoseconds
    assert {event["tid"] for event in ticks_of(document)} == named


def rows_of(document: dict[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in document["traceEvents"]:
        if event["ph"] in "be":
            rows.setdefault((event["cat"], event["id2"]["local"]), []).append(event)
    return rows


def ticks_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in document["traceEvents"] if event["ph"] == "X"]


async def ask(router: BackendRouter, id: str, **fields: Any) -> None:
    REQUEST_ID.set(id)  # of this task alone
    await router.generate(**{"prompt": "a house called Rosebud"} | fields)


async def test_it_shows_which_requests_shared_which_tick(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    async with BackendRouter(watched(path, step_s=0.02)) as router:
        await router.load()
        async with asyncio.TaskGroup() as asking:
            asking.create_task(ask(router, "long", num_inference_steps=6))
            asking.create_task(ask(router, "short", num_inference_steps=3, guidance_scale=1.0))
            asking.create_task(ask(router, "large", num_inference_steps=2, height=128, width=128))
    text = await asyncio.to_thread(path.read_text)
    document = json.loads(text)
    check_form(document)
    shared = [set(tick["args"]["requests"]) for tick in ticks_of(document)]
    assert {"long", "short"} in shared
    assert {"long"} in shared
    assert all(one == {"large"} for one in shared if "large" in one), "another size shares no tick"
    assert sum("long" in one for one in shared) == 6
    (both, *_) = [tick["args"] for tick in ticks_of(document) if len(tick["args"]["requests"]) == 2]
    assert (both["rows"], sorted(both["rows_of_each"]), both["stage"]) == (3, [1, 2], "steps")
    assert "Rosebud" not in text


async def test_a_request_is_a_row_of_its_stages(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    async with BackendRouter(watched(path, step_s=0.005, load_s=0.01)) as router:
        await ask(router, "first", num_images_per_prompt=2)
    document = json.loads(await asyncio.to_thread(path.read_text))
    check_form(document)
    one, other = rows_of(document).values()
    assert [event["name"] for event in one if event["ph"] == "b"] == [
        "request first", "queued", "load", "generate", "steps"
    ] or [event["name"] for event in one if event["ph"] == "b"] == [
        "request first", "load", "generate", "steps"
    ]  # fmt: skip
    assert [event["name"] for event in other if event["ph"] == "b"] == ["picture 2", "steps"]
    assert one[0]["args"]["pictures"] == 2
    assert one[0]["args"]["model"] == "demo"


async def test_without_a_file_nothing_is_noted() -> None:
    async with BackendRouter(fake_config()) as router:
        await router.generate(prompt="x")
        (lane,) = router._catalogue.lanes.values()
        assert router.trace is None
        assert lane._hub._trace is None


def tasks(*ids: str) -> Iterator[Any]:
    for id in ids:
        REQUEST_ID.set(id)
        yield Task(lambda: None, None)


async def test_the_newest_are_kept_and_the_others_counted(tmp_path: Path) -> None:
    trace, (task,) = Trace(tmp_path / "trace.json", most=3), tasks("a")
    gather = SimpleNamespace(stage="text")
    for second in range(5):
        trace.tick("cpu", second, second + 0.5, [task], [Call("key", 2, gather)])
        trace.request(Request(f"{second}", (Span(f"request {second}", second, second + 1.0, 0, {}),)))
    document = trace.document()
    check_form(document)
    assert document["otherData"] == {"ticks": 3, "ticks_let_go": 2, "requests": 3}
    assert [tick["name"] for tick in ticks_of(document)] == ["text 2"] * 3
    assert ticks_of(document)[0]["ts"] == 0, "times are told from the first event that is kept"


async def test_an_empty_one_is_whole_too(tmp_path: Path) -> None:
    check_form(Trace(tmp_path / "trace.json").document())


def test_a_file_that_cannot_be_written_is_told_and_no_half_is_left(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    trace = Trace(taken)
    trace.write()
    assert "cannot be written" in trace.error
    assert list(tmp_path.iterdir()) == [taken]


# --- from outside


def test_the_command_line_writes_one(folder: Path) -> None:
    prompts = ("a circle", "a square", "a star")
    result = triptych("generate", *prompts, "-o", "out.png", "--trace", "trace.json")
    assert result.exit_code == 0
    assert "note: the timeline is in trace.json" in result.stderr
    document = json.loads((folder / "trace.json").read_text())
    check_form(document)
    assert document["otherData"]["requests"] == 3


@pytest.mark.parametrize("place", ["none/trace.json", "."])
def test_a_place_where_none_can_be_is_refused_before_any_work(folder: Path, place: str) -> None:
    result = triptych("generate", "a circle", "-o", "out.png", "--trace", place)
    assert (result.exit_code, "choose another place" in result.stderr) == (2, True)
    assert not (folder / "out.png").exists()


def test_the_default_router_writes_one_when_the_process_ends(folder: Path) -> None:
    code = "import router; router.generate_sync(prompt='x')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRIPTYCH_TRACE": "trace.json"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert json.loads((folder / "trace.json").read_text())["otherData"]["requests"] == 1


def test_the_file_names_it_beside_itself_and_a_variable_from_here(tmp_path: Path) -> None:
    configure(tmp_path, f'watch = {{ trace = "of-the-file.json", records = 5 }}\n{DEMO}')
    place, here = tmp_path / "triptych.toml", tmp_path / "here"
    assert load_config(place, {}, here).watch.trace == tmp_path / "of-the-file.json"
    watch = load_config(place, {"TRIPTYCH_TRACE": "mine.json", "TRIPTYCH_SLOW_S": "2"}, here).watch
    assert (watch.trace, watch.slow_s, watch.records) == (here / "mine.json", 2, 5)


def test_it_can_be_drawn(folder: Path) -> None:
    triptych("generate", "a circle", "a square", "-o", "out.png", "--trace", "trace.json")
    command = [sys.executable, ROOT / "scripts/draw_trace", "trace.json", "timeline.png"]
    subprocess.run(command, check=True)
    with Image.open(folder / "timeline.png") as picture:
        assert picture.width == 1600
        assert len(picture.getcolors(1 << 20) or ()) > 5
