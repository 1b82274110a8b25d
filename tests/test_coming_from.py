"""docs/coming-from.md: every ability has a test, and every test that is named exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TABLES = (ROOT / "docs/coming-from.md").read_text().split("## Not carried over")[0]
ROWS = [line for line in TABLES.splitlines() if line.startswith("| ") and not line.startswith("| ability")]
SURFACES = {"Python", "CLI", "HTTP", "page", "environment"}


def test_about_ninety_abilities_are_told() -> None:
    assert len(ROWS) >= 90


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50].strip())
def test_a_row_names_tests_that_there_are_and_its_surface(row: str) -> None:
    *_, tests, surface = (cell.strip() for cell in row.strip("|").split(" | "))
    named = re.findall(r"`(\w+\.py)::(\w+)`", tests)
    assert named, "a row without a test is not done"
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), name
    assert {word for word in SURFACES if word in surface}
