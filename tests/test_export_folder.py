"""The life of an export's folder: under its name it is whole, or it is not there."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.errors import ExportError, UnsupportedExportError
from export.unfinished import check_output, unfinished

ROOT = Path(__file__).parents[1]

SLOW = """
import sys, time
from pathlib import Path
from export.unfinished import unfinished
with unfinished(Path(sys.argv[1]), replace=True) as folder:
    (folder / "model.onnx").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "exports" / "tiny"


def write(output: Path, text: str = "new", *, replace: bool = False) -> None:
    with unfinished(output, replace=replace) as folder:
        (folder / "manifest.json").write_text(text)
        (folder / "unet").mkdir()
        (folder / "unet" / "model.onnx").write_text(text)


def beside(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


def writing(output: Path) -> subprocess.Popen[str]:
    """A process of its own that is in the middle of writing."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(output)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_it_gets_its_name_when_it_is_whole(output: Path) -> None:
    with unfinished(output) as folder:
        (folder / "manifest.json").write_text("{}")
        assert folder.parent == output.parent
        assert not output.exists()
    assert (output / "manifest.json").read_text() == "{}"
    assert beside(output) == ["tiny"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), ExportError("no"), ValueError("torch")])
def test_what_fails_or_is_stopped_leaves_nothing(stop: BaseException, output: Path) -> None:
    with pytest.raises(type(stop)), unfinished(output) as folder:
        (folder / "model.onnx").write_text("half")
        raise stop
    assert beside(output) == []


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_nothing_under_the_name_and_the_next_clears_up(
    ended_by: int, output: Path
) -> None:
    process = writing(output)
    os.kill(process.pid, ended_by)
    process.communicate()
    assert not output.exists()
    assert ".tiny.unfinished" in beside(output)
    write(output)
    assert beside(output) == ["tiny"]
    assert sorted(path.name for path in output.iterdir()) == ["manifest.json", "unet"]


def test_a_killed_run_leaves_the_old_export_where_it_was(output: Path) -> None:
    write(output, "old")
    process = writing(output)
    process.kill()
    process.communicate()
    assert (output / "manifest.json").read_text() == "old"


def test_a_run_killed_between_the_two_renames_gives_the_old_export_back(output: Path) -> None:
    write(output, "old")
    output.rename(output.with_name(".tiny.replaced"))
    with pytest.raises(UnsupportedExportError, match="is there already"):
        write(output, "new")
    assert (output / "manifest.json").read_text() == "old"


def test_two_runs_do_not_write_one_output(output: Path) -> None:
    process = writing(output)
    try:
        with pytest.raises(UnsupportedExportError, match="is being written by another run"):
            write(output)
        assert process.poll() is None
        assert ".tiny.unfinished" in beside(output)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(code: int, output: Path) -> None:
    with (
        pytest.raises(ExportError, match="The disk of `output` 'tiny' is full") as caught,
        unfinished(output),
    ):
        raise OSError(code, os.strerror(code))
    assert caught.value.exit_code == 1
    assert beside(output) == []


def test_a_disk_that_fails_at_the_last_moment_leaves_the_old_export(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(output, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExportError, match="is full"):
        write(output, "new", replace=True)
    assert (output / "unet" / "model.onnx").read_text() == "old"
    assert beside(output) == ["tiny"]


def test_an_output_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="`output` 'tiny' could not be written"):
        write(tmp_path / "file" / "tiny")


def test_an_export_that_is_there_stays_unless_it_may_be_replaced(output: Path) -> None:
    write(output, "old")
    with pytest.raises(UnsupportedExportError, match="'tiny' is there already; name another folder"):
        write(output, "new")
    assert (output / "manifest.json").read_text() == "old"
    write(output, "new", replace=True)
    assert (output / "manifest.json").read_text() == "new"
    assert beside(output) == ["tiny"]


def test_what_is_no_export_is_never_replaced(output: Path) -> None:
    output.mkdir(parents=True)
    (output / "thesis.txt").write_text("years of work")
    with pytest.raises(UnsupportedExportError, match="is no export, so `force` does not replace it"):
        write(output, replace=True)
    assert (output / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_may_be_written_and_a_file_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnsupportedExportError, match="'file' is a file; name a folder"):
        check_output(tmp_path / "file", replace=True)
