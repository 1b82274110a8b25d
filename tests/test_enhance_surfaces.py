"""Enhanced prompts where users meet them: configuration, command line, HTTP forms, metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router import images
from tests.command_line import DEMO, as_object, configure, triptych
from tests.configurations import read, refused
from tests.enhancer_doubles import KIND, _forget_enhancers, loud, the_one  # noqa: F401 -- a fixture
from tests.services import Service, fake_config, serving

ENHANCED = f'{DEMO}\n[enhance]\nkind = "{KIND}"\n'
BOTH = {"original": "a red circle", "prompt": "A RED CIRCLE", "cached": False}


# --- configuration


def test_the_table_is_read_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "writer").mkdir()
    text = '[enhance]\nkind = "transformers"\nsource = "./writer"\nlimit_s = 5\non_failure = "original"\n'
    found = read(tmp_path, text, enhance_limit_s="7", enhance_by_default="true").enhance
    assert found is not None
    assert found.source == str((tmp_path / "writer").resolve())
    assert (found.limit_s, found.by_default, found.on_failure) == (7, True, "original")
    assert read(tmp_path, DEMO).enhance is None


def test_the_environment_alone_will_do(tmp_path: Path) -> None:
    found = read(
        tmp_path, enhance_kind="chat", enhance_source="http://127.0.0.1/v1", enhance_model="m"
    ).enhance
    assert found is not None
    assert (found.kind, found.source, found.model) == ("chat", "http://127.0.0.1/v1", "m")


@pytest.mark.parametrize(
    ("text", "variables", "says"),
    [
        (
            '[enhance]\nkind = "chatt"\n',
            {},
            "`enhance.kind`: There is no enhancer 'chatt'; did you mean 'c",
        ),
        ('[enhance]\nkind = "chat"\nlimit = 5\n', {}, "there is no key `limit`; did you mean limit_s?"),
        ('[enhance]\nsource = "x"\n', {}, "`kind` is missing"),
        ('[enhance]\nkind = "chat"\nkey = "sk-1"\n', {}, "there is no key `key`"),
        (
            "",
            {"enhance_knd": "chat"},
            "no variable TRIPTYCH_ENHANCE_KND; did you mean TRIPTYCH_ENHANCE_K",
        ),
        ("", {"enhance_kind": "chat", "enhance_limit_s": "0"}, "`TRIPTYCH_ENHANCE_LIMIT_S` is '0'"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, variables: dict[str, str], says: str) -> None:
    assert says in refused(tmp_path, text, **variables)


# --- command line


def test_the_command_line_enhances_and_tells_both_prompts(folder: Path) -> None:
    configure(folder, ENHANCED)
    result = triptych("generate", "a red circle", "--enhance", "-o", "out.png", "--json")
    (picture,) = as_object(result)["pictures"]
    assert picture["enhancement"] == BOTH
    assert picture["parameters"]["prompt"] == "A RED CIRCLE"
    record = json.loads(images.read_metadata((folder / "out.png").read_bytes())["triptych"])
    assert record["enhancement"] == BOTH
    said = triptych("generate", "a red circle", "--enhance", "-o", "out.png").output
    assert "The prompt became: A RED CIRCLE" in said


def test_the_command_line_can_say_no(folder: Path) -> None:
    configure(folder, f"{ENHANCED}by_default = true\n")
    result = triptych("generate", "a red circle", "--no-enhance", "-o", "out.png", "--json")
    (picture,) = as_object(result)["pictures"]
    assert "enhancement" not in picture
    assert picture["parameters"]["prompt"] == "a red circle"


def test_check_asks_the_enhancer_once(folder: Path) -> None:
    configure(folder, f"{ENHANCED}by_default = true\n")
    said = triptych("check").output
    assert f"enhancer: {KIND}, an answer of 34 characters" in said
    assert len(the_one().asked) == the_one().closed == 1
    configure(folder, f'{DEMO}\n[enhance]\nkind = "chat"\nsource = "ftp://here"\n')
    wrong = triptych("check")
    assert wrong.exit_code == 2
    assert "enhancer: `enhance.source` must be the http or https address" in wrong.output


@pytest.mark.parametrize("command", ["generate", "explain"])
def test_without_an_enhancer_the_command_line_says_so(folder: Path, command: str) -> None:
    result = triptych(command, "a red circle", "--enhance")
    assert result.exit_code == 3
    assert "`--enhance` is true, but no enhancer is configured" in result.output


# --- HTTP


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    config = fake_config().model_copy(update={"enhance": loud(on_failure="original")})
    with serving(tmp_path_factory.mktemp("enhance"), config) as service:
        yield service


def test_the_native_form_tells_both_prompts_and_keeps_them(service: Service) -> None:
    made = service.post("/api/v1/generate", prompt="a red circle", enhance=True).json()
    assert made["meta"]["enhancement"] == BOTH
    assert made["meta"]["parameters"]["prompt"] == "A RED CIRCLE"
    assert made["meta"]["timings"]["enhance_s"] > 0
    assert service.http.get(made["meta_url"]).json()["enhancement"] == BOTH
    plain = service.post("/api/v1/generate", prompt="a red circle").json()
    assert plain["meta"]["enhancement"] is None


def test_raw_bytes_tell_them_in_a_header(service: Service) -> None:
    reply = service.post("/generate", prompt="ein grüner\nKreis", enhance=True)
    told = json.loads(reply.headers["X-Triptych-Enhancement"])
    assert told == {"original": "ein grüner\nKreis", "prompt": "EIN GRÜNER KREIS", "cached": False}
    assert "enhance;dur=" in reply.headers["Server-Timing"]
    assert "X-Triptych-Enhancement" not in service.post("/generate", prompt="a").headers


def test_a_prompt_too_long_for_a_header_is_told_of(service: Service) -> None:
    reply = service.post("/generate", prompt="ü" * 400, enhance=True)
    assert "X-Triptych-Enhancement" not in reply.headers
    assert "too long for a header" in reply.headers["X-Triptych-Notes"]


def test_openai_s_form_takes_it_too(service: Service) -> None:
    made = service.post("/v1/images/generations", prompt="an oval", enhance=True).json()
    assert made["meta"]["enhancement"]["prompt"] == "AN OVAL"
    form = {"prompt": "an oval", "enhance": "true", "strength": "0.5"}
    picture = images.encode(images.RawImage(64, 64, bytes(64 * 64 * 3)))
    edited = service.http.post("/v1/images/edits", data=form, files={"image": ("a.png", picture)})
    assert edited.json()["meta"]["enhancement"] == {
        "original": "an oval",
        "prompt": "AN OVAL",
        "cached": True,
    }


def test_a_failure_that_falls_back_is_in_the_notes(service: Service) -> None:
    service.post("/generate", prompt="warm", enhance=True)
    the_enhancer(service).fails = [RuntimeError("a secret")]
    made = service.post("/api/v1/generate", prompt="a cone", enhance=True).json()["meta"]
    assert (made["enhancement"], made["parameters"]["prompt"]) == (None, "a cone")
    assert "could not be enhanced" in made["notes"][0]
    assert "a secret" not in f"{made}"


def test_a_job_has_it_in_its_facts(service: Service) -> None:
    job = service.post("/v1/jobs", prompt="a cube", enhance=True).json()
    with service.http.stream("GET", job["events_url"]) as events:
        for _ in events.iter_lines():
            pass
    done = service.http.get(job["url"]).json()
    assert done["meta"]["enhancement"]["prompt"] == "A CUBE"
    assert done["parameters"]["prompt"] == "a cube"


def test_capabilities_and_metrics_tell_of_the_enhancer(service: Service) -> None:
    document = service.http.get("/api/v1/capabilities").json()
    assert document["enhancer"] == {"by_default": False, "on_failure": "original"}
    for _ in range(2):
        service.post("/generate", prompt="a known one", enhance=True)
    lines = service.http.get("/metrics").text.splitlines()
    counts = {line.split()[0]: float(line.split()[1]) for line in lines if "enhancements_total{" in line}
    assert counts['triptych_enhancements_total{answer="hits"}'] >= 1
    assert counts['triptych_enhancements_total{answer="made"}'] >= 1


def test_without_an_enhancer_it_is_refused_and_the_page_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as plain:
        reply = plain.post("/api/v1/generate", prompt="a", enhance=True)
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == "enhance"
        assert plain.http.get("/api/v1/capabilities").json()["enhancer"] is None
        assert "enhancements" not in plain.http.get("/metrics").text


def the_enhancer(service: Service) -> Any:
    return service.front.router._enhancements._opening.result()  # type: ignore[union-attr]
